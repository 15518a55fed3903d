"""What methods add to each other, and what the loss is made of while they do."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from reports import titles
from reports.columns import QUALITY, Column
from reports.layouts.assemble import count_seeds, sample
from reports.layouts.cells import Slice, distinctions, slices, whole
from reports.results import Cell, Results, Trial
from reports.significance import error_rate_noise, half_width, mean_of, spread_of
from reports.table import Entry, Row, Sample, Table, mark_mixed

MOMENTS = ("First epoch", "1/4", "1/2", "3/4", "Last epoch")
# More seeds than this would make the shares no clearer, only slower to read.
LOSS_SEEDS = 5


def interactions(results: Results) -> list[Table]:
    """Build the table of what methods add alone and together, and what a combination adds beyond the sum of its parts.

    A network counts when its baseline, a combination and each of the combination's methods alone are in one setting.
    """
    columns = [replace(column, title=f"{column.title} gain", direction=None, form="signed") for column in QUALITY]

    def accept(cell: Cell) -> bool:
        return whole(cell) and not any(cell.methods.values()) and cell.config.get("peer") is None

    tables = []
    for part in slices(results, "interactions", accept):
        rows = [row for network in part.networks for row in _effects(part, network, columns)]
        if not any(entry.value is not None for row in rows for entry in row.entries):
            continue
        several = any(entry.planned > 1 for row in rows for entry in row.entries)
        notes: list[tuple[str, str]] = []
        rows, seeds = count_seeds(mark_mixed(rows, notes))
        caption = (
            part.about,
            "Gain: by how much the metric falls below the baseline's. Beyond the sum: the gain of a combination minus "
            "the gains of its methods alone; zero means that they add up.",
            "± half the 95 % confidence interval, paired over the shared seeds."
            if several
            else "± the 95 % binomial noise of the test images; one seed says nothing of the other metrics' noise.",
            "" if not several else seeds.replace("Mean ± sample standard deviation over", "Mean over"),
            results.selection.sentence,
        )
        tables.append(
            Table(
                part.name,
                "interactions",
                "What the methods add, alone and together",
                " ".join(filter(None, caption)),
                ("Effect",),
                tuple(columns),
                tuple(rows),
                tuple(notes),
                results.selection,
                part.fixed,
            )
        )
    return tables


def _effects(part: Slice, network: str, columns: Sequence[Column]) -> Iterator[Row]:
    present = {frozenset(cell.methods) for cell in part.cells if cell.network == network}
    alone = titles.method_names({name for names in present if len(names) == 1 for name in names})
    together = [
        names for size in range(2, len(alone) + 1) for names in combinations(alone, size) if frozenset(names) in present
    ]
    baseline = part.find(network, ())
    if baseline is None or not together:
        return
    wanted = [*((name,) for name in alone), *together]
    cells = {names: cell for names in wanted if (cell := part.find(network, names)) is not None}
    measured = {
        (id(cell), column.key): {
            found.seed: found for trial in cell.trials if (found := sample(trial, column.quantity)) is not None
        }
        for cell in (baseline, *cells.values())
        for column in columns
    }
    group = part.group(network)
    for names, cell in cells.items():
        plain = titles.plain(names)
        key = f"{network}/{titles.methods_key(plain)}"
        gain = [(baseline, 1), (cell, -1)]
        entries = tuple(_weighted_sum(gain, column, measured) for column in columns)
        yield Row(group, key, (titles.methods(plain),), entries)
        if len(names) > 1 and all((name,) in cells for name in names):
            beyond = [(baseline, 1 - len(names)), (cell, -1), *((cells[(name,)], 1) for name in names)]
            entries = tuple(_weighted_sum(beyond, column, measured) for column in columns)
            yield Row(group, f"{key}-beyond", (f"{titles.methods(plain)}, beyond the sum",), entries)


def _weighted_sum(
    terms: Sequence[tuple[Cell, int]], column: Column, measured: Mapping[tuple[int, str], Mapping[int, Sample]]
) -> Entry:
    """Return a weighted sum of cells, seed by seed, with the uncertainty of its mean."""
    cells = [measured[id(cell), column.key] for cell, _ in terms]
    weights = [weight for _, weight in terms]
    planned = min(len(cell.trials) for cell, _ in terms)
    shared = sorted(set.intersection(*(set(samples) for samples in cells)))
    samples = tuple(found[seed] for found in cells for seed in shared)
    if not samples or not all(math.isfinite(each.value) for each in samples):
        return Entry(planned=planned, quantity=column.quantity)
    sums = [sum(weight * found[seed].value for weight, found in zip(weights, cells, strict=True)) for seed in shared]
    spread = None
    if len(sums) > 1:
        spread = half_width(sums)
    elif len(images := [each.images for each in samples if each.images]) == len(samples):
        noise = [
            weight * error_rate_noise(each.value, count)
            for weight, each, count in zip(weights, samples, images, strict=True)
        ]
        spread = 1.96 * math.hypot(*noise)
    return Entry(
        "done" if len(shared) == planned else "partial",
        mean_of(sums),
        spread,
        len(shared),
        planned,
        samples=samples,
        quantity=column.quantity,
    )


def moments(results: Results) -> Iterable[tuple[int, int]]:
    """Return the (trial id, epoch) pairs whose losses `losses` asks for."""
    for cell in results.cells:
        for trial in _shown(cell):
            yield from dict.fromkeys((trial.id, epoch) for epoch in _epochs(trial))


def _shown(cell: Cell) -> list[Trial]:
    return [trial for trial in cell.done if trial.last_epoch is not None][:LOSS_SEEDS]


def _epochs(trial: Trial) -> list[int]:
    last = len(MOMENTS) - 1
    return [round((trial.last_epoch or 0) * place / last) for place in range(last + 1)]


def losses(results: Results, terms: Mapping[tuple[int, int], Mapping[str, float | None]]) -> list[Table]:
    """Build the table of each term's share in the loss over training; `terms` has the losses by (trial id, epoch)."""
    columns = tuple(Column(f"moment{place}", title, "%", "loss", digits=1) for place, title in enumerate(MOMENTS))
    several = {id(cell) for cell in results.cells for trial in _shown(cell) if len(terms.get((trial.id, 0), ())) > 1}
    tables = []
    for part in slices(results, "losses", lambda cell: id(cell) in several):
        others = distinctions(part.cells, ("peer", "stages", "heads"))
        rows = [
            row
            for network in part.networks
            for cell in part.cells
            if cell.network == network
            for row in _shares(part, cell, terms, others)
        ]
        if rows:
            rows, _ = count_seeds(rows)
            about = (
                f"{part.about} Share of each term in the training loss at five moments of training; mean ± sample "
                f"standard deviation over at most {LOSS_SEEDS} seeds."
            )
            title = "What the loss is made of"
            tables.append(Table(part.name, "losses", title, about, ("Method", "Term"), columns, tuple(rows)))
    return tables


def _shares(
    part: Slice, cell: Cell, terms: Mapping[tuple[int, int], Mapping[str, Any]], others: Sequence[str]
) -> Iterator[Row]:
    trials = _shown(cell)
    names = dict.fromkeys(name for trial in trials for name in terms.get((trial.id, 0), ()))
    given = [titles.field(name, cell.config[name]) for name in others if cell.config.get(name) is not None]
    label = ", ".join([titles.methods(cell.methods), *given])
    address = "/".join([cell.network, titles.methods_key(cell.methods), *map(titles.slug, given)])
    for name in names:
        entries = []
        for place in range(len(MOMENTS)):
            samples = []
            for trial in trials:
                epoch = _epochs(trial)[place]
                sizes = {each: abs(size or 0.0) for each, size in terms.get((trial.id, epoch), {}).items()}
                if total := sum(sizes.values()):
                    share = 100 * sizes.get(name, 0.0) / total
                    samples.append(Sample(trial.key, trial.name, trial.seed, epoch + 1, share, None))
            values = [each.value for each in samples]
            entries.append(
                Entry(
                    "done" if samples else "missing",
                    mean_of(values) if values else None,
                    spread_of(values),
                    len(samples),
                    len(samples),
                    samples=tuple(samples),
                    quantity="loss",
                )
            )
        yield Row(part.group(cell.network), f"{address}/{'-'.join(name.split())}", (label, name), tuple(entries))
