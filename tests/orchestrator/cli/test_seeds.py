"""`orchestrate seeds`: the spread seen, what seeds separate, which pairs are open and what closing them costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scipy import stats
from typer.testing import CliRunner

from orchestrator import load_grid, open_database
from orchestrator.cli import app
from orchestrator.grid import Trial
from orchestrator.statistics.power import seeds_needed, separable
from tests.orchestrator.seed_results import NOISE, finish, store

GRID = {
    "name": "three",
    "fixed": {"dataset": "cifar100", "epochs": 2},
    "grid": {"methods": ["baseline", "pskd", "byot"], "seed": [0, 1, 2, 3]},
}
MEANS = {"": 25.0, "pskd": 24.7, "byot": 20.0}


def error(trial: Trial) -> float:
    """Return an error whose noise differs between rows."""
    row, seed = "+".join(trial.config.methods), trial.config.seed
    return MEANS[row] + NOISE[seed + {"": 0, "pskd": 4, "byot": 8}[row]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "g.yaml").write_text(json.dumps(GRID))
    return tmp_path


def seeds(*options: str) -> list[dict[str, Any]]:
    done = CliRunner().invoke(app, ["seeds", "g.yaml", "--json", *options])
    assert done.exit_code == 0, done.output
    groups: list[dict[str, Any]] = json.loads(done.stdout)["groups"]
    return groups


def test_open_pairs_their_seeds_and_what_they_cost(folder: Path) -> None:
    grid = load_grid("g.yaml")
    with open_database("results.db", create=True) as database:
        store(database, grid)
        finish(database, grid.trials, error)
    (group,) = seeds()
    rows = {row: [error(trial) for trial in grid.trials if "+".join(trial.config.methods) == row] for row in MEANS}
    pairs = [("", "pskd"), ("", "byot"), ("pskd", "byot")]
    differences = [[a - b for a, b in zip(rows[one], rows[other], strict=True)] for one, other in pairs]
    spread = (sum(stats.tvar(each) for each in differences) / 3) ** 0.5
    assert group["spread"] == pytest.approx(spread) and group["source"] == "grid"
    # Of three rows, the best is told from another by 2.5 % of one side.
    assert group["level"] == 0.05
    assert group["separates"] == pytest.approx({str(n): separable(spread, n) for n in (3, 4, 5, 10)})
    assert (group["separated"], group["untested"]) == (2, 0)
    (pair,) = group["open"]
    assert (pair["first"], pair["second"], pair["n"]) == ("baseline", "pskd", 4)
    difference = sum(differences[0]) / 4
    assert pair["difference"] == pytest.approx(difference)
    assert pair["p"] == pytest.approx(stats.ttest_rel(rows[""], rows["pskd"]).pvalue)
    needed = seeds_needed(difference, spread)
    assert needed is not None and pair["needed"] == needed > 4
    assert pair["trials"] == group["closing"] == 2 * (needed - 4)
    # Each epoch took 2.6 s.
    assert pair["device_seconds"] == pytest.approx(pair["trials"] * 2 * 2.6)
    shown = CliRunner().invoke(app, ["seeds", "g.yaml"]).stdout
    assert f"{needed} seeds close it: {pair['trials']} more trials" in shown
    assert "pairs: 2 separated, 1 open\n" in shown


def test_without_results_the_noise_is_that_of_other_grids_or_of_the_test_set(folder: Path) -> None:
    (group,) = seeds()
    assert group["source"] == "binomial" and group["untested"] == 3
    assert group["spread"] == pytest.approx(2**0.5 * 100 * (0.2 * 0.8 / 10_000) ** 0.5)
    (other,) = seeds("--metric", "nll")
    assert (other["source"], other["spread"], other["separates"]) == ("none", None, {})
    assert "nothing tells how much" in CliRunner().invoke(app, ["seeds", "g.yaml", "--metric", "nll"]).stdout
    plan = CliRunner().invoke(app, ["plan", "g.yaml"]).stdout.splitlines()
    assert plan[-1].startswith("4 seeds separate the best of 3 rows by ") and "binomial noise" in plan[-1]
    # Another grid on the same data set has results; one on another set would tell nothing.
    grid = load_grid("g.yaml")
    with open_database("results.db", create=True) as database:
        store(database, grid)
        finish(database, grid.trials, error)
    (before,) = seeds()
    more = GRID | {"name": "more", "grid": {"methods": ["cskd", "tfkd"], "seed": [0, 1, 2]}}
    (folder / "g.yaml").write_text(json.dumps(more))
    (group,) = seeds()
    assert group["source"] == "database" and group["spread"] == pytest.approx(before["spread"])
    line = json.loads(CliRunner().invoke(app, ["plan", "g.yaml", "--json"]).stdout)["seeds"]
    assert line.startswith("3 seeds separate two rows by ") and "other grids of this database" in line
    (folder / "g.yaml").write_text(json.dumps(more | {"fixed": {"dataset": "cifar10", "epochs": 2}}))
    assert seeds()[0]["source"] == "binomial"


def test_an_unknown_metric_and_a_grid_without_pairs(folder: Path) -> None:
    done = CliRunner().invoke(app, ["seeds", "g.yaml", "--metric", "top2"])
    assert done.exit_code == 2 and "'top2'" in done.output and "top1" in done.output
    (folder / "g.yaml").write_text(json.dumps(GRID | {"grid": {"seed": [0, 1]}}))
    assert seeds() == [] and "no two rows" in CliRunner().invoke(app, ["seeds", "g.yaml"]).stdout
    assert CliRunner().invoke(app, ["plan", "g.yaml"]).exit_code == 0


def test_the_seeds_that_a_difference_needs(folder: Path) -> None:
    (group,) = seeds("--difference", "0.5", "--difference", "9")
    assert group["needs"] == {"0.5": seeds_needed(0.5, group["spread"]), "9.0": 3}
    shown = CliRunner().invoke(app, ["seeds", "g.yaml", "--difference", "0.5"]).stdout
    assert f"seeds that are needed: for 0.5 {group['needs']['0.5']}\n" in shown and "0.57 points" in shown


def test_groups_of_which_the_same_is_said_are_named_together(folder: Path) -> None:
    wide = {**GRID["grid"], "network": ["resnet18", "resnet34"]}
    (folder / "g.yaml").write_text(json.dumps(GRID | {"grid": wide}))
    shown = CliRunner().invoke(app, ["seeds", "g.yaml", "--metric", "top1", "--metric", "nll"]).stdout
    assert "resnet18, resnet34; top1: 3 rows in each, 4 seeds each; " in shown
    assert "\n\nresnet18, resnet34; nll: 3 rows in each" in shown


def test_a_grid_with_a_rule_says_where_its_pairs_stand(folder: Path) -> None:
    rule = {"most": 5, "against": "baseline"}
    (folder / "g.yaml").write_text(json.dumps(GRID | {"grid": {"methods": GRID["grid"]["methods"]}, "seeds": rule}))
    shown = CliRunner().invoke(app, ["seeds", "g.yaml"]).stdout
    assert "seeds: looks at 3, 5 seeds, 2 pairs in top1: 2 to decide\n" in shown
