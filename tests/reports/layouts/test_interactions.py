"""The gains of methods together, against sums written out by hand; and the shares of the loss."""

from __future__ import annotations

import math
from statistics import fmean, stdev

import pytest
from scipy import stats

from orchestrator.database import queries
from orchestrator.database.models import Epoch
from reports.layouts.interactions import MOMENTS, losses, moments
from reports.layouts.shipped import shipped
from reports.loading import load
from tests.reports.lookup import build, entry
from tests.reports.synthetic import ablation, configuration, make_database, trials


@pytest.fixture(scope="module", params=[1, 4])
def results(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("interactions") / "results.db"
    with make_database(path, lambda filler: filler.grid("g", {}, trials(ablation(range(request.param))))) as database:
        yield load(database)


def errors(results, *methods):
    """Top-1 errors by seed of the cell with these methods."""
    (cell,) = [cell for cell in results.cells if set(cell.methods) == set(methods)]
    return [trial.measurements[0, "main"].metrics["top1_error"] for trial in cell.trials]


def test_the_triple_is_compared_with_the_sum_of_single_gains(results):
    (table,) = build(results, ["interactions"])
    base, pskd, byot, dmfl = (errors(results, *methods) for methods in ((), ("pskd",), ("byot",), ("dmfl",)))
    triple = errors(results, "pskd", "byot", "dmfl")
    beyond = [
        (b - t) - ((b - one) + (b - two) + (b - three))
        for b, t, one, two, three in zip(base, triple, pskd, byot, dmfl, strict=True)
    ]
    cell = entry(table, "resnet18/pskd+byot+dmfl-beyond/top1")
    assert cell.value == pytest.approx(fmean(beyond), abs=1e-9)
    gain = entry(table, "resnet18/pskd+byot+dmfl/top1")
    assert gain.value == pytest.approx(fmean(base) - fmean(triple), abs=1e-9)
    if len(base) > 1:
        half = stats.t.isf(0.025, len(base) - 1) * stdev(beyond) / math.sqrt(len(base))
        assert cell.spread == pytest.approx(half)
        assert "95 % confidence interval" in table.caption
    else:
        variances = [
            weight**2 * stats.binom.var(10_000, error / 100) / 10_000**2 * 100**2
            for weight, (error,) in ((2, base), (1, triple), (1, pskd), (1, byot), (1, dmfl))
        ]
        assert cell.spread == pytest.approx(stats.norm.isf(0.025) * math.sqrt(sum(variances)))
        # One seed says nothing of how much the negative log-likelihood varies.
        assert entry(table, "resnet18/pskd/nll").spread is None
        assert "binomial noise" in table.caption


def test_pairs_are_compared_as_well(results):
    (table,) = build(results, ["interactions"])
    rows = [row.labels[0] for row in table.rows]
    assert rows[:3] == ["PS-KD", "BYOT", "DMFL"]
    assert [row for row in rows if row.endswith("beyond the sum")] == [
        f"{name}, beyond the sum" for name in ("PS-KD+BYOT", "PS-KD+DMFL", "DMFL+BYOT", "PS-KD+BYOT+DMFL")
    ]


def test_only_seeds_that_all_of_its_trials_share_count(tmp_path):
    def filling(filler):
        configs = [configuration(methods, seed=seed) for methods in ([], ["byot"], ["pskd"]) for seed in range(3)]
        configs += [configuration(["byot", "pskd"], seed=seed) for seed in (1, 2, 3)]
        filler.grid("g", {}, trials(configs))

    with make_database(tmp_path / "results.db", filling) as database:
        (table,) = build(load(database), ["interactions"])
    cell = entry(table, "resnet18/pskd+byot-beyond/top1")
    assert cell.n == 2
    assert {each.seed for each in cell.samples} == {1, 2}
    assert len(cell.samples) == 8


def test_nothing_is_said_without_a_baseline_or_a_combination(tmp_path):
    for place, methods in enumerate(([[], ["byot"]], [["byot"], ["pskd"], ["byot", "pskd"]])):
        configs = [configuration(each, seed=0) for each in methods]
        with make_database(
            tmp_path / f"{place}.db", lambda filler, configs=configs: filler.grid("g", {}, trials(configs))
        ) as database:
            assert build(load(database), ["interactions"]) == []


def test_shares_of_the_loss_add_up_at_every_moment(tmp_path):
    config = [configuration(["byot", "dmfl"], seed=0), configuration(["pskd"], seed=0)]
    with make_database(tmp_path / "r.db", lambda filler: filler.grid("g", {}, trials(config, epochs=9))) as database:
        results = load(database)
        with database.engine.connect() as connection:
            rows = {(row.trial_id, row.epoch): row.losses for row in queries.losses(connection, moments(results))}
    assert sorted(epoch for _, epoch in rows) == [0, 0, 2, 2, 4, 4, 6, 6, 8, 8]
    (table,) = losses(results, shipped("losses"), rows)
    # A loss of a single term has no shares.
    assert [row.labels for row in table.rows] == [
        ("DMFL+BYOT", "cross_entropy"),
        ("DMFL+BYOT", "byot/term"),
        ("DMFL+BYOT", "dmfl/term"),
    ]
    for place in range(len(MOMENTS)):
        assert sum(row.entries[place].value for row in table.rows) == pytest.approx(100)
    terms = rows[next(iter(rows))]
    assert table.rows[0].entries[0].value == pytest.approx(100 * terms["cross_entropy"] / sum(terms.values()))


def test_a_loss_that_was_not_finite_counts_as_nothing(tmp_path):
    def filling(filler):
        filler.grid("g", {}, trials([configuration(["byot"], seed=0)]))
        for row in filler.rows[Epoch]:
            row["losses"] = {"cross_entropy": 1.0, "byot/term": None}

    with make_database(tmp_path / "r.db", filling) as database:
        results = load(database)
        with database.engine.connect() as connection:
            rows = {(row.trial_id, row.epoch): row.losses for row in queries.losses(connection, moments(results))}
    (table,) = losses(results, shipped("losses"), rows)
    assert [row.entries[0].value for row in table.rows] == [100.0, 0.0]
