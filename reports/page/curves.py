"""Everything measured along the epochs of trials, thinned to what a page has room for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.database import histories, queries
from reports.columns import AURC, AUROC, ECE, NLL, TOP1, TOP5, column_of

if TYPE_CHECKING:
    from orchestrator.database import Database

# Numbers of all curves together: about 3 MB of JSON.
NUMBERS = 400_000
# Series that a trial has, about: every metric of an evaluation and a few losses.
_SERIES = 10
_TITLES = {
    "top1_error": TOP1,
    "top5_error": TOP5,
    "nll": NLL,
    "ece": ECE,
    "aurc": AURC,
    "ood_auroc": AUROC,
}


def thinning(last_epochs: Mapping[int, int]) -> int:
    """Return of how many epochs one is shown, given the last epoch of every trial."""
    return max(1, -(-_SERIES * sum(last + 1 for last in last_epochs.values()) // NUMBERS))


def curves(database: Database, last_epochs: Mapping[int, int]) -> dict[str, Any]:
    """Return what trials, given the last epoch of each, measured along their epochs, one in `every` of them.

    `lines` has per trial id its `epochs` (from 1), the `seconds` from its start to the end of each, and the values of
    `series`, by the series' place; a value that is missing or no finite number is None.
    """
    every = thinning(last_epochs)
    lines: dict[int, dict[str, Any]] = {}
    places: dict[tuple[str, ...], int] = {}
    # Of a split and a network, the series of the metrics: there may be a million rows, and a few of these.
    metrics: dict[tuple[str, int], list[int]] = {}
    terms: dict[str, int] = {}
    rate_place = places.setdefault(("rate",), 0)

    def place_of(*key: str) -> int:
        return places.setdefault(key, len(places))

    with database.reading() as connection:
        asked = queries.own_metrics(connection)
        now, latest, at = None, None, 0
        series: dict[int, list[float | None]] = {}
        for row in histories.epochs(connection, last_epochs, every):
            trial, epoch, seconds, rate, losses, network, split, *values = tuple(row)
            if trial != now:
                now, latest, series = trial, None, {}
                line = lines[trial] = {"epochs": [], "seconds": [], "series": series}
            if epoch != latest:
                latest, at = epoch, len(line["epochs"])
                line["epochs"].append(epoch + 1)
                line["seconds"].append(rounded(seconds))
                _put(series, rate_place, at, rate)
                for term, value in (losses or {}).items():
                    place = terms.get(term)
                    if place is None:
                        place = terms[term] = place_of("loss", term)
                    _put(series, place, at, value)
            if network is not None:
                if (split, network) not in metrics:
                    metrics[split, network] = [place_of(split, str(network), name) for name in queries.METRICS]
                for place, value in zip(metrics[split, network], values, strict=True):
                    _put(series, place, at, value)
        if any(name not in queries.METRICS for name in asked):
            for row in histories.own_metrics(connection, last_epochs, every):
                if row.metric not in queries.METRICS:
                    line = lines[row.trial_id]
                    place = place_of(row.split, str(row.network), row.metric)
                    _put(line["series"], place, line["epochs"].index(row.epoch + 1), row.value)
    present = {place for line in lines.values() for place in line["series"]}
    places = {key: place for key, place in places.items() if place in present}
    order = sorted(places, key=_rank)
    new = {places[key]: place for place, key in enumerate(order)}
    for line in lines.values():
        # Epochs at the end may have no value.
        whole = {
            new[place]: values + [None] * (len(line["epochs"]) - len(values))
            for place, values in line["series"].items()
        }
        line["series"] = {str(place): whole[place] for place in sorted(whole)}
    return {"every": every, "series": [_series(key) for key in order], "lines": lines}


def _put(series: dict[int, list[float | None]], place: int, at: int, value: float | None) -> None:
    """Add a value of a series at the place `at` of its trial's epochs; the epochs before have None."""
    if value is None:
        return
    values = series.get(place)
    if values is None:
        values = series[place] = []
    if len(values) != at:
        values += [None] * (at - len(values))
    values.append(rounded(value))


def rounded(value: float | None) -> float | None:
    """Return a number with six significant digits, None for one that is not finite."""
    if value is None or not math.isfinite(value):
        return None
    short = float(f"{value:.6g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def _rank(key: tuple[str, ...]) -> tuple[Any, ...]:
    """Sort test metrics of the first network first, in the order of tables; losses and the learning rate last."""
    kind = {"test": 0, "validation": 1, "loss": 3, "rate": 4}.get(key[0], 2)
    metrics = list(_TITLES)
    place = metrics.index(key[-1]) if key[-1] in metrics else len(metrics)
    return kind, key[1:2] if len(key) > 2 else (), place, key


def _series(key: tuple[str, ...]) -> dict[str, Any]:
    """Return a series' key, its title, unit, and whether it is an error rate that a logarithm suits."""
    if key == ("rate",):
        return {"key": "learning rate", "title": "Learning rate", "unit": "", "direction": None}
    if key[0] == "loss":
        return {"key": f"loss {key[1]}", "title": f"Loss: {key[1]}", "unit": "", "direction": "lower"}
    split, network, metric = key
    column = _TITLES.get(metric) or column_of(metric)
    where = [split if split != "test" else "", f"network {int(network) + 1}" if network != "0" else ""]
    behind = ", ".join(filter(None, where))
    return {
        "key": f"{split} {network} {metric}",
        "title": column.title + (f" ({behind})" if behind else ""),
        "unit": column.unit,
        "direction": column.direction,
    }
