"""Read the section `report` of a grid file: its tables, figures and the rule that selects epochs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from orchestrator.grid.document import Node, compose, read_text
from orchestrator.grid.fields import ELSEWHERE, REPORT
from orchestrator.grid.problems import GridError, Place, Problem, joined
from orchestrator.grid.reader import Reader
from orchestrator.records import BY_TEST, DEFAULT, TUNED, TUNING
from orchestrator.tables.placement import table_problems
from orchestrator.tables.references import LineProblem, misplaced, with_values
from orchestrator.tables.schema import RESERVED, TableSpec, parse_table
from orchestrator.text import counted
from trainer.builtin_metrics import ALWAYS
from trainer.config import TrainConfig
from trainer.parts import METRICS
from trainer.problems import shown, unknown

# The shipped tables, `reports/layouts/`: the main paper's by number, the other sources' by name.
TABLES = (1, 2, 3, 4, "tinyimagenet", "pskd", "dcm", "ood", "fidelity", "interactions", "losses")
FIGURES = (2,)
SELECTIONS = ("best_test", "best_val", "last")
_MEAN_LAST = re.compile(r"mean_last_[1-9][0-9]{0,5}")


def read_report(
    reader: Reader, node: Node | None, configs: Iterable[TrainConfig], axes: Collection[str], *, tuned: bool = False
) -> dict[str, Any]:
    """Return the report section as it is stored: declared tables in full, so that the database needs no file.

    The rows of a `tuned` grid are there twice, as they are and tuned, and no epoch of theirs is chosen by test images.

    Problems are noted in the reader, those of a table in a file of its own with that file's lines.
    """
    entries = reader.mapping(node, "report", REPORT, elsewhere=ELSEWHERE)
    report: dict[str, Any] = {"tables": [], "figures": [], "selection": "best_test", "axes": list(axes)}
    report |= {"selection": "best_val"} if tuned else {}
    tables: list[tuple[Table, Reader, str]] = []
    for place, item in enumerate(reader.items(entries.get("tables"), "report.tables")):
        key = joined("report.tables", str(place))
        if isinstance(item.value, dict):
            inline = Table(item, "", Path(reader.file).parent)
            report["tables"].append(inline.plain())
            tables.append((inline, reader, key))
        elif isinstance(item.value, str) and item.value.endswith((".yaml", ".yml")):
            path = Path(reader.file).parent / item.value
            inner = Reader(str(path))
            try:
                written = read_table(path)
            except GridError as error:
                reader.problems += error.problems
                continue
            report["tables"].append(written.plain())
            tables.append((written, inner, ""))
        else:
            _listed(reader, item, "tables", TABLES, report, ", a file such as my_table.yaml, or a table written out")
    for item in reader.items(entries.get("figures"), "report.figures"):
        _listed(reader, item, "figures", FIGURES, report)
    if (selection := entries.get("selection")) is not None:
        report["selection"] = selection.plain()
        if report["selection"] not in SELECTIONS and not _MEAN_LAST.fullmatch(str(selection.value)):
            what = unknown("selection", selection.plain(), [*SELECTIONS, "mean_last_K"], "; K is a number of epochs")
            reader.note(selection.place, "report.selection", what)
        if tuned and report["selection"] == "best_test":
            reader.note(selection.place, "report.selection", f"best_test {BY_TEST}; write best_val, or last")
        without = sum(config.validation == 0 for config in configs)
        if report["selection"] == "best_val" and without:
            what = f"chooses the epoch by validation images, and {counted(without, 'trial')} "
            what += "holds out none" if without == 1 else "hold out none"
            reader.note(
                selection.place, "report.selection", f"best_val {what}; add validation: 5000, or so, to `fixed`"
            )
    _check_tables(reader, tables, configs, tuned)
    return report


class Table:
    """A table as a file in a folder has it: its node, and the name that it has where it says none."""

    def __init__(self, node: Node, name: str, folder: Path) -> None:
        self.node, self.folder = node, folder
        written = node.plain()
        named = {"name": name, **written} if name else dict(written)
        self._whole, self.unread = with_values(named, folder, TrainConfig.model_fields)

    def plain(self) -> dict[str, Any]:
        """Return the table in JSON's types, with its name and the published values of its references."""
        return self._whole

    def place(self, path: Sequence[str]) -> Place:
        """Return the position of the innermost part on a path that is there."""
        node, position = self.node, self.node.place
        for part in path:
            if isinstance(node.value, dict) and part in node.value:
                position, node = node.places[part], node.value[part]
            elif isinstance(node.value, list) and part.isdecimal() and int(part) < len(node.value):
                node = node.value[int(part)]
                position = node.place
            else:
                break
        return position

    def parse(
        self, reader: Reader, key: str, metrics: Iterable[str] = (), fields: Iterable[str] = (TUNING,)
    ) -> TableSpec | None:
        """Return the table, its problems noted in the reader; `fields` are those beside the configuration's."""
        note_lines(reader, self.unread)
        spec, wrong = parse_table(self.plain(), [*TrainConfig.model_fields, *fields], metrics)
        for path, what in wrong:
            reader.note(self.place(path), joined(key, *path), what)
        return spec


def note_lines(reader: Reader, lines: Iterable[LineProblem]) -> None:
    """Note the problems of files of published values, which are not the reader's own file."""
    reader.problems += [Problem(line.file, line.line or None, None, line.column, line.message) for line in lines]


def read_table(path: Path) -> Table:
    """Return the table in a file of its own; its name is the file's where it says none.

    Raises GridError for a file that cannot be read or holds no table.
    """
    root, problems = compose(str(path), read_text(path))
    if not isinstance(root.value, dict):
        what = f"is {shown(root.plain())}, not a table with rows and columns"
        problems = [*problems, Problem(str(path), *root.place, "", what)]
    if problems:
        raise GridError(problems)
    return Table(root, path.stem, path.parent)


def load_tables(paths: Iterable[str | Path], metrics: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Return tables from files of their own, in JSON's types, for reports; `metrics` are users' own ones.

    Raises GridError with all their problems.
    """
    problems: list[Problem] = []
    tables = []
    for path in paths:
        reader = Reader(str(path))
        try:
            table = read_table(Path(path))
            table.parse(reader, "", metrics)
            tables.append(table.plain())
        except GridError as error:
            problems += error.problems
        problems += reader.problems
    if problems:
        raise GridError(problems)
    return tables


def _listed(
    reader: Reader, item: Node, section: str, allowed: Sequence[Any], report: dict[str, Any], more: str = ""
) -> None:
    key = f"report.{section}"
    if type(item.value) not in (int, str) or item.value not in allowed:
        what = f"{shown(item.plain())} is not one of them (allowed: {', '.join(map(str, allowed))}{more})"
        reader.note(item.place, key, what)
    elif item.value in report[section]:
        reader.note(item.place, key, f"{item.value} is listed twice")
    else:
        report[section].append(item.value)


def _check_tables(
    reader: Reader, tables: Sequence[tuple[Table, Reader, str]], configs: Iterable[TrainConfig], tuned: bool
) -> None:
    """Check every declared table on its own and against the cells of the grid."""
    if not tables:
        return
    valid = not reader.problems
    whole = [config.model_dump(mode="json") for config in configs] if valid else []
    if tuned:
        whole = [config | {TUNING: value} for config in whole for value in (DEFAULT, TUNED)]
    cells = {repr(values | {"seed": None}): _without_seed(values) for values in whole}
    own = [name for name in METRICS if name not in ALWAYS]
    taken: dict[str, Place] = {}
    for table, notes, key in tables:
        spec = table.parse(notes, key, own, [TUNING] if tuned else [])
        if spec is not None:
            if spec.name in RESERVED or spec.name in _shipped():
                what = f"{spec.name} is the name of a file that every report may have; choose another"
                notes.note(table.place(["name"]), joined(key, "name"), what)
            elif spec.name in taken:
                notes.note(table.place(["name"]), joined(key, "name"), f"{spec.name} is the name of another table")
            taken.setdefault(spec.name, table.place(["name"]))
            for path, what in table_problems(spec, whole if spec.places_seeds else list(cells.values())):
                notes.note(table.place(path), joined(key, *path), what)
            lines = misplaced(spec, whole if spec.places_seeds else list(cells.values()))
            note_lines(notes, [line._replace(file=str(table.folder / line.file)) for line in lines])
        if notes is not reader:
            reader.problems += notes.problems


def _shipped() -> list[str]:
    return [f"table{name}" if isinstance(name, int) else name for name in TABLES]


def _without_seed(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != "seed"}
