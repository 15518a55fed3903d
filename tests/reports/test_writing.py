"""Whole reports: which files, which grids, which rules; and the export of the data."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from pandas.testing import assert_frame_equal

from orchestrator.database.models import Evaluation
from reports import ReportError, earlier_files, export, write_report
from reports.exporting import TRIALS, _column, _combination
from reports.gathering import gather
from reports.report import CONTENTS
from tests.reports.synthetic import ablation, configuration, make_database, trials
from trainer.config import TrainConfig

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A finished grid like the quickstart."""
    config = ablation([0], heads="native", dataset="digits", width=8, epochs=5)

    def filling(filler):
        filler.grid(
            "quickstart",
            {"tables": [1, 2, "interactions", "losses"], "figures": [2], "selection": "best_test"},
            trials(config, epochs=5),
        )

    with make_database(tmp_path_factory.mktemp("small") / "results.db", filling) as database:
        yield database


def test_a_report_is_one_file_per_table_and_format_and_the_figures(small, tmp_path):
    out = tmp_path / "deep" / "report"
    written = write_report(small, out, vs_paper=True)
    tables = ["overview", "table1", "table2", "interactions", "losses", "table1-vs-paper", "table2-vs-paper"]
    expected = {f"{name}.{each}" for name in [*tables, "published-doubts"] for each in ("md", "tex", "csv", "json")}
    expected |= {f"{name}.{each}" for name in ("figure2", "curves-quickstart") for each in ("pdf", "svg", "png")}
    assert {path.name for path in written} == expected | {"report.html", "numbers.tex"}
    assert sorted([*written, out / CONTENTS]) == sorted(out.iterdir()) and earlier_files(out, written) == []
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 2 and 'id="table1:resnet18/pskd"' in page
    assert "8 of 8 trials done" in page
    json.loads((out / "table1.json").read_text(encoding="utf-8"))
    # Narrow networks on digits are no match for the paper's numbers.
    comparison = (out / "table1-vs-paper.md").read_text(encoding="utf-8")
    assert "another setting: Digits (published: CIFAR-100); width 8 (published: width 64)" in comparison


def test_formats_can_be_chosen(small, tmp_path):
    written = write_report(small, tmp_path, formats=["csv", "csv"])
    assert {path.suffix for path in written} == {".csv"} and len(set(written)) == len(written)
    with pytest.raises(ReportError, match="unknown format 'docx'; allowed: md, tex, html, csv, json"):
        write_report(small, tmp_path, formats=["docx"])


def test_writing_twice_gives_the_same_files(small, tmp_path):
    one, two = (write_report(small, tmp_path / name, formats=["md", "tex", "html", "csv", "json"]) for name in "ab")
    for first, second in zip(one, two, strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name


def test_what_an_earlier_report_left_is_told_and_stays(small, tmp_path, undrawn):
    (tmp_path / "notes.md").write_text("mine")
    (tmp_path / "table9.tex").write_text("mine")
    first = write_report(small, tmp_path, formats=["md", "csv"])
    assert earlier_files(tmp_path, first) == []
    (tmp_path / "table2.csv").write_text("edited")
    (tmp_path / "losses.csv").unlink()
    second = write_report(small, tmp_path, formats=["md"])
    left = earlier_files(tmp_path, second)
    assert [path.name for path in left] == ["interactions.csv", "overview.csv", "table1.csv", "table2.csv"]
    assert (tmp_path / "table2.csv").read_text() == "edited" and (tmp_path / "notes.md").read_text() == "mine"
    # They are still told after a third one, until they are written again.
    assert earlier_files(tmp_path, write_report(small, tmp_path, formats=["md"])) == left
    third = write_report(small, tmp_path, formats=["csv"])
    assert {path.suffix for path in earlier_files(tmp_path, third)} == {".md", ".pdf", ".svg", ".png"}
    assert tmp_path / "notes.md" not in earlier_files(tmp_path, third)


def test_a_spoiled_list_of_files_names_nothing_outside_of_the_folder(small, tmp_path):
    out = tmp_path / "report"
    out.mkdir()
    (tmp_path / "mine.md").write_text("mine")
    (out / "folder").mkdir()
    (out / CONTENTS).write_bytes(b"\xff\n../mine.md\n..\n\nfolder\n/etc/passwd\na\0b\n")
    written = write_report(small, out, formats=["csv"])
    assert earlier_files(out, written) == []


def test_a_folder_that_is_none_is_refused(small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match="cannot write to"):
        write_report(small, tmp_path / "file")
    with pytest.raises(ReportError, match="cannot write to"):
        export(small, tmp_path / "file")


def test_an_empty_database_gives_a_page(tmp_path):
    with make_database(tmp_path / "results.db", lambda filler: None) as database:
        written = write_report(database, tmp_path / "out", vs_paper=True)
    assert {path.name for path in written} >= {"overview.md", "report.html", "published-doubts.md"}
    assert "No grid has been run into this database yet." in (tmp_path / "out/report.html").read_text()


def test_a_grid_that_has_not_begun_gives_a_page(tmp_path):
    def filling(filler):
        filler.grid("table1", {"tables": [1], "figures": [2]}, trials(ablation([0]), state="pending"))

    with make_database(tmp_path / "results.db", filling) as database:
        written = write_report(database, tmp_path / "out", formats=["html"])
    assert [path.name for path in written] == ["report.html"]
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "0 of 8 trials done" in page and page.count('<td class="label">PS-KD+BYOT+DMFL') == 1


def test_grids_that_disagree_about_a_tables_rule_are_refused(tmp_path):
    def filling(filler):
        filler.grid("one", {"tables": [1, "interactions"], "selection": "best_test"}, trials(ablation([0])))
        filler.grid("two", {"tables": [1], "selection": "last"}, trials(ablation([1])))
        filler.grid("three", {"tables": [3], "selection": "mean_last_2"}, trials(ablation([2])))

    with make_database(tmp_path / "results.db", filling) as database:
        with pytest.raises(ReportError, match=r"grids one \(best_test\) and two \(last\) select differently"):
            gather(database)
        rules = {
            table.layout: table.selection.rule for table in gather(database, selection="last").tables if table.selection
        }
        assert set(rules.values()) == {"last"}
        # Different tables may have different rules.
        tables = gather(database, grids=["one", "three"]).tables
    rules = {table.layout: table.selection.rule for table in tables if table.selection}
    assert rules == {"table1": "best_test", "interactions": "best_test", "table3": "mean_last_2"}
    captions = {table.layout: table.caption for table in tables}
    assert "(mean_last_2)" in captions["table3"] and "(best_test)" in captions["table1"]


def test_every_caption_names_its_rule(database):
    for rule in ("best_test", "best_val", "last", "mean_last_2"):
        for table in gather(database, selection=rule).tables:
            assert table.layout in ("overview", "losses") or f"({rule})" in table.caption


def test_without_a_validation_split_best_val_has_nothing_to_show(database):
    (table,) = [table for table in gather(database, selection="best_val").tables if table.name == "table1"]
    assert not any(each.value for row in table.rows for each in row.entries[:5])
    assert re.search(r" \d+ finished trials have no validation split .* no number under this rule\.", table.caption)


@pytest.mark.parametrize("given", ["on the command line", "in the grid file"])
def test_trials_with_fewer_epochs_than_are_averaged_have_no_number(tmp_path, given):
    def filling(filler):
        short, long, *rest = trials(ablation([0, 1]))
        short[2].update(epochs=4)
        long[2].update(epochs=5)
        rest[0][2].update(state="running", epochs=5)
        rest[1][2].update(state="failed", error_class="infrastructure", epochs=5)
        report = {"tables": [1]} | ({"selection": "mean_last_5"} if given == "in the grid file" else {})
        filler.grid("g", report, [short, long, *rest])

    asked = "mean_last_5" if given == "on the command line" else None
    with make_database(tmp_path / "results.db", filling) as database:
        table = {table.name: table for table in gather(database, selection=asked).tables}["table1"]
    baseline, byot = table.rows[:2]
    assert [(sample.seed, sample.epoch) for sample in baseline.entries[0].samples] == [(1, 5)]
    assert [state for *_, state in baseline.entries[0].absent] == ["done"]
    # The time to the end of the selected epochs is as missing as what they measured.
    assert baseline.entries[5].n == 1 and not any(each.samples for each in byot.entries)
    sentence = " One finished trial has fewer than 5 epochs and so no number under this rule."
    assert sentence in table.caption and "(mean_last_5)" in table.caption


def test_a_number_that_only_one_network_has_is_not_what_the_rule_lacks(tmp_path):
    def filling(filler):
        filler.grid("g", {}, trials([configuration(), configuration(["dml"], peer="resnet18")], epochs=5))

    with make_database(tmp_path / "results.db", filling) as database:
        for rule, lacking in (("mean_last_5", False), ("mean_last_6", True)):
            (table,) = [t for t in gather(database, selection=rule).tables if t.name == "grid-g"]
            assert ("2 finished trials have fewer than 6 epochs" in table.caption) == lacking
            assert ("no number under this rule" in table.caption) == lacking


def test_what_no_table_of_a_grid_has_room_for_gets_one(tmp_path):
    def filling(filler):
        report = {"tables": [1], "selection": "last"}
        configs = [configuration(methods, seed=0) for methods in ((), ("pskd",), ("cskd",), ("label_smoothing",))]
        filler.grid("mixed", report, trials(configs))
        filler.grid("fitting", {"tables": [1], "selection": "last"}, trials([configuration(("byot",), seed=0)]))

    with make_database(tmp_path / "results.db", filling) as database:
        tables = {table.name: table for table in gather(database).tables}
    assert [name for name in tables if name.startswith("grid-")] == ["grid-mixed"]
    table = tables["grid-mixed"]
    assert table.title == "Grid mixed, what no other table shows"
    assert [row.labels[0] for row in table.rows] == ["CS-KD", "Label Smoothing"]
    assert table.selection.rule == "last" and all(row.entries[0].value is not None for row in table.rows)


def test_grids_whose_names_look_alike_keep_their_tables_apart(tmp_path, undrawn):
    def filling(filler):
        filler.grid("A.b", {}, trials([configuration(seed=0)]))
        filler.grid("a-b", {}, trials([configuration(seed=1)]))

    with make_database(tmp_path / "results.db", filling) as database:
        written = write_report(database, tmp_path / "out")
    assert len(set(written)) == len(written)
    assert {"grid-a-b.md", "grid-a-b-2.md", "curves-a-b.svg", "curves-a-b-2.svg"} <= {path.name for path in written}


def test_no_two_headings_of_the_page_read_alike(tmp_path, undrawn):
    fields = {"heads": "native", "dataset": "digits", "width": 8}

    def filling(filler):
        for name, epochs in {"quickstart": 5, "longer": 10}.items():
            filler.grid(name, {"tables": [1, 2], "figures": [2]}, trials(ablation([0], epochs=epochs, **fields)))

    with make_database(tmp_path / "results.db", filling) as database:
        write_report(database, tmp_path, formats=["html"], vs_paper=True)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    headings = re.findall("<h2>(.*)</h2>", page)
    assert sorted(headings) == sorted(re.findall('<a href="#[^"]+">(.*?)</a>', page))
    assert len(set(headings)) == len(headings)
    assert {heading for heading in headings if heading.startswith("Figure 2")} == {
        "Figure 2. Top-1 error against time per epoch",
        "Figure 2. Top-1 error against time per epoch (longer)",
    }
    assert "Table 1. PS-KD, BYOT and DMFL: against the published values (longer)" in headings


def test_export_is_tidy_and_complete(database, tmp_path):
    frames = {}
    for format in ("csv", "parquet"):
        paths = export(database, tmp_path / format, format)
        names = ("grids", "trials", "attempts", "parts", "epochs", "losses", "evaluations", "outcomes")
        assert [path.name for path in paths] == [f"{name}.{format}" for name in names]
        read = pd.read_csv if format == "csv" else pd.read_parquet
        frames[format] = {path.stem: read(path) for path in paths}
    grids, trials_, attempts, parts, epochs, losses, evaluations, _ = frames["parquet"].values()
    assert len(trials_) == 77 and {"network", "seed", "methods", "width"} <= set(trials_.columns)
    assert set(grids["key"]) == set(trials_["key"]) and not grids.duplicated(["grid", "trial"]).any()
    assert set(epochs["key"]) <= set(trials_["key"]) and not epochs.duplicated(["key", "epoch"]).any()
    assert not evaluations.duplicated(["key", "epoch", "network", "classifier", "split"]).any()
    assert not losses.duplicated(["key", "epoch", "term"]).any()
    assert not parts.duplicated(["key", "attempt", "kind", "name"]).any()
    assert not attempts.duplicated(["key", "attempt"]).any()
    assert len(epochs.merge(attempts, on=["key", "attempt"])) == len(epochs)
    assert {"baseline", "byot", "pskd+byot"} < set(trials_["methods"])
    with database.engine.connect() as connection:
        counted = connection.exec_driver_sql("select count(*), sum(top1_error) from evaluations").one()
    assert (len(evaluations), evaluations["top1_error"].sum()) == (counted[0], pytest.approx(counted[1]))
    for name, frame in frames["parquet"].items():
        other = frames["csv"][name]
        assert list(frame.columns) == list(other.columns) and len(frame) == len(other)
    with pytest.raises(ReportError, match="unknown format 'xlsx'; allowed: csv, parquet"):
        export(database, tmp_path, "xlsx")


def test_an_empty_database_exports_headings(tmp_path):
    with make_database(tmp_path / "results.db", lambda filler: None) as database:
        for format in ("csv", "parquet"):
            paths = export(database, tmp_path, format)
    heads = [next(csv.reader([path.with_suffix(".csv").read_text()])) for path in paths]
    assert [head[0] for head in heads] == ["key"] * 8
    assert heads[6][1:5] == ["epoch", "network", "classifier", "split"]
    assert Evaluation.__tablename__ == paths[6].stem


def test_the_columns_of_trials_are_those_of_a_configuration():
    kinds = {"boolean": "boolean", "integer": "Int64", "number": "float64"}
    for name, field in TrainConfig.model_json_schema()["properties"].items():
        # An optimizer or a schedule with hyperparameters is JSON text where its name alone is text.
        (kind,) = {each["type"] for each in field.get("anyOf", [field])} - {"null", "object"} or {"object"}
        assert TRIALS[name] == kinds.get(kind, "str"), name
    assert [*TRIALS] == ["key", "state", "finished", *TrainConfig.model_fields, "hyperparameters"]


def test_exported_columns_have_the_same_types_whatever_is_in_them(tmp_path):
    """An empty database, one trial that sets nothing, and one that sets every optional field."""
    everything = {
        **{"dataset": "cifar100", "subset": 100, "validation": 500, "normalization": "imagenet", "flip": False},
        **{"ood_dataset": "svhn", "network": "resnet18", "peer": "resnet34", "stages": 3, "milestones": [1, 4]},
        **{"optimizer": {"adamw": {"betas": [0.9, 0.95]}}, "warmup": 2},
    }
    settings = {
        "empty": [],
        "bare": [configuration(epochs=5)],
        "full": [configuration(["dml"], epochs=5, **everything)],
    }
    schemas, frames = {}, {}
    for name, configs in settings.items():

        def filling(filler, configs=configs):
            if configs:
                filler.grid("g", {}, [(f"t{place}", config, {}) for place, config in enumerate(configs)])

        with make_database(tmp_path / f"{name}.db", filling) as database:
            for format in ("csv", "parquet"):
                export(database, tmp_path / name, format)
        files = sorted((tmp_path / name).glob("*.parquet"))
        assert len(files) == 8
        schemas[name] = {path.stem: pq.read_schema(path).remove_metadata() for path in files}
        for path in files:
            parquet = pd.read_parquet(path)
            text = pd.read_csv(path.with_suffix(".csv"), dtype=str, keep_default_na=False)
            assert list(text.columns) == list(parquet.columns)
            # A CSV file has no types, but the same texts: 100 stays 100 beside a missing value.
            again = StringIO()
            parquet.to_csv(again, index=False)
            assert again.getvalue() == path.with_suffix(".csv").read_text()
            frames[name, path.stem] = parquet
    assert schemas["empty"] == schemas["bare"] == schemas["full"]
    bare, full = frames["bare", "trials"], frames["full", "trials"]
    assert bare["subset"].isna().all() and str(bare["subset"].dtype) == "Int64" == str(full["subset"].dtype)
    assert (bare["optimizer"].item(), bare["schedule"].item(), bare["warmup"].item()) == ("sgd", "steps", 0.0)
    assert full[["optimizer", "warmup"]].iloc[0].tolist() == ['{"adamw": {"betas": [0.9, 0.95]}}', 2.0]
    assert full[["subset", "stages", "flip", "milestones"]].iloc[0].tolist() == [100, 3, False, "[1, 4]"]


def test_an_export_of_one_grid_holds_its_trials_alone(database, tmp_path):
    export(database, tmp_path / "all", "parquet")
    export(database, tmp_path / "one", "parquet", grids=["table3"])
    whole = {path.stem: pd.read_parquet(path) for path in (tmp_path / "all").glob("*.parquet")}
    one = {path.stem: pd.read_parquet(path) for path in (tmp_path / "one").glob("*.parquet")}
    assert set(one["grids"]["grid"]) == {"table3"}
    keys = set(one["grids"]["key"])
    assert 0 < len(keys) < len(whole["trials"])
    for name, frame in whole.items():
        of_grid = frame[frame["key"].isin(keys) & (frame["grid"].eq("table3") if name == "grids" else True)]
        assert_frame_equal(one[name], of_grid.reset_index(drop=True))
    with pytest.raises(ReportError, match=r"there is no grid 'tabel3'; did you mean table3"):
        export(database, tmp_path, grids=["tabel3"])


def test_methods_are_read_as_they_are_printed():
    assert _combination({}) == "baseline"
    assert _combination({"pskd": {}, "byot": {}}) == "pskd+byot"
    several = {"pskd": {"alpha": 0.7}, "byot": {"temperature": 2, "blocks": [2, 3]}}
    assert _combination(several) == "pskd[alpha=0.7]+byot[blocks=[2, 3], temperature=2]"


def test_a_field_of_another_version_has_the_type_of_its_values():
    kinds = {"boolean": [True, None], "Int64": [1, None], "float64": [1.0, None], "str": [None, None]}
    for kind, values in kinds.items():
        assert _column("field", values).dtype == kind
    assert list(_column("field", ["010", None, "1e5"])[[0, 2]]) == ["010", "1e5"]
    assert _column("finished", [None]).dtype == "datetime64[us]" and _column("key", []).dtype == "str"


def test_a_value_that_its_column_cannot_hold_is_named():
    with pytest.raises(ReportError, match=r"a trial's subset is no Int64 \(.*\); mend that row"):
        _column("subset", [1, "many"])


def test_exports_larger_than_one_chunk_keep_their_types(database, tmp_path, monkeypatch):
    monkeypatch.setattr("reports.exporting._ROWS", 50)
    (*_, path, _) = export(database, tmp_path, "parquet")
    whole = pd.read_parquet(path)
    assert len(whole) > 500
    # Its first rows have no AUROC at all.
    assert whole["ood_auroc"].dtype == "float64" and whole["ood_auroc"].notna().any()


def test_importing_reports_loads_none_of_the_heavy_packages():
    code = "import sys, reports; from reports import ReportError; print([m for m in HEAVY if m in sys.modules])"
    heavy = "HEAVY = ('pandas', 'matplotlib', 'numpy', 'jinja2', 'sqlalchemy', 'torch'); "
    done = subprocess.run([sys.executable, "-c", heavy + code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
