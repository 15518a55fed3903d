"""Results as they are read from the database, against a slow reading of every row; on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean, median

import pytest
from sqlalchemy import event, select, update

from orchestrator.database import open_database
from orchestrator.database.models import Attempt, Epoch, Evaluation, Trial
from reports import ReportError
from reports.loading import load
from reports.results import Selection
from tests.orchestrator.databases.postgresql_server import Missing, postgresql_server
from tests.reports.synthetic import Filler, ablation, configuration, fill, make_database, trials


def every_row(database):
    """Accepted epochs and evaluations by trial key, as plain as can be."""
    epochs, evaluations = defaultdict(dict), defaultdict(list)
    with database.engine.connect() as connection:
        for key, row in _pairs(connection, select(Trial.key, Epoch).join(Epoch, Epoch.trial_id == Trial.id)):
            if row.accepted:
                epochs[key][row.epoch] = row
        joined = select(Trial.key, Epoch.epoch, Epoch.accepted, Evaluation)
        joined = joined.join(Epoch, Epoch.trial_id == Trial.id).join(Evaluation, Evaluation.epoch_id == Epoch.id)
        for row in connection.execute(joined):
            if row.accepted:
                evaluations[row.key].append(row)
    return epochs, evaluations


def _pairs(connection, statement):
    return [(row.key, row) for row in connection.execute(statement)]


def trials_of(results):
    return [trial for cell in results.cells for trial in cell.trials]


def expected_epoch(rows, rule, network):
    """The selected epochs by going through everything."""
    epochs = sorted({row.epoch for row in rows})
    if rule == "last":
        return epochs[-1:]
    if rule == "mean_last_3":
        return epochs[-3:]
    split = "test" if rule == "best_test" else "validation"
    main = [r for r in rows if r.network == network and r.classifier == "main" and r.split == split]
    return [min(main, key=lambda row: (row.top1_error, row.epoch)).epoch] if main else []


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def both(request, tmp_path_factory):
    """The same filling on both kinds of database."""
    if request.param == "sqlite":
        with make_database(tmp_path_factory.mktemp("both") / "results.db") as database:
            yield database
        return
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    try:
        with postgresql_server() as server, open_database(server.new_database(), create=True) as database:
            with database.engine.begin() as connection:
                filler = Filler(connection)
                fill(filler)
                filler.write()
            yield database
    except Missing as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("rule", ["best_test", "last", "mean_last_3", "best_val"])
def test_the_selected_metrics_are_those_of_every_row(both, rule):
    _, evaluations = every_row(both)
    seen = 0
    for trial in trials_of(load(both, selection=rule)):
        rows = evaluations[trial.key]
        if trial.state != "done":
            assert not trial.measurements
            continue
        expected = {}
        for network in {row.network for row in rows}:
            chosen = expected_epoch(rows, rule, network)
            for classifier in {row.classifier for row in rows if row.network == network} if chosen else ():
                of_trial = [
                    row
                    for row in rows
                    if (row.network, row.classifier, row.split) == (network, classifier, "test") and row.epoch in chosen
                ]
                expected[network, classifier] = (chosen[-1], of_trial)
        assert trial.measurements.keys() == expected.keys()
        for place, (epoch, of_trial) in expected.items():
            measurement = trial.measurements[place]
            assert (measurement.epoch, measurement.images) == (epoch, of_trial[0].images)
            for name in ("top1_error", "top5_error", "nll", "ece", "aurc"):
                assert measurement.metrics[name] == pytest.approx(
                    fmean(getattr(row, name) for row in of_trial), rel=1e-12
                )
            seen += 1
    assert seen > 100 or rule == "best_val"


def test_times_add_up_active_seconds_and_prefer_the_timing_pass(both):
    epochs, _ = every_row(both)
    passes = defaultdict(list)
    with both.engine.connect() as connection:
        timed = select(Trial.key, Epoch).join(Epoch, Epoch.trial_id == Trial.id).join(Attempt)
        for key, row in _pairs(connection, timed.where(Attempt.purpose == "time")):
            passes[key].append(row.train_seconds + row.eval_seconds + row.data_seconds)
    kinds = set()
    for trial in trials_of(load(both)):
        rows = epochs[trial.key]
        if trial.state != "done":
            continue
        seconds = {e: row.train_seconds + row.eval_seconds + row.data_seconds for e, row in rows.items()}
        selected = trial.measurements[0, "main"].epoch
        assert trial.training.value == pytest.approx(sum(seconds[e] for e in range(selected + 1)), rel=1e-12)
        alone = {e: row.timing_quality == "exclusive" for e, row in rows.items()}
        assert trial.training.exclusive == all(alone[e] for e in range(selected + 1))
        steady = [seconds[e] for e in rows if e > 0 and alone[e]]
        if trial.key in passes:
            kinds.add("pass")
            assert trial.epoch == (pytest.approx(median(passes[trial.key])), True, True)
        elif steady:
            kinds.add("exclusive")
            assert trial.epoch == (pytest.approx(fmean(steady)), True, False)
        else:
            kinds.add("shared")
            assert trial.epoch == (pytest.approx(fmean(seconds.values())), False, False)
    assert kinds == {"pass", "exclusive", "shared"}


def test_trials_that_differ_in_the_seed_alone_are_one_cell(database):
    results = load(database)
    configs = [tuple(sorted((k, repr(v)) for k, v in cell.config.items())) for cell in results.cells]
    assert len(set(configs)) == len(configs)
    for cell in results.cells:
        assert "seed" not in cell.config
        assert [trial.seed for trial in cell.trials] == sorted({trial.seed for trial in cell.trials})
    # The first row of Table 3 is the last of Table 1: one cell of two grids.
    shared = [cell for cell in results.cells if {"table1", "table3"} <= set(cell.grids)]
    assert [set(cell.methods) for cell in shared] == [{"pskd", "byot", "dmfl"}]


def test_a_configuration_from_before_a_field_shares_the_cell_of_one_that_leaves_it_out(tmp_path):
    with open_database(tmp_path / "old.db", create=True) as database, database.engine.begin() as connection:
        filler = Filler(connection)
        filler.grid("g", {}, [(f"t{seed}", configuration(seed=seed), {}) for seed in range(2)])
        filler.write()
        old = connection.execute(select(Trial.id, Trial.config)).first()
        config = {name: value for name, value in old.config.items() if name not in ("optimizer", "schedule", "warmup")}
        connection.execute(update(Trial).where(Trial.id == old.id).values(config=config))
    with open_database(tmp_path / "old.db", readonly=True) as database:
        (cell,) = load(database).cells
    assert [trial.seed for trial in cell.trials] == [0, 1]
    assert (cell.config["optimizer"], cell.config["schedule"], cell.config["warmup"]) == ("sgd", "steps", 0.0)


def test_states_tell_divergence_from_other_failures(database):
    states = {trial.name: trial.state for trial in trials_of(load(database, ["table1"]))}
    assert sorted(set(states.values())) == ["diverged", "done", "failed", "pending", "running"]
    counted = load(database, ["table1"]).grids[0].states
    assert sum(counted.values()) == len(states) == 32


def test_validation_decides_where_it_is_asked_to(tmp_path):
    def filling(filler):
        filler.grid("small", {}, trials([configuration(seed=0)]))
        main = next(row for row in filler.rows[Evaluation] if row["epoch_id"] == 2)
        others = [dict(row, split="validation", top1_error=50.0 - row["epoch_id"]) for row in filler.rows[Evaluation]]
        others[1]["top1_error"] = 1.0
        filler.rows[Evaluation] += [dict(row, id=100 + place) for place, row in enumerate(others)]
        assert main["epoch_id"] == 2

    with make_database(tmp_path / "results.db", filling) as database:
        (trial,) = trials_of(load(database, selection="best_val"))
        assert trial.measurements[0, "main"].epoch == 1
        (trial,) = trials_of(load(database, selection="best_test"))
        assert trial.measurements[0, "main"].epoch == 4


def test_a_resumed_epoch_counts_once(tmp_path):
    def filling(filler):
        filler.grid("small", {}, trials([configuration(seed=0)]))
        # Epoch 4 was trained before, better, by an attempt that was lost: it does not count.
        filler.rows[Attempt].append(dict(filler.rows[Attempt][0], id=2, number=2, outcome="lost"))
        old = dict(filler.rows[Epoch][4], id=99, attempt_id=2, accepted=None, train_seconds=1e6)
        filler.rows[Epoch].append(old)
        filler.rows[Evaluation].append(dict(filler.rows[Evaluation][4], id=999, epoch_id=99, top1_error=0.5))

    with make_database(tmp_path / "results.db", filling) as database:
        (trial,) = trials_of(load(database))
        assert trial.measurements[0, "main"].metrics["top1_error"] > 10
        assert trial.training.value < 1000


def test_an_infinite_metric_stays_what_it_is(tmp_path):
    def filling(filler):
        filler.grid("small", {}, trials([configuration(seed=0)]))
        for row in filler.rows[Evaluation]:
            row["nll"] = float("inf")

    with make_database(tmp_path / "results.db", filling) as database:
        (trial,) = trials_of(load(database))
        assert trial.measurements[0, "main"].metrics["nll"] == float("inf")


@pytest.mark.parametrize("text", ["best", "mean_last_0", "mean_last_", "mean_last_-1", "", "BEST_TEST"])
def test_unknown_rules_are_refused_with_what_is_allowed(text):
    with pytest.raises(ReportError, match=r"best_test, best_val, last or mean_last_K"):
        Selection.parse(text)


def test_an_unknown_grid_is_refused_with_the_nearest_name(database):
    with pytest.raises(ReportError, match="no grid 'tabel1'; did you mean table1"):
        load(database, ["tabel1"])


def test_the_number_of_questions_does_not_grow_with_the_trials(tmp_path):
    counts = []
    for seeds in (1, 4):
        with make_database(
            tmp_path / f"{seeds}.db", lambda filler, seeds=seeds: filler.grid("g", {}, trials(ablation(range(seeds))))
        ) as database:
            asked = []
            event.listen(database.engine, "before_cursor_execute", lambda *call, asked=asked: asked.append(call[2]))
            load(database)
            counts.append(len(asked))
    assert counts[0] == counts[1] < 15
