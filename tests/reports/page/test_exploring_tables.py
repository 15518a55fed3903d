"""Tables of the page in a real browser: every interaction clicks and reads what a person would."""

from __future__ import annotations

import csv
import io
import random
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from orchestrator.statistics import Candidate, compare, student_p, student_quantile
from reports.gathering import gather
from reports.page import page_data, render_page
from tests.reports.lookup import one
from tests.reports.page.reading import chosen, head, order, row


def test_a_click_sorts_within_each_network_and_a_second_one_turns_it(visit, tables):
    values = {row.key: row.entries[0].value for row in tables["table1"].rows}
    page = visit()
    head(page, "Top-1 error").click()
    rising = {group: order(page, "table1", group) for group in ("resnet18", "resnet50")}
    assert page.locator("#table1 [aria-sort=ascending]").count() == 1
    head(page, "Top-1 error").click()
    for group, rows in rising.items():
        expected = sorted(
            (r for r in rows if values[f"{group}/{r}"] is not None), key=lambda r, g=group: values[f"{g}/{r}"]
        )
        missing = [name for name in rows if name not in expected]
        # What has no number stays last, whichever way the others go.
        assert rows == expected + missing and order(page, "table1", group) == expected[::-1] + missing
    assert page.locator("#table1 [aria-sort=descending]").count() == 1
    # A third click gives back the order of the report.
    head(page, "Top-1 error").click()
    assert order(page, "table1", "resnet18") == [key.split("/")[1] for key in values if key.startswith("resnet18")]
    assert chosen(page) == {}


def test_words_sort_as_words(visit):
    page = visit()
    head(page, "Method").click()
    rows = order(page, "table1", "resnet18")
    assert rows == ["baseline", "byot", "dmfl", "dmfl+byot", "pskd", "pskd+byot", "pskd+byot+dmfl", "pskd+dmfl"]


def test_a_filter_leaves_the_rows_that_have_all_its_words(visit):
    page = visit()
    page.get_by_role("searchbox", name="Filter rows of Table 1").fill("ps-kd BYOT resnet-18")
    assert (
        order(page, "table1", "resnet18") == ["pskd+byot", "pskd+byot+dmfl"] and order(page, "table1", "resnet50") == []
    )
    assert "2 of 16 rows" in page.locator("#table1 .tools").inner_text()
    # States count as words.
    page.get_by_role("searchbox", name="Filter rows of Table 1").fill("running")
    assert order(page, "table1", "resnet50") == ["dmfl+byot"]


def test_columns_can_be_hidden_and_come_back(visit):
    page = visit()
    page.locator("#table1 summary", has_text="Columns").click()
    box = page.locator("#table1 .menu").get_by_label("NLL")
    box.uncheck()
    assert not head(page, "NLL").is_visible() and head(page, "ECE").is_visible()
    shown = row(page, "resnet18/pskd").locator("td:visible").count()
    page.keyboard.press("Escape")
    assert not page.locator("#table1 .menu .panel").first.is_visible()
    page.locator("#table1 summary", has_text="Columns").click()
    box.check()
    assert row(page, "resnet18/pskd").locator("td:visible").count() == shown + 1 and head(page, "NLL").is_visible()


def test_rows_are_grouped_by_any_field_that_differs(visit):
    page = visit()
    grouping = page.locator("#table1").get_by_label("Group by")
    assert "Methods" in grouping.inner_text() and "Momentum" not in grouping.inner_text()
    grouping.select_option("methods")
    titles = page.locator("#table1 > .wide tr.group").all_inner_texts()
    assert len(titles) == 8 and titles[0] == "Methods: baseline"
    grouping.select_option("none")
    assert page.locator("#table1 > .wide tr.group").count() == 0


def test_groups_that_separate_nothing_or_everything_are_not_offered(visit_one_seed):
    page = visit_one_seed()
    # Of one network, a row for each combination of methods: some of them have heads.
    options = page.locator("#table1").get_by_label("Group by").locator("option").all_inner_texts()
    assert options == ["as printed", "Heads"]
    assert page.locator("#overview").get_by_label("Group by").count() == 0


def test_two_ticked_rows_are_compared_by_the_reports_own_test(visit, tables, database):
    page = visit()
    for name in ("resnet18/pskd", "resnet18/pskd+byot"):
        row(page, name).get_by_role("checkbox").check()
    table = tables["table1"]
    first, second = (
        next(each for each in table.rows if each.key == f"resnet18/{name}") for name in ("pskd", "pskd+byot")
    )
    panel = page.locator("#table1 .comparison")
    lines = panel.locator("table.differences tbody tr")
    place = [column.key for column in table.columns].index("nll")
    values = [{sample.seed: sample.value for sample in each.entries[place].samples} for each in (first, second)]
    expected = compare(*map(Candidate, values))
    text = lines.filter(has_text="NLL").inner_text()
    assert f"{expected.difference:+.3f}".replace("-", "\u2212") in text and "paired t test over 3 seeds" in text
    low, high = expected.difference - expected.margin, expected.difference + expected.margin
    assert f"{low:.3f} to {high:.3f}".replace("-", "\u2212") in text
    assert ("<0.001" if expected.p < 0.001 else f"{expected.p:.3f}") in text and "second is better" in text
    assert "Methods" in panel.locator("table.differing").inner_text()
    assert panel.locator("table.differing tbody tr").count() == 1
    # A third row takes the place of the first.
    row(page, "resnet18/byot").get_by_role("checkbox").check()
    assert not row(page, "resnet18/pskd").get_by_role("checkbox").is_checked()
    panel.get_by_role("button", name="Clear").click()
    assert panel.inner_text() == "" and chosen(page) == {}


def test_the_pages_tests_are_those_of_the_report(visit):
    page = visit()
    numbers = random.Random(1)
    cases = []
    for n in [1, 2, 3, 3, 4, 5, 9, 30] * 6:
        images = numbers.choice([None, 360, 10_000])
        spread = numbers.choice([0.0, 1e-9, 0.1, 3.0])
        pair = [
            {s: 20 + numbers.gauss(0, spread) + side * numbers.choice([0, 0.3]) for s in range(n)} for side in (0, 1)
        ]
        if n > 3 and numbers.random() < 0.5:
            del pair[0][0]
        cases.append((pair, images))
    # Equal differences: whole images are a test with the rounding's spread, other numbers none.
    equal = [{s: 20.0 + s + side * 0.02 for s in range(3)} for side in (0, 1)]
    cases += [(equal, 10_000), (equal, None)]
    script = """cases => cases.map(([pair, images]) => {
      data = { trials: Array.from({ length: 40 }, (_, seed) => ({ seed })) };
      const sample = ([seed, value]) => [Number(seed), 1, value, images, ""];
      const entry = (values) => ({ samples: Object.entries(values).map(sample) });
      return compareEntries(...pair.map(entry));
    })"""
    kinds = set()
    # JavaScript's keys are texts.
    given = [([{str(s): value for s, value in values.items()} for values in pair], images) for pair, images in cases]
    for (pair, images), on_page in zip(cases, page.evaluate(script, given), strict=True):
        expected = compare(*(Candidate(values, images) for values in pair))
        if expected is None:
            kinds.add(on_page["test"])
            assert on_page["test"] in ("none", "equal") and on_page["p"] is None
            continue
        kinds.add(expected.test)
        assert (on_page["test"], on_page["n"]) == (expected.test, expected.n)
        for name in ("p", "difference", "margin"):
            assert on_page[name] == pytest.approx(getattr(expected, name), rel=1e-7, abs=1e-12)
    assert kinds == {"paired", "unpaired", "none", "equal"}
    arguments = [(t, freedom) for t in (0, 1e-6, 0.3, 2, 12, 80) for freedom in (1, 2, 3, 4, 29)]
    on_page = page.evaluate("pairs => pairs.map(([t, n]) => studentP(t, n))", arguments)
    assert on_page == pytest.approx([student_p(*each) for each in arguments], rel=1e-7, abs=1e-13)
    assert page.evaluate("studentQuantile(2)") == pytest.approx(student_quantile(2), rel=1e-8)


def test_rows_of_one_seed_without_error_rates_are_told_to_need_three(visit):
    page = visit("#table1.pick=resnet50%2Fbaseline&table1.pick=resnet50%2Fpskd%2Bbyot")
    lines = page.locator("#table1 .comparison table.differences tbody tr")
    assert "binomial noise of 10,000 images (one seed)" in lines.filter(has_text="Top-1").inner_text()
    nll = lines.filter(has_text="NLL").inner_text()
    assert "not tested" in nll and "cannot be told" not in nll and "no test: one seed, and three are needed" in nll


def test_a_test_over_images_that_comes_with_the_data_is_shown(chromium, database, tables, tmp_path):
    data = page_data(database, gather(database).results, [tables["table1"]])
    places = {
        each["key"]: place for place, each in enumerate(each for g in data["tables"][0]["groups"] for each in g["rows"])
    }
    one, two = places["resnet50/baseline"], places["resnet50/pskd"]
    data["tables"][0]["comparisons"] = [[one, two, 0, 0.0123, 1.01, 0.5, 1, 10_000]]
    (tmp_path / "report.html").write_text(render_page(data), encoding="utf-8")
    page = chromium.new_page()
    for keys, difference, interval in (
        (("baseline", "pskd"), "+1.010 points", "0.510 to 1.510"),
        (("pskd", "baseline"), "\u22121.010 points", "\u22121.510 to \u22120.510"),
    ):
        fragment = "&".join(f"table1.pick=resnet50%2F{key}" for key in keys)
        page.goto("about:blank")
        page.goto(f"{(tmp_path / 'report.html').as_uri()}#{fragment}")
        text = page.locator("#table1 table.differences tbody tr").first.inner_text()
        assert difference in text and interval in text and "0.012" in text
        assert "exact test over 10,000 images, paired (one seed)" in text
    page.close()


def test_a_test_over_images_that_was_left_out_is_named_with_its_command(chromium, database, tables, tmp_path):
    data = page_data(database, gather(database).results, [tables["table1"]])
    keys = [each["key"] for group in data["tables"][0]["groups"] for each in group["rows"]]
    data["tables"][0]["untested"] = {"0": [keys.index("resnet50/baseline"), keys.index("resnet50/pskd")]}
    (tmp_path / "report.html").write_text(render_page(data), encoding="utf-8")
    page = chromium.new_page()
    for other, noise in (("pskd", False), ("pskd+byot", True)):
        page.goto("about:blank")
        fragment = f"table1.pick=resnet50%2Fbaseline&table1.pick=resnet50%2F{other.replace('+', '%2B')}"
        page.goto(f"{(tmp_path / 'report.html').as_uri()}#{fragment}")
        text = page.locator("#table1 table.differences tbody tr").first.inner_text()
        assert ("binomial noise" in text) == noise
        assert ("not tested here" in text) != noise
        command = f"orchestrate compare 'table1:resnet50/baseline/top1' 'table1:resnet50/{other}/top1'"
        assert (command in text) != noise
    page.close()


def test_two_rates_without_an_error_have_no_interval(chromium, database, tables, tmp_path):
    data = page_data(database, gather(database).results, [tables["table1"]])
    for group in data["tables"][0]["groups"]:
        for line in group["rows"]:
            if line["key"] in ("resnet50/baseline", "resnet50/pskd"):
                line["cells"][0]["samples"] = [[*each[:2], 0, *each[3:]] for each in line["cells"][0]["samples"]]
    (tmp_path / "report.html").write_text(render_page(data), encoding="utf-8")
    page = chromium.new_page()
    fragment = "table1.pick=resnet50%2Fbaseline&table1.pick=resnet50%2Fpskd"
    page.goto(f"{(tmp_path / 'report.html').as_uri()}#{fragment}")
    cells = page.locator("#table1 table.differences tbody tr").first.locator("td").all_text_contents()
    assert cells[3] == "\N{EN DASH}" and "no interval, as nothing scatters" in cells[-1]
    page.close()


def test_what_is_in_sight_is_copied_and_saved(visit, tables, tmp_path):
    page = visit(permissions=["clipboard-read", "clipboard-write"], accept_downloads=True)
    page.get_by_role("searchbox", name="Filter rows of Table 1").fill("resnet-18")
    page.locator("#table1 summary", has_text="Columns").click()
    page.locator("#table1 .menu").get_by_label("Seeds").uncheck()
    head(page, "Top-1 error").click()
    page.locator("#table1 summary", has_text="Copy, save").click()
    page.get_by_role("button", name="Copy as CSV").locator("visible=true").click()
    rows = list(csv.DictReader(io.StringIO(page.evaluate("navigator.clipboard.readText()"))))
    expected = sorted(
        (r for r in tables["table1"].rows if r.key.startswith("resnet18")), key=lambda r: r.entries[0].value
    )
    assert [float(each["Top-1 error (%)"]) for each in rows] == [r.entries[0].value for r in expected]
    assert "Seeds" not in rows[0] and rows[0]["Network"].startswith("ResNet-18")
    assert {each["Time per epoch (s)"] for each in rows} and "Train time (s)" in rows[0]
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as LaTeX").locator("visible=true").click()
    assert download.value.suggested_filename == "table1.tex"
    tabular = Path(download.value.path()).read_text(encoding="utf-8")
    body = tabular[tabular.index("\\midrule") : tabular.index("\\bottomrule")]
    assert body.count("\\\\") == 1 + len(expected) and "\\textbf{" in body and "$\\pm$" in body
    if shutil.which("pdflatex"):
        document = "\\documentclass{article}\\usepackage{booktabs,threeparttable}\\begin{document}%s\\end{document}"
        (tmp_path / "paper.tex").write_text(document % ("\n" + tabular), encoding="utf-8")
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120)
        assert done.returncode == 0, done.stdout[-2000:]


def test_what_is_saved_has_its_stars_and_what_they_mean(visit):
    page = visit()
    table = "(name) => { const t = data.tables.find((each) => each.id === 'table1');" + (
        " return new TableView(t, document.getElementById('table1'))[name](); }"
    )
    rows = list(csv.DictReader(io.StringIO(page.evaluate(table, "csv"))))
    assert {each["Time per epoch marks"] for each in rows} == {"", "*"}
    latex = page.evaluate(table, "latex")
    notes = latex[latex.index("\\begin{tablenotes}") : latex.index("\\end{tablenotes}")]
    assert "\\tnote{*}" in latex and "\\item[*] another process shared the device" in notes
    # A note without its mark in sight is left out.
    page.get_by_role("searchbox", name="Filter rows of Table 1").first.fill("resnet-18")
    page.locator("#table1 summary", has_text="Copy, save").first.click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as LaTeX").locator("visible=true").first.click()
    assert "\\item[*]" not in Path(download.value.path()).read_text(encoding="utf-8")


def test_the_view_is_in_the_address_and_comes_back(visit):
    page = visit()
    page.get_by_role("searchbox", name="Filter rows of Table 1").fill("resnet-18")
    head(page, "NLL").click()
    page.locator("#table1").get_by_label("Group by").select_option("none")
    page.locator("#explore-curves").get_by_label("Metric").select_option(label="NLL")
    before = order(page, "table1", "resnet18")
    again = visit(f"#{urlsplit(page.url).fragment}")
    assert order(again, "table1", "resnet18") == before
    assert again.get_by_role("searchbox", name="Filter rows of Table 1").input_value() == "resnet-18"
    assert again.locator("#explore-curves .chart svg").get_attribute("aria-label").startswith("NLL over epochs")
    # A link to a place in the page keeps the view, and an address of somebody's typing breaks nothing.
    again.get_by_role("link", name="Curves").click()
    assert chosen(again) == chosen(page)
    odd = visit(
        "#table1.sort=99-&table1.pick=gone&curves.metric=none&curves.zoom=1,x&open=table1:gone:3&fields.keep=x&nothing.a=b"
    )
    assert odd.locator("#explore-curves .chart svg").count() == 1
    assert len(order(odd, "table1", "resnet18")) == 8


def test_a_cell_opens_its_trials_with_configuration_attempts_and_log(visit, tables):
    page = visit()
    cell = row(page, "resnet18/pskd").get_by_role("button", name=re.compile("Top-1 error of"))
    cell.click()
    dialog = page.get_by_role("dialog")
    entry = next(each for each in tables["table1"].rows if each.key == "resnet18/pskd").entries[0]
    assert dialog.locator("details.trial").count() == len(entry.samples) == 3
    text = dialog.inner_text()
    for shown in (
        "resnet18/pskd/cifar100/seed0",
        "done",
        f"at epoch {entry.samples[0].epoch}",
        "NVIDIA A100",
        "on node7",
    ):
        assert shown in text
    for shown in ("0123456789abcdef", f"/logs/{entry.samples[0].key[:8]}.log", "PS-KD", entry.samples[0].key):
        assert shown in text
    assert (
        "could not be read on the machine that wrote this page" in text
        and "more fields, the same in all trials" in text
    )
    assert chosen(page) == {"open": ["table1:resnet18/pskd:0"]}
    page.keyboard.press("Escape")
    # The dialog's `close` event, which clears the address, comes after the key's.
    page.wait_for_url(lambda address: not urlsplit(address).fragment)
    assert not dialog.is_visible() and chosen(page) == {}
    assert cell.evaluate("button => button === document.activeElement")
    # An address opens it, too; a failed cell says why there is no number.
    again = visit("#open=table1%3Aresnet50%2Fdmfl%3A0")
    shown = again.get_by_role("dialog").inner_text()
    assert "(failed)" in shown and "Attempt 1: Training, failed" in shown and "code" in shown


def test_the_end_of_a_log_is_shown(chromium, database, tmp_path):
    data = page_data(database, gather(database).results, [one(gather(database).tables, "table1")])
    data["trials"][0]["attempts"][0]["end"] = "<b>the last line</b>\n</script>"
    path = tmp_path / "report.html"
    path.write_text(render_page(data), encoding="utf-8")
    page = chromium.new_page()
    page.goto(f"{path.as_uri()}#open=table1%3Aresnet18%2Fbaseline%3A0")
    dialog = page.get_by_role("dialog")
    assert "Log of attempt 1: the last 2 lines" in dialog.inner_text()
    # In the dialog, where it is seen and copied from.
    dialog.get_by_role("button", name="Copy path").first.click()
    dialog.get_by_text("Path copied").wait_for(timeout=20_000)
    assert page.get_by_role("dialog").locator("pre").inner_text() == "<b>the last line</b>\n</script>"
    page.close()


def test_cells_are_reached_and_opened_by_the_keyboard_alone(visit):
    page = visit()
    # One stop of the Tab key for all of a table; arrows go on from there.
    stops = (
        page.locator("#table1 > .wide").locator("button, input, [tabindex]").and_(page.locator(":not([tabindex='-1'])"))
    )
    assert stops.count() == 1 and page.locator("#table1 > .wide").get_attribute("tabindex") is None
    stops.focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight", "ArrowLeft"):
        page.keyboard.press(key)
    label = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert "BYOT" in label and "ResNet-18" in label
    page.keyboard.press("Enter")
    assert page.get_by_role("dialog").is_visible()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == label
    # Sorting and ticking as well.
    head(page, "ECE").focus()
    page.keyboard.press("Enter")
    assert page.locator("#table1 [aria-sort=ascending]").count() == 1
    row(page, "resnet18/pskd").get_by_role("checkbox").focus()
    page.keyboard.press("Space")
    assert chosen(page)["table1.pick"] == ["resnet18/pskd"]
    assert page.evaluate("document.activeElement.type") == "checkbox"


def test_the_tab_key_reaches_the_charts_after_few_stops(visit):
    page = visit()
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the charts")
    assert skip.evaluate("link => link === document.activeElement") and skip.is_visible()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "explore-plane"
    # Without it: the tools of every table, and the table.
    links = page.locator("main > a, nav a").count()
    page = visit()
    inside = "document.activeElement.closest('.explore') !== null"
    pressed = 0
    while not page.evaluate(inside):
        page.keyboard.press("Tab")
        pressed += 1
    assert pressed <= links + 5 * page.locator("main > section:has(table)").count() + 1


def test_a_stop_that_is_filtered_or_hidden_away_leaves_another(visit):
    page = visit()
    row(page, "resnet18/pskd").get_by_role("button").nth(2).focus()
    page.get_by_role("searchbox", name="Filter rows of Table 1").fill("resnet-50")
    stops = page.locator("#table1 > .wide [tabindex='0']")
    assert stops.count() == 1 and stops.is_visible()


@pytest.mark.parametrize("width", [360, 700])
def test_a_row_keeps_its_name_in_sight_while_its_table_scrolls(visit, width):
    page = visit(width=width)
    wide = page.locator("#table1 > .wide")
    assert wide.evaluate("wide => wide.scrollWidth > wide.clientWidth")
    wide.evaluate("wide => { wide.scrollLeft = 10_000; }")
    left = wide.bounding_box()["x"]
    for name in (row(page, "resnet18/pskd").locator("td.label").first, wide.locator("thead th").first):
        box = name.bounding_box()
        assert left <= box["x"] and box["x"] + box["width"] <= left + width / 2
        # Nothing lies over it.
        assert name.evaluate(
            "(name, [x, y]) => { name.scrollIntoView({ block: 'center', behavior: 'instant' });"
            " const box = name.getBoundingClientRect();"
            " return name.contains(document.elementFromPoint(box.x + x, box.y + y)); }",
            [12, 6],
        )


def test_a_page_of_one_seed_speaks_of_no_seeds(visit_one_seed):
    page = visit_one_seed()
    for part in ("#explore-curves", "#explore-plane", "#explore-fields"):
        if page.locator(part).count():
            assert not re.search(r"over seeds|single seeds|deviation", page.locator(part).inner_text(), re.IGNORECASE)
    assert page.locator("#explore-curves path.line").count() == 8
