"""Compute what stands at a place of a table: a mean over seeds, a difference of cells, a p-value."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from statistics import median, quantiles

from orchestrator.records import Origin
from orchestrator.statistics import (
    Candidate,
    compare,
    contrast,
    half_width,
    mean_of,
    spread_of,
)
from reports.results import Cell, Trial
from reports.table import Entry, Sample

ERROR_RATES = ("top1_error", "top5_error", "accuracy")


def sample(trial: Trial, quantity: str) -> Sample | None:
    """Return one trial's value of a quantity, None where it has none."""
    if quantity in ("seconds", "epoch_seconds"):
        clock = trial.training if quantity == "seconds" else trial.epoch
        if clock is None:
            return None
        measured = trial.measurements.get((0, "main"))
        epoch = measured.epoch + 1 if measured and quantity == "seconds" else None
        return Sample(trial.key, trial.name, trial.seed, epoch, clock.value, None, clock.exclusive, pair=trial.pair)
    place, metric = quantity.split("/")
    network, _, classifier = place.rpartition(":")
    measured = trial.measurements.get((int(network or 0), classifier))
    if measured is None:
        return None
    value = measured.metrics.get("top1_error" if metric == "accuracy" else metric)
    if value is None:
        return None
    images = measured.images if metric in ERROR_RATES else None
    value = 100 - value if metric == "accuracy" else value
    epoch = measured.epoch + 1
    sample = Sample(trial.key, trial.name, trial.seed, epoch, value, images, compiled=trial.compiled, pair=trial.pair)
    outcomes = measured.outcomes if metric in ("top1_error", "accuracy") else None
    origins = tuple(_behind(metric, origin) for origin in trial.origins)
    return sample._replace(origins=origins, outcomes=outcomes, replaced=trial.replaced)


def _behind(metric: str, origin: Origin) -> Origin:
    """Return an origin without the metrics that have no say in this one."""
    parts = tuple(part for part in origin.parts if part.kind != "metric" or part.name == metric)
    return replace(origin, parts=parts)


def entry(cell: Cell | None, quantity: str, show: str = "mean_std") -> Entry:
    """Return what the seeds of a cell that are there come to: mean and sample standard deviation, or as `show` says."""
    if cell is None:
        return Entry(quantity=quantity)
    trials = cell.trials
    if quantity == "epoch_seconds":
        # A timing pass measures one seed of a cell; what the others took in company is not averaged with it.
        trials = tuple(trial for trial in trials if trial.epoch and trial.epoch.timing_pass) or trials
    planned = len(trials)
    samples = tuple(found for trial in trials if (found := sample(trial, quantity)) is not None)
    states = Counter(trial.state for trial in trials)
    diverged = states["diverged"] + sum(math.isnan(each.value) for each in samples)
    samples = tuple(each for each in samples if not math.isnan(each.value))
    measured_keys = {each.key for each in samples}
    absent = tuple((trial.key, trial.name, trial.state) for trial in trials if trial.key not in measured_keys)
    if not samples:
        state = next((name for name in ("running", "diverged", "failed") if states[name]), "missing")
        state = "diverged" if diverged and state == "missing" else state
        return Entry(state, None, None, 0, planned, diverged, absent=absent, quantity=quantity, config=cell.config)
    values = [each.value for each in samples]
    value, spread = summary(values, show) if all(map(math.isfinite, values)) else (math.inf, None)
    return Entry(
        "done" if len(samples) == planned else "partial",
        value,
        spread,
        len(samples),
        planned,
        diverged,
        star=not all(each.exclusive for each in samples),
        samples=samples,
        absent=absent,
        quantity=quantity,
        config=cell.config,
    )


def summary(values: Sequence[float], show: str) -> tuple[float, float | None]:
    """Return a number for one or more values, and its spread; None where one value has none."""
    if show == "median_iqr":
        if len(values) < 2:
            return values[0], None
        low, _, high = quantiles(values, n=4, method="inclusive")
        return median(values), high - low
    if show == "mean_ci95":
        return mean_of(values), half_width(values) if len(values) > 1 else None
    return mean_of(values), spread_of(values)


def weighted_sum(terms: Sequence[tuple[Cell | None, float]], quantity: str, show: str = "mean_std") -> Entry:
    """Return a weighted sum of cells, seed by seed over the seeds that all of them have.

    With `show` noise, the spread is half the 95 % interval of `statistics.contrast`.
    """
    cells = [cell for cell, _ in terms if cell is not None]
    if len(cells) < len(terms):
        return Entry(quantity=quantity)
    weights = [weight for _, weight in terms]
    measured = [
        {pairing(trial): found for trial in cell.trials if (found := sample(trial, quantity)) is not None}
        for cell in cells
    ]
    planned = min(len(cell.trials) for cell in cells)
    shared = sorted(set.intersection(*(set(samples) for samples in measured)))
    samples = tuple(found[seed] for found in measured for seed in shared)
    if not samples or not all(math.isfinite(each.value) for each in samples):
        return Entry(planned=planned, quantity=quantity)
    sums = [sum(weight * found[seed].value for weight, found in zip(weights, measured, strict=True)) for seed in shared]
    if show != "noise":
        value, spread = summary(sums, show)
    else:
        own = [candidate_of([samples_of[seed] for seed in shared]) for samples_of in measured]
        comparison = contrast(list(zip(own, weights, strict=True)))
        value, spread = mean_of(sums), comparison.margin if comparison else None
    return Entry(
        "done" if len(shared) == planned else "partial",
        value,
        spread,
        len(shared),
        planned,
        star=not all(each.exclusive for each in samples),
        samples=samples,
        quantity=quantity,
    )


def pairing(trial: Trial | Sample) -> tuple[int, str]:
    """Return what pairs a trial with one of another cell: its seed, and the values that `over` averages."""
    return trial.seed, trial.pair


def p_value(cell: Cell | None, other: Cell | None, quantity: str) -> Entry:
    """Return the p-value that two cells are equally good: paired over seeds, or by the noise of an error rate."""
    first, second = entry(cell, quantity), entry(other, quantity)
    values = (first.value, second.value)
    if not all(value is not None and math.isfinite(value) for value in values):
        return Entry(planned=min(first.planned, second.planned), quantity=f"{quantity}-p")
    comparison = compare(candidate(first), candidate(second))
    samples = first.samples + second.samples
    n, planned = min(first.n, second.n), min(first.planned, second.planned)
    state = "done" if n == planned else "partial"
    if comparison is None:
        return Entry("text", n=n, planned=planned, quantity=f"{quantity}-p", text="no test")
    return Entry(state, comparison.p, None, n, planned, samples=samples, quantity=f"{quantity}-p")


def candidate(entry: Entry) -> Candidate:
    """Return what an entry competes with: a value per seed, and for an error rate what is known of its test images."""
    return candidate_of(entry.samples)


def candidate_of(samples: Sequence[Sample]) -> Candidate:
    """Return what samples compete with."""
    images = [sample.images for sample in samples if sample.images]
    return Candidate(
        {pairing(sample): sample.value for sample in samples},
        min(images) if images else None,
        {pairing(sample): sample.outcomes for sample in samples if sample.outcomes is not None},
    )
