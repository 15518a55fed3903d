"""Make the README's animated picture of the page: `python -m tests.reports.page.film results.db docs/images/page.webp`.

The database is one of the quickstart; the picture has 2 MB at most. Needs Chromium.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from orchestrator.database import open_database
from reports.page import render_page
from reports.report import page_of
from tests.browser import ARGUMENTS, browser

SIZE = {"width": 1000, "height": 640}
MOST_BYTES = 2_000_000


class Film:
    """Pictures of a page with the time that each is shown, in milliseconds."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.pictures: list[Image.Image] = []
        self.times: list[int] = []

    def take(self, milliseconds: int = 900) -> None:
        """Add what the page shows now."""
        self.pictures.append(Image.open(io.BytesIO(self.page.screenshot())).convert("RGB"))
        self.times.append(milliseconds)

    def scroll(self, selector: str) -> None:
        """Bring the top of an element into sight in a few steps."""
        script = f"window.scrollY + document.querySelector('{selector}').getBoundingClientRect().top - 12"
        start, end = self.page.evaluate("window.scrollY"), self.page.evaluate(script)
        for step in range(1, 5):
            top = start + (end - start) * step / 4
            self.page.evaluate("top => scrollTo({ top, behavior: 'instant' })", top)
            self.take(70)

    def save(self, path: Path) -> None:
        """Write the animation, coarser where it would be too large."""
        for quality in (80, 60, 40, 20):
            first, *others = self.pictures
            first.save(path, save_all=True, append_images=others, duration=self.times, loop=0, quality=quality)
            if path.stat().st_size <= MOST_BYTES:
                return
        raise SystemExit(f"{path} is larger than {MOST_BYTES:,} bytes; show less")


def play(film: Film) -> None:
    """Sort, compare two rows, open a trial, and read the charts."""
    page, table = film.page, film.page.locator("#table1")
    film.scroll("#table1")
    film.take(1200)
    table.locator("thead").first.get_by_role("button", name="NLL").click()
    film.take(1200)
    rows = table.locator("tbody tr:not(.group)")
    for row in (rows.first, rows.filter(has_text="baseline").first):
        row.locator("td.pick input").check()
        film.take(700)
    film.scroll("#table1 .comparison")
    film.take(3000)
    film.scroll("#table1")
    rows.first.locator("button.open").nth(3).click()
    film.take(3000)
    page.keyboard.press("Escape")
    film.scroll("#explore-plane")
    page.locator("#explore-plane svg").focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
        film.take(700)
    film.scroll("#explore-curves")
    curves = page.locator("#explore-curves")
    curves.get_by_role("combobox", name="Metric").select_option(label="NLL")
    film.take(1000)
    curves.locator(".chart svg").focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
        film.take(400)
    curves.get_by_label("Logarithmic").check()
    film.take(1500)
    film.scroll("#explore-fields")
    film.take(2000)


def main() -> None:
    location, out = sys.argv[1:3]
    with open_database(location, readonly=True) as database:
        text = render_page(page_of(database))
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "report.html"
        path.write_text(text, encoding="utf-8")
        opened = playwright.chromium.launch(executable_path=browser(), args=list(ARGUMENTS))
        page = opened.new_page(viewport=SIZE, reduced_motion="reduce")
        page.goto(path.as_uri())
        page.wait_for_selector("html.alive")
        film = Film(page)
        play(film)
        opened.close()
    film.save(Path(out))


if __name__ == "__main__":
    main()
