"""The end of an attempt's log, where the log lies on this machine."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path

# Bytes of one log, and of all logs on a page: a page of many trials must stay small enough for a mail.
TAIL = 4_000
ALL_TAILS = 1_000_000


class Tails:
    """Read the ends of logs until `room` bytes are used up; `left_out` counts those after that."""

    def __init__(self, room: int = ALL_TAILS) -> None:
        self.room = room
        self.left_out = 0

    def read(self, log: str | None, key: str, host: str | None) -> str | None:
        """Return the last lines of the log of a trial's attempt on `host`.

        None where it cannot be read from here, and where no room is left. A path that is not named as logs of this
        trial are is never opened: a database may come from anybody, and a page may go to anybody.
        """
        if not log or host != socket.gethostname():
            return None
        path = Path(log)
        if not (path.name.startswith(f"{key[:8]}-") and path.suffix == ".log"):
            return None
        with suppress(OSError), path.open("rb") as file:
            size = path.stat().st_size
            if not size:
                return ""
            if self.room <= 0:
                self.left_out += 1
                return None
            file.seek(max(0, size - TAIL))
            end = file.read(TAIL)
            self.room -= len(end)
            if size > TAIL and b"\n" in end[:-1]:
                # From the first whole line on.
                end = end[end.index(b"\n") + 1 :]
            return end.decode("utf-8", errors="replace").rstrip("\n")
        return None
