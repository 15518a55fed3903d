"""Every format against golden files, and names that could break one."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from reports.columns import TOP1
from reports.gathering import gather
from reports.render import plain as render
from reports.render.latex import latex
from reports.results import Selection
from reports.table import Entry, Row, Sample, Table
from tests.reports.lookup import numbers, one

ROOT = Path(__file__).parents[3]
NASTY = r"""<script>alert(1)</script> & 100 % $x_1^2$ #{a} \end{table} ~ | "q" 'é' 模型 `*_b_*` [x]"""


@pytest.fixture(scope="module")
def tables(database):
    return gather(database, vs_paper=True).tables


@pytest.fixture(scope="module")
def nasty() -> Table:
    """A table all of whose texts try to be something else."""
    samples = (Sample("k" * 64, NASTY, 0, 3, 20.0, 100),)
    entries = (Entry("done", 20.0, n=1, planned=1, star=True, bold=True, notes=("a",), samples=samples),)
    row = Row(NASTY, "row", (NASTY,), entries, note="a", n=1, planned=1)
    notes = (("*", NASTY), ("a", NASTY))
    return Table("nasty", "nasty", NASTY, NASTY, (NASTY,), (TOP1,), (row,), notes, Selection.parse("last"))


@pytest.mark.parametrize("name", ["table1", "table2", "table4", "dcm", "table3-vs-paper", "grid-rates_-b"])
def test_markdown(tables, golden, name):
    golden(f"{name}.md", render.markdown(one(tables, name)))


@pytest.mark.parametrize("name", ["table1", "interactions", "table3-vs-paper"])
def test_latex(tables, golden, name):
    golden(f"{name}.tex", latex(one(tables, name)))


@pytest.mark.parametrize("name", ["table1", "table3-vs-paper", "overview"])
def test_csv(tables, golden, name):
    golden(f"{name}.csv", render.csv(one(tables, name)))


@pytest.mark.parametrize("name", ["table1", "table4"])
def test_json(tables, golden, name):
    golden(f"{name}.json", render.json(one(tables, name)))


def test_a_golden_file_that_is_missing_fails(golden, monkeypatch):
    monkeypatch.delenv("GOLDEN_WRITE", raising=False)
    with pytest.raises(AssertionError, match="is missing; GOLDEN_WRITE=1 writes it"):
        golden("no-such-file.md", "")


def test_markdown_cells_stay_cells(nasty):
    text = render.markdown(nasty)
    row = next(line for line in text.splitlines() if line.startswith("| \\<script"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 4
    assert "<script>" not in text
    bare = re.sub(r"\\.", "", row.replace("<sup>a</sup>", "").replace("**20.00**", ""))
    assert not set("*_`[]<") & set(bare)


def test_csv_and_json_keep_names_as_they_are(nasty, tables):
    rows = list(csv.DictReader(io.StringIO(render.csv(nasty))))
    assert rows[0]["group"] == NASTY
    assert (rows[0]["top1"], rows[0]["top1_flags"]) == ("20.0", "starred bold")
    assert json.loads(render.json(nasty))["rows"][0]["group"] == NASTY
    table = one(tables, "table1")
    for line, row in zip(csv.DictReader(io.StringIO(render.csv(table))), table.rows, strict=True):
        assert float(line["top1"] or "nan") == pytest.approx(row.entries[0].value or float("nan"), nan_ok=True, abs=0)
        assert line["row"] == row.key
    document = json.loads(render.json(table))
    for json_row, row in zip(document["rows"], table.rows, strict=True):
        assert json_row["entries"]["top1"]["value"] == row.entries[0].value
        assert {key for key, _, _ in json_row["entries"]["top1"]["samples"]} <= document["trials"].keys()


def test_no_format_prints_what_json_readers_refuse():
    entries = (Entry("done", float("inf"), n=1, planned=1),)
    row = Row("", "row", ("a",), entries, n=1, planned=1)
    table = Table("t", "t", "T", "", ("Method",), (TOP1,), (row,))
    assert json.loads(render.json(table))["rows"][0]["entries"]["top1"]["value"] is None
    assert "∞" in render.markdown(table) and "$\\infty$" in latex(table)


def test_latex_carries_a_comment_for_every_number(tables):
    for table in tables:
        text = latex(table)
        comments = re.findall(r" % (\S+) = (\S+) n=\d+ ", text)
        assert [(address, float(value)) for address, value in comments] == [
            (address, entry.value) for address, entry in numbers(table).items()
        ]


def test_latex_compiles_without_edits(tables, nasty, tmp_path):
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed")
    for table in [*tables, nasty]:
        (tmp_path / f"{table.name}.tex").write_text(latex(table), encoding="utf-8")
    inputs = "\n".join(f"\\input{{{table.name}}}\\clearpage" for table in [*tables, nasty])
    document = (
        "\\documentclass{article}\n\\usepackage{booktabs,threeparttable,graphicx}\n"
        f"\\begin{{document}}\n{inputs}\n\\end{{document}}\n"
    )
    (tmp_path / "paper.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stdout[-3000:]
    # Nothing runs into the margin, and no page is too full.
    assert not re.findall(r"Overfull \\[hv]box.*|Float too large.*", done.stdout.split("nasty.tex")[0])
    if shutil.which("pdftotext"):
        subprocess.run(["pdftotext", "-layout", "paper.pdf"], cwd=tmp_path, check=True, timeout=60)
        text = (tmp_path / "paper.txt").read_text(encoding="utf-8")
        assert "PS-KD+BYOT+DMFL" in text and "diverged" in text and "[U+6A21]" in text


# What a class needs beside pdflatex, and how a paper of that class begins.
PAPERS = {
    "article": ([], "\\documentclass[twocolumn]{article}\n"),
    # The measures of CVPR's style.
    "cvpr": (
        [],
        "\\documentclass[10pt,twocolumn,letterpaper]{article}\n\\setlength{\\textwidth}{496.5pt}"
        "\\setlength{\\columnsep}{22.5pt}\\setlength{\\textheight}{641pt}\n",
    ),
    "ieee": (["IEEEtran.cls", "ptmr7t.tfm"], "\\documentclass[conference]{IEEEtran}\n"),
    # Without scalable fonts microtype cannot stretch them.
    "acm": (
        ["acmart.cls"],
        "\\PassOptionsToPackage{expansion=false}{microtype}\\documentclass[sigconf,nonacm]{acmart}\n"
        "\\title{T}\\author{A}\n",
    ),
}


@pytest.mark.parametrize("paper", PAPERS)
def test_latex_fits_the_columns_of_a_two_column_paper(tables, tmp_path, paper):
    needed, head = PAPERS[paper]
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed")
    if needed and subprocess.run(["kpsewhich", *needed], capture_output=True).returncode:
        pytest.skip(f"TeX has no {' or no '.join(needed)} here")
    for table in tables:
        (tmp_path / f"{table.name}.tex").write_text(latex(table), encoding="utf-8")
    title = "\\maketitle " if paper == "acm" else ""
    inputs = title + "\n".join(f"Text.\\input{{{table.name}}}\\clearpage" for table in tables)
    document = (
        f"{head}\\usepackage{{booktabs,threeparttable,graphicx}}\n\\begin{{document}}\n{inputs}\n\\end{{document}}\n"
    )
    (tmp_path / "paper.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stdout[-3000:]
    assert not re.findall(r"Overfull \\hbox.*", done.stdout)
    if paper != "article":
        assert "Float too large" not in done.stdout
    # TeX breaks the lines of its log.
    assert "a table is too large for a page" not in done.stdout.replace("\n", "")


def drawn(folder: Path, **variables: str) -> str:
    """Return the hashes of a figure in three formats, drawn by a process of its own that starts in a folder."""
    code = (
        "import hashlib, reports.figures.drawing as d\nfrom reports.figures.rendering import rendered\n"
        "from tests.reports.plotting import Spot, plane\n"
        "spots = [Spot('ResNet-18', f'point {n}', 2.0 + n, 20.0 + n, 0.5) for n in range(3)]\n"
        "figure = rendered(plane(spots), {}).figure\n"
        "print([hashlib.sha256(d._bytes(figure, kind)).hexdigest() for kind in ('pdf', 'svg', 'png')])"
    )
    environ = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"} | variables
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hashes without any setting of the user's."""
    return drawn(tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize(
    ("setting", "backend"),
    [
        ("savefig.facecolor: black\nlines.linewidth: 9", "module://matplotlib_inline.backend_inline"),
        ("text.usetex: True", "nonsense"),
    ],
)
def test_figures_are_the_same_whatever_the_user_has_set(plain: str, tmp_path: Path, setting: str, backend: str) -> None:
    (tmp_path / "matplotlibrc").write_text(f"{setting}\n")
    assert drawn(tmp_path, MPLBACKEND=backend) == plain
