"""The figures: what they show, that labels cover nothing, and that equal figures are equal files."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg

from orchestrator.database import queries
from orchestrator.tables.addresses import methods_key, plain_methods
from reports import titles
from reports.catalogue import use
from reports.figures import curves as curves_module
from reports.figures.curves import curves, draw, shown_trials, stride
from reports.figures.drawing import COLOURS, INK, Drawing
from reports.figures.figure2 import ABLATION, Point, figure2, front_of, plane
from reports.figures.labels import place, spread_out
from reports.paper.published import ledger
from reports.results import load
from tests.reports.synthetic import ablation, make_database, part_row, trials
from trainer.parts import METHODS, NETWORKS


@pytest.fixture(autouse=True)
def _titles() -> None:
    """Give networks and methods the titles that a database has for them."""
    use([part_row(part) for part in (*METHODS.values(), *NETWORKS.values())])


def published() -> list[Point]:
    """Table 1 as printed: the crowd that the figure was made for."""
    values = {(each.row, each.column): each.value for each in ledger() if each.source == "table1"}
    found = []
    for place_, row in enumerate(dict.fromkeys(row for row, _ in values)):
        network, _, methods = row.partition("/")
        chosen = next(each for each in ABLATION if methods_key(plain_methods(each)) == methods)
        spread = 0.15 if place_ % 2 else None
        found.append(Point(network, chosen, values[row, "epoch_time"], values[row, "top1"], spread, place_ % 5 == 0))
    return found


def boxes_of(figure):
    """The texts of a figure's axes and where they stand, in pixels."""
    FigureCanvasAgg(figure).draw()
    renderer = figure.canvas.get_renderer()
    return {
        (index, text.get_text()): text.get_window_extent(renderer)
        for axes in figure.axes
        for index, text in enumerate(axes.texts)
    }


@pytest.mark.parametrize("networks", [1, 2, 3])
def test_no_label_covers_another_or_a_point_or_leaves_the_axes(networks):
    names = ["resnet18", "resnet50", "resnext50_32x4d"][:networks]
    points = [point for point in published() if point.network in names]
    figure = plane(points)
    boxes = boxes_of(figure)
    frame = figure.axes[0].get_window_extent()
    for (one, first), (two, second) in combinations(boxes.items(), 2):
        assert not first.overlaps(second), (one, two)
    at = figure.axes[0].transData.transform([(point.seconds, point.error) for point in points])
    for text, box in boxes.items():
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1, text
        assert not any(box.contains(x, y) for x, y in at), text


def test_every_point_and_network_is_named_once():
    points = published()
    texts = sorted(text for _, text in boxes_of(plane(points)))
    expected = [titles.methods(plain_methods(point.methods)) for point in points]
    expected += ["ResNet-18", "ResNet-50", "ResNeXt-50", "Pareto front"]
    assert texts == sorted(expected)


SCATTERED = [
    Point("resnet18", methods, 2.0 + 0.13 * place, 20.0 + place, 8.0 - place, place == 3)
    for place, methods in enumerate(ABLATION)
]


@pytest.mark.parametrize("points", [SCATTERED, SCATTERED[:1], published()], ids=["scattered", "one", "published"])
def test_bars_are_whole_and_under_no_text(points):
    figure = plane(points)
    boxes = boxes_of(figure)
    (axes,), frame = figure.axes, figure.axes[0].get_window_extent()
    for point in points:
        if point.spread is None:
            continue
        (x, low), (_, high) = axes.transData.transform(
            [(point.seconds, point.error - point.spread), (point.seconds, point.error + point.spread)]
        )
        assert frame.y0 < low < high < frame.y1, point
        for text, box in boxes.items():
            assert not (box.x0 < x < box.x1 and box.y0 < high and low < box.y1), (text, point)


def test_what_bars_and_hollow_marks_mean_stands_above_the_plane():
    figure = plane(SCATTERED)
    (signs,) = figure.texts
    box, (width, height) = signs.get_window_extent(), figure.canvas.get_width_height()
    assert signs.get_text() == "hollow: device shared; bars: ± standard deviation over seeds"
    assert box.y0 > figure.axes[0].get_window_extent().y1 and box.x0 > 0 and box.x1 < width and box.y1 < height
    for points, expected in {
        (SCATTERED[0],): "bars: ± standard deviation over seeds",
        (SCATTERED[3]._replace(spread=None),): "hollow: device shared",
        (SCATTERED[0]._replace(spread=None),): "",
    }.items():
        assert [text.get_text() for text in plane(points).texts] == [expected]


@pytest.mark.parametrize(
    ("times", "ticks"),
    [
        ((2.84, 3.02), ["2.80", "2.85", "2.90", "2.95", "3.00", "3.05"]),
        ((2.0, 9.0), ["2", "3", "5", "7", "10"]),
        ((0.6, 30.0), ["0.5", "0.7", "1.0", "1.5", "2.0", "3.0", "5.0", "7.0", "10.0", "15.0", "20.0", "30.0"]),
        ((20.0, 200.0), ["20", "30", "50", "70", "100", "150", "200", "300"]),
        ((70_000.0, 90_000.0), ["65000", "70000", "75000", "80000", "85000", "90000", "95000"]),
    ],
)
def test_the_numbers_along_an_axis_have_equally_many_decimals(times, ticks):
    figure = plane([Point("resnet18", (), time, 2.4 + place, None, False) for place, time in enumerate(times)])
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    found = [
        label.get_text()
        for at, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
        if low <= at <= high
    ]
    assert found == ticks
    assert len({len(label.get_text().partition(".")[2]) for label in axes.get_yticklabels()}) == 1


def test_a_bar_below_zero_has_its_numbers_with_a_minus_sign():
    (axes,) = plane([Point("resnet18", (), 2.0, 3.0, 8.0, False)]).axes
    low, high = axes.get_ylim()
    shown = [
        label.get_text()
        for at, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
        if low <= at <= high
    ]
    assert shown == [
        *("\N{MINUS SIGN}" + number for number in ("7.5", "5.0", "2.5")),
        "0.0",
        "2.5",
        "5.0",
        "7.5",
        "10.0",
        "12.5",
    ]


def test_shared_times_are_hollow_and_colour_and_marker_have_one_meaning_each():
    points = published()
    lines = [line for line in plane(points).axes[0].lines if line.get_marker() not in ("", "None", "_")]
    assert len(lines) == len(points)
    for line, point in zip(lines, points, strict=True):
        assert (line.get_markerfacecolor() == "none") == point.shared
    colours = {(line.get_markeredgecolor(), point.network) for line, point in zip(lines, points, strict=True)}
    markers = {(line.get_marker(), point.methods) for line, point in zip(lines, points, strict=True)}
    assert len(colours) == 3 and len(markers) == 8


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20), st.booleans()), max_size=12))
@settings(max_examples=60, deadline=None)
def test_the_front_is_what_nothing_beats(values):
    points = [Point("n", (), float(x), float(y), None, shared) for x, y, shared in values]
    able = [point for point in points if not point.shared]
    beaten = {
        point
        for point in able
        for other in able
        if other.seconds <= point.seconds and other.error <= point.error and other[2:4] != point[2:4]
    }
    expected = sorted({(point.seconds, point.error) for point in able if point not in beaten})
    found = [(point.seconds, point.error) for point in front_of(points)]
    assert found == (expected if len(expected) > 1 else [])


@given(st.lists(st.tuples(st.floats(0, 600), st.floats(0, 400)), min_size=1, max_size=14))
@settings(max_examples=30, deadline=None)
def test_labels_stay_inside_and_apart_wherever_there_is_room(points):
    sizes = [(60, 12)] * len(points)
    bounds = (-100, -100, 700, 500)
    boxes = place(points, sizes, [], bounds)
    assert boxes.shape == (len(points), 4)
    assert np.allclose(boxes[:, 2:] - boxes[:, :2], sizes)
    assert (boxes[:, 0] >= -100).all() and (boxes[:, 3] <= 500).all()
    for one, two in combinations(boxes, 2):
        assert not (one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3])


@given(st.lists(st.floats(0, 100), max_size=12))
def test_names_beside_an_axis_keep_their_order_and_distance(wanted):
    wanted = sorted(wanted)
    heights = spread_out(wanted, 7.0, 0.0, 100.0)
    assert len(heights) == len(wanted)
    assert all(two - one >= 7.0 - 1e-9 for one, two in pairwise(heights))
    assert all(-1e-9 <= height <= 100 + 1e-9 for height in heights)
    if all(two - one >= 7.0 for one, two in pairwise(wanted)):
        assert heights == pytest.approx(wanted)


def test_equal_figures_are_equal_files_in_three_formats(tmp_path):
    written = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        written.append(Drawing("figure2", "", "", plane(published()[:8])).save(tmp_path / folder))
    assert [path.name for path in written[0]] == ["figure2.pdf", "figure2.svg", "figure2.png"]
    for one, two in zip(*written, strict=True):
        assert one.read_bytes() == two.read_bytes(), one.name
    pdf, svg, png = (path.read_bytes() for path in written[0])
    assert pdf.startswith(b"%PDF") and png.startswith(b"\x89PNG")
    assert ET.parse(io.BytesIO(svg)).getroot().tag.endswith("svg")
    # Type 3 fonts are what publishers reject.
    assert b"/Type3" not in pdf


def test_a_page_gets_ink_of_its_own_colour():
    svg = Drawing("figure2", "", "", plane(published()[:8])).inline()
    assert svg.startswith("<svg") and INK not in svg and "currentColor" in svg and "fill: #ffffff" not in svg


def test_colours_stand_out_from_white_and_from_the_dark_page():
    def light(colour):
        channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in channels]
        return np.dot(linear, (0.2126, 0.7152, 0.0722))

    for colour in COLOURS:
        assert 1.05 / (light(colour) + 0.05) >= 4
        assert (light(colour) + 0.05) / (light("#14171c") + 0.05) >= 3


def test_figure_2_reads_the_grids_that_ask_for_it(database, tmp_path):
    (drawing,) = figure2(load(database))
    assert drawing.name == "figure2"
    assert "Hollow: the device was shared" in drawing.caption and "(best_test)" in drawing.caption
    texts = [text for _, text in boxes_of(drawing.figure)]
    # Five of the eight cells of ResNet-50 have a result.
    assert texts.count("PS-KD+BYOT+DMFL") == 2 and texts.count("DMFL") == 1

    def filling(filler):
        filler.grid("a", {"tables": [1], "figures": [2]}, trials(ablation([0])))
        filler.grid("b", {"tables": ["tinyimagenet"], "figures": [2]}, trials(ablation([0], dataset="tinyimagenet")))
        filler.grid("c", {"tables": [1]}, trials(ablation([0], width=16)))

    with make_database(tmp_path / "results.db", filling) as other:
        drawings = figure2(load(other))
    assert [drawing.name for drawing in drawings] == ["figure2", "figure2-b"]
    assert drawings[1].caption.startswith("Tiny-ImageNet-200")


def test_training_curves_hold_every_epoch_of_what_has_begun(database):
    results = load(database, ["table1"])
    with database.engine.connect() as connection:
        rows = [tuple(row) for row in queries.curves(connection, shown_trials(results))]
    (drawing,) = curves(results, rows)
    assert drawing.name == "curves-table1"
    # Of 32 trials two wait and one failed before its first epoch.
    assert len({trial for trial, _, _ in rows}) == 29
    assert drawing.caption.endswith("3 more have not begun or are not drawn.")
    drawn = [line for axes in drawing.figure.axes for line in axes.lines if line.get_clip_on()]
    points = sorted((float(x) - 1, float(y)) for line in drawn for x, y in line.get_xydata())
    assert points == sorted((float(epoch), error) for _, epoch, error in rows)


def test_long_trainings_are_thinned_out_but_keep_their_ends(database):
    shown = shown_trials(load(database, ["table1"]))
    assert stride(shown) == 1 and stride({1: 9, 2: 299_999}) == 11 and stride({}) == 1
    with database.engine.connect() as connection:
        rows = [tuple(row) for row in queries.curves(connection, shown, 4)]
    for trial, last in shown.items():
        assert [epoch for found, epoch, _ in rows if found == trial] == list(range(last % 4, last + 1, 4))


def test_a_grid_too_large_for_a_figure_of_curves_has_none(database, monkeypatch):
    monkeypatch.setattr(curves_module, "MOST_TRIALS", 28)
    results = load(database, ["table1", "table3"])
    assert len(shown_trials(results)) == 5
    assert [drawing.name for drawing in curves(results, [(t, 0, 20.0) for t in shown_trials(results)])] == [
        "curves-table3"
    ]


def test_names_of_curves_do_not_overlap():
    lines = [[(epoch, 20 + 0.01 * place + 50 / epoch) for epoch in range(1, 301)] for place in range(12)]
    names = [f"{'PS-KD+BYOT (blocks 2)+DMFL, ' * (place % 3)}{place} stages" for place in range(12)]
    figure = draw({"resnet18": [(name, [line]) for name, line in zip(names, lines, strict=True)]})
    boxes = boxes_of(figure)
    assert len(boxes) == 12
    for (one, first), (two, second) in combinations(boxes.items(), 2):
        assert not first.overlaps(second), (one, two)
    width, height = figure.canvas.get_width_height()
    assert all(box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height for box in boxes.values())


def test_one_epoch_of_one_trial_is_a_figure_too():
    figure = draw({"resnet18": [("baseline", [[(1, 90.0)]])]})
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    assert re.search(rb"<svg", buffer.getvalue())
    assert plane([Point("resnet18", (), 3.0, 20.0, None, False)]).axes


def test_every_curve_of_a_panel_has_a_look_of_its_own():
    cells = [(f"method {number}", [[(epoch, 50.0 - number - epoch) for epoch in range(1, 6)]]) for number in range(12)]
    (axes,) = draw({"resnet18": cells}).axes
    drawn = [line for line in axes.lines if len(line.get_xdata()) == 5]
    assert len({(line.get_color(), line.get_linestyle()) for line in drawn}) == len(drawn) == 12
