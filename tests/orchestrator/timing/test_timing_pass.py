"""`orchestrate time` through a real Ray: what it measures, where it is kept, and what it leaves alone."""

from __future__ import annotations

from statistics import median

import pytest

from tests.orchestrator.runs import Workplace


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_timing_pass_stands_beside_the_accuracy_runs_and_is_what_table_1_prints(workplace: Workplace):
    workplace.keep_to_one_processor()
    methods = [{}, {"pskd": None}]
    common = {"epochs": 4, "fixed": {"heads": "none"}}
    report = {"tables": [1], "figures": []}
    grid = workplace.grid("timed", {"methods": methods, "seed": [0]}, report=report, **common)
    code, output = workplace.run("run", grid, "--no-dashboard")
    assert code == 0, output
    accuracy = workplace.results()

    # The same trials, others of another seed, and a configuration that never ran.
    axes = [{"methods": methods, "seed": [0, 1]}, {"methods": [{"label_smoothing": None}], "seed": [0]}]
    more = workplace.grid("more", axes, report={"tables": [], "figures": []}, **common)
    code, output = workplace.run("time", more, "--warm-up", "1", "--epochs", "2")
    assert code == 0, output
    assert "timing 3 configurations, 1 + 2 epochs each, one at a time" in output
    # One seed of each method, alone one after the other; warm-up epochs are not recorded, none counts as trained.
    query = """SELECT n.name, e.epoch, e.accepted, e.train_seconds + e.eval_seconds + e.data_seconds, e.timing_quality
               FROM attempts a JOIN epochs e ON e.attempt_id = a.id JOIN grid_trials n ON n.trial_id = a.trial_id
               JOIN grids g ON g.id = n.grid_id AND g.name = 'more'
               WHERE a.purpose = 'time' ORDER BY n.position, e.epoch"""
    rows = workplace.ask(query)
    only_timed = "resnet18/label_smoothing/seed0"
    names = ["resnet18/baseline/seed0", "resnet18/pskd/seed0", only_timed]
    assert [row[:3] for row in rows] == [(name, epoch, None) for name in names for epoch in (1, 2)]
    spans = workplace.ask("SELECT started, ended FROM attempts WHERE purpose = 'time' ORDER BY started")
    assert spans[0][1] <= spans[1][0] and spans[1][1] <= spans[2][0]
    assert workplace.results() == accuracy
    states = workplace.states()
    pending = {"resnet18/baseline/seed1", "resnet18/pskd/seed1", only_timed}
    assert states == {name: "pending" if name in pending else "done" for name in states} and pending < states.keys()
    code, output = workplace.run("plan", more)
    assert "never ran" in output and "3 trials to run" in output

    code, output = workplace.run("report", "--format", "md")
    assert code == 0, output
    lines = (workplace.folder / "report/table1.md").read_text().splitlines()
    for name, label in zip(names[:2], ("baseline", "PS-KD"), strict=True):
        (line,) = [line for line in lines if f" {label} |" in line]
        printed = line.split("|")[-2].strip().split("\\")[0].split()[0].strip("*")
        # On a busy machine, epochs of the pass that were measured in company do not count beside others. Where all of
        # them were, the epochs of the accuracy run that were measured alone stand in their place, if it has any.
        timed = [(seconds, quality) for row, _, _, seconds, quality in rows if row == name]
        if quiet := [seconds for seconds, quality in timed if quality == "exclusive"]:
            expected = median(quiet)
        else:
            ((trained,),) = workplace.ask(
                """SELECT avg(e.train_seconds + e.eval_seconds + e.data_seconds) FROM epochs e
                   JOIN grid_trials n ON n.trial_id = e.trial_id JOIN grids g ON g.id = n.grid_id AND g.name = 'timed'
                   WHERE n.name = ? AND e.accepted = 1 AND e.epoch > 0 AND e.timing_quality = 'exclusive'""",
                name,
            )
            expected = median(seconds for seconds, _ in timed) if trained is None else trained
        assert float(printed) == pytest.approx(expected, abs=0.006)
