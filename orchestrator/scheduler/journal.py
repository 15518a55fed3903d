"""Writes to the database in order, in a thread of their own, so that trials go on while the database is away."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable

# How long, in seconds, the driver waits for a write before it goes on without it.
PROMPT_SECONDS = 2.0


class Journal:
    """Runs writes one after the other. While the database is available, `write` returns when its write is done."""

    def __init__(self) -> None:
        self._works: deque[tuple[str, Callable[[], object]]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._problem: BaseException | None = None
        self._late = self._closed = False

    def write(self, kind: str, work: Callable[[], object]) -> None:
        """Run a write, or queue it while the database is away; raises the error of an earlier write.

        `kind` is the name by which `unwritten` counts the write.
        """
        self.look()
        with self._changed:
            if self._closed:
                raise RuntimeError("the journal is closed")
            self._works.append((kind, work))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
                self._thread.start()
        if not self._late:
            self._late = not self.settled(PROMPT_SECONDS)

    def look(self) -> None:
        """Raise the error of a failed write; the writes queued after it are not done."""
        if self._problem is not None:
            raise self._problem

    def settled(self, seconds: float) -> bool:
        """Wait for at most `seconds` until everything is written; returns whether it is. Raises as `look`."""
        done = self._ended(seconds)
        self.look()
        return done

    def close(self, tick: Callable[[], None] = lambda: None) -> None:
        """Wait until everything is written or a write has failed; after this, nothing is written any more.

        `tick` is called about every second. There is no timeout here: the writes have their own.
        """
        try:
            while not self._ended(1.0):
                tick()
        finally:
            with self._changed:
                self._closed = True

    def unwritten(self) -> Counter[str]:
        """Return how many writes are not done, by kind, a failed one included."""
        with self._changed:
            return Counter(kind for kind, _ in self._works)

    def _ended(self, seconds: float) -> bool:
        """Wait for at most `seconds` until the thread is idle; returns whether it is not."""
        end = time.monotonic() + seconds
        with self._changed:
            while self._thread is not None and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
            return self._thread is None

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._works or self._problem is not None or self._closed:
                    self._thread, self._late = None, False
                    self._changed.notify_all()
                    return
                _, work = self._works[0]
            try:
                work()
            except BaseException as error:
                self._problem = error
            else:
                self._works.popleft()
