"""docs/tables.md: its declarations make the tables that the page says, and its pictures are there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from scipy import stats

from orchestrator.database import Database, open_database
from orchestrator.tables.addresses import methods_key
from orchestrator.tables.schema import COLUMNS, SOURCES, SPECIAL, TableSpec
from reports.loading import load
from reports.table import Table
from tests.reports.lookup import declarations, entry, numbers, said
from tests.reports.pictures import PAGE, page_database, page_tables

TEXT = PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with page_database(tmp_path_factory.mktemp("page")) as opened:
        yield opened


@pytest.fixture(scope="module")
def tables(database: Database) -> dict[str, Table]:
    return {table.name: table for table in page_tables(database)}


def test_every_declaration_makes_a_table_and_has_its_picture(tables: dict[str, Table]) -> None:
    names = [table["name"] for table in declarations(PAGE)]
    assert sorted(tables) == sorted(names) and len(names) == 5
    images = re.findall(r"\]\((images/[^)]+)\)", TEXT)
    assert images == [f"images/table-{name}.png" for name in names]
    assert all((PAGE.parent / image).is_file() for image in images)


def test_no_place_of_the_pages_tables_is_empty_but_the_reference(tables: dict[str, Table]) -> None:
    empty = [
        f"{table.name}:{row.key}/{column.key}"
        for table in tables.values()
        for row in table.rows
        for column, each in zip(table.columns, row.entries, strict=True)
        if each.value is None
    ]
    assert empty == ["against:baseline/top1-minus", "against:baseline/top1-p"]


def test_differences_and_p_values_are_those_of_the_seeds(tables: dict[str, Table]) -> None:
    table = tables["against"]
    ours, base = ([each.value for each in entry(table, f"{row}/top1").samples] for row in ("pskd", "baseline"))
    p = stats.ttest_rel(ours, base).pvalue
    assert entry(table, "pskd/top1-p").value == pytest.approx(p, rel=1e-6)
    assert said(table, "pskd/top1-p") == ("<0.001" if p < 0.001 else f"{p:.3f}")


def test_one_table_stands_over_the_grids_of_two_databases(tables: dict[str, Table], database: Database) -> None:
    folder = Path(database.where).parent
    printed = numbers(tables["machines"])
    for name, dataset in (("laptop", "cifar100"), ("server", "cifar10")):
        with open_database(folder / f"{name}.db", readonly=True) as source:
            cells = load(source).cells
        for cell in cells:
            if cell.config["learning_rate"] != 0.1:
                continue
            samples = printed[f"machines:{methods_key(cell.methods)}/{dataset}/top1"].samples
            errors = [trial.measurements[0, "main"].metrics["top1_error"] for trial in cell.trials]
            assert [sample.value for sample in samples] == errors


def test_addresses_in_sentences_are_addresses(tables: dict[str, Table]) -> None:
    used = {re.sub(r"\.(n|spread|delta)$", "", each) for each in re.findall(r"\\orch\{([^}]+)\}", TEXT)}
    assert len(used) == 2
    assert used <= {address for table in tables.values() for address in numbers(table)}


def test_the_page_names_every_key_column_and_source() -> None:
    keys = [name for name in TableSpec.model_fields if name not in ("name", "title", "about", "source")]
    words = set(re.findall(r"[a-z0-9_]+", TEXT))
    assert [name for name in (*keys, *COLUMNS, *SOURCES, "classifiers", "moments") if name not in words] == []
    assert set(SPECIAL) >= {"classifiers", "moments"}


def test_the_page_is_led_to() -> None:
    pages = [path for path in Path(PAGE.parents[1]).glob("*.md")] + list(PAGE.parent.glob("*.md"))
    assert any("tables.md" in path.read_text(encoding="utf-8") for path in pages if path != PAGE)
