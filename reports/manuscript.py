"""What a LaTeX file, and those that it includes, hold of our tables: numbers, the rows around them, and headers."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from reports import ReportError

_HEADER = re.compile(
    r"% orchestrate (?P<table>\S+): (?P<numbers>\d+) numbers, selection (?P<rule>\S+), grids (?P<grids>.*)"
)
_PLACE = re.compile(
    r"% (?P<address>\S+:\S+/\S+) = (?P<value>\S+)(?: n=(?P<n>\d+) quantity=(?P<quantity>\S+))?"
    r"(?: selection=(?P<rule>\S+))?(?: trials=(?P<trials>\S+))?\s*$"
)
_CODE = re.compile(r"(?:[^%\\]|\\.|\\$)*")
_INPUT = re.compile(r"\\(?:input|include)\s*\{\s*([^}]*?)\s*\}|\\input\s+([^\s{}\\]+)")
_ROW_END = re.compile(r"\\\\(?:\[[^]]*\])?|\\(?:toprule|midrule|bottomrule|hline)\b|\\(?:begin|end)\s*\{[^}]*\}")
_TABULAR = re.compile(r"\\(?:begin|end)\s*\{(?:tabu|longtable|(?:long)?tblr)")
_NEXT_CELL = re.compile(r"(?<!\\)&")


class Written(NamedTuple):
    """A place of a table as a LaTeX file has it: its text, and what its comment says.

    `value` is a number, or the state of a place without one. `trials` are empty where none stand behind it.
    """

    where: str
    text: str
    address: str
    value: float | str
    n: int
    quantity: str
    rule: str | None
    trials: frozenset[str]
    grids: tuple[str, ...] | None


class Header(NamedTuple):
    """The first lines of a table as we wrote it, and all LaTeX from there to the next table, without comments."""

    where: str
    table: str
    numbers: int
    rule: str | None
    grids: tuple[str, ...] | None
    text: list[str]


@dataclass
class Line:
    """A row of a table: the places that carry our comment, the cells that do not, and what stands before the first
    place, with comments."""

    where: str = ""
    label: str = ""
    cells: list[str] = field(default_factory=list)
    places: list[Written] = field(default_factory=list)


class Tabular(NamedTuple):
    """Rows that stand together, and the header above them that no other rows came between."""

    header: Header | None
    lines: list[Line]


@dataclass
class Manuscript:
    """All of ours in some files; `missing` are the files that an \\input or \\include names in vain, and from where."""

    headers: list[Header] = field(default_factory=list)
    tabulars: list[Tabular] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)
    files: set[Path] = field(default_factory=set)

    @property
    def places(self) -> list[Written]:
        return [place for tabular in self.tabulars for line in tabular.lines for place in line.places]


def read(paper: Path) -> Manuscript:
    """A LaTeX file and those that it includes, a file once; raises ReportError for one that cannot be read."""
    found = Manuscript()
    _File(paper, paper.parent, found, {paper.resolve()}).read()
    return found


class _File:
    """The reading of one file, line by line."""

    def __init__(self, path: Path, root: Path, found: Manuscript, seen: set[Path]) -> None:
        self.path, self.root, self.found, self.seen = path, root, found, seen
        self.header: Header | None = None
        self.waiting: Header | None = None
        self.line, self.lines = Line(), list[Line]()

    def read(self) -> None:
        try:
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            raise ReportError(f"cannot read {self.path}: {error.strerror or error}") from error
        for number, text in enumerate(lines, 1):
            self._read_line(f"{self.path}:{number}", text)
        self._end_tabular()

    def _read_line(self, where: str, text: str) -> None:
        if header := _HEADER.search(text):
            self._end_tabular()
            rule = None if header["rule"] == "none" else header["rule"]
            grids = _grids(header["grids"])
            self.header = Header(where, header["table"], int(header["numbers"]), rule, grids, [])
            self.waiting = self.header
            self.found.headers.append(self.header)
            self.found.files.add(self.path)
            return
        code = _CODE.match(text)[0]
        comment = text[len(code) :]
        if self.header:
            self.header.text.append(code)
        if place := _PLACE.match(comment):
            start = max((each.start() for each in _NEXT_CELL.finditer(code)), default=0)
            self._read_cells(where, code[:start], "")
            shown, *ends = _ROW_END.split(code[start:].removeprefix("&"))
            self.line.where = self.line.where or where
            self.line.places.append(_written(where, shown.strip(), place, self.header))
            self.found.files.add(self.path)
            if ends:
                self._end_line()
        else:
            self._read_cells(where, code, comment)
            for braced, bare in _INPUT.findall(code):
                self._include(where, braced or bare)

    def _read_cells(self, where: str, code: str, comment: str) -> None:
        place = 0
        for end in _ROW_END.finditer(code):
            self._add_cells(where, _NEXT_CELL.split(code[place : end.start()]), "")
            self._end_line()
            if _TABULAR.match(end[0]):
                self._end_tabular(begins="begin" in end[0])
            place = end.end()
        self._add_cells(where, _NEXT_CELL.split(code[place:]), comment)

    def _add_cells(self, where: str, cells: Iterable[str], comment: str) -> None:
        cells = [cell.strip() for cell in cells]
        if any(cells) and not self.line.cells and not self.line.places:
            self.line.where = where
        self.line.cells += filter(None, cells)
        if not self.line.places:
            self.line.label += " ".join(["", *cells, comment])

    def _end_line(self) -> None:
        if self.line.cells or self.line.places:
            self.lines.append(self.line)
        self.line = Line()

    def _end_tabular(self, *, begins: bool = False) -> None:
        """Keep the rows so far, if they are a table of ours; what stands before one `begins` are no rows."""
        self._end_line()
        if any(line.places for line in self.lines) or (self.waiting and not begins):
            self.found.tabulars.append(Tabular(self.waiting, self.lines))
            self.waiting = None
        self.lines = []

    def _include(self, where: str, name: str) -> None:
        other = _find(name, self.root, self.path.parent)
        if other is None:
            self.found.missing.append((where, name))
        elif other.resolve() not in self.seen:
            self.seen.add(other.resolve())
            _File(other, self.root, self.found, self.seen).read()


def _written(where: str, text: str, place: re.Match[str], header: Header | None) -> Written:
    try:
        value: float | str = float(place["value"])
    except ValueError:
        value = place["value"]
    trials = frozenset((place["trials"] or "").split(",")) - {""}
    grids = header.grids if header else None
    n, quantity = int(place["n"] or 0), place["quantity"] or ""
    return Written(where, text, place["address"], value, n, quantity, place["rule"], trials, grids)


def _grids(text: str) -> tuple[str, ...] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return tuple(map(str, found)) if isinstance(found, list) else None


def _find(name: str, root: Path, beside: Path) -> Path | None:
    """The file that LaTeX would read: from the paper's folder, as LaTeX runs there, or beside the including file.

    What a style file of the distribution offers, such as \\input{glyphtounicode}, is found as TeX itself finds it.
    """
    for folder in (root, beside):
        for candidate in (folder / f"{name}.tex", folder / name):
            if candidate.is_file():
                return candidate
    program = shutil.which("kpsewhich")
    if program is None or not re.fullmatch(r"[\w.][\w./-]*", name):
        return None
    found = subprocess.run([program, name], cwd=root, capture_output=True, text=True, check=False).stdout.strip()
    return root / found if found else None
