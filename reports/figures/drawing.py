"""Give every figure the same style: colours for light and dark pages, and files that are equal when the figures are."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

# A notebook's commands inherit its MPLBACKEND, and matplotlib cannot be imported where it does not know that backend.
_backend = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)

import matplotlib  # noqa: E402

if _backend is not None:
    os.environ["MPLBACKEND"] = _backend
    with suppress(ValueError):
        matplotlib.rcParams["backend"] = _backend

# Saving would import these one by one; here they load while the database is read.
import matplotlib.backends.backend_agg  # noqa: E402
import matplotlib.backends.backend_pdf  # noqa: E402
import matplotlib.backends.backend_svg  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

# Mid tones that stand out from white and from a dark page alike (contrast 3 or more), and from one another for people
# who see no red or no green (24 or more in CIELAB): there are no more than eight such colours. In print without colour,
# lines differ in their dashes and markers.
COLOURS = ("#146ee1", "#a59603", "#8e4799", "#4da567", "#8d581d", "#219de3", "#536a5e", "#ab88ab")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_SOLID, _DASHED, _DOTTED, _DASH_DOTTED = "-", (0, (5, 1.6)), (0, (1.2, 1.2)), (0, (5, 1.4, 1.2, 1.4))
DASHES: tuple[Any, ...] = (_SOLID, _DASHED, _DOTTED, _DASH_DOTTED) * 2
# Inches: a column of a two-column article, and the text of a one-column one.
WIDTHS = {"column": 3.35, "text": 6.75}
# Points.
SMALL = 7.5
# A colour that nothing else uses: pages replace it with their own text colour.
INK = "#16191d"
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "orchestrate",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw with matplotlib's own defaults and our style, whatever the user's matplotlibrc says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


@dataclass(frozen=True)
class Drawing:
    """A finished figure with its file name (without ending), title and caption."""

    name: str
    title: str
    caption: str
    figure: Figure

    def save(self, folder: Path) -> list[Path]:
        """Write the figure as PDF, SVG and PNG, and return the paths."""
        written = []
        for kind in ("pdf", "svg", "png"):
            path = folder / f"{self.name}.{kind}"
            path.write_bytes(self.svg.encode() if kind == "svg" else _bytes(self.figure, kind))
            written.append(path)
        return written

    @cached_property
    def svg(self) -> str:
        """Return the figure as an SVG document."""
        return _bytes(self.figure, "svg").decode()

    def inline(self) -> str:
        """SVG for a page: transparent, its ink the page's text colour."""
        return self.svg[self.svg.index("<svg") :].replace(INK, "currentColor").replace("fill: #ffffff", "fill: none")


def _bytes(figure: Figure, format: str) -> bytes:
    """Return the encoded figure; equal figures give equal bytes, so no date and no program is written."""
    options: dict[str, dict[str, Any]] = {
        "pdf": {"metadata": {"CreationDate": None}},
        "svg": {"metadata": {"Date": None}},
        # The default level takes three times as long to save a tenth of the size.
        "png": {"metadata": {"Software": None}, "pil_kwargs": {"compress_level": 1}},
    }
    written = io.BytesIO()
    with styled():
        figure.savefig(written, format=format, dpi=200, **options[format])
    return written.getvalue()
