"""Explaining a number: where it comes from."""

from __future__ import annotations

import re

import pytest

import reports
from reports import ReportError, explain
from reports.gathering import gather
from tests.reports.lookup import numbers
from tests.reports.synthetic import ablation, make_database, trials


def test_functions_stay_functions_after_their_modules_are_loaded():
    assert callable(reports.explain) and callable(reports.verify) and callable(reports.write_report)
    with pytest.raises(AttributeError):
        _ = reports.nothing


def test_explain_names_trials_seeds_epochs_commit_device_and_log(database):
    text = explain(database, "table1:resnet18/pskd+byot/top1")
    assert text.splitlines()[0] == "table1:resnet18/pskd+byot/top1"
    assert "Top-1 error (%) = 20.07 ± 0.10" in text and "3 of 3 seeds" in text
    for seed in range(3):
        assert f"seed {seed}, epoch 5 (epochs.epoch = 4 in the database)" in text
    assert "commit 0123456789abcdef0123456789abcdef01234567" in text
    assert "on node7, cuda:0 (NVIDIA A100); log /logs/" in text
    assert len(re.findall(r"key [0-9a-f]{64}", text)) == 3


def test_explain_explains_the_number_of_the_report_that_it_is_told_of(tmp_path):
    def filling(filler):
        filler.grid("mine", {"tables": [1]}, trials(ablation([0])))
        filler.grid("longer", {"tables": [1]}, trials(ablation([0], epochs=400), epochs=8))

    address = "table1:resnet18/pskd/top1"
    with make_database(tmp_path / "results.db", filling) as database:
        for grids, selection, of, read, epoch, rule in (
            (None, None, "mine", "mine, longer", 5, "best_test"),
            (["longer"], None, "longer", "longer", 7, "best_test"),
            (None, "last", "mine", "mine, longer", 6, "last"),
            (["longer"], "last", "longer", "longer", 8, "last"),
        ):
            text = explain(database, address, grids=grids, selection=selection)
            assert f"  Grids of its trials: {of}. Grids read: {read}.\n" in text
            assert f"({rule}).\n" in text and f"seed 0, epoch {epoch} (" in text
            printed = {
                place: shown.value
                for table in gather(database, grids=grids, selection=selection).tables
                for place, shown in numbers(table).items()
            }
            assert f"  value {printed[address]!r}\n" in text
        with pytest.raises(ReportError, match="no grid 'lonfer'; did you mean longer"):
            explain(database, address, grids=["lonfer"])


def test_explain_takes_methods_in_any_order(database):
    one, two = (explain(database, f"table1:resnet18/{name}/top1") for name in ("pskd+byot+dmfl", "dmfl+PSKD+byot"))
    assert one == two


def test_explain_says_why_a_number_is_missing(database):
    assert "no value, diverged" in explain(database, "table1:resnet50/byot/top1")
    assert "no value, pending" in explain(database, "table1:resnet50/pskd+dmfl/nll")


def test_explain_reaches_every_number(database):
    for address in ("interactions:resnet18/pskd+byot-beyond/top1", "losses:resnet18/byot/cross_entropy/moment0"):
        assert "trial resnet18/" in explain(database, address)
    assert "trial" in explain(database, "table1-vs-paper:resnet18/pskd/top1/ours")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("table1", "does not name a number; write table:row/column"),
        ("tabel1:resnet18/pskd/top1", "no table 'tabel1'; did you mean table1"),
        ("table1:resnet18/pskdd/top1", "did you mean resnet18/pskd/top1"),
        ("table1:resnet99/x/y", "no number of table1 'resnet99/x/y'"),
    ],
)
def test_explain_refuses_what_no_table_has(database, address, message):
    with pytest.raises(ReportError, match=re.escape(message)):
        explain(database, address)
