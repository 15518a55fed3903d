"""Finding in LaTeX text the commands that read another file, and saying which of them cannot be followed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

# How many arguments name the file: a folder may stand before the name.
_READERS = {
    **dict.fromkeys(("input", "@input", "@@input", "@iinput", "include", "InputIfFileExists"), 1),
    **dict.fromkeys(("subfile", "subfileinclude", "includestandalone"), 1),
    **dict.fromkeys(("import", "inputfrom", "includefrom", "subimport", "subinputfrom", "subincludefrom"), 2),
}
# These say nothing of a file that is not there.
OPTIONAL = ("InputIfFileExists", "@input")
# These read no LaTeX, or print a file as it stands.
_HARMLESS = re.compile(
    r"include(?:only|graphics|pdf|pdfmerge|svg|media|movie)|(?:lst|[BL]?[vV]erbatim)input(?:listing)?"
    r"|[BL]?VerbatimInput|endinput|inputencoding|inputminted|inputlineno|input@path|import(?:an\w*)"
)
_OPAQUE = re.compile(r"openin|scantokens|CatchFile\w*|ExecuteMetaData|includecomment|DocInput|directlua|luadirect")
_LIKE_READER = re.compile(r"input|include|^(?:sub)?import|^subfile|@input", re.IGNORECASE)
_COMMAND = re.compile(r"\\([a-zA-Z@]+)\*?")
_CODE = re.compile(r"(?:[^%\\]|\\.|\\$)*")
_SPELLED = re.compile(r"\\csname[^\\]*(?:input|include|import|subfile)[^\\]*\\endcsname|\\[a-zA-Z@]*\^\^[0-9a-f]{2}")
_CATCODE = re.compile(r"\\catcode\s*(?:`\\[\\%{}]|`[%{}]|92\b|37\b|[^=]{1,9}=\s*(?:0|14)\b)")
_DEFINITION = re.compile(
    r"\\(?:(?:re)?newcommand|providecommand|Declare\w*Command|(?:New|Renew|Provide)\w*Command)\*?\s*\{?\s*\\([a-zA-Z@]+)"
    r"|\\(?:[gex]?def|let)\s*\\([a-zA-Z@]+)"
)
_VERB = re.compile(r"\\(?:verb|lstinline)\*?([^\sa-zA-Z*{\[])(.*?)\1")
_VERBATIM = re.compile(r"\\begin\s{0,9}\{((?:[BL]?[vV]erbatim|lstlisting|minted|comment|filecontents)\*?)\}")
_REDEFINED = re.compile(r"\\(?:re)?newenvironment\s*\{(?:[vV]erbatim|lstlisting|minted|comment)\}")
_IF = re.compile(r"\\(if[a-zA-Z@]*|else|fi)(?![a-zA-Z@])")
_IFFALSE = re.compile(r"\\iffalse(?![a-zA-Z@}])")
_ALIAS = re.compile(r"(?:\\let\s*\\[a-zA-Z@]+\s*=?|\\endcsname\s*=?)\s*$")
_IFS = re.compile(r"if(?:x|num|dim|cat|odd|case|true|false|[mvh]mode|inner|void|[hv]box|eof|defined|csname|fontchar)?")
# TeX refuses a name much sooner; a brace that never ends must not cost the rest of the file.
_LONGEST = 2000


class Shown(NamedTuple):
    """A line that LaTeX reads: its number from 1, its code and its comment."""

    number: int
    code: str
    comment: str


class Reading(NamedTuple):
    """A command that reads a file: the name as it is written, the folder before it, and why it cannot be followed."""

    command: str
    name: str
    folder: str | None = None
    unclear: str | None = None


class Unclear(NamedTuple):
    """A place that hides what LaTeX reads, and why."""

    number: int
    text: str
    why: str


def decode(data: bytes) -> str | None:
    """Return the text of a file in UTF-8, or else in Latin-1; None for one that is no such text."""
    if b"\0" in data:
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def visible(text: str) -> tuple[list[Shown], list[Unclear]]:
    r"""Return the lines that LaTeX sets, without verbatim text, comment environments, \iffalse and what follows
    \endinput; and the places where that could not be told."""
    shown: list[Shown] = []
    unclear: list[Unclear] = []
    lines = re.split(r"\r\n|\n|\r", text)
    last_fi = max((number for number, line in enumerate(lines, 1) if "\\fi" in line), default=0)
    hidden: str | None = None
    depth = opened = 0
    for number, line in enumerate(lines, 1):
        if hidden:
            _, end, line = line.partition(f"\\end{{{hidden}}}")
            if not end:
                continue
            hidden = None
        if depth:
            depth, line = _skip_if(line, depth, number, unclear)
            if depth:
                continue
        code = _code(line)
        comment = line[len(code) :]
        if "\\verb" in line or "\\lstinline" in line:
            # A percent sign between its marks begins no comment.
            code = _code(_VERB.sub(" ", line))
        while start := next((at for at in _IFFALSE.finditer(code) if not _ALIAS.search(code[: at.start()])), None):
            depth, rest = _skip_if(code[start.end() :], 1, number, unclear)
            code = code[: start.start()] + (" " + rest if not depth else "")
            if depth:
                opened, comment = number, ""
                break
        if begin := _VERBATIM.search(code):
            hidden, opened = begin[1], number
            _, end, rest = line.partition(f"\\end{{{hidden}}}")
            code, comment = code[: begin.start()] + (_code(rest) if end else ""), ""
            hidden = None if end else hidden
        shown.append(Shown(number, code, comment))
        ends = code.strip().startswith(("\\endinput", "\\end{document}"))
        if ends and not hidden and not depth and last_fi <= number:
            rest = "".join(lines[number:])
            if rest.count("}") <= rest.count("{"):
                break
    if hidden or depth:
        what = f"\\begin{{{hidden}}}" if hidden else "\\iffalse"
        unclear.append(Unclear(opened, what, "its end is not in this file"))
    return shown, unclear


def _code(line: str) -> str:
    """Return what stands before the comment of a line."""
    match = _CODE.match(line)
    return match[0] if match else ""


def _skip_if(line: str, depth: int, number: int, unclear: list[Unclear]) -> tuple[int, str]:
    r"""Return the depth after a line inside \iffalse, and what of the line stands behind its end."""
    code = _code(line)
    for token in _IF.finditer(code):
        name = token[1]
        if name == "fi" or (name == "else" and depth == 1):
            depth -= 1
        elif _IFS.fullmatch(name):
            depth += 1
        elif name not in ("else", "iff"):
            unclear.append(Unclear(number, f"\\{name}", "inside \\iffalse it hides where that ends"))
        if depth == 0:
            return 0, line[token.end() :]
    return depth, ""


def readings(lines: Sequence[Shown], place: int) -> Iterator[Reading]:
    """Yield the commands of a line that read a file, or may do so; their arguments may stand on later lines."""
    code = lines[place].code
    if "\\" not in code:
        return
    for odd in _SPELLED.finditer(code):
        yield Reading(odd[0], odd[0], unclear="a command that is spelled by others is not followed")
    for odd in (*_CATCODE.finditer(code), *_REDEFINED.finditer(code)):
        yield Reading(odd[0], odd[0], unclear="it changes how LaTeX reads the file")
    for command in _COMMAND.finditer(code):
        name = command[1]
        if name in _READERS:
            later = (line.code for line in lines[place + 1 : place + 6])
            rest = "\n".join([code[command.end() : command.end() + _LONGEST], *later])
            yield _reading(name, command[0], rest[:_LONGEST])
        elif _HARMLESS.fullmatch(name):
            continue
        elif _OPAQUE.fullmatch(name):
            yield Reading(name, command[0], unclear="what it reads is not followed")


def _reading(name: str, command: str, rest: str) -> Reading:
    arguments: list[str] = []
    for _ in range(_READERS[name]):
        rest = re.sub(r"^\s*\[[^]]*\]", "", rest)
        argument = re.match(r'\s*\{([^{}]*)\}|[^\S\n]*\n?[^\S\n]*("[^"\n]+"|[^\s{}\\"]+)', rest)
        if not argument:
            return Reading(name, command, unclear=_MACROS)
        arguments.append(" ".join((argument[1] or argument[2] or "").replace('"', "").split()))
        rest = rest[argument.end() :]
    *folders, file = arguments
    written = "".join(arguments)
    if not file or re.search(r"[\\#|]", written):
        return Reading(name, written or command, unclear=_MACROS)
    return Reading(name, file, folders[0] if folders else None)


_MACROS = "macros are not followed, so nothing in that file is checked; write its name out"


def suspects(lines: Sequence[Shown]) -> dict[str, int]:
    """Return the commands that are called as if they read a file, with the number of the first line."""
    files_by_name: dict[str, int] = {}
    for line in lines:
        for command in _COMMAND.finditer(line.code):
            name = command[1]
            if _LIKE_READER.search(name) and name not in _READERS and not _HARMLESS.fullmatch(name):
                files_by_name.setdefault(name, line.number)
    return {name: number for name, number in files_by_name.items() if not _OPAQUE.fullmatch(name)}


def definitions(text: str) -> tuple[set[str], set[str]]:
    """Return the commands that a text defines, and those of them whose definitions read files."""
    starts = list(_DEFINITION.finditer(text))
    names, reading = set(), set()
    for place, start in enumerate(starts):
        end = starts[place + 1].start() if place + 1 < len(starts) else len(text)
        name = start[1] or start[2]
        names.add(name)
        if any(each[1] in _READERS for each in _COMMAND.finditer(text[start.end() : min(end, start.end() + 400)])):
            reading.add(name)
    return names, reading
