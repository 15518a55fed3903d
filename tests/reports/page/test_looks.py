"""The page without scripts, on paper, in every width and colour, with odd names, in a real browser."""

from __future__ import annotations

import pytest

from reports.gathering import gather
from reports.page import page_data, render_page
from tests.reports.page.reading import row
from tests.reports.synthetic import configuration, make_database

# The least contrast (WCAG) of texts and of lines with what is behind them, and the lightness of the page.
CONTRASTS = """() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const linear = (v) => v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
  const light = (colour) => {
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map(linear);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = getComputedStyle(document.body).backgroundColor;
  const back = (e) => {
    for (; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (!colour.startsWith('rgba(0, 0, 0, 0')) return colour;
    }
    return paper;
  };
  const ratio = (a, b) => {
    const [low, high] = [light(a), light(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const least = (all, of) => Math.min(...[...document.querySelectorAll(all)].map(of));
  const texts = `h1, h2, h3, h4, p:not(#status), a, th, td, .unit, .spread, .seeds, li, label, summary, button, dt, dd,
    .chart text`;
  const ink = (e) => getComputedStyle(e)[e instanceof SVGElement ? 'fill' : 'color'];
  const line = (e) => ratio(getComputedStyle(e).stroke, back(e));
  return [least(texts, (e) => ratio(ink(e), back(e))), least('.chart path.line', line), light(paper)];
}"""
# Whatever can be used and has no name.
NAMELESS = """() => {
  const usable = 'button, input, select, summary, a, [role=application], [role=button], [role=region], dialog';
  const name = (e) => e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.[0]?.textContent.trim()
    || document.getElementById(e.getAttribute('aria-labelledby'))?.textContent.trim();
  return [...document.querySelectorAll(usable)].filter((e) => !name(e)).map((e) => e.outerHTML.slice(0, 200));
}"""


def test_without_scripts_every_table_and_picture_is_there(visit, tables):
    page = visit(java_script_enabled=False)
    for name, table in tables.items():
        assert page.locator(f"section#{name} tbody tr:not(.group)").count() == len(table.rows)
    assert page.locator(".tools").count() == 0 and not page.locator(".hint").is_visible()
    assert "↕" not in page.locator("thead .name").first.evaluate("e => getComputedStyle(e, '::after').content")


@pytest.mark.parametrize("width", [360, 768, 1280, 2000])
def test_nothing_is_wider_than_the_page(visit, width):
    page = visit("#table1.pick=resnet18%2Fpskd&table1.pick=resnet18%2Fbyot", width=width)
    wide = page.evaluate(
        """[...document.querySelectorAll('body *')].filter((e) => e.scrollWidth > e.clientWidth + 1
          && !(e instanceof SVGElement) && !e.closest('.wide, .away, select, .boxes, dialog')
          && getComputedStyle(e).display !== 'inline')
          .map((e) => `${e.tagName}.${e.className}`)"""
    )
    assert (wide, page.evaluate("document.documentElement.scrollWidth")) == ([], width)
    page.locator("#table1 summary", has_text="Columns").click()
    # The panel moves at an event that comes after the click.
    placed = "width => document.querySelector('#table1 .menu[open] .panel')?.getBoundingClientRect().right <= width"
    page.wait_for_function(placed, arg=width)
    assert page.locator("#table1 .menu[open] .panel").bounding_box()["x"] >= 0
    row(page, "resnet18/pskd").get_by_role("button").first.click()
    box = page.get_by_role("dialog").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_colour_schemes_are_readable(visit, scheme):
    """Every text against what is behind it, by the contrast ratio of WCAG; lines of charts against the page by 3."""
    page = visit(
        "#table1.pick=resnet18%2Fpskd&table1.pick=resnet18%2Fbyot&open=table1%3Aresnet18%2Fpskd%3A0",
        color_scheme=scheme,
    )
    worst, lines, paper = page.evaluate(CONTRASTS)
    assert (paper > 0.9) == (scheme == "light") and (paper < 0.05) == (scheme == "dark")
    assert worst >= 4.5 and lines >= 3


def test_everything_that_can_be_used_has_a_name(visit):
    page = visit("#open=table1%3Aresnet18%2Fpskd%3A0")
    nameless = page.evaluate(NAMELESS)
    assert nameless == []
    snapshot = page.get_by_role("dialog").aria_snapshot()
    assert "heading" in snapshot and 'button "Close"' in snapshot


def test_the_page_prints_its_tables_and_pictures_without_tools(visit):
    page = visit("#table1.pick=resnet18%2Fpskd&table1.pick=resnet18%2Fbyot", color_scheme="dark")
    page.emulate_media(media="print")
    assert page.locator(".tools:visible").count() == 0 and page.locator("td.pick:visible").count() == 0
    assert page.locator("#explore-curves svg path.line").count() and page.locator("#table1 .comparison").is_visible()
    # Hints are for the mouse, and lines without a tick are not drawn.
    assert page.locator(".readout:visible").count() == page.locator(".hint:visible").count() == 0
    named = page.locator("#explore-curves .legend label:visible").count()
    assert named == page.locator("#explore-curves .legend input:checked").count() > 1
    assert named < page.locator("#explore-curves .legend label").count()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.pdf().startswith(b"%PDF")


def test_lines_differ_in_more_than_colour(visit):
    page = visit()
    page.locator("#explore-curves").get_by_role("button", name="All").click()
    styles = page.locator("#explore-curves path.line").evaluate_all(
        "lines => lines.map((e) => e.getAttribute('stroke') + ' ' + e.getAttribute('stroke-dasharray'))"
    )
    assert len(set(styles)) == len(styles) and len({each.split(" ", 1)[1] for each in styles}) == 6


def test_names_from_anywhere_are_texts_and_never_run(chromium, tmp_path):
    nasty = """</script><img src=x onerror="document.title='owned'"> "q" 模型 \u202egnorw\u202c """ + "x" * 10_000

    def filling(filler):
        several = [(f"{nasty}{method}", configuration(method), {"epochs": 2}) for method in ([], ["pskd"])]
        filler.grid(nasty[:90], {}, several)
        for attempt in filler.rows[list(filler.rows)[3]]:
            attempt |= {"error_text": nasty, "log": nasty, "device": nasty, "host": nasty}

    with make_database(tmp_path / "results.db", filling) as database:
        gathered = gather(database)
        data = page_data(database, gathered.results, gathered.tables)
    path = tmp_path / "report.html"
    path.write_text(render_page(data), encoding="utf-8")
    page = chromium.new_page(viewport={"width": 360, "height": 800})
    page.goto(path.as_uri())
    page.locator("tbody button.open").nth(1).click()
    assert page.title() == f"Results: {nasty[:90]}" and nasty in page.get_by_role("dialog").text_content()
    assert page.locator("img").count() == 0 and page.evaluate("document.documentElement.scrollWidth") == 360
    page.close()
