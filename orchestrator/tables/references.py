"""Read published values from CSV files, and check that a declared table has a place for them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.tables.addresses import column_key, row_key
from orchestrator.tables.fields import not_among
from orchestrator.tables.placement import Placement, place
from orchestrator.tables.schema import TableSpec
from trainer.problems import shown, unknown

# The columns of a file, in the order of a template.
COLUMNS = (
    *("row", "column", "printed_row", "printed_column", "printed", "value", "std", "runs"),
    *("source", "recipe", "footnote", "doubt"),
)
_NEEDED = ("row", "column", "printed")
_SPREAD = re.compile(r"\s*(?:\u00b1|\+-|\+/-|\\pm|\$\\pm\$)\s*")
_NUMBER = re.compile(r"[-+\u2212]?(?:\d+\.?\d*|\.\d+)")
_MINUTES = re.compile(r"(\d+) */ *(\d+)")
# A file of this size lists more values than any paper.
_MOST_BYTES = 4 * 1024 * 1024
# What a lazy spreadsheet or a paper writes for a number that is not there.
_NOTHING = ("", "-", "--", "\u2013", "\u2014", "n/a", "N/A")


class LineProblem(NamedTuple):
    """A problem of a file of published values: its line, 0 for the whole file, its column, and a sentence."""

    file: str
    line: int
    column: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(filter(None, [place, self.column, self.message]))


class Values(NamedTuple):
    """The values of a file, in JSON's types, as a database keeps them with the table; and the file's problems."""

    values: list[dict[str, Any]]
    problems: list[LineProblem]


def read_values(path: Path, fields: Iterable[str] | None = None) -> Values:
    """Read published values, a line for one of a table's cells; a line whose `printed` is empty is left out.

    `fields` are those that a recipe may name, None for any. Lines that begin with `#` are comments.
    """
    name = str(path)
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST_BYTES + 1)
        text = data.decode("utf-8-sig")
    except FileNotFoundError:
        what = "no such file; `orchestrate reference --new TABLE` writes a template, to be named once it is there"
        return Values([], [LineProblem(name, 0, "", what)])
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        what = f"is not UTF-8 text: byte 0x{data[error.start]:02x}; save it as CSV in UTF-8"
        return Values([], [LineProblem(name, line, "", what)])
    except (OSError, ValueError) as error:
        what = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        return Values([], [LineProblem(name, 0, "", what)])
    if len(data) > _MOST_BYTES or "\0" in text:
        return Values([], [LineProblem(name, 0, "", "is no list of published values; give a CSV file of text")])
    return _File(name, fields).read(text)


class _File:
    """State of the reading of one file: its problems, and the lines that had a cell before."""

    def __init__(self, name: str, fields: Iterable[str] | None) -> None:
        self.name = name
        self.fields = None if fields is None else [*fields, "selection"]
        self.problems: list[LineProblem] = []
        self.first: dict[tuple[str, str, str], int] = {}

    def note(self, line: int, column: str, message: str) -> None:
        self.problems.append(LineProblem(self.name, line, column, message))

    def read(self, text: str) -> Values:
        rows = self._rows(text)
        line, header = next(rows, (1, []))
        header = [name.strip().lower() for name in header]
        for name in header:
            if name and name not in COLUMNS:
                self.note(line, name, unknown("column", name, COLUMNS))
        for name in _NEEDED:
            if name not in header and not (name == "printed" and "value" in header):
                self.note(line, name, "is missing; the first line that is no comment names the columns")
        for name in {name for name in header if name and header.count(name) > 1}:
            self.note(line, name, "stands twice in the heading")
        if self.problems:
            return Values([], self.problems)
        values = []
        for line, cells in rows:
            if len(cells) > len(header) and any(cell.strip() for cell in cells[len(header) :]):
                what = f"has {len(cells)} cells, the heading {len(header)}; put a text that has a comma into quotes"
                self.note(line, "", what)
                continue
            cells += [""] * (len(header) - len(cells))
            given = {name: cell.strip() for name, cell in zip(header, cells, strict=False) if name}
            if (value := self._value(line, given)) is not None:
                values.append(value)
        return Values(values, self.problems)

    def _rows(self, text: str) -> Iterator[tuple[int, list[str]]]:
        """Yield the lines that are no comments, with their numbers; some spreadsheets write semicolons for commas."""
        heading = next(
            (each for each in text.splitlines() if each.strip() and not each.lstrip('"').startswith("#")), ""
        )
        reader = csv.reader(io.StringIO(text), delimiter=";" if heading.count(";") > heading.count(",") else ",")
        before = 0
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                self.note(reader.line_num, "", f"is no CSV: {error}")
                return
            # A cell may have several lines.
            line, before = before + 1, reader.line_num
            if any(cell.strip() for cell in cells) and not cells[0].lstrip().startswith("#"):
                yield line, cells

    def _value(self, line: int, given: dict[str, str]) -> dict[str, Any] | None:
        if given.get("printed", "") in _NOTHING and given.get("value", "") in _NOTHING:
            return None
        noted = len(self.problems)
        for name in ("row", "column"):
            if not given[name]:
                self.note(line, name, "is empty; it is the part of the cell's address that `orchestrate explain` shows")
        value: dict[str, Any] = {"line": line}
        value |= {name: given[name] for name in COLUMNS if given.get(name) and name not in ("value", "std", "runs")}
        value.pop("recipe", None)
        spread = self._check_printed(line, given)
        value["printed"] = given.get("printed") or given["value"]
        for name, number in (("value", self._number(line, "value", given)), ("std", self._number(line, "std", given))):
            number = spread if name == "std" and number is None else number
            if number is not None:
                value[name] = number
            if number is not None and number < 0 and name == "std":
                self.note(line, "std", f"{number:g} is negative")
        runs = given.get("runs", "")
        if runs and not (runs.isdecimal() and int(runs) > 0):
            self.note(line, "runs", f"{shown(runs)} is not a number of runs; write 3, or so")
        elif runs:
            value["runs"] = int(runs)
        if recipe := given.get("recipe"):
            value["recipe"] = self._recipe(line, recipe)
        identity = (given["row"], given["column"], given.get("source", ""))
        if identity in self.first:
            where = f"{'/'.join(identity[:2])} stands in line {self.first[identity]} as well"
            self.note(line, "row", f"{where}; leave one, or name two sources")
        self.first.setdefault(identity, line)
        return value if len(self.problems) == noted else None

    def _check_printed(self, line: int, given: Mapping[str, str]) -> float | None:
        """Note a printed value that is no number; return its spread, None without one."""
        text = given.get("printed", "")
        if text in _NOTHING:
            return None
        number, spread = printed_number(text), _SPREAD.split(text, maxsplit=1)[1:]
        std = _float(spread[0].rstrip("*%").strip()) if spread else None
        if number is None or (spread and std is None):
            example = "24.18, 24.18 \u00b1 0.30, or 625 / 52 for minutes and seconds"
            self.note(line, "printed", f"{shown(text)} is not a number; write {_with_point(text) or example}")
        return std

    def _number(self, line: int, name: str, given: Mapping[str, str]) -> float | None:
        text = given.get(name, "")
        if text in _NOTHING:
            return None
        number = _float(text)
        if number is None:
            self.note(line, name, f"{shown(text)} is not a number; write {_with_point(text) or '24.18, or so'}")
        return number

    def _recipe(self, line: int, text: str) -> dict[str, Any]:
        """Return the fields of a recipe such as `epochs: 200, batch_size: 64`."""
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError

        try:
            recipe = YAML(typ="safe", pure=True).load("{" + text.strip().strip("{}") + "}")
        except YAMLError:
            recipe = None
        if not isinstance(recipe, dict) or any(each is None and ":" not in text for each in recipe.values()):
            self.note(
                line, "recipe", f"{shown(text)} is no recipe; write fields, such as `epochs: 200, batch_size: 64`"
            )
            return {}
        for name in recipe:
            if self.fields is not None and name not in self.fields:
                self.note(line, "recipe", unknown("field", name, self.fields))
        return {str(name): each for name, each in recipe.items()}


def printed_number(text: str) -> float | None:
    """Return the number in a printed value, minutes and seconds in seconds; None where it has none."""
    if minutes := _MINUTES.fullmatch(text.rstrip("*").strip()):
        return 60.0 * int(minutes[1]) + int(minutes[2])
    return _float(_SPREAD.split(text, maxsplit=1)[0].strip().rstrip("*%").strip())


def _with_point(text: str) -> str:
    """Return a number with a decimal comma as we write it; empty for another text."""
    return text.replace(",", ".") if re.fullmatch(r"\d+,\d+", text) else ""


def _float(text: str) -> float | None:
    return float(text.replace("\u2212", "-")) if _NUMBER.fullmatch(text) else None


def with_values(
    written: Mapping[str, Any], folder: Path, fields: Iterable[str] | None = None
) -> tuple[dict[str, Any], list[LineProblem]]:
    """Return a table's YAML with the values of the files that its `reference` names, and the problems of the files.

    The files are relative to `folder`. A reference that ships, one with its values, and one that is misspelled stay.
    """
    whole = dict(written)
    reference = whole.get("reference")
    if reference is None:
        return whole, []
    problems: list[LineProblem] = []
    complete = []
    for given in reference if isinstance(reference, list) else [reference]:
        one = {"file": given} if isinstance(given, str) else given
        file = one.get("file") if isinstance(one, dict) and "values" not in one else None
        if isinstance(file, str) and file.endswith(".csv"):
            values, wrong = read_values(folder / Path(file).expanduser(), fields)
            problems += wrong
            one = {**one, "values": values}
        complete.append(one)
    return {**whole, "reference": complete}, problems


class Addresses(NamedTuple):
    """The parts of addresses that a table has: its rows, its columns, and whether it has one per classifier."""

    rows: list[str]
    columns: list[str]
    classifiers: bool

    def row_problem(self, row: str) -> str:
        """Return what is wrong with a row of a published value, empty where the table has it."""
        if any(fits(row, address) for address in self.rows):
            return ""
        return f"the table has no row {not_among(row, self.rows)}"

    def column_problem(self, column: str) -> str:
        """Return what is wrong with a column of a published value, empty where the table has it."""
        own = column.rpartition("/")[2]
        if column in self.columns or (self.classifiers and re.fullmatch(r"main|head\d+|ensemble", own)):
            return ""
        return f"the table has no column {not_among(column, self.columns)}"


def _pattern(row: str) -> str:
    """Return a pattern in which only the asterisk stands for other characters."""
    return re.sub(r"([\[\]?])", r"[\1]", row)


def fits(row: str, address: str) -> bool:
    """Return whether a published value's row, in which an asterisk stands for any text, is a table's."""
    return row == address or ("*" in row and fnmatchcase(address, _pattern(row)))


def addresses(table: TableSpec, placement: Placement) -> Addresses:
    """Return the addresses of a table whose cells have been placed."""
    rows = [row_key(table, line.group, line.values, line.row) for line in placement.lines]
    keys = [spec.name for spec in table.columns if not spec.mean]
    columns = [column_key(table, value, key) for value in placement.across for key in keys]
    columns += [spec.name for spec in table.columns if spec.mean]
    classifiers = any(spec.metric == "classifiers" for spec in table.columns)
    return Addresses(list(dict.fromkeys(rows)), columns, classifiers)


def misplaced(table: TableSpec, configs: Sequence[Mapping[str, Any]]) -> list[LineProblem]:
    """Return the published values of users' files that no cell of a grid's table has the address of."""
    if table.grids == "all" or not any(one.values for one in table.reference):
        return []
    placement = place(table, configs)
    if placement.problems:
        return []
    addressed = addresses(table, placement)
    problems = []
    for one in table.reference:
        for value in one.values or ():
            for name, what in (
                ("row", addressed.row_problem(value.row)),
                ("column", addressed.column_problem(value.column)),
            ):
                if what:
                    problems.append(LineProblem(one.file, value.line, name, f"{what}; or begin the line with #"))
    return problems
