"""Turn the signals that ask a program to end into an orderly stop."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

from orchestrator.errors import OrchestrateError


class Interrupted(OrchestrateError):
    """A signal asked the run to stop; what was recorded stays."""

    def __init__(self, number: int) -> None:
        name = signal.Signals(number).name
        super().__init__(f"interrupted ({name}): what was recorded stays, and the same command goes on from there")
        self.exit_code = 128 + number


received: list[int] = []


def stop_signal() -> int | None:
    """Return the signal that has asked the run to stop, if any has."""
    return received[0] if received else None


@contextlib.contextmanager
def handled_signals() -> Iterator[list[int]]:
    """Have the signals that ask a program to end raise KeyboardInterrupt; yields their numbers."""
    numbers: list[int] = [signal.SIGINT, signal.SIGTERM]
    # Not where `nohup` ignores it.
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        numbers.append(signal.SIGHUP)
    del received[:]
    handlers = {number: signal.signal(number, _leave) for number in numbers}
    try:
        yield numbers
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _leave(number: int, frame: object) -> None:
    received.append(number)
    raise KeyboardInterrupt


def remember(number: int, frame: object) -> None:
    """Note a signal instead of ending anywhere; the third signal ends the process at once."""
    received.append(number)
    if len(received) > 2:
        raise KeyboardInterrupt
