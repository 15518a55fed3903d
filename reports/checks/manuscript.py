"""Read our tables from a LaTeX file and those that it includes: numbers, the rows around them, and headers."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from reports.checks.following import OPTIONAL, Reading, Shown, definitions, readings, suspects, visible
from reports.checks.texfiles import find, is_file, texinputs, text_of
from reports.errors import ReportError

_HEADER = re.compile(
    r"% orchestrate (?P<table>\S+): (?P<numbers>\d+) numbers, selection (?P<rule>\S+), grids (?P<grids>.*)"
)
_PLACE = re.compile(
    r"% (?P<address>[^\s:]+:[^\s/]+/\S+) = (?P<value>\S+)(?: n=(?P<n>\d+) quantity=(?P<quantity>\S+))?"
    r"(?: selection=(?P<rule>\S+))?(?: trials=(?P<trials>\S+))?\s*$"
)
_NUMBERS = re.compile(r"% orchestrate numbers\.tex, grids (?P<grids>.*?)\. \\\\?input")
_DEFINED = re.compile(r"% orch (?P<address>\S+) selection=(?P<rule>\S+) trials=(?P<trials>\S+)\s*$")
_TEXT = re.compile(r"\\endcsname\{(.*)\}$")
_USE = re.compile(r"\\orch\s*\{([^{}]*)\}")
# Bounded, so that a line without the closing bracket costs no more than its length.
_ROW_END = re.compile(
    r"\\\\(?:\[[^]]{0,99}\])?|\\(?:toprule|midrule|bottomrule|hline)\b|\\(?:begin|end)\s{0,9}\{[^}]{0,99}\}"
)
_PATHS = re.compile(r"\\def\s*\\input@path\s*\{((?:\s*\{[^{}]*\})*)\s*\}")
_STYLES = re.compile(
    r"\\(?:(usepackage|RequirePackage)|documentclass|LoadClass)\s*(?:\[[^]]{0,999}\])?\s*\{([^{}]{0,999})\}"
)
# TeX itself stops at 15.
_DEEPEST = 40
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


class Defined(NamedTuple):
    r"""A number of `numbers.tex`: the text that `\orch` prints for its address, and what its comment says."""

    where: str
    text: str
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
    labels: list[str] = field(default_factory=list)
    cells: list[str] = field(default_factory=list)
    places: list[Written] = field(default_factory=list)

    @property
    def label(self) -> str:
        return " ".join(self.labels)


class Tabular(NamedTuple):
    """Rows that stand together, and the header above them that no other rows came between."""

    header: Header | None
    lines: list[Line]


@dataclass
class Manuscript:
    """All of ours in some files; `missing` are the files that a command names in vain, and from where.

    `unclear` are the places (where, what, why) that may bring in text which was not read. `defined` are the numbers of
    `numbers.tex` by address, `used` the addresses (where, address) that sentences and captions name.
    """

    headers: list[Header] = field(default_factory=list)
    tabulars: list[Tabular] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)
    unclear: list[tuple[str, str, str]] = field(default_factory=list)
    files: set[Path] = field(default_factory=set)
    defined: dict[str, Defined] = field(default_factory=dict)
    used: list[tuple[str, str]] = field(default_factory=list)

    @property
    def places(self) -> list[Written]:
        return [place for tabular in self.tabulars for line in tabular.lines for place in line.places]


def read(paper: Path) -> Manuscript:
    """Read a LaTeX file and those that it includes, a file once; raise ReportError for one that cannot be read."""
    manuscript = Manuscript()
    reading = _Paper(paper.parent, manuscript)
    _File(paper, reading, None, 0).read()
    reading.judge_suspects()
    return manuscript


class _Paper:
    """State that the files of a paper share: where files are looked for, and the commands defined and called."""

    def __init__(self, root: Path, manuscript: Manuscript) -> None:
        self.root, self.manuscript = root, manuscript
        self.seen: set[str] = set()
        self.folders = [*texinputs(root)]
        self.defined: set[str] = set()
        self.styles: set[str] = set()
        self.reading: dict[str, Path] = {}
        self.suspects: dict[str, str] = {}
        self.calls: list[tuple[str, Sequence[Shown]]] = []

    def judge_suspects(self) -> None:
        """Say which commands may read a file: called as if they did, and defined nowhere, or by a style that does."""
        for name, where in self.suspects.items():
            if name not in self.defined and name not in self.reading:
                why = "it is called as if it read a file, and is not followed; use \\input, or define it in the paper"
                self.manuscript.unclear.append((where, f"\\{name}", why))
        if not self.reading:
            return
        names = re.compile(r"\\(" + "|".join(map(re.escape, self.reading)) + r")(?![a-zA-Z@])")
        for path, lines in self.calls:
            for line in lines:
                for call in names.finditer(line.code):
                    why = f"{self.reading[call[1]]} defines it to read a file, which is not followed; use \\input"
                    self.manuscript.unclear.append((f"{path}:{line.number}", call[0], why))


class _File:
    """The reading of one file, line by line; `folder` is that of an \\import or \\subfile around it."""

    def __init__(self, path: Path, paper: _Paper, folder: Path | None, depth: int) -> None:
        self.path, self.paper, self.folder, self.depth = path, paper, folder, depth
        self.manuscript = paper.manuscript
        self.header: Header | None = None
        self.grids: tuple[str, ...] | None = None
        self.waiting: Header | None = None
        self.line, self.lines = Line(), list[Line]()
        paper.seen.add(os.path.realpath(path))

    def read(self) -> None:
        text = text_of(self.path)
        if text is None:
            raise ReportError(f"cannot read {self.path}: it is not text in UTF-8 or Latin-1")
        lines, unclear = visible(text)
        self.manuscript.unclear += [(f"{self.path}:{each.number}", each.text, each.why) for each in unclear]
        self._read_definitions("\n".join(line.code for line in lines))
        for name, number in suspects(lines).items():
            self.paper.suspects.setdefault(name, f"{self.path}:{number}")
        self.paper.calls.append((str(self.path), lines))
        for place, line in enumerate(lines):
            where = f"{self.path}:{line.number}"
            self._read_line(where, line.code, line.comment)
            for reading in readings(lines, place):
                if reading.unclear:
                    self.manuscript.unclear.append((where, reading.name, reading.unclear))
                else:
                    self._include(where, reading)
        self._end_tabular()

    def _read_definitions(self, code: str) -> None:
        self.paper.defined |= definitions(code)[0]
        for paths in _PATHS.finditer(code):
            names = re.findall(r"\{([^{}]*)\}", paths[1])
            self.paper.folders += [self.paper.root / name.strip() for name in names]
        for style in _STYLES.finditer(code):
            for name in style[2].split(","):
                self._read_style(self.paper.root / f"{name.strip()}.{'sty' if style[1] else 'cls'}")

    def _read_style(self, path: Path) -> None:
        """Learn which commands a style beside the paper defines to read files; those of the distribution have none."""
        if os.path.realpath(path) in self.paper.styles or not is_file(path):
            return
        self.paper.styles.add(os.path.realpath(path))
        lines = visible(text_of(path) or "")[0]
        names, reading = definitions("\n".join(line.code for line in lines))
        self.paper.defined |= names
        self.paper.reading |= dict.fromkeys(reading, path)

    def _read_line(self, where: str, code: str, comment: str) -> None:
        if numbers := _NUMBERS.match(comment):
            self.grids = _grids(numbers["grids"])
        if defined := _DEFINED.match(comment):
            text = _TEXT.search(code)
            rule = None if defined["rule"] == "none" else defined["rule"]
            trials = frozenset(defined["trials"].split(","))
            number = Defined(where, text[1] if text else "", rule, trials, self.grids)
            self.manuscript.defined[defined["address"]] = number
            return
        uses = [(where, use[1].strip()) for use in _USE.finditer(code)]
        self.manuscript.used += uses
        if uses:
            self.manuscript.files.add(self.path)
        if header := _HEADER.match(comment):
            self._end_tabular()
            rule = None if header["rule"] == "none" else header["rule"]
            grids = _grids(header["grids"])
            self.header = Header(where, header["table"], int(header["numbers"]), rule, grids, [])
            self.waiting = self.header
            self.manuscript.headers.append(self.header)
            self.manuscript.files.add(self.path)
            return
        if self.header:
            self.header.text.append(code)
        if place := _PLACE.match(comment):
            start = max((each.start() for each in _NEXT_CELL.finditer(code)), default=0)
            self._read_cells(where, code[:start], "")
            shown, *ends = _ROW_END.split(code[start:].removeprefix("&"))
            self.line.where = self.line.where or where
            self.line.places.append(_written(where, shown.strip(), place, self.header))
            self.manuscript.files.add(self.path)
            if ends:
                self._end_line()
        else:
            self._read_cells(where, code, comment)

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
            self.line.labels += [*cells, comment]

    def _end_line(self) -> None:
        if self.line.cells or self.line.places:
            self.lines.append(self.line)
        self.line = Line()

    def _end_tabular(self, *, begins: bool = False) -> None:
        """Keep the rows so far, if they are a table of ours; what stands before one `begins` are no rows."""
        self._end_line()
        if any(line.places for line in self.lines) or (self.waiting and not begins):
            self.manuscript.tabulars.append(Tabular(self.waiting, self.lines))
            self.waiting = None
        self.lines = []

    def _include(self, where: str, reading: Reading) -> None:
        name, beside = reading.name, self.path.parent
        folders = [*self.paper.folders, beside]
        inner = self.folder
        if reading.folder is not None:
            around = self.folder if reading.command.startswith("sub") and self.folder else self.paper.root
            inner = around / reading.folder
            folders = [inner, *folders]
        elif self.folder:
            folders = [self.folder, *folders]
        other = find(name, folders, self.paper.root)
        if other is None:
            if reading.command not in OPTIONAL:
                self.manuscript.missing.append((where, os.path.join(reading.folder or "", name)))
            return
        if reading.command.startswith("subfile"):
            inner = other.parent
        if os.path.realpath(other) in self.paper.seen:
            return
        if self.depth >= _DEEPEST:
            self.manuscript.unclear.append((where, name, f"files are followed {_DEEPEST} deep"))
            return
        _File(other, self.paper, inner, self.depth + 1).read()


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
        values = json.loads(text)
    except ValueError:
        return None
    return tuple(map(str, values)) if isinstance(values, list) else None
