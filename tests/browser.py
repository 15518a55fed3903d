"""Find the browser that tests and pictures drive."""

from __future__ import annotations

import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# Containers run as root, where Chromium refuses its sandbox.
ARGUMENTS = ("--no-sandbox", "--disable-gpu")


def browser() -> str | None:
    """Return the path of an installed browser, None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)
