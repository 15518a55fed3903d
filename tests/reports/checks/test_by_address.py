"""Numbers are followed by their address: in tables that were turned round, thinned or re-rounded, and in sentences."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import update

from orchestrator.database import open_database
from orchestrator.database.models import Evaluation
from reports import explain, verify, write_report
from reports.checks.rounding import is_rounded
from reports.columns import TOP1
from reports.table import Entry
from tests.reports.synthetic import ablation, make_database, trials

DIFFERENCES = {
    "name": "gains",
    "rows": "methods",
    "columns": ["top1", "nll", {"top1": {"minus": "baseline"}}],
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database, and the LaTeX files of a report on it."""
    folder = tmp_path_factory.mktemp("addresses")
    report = {"tables": [1, 2, DIFFERENCES]}
    with make_database(
        folder / "results.db", lambda filler: filler.grid("table1", report, trials(ablation([0, 1, 2], heads="native")))
    ) as database:
        write_report(database, folder / "report", formats=["tex"])
    return folder


@pytest.fixture
def paper(written: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Check a paper with this text in the place of our table, or in a sentence; the kinds and addresses of problems."""
    shutil.copy(written / "results.db", tmp_path)
    shutil.copy(written / "report/numbers.tex", tmp_path)

    def check(text: str, change: float | None = None) -> list[str]:
        (tmp_path / "paper.tex").write_text(f"\\input{{numbers}}\n{text}\n", encoding="utf-8")
        if change is not None:
            with open_database(tmp_path / "results.db") as database, database.engine.begin() as connection:
                connection.execute(update(Evaluation).values(top1_error=Evaluation.top1_error + change))
        with open_database(tmp_path / "results.db", readonly=True) as database:
            verdict = verify(database, tmp_path / "paper.tex")
        return [f"{each.kind} {each.address}" for each in (*verdict.problems, *verdict.notes)]

    return check


def cells(written: Path, name: str = "table1") -> dict[str, str]:
    """Return the lines of a table's places by address, without the table."""
    text = (written / f"report/{name}.tex").read_text(encoding="utf-8")
    return {line.split(" % ")[1].split(" = ")[0]: line.strip() for line in text.splitlines() if " % " in line}


def header(written: Path) -> str:
    return "\n".join((written / "report/table1.tex").read_text(encoding="utf-8").splitlines()[:2])


def tabular(*lines: str) -> str:
    return "\\begin{tabular}{lrrr}\n" + "\n".join(lines) + "\n\\end{tabular}"


NAMES = ("baseline", "pskd", "byot")


def turned(written: Path, order: tuple[str, ...] = NAMES) -> list[str]:
    places = cells(written)
    lines = []
    for metric, names in (("top1", NAMES), ("nll", order)):
        lines += [metric, *(places[f"table1:resnet18/{name}/{metric}"] for name in names), "\\\\"]
    return lines


def test_a_table_that_was_turned_round_and_thinned_is_current(written, paper):
    assert paper(tabular("& baseline & PS-KD & BYOT \\\\", *turned(written))) == []


def test_rows_of_a_turned_table_in_another_order_are_noticed(written, paper):
    problems = paper(tabular(*turned(written, ("pskd", "baseline", "byot"))))
    assert problems == ["mislabelled table1:nll"]


def test_an_edited_number_of_a_turned_table_is_named(written, paper):
    lines = [re.sub(r"& [\d.]+", "& 12.34", line) if "pskd/nll" in line else line for line in turned(written)]
    assert paper(tabular(*lines)) == ["edited table1:resnet18/pskd/nll"]


def line_of(written: Path, name: str, metric: str, text: str) -> list[str]:
    place = cells(written)[f"table1:resnet18/{name}/{metric}"]
    label = {"baseline": "baseline", "pskd+byot+dmfl": "PS-KD+BYOT+DMFL"}[name]
    return [label, f"& {text} % " + place.split(" % ")[1], "\\\\"]


def value_of(written: Path, name: str, metric: str) -> float:
    return float(cells(written)[f"table1:resnet18/{name}/{metric}"].split(" = ")[1].split()[0])


def test_fewer_decimals_are_fine_when_correctly_rounded(written, paper):
    value = value_of(written, "baseline", "top1")
    for text, problem in (
        (f"{value:.1f}", None),
        (f"{value:.0f}", None),
        (f"{value + 0.1:.1f}", "edited"),
        (f"{value:.3f}", "edited"),
        (f"{value:.1f} $\\pm$ 9.9", "edited"),
    ):
        expected = [f"{problem} table1:resnet18/baseline/top1"] if problem else []
        assert paper(tabular(*line_of(written, "baseline", "top1", text))) == expected, text


def test_bold_that_goes_is_a_note_and_bold_that_comes_a_problem(written, paper):
    place = cells(written)["table1:resnet18/pskd+byot+dmfl/top1"]
    bold = place.split(" % ")[0].removeprefix("& ")
    assert bold.startswith("\\textbf{")
    plain = bold.removeprefix("\\textbf{").removesuffix("}")
    assert paper(tabular(*line_of(written, "pskd+byot+dmfl", "top1", plain))) == [
        "note table1:resnet18/pskd+byot+dmfl/top1"
    ]
    added = f"\\textbf{{{value_of(written, 'baseline', 'top1'):.1f}}}"
    assert paper(tabular(*line_of(written, "baseline", "top1", added))) == ["edited mark table1:resnet18/baseline/top1"]


@pytest.mark.parametrize(
    ("text", "value", "right"),
    [
        ("0.5", 0.5, True),
        ("0.4", 0.46, False),
        ("0.12", 0.125, True),
        ("0.13", 0.125, True),
        ("0.14", 0.125, False),
        ("20.0", 19.96, True),
        ("19.9", 19.96, False),
        ("$-$0.3", -0.26, True),
        ("0.3", -0.26, False),
        ("0.260", 0.26, False),
        ("abc", 0.26, False),
        ("", 0.26, False),
    ],
)
def test_rounding_is_judged_from_the_whole_number(text, value, right):
    assert is_rounded(text, Entry("done", value, n=1, planned=1), TOP1) is right


def test_sentences_are_checked(paper):
    sentence = "Our error is \\orch{table1:resnet18/pskd/top1} $\\pm$ \\orch{table1:resnet18/pskd/top1.spread}"
    assert paper(f"{sentence} over \\orch{{table1:resnet18/pskd/top1.n}} seeds.") == []
    assert paper("\\caption{A gain of \\orch{gains:pskd/top1.delta}.}") == []
    assert paper("\\orch{table1:resnet18/psdk/top1}") == ["unknown table1:resnet18/psdk/top1"]
    assert paper(sentence, change=1.0)[0] == "stale table1:resnet18/pskd/top1"


def test_an_edited_file_of_numbers_is_stale(paper, tmp_path):
    path = tmp_path / "numbers.tex"
    text = path.read_text(encoding="utf-8")
    changed = re.sub(r"(orch:table1:resnet18/pskd/top1\\endcsname\{)[^}]*", r"\g<1>1.00", text)
    assert changed != text
    path.write_text(changed, encoding="utf-8")
    assert paper("\\orch{table1:resnet18/pskd/top1}") == ["stale table1:resnet18/pskd/top1"]
    assert paper("\\orch{table1:resnet18/byot/top1}") == []


def test_numbers_print_in_sentences_headings_and_captions(written, tmp_path):
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed")
    shutil.copy(written / "report/numbers.tex", tmp_path)
    text = (
        "\\documentclass{article}\n\\input{numbers}\n\\begin{document}\n\\tableofcontents\\listoftables\n"
        "\\section{From \\orch{table1:resnet18/baseline/top1}}\n"
        "\\begin{table}\\caption{To \\orch{gains:pskd/top1}, \\orch{gains:pskd/top1.delta}}\\end{table}\n"
        "\\end{document}\n"
    )
    (tmp_path / "paper.tex").write_text(text)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    for _ in range(2):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120)
        assert done.returncode == 0, done.stdout[-2000:]
    subprocess.run(["pdftotext", "-layout", "paper.pdf"], cwd=tmp_path, check=True, timeout=60)
    shown = (tmp_path / "paper.txt").read_text(encoding="utf-8")
    assert shown.count(f"{value_of(written, 'baseline', 'top1'):.2f}") == 2
    assert shown.count(f"{value_of(written, 'pskd', 'top1'):.2f}") == 2
    (tmp_path / "paper.tex").write_text(text.replace("top1.delta", "top9"))
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode != 0 and "no number gains:pskd/top9" in done.stdout


def test_a_table_that_no_grid_asks_for_any_more_is_not_stale(written, paper, tmp_path):
    from orchestrator.database.models import Grid

    for name in ("table1", "table2", "gains"):
        shutil.copy(written / f"report/{name}.tex", tmp_path)
    with open_database(tmp_path / "results.db") as database, database.engine.begin() as connection:
        connection.execute(update(Grid).values(report={"tables": [3]}))
    assert paper("\\input{table1}\\input{table2}") == []
    with open_database(tmp_path / "results.db", readonly=True) as database:
        assert "PS-KD+BYOT+DMFL" in explain(database, "table2:resnet18/pskd+byot+dmfl/main")
        # A declared table is in the file of its grid alone, or in one of its own.
        (tmp_path / "paper.tex").write_text("\\input{gains}")
        problems = verify(database, tmp_path / "paper.tex").problems
        assert problems and all(
            "no grid asks for the table gains any more; give its file" in str(one) for one in problems
        )
        assert verify(database, tmp_path / "paper.tex", tables=[DIFFERENCES]).problems == []
