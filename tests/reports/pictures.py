"""Pictures of docs/tables.md: its declarations, set by pdflatex on made-up numbers.

`python -m tests.reports.pictures` writes docs/images/table-NAME.png; it needs pdflatex and pdftoppm.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.database import Database, open_database
from reports.gathering import gather
from reports.render.latex import latex
from reports.table import Table
from tests.reports.lookup import declarations
from tests.reports.synthetic import configuration, make_database, trials

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/tables.md"
PAPER = r"""\documentclass[11pt]{article}
\usepackage[paperwidth=%s,paperheight=12cm,margin=4mm]{geometry}
\usepackage{booktabs,threeparttable,graphicx,siunitx}
\pagestyle{empty}
\begin{document}
\makeatletter\def\@captype{table}\makeatother
\newcommand\orchprint[2]{\def\orchsize{\footnotesize}\def\orchtext{.33\linewidth}
  {\centering\setlength{\belowcaptionskip}{4pt}#1\par\footnotesize\setlength{\tabcolsep}{4pt}#2\par}}
%s
\end{document}
"""


def page_database(folder: Path) -> Database:
    """Return a database for the page: two, of two machines, put together by `orchestrate merge`."""
    combinations = ([], ["byot"], ["pskd"], ["byot", "pskd"], ["byot", "dmfl", "pskd"])
    main = [configuration(methods, seed=seed) for methods in combinations for seed in range(5)]
    rates = [
        configuration(methods, learning_rate=rate, seed=seed)
        for rate in (0.01, 0.03)
        for methods in combinations[:3]
        for seed in range(5)
    ]
    others = [configuration(methods, dataset="cifar10", seed=seed) for methods in combinations for seed in range(5)]
    grids = {"laptop": ("rates", trials(rates) + trials(main)), "server": ("sets", trials(others))}
    for machine, (name, listed) in grids.items():
        make_database(
            folder / f"{machine}.db", lambda filler, name=name, listed=listed: filler.grid(name, {}, listed)
        ).close()
    files = [str(folder / name) for name in ("all.db", "laptop.db", "server.db")]
    done = CliRunner().invoke(app, ["merge", *files])
    assert done.exit_code == 0, done.output
    return open_database(files[0], readonly=True)


def page_tables(database: Database) -> list[Table]:
    """Return the page's tables from such a database."""
    written = declarations(PAGE)
    names = [table["name"] for table in written]
    return [table for table in gather(database, tables=written).tables if table.name in names]


def picture(table: Table, path: Path, width: str = "13cm") -> None:
    """Write a table as it stands in a paper: PNG, cropped below."""
    text = latex(table)
    with TemporaryDirectory() as folder:
        Path(folder, "table.tex").write_text(PAPER % (width, text), encoding="utf-8")
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
        if done.returncode:
            raise SystemExit(done.stdout[-2000:])
        subprocess.run(["pdftoppm", "-r", "110", "-png", "-singlefile", "table.pdf", "table"], cwd=folder, check=True)
        _cropped(Path(folder, "table.png"), path)


def _cropped(source: Path, path: Path) -> None:
    from PIL import Image, ImageChops

    image = Image.open(source).convert("L")
    box = ImageChops.invert(image).getbbox() or (0, 0, *image.size)
    image.crop((0, 0, image.width, min(image.height, box[3] + 20))).save(path, optimize=True)


def main() -> None:
    """Write every picture of the page."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs/images"
    with TemporaryDirectory() as place, page_database(Path(place)) as database:
        for table in page_tables(database):
            picture(table, folder / f"table-{table.name}.png")


if __name__ == "__main__":
    main()
