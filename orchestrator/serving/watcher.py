"""Look at the database while anybody looks at the page, and make the page anew when the results have changed."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from orchestrator import exit_codes
from orchestrator.serving.state import Seen

# Looks at the database, and pages made anew, take at most so much of the time each: trials may need the processor.
SHARE = 0.1


class Watcher:
    """State and HTML of the page, the newest of both, for all viewers.

    `look` reads the state, `build` makes the HTML of a version; both block, and raise errors with an `exit_code` where
    the database cannot be read. `every` is the time between two looks, in seconds.
    """

    def __init__(self, look: Callable[[], Seen], build: Callable[[int], str], every: float) -> None:
        self._look, self._build, self._every = look, build, every
        # A thread for each: a page that takes seconds does not hold up the state.
        self._looking, self._building = (ThreadPoolExecutor(1, name) for name in ("look", "build"))
        self._viewers = 0
        self._looked_at = asyncio.Event()
        self._changed = asyncio.Condition()
        self._one_build = asyncio.Lock()
        self._seen: dict[str, Any] = {}
        # Why the state, and why the page, could not be read last time.
        self._problems: dict[str, str] = {}
        self._mark: Hashable = None
        self._built_mark: Hashable = None
        self._built_at, self._took = -float("inf"), 0.0
        self.page: str | None = None
        self.page_version = 0
        # Distinguishes this server's states from those of one that had the port before.
        self._instance = secrets.token_hex(4)
        self._number = 0
        self.state = ""

    @property
    def version(self) -> str:
        """Return the name of the newest state; empty before the first."""
        return f"{self._instance}-{self._number}" if self._number else ""

    async def run(self) -> None:
        """Look again and again while there are viewers; ends when it is cancelled."""
        try:
            async with asyncio.TaskGroup() as builds:
                while True:
                    await self._looked_at.wait()
                    began = time.monotonic()
                    await self.refresh()
                    took = time.monotonic() - began
                    if self._due() and not self._one_build.locked():
                        builds.create_task(self._make())
                    await asyncio.sleep(max(self._every, took / SHARE))
        finally:
            for executor in (self._looking, self._building):
                executor.shutdown(wait=False, cancel_futures=True)

    async def refresh(self) -> None:
        """Look at the database once, and tell the viewers what has changed."""
        try:
            seen = await asyncio.get_running_loop().run_in_executor(self._looking, self._look)
        except Exception as error:
            self._note("state", error)
        else:
            self._seen, self._mark = seen.state, seen.mark
            self._problems.pop("state", None)
        await self._publish()

    async def current_page(self) -> str | None:
        """Return the page, made anew where it is old; None where there is none yet, for the reason in `problem`."""
        await self.refresh()
        if self.page is None or self._due():
            await self._make()
        return self.page

    @property
    def problem(self) -> str | None:
        """Return why the database cannot be read now."""
        return next(iter(self._problems.values()), None)

    @asynccontextmanager
    async def viewer(self) -> AsyncIterator[None]:
        """Count a viewer in the context: without any, nobody looks at the database."""
        self._viewers += 1
        self._looked_at.set()
        try:
            yield
        finally:
            self._viewers -= 1
            if not self._viewers:
                self._looked_at.clear()

    async def newer(self, version: str, seconds: float) -> bool:
        """Wait for a state of another version than this one; false after so many seconds without one."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(lambda: self.version not in ("", version))
        except TimeoutError:
            return False
        return True

    def _due(self) -> bool:
        """Return whether the page is old, and was not made just now."""
        pause = max(self._every, self._took / SHARE)
        return self._mark != self._built_mark and time.monotonic() - self._built_at >= pause

    async def _make(self) -> None:
        """Make the page anew, unless another viewer who waited for it has made it meanwhile."""
        async with self._one_build:
            if not (self.page is None or self._due()):
                return
            mark, version, began = self._mark, self.page_version + 1, time.monotonic()
            try:
                page = await asyncio.get_running_loop().run_in_executor(self._building, self._build, version)
            except Exception as error:
                self._note("page", error)
            else:
                self.page, self.page_version, self._built_mark = page, version, mark
                self._problems.pop("page", None)
            self._built_at = time.monotonic()
            self._took = self._built_at - began
        await self._publish()

    def _note(self, what: str, error: Exception) -> None:
        """Keep the message of an error that was foreseen, and what was read before; any other is a bug."""
        if exit_codes.of(error) is None:
            raise error
        self._problems[what] = str(error)

    async def _publish(self) -> None:
        state = json.dumps({**self._seen, "page": self.page_version, "problem": self.problem}, allow_nan=False)
        if state != self.state:
            async with self._changed:
                self.state, self._number = state, self._number + 1
                self._changed.notify_all()
