"""The page as one file that needs nothing else: tables and pictures, and a script that opens them up."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from markupsafe import Markup

from reports.render.html import template

ROOM = Path(__file__).resolve().parent
# In the order in which they stand in the page: a script uses what those before it define.
SCRIPTS = ("base.js", "statistics.js", "tables.js", "chart.js", "explore.js", "start.js")


def render_page(data: Mapping[str, Any], more: str = "", connect: str = "'none'") -> str:
    """Return the page of `data` as HTML.

    Every text is escaped, since names may contain anything; the drawings' SVG is our own. No script runs but those of
    this room and `more`, which the page's content policy names by their hashes; `connect` are the sources that they may
    ask, none by default.
    """
    code = script() + more
    return (
        template("report.html").render(
            data=data,
            style=Markup((ROOM / "page.css").read_text(encoding="utf-8")),
            code=Markup(code),
            code_hash=b64encode(sha256(code.encode()).digest()).decode(),
            connect=connect,
            json=embedded(data),
        )
        + "\n"
    )


@cache
def script() -> str:
    """Return the page's script."""
    return "".join((ROOM / name).read_text(encoding="utf-8") for name in SCRIPTS)


def embedded(data: Mapping[str, Any]) -> Markup:
    """Return the page's data as JSON that can stand in a script element, without what the page's HTML has already."""
    figures = [{name: each for name, each in figure.items() if name != "svg"} for figure in data["figures"]]
    text = json.dumps({**data, "figures": figures}, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # An end tag or a comment in a name would end the element; JSON knows these letters by number as well.
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)
