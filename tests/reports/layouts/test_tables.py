"""The papers' layouts: rows, groups, columns, states, stars, bold, settings."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean, stdev

import pytest

import reports
from orchestrator.database.models import Evaluation
from orchestrator.tables.schema import SHIPPED as ASKED
from reports import ReportError
from reports.gathering import gather
from reports.layouts.shipped import SHIPPED, layout_name, shipped
from reports.loading import load
from reports.text import words
from tests.reports.lookup import build, entry, one, said
from tests.reports.synthetic import ablation, configuration, make_database, trials

PAPER_ORDER = ["baseline", "BYOT", "DMFL", "PS-KD", "PS-KD+BYOT", "PS-KD+DMFL", "DMFL+BYOT", "PS-KD+BYOT+DMFL"]


@pytest.fixture(scope="module")
def tables(database):
    return gather(database, vs_paper=True).tables


def test_every_table_that_a_grid_may_ask_for_exists():
    files = {path.stem for path in (Path(reports.__file__).parent / "layouts").glob("*.yaml")}
    assert {layout_name(name) for name in ASKED["table"]} == set(SHIPPED)
    # Every report has the overview, so that no grid asks for it.
    assert files == {*SHIPPED, "overview"}
    assert [shipped(name).name for name in SHIPPED] == list(SHIPPED)


def test_unknown_tables_are_refused(database):
    with pytest.raises(ReportError, match="unknown table 'tabel'; allowed: 1, 2, 3, 4"):
        build(load(database), ["tabel"])
    with pytest.raises(ReportError, match="unknown table '5'"):
        build(load(database), [5])


def test_table_1_has_the_papers_rows_columns_and_groups(tables):
    table = one(tables, "table1")
    assert [row.labels[0] for row in table.rows] == PAPER_ORDER * 2
    assert list(dict.fromkeys(row.group for row in table.rows)) == [
        "ResNet-18 (13.0 M parameters with heads)",
        "ResNet-50 (23.7 M parameters, 50.4 M with heads)",
    ]
    assert [column.heading for column in table.columns] == [
        "Top-1 error (%)",
        "Top-5 error (%)",
        "NLL",
        "ECE (%)",
        "AURC (\u00d710³)",
        "Train time (min / sec)",
        "Time per epoch (s)",
    ]
    assert "(best_test)" in table.caption and "CIFAR-100, 300 epochs." in table.caption


def test_an_entry_is_mean_and_sample_deviation_over_seeds(database, tables):
    printed = entry(one(tables, "table1"), "resnet18/pskd+byot/top1")
    cells = [
        cell for cell in load(database).cells if set(cell.methods) == {"pskd", "byot"} and cell.network == "resnet18"
    ]
    values = [trial.measurements[0, "main"].metrics["top1_error"] for trial in cells[0].trials]
    assert (printed.n, printed.planned, printed.state) == (3, 3, "done")
    assert printed.value == pytest.approx(fmean(values), abs=1e-12)
    assert printed.spread == pytest.approx(stdev(values))
    assert [each.value for each in printed.samples] == values


def test_every_state_is_shown_as_what_it_is(tables):
    table = one(tables, "table1")
    assert said(table, "resnet50/byot/top1") == "diverged"
    assert said(table, "resnet50/dmfl/top1") == "failed"
    assert said(table, "resnet50/dmfl+byot/top1") == "running"
    assert said(table, "resnet50/pskd+dmfl/top1") == "\u2013"
    seeds = {row.key: row.seeds for row in table.rows}
    assert seeds["resnet18/baseline"] == "2/3, 1 diverged"
    assert seeds["resnet18/byot"] == "2/3"
    assert seeds["resnet18/pskd"] == "3/3"
    assert seeds["resnet50/byot"] == "0/1"
    # The timing pass was over for all three, and for two of the trials that it timed.
    assert [entry(table, f"resnet18/{row}/epoch_time").n for row in ("baseline", "dmfl")] == [3, 2]
    assert said(table, "resnet18/dmfl/epoch_time") == "25.73 ± 0.05"


def test_shared_times_are_starred_and_never_bold(tables):
    table = one(tables, "table1")
    assert said(table, "resnet50/pskd/epoch_time").endswith("*")
    assert said(table, "resnet50/pskd/train_time") == "5 / 52*"
    assert dict(table.footnotes)["*"].startswith("another process shared the device")
    for row in table.rows:
        assert not any(each.star and each.bold for each in row.entries)
    unstarred = one(tables, "dcm")
    assert "*" not in dict(unstarred.footnotes)


def test_a_timing_pass_of_one_seed_stands_for_the_cell(tmp_path):
    def filling(filler):
        timed = trials(ablation([0]), timed=True, quality="foreign load")
        filler.grid("g", {"tables": [1]}, timed + trials(ablation([1]), quality="foreign load"))

    with make_database(tmp_path / "results.db", filling) as database:
        table = one(build(load(database), [1]), "table1")
    epoch_time = entry(table, "resnet18/pskd/epoch_time")
    assert (epoch_time.state, epoch_time.n, epoch_time.star) == ("done", 1, False)
    assert entry(table, "resnet18/pskd/top1").n == 2


def test_bold_follows_the_caption(tables):
    table = one(tables, "table1")
    assert entry(table, "resnet18/pskd+byot+dmfl/top1").bold
    assert not entry(table, "resnet18/baseline/top1").bold
    # One seed: error rates are compared by the size of the test set, the rest by nothing.
    assert entry(table, "resnet50/pskd+byot+dmfl/top1").bold
    assert not any(entry(table, f"resnet50/{row}/nll").bold for row in ("baseline", "pskd", "pskd+byot"))
    assert "binomial noise of 10,000 test images" in table.caption
    higher = one(tables, "table2")
    assert entry(higher, "resnet18/pskd+byot+dmfl/main").bold and not entry(higher, "resnet18/baseline/main").bold


def test_table_2_names_its_columns_by_depth(tables):
    table = one(tables, "table2")
    assert [(column.key, column.title) for column in table.columns] == [
        ("main", "4/4"),
        ("head3", "3/4"),
        ("head2", "2/4"),
        ("head1", "1/4"),
        ("ensemble", "Ensemble"),
    ]
    assert "the other way round" in table.caption
    deep, shallow = (entry(table, f"resnet18/pskd+byot+dmfl/{head}").value for head in ("head3", "head1"))
    assert deep > shallow
    notes = {row.key: dict(table.footnotes).get(row.note) for row in table.rows}
    assert notes["resnet18/baseline"] == "its heads are not trained"
    assert notes["resnet50/baseline"] == "no heads were built"
    assert said(table, "resnet50/baseline/head1") == "\u2013"


def test_table_2_counts_any_number_of_heads(tmp_path):
    def filling(filler):
        configs = [configuration(methods, seed=0, heads="native") for methods in ([], ["byot", "dmfl", "pskd"])]
        filler.grid("g", {"tables": [2]}, trials(configs))
        rows = filler.rows[Evaluation]
        filler.rows[Evaluation] = [row for row in rows if row["classifier"] != "head3"]

    with make_database(tmp_path / "results.db", filling) as database:
        (table,) = build(load(database), [2])
    assert [column.title for column in table.columns] == ["3/3", "2/3", "1/3", "Ensemble"]


def test_table_3_and_4_match_by_configuration_over_all_grids(tables):
    third, fourth = one(tables, "table3"), one(tables, "table4")
    assert [row.labels for row in third.rows] == [
        ("yes", "yes", "1, 2, 3"),
        ("yes", "yes", "2, 3"),
        ("yes", "yes", "3"),
    ]
    assert [row.labels for row in fourth.rows] == [("4",), ("3",), ("2",)]
    # Row 1 of Table 3 is row 8 of Table 1, row 1 of Table 4 is row 3 of Table 3.
    first = one(tables, "table1")
    assert entry(third, "resnet18/blocks1-2-3/top1").value == entry(first, "resnet18/pskd+byot+dmfl/top1").value
    assert entry(fourth, "resnet18/stages4/top1").value == entry(third, "resnet18/blocks3/top1").value
    assert said(third, "resnet18/blocks3/train_time").endswith("*")


def test_mutual_learning_compares_with_each_network_alone(database, tables):
    table = one(tables, "dcm")
    assert [row.key for row in table.rows] == [
        f"wrn28_10+{peer}/{method}" for peer in ("wrn28_10", "mobilenet") for method in ("baseline", "dml", "dcm")
    ]
    alone = {cell.network: cell for cell in load(database, ["dcm"]).cells if not cell.methods}
    mean = fmean(trial.measurements[0, "main"].metrics["top1_error"] for trial in alone["mobilenet"].trials)
    assert entry(table, "wrn28_10+mobilenet/baseline/net2").value == pytest.approx(mean)
    together = next(
        cell for cell in load(database).cells if "dcm" in cell.methods and cell.config["peer"] == "mobilenet"
    )
    mean = fmean(trial.measurements[1, "main"].metrics["top1_error"] for trial in together.trials)
    assert entry(table, "wrn28_10+mobilenet/dcm/net2").value == pytest.approx(mean)
    assert entry(table, "wrn28_10+mobilenet/dcm/net2").n == 5


def test_detection_crosses_data_sets(tables):
    table = one(tables, "ood")
    assert [row.group for row in table.rows] == ["CIFAR-10 in, SVHN out"] * 2 + ["CIFAR-100 in, SVHN out"] * 2
    assert entry(table, "cifar100-svhn/preact_resnet18/pskd/auroc").value == pytest.approx(97.02, abs=0.02)


def test_fidelity_sets_the_two_readings_side_by_side(tables):
    table = one(tables, "fidelity")
    assert [row.labels[0] for row in table.rows] == ["without DMFL", "DMFL as released", "DMFL as in equation 3"]
    assert [row.n for row in table.rows] == [2, 3, 2]


def test_a_grid_without_tables_gets_rows_for_what_varies(tables):
    table = one(tables, "grid-rates_-b")
    assert table.title == "Grid rates_<b>&%é"
    assert table.stub == ("Method", "Learning rate")
    assert [row.labels for row in table.rows] == [
        ("baseline", "0.01"),
        ("baseline", "0.1"),
        ("PS-KD", "0.01"),
        ("PS-KD", "0.1"),
    ]
    assert table.caption.startswith("Digits, 5 epochs, width 8, precision float32.")


def test_addresses_are_unique(tables):
    names = [table.name for table in tables]
    assert len(set(names)) == len(names)
    for table in tables:
        keys = [row.key for row in table.rows]
        assert len(set(keys)) == len(keys), table.name
        assert not any(len(row.entries) != len(table.columns) for row in table.rows)


def test_settings_are_never_mixed(tmp_path):
    def filling(filler):
        filler.grid("paper", {"tables": [1]}, trials(ablation([0]), error=20.0))
        filler.grid("narrow", {"tables": [1]}, trials(ablation([0], width=16), error=40.0))
        filler.grid("short", {"tables": [1]}, trials(ablation([0], epochs=10, dataset="digits"), error=50.0))

    with make_database(tmp_path / "results.db", filling) as database:
        built = build(load(database), [1])
    assert [table.name for table in built] == ["table1", "table1-narrow", "table1-short"]
    assert [table.caption.split(".")[0] for table in built] == [
        "CIFAR-100, 300 epochs",
        "CIFAR-100, 300 epochs, width 16",
        "Digits, 10 epochs",
    ]
    for table, error in zip(built, (20.0, 40.0, 50.0), strict=True):
        assert {round(row.entries[0].value) for row in table.rows} == {round(error)}


def test_other_networks_of_other_grids_stay_out(tmp_path):
    def filling(filler):
        filler.grid("table1", {"tables": [1]}, trials(ablation([0])))
        other = [configuration(methods, network="preact_resnet18", seed=0) for methods in ([], ["pskd"])]
        filler.grid("other", {"tables": ["pskd"]}, trials(other))
        filler.grid("seeds", {"tables": ["pskd"]}, trials([configuration(["pskd"], seed=9)]))

    with make_database(tmp_path / "results.db", filling) as database:
        table = one(build(load(database)), "table1")
    assert {row.group for row in table.rows} == {"ResNet-18 (11.2 M parameters, 13.0 M with heads)"}
    # The seed that another grid trained of the same configuration counts.
    assert entry(table, "resnet18/pskd/top1").n == 2


def test_other_hyperparameters_are_named_and_never_replace_the_defaults(tmp_path):
    released = configuration({"dmfl": {"variant": "released"}}, seed=0)
    virtual = configuration({"tfkd": {"variant": "virtual"}}, seed=0)

    def filling(filler):
        filler.grid("a", {"tables": [1]}, trials([configuration(seed=0), configuration(["dmfl"], seed=0), released]))
        filler.grid("b", {"tables": ["pskd"]}, trials([configuration(seed=0), virtual]))

    with make_database(tmp_path / "results.db", filling) as database:
        first, second = one(build(load(database)), "table1"), one(build(load(database)), "pskd")
        only = build(load(database, ["b"]), ["pskd"])[0]
    assert entry(first, "resnet18/dmfl/top1").samples[0].key == configuration(["dmfl"], seed=0).key()
    assert not any(row.note for row in first.rows)
    for table in (second, only):
        assert entry(table, "resnet18/tfkd/top1").samples[0].key == virtual.key()
        assert dict(table.footnotes)["a"] == "with TF-KD (variant virtual)"


def test_an_empty_grid_gives_a_page_of_missing_cells(tmp_path):
    with make_database(
        tmp_path / "results.db",
        lambda filler: filler.grid("table1", {"tables": [1, 2]}, trials(ablation([0]), state="pending")),
    ) as database:
        first, second = gather(database).tables[1:]
    assert [row.labels[0] for row in first.rows] == PAPER_ORDER
    assert {words(each, first.columns[0], row).plain for row in first.rows for each in row.entries} == {"\u2013"}
    assert len(second.rows) == 2 and "Bold" not in first.caption


def test_a_table_that_nothing_fits_says_so(tmp_path):
    with make_database(
        tmp_path / "results.db", lambda filler: filler.grid("g", {"tables": [4]}, trials([configuration(seed=0)]))
    ) as database:
        (table,) = build(load(database))
    assert table.rows == () and table.caption.startswith("No trial of the chosen grids fits this table.")


def test_an_empty_database_has_an_overview(tmp_path):
    with make_database(tmp_path / "results.db", lambda filler: None) as database:
        (table,) = gather(database).tables
    assert table.caption == "No grid has been run into this database yet."
