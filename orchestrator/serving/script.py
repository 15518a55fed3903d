"""The script that makes the page live."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

ROOM = Path(__file__).resolve().parent


@cache
def live_script() -> str:
    """Return the script, with its style; it runs behind the page's own, and asks nobody but the page's server."""
    style = (ROOM / "live.css").read_text(encoding="utf-8")
    script = (ROOM / "live.js").read_text(encoding="utf-8")
    return f"const LIVE_STYLE = {json.dumps(style)};\n{script}"
