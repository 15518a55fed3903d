"""Read the section `report` of a grid file: its tables, figures and the rule that selects epochs."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from orchestrator.grid.declarations import check_declared, read_declared, selection_problem
from orchestrator.grid.document import Node
from orchestrator.grid.fields import ELSEWHERE, REPORT
from orchestrator.grid.reader import Reader
from trainer.config import TrainConfig


def read_report(
    reader: Reader, node: Node | None, configs: Iterable[TrainConfig], axes: Collection[str], *, tuned: bool = False
) -> dict[str, Any]:
    """Return the report section as it is stored: declared tables and figures in full, so that the database needs no
    file.

    The rows of a `tuned` grid are there twice, as they are and tuned, and no epoch of theirs is chosen by test images.

    Problems are noted in the reader, those of a table or figure in a file of its own with that file's lines.
    """
    configs = list(configs)
    entries = reader.mapping(node, "report", REPORT, elsewhere=ELSEWHERE)
    report: dict[str, Any] = {"tables": [], "figures": [], "selection": "best_test", "axes": list(axes)}
    report |= {"selection": "best_val"} if tuned else {}
    declared = read_declared(reader, entries.get("tables"), "table", report)
    declared += read_declared(reader, entries.get("figures"), "figure", report)
    if (selection := entries.get("selection")) is not None:
        report["selection"] = selection.plain()
        if what := selection_problem(report["selection"], configs, tuned=tuned):
            reader.note(selection.place, "report.selection", what)
    check_declared(reader, declared, configs, tuned)
    return report
