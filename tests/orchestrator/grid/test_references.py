"""Published values of a user's own: read with the grid, every problem with its line, addresses checked by the plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.grid import load_grid
from orchestrator.grid.problems import GridError
from orchestrator.tables.references import read_values
from orchestrator.tables.schema import PUBLISHED
from trainer.config import TrainConfig

GRID = """name: rates
fixed: {dataset: digits, width: 8}
grid:
  methods: [baseline, pskd]
  learning_rate: [0.01, 0.1]
report:
  tables:
    - {name: rates, rows: learning_rate, across: methods, columns: [top1], reference: REFERENCE}
"""
HEAD = "row,column,printed,value,std,runs,source,recipe,footnote,doubt\n"


def load(folder: Path, text: str, reference: str = "published.csv"):
    (folder / "published.csv").write_text(text, encoding="utf-8")
    (folder / "grid.yaml").write_text(GRID.replace("REFERENCE", reference))
    return load_grid(folder / "grid.yaml")


def problems(folder: Path, text: str, reference: str = "published.csv") -> list[str]:
    with pytest.raises(GridError) as caught:
        load(folder, text, reference)
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def test_values_are_stored_with_the_grid(tmp_path):
    text = (
        "# a comment, with commas\n"
        + HEAD
        + '0.1,pskd/top1,24.18 ± 0.30,,,5,"Lee 2021, Table 3","epochs: 200, milestones: [60, 120]",,\n'
        + "0.1,baseline/top1,,,,,,,,\n\n"
        + "*,baseline/top1,25.1*,25.1,,,,,shared GPU,two values\n"
    )
    grid = load(tmp_path, text, "{file: published.csv, source: All, recipe: {epochs: 300}}")
    (table,) = grid.report["tables"]
    (reference,) = table["reference"]
    assert (reference["file"], reference["source"], reference["recipe"]) == ("published.csv", "All", {"epochs": 300})
    first, second = reference["values"]
    assert (first["line"], first["row"], first["column"], first["std"], first["runs"]) == (
        3,
        "0.1",
        "pskd/top1",
        0.3,
        5,
    )
    assert first["recipe"] == {"epochs": 200, "milestones": [60, 120]} and "value" not in first
    assert (second["line"], second["value"], second["doubt"]) == (6, 25.1, "two values")


def test_a_spreadsheet_may_write_semicolons_and_a_mark_of_order(tmp_path):
    path = tmp_path / "published.csv"
    path.write_bytes("\ufeffrow;column;printed\r\n0.1;pskd/top1;24.18 \u00b1 0.3\r\n".encode())
    (value,) = read_values(path).values
    assert (value["row"], value["printed"], value["std"]) == ("0.1", "24.18 \u00b1 0.3", 0.3)


def test_every_problem_of_a_file_has_its_line(tmp_path):
    text = (
        HEAD
        + '0.1,pskd/top1,"24,18",,,,,,,\n'
        + "0.1,pskd/top1,24.18,a,-1,some,,epoch: 200,,\n"
        + ",pskd/top1,24.18,,,,,,,\n"
        + "0.1,pskd/top1,24.18,,,,,just words,,\n"
        + "0.1,pskd/top1,24.18,,,,,,,a, b\n"
    )
    listed = problems(tmp_path, text)
    for beginning in (
        "published.csv:2: printed: '24,18' is not a number; write 24.18",
        "published.csv:3: value: 'a' is not a number",
        "published.csv:3: std: -1 is negative",
        "published.csv:3: runs: 'some' is not a number of runs",
        "published.csv:3: recipe: unknown field 'epoch'; did you mean 'epochs'?",
        "published.csv:3: row: 0.1/pskd/top1 stands in line 2 as well",
        "published.csv:4: row: is empty",
        "published.csv:5: recipe: 'just words' is no recipe",
        "published.csv:6: has 11 cells, the heading 10; put a text that has a comma into quotes",
    ):
        assert any(line.startswith(beginning) for line in listed), (beginning, listed)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("row,colum,printed\n", "published.csv:1: colum: unknown column 'colum'; did you mean 'column'?"),
        ("row,printed\n", "published.csv:1: column: is missing"),
        ("", "published.csv:1: row: is missing"),
        (
            HEAD + "0.1,psdk/top1,24,,,,,,,\n",
            "published.csv:2: column: the table has no column 'psdk/top1'; did you mean 'pskd/top1'? (there are: "
            "baseline/top1, pskd/top1); or begin the line with #",
        ),
        (
            HEAD + "0.2,pskd/top1,24,,,,,,,\n",
            "published.csv:2: row: the table has no row '0.2'; did you mean '0.1'? (there are: 0.01, 0.1)",
        ),
    ],
)
def test_columns_and_addresses_are_checked_with_the_nearest_name(tmp_path, text, message):
    assert any(line.startswith(message) for line in problems(tmp_path, text)), problems(tmp_path, text)


def test_a_reference_is_a_file_or_one_that_ships(tmp_path):
    assert "missing.csv: no such file" in problems(tmp_path, HEAD, "missing.csv")[0]
    (line,) = problems(tmp_path, HEAD, "tabel1")
    assert "reference 'tabel1'; did you mean 'table1'?" in line and line.startswith("grid.yaml:8")
    (line,) = problems(tmp_path, HEAD, "{file: published.csv, recipe: {epoch: 3}}")
    assert "unknown field 'epoch'; did you mean 'epochs'?" in line
    assert load(tmp_path, HEAD, "table1").report["tables"][0]["reference"] == [{"file": "table1"}]


def test_what_ships_is_named_in_full():
    folder = Path(__file__).parents[3] / "reports/published"
    assert {path.stem for path in folder.glob("*.csv")} == {*PUBLISHED, "settings", "contradictions"}
    for name in PUBLISHED:
        assert read_values(folder / f"{name}.csv", TrainConfig.model_fields).problems == []
