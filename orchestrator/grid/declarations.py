"""Read tables and figures that a grid declares, or a file of their own, and check them against the grid's cells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

from orchestrator.grid.document import Node, compose, read_text
from orchestrator.grid.problems import GridError, Place, Problem, joined
from orchestrator.grid.reader import Reader
from orchestrator.records import BY_TEST, DEFAULT, TUNED, TUNING, averaged_epochs, row_identity, without_seed
from orchestrator.tables.fields import named
from orchestrator.tables.figures import FigureSpec, figure_problems, parse_figure
from orchestrator.tables.parsing import parse_table
from orchestrator.tables.placement import table_problems
from orchestrator.tables.references import LineProblem, misplaced, with_values
from orchestrator.tables.schema import RESERVED, SHIPPED, RowSpec, TableSpec, shipped_names
from orchestrator.text import counted
from trainer.builtin_metrics import ALWAYS
from trainer.config import TrainConfig
from trainer.parts import METHODS, METRICS
from trainer.problems import Problems, shown, unknown

Kind = Literal["table", "figure"]

SELECTIONS = ("best_test", "best_val", "last")
_HAS = {"table": "a table with rows and columns", "figure": "a figure with x and y"}


class Written:
    """A table or figure as a file in a folder has it: its node, and the name that it has where it says none."""

    def __init__(self, kind: Kind, node: Node, name: str, folder: Path) -> None:
        self.kind, self.node, self.folder = kind, node, folder
        written = node.plain()
        self._whole = {"name": name, **written} if name else dict(written)
        self.unread: list[LineProblem] = []
        if kind == "table":
            self._whole, self.unread = with_values(self._whole, folder, TrainConfig.model_fields)

    def plain(self) -> dict[str, Any]:
        """Return the declaration in JSON's types, with its name and the published values of its references."""
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
    ) -> TableSpec | FigureSpec | None:
        """Return the declaration, its problems noted in the reader; `fields` are those beside the configuration's."""
        note_lines(reader, self.unread)
        parse = parse_table if self.kind == "table" else parse_figure
        spec, wrong = parse(self.plain(), [*TrainConfig.model_fields, *fields], metrics)
        for path, what in wrong:
            reader.note(self.place(path), joined(key, *path), what)
        return spec


class Declared(NamedTuple):
    """A table or figure of a grid, the reader that notes its problems, and its key there."""

    written: Written
    reader: Reader
    key: str


def note_lines(reader: Reader, lines: Iterable[LineProblem]) -> None:
    """Note the problems of files of published values, which are not the reader's own file."""
    reader.problems += [Problem(line.file, line.line or None, None, line.column, line.message) for line in lines]


def read_declaration(kind: Kind, path: Path) -> Written:
    """Return the table or figure in a file of its own; its name is the file's where it says none.

    Raises GridError for a file that cannot be read or holds neither.
    """
    root, problems = compose(str(path), read_text(path))
    if not isinstance(root.value, dict):
        problems = [*problems, Problem(str(path), *root.place, "", f"is {shown(root.plain())}, not {_HAS[kind]}")]
    if problems:
        raise GridError(problems)
    return Written(kind, root, path.stem, path.parent)


def load_declared(kind: Kind, paths: Iterable[str | Path], metrics: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Return tables or figures from files of their own, in JSON's types, for reports; `metrics` are users' own ones.

    Raises GridError with all their problems.
    """
    problems: list[Problem] = []
    loaded = []
    metrics = list(metrics)
    for path in paths:
        reader = Reader(str(path))
        try:
            written = read_declaration(kind, Path(path))
            spec = written.parse(reader, "", metrics)
            if isinstance(spec, FigureSpec) and spec.selection and (what := selection_problem(spec.selection, ())):
                reader.note(written.place(["selection"]), "selection", what)
            loaded.append(written.plain())
        except GridError as error:
            problems += error.problems
        problems += reader.problems
    if problems:
        raise GridError(problems)
    return loaded


def read_declared(reader: Reader, node: Node | None, kind: Kind, report: dict[str, Any]) -> list[Declared]:
    """Add the tables or figures of a report to it; return those that are declared."""
    section = f"{kind}s"
    declared = []
    for place, item in enumerate(reader.items(node, f"report.{section}")):
        if isinstance(item.value, dict):
            inline = Written(kind, item, "", Path(reader.file).parent)
            report[section].append(inline.plain())
            declared.append(Declared(inline, reader, joined(f"report.{section}", str(place))))
        elif isinstance(item.value, str) and item.value.endswith((".yaml", ".yml")):
            path = Path(reader.file).parent / item.value
            try:
                written = read_declaration(kind, path)
            except GridError as error:
                reader.problems += error.problems
                continue
            report[section].append(written.plain())
            declared.append(Declared(written, Reader(str(path)), ""))
        else:
            _shipped(reader, item, kind, report)
    return declared


def _shipped(reader: Reader, item: Node, kind: Kind, report: dict[str, Any]) -> None:
    section = f"{kind}s"
    if type(item.value) not in (int, str) or item.value not in SHIPPED[kind]:
        more = f", a file such as my_{kind}.yaml, or a {kind} written out"
        what = f"{shown(item.plain())} is not one of them (allowed: {', '.join(map(str, SHIPPED[kind]))}{more})"
        reader.note(item.place, f"report.{section}", what)
    elif item.value in report[section]:
        reader.note(item.place, f"report.{section}", f"{item.value} is listed twice")
    else:
        report[section].append(item.value)


def selection_problem(rule: Any, configs: Iterable[TrainConfig], *, tuned: bool = False) -> str:
    """Return what is wrong with a rule that selects epochs; nothing where it is a rule that every trial can follow."""
    if rule not in SELECTIONS and averaged_epochs(str(rule)) is None:
        return unknown("selection", rule, [*SELECTIONS, "mean_last_K"], "; K is a number of epochs")
    if tuned and rule == "best_test":
        return f"best_test {BY_TEST}; write best_val, or last"
    if rule == "best_val" and (lacking := without_validation(configs)):
        return f"best_val chooses the epoch by validation images, and {lacking}"
    return ""


def without_validation(configs: Iterable[TrainConfig]) -> str:
    """Return how many trials hold out no validation images and what to do, nothing where all hold out some."""
    without = sum(config.validation == 0 for config in configs)
    if not without:
        return ""
    verb = "holds" if without == 1 else "hold"
    return f"{counted(without, 'trial')} {verb} out none; add validation: 5000, or so, to `fixed`"


def check_declared(reader: Reader, declared: Sequence[Declared], configs: Iterable[TrainConfig], tuned: bool) -> None:
    """Check every declared table and figure on its own and against the cells of the grid."""
    if not declared:
        return
    configs = list(configs) if not reader.problems else []
    whole = [config.model_dump(mode="json") for config in configs]
    if tuned:
        whole = [config | {TUNING: value} for config in whole for value in (DEFAULT, TUNED)]
    cells = {row_identity(values): without_seed(values) for values in whole}
    own = [name for name in METRICS if name not in ALWAYS]
    taken: dict[str, str] = {}
    for written, notes, key in declared:
        spec = written.parse(notes, key, own, [TUNING] if tuned else [])
        if spec is not None:
            wrong = [*_name_problems(spec.name, taken), *_method_problems(spec)]
            taken.setdefault(spec.name, written.kind)
            table = spec if isinstance(spec, TableSpec) else spec.table
            inside = whole if table.places_seeds else list(cells.values())
            if not inside:
                # Mistakes elsewhere in the file leave no trials; a table that asks for some is not one more of them.
                pass
            elif isinstance(spec, TableSpec):
                wrong += table_problems(spec, inside)
                lines = misplaced(spec, inside)
                note_lines(notes, [line._replace(file=str(written.folder / line.file)) for line in lines])
            else:
                wrong += figure_problems(spec, inside)
                if spec.selection and (what := selection_problem(spec.selection, configs, tuned=tuned)):
                    wrong.append((("selection",), what))
            for path, what in wrong:
                notes.note(written.place(path), joined(key, *path), what)
        if notes is not reader:
            reader.problems += notes.problems


def _method_problems(spec: TableSpec | FigureSpec) -> Problems:
    """Return names that are no method, and no hyperparameter of one, in explicit rows and in fields of methods.

    A row may ask for a method that no trial has yet, but not for one that is nowhere.
    """
    table = isinstance(spec, TableSpec)
    rows = spec.rows if isinstance(spec, TableSpec) else spec.points
    listed: dict[str, Iterable[str]] = {"where": spec.where, "order": spec.order, "prefer": spec.prefer}
    if isinstance(spec, TableSpec):
        listed |= {"rows": spec.row_fields, "groups": spec.group_fields, "across": [spec.across or ""]}
    else:
        listed |= {"x": [spec.x], "lines": spec.lines, "panels": spec.panels}
    wrong: Problems = []
    for key, names in listed.items():
        for name in names:
            base, *path = str(name).split(".")
            if base == "methods" and path:
                wrong += [((key,), what) for what in _no_methods({path[0]: path[1:]})]
    for place, row in enumerate(rows):
        for choice in row.choices if isinstance(row, RowSpec) else ():
            for wanted in _alternatives(choice.get("methods")):
                what = _no_methods(dict.fromkeys(named(wanted)) if isinstance(wanted, str) else wanted)
                wrong += [(("rows" if table else "points", str(place), "methods"), one) for one in what]
    return list(dict.fromkeys(wrong))


def _alternatives(wanted: Any) -> Iterator[str | Mapping[str, Any]]:
    """Yield the methods that a row asks for, by name or with hyperparameters: one, a list, or all but one."""
    if isinstance(wanted, Mapping) and set(wanted) == {"not"}:
        yield from _alternatives(wanted["not"])
    elif isinstance(wanted, list | tuple):
        for one in wanted:
            yield from _alternatives(one)
    elif isinstance(wanted, str | Mapping):
        yield wanted


def _no_methods(wanted: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with methods that are asked for with names of hyperparameters."""
    for method, parameters in wanted.items():
        if method not in METHODS:
            yield unknown("method", method, [*METHODS, "baseline"])
            continue
        own = [one.name for one in fields(METHODS[method].make)]
        for name in parameters or ():
            if name not in own:
                yield unknown(f"hyperparameter of {method}", name, own)


def _name_problems(name: str, taken: Mapping[str, str]) -> Problems:
    """Return a problem where a name is that of files which another table or figure, or every report, has."""
    if name in (*RESERVED, *shipped_names("table"), *shipped_names("figure")) or name.startswith("curves-"):
        return [(("name",), f"{name} is the name of a file that every report may have; choose another")]
    return [(("name",), f"{name} is the name of another {taken[name]}")] if name in taken else []
