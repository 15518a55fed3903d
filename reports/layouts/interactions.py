"""Show the effects of methods on each other, and the parts of the loss while they are trained together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from orchestrator.statistics import mean_of, spread_of
from orchestrator.tables.addresses import method_names, methods_key, plain_methods, slug
from orchestrator.tables.schema import TableSpec
from reports import titles
from reports.columns import Column, column_of
from reports.layouts.assemble import count_seeds
from reports.layouts.cells import Slice, distinctions, slices, whole
from reports.layouts.entries import weighted_sum
from reports.results import Cell, Results, Trial
from reports.table import Entry, Row, Sample, Table, mark_mixed

MOMENTS = ("First epoch", "1/4", "1/2", "3/4", "Last epoch")
# More seeds than this would make the shares no clearer, only slower to read.
LOSS_SEEDS = 5


def interactions(results: Results, table: TableSpec, asking: Iterable[str] = ()) -> list[Table]:
    """Build the table of what methods add alone and together, and what a combination adds beyond the sum of its parts.

    A network counts when its baseline, a combination and each of the combination's methods alone are in one setting.
    """
    metrics = [column_of(spec.metric) for spec in table.columns]
    columns = [replace(column, title=f"{column.title} gain", direction=None, form="signed") for column in metrics]

    def accept(cell: Cell) -> bool:
        return whole(cell) and not any(cell.methods.values()) and cell.config.get("peer") is None

    tables = []
    for part in slices(results, table.name, accept, asking=asking, order=table.order.get("network", ())):
        rows = [row for network in part.networks for row in _effects(part, network, columns)]
        if not any(entry.value is not None for row in rows for entry in row.entries):
            continue
        several = any(entry.planned > 1 for row in rows for entry in row.entries)
        notes: list[tuple[str, str]] = []
        rows, seeds = count_seeds(mark_mixed(rows, notes))
        caption = (
            part.about,
            table.about,
            "± half the 95 % confidence interval, paired over the shared seeds; below three, paired over the test "
            "images where their outcomes are kept, else by binomial noise."
            if several
            else "± half the 95 % confidence interval over the test images, paired where their outcomes are kept, else "
            "by binomial noise; one seed says nothing of the other metrics' noise.",
            "" if not several else seeds.replace("Mean ± sample standard deviation over", "Mean over"),
            results.selection.sentence,
        )
        tables.append(
            Table(
                part.name,
                table.name,
                table.title,
                " ".join(filter(None, caption)),
                table.stub or ("Effect",),
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
    alone = method_names({name for names in present if len(names) == 1 for name in names})
    together = [
        names for size in range(2, len(alone) + 1) for names in combinations(alone, size) if frozenset(names) in present
    ]
    baseline = part.find(network, ())
    if baseline is None or not together:
        return
    wanted = [*((name,) for name in alone), *together]
    cells = {names: cell for names in wanted if (cell := part.find(network, names)) is not None}
    group = part.group(network)
    for names, cell in cells.items():
        plain = plain_methods(names)
        key = f"{network}/{methods_key(plain)}"
        gain: list[tuple[Cell | None, float]] = [(baseline, 1), (cell, -1)]
        entries = tuple(weighted_sum(gain, column.quantity, "noise") for column in columns)
        yield Row(group, key, (titles.methods(plain),), entries)
        if len(names) > 1 and all((name,) in cells for name in names):
            beyond: list[tuple[Cell | None, float]] = [
                (baseline, 1 - len(names)),
                (cell, -1),
                *((cells[(name,)], 1) for name in names),
            ]
            entries = tuple(weighted_sum(beyond, column.quantity, "noise") for column in columns)
            yield Row(group, f"{key}-beyond", (f"{titles.methods(plain)}, beyond the sum",), entries)


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


def losses(
    results: Results,
    table: TableSpec,
    terms: Mapping[tuple[int, int], Mapping[str, float | None]],
    asking: Iterable[str] = (),
) -> list[Table]:
    """Build the table of each term's share in the loss over training; `terms` has the losses by (trial id, epoch)."""
    columns = tuple(Column(f"moment{place}", title, "%", "loss", digits=1) for place, title in enumerate(MOMENTS))
    several = {id(cell) for cell in results.cells for trial in _shown(cell) if len(terms.get((trial.id, 0), ())) > 1}
    tables = []
    order = table.order.get("network", ())
    for part in slices(results, table.name, lambda cell: id(cell) in several, asking=asking, order=order):
        distinct = distinctions(part.cells, ("peer", "stages", "heads"))
        rows = [
            row
            for network in part.networks
            for cell in part.cells
            if cell.network == network
            for row in _shares(part, cell, terms, distinct)
        ]
        if rows:
            rows, _ = count_seeds(rows)
            caption = f"{part.about} {table.about}"
            stub = table.stub or ("Method", "Term")
            tables.append(Table(part.name, table.name, table.title, caption, stub, columns, tuple(rows)))
    return tables


def _shares(
    part: Slice, cell: Cell, terms: Mapping[tuple[int, int], Mapping[str, Any]], others: Sequence[str]
) -> Iterator[Row]:
    trials = _shown(cell)
    names = dict.fromkeys(name for trial in trials for name in terms.get((trial.id, 0), ()))
    given = [titles.field(name, cell.config[name]) for name in others if cell.config.get(name) is not None]
    label = ", ".join([titles.methods(cell.methods), *given])
    address = "/".join([cell.network, methods_key(cell.methods), *map(slug, given)])
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
