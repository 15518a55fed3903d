"""Figures that a grid or a file declares: their points and panels, what a caption says, and how they are refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.database import Database
from orchestrator.grid import GridError, load_grid
from orchestrator.tables.figures import MOST_LINES, FigureSpec, facets, parse_figure
from reports import ReportError, explain
from reports.figures.declared import Plot
from reports.figures.drawing import Drawing
from reports.figures.rendering import rendered
from reports.gathering import gather, plotted
from tests.reports.synthetic import configuration, make_database, trials

RATES = (0.01, 0.03, 0.1)
METHODS: tuple[list[str], ...] = ([], ["pskd"], ["byot"])
BY_RATE: dict[str, Any] = {"name": "mine", "x": "learning_rate", "y": "top1", "lines": "methods", "panels": "network"}
GRID = """name: rates
fixed: {dataset: digits, width: 8, epochs: 2}
grid:
  network: [resnet18, resnet34]
  methods: [baseline, pskd]
  learning_rate: [0.01, 0.1]
  seed: [0, 1]
report:
  figures:
"""


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Methods and learning rates on two networks, with a failed seed, a cell without a number, and one left out."""
    configs = [
        configuration(methods, network=network, learning_rate=rate, seed=seed)
        for network in ("resnet18", "resnet50")
        for methods in METHODS
        for rate in RATES
        for seed in range(3)
        if (network, methods, rate) != ("resnet18", ["byot"], 0.1)
    ]
    listed = trials(configs)
    for name, _, fate in listed:
        if name in ("resnet18/pskd/cifar100/learning_rate0.01/seed0", "resnet18/pskd/cifar100/learning_rate0.01/seed1"):
            fate.update(state="failed", error_class="code", epochs=1)
        if name.startswith("resnet50/baseline/cifar100/learning_rate0.03"):
            fate.update(state="failed", error_class="diverged", epochs=1)
    path = tmp_path_factory.mktemp("figures") / "results.db"
    with make_database(path, lambda filler: filler.grid("rates", {}, listed)) as opened:
        yield opened


def plot(database: Database, **written: Any) -> Plot:
    (one,) = plotted(database, gather(database), figures=[{**BY_RATE, **written}])
    return one


def drawing(database: Database, **written: Any) -> Drawing:
    drawn = rendered(plot(database, **written), {})
    assert drawn is not None
    return drawn


def test_zero_names_the_reference_and_no_row_without_results(tmp_path: Path) -> None:
    fates: dict[str, dict[str, Any]] = {
        "pskd": {},
        "byot": {"state": "running", "epochs": 0},
        "dmfl": {"state": "pending"},
    }
    fates["cskd"] = {"state": "failed", "error_class": "code", "epochs": 0}
    listed = []
    for name, fate in {"": {}, **fates}.items():
        configs = [configuration([name] if name else [], learning_rate=rate, seed=0) for rate in RATES]
        listed += trials(configs, **fate)
    with make_database(tmp_path / "r.db", lambda filler: filler.grid("rates", {}, listed)) as opened:
        caption = drawing(opened, y={"top1": {"minus": "baseline"}}, panels=None).caption
    assert "Zero: baseline." in caption and "BYOT at 0.01 (" in caption


def test_a_point_is_the_mean_of_its_seeds_where_its_panel_and_line_have_it(database: Database) -> None:
    made = plot(database)
    assert [panel.title for panel in made.panels] == ["ResNet-18", "ResNet-50"]
    assert [one.label for one in made.panels[0].series] == ["baseline", "PS-KD", "BYOT"]
    point = made.panels[1].series[1].points[2]
    assert (point.key, point.label, point.place, point.y.n) == ("resnet50/pskd/0.1", "0.1", 0.1, 3)
    values = [sample.value for sample in point.y.samples]
    assert (point.y.value, point.y.spread) == (pytest.approx(fmean(values)), pytest.approx(stdev(values)))
    axes = drawing(database).figure.axes
    assert [one.get_xscale() for one in axes] == ["log", "log"]
    assert [label.get_text() for label in axes[0].get_xticklabels()] == ["0.01", "0.03", "0.1"]
    assert {one.get_ylim() for one in axes} == {axes[0].get_ylim()}


def test_the_caption_says_what_is_not_there(database: Database) -> None:
    caption = drawing(database).caption
    assert "Without a number: ResNet-50, baseline at 0.03 (diverged)." in caption
    assert "No trial: ResNet-18, BYOT at 0.1." in caption
    assert "Fewer seeds: ResNet-18, PS-KD at 0.01 (1 of 3)." in caption
    assert "Mean over 1 to 3 seeds; bands: ± standard deviation." in caption and "(best_test)" in caption
    other = drawing(database, selection="last", band="ci95", seeds=True).caption
    assert "Selection: the last epoch (last)." in other and "95 % confidence interval" in other and "Thin" in other


def test_a_line_has_a_gap_where_its_trials_have_no_number(database: Database) -> None:
    lines = [line for line in drawing(database).figure.axes[1].lines if line.get_linestyle() == "-"]
    baseline = [line for line in lines if line.get_linewidth() == 1.2]
    assert [list(line.get_xdata()) for line in baseline] == [[0.01], [0.1]]


def test_words_are_categories_and_have_bars_beside_one_another(database: Database) -> None:
    written = {"x": "methods", "lines": "learning_rate", "order": {"methods": ["byot", "baseline"]}}
    made = plot(database, **written, names={"pskd": "Ours"})
    assert made.ticks == ("BYOT", "baseline", "Ours")
    assert [one.label for one in made.panels[0].series] == [f"learning rate {rate:g}" for rate in RATES]
    drawn = drawing(database, **written, width="column")
    assert "bars: ± standard deviation" in drawn.caption
    assert drawn.figure.get_size_inches()[0] == 3.35
    marks = [
        line
        for line in drawn.figure.axes[0].lines
        if line.get_marker() in ("o", "s", "^") and len(line.get_xdata()) == 1
    ]
    places = [float(line.get_xdata()[0]) for line in marks]
    assert len(set(places)) == len(places) == 8


def test_differences_have_a_zero_line_and_no_line_of_their_own(database: Database) -> None:
    drawn = drawing(database, y={"top1": {"minus": "baseline"}}, where={"network": "resnet18"}, panels=None)
    assert "Zero: baseline." in drawn.caption
    assert [text.get_text() for text in drawn.figure.texts] == ["PS-KD", "BYOT"]
    low, high = drawn.figure.axes[0].get_ylim()
    assert low < 0 < high


def test_trials_without_the_field_are_level_lines_and_a_default_is_a_point(tmp_path: Path) -> None:
    methods: list[Any] = [{}, {"pskd": {}}, {"pskd": {"alpha": 0.4}}]
    configs = [configuration(one, seed=seed) for one in methods for seed in (0, 1)]
    with make_database(tmp_path / "r.db", lambda filler: filler.grid("a", {}, trials(configs))) as database:
        made = plot(database, x="methods.pskd.alpha", panels=None)
        drawn = rendered(made, {})
    places = {one.label: [point.place for point in one.points] for one in made.panels[0].series}
    # 0.8 is the method's default, which a configuration leaves out.
    assert places == {"baseline": [None], "PS-KD": [0.4, 0.8]}
    assert drawn is not None and "Level lines: without PS-KD alpha." in drawn.caption


def test_a_measured_x_in_a_narrow_figure_has_a_legend_of_lines_and_points(database: Database) -> None:
    written = {"x": "epoch_time", "lines": "network", "points": "methods", "panels": None, "front": True}
    drawn = drawing(database, **written, where={"learning_rate": 0.1}, width="column")
    texts = [text.get_text() for text in drawn.figure.texts]
    assert texts == ["ResNet-18", "ResNet-50", "baseline", "PS-KD", "BYOT", "± s.d. over seeds", "Pareto front"]
    assert drawn.figure.axes[0].get_xlabel() == "Time per epoch (s)" and not drawn.figure.axes[0].texts


def test_varying_fields_need_a_place_or_the_word_for_all_of_them(database: Database) -> None:
    with pytest.raises(ReportError, match=r"figure mine: x: methods varies .* put it into x, lines or panels"):
        plot(database, lines=None)
    made = plot(database, lines="varying", panels=None)
    assert [one.label for one in made.panels[0].series][:2] == ["baseline, ResNet-18", "PS-KD, ResNet-18"]


def figure(**written: Any) -> FigureSpec:
    spec, problems = parse_figure({**BY_RATE, **written})
    assert spec is not None, problems
    return spec


def test_lines_that_cannot_be_told_apart_become_facets() -> None:
    two = figure(lines=["methods", "batch_size"])
    groups = [("resnet18", method, size) for method in "abcde" for size in (1, 2)]
    dealt = facets(two, groups)
    assert [(facet.title, len(facet.lines)) for facet in dealt] == [
        ((("batch_size", 1),), 5),
        ((("batch_size", 2),), 5),
    ]
    one = facets(figure(), [("resnet18", number) for number in range(2 * MOST_LINES + 1)])
    assert [(facet.part, len(facet.lines)) for facet in one] == [((1, 3), 6), ((2, 3), 6), ((3, 3), 5)]
    assert [line for facet in one for line in facet.lines] == [(number,) for number in range(2 * MOST_LINES + 1)]
    (whole,) = facets(figure(), [("resnet18", number) for number in range(MOST_LINES)])
    assert (whole.part, len(whole.lines)) == (None, MOST_LINES)


def problems(folder: Path, figures: str, **files: str) -> list[str]:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    (folder / "g.yaml").write_text(GRID + figures)
    with pytest.raises(GridError) as raised:
        load_grid(folder / "g.yaml")
    return [str(problem).replace(f"{folder}/", "").removeprefix("g.yaml:") for problem in raised.value.problems]


def test_a_plan_says_all_problems_of_all_figures_with_their_lines(tmp_path: Path) -> None:
    listed = problems(
        tmp_path,
        "    - {name: a, x: learning_rte, y: top1, lines: methods, panels: network}\n"
        "    - {name: b, x: learning_rate, y: topp1, line: methods}\n"
        "    - {name: c, x: epoch_time, y: top1, front: maybe}\n"
        "    - {name: a b, x: epoch, y: train_time, band: sd}\n"
        "    - {name: figure2, x: learning_rate, y: {top1: {digit: 2}}, lines: network, panels: methods}\n"
        "    - mine.yaml\n"
        "    - 3\n",
        mine="x: learning_rate\ny: top1\nlines: methods\nwidth: page\n",
    )
    beginnings = [
        "10: report.figures[0].x: unknown field or metric 'learning_rte'; did you mean 'learning_rate'?",
        "11: report.figures[1].y: unknown metric 'topp1'; did you mean 'top1'?",
        "11: report.figures[1].line: unknown key 'line'; did you mean 'lines'?",
        "12: report.figures[2].front: 'maybe' is neither true nor false",
        "13: report.figures[3].name: 'a b' cannot name a file",
        "13: report.figures[3].band: unknown value 'sd'; did you mean 'std'?",
        "14: report.figures[4].y.top1.digit: unknown option 'digit'; did you mean 'digits'?",
        "mine.yaml:4: width: unknown value 'page'",
        "16: report.figures: 3 is not one of them (allowed: 2, a file such as my_figure.yaml, or a figure written out)",
    ]
    for beginning in beginnings:
        assert any(line.startswith(beginning) for line in listed), (beginning, listed)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            "{name: a, x: learning_rate, y: top1, lines: methods}",
            "10: report.figures[0].x: network varies (resnet18, resnet34) and has no place: put it into x, lines or "
            "panels; or keep one value with where: {network: resnet18}; or average it with over: [seed, network]",
        ),
        (
            "{name: a, x: epoch, y: top1, lines: [methods, learning_rate]}",
            "10: report.figures[0].lines: network varies (resnet18, resnet34) and has no place: put it into lines or "
            "panels; or keep one value with where: {network: resnet18}; or average it with over: [seed, network]",
        ),
        (
            "{name: a, x: learning_rate, y: top1, lines: methods, where: {network: resnet50}}",
            "10: report.figures[0].where.network: no trial has 'resnet50'; did you mean 'resnet34'? (there are: "
            "resnet18, resnet34)",
        ),
        (
            "{name: a, x: learning_rate, y: {top1: {minus: baselin}}, lines: methods, panels: network}",
            "10: report.figures[0].y.top1.minus: nothing here is 'baselin'; did you mean 'baseline'? (there are: "
            "resnet18, resnet34, pskd, baseline, 0.01, 0.1)",
        ),
        (
            "{name: a, x: learning_rate, y: top1, lines: methods, panels: network, selection: best_val}",
            "10: report.figures[0].selection: best_val chooses the epoch by validation images, and 16 trials hold out "
            "none; add validation: 5000, or so, to `fixed`",
        ),
        (
            "{name: a, x: learning_rate, y: top1, lines: [methods, network], panels: network}",
            "10: report.figures[0].panels: network has two places; leave one out",
        ),
        (
            "{name: a, x: epoch_time, y: top1, lines: network}",
            "10: report.figures[0].points: is missing: what is a point, where x is epoch_time? a field, or a list of "
            "them",
        ),
    ],
)
def test_what_a_figure_leaves_open_is_a_problem_of_the_plan(tmp_path: Path, written: str, message: str) -> None:
    assert problems(tmp_path, f"    - {written}\n") == [message]


def test_too_many_panels_are_refused_with_ways_out(tmp_path: Path) -> None:
    rates = ", ".join(f"{number / 1000:g}" for number in range(1, 15))
    text = (
        GRID.replace("[0.01, 0.1]", f"[{rates}]")
        + "    - {name: a, x: methods, y: top1, panels: [network, learning_rate]}\n"
    )
    (tmp_path / "g.yaml").write_text(text)
    with pytest.raises(
        GridError, match=r"panels: makes 28 panels of at most 8 lines, and a page has room for 12: keep"
    ):
        load_grid(tmp_path / "g.yaml")


def test_a_file_draws_a_figure_of_a_database_that_is_there(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("x: learning_rate\ny: top1\nlines: methods\npanels: network\n")
    options = ["--db", str(database.path), "--figure", str(path)]
    done = CliRunner().invoke(app, ["report", *options, "--format", "md", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    names = {each.name for each in (tmp_path / "out").iterdir()}
    assert {"mine.pdf", "mine.svg", "mine.png", "curves-rates.pdf"} <= names
    explained = CliRunner().invoke(app, ["explain", *options, "mine:resnet50/pskd/0.1/top1"])
    assert explained.exit_code == 0 and "3 of 3 seeds" in explained.output and "seed 2, epoch 5" in explained.output
    path.write_text("x: learning_rate\ny: topp1\n")
    wrong = CliRunner().invoke(app, ["report", *options, "--out", str(tmp_path / "out")])
    assert wrong.exit_code == 2 and "y: unknown metric 'topp1'; did you mean 'top1'?" in wrong.output


def test_a_number_of_a_figure_is_explained_and_another_is_unknown(database: Database) -> None:
    explanation = explain(database, "mine:resnet18/pskd/0.01/top1", figures=[BY_RATE])
    assert "1 of 3 seeds" in explanation and "no value, failed" in explanation
    with pytest.raises(ReportError, match="mine"):
        explain(database, "mine:resnet18/pskd/0.01/top2", figures=[BY_RATE])


def test_a_figure_of_an_empty_database_is_nothing(tmp_path: Path) -> None:
    with make_database(tmp_path / "r.db", lambda filler: filler.grid("a", {"figures": [2]}, [])) as empty:
        plots = plotted(empty, gather(empty))
        assert [rendered(one, {}) for one in plots] == [None]
