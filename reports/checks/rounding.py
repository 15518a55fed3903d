"""Compare a printed number with the database's: fewer decimals are fine, a wrong one is not."""

from __future__ import annotations

import re
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal, InvalidOperation

from reports.columns import Column
from reports.table import Entry

_BOLD = re.compile(r"\\(?:textbf|mathbf|boldsymbol|bm)\s*\{|\\bfseries\b|\\bf\b")
_MARK = re.compile(r"\\tnote\{[^}]*\}")
_NUMBER = re.compile(r"^[-+]?\d+(?:\.\d+)?$")


def is_bold(text: str) -> bool:
    """Return whether LaTeX prints a text in bold."""
    return bool(_BOLD.search(text))


def without_bold(text: str) -> str:
    """Return a text without its commands for bold, and without the braces that belong to them."""
    plain = _BOLD.sub("{", text) if "\\bf" not in re.sub(r"\\textbf", "", text) else _BOLD.sub("", text)
    return plain.replace("{", "").replace("}", "")


def is_rounded(text: str, entry: Entry, column: Column) -> bool:
    """Return whether a text prints an entry's number, and its spread if any, correctly with fewer decimals.

    The spread may be left out; what stands behind (marks, seeds) may not be changed.
    """
    if entry.value is None or entry.text or column.form not in ("number", "signed"):
        return False
    plain = without_bold(_MARK.sub("", text)).replace("$-$", "-").replace("$", "").replace("\u2212", "-")
    plain = plain.replace("~", " ").replace("+-", "\\pm")
    number, _, spread = (part.strip() for part in plain.partition("\\pm"))
    spread = re.sub(r"\(\d+/\d+\)$", "", spread).strip()
    number = re.sub(r"\(\d+/\d+\)$", "", number).strip()
    return _rounds(number, entry.value, column.digits) and (
        not spread or (entry.spread is not None and _rounds(spread, entry.spread, column.digits))
    )


def _rounds(text: str, value: float, most: int) -> bool:
    """Return whether a decimal number is a value rounded to as many digits; both ways of rounding a half are right."""
    text = text.replace(" ", "")
    if not _NUMBER.fullmatch(text) or len(text.partition(".")[2]) > most:
        return False
    try:
        step = Decimal(1).scaleb(-len(text.partition(".")[2]))
        exact = Decimal(value)
        return Decimal(text) in (exact.quantize(step, ROUND_HALF_EVEN), exact.quantize(step, ROUND_HALF_UP))
    except InvalidOperation:
        return False
