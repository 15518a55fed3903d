"""A tuned grid trains its draws, chooses each row's winner on validation images, and trains the winners."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator import load_grid, open_database, run_grid
from orchestrator.database import Database
from orchestrator.grid.tuned import draws_of
from orchestrator.grid_records import plan_of
from orchestrator.run import Outcome
from orchestrator.scheduler import Interrupted, Observer
from orchestrator.stages import decide
from tests.orchestrator.tuning_runs import Training, error_of, grid_file, stand_in

ROWS = ("resnet18/baseline", "resnet18/pskd")


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Training:
    """A formula in the place of training, in a new folder."""
    monkeypatch.chdir(tmp_path)
    return stand_in(monkeypatch)


def kept(database: Database, grid: str = "tuned") -> dict[str, Any]:
    """Return the facts of the search that the database keeps, by row."""
    (row,) = [row for row in database.grids() if row.name == grid]
    rows: dict[str, Any] = row.report["tune"]["rows"]
    return rows


def test_the_winners_are_trained_on_the_grid_s_seeds_once_the_draws_are_over(
    training: Training, tmp_path: Path
) -> None:
    heard: list[str] = []
    path = grid_file(tmp_path)
    outcome = run_grid(
        path, "r.db", observer=Observer(planned=lambda plan: heard.append(plan.summary()), note=heard.append)
    )
    assert outcome == Outcome(failed=0, elsewhere=0, left=0)
    grid = load_grid(path)
    best = {
        row: min(range(4), key=lambda number, draws=draws: error_of(draws[number].config))
        for row, draws in draws_of(grid).items()
    }
    assert all(best.values())
    first, second = training.batches
    assert first == [f"{row}/seed{seed}" for row in ROWS for seed in (0, 1)] + [
        f"{row}/draw{number}" for number in range(4) for row in ROWS
    ]
    assert second == [f"{row}/tuned/seed{seed}" for row in ROWS for seed in (0, 1)]
    with open_database("r.db", readonly=True) as database:
        assert {row: facts["winner"] for row, facts in kept(database).items()} == best
        by_name = {row.trial_name: row for row in database.progress("tuned")}
        for row, number in best.items():
            draw, winner = by_name[f"{row}/draw{number}"].config, by_name[f"{row}/tuned/seed1"].config
            assert (winner["seed"], draw["seed"]) == (1, 100)
            assert [winner[name] for name in ("learning_rate", "methods")] == [
                draw[name] for name in ("learning_rate", "methods")
            ]
    wins = [line for line in heard if "wins with top1" in line]
    assert len(wins) == 2 and f"draw {best[ROWS[0]]} of {ROWS[0]}" in wins[0] and "learning_rate " in wins[0]
    # A second run has nothing to do, says nothing anew, and leaves the grid as it is.
    del training.batches[:], heard[:]
    run_grid(path, "r.db", observer=Observer(note=heard.append))
    assert training.batches == [] and heard == []


def test_a_plan_shows_the_whole_cost_first(training: Training, tmp_path: Path) -> None:
    grid = load_grid(grid_file(tmp_path))
    decision = decide(grid, None)
    assert len(plan_of(decision.grid, None).pending) == 4 + 8 and decision.may_come == 4
    assert decision.outlook == (
        "tuning: 4 draws of 2 rows by random search, 8 trials",
        "tuning: then up to 4 trials more, the rows as their best draws have them, on the grid's seeds",
    )
    training.stop = lambda trial: trial.role == "draw"
    with pytest.raises(Interrupted):
        run_grid(grid, "r.db")
    with open_database("r.db", readonly=True) as database:
        decision = decide(grid, database)
        # An epoch of these trials is known by now: 2.6 seconds.
        hours = [f"about {trials * 2 * 2.6 / 3600:.3g} device-hours" for trials in (8, 4)]
        assert all(cost in line for cost, line in zip(hours, decision.outlook, strict=True))


def test_a_run_that_is_killed_goes_on_with_the_same_draws_and_loses_none(training: Training, tmp_path: Path) -> None:
    path = grid_file(tmp_path)
    training.stop = lambda trial: trial.name == "resnet18/pskd/draw2"
    with pytest.raises(Interrupted):
        run_grid(path, "r.db")
    done = training.trained
    training.stop = lambda trial: False
    run_grid(path, "r.db")
    assert sorted(training.trained) == sorted(set(training.trained)) and training.trained[: len(done)] == done
    run_grid(grid_file(tmp_path, "whole.yaml", name="whole"), "whole.db")
    with open_database("r.db", readonly=True) as database, open_database("whole.db", readonly=True) as whole:
        assert kept(database) == kept(whole, "whole")
        assert database.grid_keys("tuned") == whole.grid_keys("whole")


def test_failed_draws_count_and_a_row_stops_only_if_all_of_its_draws_fail(training: Training, tmp_path: Path) -> None:
    heard: list[str] = []
    training.fails = lambda trial: trial.name in ("resnet18/baseline/draw1", "resnet18/pskd/draw0")
    path = grid_file(tmp_path)
    assert run_grid(path, "r.db", observer=Observer(note=heard.append)) == Outcome(failed=0, elsewhere=0, left=0)
    with open_database("r.db", readonly=True) as database:
        assert [(facts["draws"], facts["failed"]) for facts in kept(database).values()] == [(4, 1), (4, 1)]
    assert any("no value as it is, 1 failed" in line for line in heard)
    training.fails = lambda trial: trial.role == "draw" and "pskd" in trial.name
    del heard[:]
    outcome = run_grid(path, "other.db", observer=Observer(note=heard.append))
    assert outcome.failed == 4
    assert any("all 4 draws of resnet18/pskd failed" in line for line in heard)
    assert not any(name.startswith("resnet18/pskd/tuned") for name in training.batches[-1])
    # Tried again, they decide.
    training.fails = lambda trial: False
    assert run_grid(path, "other.db", retry_failed=True).failed == 0
    assert "resnet18/pskd/tuned/seed0" in training.batches[-1]


def test_more_draws_keep_the_old_ones_and_may_change_the_winner(training: Training, tmp_path: Path) -> None:
    heard: list[str] = []
    run_grid(grid_file(tmp_path, tune={"draws": 2}), "r.db")
    before = training.trained
    warned: list[str] = []
    more = Observer(note=heard.append, warning=warned.append)
    run_grid(grid_file(tmp_path, tune={"draws": 9}), "r.db", observer=more)
    assert warned == []
    new = training.trained[len(before) :]
    assert not {name for name in new if "/tuned/" not in name} & set(before)
    with open_database("r.db", readonly=True) as database:
        winners = {row: facts["winner"] for row, facts in kept(database).items()}
        assert all(number > 1 for number in winners.values())
        # The grid has the trials of the winner alone: those of the earlier one stay in the database, out of the grid.
        assert sum("/tuned/" in name for _, name in database.grid_keys("tuned")) == 4
    assert len([line for line in heard if "wins with" in line]) == 2
    # Without the search, its trials leave the tables, and a person is told.
    file = json.loads((tmp_path / "tuned.yaml").read_text())
    del file["tune"]
    (tmp_path / "tuned.yaml").write_text(json.dumps(file))
    run_grid(tmp_path / "tuned.yaml", "r.db", observer=more)
    assert any("not in tuned.yaml any more: 22 trials" in line.replace(f"{tmp_path}/", "") for line in warned)


def test_a_row_that_comes_later_is_tuned_alike_and_leaves_the_others_alone(training: Training, tmp_path: Path) -> None:
    run_grid(grid_file(tmp_path), "r.db")
    with open_database("r.db", readonly=True) as database:
        before = kept(database)
    del training.batches[:]
    path = grid_file(tmp_path, grid={"methods": ["baseline", "pskd", "dmfl"], "seed": [0, 1]})
    run_grid(path, "r.db")
    assert {name.split("/")[1] for name in training.trained} == {"dmfl"}
    with open_database("r.db", readonly=True) as database:
        after = kept(database)
        assert {row: after[row] for row in before} == before and after["resnet18/dmfl"]["draws"] == 4


def test_a_search_that_is_trained_anew_decides_anew(training: Training, tmp_path: Path) -> None:
    path = grid_file(tmp_path)
    run_grid(path, "r.db")
    with open_database("r.db") as database:
        draws = [key for key, name in database.grid_keys("tuned") if "/pskd/draw" in name]
        database.retrain(draws)
        decision = decide(load_grid(path), database)
        # Until the draws are over again, the row has no winner; the other one keeps its own.
        assert [trial.name for trial in decision.grid.trials if trial.role == "tuned"] == [
            f"resnet18/baseline/tuned/seed{seed}" for seed in (0, 1)
        ]
    del training.batches[:]
    run_grid(path, "r.db")
    assert sorted(training.trained) == [f"resnet18/pskd/draw{number}" for number in range(4)]
    with open_database("r.db", readonly=True) as database:
        assert sum("/tuned/" in name for _, name in database.grid_keys("tuned")) == 4


def test_forgetting_a_tuned_grid_takes_its_draws_along(training: Training, tmp_path: Path) -> None:
    run_grid(grid_file(tmp_path), "r.db")
    with open_database("r.db") as database:
        assert database.extent("tuned").trials == 4 + 8 + 4
        assert len(database.forget("tuned", trials=True)) == 16
        assert database.grids() == []


def test_times_are_measured_of_rows_and_winners_and_not_of_draws(training: Training, tmp_path: Path) -> None:
    from orchestrator.planning import one_seed_each

    run_grid(grid_file(tmp_path), "r.db")
    with open_database("r.db", readonly=True) as database:
        grid = decide(load_grid(grid_file(tmp_path)), database).grid
    assert sorted(trial.name.removesuffix("/seed0") for trial in one_seed_each(grid)) == sorted(
        [*ROWS, *(f"{row}/tuned" for row in ROWS)]
    )


def test_a_winner_has_the_choice_of_its_draw_and_news_name_the_method(training: Training, tmp_path: Path) -> None:
    heard: list[str] = []
    # In the 6 epochs of a draw these milestones are the default, in the 12 of a row they are not.
    spaces = {
        "*": {"milestones": {"choice": [[3, 4], [1, 2]]}},
        "pskd": {"alpha": {"choice": [0.6, 0.61]}},
        "label_smoothing": {"smoothing": {"choice": [0.2, 0.25]}},
    }
    fixed = {"dataset": "synthetic", "subset": 2, "validation": 20, "epochs": 12, "width": 4, "milestones": [8, 9]}
    methods = ["pskd+label_smoothing"]
    tune = {"draws": 8, "epochs": 6, "spaces": spaces}
    path = grid_file(tmp_path, fixed=fixed, grid={"methods": methods, "seed": [0]}, tune=tune)
    run_grid(path, "r.db", observer=Observer(note=heard.append))
    with open_database("r.db", readonly=True) as database:
        (facts,) = kept(database).values()
        by_name = {row.trial_name.partition("/")[2]: row.config for row in database.progress("tuned")}
    (row,) = {name.partition("/")[0] for name in by_name}
    wanted = by_name[f"{row}/draw{facts['winner']}"]["milestones"] or [3, 4]
    assert facts["values"]["methods.pskd.alpha"] in (0.6, 0.61) and facts["values"]["milestones"] == wanted
    assert by_name[f"{row}/tuned/seed0"]["milestones"] == wanted
    (news,) = [line for line in heard if "wins with top1" in line]
    assert f"milestones {wanted}" in news and "pskd.alpha 0.6" in news and "label_smoothing.smoothing 0.2" in news


def test_winners_that_were_stopped_go_on_in_the_next_run(training: Training, tmp_path: Path) -> None:
    path = grid_file(tmp_path)
    training.stop = lambda trial: trial.name == "resnet18/pskd/tuned/seed0"
    with pytest.raises(Interrupted):
        run_grid(path, "r.db")
    assert training.batches[-1] == [f"resnet18/baseline/tuned/seed{seed}" for seed in (0, 1)]
    training.stop = lambda trial: False
    for order in ("depth", "breadth"):
        assert run_grid(path, "r.db", order=order) == Outcome(failed=0, elsewhere=0, left=0)
    assert training.batches[-1] == [f"resnet18/pskd/tuned/seed{seed}" for seed in (0, 1)]


@pytest.mark.parametrize("stop", ["", "resnet18/pskd/draw5"])
def test_a_model_s_search_is_the_same_whether_it_is_killed_or_not(
    training: Training, tmp_path: Path, stop: str
) -> None:
    pytest.importorskip("optuna", reason="optuna is not installed")
    path = grid_file(tmp_path, tune={"draws": 7, "search": "optuna"})
    assert len(load_grid(path).trials) == 4 + 2 * 2
    assert decide(load_grid(path), None).may_come == 2 * 5 + 4
    if stop:
        training.stop = lambda trial: trial.name == stop
        with pytest.raises(Interrupted):
            run_grid(path, "r.db")
        training.stop = lambda trial: False
    assert run_grid(path, "r.db") == Outcome(failed=0, elsewhere=0, left=0)
    assert len(training.trained) == len(set(training.trained)) == 4 + 2 * 7 + 4
    with open_database("r.db", readonly=True) as database:
        grid = decide(load_grid(path), database).grid
        draws = {row: [trial.key for trial in of_row] for row, of_row in draws_of(grid).items()}
        assert [len(keys) for keys in draws.values()] == [7, 7]
    # Another search, in one go, comes to the same draws.
    run_grid(grid_file(tmp_path, "r2.yaml", tune={"draws": 7, "search": "optuna"}), "other.db")
    with open_database("other.db", readonly=True) as database:
        other = decide(load_grid(path), database).grid
        assert draws == {row: [trial.key for trial in of_row] for row, of_row in draws_of(other).items()}
    # A plan asks no model, and without the database it knows the first draws alone.
    assert [len(of_row) for of_row in draws_of(load_grid(path)).values()] == [2, 2]


def test_status_watch_and_triage_speak_of_draws(
    training: Training, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from orchestrator.console.status import print_status, status_of
    from orchestrator.console.triage import print_triage, triage_of
    from orchestrator.console.watch import watch_grids

    training.fails = lambda trial: trial.name == "resnet18/pskd/draw1"
    training.stop = lambda trial: trial.name == "resnet18/pskd/draw3"
    with pytest.raises(Interrupted):
        run_grid(grid_file(tmp_path), "r.db")
    with open_database("r.db", readonly=True) as database:
        (status,) = status_of(database, None)
        assert status["search"] == {"draws": 8, "over": 7, "failed": 1, "rows": 2, "winners": {}}
        print_status([status])
        print_triage(triage_of(database, None))
    shown = capsys.readouterr().out
    assert "search: 7 of 8 draws over, 1 failed, 0 of 2 rows decided" in shown
    assert "failed  draw 1 of resnet18/pskd: diverged" in shown
    assert "trials:  draw 1 of resnet18/pskd" in shown
    watch_grids("r.db", None, every=1, once=True)
    lines = {line.split("  ")[0].strip(): line for line in capsys.readouterr().out.splitlines()}
    assert "4 of 4 draws" in lines["baseline, draws"] and "3 of 4 draws, 1 failed" in lines["pskd, draws"]
    assert "%" not in lines["pskd, draws"] and "%" in lines["pskd"]
    training.stop = lambda trial: False
    run_grid(grid_file(tmp_path), "r.db")
    with open_database("r.db", readonly=True) as database:
        (status,) = status_of(database, None)
        assert set(status["search"]["winners"]) == set(ROWS)
    watch_grids("r.db", None, every=1, once=True)
    assert "pskd/tuned" in capsys.readouterr().out


def test_merged_databases_decide_by_the_draws_of_both(training: Training, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from orchestrator.cli import app

    # One machine has the row without a method, the other one the row with PS-KD.
    path = grid_file(tmp_path)
    for name, methods in (("one.db", "baseline"), ("other.db", "pskd")):
        run_grid(load_grid(path, {"methods": [methods]}), name)
    merged = CliRunner().invoke(app, ["merge", "all.db", "one.db", "other.db"])
    assert merged.exit_code == 0, merged.output
    del training.batches[:]
    assert run_grid(path, "all.db") == Outcome(failed=0, elsewhere=0, left=0)
    # Nothing is trained again, winners included.
    assert training.batches == []
    with open_database("all.db", readonly=True) as database:
        assert all(facts["winner"] for facts in kept(database).values()) and len(database.grid_keys("tuned")) == 16
