"""A driver's writes, done in order by a thread of their own, so that trials go on while the database is away."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

# How long the driver waits for a write before it goes on without it.
PROMPT_SECONDS = 2.0


class Journal:
    """Does writes one after the other. While the database is there, `write` returns when its work is done."""

    def __init__(self) -> None:
        self._works: deque[Callable[[], object]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._problem: BaseException | None = None
        self._late = False

    def write(self, work: Callable[[], object]) -> None:
        """Do a work, or keep it for later where the database is away; raises what an earlier one has raised."""
        self.look()
        with self._changed:
            self._works.append(work)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
                self._thread.start()
        if not self._late:
            self._late = not self.settled(PROMPT_SECONDS)

    def look(self) -> None:
        """Raise what a work has raised; the works after it are not done."""
        if self._problem is not None:
            raise self._problem

    def settled(self, seconds: float) -> bool:
        """Wait for at most `seconds` until everything is written; returns whether it is. Raises as `look`."""
        end = time.monotonic() + seconds
        with self._changed:
            while self._thread is not None and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
            done = self._thread is None
        self.look()
        return done

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._works or self._problem is not None:
                    self._thread, self._late = None, False
                    self._changed.notify_all()
                    return
            try:
                self._works[0]()
            except BaseException as error:
                self._problem = error
            self._works.popleft()
