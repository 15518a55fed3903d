"""Charts of the page in a real browser: every interaction clicks, types and reads what a person would."""

from __future__ import annotations

import re

import pytest

from reports.gathering import gather
from reports.page import page_data, render_page
from tests.reports.page.reading import chosen, lines
from tests.reports.synthetic import ablation, make_database, trials


def test_curves_of_any_metric_over_epochs_or_seconds(visit):
    page = visit()
    curves = page.locator("#explore-curves")
    first = lines(page)
    assert len(first) == 8 and any("PS-KD" in name for name in first)
    options = curves.get_by_label("Metric").locator("option").all_inner_texts()
    assert {"Top-1 error", "NLL", "Loss: cross_entropy", "Learning rate"} <= set(options)
    curves.get_by_label("Metric").select_option(label="Loss: cross_entropy")
    curves.get_by_role("combobox", name="Over").select_option("seconds")
    svg = curves.locator(".chart svg")
    assert svg.get_attribute("aria-label").startswith("Loss: cross_entropy over seconds")
    assert svg.locator("text.name").all_text_contents() == ["Time since the start (s)", "Loss: cross_entropy"]
    assert curves.locator("path.band").count() > 0
    before = svg.locator("text.tick").all_text_contents()
    curves.get_by_label("Logarithmic").check()
    assert curves.locator("text.tick").all_text_contents() != before
    curves.get_by_label("Single seeds").check()
    assert any(name.endswith("seed 2") for name in lines(page)) and curves.locator("path.band").count() == 0


def test_lines_are_chosen(visit):
    page = visit()
    curves = page.locator("#explore-curves")
    curves.get_by_role("button", name="None").click()
    count = curves.locator(".legend legend")
    assert lines(page) == [] and "No line is ticked" in curves.inner_text()
    every = curves.locator(".legend label").count()
    assert count.inner_text().lower() == f"lines (0 of {every} shown)"
    search = curves.get_by_role("searchbox", name="Filter lines")
    search.fill("PS-kd")
    boxes = curves.locator(".legend label:visible")
    boxes.first.get_by_role("checkbox").check()
    assert lines(page) == [boxes.first.inner_text().strip()]
    curves.get_by_role("button", name="All").click()
    assert len(lines(page)) == boxes.count() > 1 and search.input_value() == "PS-kd"
    # What the filter hides stays as it is, ticked or not.
    listed = boxes.count()
    search.fill("baseline")
    hidden, own = lines(page), boxes.count()
    curves.get_by_role("button", name="All").click()
    both = lines(page)
    assert set(hidden) < set(both) and len(both) <= listed + own
    assert count.inner_text().lower() == f"lines ({len(both)} of {every} shown)"
    curves.get_by_role("button", name="None").click()
    assert lines(page) == [name for name in hidden if "Baseline" not in name]
    assert not boxes.first.get_by_role("checkbox").is_checked()


def test_methods_keep_their_colours_on_the_whole_page_whatever_it_shows(visit):
    page = visit()
    curves, plane = page.locator("#explore-curves"), page.locator("#explore-plane")
    curves.get_by_role("button", name="All").click()
    drawn = "marks => marks.map(mark => [mark.dataset.line ?? mark.dataset.point, mark.getAttribute('stroke')])"
    colours: dict[str, set[str]] = {}

    def look():
        marks = page.locator("path.line[stroke-dasharray], path.point").evaluate_all(drawn)
        for name, colour in marks:
            colours.setdefault(name.split(", ")[1], set()).add(colour)
        return len(marks)

    everything = look()
    # Only a part of the methods has this loss.
    metrics = curves.get_by_label("Metric").locator("option").all_inner_texts()
    (partial,) = [each for each in metrics if each.startswith("Loss: byot")]
    curves.get_by_label("Metric").select_option(label=partial)
    plane.get_by_label("Up").select_option(label="NLL")
    assert 0 < look() < everything
    assert len(colours) == 8 and all(len(own) == 1 for own in colours.values())
    assert len(set.union(*colours.values())) == 8


def test_no_two_points_have_the_same_mark_and_colour(visit):
    page = visit()
    marks = page.locator("#explore-plane path.point").evaluate_all(
        "points => points.map(point => point.getAttribute('stroke') + point.getAttribute('d'))"
    )
    assert len(marks) == len(set(marks)) > 10
    # Of one method there are as many pairs as colours and marks allow.
    unique, total = page.evaluate(
        """() => {
          const cells = [...Array(60).keys()].map((at) => ({ config: { methods: "a", network: `n${at}` } }));
          const pairs = stylesOf(cells).map(({ colour, shape }) => colour + shape(5));
          return [new Set(pairs).size, COLOURS.length * SHAPES.length];
        }"""
    )
    assert unique == 60 <= total


def test_a_logarithmic_axis_says_so_and_names_what_it_cannot_show(visit):
    page = visit()
    draw = """y => {
      const box = document.createElement("div");
      document.body.append(box);
      const points = [1, 2, 3, 4, 5].map((at) => [at, y[at - 1], `epoch ${at}`]);
      const axes = { x: { title: "Epoch", whole: true }, y: { title: "Loss", log: true } };
      drawChart(box, { lines: [{ name: "a", style: styles[0], points }], label: "", ...axes });
      return [box.innerText, [...box.querySelectorAll("text.tick")].map((each) => each.textContent),
              [...box.querySelectorAll("text.name")].map((each) => each.textContent)];
    }"""
    text, ticks, names = page.evaluate(draw, [3, 2, 1, 0, 0])
    assert "Zeros are not shown on a logarithmic axis" in text and names == ["Epoch", "Loss (log)"]
    assert "5" in ticks and "4" in ticks
    assert "not shown" not in page.evaluate(draw, [3, 2, 1, 1, 1])[0]
    assert "Zeros and negative values" in page.evaluate(draw, [3, 2, 1, -1, 0])[0]


def test_a_point_of_the_front_keeps_its_name_however_crowded(visit):
    page = visit()
    named = page.evaluate(
        """() => {
          const points = [...Array(60).keys()].map((at) => [`point ${at}`, 200 + at / 10, 100 + (at % 3)]);
          return places(points, new Set(["point 58", "point 59"]), [62, 600, 12, 340]).map(([text]) => text);
        }"""
    )
    assert {"point 58", "point 59"} <= set(named) and len(named) < 60


def test_pointing_at_a_chart_reads_values_and_dragging_zooms(visit):
    page = visit()
    curves = page.locator("#explore-curves")
    svg = curves.locator(".chart svg")
    svg.scroll_into_view_if_needed()
    frame = svg.bounding_box()
    page.mouse.move(frame["x"] + frame["width"] * 0.6, frame["y"] + frame["height"] * 0.55)
    for step in range(10):
        page.mouse.move(
            frame["x"] + frame["width"] * (0.4 + step / 20), frame["y"] + frame["height"] * (0.4 + step / 20)
        )
    assert re.search(r"epoch \d+ \([\d.]+ (s|min)\): [\d.]+", curves.locator(".readout").inner_text())
    before = svg.locator("text.tick").all_text_contents()
    page.mouse.move(frame["x"] + frame["width"] * 0.5, frame["y"] + frame["height"] * 0.3)
    page.mouse.down()
    page.mouse.move(frame["x"] + frame["width"] * 0.9, frame["y"] + frame["height"] * 0.85, steps=4)
    page.mouse.up()
    assert curves.locator("text.tick").all_text_contents() != before
    assert len(chosen(page)["curves.zoom"][0].split(",")) == 4
    curves.get_by_role("button", name="Show everything").click()
    assert curves.locator("text.tick").all_text_contents() == before and "curves.zoom" not in chosen(page)


def test_a_chart_is_read_by_the_keyboard(visit):
    page = visit()
    curves = page.locator("#explore-curves")
    curves.locator(".chart svg").focus()
    page.keyboard.press("ArrowRight")
    first = curves.locator(".readout").inner_text()
    page.keyboard.press("ArrowRight")
    second = curves.locator(".readout").inner_text()
    assert "epoch 1 " in first and "epoch 2 " in second
    page.keyboard.press("ArrowDown")
    third = curves.locator(".readout").inner_text()
    assert "epoch 2 " in third and third != second
    page.keyboard.press("+")
    assert "curves.zoom" in chosen(page)
    curves.locator(".chart svg").focus()
    page.keyboard.press("0")
    assert "curves.zoom" not in chosen(page)


def test_the_plane_has_the_points_of_figure_2_and_its_front(visit, database):
    from reports.figures.declared import declared, plots, shipped_yaml
    from reports.figures.plane import front_of, marks

    page = visit()
    plane = page.locator("#explore-plane")
    names = plane.locator("path.point").evaluate_all("points => points.map(point => point.dataset.point)")
    (plot,) = plots(gather(database).results, declared(shipped_yaml("figure2")), ["table1"])
    (points,) = marks(plot)
    assert len(names) == len(points) and plane.locator("path.point[fill=none]").count() == sum(p.shared for p in points)
    front_names = plane.locator(".front-names").inner_text()
    assert front_names.count(";") + 1 == len(front_of(points)) and "ResNet-18" in front_names
    svg = plane.locator("svg")
    svg.focus()
    page.keyboard.press("ArrowRight")
    assert re.search(r"Time per epoch [\d.]+ s, Top-1 error [\d.]+ %", plane.locator(".readout").inner_text())
    plane.get_by_label("Up").select_option(label="NLL")
    assert plane.locator("text.name").all_text_contents() == ["Time per epoch (s)", "NLL"]


def test_the_planes_times_are_those_of_a_timing_pass_as_in_figure_2(chromium, tmp_path):
    from reports.figures.declared import declared, plots, shipped_yaml
    from reports.figures.plane import front_of, marks

    def filling(filler):
        timed = trials(ablation([0]), timed=True, quality="foreign load")
        filler.grid("table1", {"tables": [1]}, timed + trials(ablation([1]), quality="foreign load"))

    with make_database(tmp_path / "results.db", filling) as database:
        gathered = gather(database)
        data = page_data(database, gathered.results, [])
    (plot,) = plots(gathered.results, declared(shipped_yaml("figure2")), ["table1"])
    (points,) = marks(plot)
    (tmp_path / "report.html").write_text(render_page(data), encoding="utf-8")
    page = chromium.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    plane = page.locator("#explore-plane")
    assert plane.locator("path.point").count() == len(points) == plane.locator("path.point:not([fill=none])").count()
    assert plane.locator(".front-names").inner_text().count(";") + 1 == len(front_of(points))
    times = page.evaluate("data.cells.map((_, cell) => quantityOf(cell, 'epoch_time'))")
    assert sorted(time["mean"] for time in times) == pytest.approx(sorted(mark.x for mark in points), rel=1e-5)
    assert {(time["n"], time["shared"]) for time in times} == {(1, False)}
    # The time to the selected epoch was measured in company.
    plane.get_by_label("Across").select_option(label="Train time")
    assert plane.locator("path.point[fill=none]").count() == len(points)
    page.close()


def test_fields_side_by_side_keep_the_lines_of_a_value(visit):
    page = visit()
    fields = page.locator("#explore-fields")
    everything = fields.locator("path.line").count()
    assert everything > 10
    fields.get_by_role("button", name="Network ResNet-50").click()
    kept = everything - fields.locator("path.line.dropped").count()
    assert 0 < kept < everything and chosen(page)["fields.keep"] == ["network=ResNet-50"]
    again = fields.get_by_role("button", name="Network ResNet-50")
    assert again.get_attribute("aria-pressed") == "true"
    again.focus()
    page.keyboard.press("Enter")
    assert fields.locator("path.line.dropped").count() == 0
    fields.locator("path.line").first.dispatch_event("pointerenter")
    assert re.search(r"Top-1 error [\d.]+ %", fields.locator(".readout").inner_text())
