"""Seeds that come by a rule: each look is made once, stops what it separates, and no change of the rule slips in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from orchestrator import load_grid, open_database, run_grid
from orchestrator.cli import app
from orchestrator.grid import Trial
from orchestrator.records import LookRow
from orchestrator.run import time_grid
from orchestrator.scheduler import Observer, RunOptions, cluster, trials
from orchestrator.scheduler.cluster import Cluster
from orchestrator.stages import decide
from orchestrator.stages.sequential import SeedsError
from orchestrator.statistics.sequential import look_levels
from tests.orchestrator.seed_results import NOISE, fail, finish, store

RULE = {"start": 3, "step": 2, "most": 7, "against": "baseline"}
GRID = {
    "name": "looks",
    "fixed": {"dataset": "synthetic", "subset": 2, "epochs": 1, "width": 4},
    "grid": {"methods": ["baseline", "pskd", "byot"]},
    "seeds": RULE,
}
# pskd is told from the baseline at the second look, byot never.
MEANS = {"": 25.0, "pskd": 23.0, "byot": 25.1, "cskd": 15.0}
SHIFT = {"": 0, "pskd": 3, "byot": 7, "cskd": 5}


def error(trial: Trial) -> float:
    row = "+".join(trial.config.methods)
    return MEANS[row] + NOISE[(trial.config.seed + SHIFT[row]) % len(NOISE)]


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a grid file with changes."""
    monkeypatch.chdir(tmp_path)

    def write(**changes: Any) -> Path:
        path = tmp_path / "g.yaml"
        path.write_text(json.dumps(GRID | changes))
        return path

    return write


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The trials of each stage: no Ray starts, and they are done at once; those in `BROKEN` fail."""
    stages: list[list[str]] = []

    @contextmanager
    def no_ray(options: RunOptions) -> Iterator[Cluster]:
        yield Cluster([{"CPU": 2.0}], None)

    def train(recorder: Any, _: Cluster, shape: Any, members: list[Trial], *__: Any, **how: Any) -> None:
        if how.get("timed"):
            return
        stages.append([trial.name.removeprefix("resnet18/") for trial in members])
        broken = [trial for trial in members if trial.name in BROKEN]
        finish(recorder.database, [trial for trial in members if trial not in broken], error)
        fail(recorder.database, broken)

    monkeypatch.setattr(cluster, "_ray_cluster", no_ray)
    monkeypatch.setattr(cluster, "_living_nodes", lambda: [{"CPU": 2.0}])
    monkeypatch.setattr(trials, "_run_shape", train)
    return stages


BROKEN: set[str] = set()


def looks() -> list[LookRow]:
    with open_database("r.db", readonly=True) as database:
        return database.looks("looks")


def seeds(row: str, *numbers: int) -> list[str]:
    return [f"{row}/seed{number}" for number in numbers]


def test_a_timing_records_the_looks_that_its_trials_come_from(write: Write, trained: list[list[str]]) -> None:
    heard: list[str] = []
    path = write()
    grid = load_grid(path)
    with open_database("r.db", create=True) as database:
        store(database, grid)
        finish(database, grid.trials, error)
    time_grid(path, "r.db", observer=Observer(note=heard.append))
    assert [(look.row_name, look.look) for look in looks()] == [("resnet18/pskd", 1), ("resnet18/byot", 1)]
    assert any(line.startswith("seeds: look 1 at 3") for line in heard)
    with open_database("r.db", readonly=True) as database:
        assert len(database.grid_keys("looks")) == 15


def test_a_pair_stops_where_it_is_separated_and_the_baseline_goes_on(write: Write, trained: list[list[str]]) -> None:
    heard: list[str] = []
    run_grid(write(), "r.db", observer=Observer(note=heard.append))
    assert trained == [
        [*seeds("baseline", 0, 1, 2), *seeds("pskd", 0, 1, 2), *seeds("byot", 0, 1, 2)],
        [*seeds("baseline", 3, 4), *seeds("pskd", 3, 4), *seeds("byot", 3, 4)],
        [*seeds("baseline", 5, 6), *seeds("byot", 5, 6)],
    ]
    made = [(look.row_name, look.look, look.seeds, look.shared, look.separated) for look in looks()]
    assert made == [
        ("resnet18/pskd", 1, 3, 3, False),
        ("resnet18/byot", 1, 3, 3, False),
        ("resnet18/pskd", 2, 5, 5, True),
        ("resnet18/byot", 2, 5, 5, False),
        ("resnet18/byot", 3, 7, 7, False),
    ]
    levels = [look.level for look in looks()]
    both, alone = look_levels(0.025, (3, 5, 7)), look_levels(0.05, (3, 5, 7))
    # The pair that is separated leaves its share to the other at once.
    assert levels == pytest.approx([both[0], both[0], both[1], alone[1], alone[2]])
    assert all(look.rule == {**RULE, "metric": "top1", "selection": "best_test"} for look in looks())
    (line,) = [line for line in heard if "is told from" in line]
    assert line.startswith("seeds: look 2 at 5: resnet18/pskd is told from resnet18/baseline by -") and (
        line.endswith("it stops, 2 seeds before the most")
    )
    assert "stay open: these were the last seeds" in heard[-1]
    # The same command has nothing to do, decides nothing anew, and takes no trial away.
    shown = CliRunner().invoke(app, ["status", "--db", "r.db"]).stdout
    assert "  seeds by rule, 3 to 7: 1 pair separated, 1 pair open after the last look; 2 seeds saved\n" in shown
    (status,) = json.loads(CliRunner().invoke(app, ["status", "--db", "r.db", "--json"]).stdout)
    assert [(pair["row"], pair["look"], pair["over"]) for pair in status["seeds"]["pairs"]] == [
        ("resnet18/pskd", 2, True),
        ("resnet18/byot", 3, True),
    ]
    before = looks()
    run_grid(write(), "r.db")
    assert len(trained) == 3 and looks() == before
    with open_database("r.db", readonly=True) as database:
        assert len(database.grid_keys("looks")) == 7 + 5 + 7


def test_a_plan_says_what_is_certain_and_what_may_come(write: Write, trained: list[list[str]]) -> None:
    write()

    def plan() -> dict[str, Any]:
        done = CliRunner().invoke(app, ["plan", "g.yaml", "--db", "r.db", "--json"])
        assert done.exit_code == 0, done.output
        shown: dict[str, Any] = json.loads(done.stdout)
        return shown

    first = plan()
    assert len(first["trials"]) == 9 and first["may_come"] == 12
    assert first["outlook"][0] == "seeds: looks at 3, 5, 7 seeds, 2 pairs in top1: 2 to decide"
    assert first["outlook"][1].startswith("seeds: up to 12 trials more may come")
    grid = load_grid("g.yaml")
    with open_database("r.db", create=True) as database:
        store(database, grid)
        finish(database, grid.trials, error)
    # A plan decides as the run will, and writes nothing.
    second = plan()
    assert sum(trial["status"] == "new" for trial in second["trials"]) == 6 and second["may_come"] == 6
    assert looks() == []
    run_grid("g.yaml", "r.db")
    last = plan()
    assert last["may_come"] == 0 and {trial["status"] for trial in last["trials"]} == {"done"}
    assert last["outlook"] == [
        "seeds: looks at 3, 5, 7 seeds, 2 pairs in top1: 1 separated, 1 open after the last look; "
        "2 seeds saved by stopping early"
    ]


def test_a_run_that_is_killed_between_trials_and_looks_comes_to_the_same(
    write: Write, trained: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_grid(write(), "r.db")
    whole = looks()
    Path("r.db").unlink()
    # Killed in every stage, once with half of its trials done and once with all of them.
    grid = load_grid("g.yaml")
    with open_database("r.db", create=True) as database:
        for _ in range(3):
            decided = decide(grid, database)
            store(database, decided.grid)
            states = database.states([trial.key for trial in decided.grid.trials])
            waiting = [trial for trial in decided.grid.trials if states[trial.key].state == "pending"]
            finish(database, waiting[::2], error)
            assert decide(grid, database).grid.trials == decided.grid.trials
            finish(database, waiting[1::2], error)
    assert looks() == []
    run_grid("g.yaml", "r.db")
    assert looks() == whole


def test_failed_seeds_are_left_out_of_a_look_and_it_stays(write: Write, trained: list[list[str]]) -> None:
    BROKEN.update({"resnet18/byot/seed0", "resnet18/baseline/seed1"})
    try:
        assert run_grid(write(), "r.db").failed == 2
    finally:
        BROKEN.clear()
    made = {(look.row_name, look.look): look for look in looks()}
    assert made["resnet18/byot", 1].shared == 1 and made["resnet18/byot", 1].p is None
    assert made["resnet18/pskd", 1].shared == 2 and made["resnet18/byot", 3].shared == 5
    before = looks()
    assert run_grid("g.yaml", "r.db", retry_failed=True).failed == 0
    assert looks() == before


def test_a_rule_that_changes_after_a_look_is_refused(write: Write, trained: list[list[str]]) -> None:
    run_grid(write(), "r.db")
    before = looks()
    write(seeds=RULE | {"most": 9})
    for command in ("run", "plan", "seeds"):
        done = CliRunner().invoke(app, [command, "g.yaml", "--db", "r.db"])
        assert done.exit_code == 2, done.output
        assert "the rule of `seeds` is most: 9, and grid looks was looked at by most: 7" in done.output
        assert "--set name=" in done.output
    with pytest.raises(SeedsError):
        run_grid("g.yaml", "r.db")
    write(report={"selection": "last"})
    with pytest.raises(SeedsError, match="selection: last"):
        run_grid("g.yaml", "r.db")
    assert looks() == before
    # Before the first look it may change, and under another name the trials count and the looks are its own.
    write(seeds=RULE | {"most": 9}, name="longer")
    run_grid("g.yaml", "r.db")
    assert trained[-1] == [*seeds("baseline", 7, 8), *seeds("byot", 7, 8)]
    with open_database("r.db", readonly=True) as database:
        assert max(look.seeds for look in database.looks("longer")) == 9


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        (["baseline", "pskd", "byot", "cskd"], "resnet18/cskd added since grid looks was looked at"),
        (["baseline", "byot"], "resnet18/pskd gone since"),
        (["baseline", "byot", "cskd"], "resnet18/cskd added and resnet18/pskd gone since"),
    ],
)
def test_a_row_that_comes_or_goes_after_a_look_is_refused(
    write: Write, trained: list[list[str]], methods: list[str], message: str
) -> None:
    run_grid(write(), "r.db")
    before, stages = looks(), len(trained)
    write(grid={"methods": methods})
    for command in ("run", "plan", "seeds"):
        done = CliRunner().invoke(app, [command, "g.yaml", "--db", "r.db"])
        assert done.exit_code == 2, done.output
        assert message in " ".join(done.output.split())
    assert looks() == before and len(trained) == stages
    # Under another name all of them share the error from the first look on.
    write(grid={"methods": methods}, name="others")
    run_grid("g.yaml", "r.db")
    with open_database("r.db", readonly=True) as database:
        made = [look.row_name for look in database.looks("others") if look.look == 1]
    assert made == [f"resnet18/{name}" for name in methods[1:]]


def test_a_row_may_come_before_the_first_look(write: Write, trained: list[list[str]]) -> None:
    store_grid = load_grid(write(grid={"methods": ["baseline", "pskd"]}))
    with open_database("r.db", create=True) as database:
        store(database, store_grid)
    run_grid(write(), "r.db")
    assert {look.row_name for look in looks()} == {"resnet18/pskd", "resnet18/byot"}


def test_equal_differences_of_two_seeds_separate_nothing(
    write: Write, trained: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors are whole images, so that two differences may be equal by chance: their p-value is no zero."""
    monkeypatch.setitem(MEANS, "pskd", 24.98)
    monkeypatch.setitem(SHIFT, "pskd", 0)
    run_grid(write(seeds=RULE | {"start": 2}), "r.db")
    first = looks()[0]
    assert (first.row_name, first.seeds, first.shared, first.separated) == ("resnet18/pskd", 2, 2, False)
    assert first.difference == pytest.approx(-0.02) and first.p == pytest.approx(0.064, abs=1e-3)


def test_breadth_and_seeds_by_rule_go_together(write: Write, trained: list[list[str]]) -> None:
    run_grid(write(order="breadth"), "r.db")
    assert trained[0][:3] == ["baseline/seed0", "pskd/seed0", "byot/seed0"]
    assert trained[1][:3] == ["baseline/seed3", "pskd/seed3", "byot/seed3"]
