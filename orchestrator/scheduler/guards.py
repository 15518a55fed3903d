"""Watch the Ray that trials run on: when it ends, the run ends within a minute, with its reason and exit code."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import psutil

from orchestrator.exit_codes import TRY_AGAIN
from orchestrator.scheduler.addresses import (
    RayAway,
    cluster_id,
    find_head,
    identify_cluster,
    listens,
    refuse_apart,
    refuse_silent,
)

# Names of the processes without which a Ray node cannot work.
VITAL = ("gcs_server", "raylet")
# Seconds for an orderly end. A minute after its GCS is gone, Ray aborts the process wherever it is, without a reason.
ORDERLY_SECONDS = 15.0
# How long, in seconds, the head of a cluster may be silent: with the orderly end, less than that minute. A head that
# keeps its state in Redis may be back in between.
SILENT_SECONDS = 30.0
# How often, in seconds, to ask a head that listens all the time whether it is another.
ASK_SECONDS = 5.0


class Guard(ABC):
    """Context that watches a Ray while trials run.

    The run itself checks `ended` between its steps. Inside a call to Ray it cannot, and there Ray ends the process when
    its GCS is gone. So a thread gives the run `orderly` seconds, then prints the reason and ends the process first.
    That leaves behind what any killed driver does: its claims and open attempts, which the next run takes back, the
    temporary folders of its code and of Tune, and, on a cluster, its workers, which end with their nodes or their job.
    """

    # Seconds between two looks, and for an orderly end.
    pause: float
    orderly = ORDERLY_SECONDS

    def __init__(self, say: Callable[[str], None] | None = None, leave: Callable[[int], Any] = os._exit) -> None:
        self._say, self._leave = say or _say, leave
        self._over = threading.Event()

    def __enter__(self) -> Guard:
        threading.Thread(target=self._watch, daemon=True, name="guard of Ray").start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    @abstractmethod
    def ended(self) -> str | None:
        """Return the error message once the Ray has ended; Tune never notices."""

    def started(self) -> list[psutil.Process]:
        """Return the processes of the Ray that were started within the context."""
        return []

    def stop(self) -> None:
        """Stop watching, unless the Ray has ended already: its shutdown might then never end."""
        if self.ended() is None:
            self._over.set()

    @abstractmethod
    def _look(self) -> None: ...

    def _watch(self) -> None:
        reported: set[type[Exception]] = set()
        while not self._over.wait(self.pause):
            try:
                self._look()
            except Exception as error:
                if type(error) not in reported:
                    reported.add(type(error))
                    self._say(f"warning: could not look after Ray, and will try again: {type(error).__name__}: {error}")
            if (reason := self.ended()) and not self._over.wait(self.orderly):
                for process in self.started():
                    with contextlib.suppress(psutil.Error):
                        process.kill()
                self._say(f"error: {reason}")
                self._leave(TRY_AGAIN)


class PrivateGuard(Guard):
    """Guard of a private Ray, by its vital processes."""

    pause = 0.5

    def __init__(self, say: Callable[[str], None] | None = None, leave: Callable[[int], Any] = os._exit) -> None:
        super().__init__(say, leave)
        self._vital: dict[int, psutil.Process] = {}
        self._before = frozenset[psutil.Process]()

    def __enter__(self) -> Guard:
        self._before = frozenset(psutil.Process().children())
        return super().__enter__()

    def ended(self) -> str | None:
        """Return the error message when a vital process has ended."""
        for process in list(self._vital.values()):
            if not _alive(process):
                return (
                    f"Ray ended: its process {process.pid} was killed or crashed (out of memory?); what was recorded "
                    "stays, and the same command goes on from there"
                )
        return None

    def started(self) -> list[psutil.Process]:
        """Return the processes started within the context: children of this process, and their children.

        Processes that ran before are no part of Ray, for example the resource tracker of `multiprocessing`.
        """
        started = []
        for child in psutil.Process().children():
            if child not in self._before:
                started.append(child)
                with contextlib.suppress(psutil.NoSuchProcess):
                    started += child.children(recursive=True)
        return started

    def _look(self) -> None:
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process().children():
                if child not in self._before and child.pid not in self._vital and child.name() in VITAL:
                    self._vital[child.pid] = child


class HeadGuard(Guard):
    """Guard of a cluster, by its head: whether it listens, and is still the one that this run has joined.

    When Ray meets another head at the address, it aborts the process at once. So the guard then ends it at once as
    well, without an orderly end; see `Guard` for what that leaves behind.
    """

    pause = 1.0

    def __init__(
        self, given: str, say: Callable[[str], None] | None = None, leave: Callable[[int], Any] = os._exit
    ) -> None:
        super().__init__(say, leave)
        self.given = given
        self._head: tuple[str, str] | None = None
        # When the head last listened, and when it was last asked for its cluster's id.
        self._heard = self._asked = 0.0
        self._reason: str | None = None

    def join(self) -> str:
        """Find the head for the address that was given, and begin to watch it; returns its host:port.

        Raises SchedulerError where this program cannot join the cluster.
        """
        address = find_head(self.given)
        self.watch(address, identify_cluster(address))
        refuse_apart(address)
        return address

    def watch(self, address: str, identity: str) -> None:
        """Begin to watch the head at host:port of the cluster with an id (`cluster_id`)."""
        self._heard = self._asked = time.monotonic()
        self._head = address, identity

    def ended(self) -> str | None:
        """Return the error message when the head is silent, or was started anew and knows nothing of this run."""
        return self._reason

    def _look(self) -> None:
        if self._head is None or self._reason:
            return
        address, joined = self._head
        goes_on = "what was recorded stays, and the same command goes on from there"
        now = time.monotonic()
        if not listens(address):
            self.pause, self._asked = 0.1, 0.0
            if now - self._heard > SILENT_SECONDS:
                self._reason = f"Ray ended: the head of its cluster, {address}, is silent; {goes_on} once it answers"
            return
        self._heard = now
        if now - self._asked > ASK_SECONDS and (present := _cluster_now(address)):
            self.pause, self._asked = HeadGuard.pause, now
            if present != joined:
                self.orderly = 0.0
                self._reason = f"Ray ended: its cluster at {address} was started anew during the run; {goes_on}"


def _cluster_now(address: str) -> str | None:
    """Return the id of the cluster at host:port; None where it does not answer in time, as on a busy machine."""
    from ray.exceptions import AuthenticationError, RayError

    try:
        refuse_silent(address)
        return cluster_id(address)
    except AuthenticationError:
        # No id: a head that takes another key is another head.
        return "with another key"
    except (RayAway, RayError):
        return None


def _say(line: str) -> None:
    # Shows the cursor again, which a display may have hidden. Not through `sys.stderr`: its lock may be held.
    cursor = "\x1b[?25h" if sys.stderr and sys.stderr.isatty() else ""
    with contextlib.suppress(OSError):
        os.write(2, f"{cursor}{line}\n".encode())


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
