"""Tables that a grid or a file declares: rows, columns, differences, averages, names, order, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pandas as pd
import pytest
from scipy import stats

from orchestrator.database import Database
from reports import ReportError, open_results, write_report
from reports.gathering import gather
from reports.layouts.shipped import SHIPPED, shipped
from reports.loading import load
from reports.render.html import fragment
from reports.render.latex import latex
from reports.render.plain import json as plain_json
from reports.render.plain import markdown
from reports.table import Table
from tests.reports.lookup import entry, numbers, one, said
from tests.reports.synthetic import configuration, make_database, trials
from trainer.config import TrainConfig

METHODS = ("baseline", "pskd", "byot")
RATES = (0.01, 0.1)
DATASETS = ("cifar10", "cifar100")

Declare = Callable[..., Table]


def config(methods: str, **fields: Any) -> TrainConfig:
    return configuration([] if methods == "baseline" else methods.split("+"), **fields)


def top1(database: Database, **fields: Any) -> list[float]:
    """Return the top-1 errors of the cell with these fields, by seed."""
    cells = load(database).cells
    (cell,) = [cell for cell in cells if all(cell.config[name] == value for name, value in fields.items())]
    return [trial.measurements[0, "main"].metrics["top1_error"] for trial in cell.trials]  # type: ignore[misc]


@pytest.fixture(scope="module")
def rates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A grid of methods and learning rates, with three seeds of each."""
    configs = [
        config(methods, learning_rate=rate, seed=seed) for methods in METHODS for rate in RATES for seed in range(3)
    ]
    path = tmp_path_factory.mktemp("rates") / "results.db"
    report = {"tables": [], "axes": ["methods", "learning_rate", "seed"]}
    with make_database(path, lambda filler: filler.grid("rates", report, trials(configs))) as database:
        yield database


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A grid of methods on two data sets."""
    configs = [
        config(methods, dataset=name, seed=seed) for name in DATASETS for methods in METHODS for seed in range(3)
    ]
    path = tmp_path_factory.mktemp("sets") / "results.db"
    with make_database(path, lambda filler: filler.grid("sets", {}, trials(configs))) as database:
        yield database


def declare(database: Database, **fields: Any) -> Table:
    return one(gather(database, tables=[{"name": "mine", **fields}]).tables, "mine")


BY_RATE: Mapping[str, Any] = {"rows": "learning_rate", "across": "methods", "columns": ["top1"]}


def test_rows_and_columns_are_spread_over_two_fields(rates):
    table = declare(rates, **BY_RATE)
    assert [row.labels for row in table.rows] == [("0.01",), ("0.1",)] and table.stub == ("Learning rate",)
    assert [column.heading for column in table.columns] == [
        "baseline: Top-1 error (%)",
        "PS-KD: Top-1 error (%)",
        "BYOT: Top-1 error (%)",
    ]
    values = top1(rates, methods={"pskd": {}}, learning_rate=0.1)
    cell = table.rows[1].entries[1]
    assert (cell.value, cell.n) == (pytest.approx(fmean(values)), 3)
    assert list(numbers(table))[1] == "mine:0.01/pskd/top1"


def test_addresses_do_not_depend_on_other_values(rates):
    whole = {address: each.value for address, each in numbers(declare(rates, **BY_RATE)).items()}
    order = {"methods": ["byot", "pskd"], "learning_rate": [0.1]}
    fewer = declare(rates, **BY_RATE, where={"methods": ["byot", "pskd"]}, order=order)
    assert [row.key for row in fewer.rows] == ["0.1", "0.01"]
    assert [column.key for column in fewer.columns] == ["byot/top1", "pskd/top1"]
    assert all(whole[address] == each.value for address, each in numbers(fewer).items())
    own = one(gather(rates).tables, "grid-rates")
    assert [row.key for row in own.rows][:2] == ["resnet18/baseline/0.01", "resnet18/baseline/0.1"]


def test_the_own_table_keeps_its_addresses_when_an_axis_has_one_value(tmp_path):
    configs = [config(methods, seed=0) for methods in METHODS]
    report = {"axes": ["methods", "learning_rate"]}
    with make_database(tmp_path / "r.db", lambda filler: filler.grid("rates", report, trials(configs))) as database:
        table = one(gather(database).tables, "grid-rates")
    assert [row.key for row in table.rows] == [f"resnet18/{methods}/0.1" for methods in METHODS]
    # What has one value is no column; the caption says it where it departs from the recipe.
    assert table.stub == ("Method",)


def test_differences_are_paired_by_seed_and_have_p_values(rates):
    columns = ["top1", {"top1": {"minus": "baseline"}}, {"top1": {"p": "baseline"}}]
    table = declare(rates, rows="methods", columns=columns, where={"learning_rate": 0.1})
    ours, base = (top1(rates, methods=methods, learning_rate=0.1) for methods in ({"pskd": {}}, {}))
    differences = [one - two for one, two in zip(ours, base, strict=True)]
    difference = entry(table, "pskd/top1-minus")
    assert (difference.value, difference.spread) == (
        pytest.approx(fmean(differences)),
        pytest.approx(stdev(differences)),
    )
    assert said(table, "pskd/top1-minus").startswith("\u2212")
    assert entry(table, "pskd/top1-p").value == pytest.approx(stats.ttest_rel(ours, base).pvalue)
    assert said(table, "baseline/top1-minus") == said(table, "baseline/top1-p") == "\u2013"
    headings = [column.heading for column in table.columns]
    assert headings[1:] == ["Top-1 error \u2212 baseline (%)", "Top-1 error: p against baseline"]


def test_a_difference_within_columns_leaves_out_the_reference(rates):
    table = declare(rates, **{**BY_RATE, "columns": ["top1", {"top1": {"minus": "baseline"}}]})
    assert [column.key for column in table.columns] == [
        *("baseline/top1", "pskd/top1", "pskd/top1-minus"),
        *("byot/top1", "byot/top1-minus"),
    ]


def test_a_mean_over_columns_is_one_column(sets):
    table = declare(sets, rows="methods", across="dataset", columns=["top1", {"top1": {"mean": True}}])
    assert [column.heading for column in table.columns] == [
        "CIFAR-10: Top-1 error (%)",
        "CIFAR-100: Top-1 error (%)",
        "Mean: Top-1 error (%)",
    ]
    by_seed = [
        fmean(pair) for pair in zip(*(top1(sets, methods={"pskd": {}}, dataset=name) for name in DATASETS), strict=True)
    ]
    mean = table.rows[1].entries[2]
    assert (mean.value, mean.spread, mean.n) == (pytest.approx(fmean(by_seed)), pytest.approx(stdev(by_seed)), 3)


def test_a_mean_lacks_where_a_column_lacks(tmp_path):
    configs = [config("baseline", dataset=name, seed=seed) for name in DATASETS for seed in range(3)]
    configs += [config("pskd", dataset="cifar10", seed=seed) for seed in range(3)]
    with make_database(tmp_path / "r.db", lambda filler: filler.grid("sets", {}, trials(configs))) as database:
        table = declare(database, rows="methods", across="dataset", columns=["top1", {"top1": {"mean": True}}])
    assert [each.value is None for each in table.rows[1].entries] == [False, True, True]


def test_more_than_seeds_can_be_averaged(rates):
    table = declare(
        rates, rows="methods", columns=["top1", {"top1": {"p": "baseline"}}], over=["seed", "learning_rate"]
    )
    values = [value for rate in RATES for value in top1(rates, methods={"pskd": {}}, learning_rate=rate)]
    averaged = entry(table, "pskd/top1")
    assert (averaged.n, averaged.planned, averaged.value) == (6, 6, pytest.approx(fmean(values)))
    base = [value for rate in RATES for value in top1(rates, methods={}, learning_rate=rate)]
    assert entry(table, "pskd/top1-p").value == pytest.approx(stats.ttest_rel(values, base).pvalue)


def test_seeds_can_be_rows(rates):
    table = declare(rates, rows=["methods", "seed"], columns=["top1"], where={"learning_rate": 0.1})
    assert [row.key for row in table.rows][:4] == ["baseline/0", "baseline/1", "baseline/2", "pskd/0"]
    assert entry(table, "pskd/2/top1").value == top1(rates, methods={"pskd": {}}, learning_rate=0.1)[2]


@pytest.mark.parametrize(
    ("show", "value", "spread"),
    [
        ("mean_ci95", fmean, lambda each: stats.t.isf(0.025, len(each) - 1) * stdev(each) / len(each) ** 0.5),
        ("median_iqr", lambda each: sorted(each)[1], lambda each: (max(each) - min(each)) / 2),
    ],
)
def test_a_number_shows_what_is_asked_for(rates, show, value, spread):
    table = declare(rates, **BY_RATE, show=show, notes="full")
    values = top1(rates, methods={}, learning_rate=0.01)
    cell = table.rows[0].entries[0]
    assert (cell.value, cell.spread) == (pytest.approx(value(values)), pytest.approx(spread(values)))
    words = {"mean_ci95": "95 % confidence interval", "median_iqr": "interquartile range"}[show]
    assert words in table.caption and "sample standard deviation" not in table.caption


def test_every_seed_can_be_shown(rates):
    table = declare(rates, rows="methods", columns=["top1"], where={"learning_rate": 0.01}, show="each")
    values = top1(rates, methods={}, learning_rate=0.01)
    assert said(table, "baseline/top1") == ", ".join(f"{value:.2f}" for value in values)


def test_rows_of_table_1_hidden_renamed_and_reordered(database):
    rows = [{"methods": "pskd+byot+dmfl"}, *({"methods": name} for name in ("pskd", "pskd+byot", "byot", "baseline"))]
    names = {
        "pskd+byot+dmfl": "Ours",
        "pskd": "Self-KD",
        "baseline": "Cross-entropy",
        "resnet18": "R18",
        "top1": "Error",
    }
    fields = {"where": {"network": "resnet18"}, "groups": "network", "rows": rows, "columns": ["top1"], "names": names}
    table = declare(database, **fields, grids="all", per="setting", prefer={"heads": ["none"]})
    assert [row.labels[0] for row in table.rows] == ["Ours", "Self-KD", "Self-KD+BYOT", "BYOT", "Cross-entropy"]
    assert {row.group for row in table.rows} == {"R18"} and table.columns[0].heading == "Error (%)"
    # The same numbers under the same addresses as in Table 1.
    shown = {address.partition(":")[2]: each.value for address, each in numbers(table).items()}
    first = {
        address.partition(":")[2]: each.value
        for address, each in numbers(one(gather(database).tables, "table1")).items()
    }
    assert shown and shown.items() <= first.items()


def test_bold_is_by_noise_by_the_best_or_none(rates):
    fields: dict[str, Any] = {"rows": "methods", "columns": ["top1"], "where": {"learning_rate": 0.1}}
    fields["notes"] = "full"
    best = declare(rates, **fields, bold="best")
    means = {row.key: row.entries[0].value for row in best.rows}
    assert [row.key for row in best.rows if row.entries[0].bold] == [min(means, key=means.__getitem__)]
    assert "Bold: the best of its group, without a test." in best.caption
    none = declare(rates, **fields, bold="none")
    assert not any(row.entries[0].bold for row in none.rows) and "Bold" not in none.caption
    within = declare(rates, **BY_RATE, bold={"rule": "best", "within": "row"})
    for row in within.rows:
        assert [each.bold for each in row.entries].count(True) == 1


def test_a_row_without_trials_is_a_dash_left_out_or_an_error(rates):
    rows = [{"methods": "baseline"}, {"methods": "dmfl"}]
    fields: dict[str, Any] = {"rows": rows, "columns": ["top1"], "where": {"learning_rate": 0.1}}
    table = declare(rates, **fields)
    assert said(table, "dmfl/top1") == "\u2013"
    assert dict(table.footnotes)[table.rows[1].note] == (
        "no trial of the chosen grids is {methods: dmfl}; add it to a grid file"
    )
    assert [row.key for row in declare(rates, **fields, missing="drop").rows] == ["baseline"]
    with pytest.raises(ReportError, match="table mine: no trial fits dmfl"):
        declare(rates, **fields, missing="error")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"rows": "methods", "columns": ["top1"]},
            r"learning_rate varies \(0.01, 0.1\) and has no place: put it into rows, groups or across; or keep one "
            r"value with where: \{learning_rate: 0.01\}; or average it with over: \[seed, learning_rate\]",
        ),
        ({**BY_RATE, "where": {"learning_rate": 0.2}}, r"where.learning_rate: no trial has 0.2; did you mean '0.1'\?"),
        (
            {**BY_RATE, "columns": [{"top1": {"minus": "basline"}}]},
            r"nothing here is 'basline'; did you mean 'baseline'",
        ),
        ({**BY_RATE, "columns": ["top2"]}, r"columns.0: unknown metric 'top2'; did you mean 'top"),
        ({"rows": "methods"}, r"table mine: columns: is missing"),
    ],
)
def test_what_is_open_or_wrong_is_refused(rates, fields, message):
    with pytest.raises(ReportError, match=message):
        declare(rates, **fields)


def test_two_cells_for_one_place_are_refused_with_their_difference(tmp_path):
    configs = [configuration({"pskd": {"alpha": alpha}}, seed=0) for alpha in (0.3, 0.5)]
    with make_database(tmp_path / "r.db", lambda filler: filler.grid("g", {}, trials(configs))) as database:
        with pytest.raises(
            ReportError, match=r"two cells have one place; they differ in methods: \{pskd: \{alpha: 0.3\}\}"
        ):
            declare(database, rows=[{"methods": "pskd"}], columns=["top1"])
        table = declare(database, rows="methods.pskd.alpha", columns=["top1"])
        assert [row.key for row in table.rows] == ["0.3", "0.5"] and table.stub == ("PS-KD alpha",)
        assert "PS-KD" in table.caption


def test_a_hyperparameter_among_methods_has_a_place(tmp_path):
    configs = [configuration({"pskd": {"alpha": alpha}}, seed=0) for alpha in (0.3, 0.5)] + [config("byot", seed=0)]
    with make_database(tmp_path / "r.db", lambda filler: filler.grid("g", {}, trials(configs))) as database:
        with pytest.raises(ReportError, match=r"methods varies \(pskd, byot\) and has no place"):
            declare(database, rows="methods.pskd.alpha", columns=["top1"])
        table = declare(database, rows=["methods", "methods.pskd.alpha"], columns=["top1"])
    assert [row.key for row in table.rows] == ["pskd/0.3", "pskd/0.5", "byot/default"]


def test_what_a_declared_table_has_no_room_for_is_in_the_grids_own_table(tmp_path):
    table = {"name": "few", "rows": "methods", "where": {"methods": ["baseline", "pskd"]}, "columns": ["top1"]}
    configs = [config(methods, seed=0) for methods in METHODS]
    report = {"tables": [table], "axes": ["methods"]}
    with make_database(tmp_path / "r.db", lambda filler: filler.grid("g", report, trials(configs))) as database:
        tables = gather(database).tables
    assert [row.key for row in one(tables, "few").rows] == ["baseline", "pskd"]
    rest = one(tables, "grid-g")
    assert [row.key for row in rest.rows] == ["resnet18/byot"] and "what no other table shows" in rest.title


def test_one_table_may_stand_over_several_grids_and_two_of_one_name_are_refused(tmp_path):
    table = {"name": "both", "rows": "methods", "columns": ["top1"]}
    other = {**table, "columns": ["top5"]}

    def filling(second: Mapping[str, Any]) -> Any:
        def fill(filler: Any) -> None:
            filler.grid("a", {"tables": [table]}, trials([config("baseline", seed=0)]))
            filler.grid("b", {"tables": [second]}, trials([config("pskd", seed=0)]))

        return fill

    with make_database(tmp_path / "a.db", filling(table)) as database:
        assert [row.key for row in one(gather(database).tables, "both").rows] == ["baseline", "pskd"]
    with (
        make_database(tmp_path / "b.db", filling(other)) as database,
        pytest.raises(ReportError, match="grids a and b declare different tables named both"),
    ):
        gather(database)


def test_shipped_tables_are_files_that_anybody_may_copy(database):
    folder = Path(__file__).parents[3] / "reports/layouts"
    assert sorted(path.stem for path in folder.glob("*.yaml")) == sorted([*SHIPPED, "overview"])
    copied = shipped("table2").model_copy(update={"name": "copied"})
    written = copied.model_dump(mode="json", exclude={"columns", "rows", "source"}, exclude_defaults=True)
    rows = [
        {"methods": "baseline", "first": [{"heads": {"not": "none"}}, {"heads": "none"}]},
        {"methods": "pskd+byot+dmfl"},
    ]
    table = one(gather(database, tables=[{**written, "rows": rows, "columns": ["classifiers"]}]).tables, "copied")
    own = one(gather(database).tables, "table2")
    assert [[each.value for each in row.entries] for row in table.rows] == [
        [each.value for each in row.entries] for row in own.rows
    ]


def test_a_short_caption_is_a_line_and_the_rules_stand_below(rates):
    fields: dict[str, Any] = {**BY_RATE, "title": "Rates"}
    short, full, none = (declare(rates, **fields, notes=notes) for notes in ("short", "full", "none"))
    assert short.caption == declare(rates, **fields).caption
    assert short.caption == (
        "CIFAR-100, 300 epochs, ResNet-18; mean ± s.d., n = 3; best_test; bold: may be the best (paired t, 5 %)."
    )
    assert none.caption == none.details == full.details == ""
    assert all(sentence in full.caption for sentence in short.details.split(". "))
    text = latex(short)
    assert "\\item Mean $\\pm$ sample standard deviation" in text.split("tablenotes")[1]
    assert short.details.replace("_", "\\_") in markdown(short) and short.details in fragment(short)


def test_columns_that_share_a_heading_have_a_rule_below_it(rates):
    text = latex(declare(rates, **{**BY_RATE, "columns": ["top1", "ece"]}))
    head = text[text.index("\\toprule") : text.index("\\midrule")]
    assert " & \\multicolumn{2}{c}{baseline} & \\multicolumn{2}{c}{PS-KD} & \\multicolumn{2}{c}{BYOT} \\\\" in head
    assert "\\cmidrule(lr){2-3}\\cmidrule(lr){4-5}\\cmidrule(lr){6-7}" in head


def test_json_holds_the_declaration_from_which_the_table_can_be_made_again(rates, database):
    for name, source in (("mine", rates), ("table2", database)):
        tables = gather(source, tables=[{"name": "mine", **BY_RATE}] if name == "mine" else []).tables
        document = json.loads(plain_json(one(tables, name)))
        again = gather(source, tables=[{**document["declaration"], "name": "again"}]).tables
        rows = json.loads(plain_json(one(again, "again")))["rows"]
        assert rows == document["rows"]


def test_a_notebook_shows_a_declared_table(rates):
    shown = open_results(rates.where).table(dict(BY_RATE))
    assert list(shown.frame["learning_rate"]) == ["0.01", "0.1"]
    assert shown.frame["pskd/top1"].tolist() == [row.entries[1].value for row in declare(rates, **BY_RATE).rows]


def test_tables_are_written_as_parquet_where_that_is_asked_for(rates, tmp_path):
    written = write_report(rates, tmp_path, formats=["parquet"], tables=[{"name": "mine", **BY_RATE}])
    assert {path.suffix for path in written} == {".parquet"}
    frame = pd.read_parquet(tmp_path / "mine.parquet")
    assert frame["byot/top1"].dtype == "float64" and list(frame["row"]) == ["0.01", "0.1"]
