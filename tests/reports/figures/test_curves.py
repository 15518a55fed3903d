"""Training curves: means and bands over seeds, single seeds, seeds that fail or come later, and what a caption says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest

from orchestrator.database import Database
from reports.figures import curves
from reports.figures.curves import Curve, curve, stride
from reports.figures.declared import Plot, Series, curves_of, declared, plots
from reports.figures.rendering import rendered
from reports.gathering import gather
from reports.loading import load
from reports.results import Results, Trial
from tests.reports.synthetic import ablation, configuration, make_database, trials

Row = tuple[int, float, float]


def series(*states: str) -> Series:
    return Series("line", (), tuple(Trial(id, f"k{id}", "t", id, state) for id, state in enumerate(states)), 0)


def rows(*errors: Sequence[float]) -> Mapping[int, list[Row]]:
    """Return rows of trials with these errors after their epochs, ten seconds each and a second more per trial."""
    return {
        trial: [(epoch, epoch * (10.0 + trial), error) for epoch, error in enumerate(values, 1)]
        for trial, values in enumerate(errors)
    }


def test_a_line_is_the_mean_of_its_seeds_with_their_deviation() -> None:
    made = curve(series("done", "done", "done"), rows([50, 40], [52, 43], [54, 46]), "epoch", "std")
    assert [point[:2] for point in made.mean] == [(1.0, 52.0), (2.0, 43.0)]
    assert [point[2] for point in made.mean] == [pytest.approx(stdev([50, 52, 54])), pytest.approx(3.0)]
    assert (made.counted, len(made.seeds), made.tails, made.lost) == (3, 3, (), ())
    half = curve(series("done", "done", "done"), rows([50], [52], [54]), "epoch", "ci95").mean[0][2]
    assert half == pytest.approx(4.303 * 2 / 3**0.5, rel=1e-3)
    assert curve(series("done", "done"), rows([50], [52]), "epoch", "none").mean[0][2] is None


def test_over_seconds_an_epoch_stands_at_the_mean_of_its_times() -> None:
    made = curve(series("done", "done"), rows([50, 40], [52, 43]), "seconds", "std")
    assert [point[0] for point in made.mean] == [10.5, 21.0]


def test_a_failed_seed_is_in_no_mean_and_a_slower_one_ends_it() -> None:
    made = curve(series("done", "running", "diverged"), rows([50, 40, 30], [52, 42], [90]), "epoch", "std")
    assert [point[:2] for point in made.mean] == [(1.0, 51.0), (2.0, 41.0)]
    assert made.tails == (((2.0, 40.0), (3.0, 30.0)),) and made.lost == (((1.0, 90.0),),)
    assert made.counted == 2


def test_an_infinite_value_is_a_gap_in_the_mean() -> None:
    made = curve(series("done", "done"), rows([1.0, float("inf"), 3.0], [1.0, 2.0, 3.0]), "epoch", "std")
    assert [point[0] for point in made.mean] == [1.0, 3.0]


def test_one_seed_is_a_line_without_a_band() -> None:
    assert curve(series("done"), rows([50, 40]), "epoch", "std") == Curve(
        ((1.0, 50.0, None), (2.0, 40.0, None)), (), (), (), 1
    )


def drawn(database: Database, plot: Plot) -> Any:
    with database.reading() as connection:
        return rendered(plot, curves.read(connection, plot))


def table1(database: Database) -> tuple[Results, Plot]:
    results = load(database, ["table1"])
    (plot,) = curves_of(results, results.grids[0])
    return results, plot


def test_every_report_has_curves_of_a_grid_a_panel_per_network_and_a_line_per_cell(database: Database) -> None:
    _, plot = table1(database)
    assert [panel.title for panel in plot.panels] == ["ResNet-18", "ResNet-50"]
    assert [len(panel.series) for panel in plot.panels] == [8, 8]
    with database.reading() as connection:
        by_trial = curves.read(connection, plot)
    # Of 32 trials two wait and one failed before its first epoch.
    assert len(by_trial) == 29
    drawing = drawn(database, plot)
    assert (drawing.name, drawing.title) == ("curves-table1", "Training curves of table1")
    assert "Mean over up to 3 seeds; band: ± standard deviation." in drawing.caption
    assert "Fewer seeds: baseline (2 of 3, 1 failed)" in drawing.caption
    lines = [line for line in drawing.figure.axes[0].lines if line.get_linewidth() == 1.1]
    means = {len(line.get_xdata()) for line in lines}
    assert len(lines) == 8 and means == {6, 3}
    place = next(index for index, one in enumerate(plot.panels[0].series) if all(t.state == "done" for t in one.trials))
    errors = [row[2] for trial in plot.panels[0].series[place].trials for row in by_trial[trial.id] if row[0] == 5]
    assert lines[place].get_ydata()[4] == pytest.approx(fmean(errors))


def test_a_grid_of_many_lines_gets_facets_and_says_so_when_it_has_too_many(tmp_path: Path) -> None:
    rates = (0.01, 0.03, 0.1, 0.3)
    configs = [one for rate in rates for one in ablation((0,), learning_rate=rate)]
    many = [configuration([], learning_rate=0.001 * number) for number in range(1, 120)]

    def fill(filler: Any) -> None:
        filler.grid("rates", {}, trials(configs, epochs=2))
        filler.grid("many", {}, trials(many, epochs=1))

    with make_database(tmp_path / "r.db", fill) as database:
        results = load(database)
        (plot,) = curves_of(results, results.grids[0])
        assert [panel.title for panel in plot.panels] == [f"ResNet-18, learning rate {rate:g}" for rate in rates]
        assert [len(panel.series) for panel in plot.panels] == [8] * 4
        assert curves_of(results, results.grids[1]) == []
        (overview, *_) = gather(database).tables
        assert overview.caption == (
            "Trials of each grid by state. No training curves of many: their figure makes 15 panels of at most 8 "
            "lines, and a page has room for 12: keep fewer with where, average over a field with over, or declare "
            "several figures."
        )


def test_declared_curves_may_be_of_any_metric_and_over_seconds(database: Database) -> None:
    results = load(database, ["table1"])
    written = {"name": "nll", "x": "seconds", "y": "nll", "panels": "network", "lines": "methods", "seeds": True}
    (plot,) = plots(results, declared({**written, "where": {"network": "resnet18"}}), ["table1"])
    with database.reading() as connection:
        by_trial = curves.read(connection, plot)
    trial = results.cells[1].done[0]
    best = trial.measurements[0, "main"]
    epoch, seconds, value = by_trial[trial.id][best.epoch]
    assert epoch == best.epoch + 1 and value == best.metrics["nll"]
    assert trial.training is not None and seconds == pytest.approx(trial.training.value)
    drawing = drawn(database, plot)
    axes = drawing.figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Training time (s)", "NLL")
    assert "Thin: single seeds." in drawing.caption


def test_long_trainings_are_thinned_out_but_keep_the_ends_of_means(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stride({1: 9, 2: 299_999}) == 11 and stride({}) == 1
    _, plot = table1(database)
    monkeypatch.setattr(curves, "_POINTS", 40)
    with database.reading() as connection:
        by_trial = curves.read(connection, plot)
    for panel in plot.panels:
        for one in panel.series:
            kept = [trial for trial in one.trials if trial.id in by_trial and trial.state != "diverged"]
            end = min((trial.last_epoch or 0 for trial in kept), default=0) + 1
            assert all(end in [epoch for epoch, _, _ in by_trial[trial.id]] for trial in kept)
    assert 29 < sum(map(len, by_trial.values())) <= 80


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    def fill(filler: Any) -> None:
        filler.grid("one", {}, trials([configuration([], seed=0)], epochs=3))
        filler.grid("short", {}, trials([configuration([], seed=seed, width=8) for seed in (0, 1)], epochs=1))
        lost = [configuration([], seed=seed, width=16) for seed in (0, 1)]
        filler.grid("lost", {}, trials(lost, epochs=0, state="failed", error_class="code"))

    with make_database(tmp_path_factory.mktemp("small") / "r.db", fill) as database:
        yield database


def test_one_cell_and_one_epoch_are_figures_and_nothing_is_none(small: Database) -> None:
    results = load(small)
    one, short, lost = (drawn(small, curves_of(results, grid)[0]) for grid in results.grids)
    assert len(one.figure.axes[0].lines) == 1 and "Mean over" not in one.caption
    assert one.figure.texts == []
    bars = short.figure.axes[0].containers
    assert len(bars) == 1 and "Mean over 2 seeds" in short.caption
    assert lost is None
