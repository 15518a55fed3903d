"""Tables on paper: aligned numbers, several pages, any width; set by pdflatex and followed by verify."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.database import Database
from reports import verify
from reports.gathering import gather
from reports.render.latex import latex
from reports.render.typesetting import column_parts, number_format, row_parts
from reports.table import Table
from tests.reports.lookup import one
from tests.reports.synthetic import configuration, make_database, trials

METHODS: list[list[str]] = [[], ["byot"], ["pskd"], ["byot", "pskd"], ["byot", "dmfl", "pskd"], ["dmfl"]]
ACROSS: dict[str, Any] = {"rows": "learning_rate", "across": "methods", "groups": "network"}
LIST: dict[str, Any] = {"rows": ["methods", "learning_rate", "seed"], "groups": "network"}
GAIN, P = {"top1": {"minus": "baseline"}}, {"top1": {"p": "baseline"}}
TABLES: list[dict[str, Any]] = [
    {"name": "narrow", **ACROSS, "columns": ["top1"], "where": {"methods": ["baseline", "pskd"]}},
    {"name": "turned", **ACROSS, "columns": ["top1"]},
    {"name": "wide", **ACROSS, "columns": ["top1", "ece", "nll", "train_time"]},
    {"name": "parts", **ACROSS, "columns": ["top1"], "latex": {"wide": "parts"}},
    {
        "name": "aligned",
        "rows": ["methods", "learning_rate"],
        "groups": "network",
        "columns": ["top1", "nll", GAIN, P, "train_time"],
        "latex": {"siunitx": True},
    },
]
LONG: list[dict[str, Any]] = [
    {"name": "long", **LIST, "columns": ["top1", "nll"], "latex": {"long": True}},
    {"name": "both", **LIST, "columns": ["top1", GAIN], "latex": {"long": True, "siunitx": True}, "notes": "none"},
]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Methods by learning rates by networks, one of them running, one diverged and one timed in company."""

    def fill(filler: Any) -> None:
        configs = [
            configuration(methods, learning_rate=rate, network=network, seed=seed)
            for methods in METHODS
            for rate in (0.03, 0.1)
            for network in ("resnet18", "resnet50")
            for seed in range(3)
        ]
        given = trials(configs)
        given[3][2].update(state="running", epochs=2)
        given[40][2].update(state="failed", error_class="diverged", epochs=1)
        given[50][2].update(quality="packed")
        filler.grid("g", {"tables": []}, given)

    with make_database(tmp_path_factory.mktemp("paper") / "results.db", fill) as opened:
        yield opened


@pytest.fixture(scope="module")
def tables(database: Database) -> list[Table]:
    return gather(database, tables=TABLES + LONG).tables


@pytest.fixture(scope="module")
def report(tables: list[Table], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The LaTeX files of a report, without its figures."""
    folder = tmp_path_factory.mktemp("tex")
    for table in tables:
        (folder / f"{table.name}.tex").write_text(latex(table), encoding="utf-8")
    return folder


HEADS = {
    "one": "\\documentclass{article}\n\\usepackage{longtable,threeparttablex}\n",
    "two": "\\documentclass[twocolumn]{article}\n",
    "ieee": "\\documentclass[conference]{IEEEtran}\n",
}


def compiled(folder: Path, names: list[str], head: str) -> str:
    """Return the log of a paper with these tables, and leave its text in paper.txt."""
    needed = ["siunitx.sty", "threeparttablex.sty"] + (["IEEEtran.cls", "ptmr7t.tfm"] if "IEEE" in head else [])
    if shutil.which("pdflatex") is None or subprocess.run(["kpsewhich", *needed], capture_output=True).returncode:
        pytest.skip(f"there is no pdflatex, or TeX has no {' or no '.join(needed)} here")
    inputs = "\n".join(f"Text.\\input{{{name}}}\\clearpage" for name in names)
    text = f"{head}\\usepackage{{booktabs,threeparttable,graphicx,siunitx}}\n\\begin{{document}}\n{inputs}\n"
    (folder / "paper.tex").write_text(text + "\\end{document}\n", encoding="utf-8")
    for _ in range(3):
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=120)
        assert done.returncode == 0, done.stdout[-3000:]
        if not re.search(r"\bRerun\b", done.stdout.replace("\n", "")):
            break
    subprocess.run(["pdftotext", "-layout", "paper.pdf"], cwd=folder, check=True, timeout=60)
    return done.stdout


@pytest.mark.parametrize("paper", HEADS)
def test_every_table_fits_every_paper(report, tmp_path, paper):
    shutil.copytree(report, tmp_path, dirs_exist_ok=True)
    names = [table["name"] for table in (TABLES + LONG if paper == "one" else TABLES)]
    log = compiled(tmp_path, names, HEADS[paper])
    assert not re.findall(r"Overfull \\[hv]box.*|Float too large.*", log)
    assert "a table is too large" not in log.replace("\n", "")
    text = (tmp_path / "paper.txt").read_text(encoding="utf-8")
    assert "<0.001" in text.replace(" ", "") and "diverged" in text
    assert text.count("(continued)") >= 2 * (paper == "one")
    # A spread that is rounded to zero is one as well.
    written = "".join((report / f"{name}.tex").read_text(encoding="utf-8") for name in names)
    zeros = len(re.findall(r"(?:\+-|\\pm\$) 0\.00\b", written))
    assert zeros and len(re.findall(r"\u00b1\s*0\.00\b", text)) == zeros


def test_long_tables_have_their_headings_on_every_page(report, tmp_path):
    shutil.copytree(report, tmp_path, dirs_exist_ok=True)
    compiled(tmp_path, ["long"], HEADS["one"])
    pages = (tmp_path / "paper.txt").read_text(encoding="utf-8").split("\f")[:-1]
    assert len(pages) > 1
    assert all("Learning rate" in page and "Table 1: long" in page for page in pages)
    assert all("continued on the next page" in page for page in pages[:-1])
    assert "continued on the next page" not in pages[-1] and "Selection:" in pages[-1]


def test_columns_of_a_group_stay_together_and_nothing_is_lost(tables):
    for name, count in (("narrow", 1), ("turned", 1), ("aligned", 1)):
        assert len(column_parts(one(tables, name))) == count
    for name in ("parts", "wide"):
        parts = column_parts(one(tables, name))
        assert len(parts) > 1
        assert [place for part in parts for place in part] == list(range(len(one(tables, name).columns)))
    assert len(row_parts(one(tables, "long"))) == 1 < len(row_parts(one(tables, "aligned")))


def test_numbers_are_aligned_by_siunitx_and_other_texts_are_not(tables):
    table = one(tables, "aligned")
    formats = [number_format(table, place) for place in range(len(table.columns))]
    assert formats[0] is not None and formats[0].startswith("table-format=2.2(3)")
    assert formats[2] is not None and formats[2].startswith("table-format=+1.2(3)")
    assert formats[3] == "table-format=<1.3{~(2/3)},mode=math" and formats[4] is None
    text = latex(table)
    assert re.search(r"& \\bfseries \d\d\.\d\d \+- 0\.\d\d % aligned", text)
    assert re.search(r"& \+?-?\d\.\d\d \+- 0\.\d\d % aligned:\S+-minus", text)
    assert re.search(r"& <0\.001 % aligned", text) and "& {--} % aligned" in text
    assert "{~(2/3)}" in text or "(2/3)" in text


def test_every_seed_in_one_cell_is_no_number(database):
    table = {**TABLES[-1], "name": "listed", "show": "each", "columns": ["top1"]}
    listed = one(gather(database, tables=[table]).tables, "listed")
    assert number_format(listed, 0) is None and "S[" not in latex(listed)


def test_verify_follows_every_way_of_printing(database, report, tmp_path):
    shutil.copytree(report, tmp_path, dirs_exist_ok=True)
    names = [table["name"] for table in TABLES + LONG]
    paper = tmp_path / "paper.tex"
    paper.write_text("\n".join(f"\\input{{{name}}}" for name in names))
    outcome = verify(database, paper, tables=TABLES + LONG)
    assert [str(problem) for problem in outcome.problems] == [] and outcome.notes == []
    text = (tmp_path / "aligned.tex").read_text(encoding="utf-8")
    place = r"(& (?:\\bfseries )?)\d\d\.\d\d( \+- 0\.\d\d[^%]*% aligned:resnet18/byot/0\.1/top1 )"
    assert len(re.findall(place, text)) == 1
    # The same table alone, in every other way of printing it.
    paper.write_text("\\input{aligned}")
    for changed, kinds in (
        (re.sub(place, r"\g<1>11.11\2", text), ["edited"]),
        (text.replace("\\bfseries ", ""), []),
        (re.sub(r"\+- 0\.\d\d", "", text), []),
        (re.sub(r"(\d\d\.\d\d) \+- (0\.\d\d)", r"\1 $\\pm$ \2", text), []),
    ):
        assert changed != text
        (tmp_path / "aligned.tex").write_text(changed, encoding="utf-8")
        outcome = verify(database, paper, tables=TABLES[-1:])
        assert sorted({problem.kind for problem in outcome.problems} - {"contradictory"}) == kinds, outcome.problems


def test_options_of_printing_are_checked(database):
    from reports import ReportError

    with pytest.raises(ReportError, match=r"latex.siunitx: 'often' is neither true nor false|latex.wide"):
        gather(database, tables=[{**TABLES[0], "latex": {"siunitx": "often"}}])
    with pytest.raises(ReportError, match=r"unknown value 'shrink'.*allowed: parts, turn"):
        gather(database, tables=[{**TABLES[0], "latex": {"wide": "shrink"}}])
