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

from orchestrator.tables.addresses import methods_key, plain_methods
from orchestrator.tables.figures import MOST_LINES
from reports import titles
from reports.catalogue import use
from reports.figures.declared import asked_figures, plots
from reports.figures.drawing import COLOURS, DASHES, INK, MARKERS, Drawing
from reports.figures.frame import look_of
from reports.figures.labels import place, spread_out
from reports.figures.plane import Mark, draw, front_of
from reports.figures.rendering import rendered
from reports.loading import load
from reports.paper.published import ledger
from tests.reports.plotting import Spot, plane
from tests.reports.synthetic import POWERSET, ablation, make_database, part_row, trials
from trainer.parts import METHODS, NETWORKS


@pytest.fixture(autouse=True)
def _titles() -> None:
    """Give networks and methods the titles that a database has for them."""
    use([part_row(part) for part in (*METHODS.values(), *NETWORKS.values())])


def published() -> list[Spot]:
    """Table 1 as printed: the crowd that the figure was made for."""
    values = {(each.row, each.column): each.value for each in ledger() if each.source == "table1"}
    spots = []
    for index, row in enumerate(dict.fromkeys(row for row, _ in values)):
        network, _, methods = row.partition("/")
        chosen = next(each for each in POWERSET if methods_key(plain_methods(each)) == methods)
        name = titles.methods(plain_methods(chosen))
        spread = 0.15 if index % 2 else None
        seconds, error = values[row, "epoch_time"], values[row, "top1"]
        spots.append(Spot(titles.network(network), name, seconds, error, spread, index % 5 == 0))
    return spots


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
    names = ["ResNet-18", "ResNet-50", "ResNeXt-50"][:networks]
    spots = [spot for spot in published() if spot.line in names]
    figure = draw(plane(spots))
    boxes = boxes_of(figure)
    frame = figure.axes[0].get_window_extent()
    for (one, first), (two, second) in combinations(boxes.items(), 2):
        assert not first.overlaps(second), (one, two)
    at = figure.axes[0].transData.transform([(spot.seconds, spot.error) for spot in spots])
    for text, box in boxes.items():
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1, text
        assert not any(box.contains(x, y) for x, y in at), text


def test_every_point_and_network_is_named_once():
    spots = published()
    texts = sorted(text for _, text in boxes_of(draw(plane(spots))))
    assert texts == sorted([*(spot.name for spot in spots), "ResNet-18", "ResNet-50", "ResNeXt-50"])


SCATTERED = [
    Spot("ResNet-18", "+".join(methods), 2.0 + 0.13 * index, 20.0 + index, 8.0 - index, index == 3)
    for index, methods in enumerate(POWERSET)
]


@pytest.mark.parametrize("points", [SCATTERED, SCATTERED[:1], published()], ids=["scattered", "one", "published"])
def test_bars_are_whole_and_under_no_text(points):
    figure = draw(plane(points))
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
    for points, expected in (
        (SCATTERED, ["device shared", "± s.d. over seeds"]),
        (published(), ["device shared", "± s.d. over seeds", "Pareto front"]),
        (SCATTERED[:1], ["± s.d. over seeds"]),
        ([SCATTERED[3]._replace(spread=None)], ["device shared"]),
        ([SCATTERED[0]._replace(spread=None)], []),
    ):
        figure = draw(plane(points))
        assert [text.get_text() for text in figure.texts] == expected
        width, height = figure.canvas.get_width_height()
        for text in figure.texts:
            box = text.get_window_extent()
            assert box.y0 > figure.axes[0].get_window_extent().y1
            assert box.x0 > 0 and box.x1 < width and box.y1 < height


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
    figure = draw(plane([Spot("ResNet-18", "", time, 2.4 + index) for index, time in enumerate(times)]))
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    labels = [
        label.get_text()
        for at, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
        if low <= at <= high
    ]
    assert labels == ticks
    assert len({len(label.get_text().partition(".")[2]) for label in axes.get_yticklabels()}) == 1


def test_a_bar_below_zero_has_its_numbers_with_a_minus_sign():
    (axes,) = draw(plane([Spot("ResNet-18", "", 2.0, 3.0, 8.0)])).axes
    low, high = axes.get_ylim()
    shown = [
        label.get_text()
        for at, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
        if low <= at <= high
    ]
    assert shown == ["\N{MINUS SIGN}8", "\N{MINUS SIGN}4", "0", "4", "8", "12"]


def test_shared_times_are_hollow_and_colour_and_marker_have_one_meaning_each():
    spots = published()
    lines = [line for line in draw(plane(spots)).axes[0].lines if line.get_marker() not in ("", "None", "_")]
    assert len(lines) == len(spots)
    for line, spot in zip(lines, spots, strict=True):
        assert (line.get_markerfacecolor() == "none") == spot.shared
    colours = {(line.get_markeredgecolor(), spot.line) for line, spot in zip(lines, spots, strict=True)}
    markers = {(line.get_marker(), spot.name) for line, spot in zip(lines, spots, strict=True)}
    assert len(colours) == 3 and len(markers) == 8


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20), st.booleans()), max_size=12))
@settings(max_examples=60, deadline=None)
def test_the_front_is_what_nothing_beats(values):
    points = [Mark("n", "", 0, 0, float(x), float(y), None, shared) for x, y, shared in values]
    able = [point for point in points if not point.shared]
    beaten = {
        point
        for point in able
        for other in able
        if other.x <= point.x and other.y <= point.y and other[4:6] != point[4:6]
    }
    expected = sorted({(point.x, point.y) for point in able if point not in beaten})
    front = [(point.x, point.y) for point in front_of(points)]
    assert front == (expected if len(expected) > 1 else [])


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
        written.append(Drawing("figure2", "", "", draw(plane(published()[:8]))).save(tmp_path / folder))
    assert [path.name for path in written[0]] == ["figure2.pdf", "figure2.svg", "figure2.png"]
    for one, two in zip(*written, strict=True):
        assert one.read_bytes() == two.read_bytes(), one.name
    pdf, svg, png = (path.read_bytes() for path in written[0])
    assert pdf.startswith(b"%PDF") and png.startswith(b"\x89PNG")
    assert ET.parse(io.BytesIO(svg)).getroot().tag.endswith("svg")
    # Type 3 fonts are what publishers reject.
    assert b"/Type3" not in pdf


def test_a_page_gets_ink_of_its_own_colour():
    svg = Drawing("figure2", "", "", draw(plane(published()[:8]))).inline()
    assert svg.startswith("<svg") and INK not in svg and "currentColor" in svg and "fill: #ffffff" not in svg


def test_colours_stand_out_from_white_and_from_the_dark_page():
    def light(colour):
        channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in channels]
        return np.dot(linear, (0.2126, 0.7152, 0.0722))

    for colour in COLOURS:
        assert 1.05 / (light(colour) + 0.05) >= 3
        assert (light(colour) + 0.05) / (light("#14171c") + 0.05) >= 3


def simulated(colour, matrix):
    """Return a colour in CIELAB as people with a deficiency see it: Machado, Oliveira and Fernandes (2009)."""
    channels = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    relative = to_xyz @ np.clip(np.array(matrix) @ linear, 0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(relative > 0.008856, np.cbrt(relative), 7.787 * relative + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize(
    "matrix",
    [
        np.eye(3),
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    ],
    ids=["all colours", "no red", "no green"],
)
def test_colours_differ_for_people_who_see_no_red_or_no_green(matrix):
    seen = [simulated(colour, matrix) for colour in COLOURS]
    assert min(np.linalg.norm(one - two) for one, two in combinations(seen, 2)) >= 24


def test_lines_differ_without_colour():
    assert len(COLOURS) == len(set(MARKERS)) == MOST_LINES
    # Neighbours differ in their dashes too.
    assert all(DASHES[index] != DASHES[index + 1] for index in range(len(DASHES) - 1))
    looks = [look_of(number) for number in range(MOST_LINES)]
    assert len({(str(look["linestyle"]), look["marker"]) for look in looks}) == MOST_LINES


def figures_of(database, names=None):
    """Return the drawings of the figures that grids ask for."""
    results = load(database, names)
    asked = asked_figures(results.grids).values()
    made = [plot for one in asked for plot in plots(results, one.spec, one.grids)]
    return [rendered(plot, {}) for plot in made]


def test_figure_2_reads_the_grids_that_ask_for_it(database, tmp_path):
    (drawing,) = figures_of(database)
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
        drawings = figures_of(other)
    assert [drawing.name for drawing in drawings] == ["figure2", "figure2-b"]
    assert drawings[1].caption.startswith("Tiny-ImageNet-200")


def test_one_point_is_a_figure_too():
    figure = draw(plane([Spot("ResNet-18", "baseline", 3.0, 20.0)]))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    assert re.search(rb"<svg", buffer.getvalue())
