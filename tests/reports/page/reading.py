"""Read what a page shows in a browser."""

from __future__ import annotations

from urllib.parse import parse_qs


def order(page, table: str, group: str) -> list[str]:
    """The rows of one group of a table, as they stand."""
    ids = page.locator(f"section#{table} > .wide tbody tr:not(.group)").evaluate_all("rows => rows.map(row => row.id)")
    return [each.split("/")[1] for each in ids if each.startswith(f"{table}:{group}/")]


def chosen(page) -> dict[str, list[str]]:
    """Return what the page's address says of the view, by key."""
    # `page.url` follows an event of the browser, later than what the page itself sees.
    return parse_qs(page.evaluate("location.hash").removeprefix("#"))


def row(page, name: str, table: str = "table1"):
    return page.locator(f"[id='{table}:{name}']")


def head(page, title: str, table: str = "table1"):
    return page.locator(f"section#{table} > .wide thead").get_by_role("button", name=title)


def lines(page) -> list[str]:
    return page.locator("#explore-curves path.line").evaluate_all("lines => lines.map(line => line.dataset.line)")
