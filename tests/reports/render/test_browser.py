"""The page in a real browser without a screen: sorting, both colour schemes, nothing cut off."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from reports.render.html import html
from reports.report import gather
from tests.reports.lookup import one

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A function that runs the browser and returns what it prints; skips where none is installed."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser is installed (looked for {', '.join(BROWSERS)})")
    profile = tmp_path_factory.mktemp("profile")

    def run(*arguments: str) -> str:
        command = [
            found,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={profile}",
        ]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    return run


@pytest.fixture(scope="module")
def page(database, tmp_path_factory) -> Path:
    tables = gather(database).tables
    path = tmp_path_factory.mktemp("page") / "report.html"
    chosen = [one(tables, name) for name in ("overview", "table1", "table2")]
    path.write_text(html(chosen, [], "Results", "Some trials done."), encoding="utf-8")
    return path


def after(browser, page: Path, script: str) -> str:
    """The page's document after a script has run in it."""
    copy = page.with_name("scripted.html")
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", f"<script>{script}</script></body>"), "utf-8")
    return browser("--dump-dom", copy.as_uri())


def order(document: str, table: str, group: str) -> list[str]:
    """The rows of one group of a table, as they stand."""
    return re.findall(rf'<tr id="{table}:{group}/([^"]+)"', document)


CLICK = "document.querySelectorAll('#table1 thead button')[%d].click();"


def test_a_click_sorts_within_each_network_and_a_second_one_turns_it(browser, page, database):
    table = one(gather(database).tables, "table1")
    values = {row.key: row.entries[0].value for row in table.rows}
    rising = after(browser, page, CLICK % 2)
    falling = after(browser, page, CLICK % 2 * 2)
    for group in ("resnet18", "resnet50"):
        rows = [key.split("/")[1] for key in values if key.startswith(group)]
        known = sorted(
            (r for r in rows if values[f"{group}/{r}"] is not None), key=lambda r, g=group: values[f"{g}/{r}"]
        )
        missing = [row for row in rows if row not in known]
        # What has no number stays last, whichever way the others go.
        assert order(rising, "table1", group) == known + missing
        assert order(falling, "table1", group) == known[::-1] + missing
    assert rising.count('aria-sort="ascending"') == 1 and falling.count('aria-sort="descending"') == 1
    # The groups' headings stay on top of their rows.
    assert rising.index("ResNet-18 (") < rising.index('id="table1:resnet18/') < rising.index("ResNet-50 (")


def test_words_sort_as_words(browser, page):
    document = after(browser, page, CLICK % 0)
    rows = order(document, "table1", "resnet18")
    assert rows == ["baseline", "byot", "dmfl", "dmfl+byot", "pskd", "pskd+byot", "pskd+byot+dmfl", "pskd+dmfl"]


def test_nothing_is_wider_than_the_page(browser, page):
    measure = """
      const wide = [...document.querySelectorAll('body *')].filter((e) => e.scrollWidth > e.clientWidth + 1 &&
        !e.matches('.wide') && getComputedStyle(e).display !== 'inline').map((e) => e.tagName);
      document.body.dataset.wide = document.documentElement.scrollWidth > innerWidth ? 'page' : wide.join(' ');
    """
    document = after(browser, page, measure)
    assert re.search(r'<body data-wide="([^"]*)"', document)[1] == ""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_colour_schemes_are_readable(browser, page, scheme):
    """Every text against what is behind it, by the contrast ratio of WCAG."""
    script = """
      const linear = (v) => v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
      const light = (c) => { const [r, g, b] = c.match(/[\\d.]+/g).map(linear);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
      const back = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
        if (!c.startsWith('rgba(0, 0, 0, 0')) return c; } };
      let worst = 99;
      for (const e of document.querySelectorAll('h1, h2, p, a, th, td, .unit, .spread, .seeds, li')) {
        const [a, b] = [light(getComputedStyle(e).color), light(back(e))].sort((x, y) => x - y);
        worst = Math.min(worst, (b + 0.05) / (a + 0.05)); }
      document.body.dataset.worst = worst;
      document.body.dataset.paper = light(getComputedStyle(document.body).backgroundColor);
    """
    copy = page.with_name("scheme.html")
    copy.write_text(page.read_text("utf-8").replace("</body>", f"<script>{script}</script></body>"), "utf-8")
    setting = {"dark": 0, "light": 1}[scheme]
    document = browser(f"--blink-settings=preferredColorScheme={setting}", "--dump-dom", copy.as_uri())
    paper = float(re.search(r'data-paper="([^"]+)"', document)[1])
    assert (paper > 0.9) == (scheme == "light") and (paper < 0.05) == (scheme == "dark")
    assert float(re.search(r'data-worst="([^"]+)"', document)[1]) >= 4.5
