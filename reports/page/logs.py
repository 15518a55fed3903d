"""The ends of attempts' logs, as many as a page has room for."""

from __future__ import annotations

from orchestrator.logs import log_end

# Bytes of all logs on a page: a page of many trials must stay small enough for a mail.
ALL_TAILS = 1_000_000


class Tails:
    """Read the ends of logs until `room` bytes are used up; `left_out` counts those after that."""

    def __init__(self, room: int = ALL_TAILS) -> None:
        self.room = room
        self.left_out = 0

    def read(self, log: str | None, key: str, host: str | None) -> str | None:
        """Return what `log_end` returns, and None also where no room is left."""
        end = log_end(log, key, host)
        if end and self.room <= 0:
            self.left_out += 1
            return None
        self.room -= len((end or "").encode())
        return end
