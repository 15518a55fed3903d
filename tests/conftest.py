"""What all tests share: the run ends in pytest's own last line."""

from __future__ import annotations

import atexit
import os


def _close_standard_error() -> None:
    """Silence what Triton's library prints as the process ends: what its users still hold, which it calls leaks.

    There is no setting for it. Exit handlers run in reverse order, so that all others can still be heard.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


atexit.register(_close_standard_error)
