"""Make drawings of figures as data: the kind of figure decides who draws, the caption says what the lines are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reports.columns import ABOUT_EPOCH, ABOUT_TRAINING
from reports.figures import along, curves, plane
from reports.figures.declared import Plot
from reports.figures.drawing import Drawing, styled
from reports.layouts.assemble import unselected
from reports.table import Table

Rows = Mapping[int, Sequence[tuple[int, float, float]]]


def rendered(plot: Plot, rows: Rows) -> Drawing | None:
    """Return a figure drawn, None where there is nothing to draw; `rows` are those of `curves.read` for curves."""
    with styled():
        if plot.spec.kind == "clock":
            if not any(rows.get(trial.id) for panel in plot.panels for one in panel.series for trial in one.trials):
                return None
            figure, caption = curves.draw(plot, rows), curves.sentences(plot, rows)
        elif plot.spec.kind == "measured":
            if not any(plane.marks(plot)):
                return None
            figure, caption = plane.draw(plot), [*plane.sentences(plot), *_numbers(plot)]
        else:
            if not any(along.drawn(plot)):
                return None
            figure, caption = along.draw(plot), [*along.sentences(plot), *_numbers(plot)]
    caption = [plot.setting, plot.spec.about, *caption, *plot.omitted, *_footnotes(plot.table)]
    return Drawing(plot.table.name, plot.spec.title or plot.spec.name, " ".join(filter(None, caption)), figure)


def _numbers(plot: Plot) -> list[str]:
    """Return the rules by which the numbers of a figure came about."""
    quantities = {column.quantity for column in plot.table.columns}
    notes = [ABOUT_TRAINING] if "seconds" in quantities else []
    notes += [ABOUT_EPOCH] if "epoch_seconds" in quantities else []
    if (selection := plot.table.selection) is not None and any("/" in each for each in quantities):
        notes += [selection.sentence, unselected(plot.table.rows, selection)]
    return notes


def _footnotes(table: Table) -> list[str]:
    """Return what the table of a figure has footnotes for; shared devices are hollow marks."""
    named: dict[str, list[str]] = {}
    for row in table.rows:
        marks = {row.note, *(mark for entry in row.entries for mark in entry.notes)}
        for mark, text in table.footnotes:
            if mark in marks and mark != "*":
                named.setdefault(text, []).append(" ".join(filter(None, [row.group, *row.labels])))
    return [f"{', '.join(rows[:4])}{' and more' if len(rows) > 4 else ''}: {text}." for text, rows in named.items()]
