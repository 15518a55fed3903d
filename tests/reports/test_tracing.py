"""Explaining a number, and catching one that is stale, edited or contradictory."""

from __future__ import annotations

import re
import shutil
from datetime import datetime

import pytest
from sqlalchemy import insert, update

import reports
from orchestrator.database import open_database
from orchestrator.database.models import Attempt, Epoch, Evaluation, GridTrial, Trial
from reports import ReportError, explain, verify
from reports.latex import latex
from reports.writing import gather
from tests.reports.synthetic import ablation, make_database, trials


def small(filler):
    filler.grid("table1", {"tables": [1, 2], "figures": [2]}, trials(ablation([0, 1, 2], heads="native")))


def write_tables(database, folder, grids=None, **options):
    """The LaTeX files of a report, without its figures."""
    folder.mkdir()
    for table in gather(database, grids=grids, **options).tables:
        (folder / f"{table.name}.tex").write_text(latex(table, grids), encoding="utf-8")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A database, and the tables written from it."""
    folder = tmp_path_factory.mktemp("tracing")
    make_database(folder / "results.db", small).close()
    with open_database(folder / "results.db", readonly=True) as database:
        write_tables(database, folder / "tables", vs_paper=True)
    return folder


@pytest.fixture
def paper(written, tmp_path):
    """A copy of all that can be changed: the database and a paper that includes its tables."""
    shutil.copy(written / "results.db", tmp_path)
    shutil.copytree(written / "tables", tmp_path / "tables")
    text = "\\documentclass{article}\n% \\input{missing}\n\\input{tables/table1}\n\\include{tables/table2.tex}\n"
    (tmp_path / "paper.tex").write_text(text)
    return tmp_path


def problems(paper, file="paper.tex"):
    with open_database(paper / "results.db", readonly=True) as database:
        return verify(database, paper / file)


def edit(paper, name, old, new):
    path = paper / "tables" / f"{name}.tex"
    text = path.read_text(encoding="utf-8")
    changed = re.sub(old, new, text, count=1)
    assert changed != text
    path.write_text(changed, encoding="utf-8")


def change(paper, *statements):
    with open_database(paper / "results.db") as database, database.engine.begin() as connection:
        for statement in statements:
            connection.execute(statement)


def test_functions_stay_functions_after_their_modules_are_loaded():
    assert callable(reports.explain) and callable(reports.verify) and callable(reports.write_report)
    with pytest.raises(AttributeError):
        _ = reports.nothing


def test_what_was_just_written_is_current(paper):
    assert problems(paper) == []
    for path in (paper / "tables").glob("*.tex"):
        found = problems(paper, f"tables/{path.name}")
        assert found == [] or (len(found) == 1 and found[0].kind == "empty"), path.name


def test_an_edited_number_is_named(paper):
    edit(paper, "table1", r"& [\d.]+( \$\\pm\$ [\d.]+ % table1:resnet18/byot/top1)", r"& 12.34\1")
    (found, *_) = problems(paper)
    assert (found.kind, found.address) == ("edited", "table1:resnet18/byot/top1")
    assert "prints 12.34" in found.message and "table1.tex:" in found.where


def test_a_bold_that_was_added_is_named(paper):
    edit(paper, "table1", r"& (\d[\d.]+ \$\\pm\$ [\d.]+)( % table1:resnet18/baseline/top1)", r"& \\textbf{\1}\2")
    (found,) = problems(paper)
    assert (found.kind, found.address) == ("edited mark", "table1:resnet18/baseline/top1")


def test_moving_a_line_and_spacing_it_is_no_edit(paper):
    path = paper / "tables" / "table1.tex"
    lines = path.read_text().splitlines()
    place = next(place for place, line in enumerate(lines) if "table1:resnet18/byot/top1 " in line)
    lines[place] = "\t&   " + lines[place].strip().removeprefix("&").strip().replace(" $\\pm$ ", "  $\\pm$  ")
    path.write_text("\n".join(lines))
    assert problems(paper) == []


def test_a_number_edited_with_its_comment_is_stale(paper):
    edit(paper, "table1", r"(table1:resnet18/byot/top1 = )\S+", r"\g<1>12.34")
    edit(paper, "table1", r"& [\d.]+( \$\\pm\$ [\d.]+ % table1:resnet18/byot/top1)", r"& 12.34\1")
    kinds = {(found.kind, found.address) for found in problems(paper)}
    assert ("stale", "table1:resnet18/byot/top1") in kinds


def test_a_number_without_its_comment_is_missed(paper):
    edit(paper, "table1", r" % table1:resnet18/pskd/ece.*", "")
    (found,) = problems(paper)
    assert (found.kind, found.address) == ("incomplete", "table1")
    assert "table1:resnet18/pskd/ece" in found.message


def test_a_changed_database_makes_its_numbers_stale(paper):
    change(paper, update(Evaluation).where(Evaluation.classifier == "main").values(nll=Evaluation.nll + 0.1))
    found = problems(paper)
    assert {each.kind for each in found} == {"stale"}
    assert {each.address.rpartition("/")[2] for each in found} == {"nll"}
    assert len(found) == 8


def test_a_new_seed_makes_its_row_stale(paper):
    (config,) = ablation([3], heads="native")[:1]
    values = {"key": config.key(), "config": config.model_dump(mode="json"), "state": "done"}
    now = datetime(2025, 1, 2)
    seconds = {"train_seconds": 1.0, "eval_seconds": 1.0, "data_seconds": 1.0, "learning_rate": 0.1, "images": 5}
    metrics = {"top1_error": 10.0, "top5_error": 1.0, "nll": 0.5, "ece": 1.0, "aurc": 5.0, "images": 10_000}
    place = {"network": 0, "classifier": "main", "split": "test"}
    change(
        paper,
        insert(Trial).values(id=999, created=now, finished=now, **values),
        insert(GridTrial).values(grid_id=1, trial_id=999, position=99, name="resnet18/baseline/seed3"),
        insert(Attempt).values(id=999, trial_id=999, number=1, purpose="train", environment={}, started=now),
        insert(Epoch).values(
            id=9999,
            trial_id=999,
            attempt_id=999,
            epoch=0,
            accepted=1,
            losses={},
            timing_quality="exclusive",
            recorded=now,
            **seconds,
        ),
        insert(Evaluation).values(epoch_id=9999, **place, **metrics),
    )
    found = [each for each in problems(paper) if each.address == "table1:resnet18/baseline/top1"]
    assert [each.kind for each in found] == ["stale"]
    assert "written from 3 trials, the database has 4 (1 new, 0 gone)" in found[0].message


def test_a_failed_trial_takes_its_numbers_with_it(paper):
    change(paper, update(Trial).values(state="failed"))
    found = problems(paper)
    assert {each.message for each in found if each.address.startswith("table1:")} == {
        "the database has no value for it now"
    }


def test_tables_that_disagree_about_the_same_trials_are_contradictory(paper):
    # The accuracy of Table 2 is that error of Table 1.
    edit(paper, "table2", r"& (?:\\textbf\{)?[\d.]+( \$\\pm\$ [\d.]+\}? % table2:resnet18/baseline/main)", r"& 33.33\1")
    found = {(each.kind, each.address) for each in problems(paper)}
    assert ("contradictory", "table2:resnet18/baseline/main") in found


def test_rules_that_are_mixed_in_one_table_are_contradictory(paper):
    with open_database(paper / "results.db", readonly=True) as database:
        write_tables(database, paper / "last", selection="last")
    line = next(line for line in (paper / "last/table1.tex").read_text().splitlines() if "resnet18/pskd/top1 " in line)
    edit(paper, "table1", r".*% table1:resnet18/pskd/top1 .*", line.replace("\\", r"\\"))
    found = [each for each in problems(paper) if each.kind == "contradictory"]
    assert found and "one table must not mix rules" in found[0].message


def test_a_report_on_some_grids_is_verified_on_those(paper):
    with open_database(paper / "results.db", readonly=True) as database:
        write_tables(database, paper / "some", grids=["table1"], selection="mean_last_3")
        assert 'grids ["table1"]' in (paper / "some/table1.tex").read_text()
        assert verify(database, paper / "some/table1.tex") == []


def test_a_file_without_our_numbers_does_not_pass(paper):
    (paper / "other.tex").write_text("\\documentclass{article}")
    (found,) = problems(paper, "other.tex")
    assert found.kind == "empty"
    with pytest.raises(ReportError, match="cannot read"):
        problems(paper, "nothing.tex")


def test_files_that_include_each_other_end(paper):
    (paper / "a.tex").write_text("\\input{b}\n\\input{tables/table1}")
    (paper / "b.tex").write_text("\\input{a}")
    assert problems(paper, "a.tex") == []


def test_explain_names_trials_seeds_epochs_commit_device_and_log(database):
    text = explain(database, "table1:resnet18/pskd+byot/top1")
    assert text.splitlines()[0] == "table1:resnet18/pskd+byot/top1"
    assert "Top-1 error (%) = 20.07 ± 0.10" in text and "3 of 3 seeds" in text
    for seed in range(3):
        assert f"seed {seed}, epoch 5 (epochs.epoch = 4)" in text
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
                each[0]: each[2].value
                for table in gather(database, grids=grids, selection=selection).tables
                for each in table.numbers()
            }
            assert f"  value {printed[address]!r}\n" in text
        with pytest.raises(ReportError, match="no grid 'lonfer'; did you mean 'longer'"):
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
