"""A page of 1,000 trials of 300 epochs: how large it is, and that a browser opens all of it."""

from __future__ import annotations

import pytest

from orchestrator.database import open_database
from reports.page import render_page
from reports.report import page_of
from tests.reports.big_database import fill

pytestmark = pytest.mark.slow


def test_a_thousand_trials_are_a_file_for_a_mail_and_open(chromium, tmp_path):
    fill(tmp_path / "results.db", 1000, 300)
    with open_database(tmp_path / "results.db", readonly=True) as database:
        data = page_of(database)
    path = tmp_path / "report.html"
    path.write_text(render_page(data), encoding="utf-8")
    assert path.stat().st_size <= 8_000_000
    lines = data["curves"]["lines"]
    assert len(lines) == 1000 and all(line["epochs"][-1] == 300 for line in lines)
    page = chromium.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector("html.alive")
    every = data["curves"]["every"]
    assert every > 1 and f"of {every} epochs one is drawn" in page.locator("#explore-curves").inner_text()
    page.locator("#table1 button.open").first.click()
    assert page.get_by_role("dialog").locator("details.trial").count() > 1
    paints = page.evaluate("performance.getEntriesByType('paint').map((each) => [each.name, each.startTime])")
    # Said, not asserted: a busy machine paints late.
    print(f"{path.stat().st_size / 1e6:.1f} MB", *(f"{name} {start:.0f} ms" for name, start in paints))
    page.close()
