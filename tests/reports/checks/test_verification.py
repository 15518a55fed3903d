"""Catching a number that is stale, edited or contradictory in a LaTeX file."""

from __future__ import annotations

import re
import shutil
import time
from dataclasses import replace
from datetime import datetime

import pytest
from sqlalchemy import insert, update
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.database import open_database
from orchestrator.database.models import Attempt, Epoch, Evaluation, GridTrial, Trial
from reports import ReportError, verify
from reports.checks.manuscript import read
from reports.gathering import gather
from reports.render.latex import latex
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


def checked(paper, file="paper.tex"):
    with open_database(paper / "results.db", readonly=True) as database:
        return verify(database, paper / file)


def problems(paper, file="paper.tex"):
    return checked(paper, file).problems


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


def test_what_was_just_written_is_current(paper):
    assert problems(paper) == []
    for path in (paper / "tables").glob("*.tex"):
        verdict = checked(paper, f"tables/{path.name}")
        assert (verdict.problems, verdict.notes, verdict.files) == ([], [], 1), path.name


def test_an_edited_number_is_named(paper):
    edit(paper, "table1", r"& [\d.]+( \$\\pm\$ [\d.]+ % table1:resnet18/byot/top1)", r"& 12.34\1")
    (wrong, *_) = problems(paper)
    assert (wrong.kind, wrong.address) == ("edited", "table1:resnet18/byot/top1")
    assert "prints 12.34" in wrong.message and "table1.tex:" in wrong.where


def test_a_bold_that_was_added_is_named(paper):
    edit(paper, "table1", r"& (\d[\d.]+ \$\\pm\$ [\d.]+)( % table1:resnet18/baseline/top1)", r"& \\textbf{\1}\2")
    (problem,) = problems(paper)
    assert (problem.kind, problem.address) == ("edited mark", "table1:resnet18/baseline/top1")


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
    (problem,) = problems(paper)
    assert (problem.kind, problem.address) == ("incomplete", "table1:resnet18/pskd")
    assert "table1:resnet18/pskd/ece" in problem.message


@pytest.fixture(scope="module")
def half_done(tmp_path_factory):
    """Tables with every kind of place that has no number, alone in their folder."""
    folder = tmp_path_factory.mktemp("unfinished")
    with make_database(folder / "results.db") as database:
        write_tables(database, folder / "tables", vs_paper=True)
    return folder


@pytest.fixture
def unfinished(half_done, tmp_path):
    """A copy of the folder of `half_done`, for a test to change."""
    shutil.copytree(half_done, tmp_path, dirs_exist_ok=True)
    return tmp_path


def one_each(faults):
    """The problems by address, one of each."""
    by_address = {problem.address: problem for problem in faults}
    assert len(by_address) == len(faults), faults
    return by_address


def test_a_number_in_the_place_of_none_is_named(unfinished):
    table = "tables/table1.tex"
    assert problems(unfinished, table) == []
    text = (unfinished / table).read_text()
    states = ("--", "running", "failed", "diverged")
    places = {re.search(rf"  & {words} % (table1:\S+)", text)[1]: words for words in states}
    # Each in a row of its own, so that a problem of one hides none of another.
    rows = {place.rpartition("/")[0]: place for place in places}
    assert len(rows) == len(states)
    for place, words in places.items():
        edit(unfinished, "table1", rf"  & {words} % {re.escape(place)} ", f"  & 12.34 % {place} ")
    edited = one_each(problems(unfinished, table))
    assert edited.keys() == places.keys() and {problem.kind for problem in edited.values()} == {"edited"}
    for place, words in places.items():
        assert f"prints 12.34, the database says {words}" in edited[place].message
    # A number without its comment is named as well, and one whose comment claims trials.
    for place in places:
        edit(unfinished, "table1", rf"  & 12.34 % {re.escape(place)} .*", "  & 12.34 $\\\\pm$ 0.1")
    bare = one_each(problems(unfinished, table))
    assert bare.keys() == rows.keys() and {problem.kind for problem in bare.values()} == {"incomplete"}
    for row, place in rows.items():
        assert "12.34 ± 0.1 without the comment" in bare[row].message and place in bare[row].message
    for place in sorted(places, key=text.index):
        forged = f"  & 12.34 % {place} = 12.34 n=1 quantity=main/top1_error selection=best_test trials=0123456789ab"
        edit(unfinished, "table1", r"  & 12.34 \$.*", forged)
    stale = {problem.address: (problem.kind, problem.message) for problem in reversed(problems(unfinished, table))}
    assert stale == dict.fromkeys(places, ("stale", "the database has no value for it now"))


@pytest.mark.parametrize(
    ("table", "old", "new", "address"),
    [
        ("overview", r"& 32 %", "& 23 %", "overview:table1/trials"),
        (
            "table1-vs-paper",
            r"& [\d.]+ (?=% \S+/pskd/top1/published)",
            "& 1.2 ",
            "table1-vs-paper:resnet18/pskd/top1/published",
        ),
        ("table3-vs-paper", r"& \$-\$0\.31 %", "& $-$0.13 %", "table3-vs-paper:resnet18/blocks1-2-3/top1/difference"),
        ("table3-vs-paper", "& differs %", "& match %", "table3-vs-paper:resnet18/blocks3/top1/verdict"),
    ],
)
def test_what_no_trial_stands_behind_is_checked_as_well(unfinished, table, old, new, address):
    edit(unfinished, table, old, new)
    (problem,) = problems(unfinished, f"tables/{table}.tex")
    assert (problem.kind, problem.address) == ("edited", address)


def test_a_place_that_has_another_state_now_is_stale(unfinished):
    change(unfinished, update(Trial).where(Trial.state == "running").values(state="failed"))
    about_top1 = [each for each in problems(unfinished, "tables/table1.tex") if each.address.endswith("/top1")]
    assert [(each.kind, each.message) for each in about_top1] == [
        ("stale", "its comment says running, the database failed")
    ]


def test_a_place_that_has_a_number_now_is_stale(paper):
    change(paper, update(Trial).values(state="failed"))
    with open_database(paper / "results.db", readonly=True) as database:
        write_tables(database, paper / "empty")
    change(paper, update(Trial).values(state="done"))
    wrong = problems(paper, "empty/table1.tex")
    assert len(wrong) == 56 and {each.kind for each in wrong} == {"stale"}
    assert "written without a number, the database has one: now " in wrong[0].message


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        ("Ours", "mislabelled"),
        ("DMFL", "mislabelled"),
        ("PS-KD+BYOT", "mislabelled"),
        ("BYOT, unlike DMFL", "mislabelled"),
        ("", "mislabelled"),
        ("byot", None),
        ("\\textbf{BYOT}~\\cite[Table 1]{zhang2019}\\tnote{a}", None),
        ("\\rowcolor{gray!20} BYOT (ours)", None),
        ("Ours % BYOT", None),
    ],
)
def test_a_row_goes_by_the_name_that_the_database_has(paper, label, kind):
    edit(paper, "table1", r"(?m)^BYOT$", label.replace("\\", r"\\"))
    all_problems = problems(paper)
    assert [(each.kind, each.address) for each in all_problems] == ([(kind, "table1:resnet18/byot")] if kind else [])
    assert all("keep that name beside yours, or in a comment: `Ours % BYOT`" in each.message for each in all_problems)


def test_a_number_in_the_row_of_another_is_mislabelled(paper):
    path = paper / "tables/table1.tex"
    lines = path.read_text().splitlines()
    one, two = (
        next(place for place, line in enumerate(lines) if f"table1:resnet18/{name}/nll " in line)
        for name in ("byot", "pskd")
    )
    lines[one], lines[two] = lines[two], lines[one]
    path.write_text("\n".join(lines))
    pairs = {(each.kind, each.address) for each in problems(paper)}
    assert pairs == {("mislabelled", "table1:resnet18/byot"), ("mislabelled", "table1:resnet18/pskd")}


def test_columns_that_change_places_in_one_row_are_named(paper):
    path = paper / "tables/table1.tex"
    text = path.read_text()
    swapped = r"(.* % table1:{0}/nll .*\n)(.* % table1:{0}/ece .*\n)"
    path.write_text(re.sub(swapped.format("resnet18/byot"), r"\2\1", text))
    (problem,) = problems(paper)
    assert (problem.kind, problem.address) == ("mislabelled", "table1:resnet18/byot")
    assert problem.message == "ece stands before nll, in table1:resnet18/baseline behind it"
    # The same swap in every row is only another order of columns.
    path.write_text(re.sub(swapped.format(r"\S+"), r"\2\1", text))
    assert problems(paper) == []


def test_networks_may_stand_side_by_side(unfinished):
    lines = (unfinished / "tables/table1.tex").read_text().splitlines()
    side_by_side = []
    for method, name in (("byot", "BYOT"), ("pskd", "PS-KD")):
        places = [
            f"% table1:{network}/{method}/{key} " for network in ("resnet18", "resnet50") for key in ("top1", "nll")
        ]
        side_by_side += [name, *(line for place in places for line in lines if place in line), "\\\\"]
    (unfinished / "own.tex").write_text("\n".join(side_by_side))
    assert (checked(unfinished, "own.tex").files, problems(unfinished, "own.tex")) == (1, [])


def test_the_seeds_of_a_row_are_checked(unfinished):
    edit(unfinished, "table1", r"BYOT & 2/3", "BYOT & 3/3")
    (problem,) = problems(unfinished, "tables/table1.tex")
    assert (problem.kind, problem.address) == ("edited", "table1:resnet18/byot")
    assert problem.message == "the row says 3/3 seeds, the database 2/3"


def test_rows_that_lost_all_their_comments_are_incomplete(paper):
    path = paper / "tables/table1.tex"
    path.write_text(re.sub(r" % table1:resnet18/byot/.*", "", path.read_text()))
    (problem,) = problems(paper)
    assert (problem.kind, problem.address) == ("incomplete", "table1:resnet18/byot")
    path.write_text(re.sub(r" % table1:.*", "", path.read_text()))
    wrong = problems(paper, "tables/table1.tex")
    assert len(wrong) == 8 and {problem.kind for problem in wrong} == {"incomplete"}


def test_what_an_author_does_to_a_table_is_no_problem(paper):
    path = paper / "tables/table1.tex"
    text = path.read_text()

    def changed(old, new, **options):
        nonlocal text
        before, text = text, re.sub(old, new, text, **options)
        assert text != before, old

    # Another size and label, and the page's own environment.
    changed(r"\\label\{tab:table1\}", r"\\label{tab:main}\n\\small")
    changed(r"\{\\orchfloat\}\[tbp\]", r"{table*}[t]")
    # Without a row, with one commented out, and without a column.
    changed(r"(?m)^DMFL\n(  &.*\n)+  \\\\\n", "")
    changed(r"(?m)^PS-KD\n(  &.*\n)+  \\\\\n", lambda found: re.sub(r"(?m)^(?=.)", "% ", found[0]))
    changed(r"(?m)^.*table1:\S+/aurc .*\n", "")
    # With a published row, in one line, and with rules of the author's own.
    published = r"BYOT (published)~\\cite{zhang2019} & 21.53 & 5.01 & --- & 0.7 & 10 / 12 & 31.4 \\\\ \\hline\n"
    changed(r"(?m)^(PS-KD\+BYOT\n)", published + r"\1")
    changed(r"(?m)^  \\\\$", r"  \\\\[2pt] \\addlinespace", count=2)
    path.write_text(text)
    assert problems(paper) == []
    # Moved into another table, without its header.
    rows = "\n".join(line for line in text.splitlines() if "orchestrate" not in line and "caption" not in line)
    (paper / "own.tex").write_text(rows)
    assert problems(paper, "own.tex") == []


def test_a_column_of_the_authors_own_is_no_problem(paper):
    path = paper / "tables/table1.tex"
    path.write_text(re.sub(r"(?m)^  \\\\$", r"  & 11.2 \\\\", path.read_text()))
    assert problems(paper) == []


def test_a_caption_that_is_not_the_databases_is_noted(paper):
    assert checked(paper).notes == []
    edit(paper, "table1", "over 3 seeds", "over 5 seeds")
    edit(paper, "table1", "one-sided", "two-sided")
    check = checked(paper)
    assert check.problems == []
    (note,) = check.notes
    assert (note.kind, note.address) == ("note", "table1") and note.where.endswith("table1.tex:2")
    assert "Mean ± sample standard deviation over 3 seeds. Bold:" in note.message
    assert "CIFAR-100, 300 epochs." not in note.message


def test_numbers_that_came_since_are_noted(paper):
    with open_database(paper / "results.db", readonly=True) as database:
        tables = {table.name: table for table in gather(database).tables}
    short_table = replace(tables["table1"], rows=tables["table1"].rows[:7])
    (paper / "tables/table1.tex").write_text(latex(short_table))
    check = checked(paper, "tables/table1.tex")
    assert [note.message for note in check.notes if "caption" not in note.message] == [
        "the database has 56 numbers for it now, 49 when it was written"
    ]
    assert check.problems == []


def test_a_changed_database_makes_its_numbers_stale(paper):
    change(paper, update(Evaluation).where(Evaluation.classifier == "main").values(nll=Evaluation.nll + 0.1))
    wrong = problems(paper)
    assert {each.kind for each in wrong} == {"stale"}
    assert {each.address.rpartition("/")[2] for each in wrong} == {"nll"}
    assert len(wrong) == 8


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
    wrong = [each for each in problems(paper) if each.address == "table1:resnet18/baseline/top1"]
    assert [each.kind for each in wrong] == ["stale"]
    assert "written from 3 trials, the database has 4 (1 new, 0 gone)" in wrong[0].message


def test_a_failed_trial_takes_its_numbers_with_it(paper):
    change(paper, update(Trial).values(state="failed"))
    all_problems = problems(paper)
    assert {each.message for each in all_problems if each.address.startswith("table1:")} == {
        "the database has no value for it now"
    }


def test_tables_that_disagree_about_the_same_trials_are_contradictory(paper):
    # The accuracy of Table 2 is that error of Table 1.
    edit(paper, "table2", r"& (?:\\textbf\{)?[\d.]+( \$\\pm\$ [\d.]+\}? % table2:resnet18/baseline/main)", r"& 33.33\1")
    pairs = {(each.kind, each.address) for each in problems(paper)}
    assert ("contradictory", "table2:resnet18/baseline/main") in pairs


def test_rules_that_are_mixed_in_one_table_are_contradictory(paper):
    with open_database(paper / "results.db", readonly=True) as database:
        write_tables(database, paper / "last", selection="last")
    line = next(line for line in (paper / "last/table1.tex").read_text().splitlines() if "resnet18/pskd/top1 " in line)
    edit(paper, "table1", r".*% table1:resnet18/pskd/top1 .*", line.replace("\\", r"\\"))
    contradictions = [each for each in problems(paper) if each.kind == "contradictory"]
    assert contradictions and "one table must not mix rules" in contradictions[0].message


def test_a_report_on_some_grids_is_verified_on_those(paper):
    with open_database(paper / "results.db", readonly=True) as database:
        write_tables(database, paper / "some", grids=["table1"], selection="mean_last_3")
        assert 'grids ["table1"]' in (paper / "some/table1.tex").read_text()
        assert verify(database, paper / "some/table1.tex").problems == []


def test_tables_without_a_rule_are_verified_though_grids_disagree(tmp_path):
    def filling(filler):
        for place, rule in enumerate(("best_test", "last")):
            filler.grid(f"g{place}", {"tables": [1, "losses"], "selection": rule}, trials(ablation([place])))

    with make_database(tmp_path / "results.db", filling) as database:
        write_tables(database, tmp_path / "tables", selection="last")
        for name in ("overview", "losses", "table1"):
            verdict = verify(database, tmp_path / f"tables/{name}.tex")
            assert (verdict.problems, verdict.notes) == ([], []) and verdict.numbers > 0
        edit(tmp_path, "table1", r"selection last, grids null", 'selection last, grids ["gone"]')
        with pytest.raises(ReportError, match=r"table1\.tex:2: there is no grid 'gone'"):
            verify(database, tmp_path / "tables/table1.tex")


@pytest.mark.parametrize("command", ["\\input{gone}", "\\include{gone}", "\\input gone", "\\input{\\where/gone}"])
def test_a_file_that_is_not_there_is_named(paper, command):
    name = "\\where/gone" if "where" in command else "gone"
    (paper / "paper.tex").write_text(f"\n\\input{{tables/table1}}\n{command} % \\input{{commented}}\n")
    (problem,) = problems(paper)
    kind = "not followed" if "where" in command else "missing"
    assert (problem.kind, problem.address) == (kind, name) and problem.where == f"{paper / 'paper.tex'}:3"
    assert ("macros are not followed" in problem.message) == ("where" in command)
    # Nothing else in the file is no excuse.
    (paper / "paper.tex").write_text(command)
    assert [each.kind for each in problems(paper)] == [kind]


def test_files_are_looked_for_from_the_papers_folder_as_latex_does(paper):
    (paper / "sections").mkdir()
    (paper / "sections/results.tex").write_text("\\input{tables/table1}\n\\input{more}\n")
    (paper / "sections/more.tex").write_text("\\input{tables/table2}\n")
    (paper / "paper.tex").write_text("\\input{sections/results}\n")
    verdict = checked(paper)
    assert (verdict.problems, verdict.files) == ([], 2) and verdict.numbers > 56
    edit(paper, "table2", r"& (?:\\textbf\{)?[\d.]+", "& 33.33")
    assert "edited" in {each.kind for each in problems(paper)}


def test_what_tex_itself_finds_is_not_missing(paper, monkeypatch):
    (paper / "bin").mkdir()
    program = paper / "bin/kpsewhich"
    program.write_text('#!/bin/sh\ntest "$1" = glyphtounicode && echo elsewhere/glyphtounicode.tex\n')
    program.chmod(0o755)
    (paper / "elsewhere").mkdir()
    (paper / "elsewhere/glyphtounicode.tex").write_text("\\relax\n")
    monkeypatch.setenv("PATH", str(paper / "bin"))
    (paper / "paper.tex").write_text("\\input{glyphtounicode}\n\\input{tables/table1}\n\\input{gone}\n")
    assert [(each.kind, each.address) for each in problems(paper)] == [("missing", "gone")]


def test_a_file_without_our_numbers_does_not_pass(paper):
    (paper / "other.tex").write_text("\\documentclass{article}")
    (problem,) = problems(paper, "other.tex")
    assert problem.kind == "empty"
    with pytest.raises(ReportError, match="cannot read"):
        problems(paper, "nothing.tex")


def test_files_that_include_each_other_end(paper):
    (paper / "a.tex").write_text("\\input{b}\n\\input{tables/table1}")
    (paper / "b.tex").write_text("\\input{a}")
    assert problems(paper, "a.tex") == []


def test_the_last_line_of_verify_says_what_was_checked_and_what_not(paper):
    def run():
        return CliRunner().invoke(app, ["verify", str(paper / "paper.tex"), "--db", str(paper / "results.db")])

    edit(paper, "table1", "over 3 seeds", "over 5 seeds")
    done = run()
    assert (done.exit_code, done.stdout.count("\n")) == (0, 1)
    assert "66 numbers in 2 files: all current" in done.stdout
    assert "Not checked: captions, headings, other text, pictures, and numbers without our comment" in done.stdout
    assert done.stderr.count("\n") == 1 and "note: table1: the caption, which is not checked," in done.stderr
    edit(paper, "table1", r"(?m)^BYOT$", "Ours")
    done = run()
    assert (done.exit_code, done.stderr.count("\n")) == (1, 2)
    assert done.stdout.endswith("paper.tex: 1 problem in 66 numbers in 2 files\n")


@pytest.fixture
def edited(paper):
    """A paper's second table with a number that somebody changed, in a folder of its own."""
    edit(paper, "table2", r"& (?:\\textbf\{)?[\d.]+", "& 33.33")
    (paper / "sections").mkdir()
    shutil.move(paper / "tables/table2.tex", paper / "sections/my results.tex")
    shutil.copy(paper / "sections/my results.tex", paper / "sections/results.tex")
    return paper


READ = [
    "\\input{sections/results}",
    "\\input sections/results.tex",
    '\\input"sections/my results.tex"',
    '\\input{"sections/my results"}',
    "\\input{sections/my results}",
    "\\input\n  {sections/results}",
    "\\input % where\n{sections/results}",
    "\\include{sections/results}",
    "\\include*{sections/results}",
    "\\subfile{sections/results}",
    "\\subfileinclude{sections/results}",
    "\\import{sections/}{results}",
    "\\import*{sections}{results.tex}",
    "\\subimport{sections/}{results}",
    "\\inputfrom{sections/}{results}",
    "\\includefrom{sections/}{results}",
    "\\subincludefrom{sections/}{results}",
    "\\InputIfFileExists{sections/results}{}{}",
    "\\makeatletter\\@input{sections/results.tex}\\makeatother",
    "\\makeatletter\\def\\input@path{{sections/}}\\makeatother\\input{results}",
    "a & \\input{sections/results}",
    "\\iffalse old \\else\\input{sections/results}\\fi",
    "\\iffalse\n\\ifx a b c\\else\\fi\n\\fi\\input{sections/results}",
    "\\let\\ifdraft\\iffalse\n\\input{sections/results}\n\\fi",
    "\\ifx\\a\\b\n\\endinput\n\\fi\n\\input{sections/results}",
    "\\verb|%| \\input{sections/results}",
    "\\newcommand{\\shown}{\\input{sections/results}}",
]


@pytest.mark.parametrize("command", READ)
def test_every_command_that_reads_a_file_is_followed(edited, command):
    (edited / "paper.tex").write_text(f"\\input{{tables/table1}}\n{command}\n")
    manuscript = read(edited / "paper.tex")
    assert (manuscript.missing, manuscript.unclear) == ([], [])
    assert any("33.33" in place.text for place in manuscript.places)


UNCLEAR = [
    "\\newcommand{\\tab}[1]{\\input{sections/#1}}\n\\tab{results}",
    "\\csname input\\endcsname{sections/results}",
    "\\csname @input\\endcsname{sections/results}",
    "\\let\\bring\\input\n\\bring{sections/results}",
    "\\expandafter\\input\\file",
    "\\input{\\where/results}",
    '\\input{|"cat sections/results.tex"}',
    "\\input",
    "\\import{\\where}{results}",
    "\\myinput{sections/results}",
    "\\inputtable{results}",
    "\\^^69nput{sections/results}",
    "\\catcode`\\!=0 !input{sections/results}",
    "\\catcode`\\%=12 % \\input{sections/results}",
    "\\includecomment{comment}\\begin{comment}\n\\input{sections/results}\n\\end{comment}",
    "\\newenvironment{comment}{}{}\\begin{comment}\n\\input{sections/results}\n\\end{comment}",
    "\\begin{comment}\n\\input{sections/results}",
    "\\iffalse\n\\input{sections/results}",
    "\\iffalse\\ifthenelse{a}{b}{c}\\fi\n\\input{tables/table1}\n\\iftrue\\fi\\fi",
    "\\openin1=sections/results.tex",
    "\\usepackage{ours}\n\\bring{results}",
]


@pytest.mark.parametrize("text", UNCLEAR)
def test_what_cannot_be_followed_is_said_with_its_line(edited, text):
    (edited / "ours.sty").write_text("\\newcommand{\\bring}[1]{\\input{sections/#1}}\n\\newcommand{\\inputs}{x}\n")
    (edited / "paper.tex").write_text(f"\\input{{tables/table1}}\n{text}\n")
    places = [where.rpartition(":") for where, _, _ in read(edited / "paper.tex").unclear]
    assert places and {file for file, _, _ in places} == {str(edited / "paper.tex")}
    assert {int(line) for _, _, line in places} <= {2, 3}


HIDDEN = [
    "% \\input{sections/results}",
    "\\begin{comment}\n\\input{sections/results}\n\\end{comment}",
    "\\begin{verbatim}\n\\input{sections/results}\n%\\end{verbatim}",
    "\\begin{lstlisting}[language=TeX]\n\\input{sections/results}\n\\end{lstlisting}",
    "\\verb|\\input{sections/results}|",
    "\\iffalse\n\\input{sections/results}\n\\fi",
    "\\iffalse\\input{sections/results}\\fi",
    "\\endinput\n\\input{sections/results}",
    "\\end{document}\n\\input{sections/results}",
    "\\newcommand{\\inputs}{x} \\inputs \\important \\includegraphics{a} \\includeonly{b} \\inputencoding{utf8}",
    "\\catcode`\\@=11 \\InputIfFileExists{gone.cfg}{}{}",
    "\\usepackage{ours} \\inputs \\documentclass{article}",
]


@pytest.mark.parametrize("text", HIDDEN)
def test_what_latex_does_not_read_is_no_problem(edited, text):
    (edited / "ours.sty").write_text("\\newcommand{\\bring}[1]{\\input{sections/#1}}\n\\newcommand{\\inputs}{x}\n")
    (edited / "paper.tex").write_text(f"\\input{{tables/table1}}\n{text}\n")
    manuscript = read(edited / "paper.tex")
    assert (manuscript.missing, manuscript.unclear, len(manuscript.files)) == ([], [], 1)


def test_an_imported_file_reads_from_its_own_folder_first(edited):
    (edited / "results.tex").write_text("\\relax\n")
    (edited / "sections/part.tex").write_text("\\input{results}\n")
    for command in ("\\import{sections/}{part}", "\\subfile{sections/part}"):
        (edited / "paper.tex").write_text(f"\\input{{tables/table1}}\n{command}\n")
        assert any("33.33" in place.text for place in read(edited / "paper.tex").places), command


def test_the_folders_of_texinputs_are_searched_in_their_order(edited, monkeypatch):
    (edited / "results.tex").write_text("\\relax\n")
    (edited / "paper.tex").write_text("\\input{tables/table1}\n\\input{results}\n")
    for value, files in (("", 1), ("sections:", 2), ("./sections//", 2), (":sections", 1)):
        monkeypatch.setenv("TEXINPUTS", value)
        assert len(read(edited / "paper.tex").files) == files, value


def test_what_was_not_followed_is_never_all_current(edited):
    (edited / "paper.tex").write_text("\\input{tables/table1}\n\\newcommand{\\tab}[1]{\\input{sections/#1}}\n")
    done = CliRunner().invoke(app, ["verify", str(edited / "paper.tex"), "--db", str(edited / "results.db")])
    assert done.exit_code == 1 and "all current" not in done.stdout
    assert f"{edited / 'paper.tex'}:2: not followed: sections/#1: macros are not followed" in done.stderr


def test_names_that_the_disk_refuses_are_missing(paper):
    (paper / "loop.tex").symlink_to("loop.tex")
    for name in ("a" * 300, "/" + "b/" * 900 + "c", "loop"):
        (paper / "paper.tex").write_text(f"\\input{{tables/table1}}\n\\input{{{name}}}\n")
        assert [name for _, name in read(paper / "paper.tex").missing] == [name]
    with pytest.raises(ReportError, match=r"cannot read .*loop\.tex"):
        problems(paper, "loop.tex")
    (paper / "binary.tex").write_bytes(b"\\input{tables/table1}\0\xff")
    with pytest.raises(ReportError, match=r"binary\.tex: it is not text"):
        problems(paper, "binary.tex")


def test_files_deep_in_files_are_said_and_end(paper):
    for place in range(1200):
        (paper / f"deep{place}.tex").write_text(f"\\input{{deep{place + 1}}}\n")
    (paper / "paper.tex").write_text("\\input{tables/table1}\n\\input{deep0}\n")
    assert [why for _, _, why in read(paper / "paper.tex").unclear] == ["files are followed 40 deep"]


def test_a_file_in_latin_1_keeps_its_lines(edited):
    text = "caf\xe9 \x85 % \x85 \\input{gone}\n\\input{tables/table1}\n\\input{sections/results}\n"
    (edited / "paper.tex").write_bytes(text.encode("latin-1"))
    manuscript = read(edited / "paper.tex")
    assert (manuscript.missing, len(manuscript.files)) == ([], 2)


@pytest.mark.parametrize(
    "piece", ["a:", "a:a/", "\\\\[", "\\begin{", "\\input{", "{", "\\verb|", " ", "\\iffalse ", "&"]
)
def test_the_work_grows_with_the_length_of_a_line_alone(paper, piece):
    def seconds(times):
        (paper / "paper.tex").write_text(f"\\input{{tables/table1}}\n{piece * times}\n% {piece * times}\n")
        start = time.process_time()
        read(paper / "paper.tex")
        return time.process_time() - start

    short = max(seconds(2_000), 0.02)
    assert seconds(20_000) < 40 * short
