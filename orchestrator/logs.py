"""Logs of trials' attempts: their names, and their ends for people, where they lie on this machine."""

from __future__ import annotations

import os
import re
import socket
import stat
from contextlib import suppress
from pathlib import Path

# Bytes of a log's end.
END = 4_000


def log_name(key: str, number: int) -> str:
    """Return the file name of a log of the trial with this key."""
    return f"{key[:8]}-{number}.log"


def log_end(log: str | None, key: str, host: str | None) -> str | None:
    """Return the last lines of the log of a trial's attempt on `host`, at most `END` bytes; None where it is not here.

    A database may come from anybody, and what is read here may go to anybody. So only a regular file is read whose name
    is that of a log of this trial (`log_name`; the key is a sha256), and nothing that is opened can keep the reader
    waiting.
    """
    if not log or host != socket.gethostname() or not re.fullmatch("[0-9a-f]{64}", key):
        return None
    if not re.fullmatch(re.escape(key[:8]) + r"-[0-9]+\.log", Path(log).name):
        return None
    # ValueError: a path with a zero byte.
    with suppress(OSError, ValueError), open(log, "rb", opener=_open_at_once) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            return None
        file.seek(max(0, status.st_size - END))
        end = file.read(END)
        if status.st_size > END and b"\n" in end[:-1]:
            # From the first whole line on.
            end = end[end.index(b"\n") + 1 :]
        return end.decode("utf-8", errors="replace").rstrip("\n")
    return None


def _open_at_once(path: str, flags: int) -> int:
    """Open a file without waiting for a writer of a pipe, and not through a link."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)
