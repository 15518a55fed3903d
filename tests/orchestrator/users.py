"""Work in the place of an ordinary user, and in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

NOBODY = 65534

# The mode of a file of this user that `unprivileged` may not read: it is another user only where this one is root.
SECRET = 0o600 if os.geteuid() == 0 else 0o000
another_user = pytest.mark.skipif(os.geteuid() != 0, reason="a file of another user: only root can become one")


def unprivileged(work: Callable[[], object]) -> str:
    """Run `work` as an ordinary user (for root nothing is read-only); return what it returns or raises, as text."""

    def ordinary() -> object:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        return work()

    return in_a_process(ordinary)


def in_a_process(work: Callable[[], object]) -> str:
    """Run `work` in a process of its own, and return what it returns or raises, as text."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            message = str(work())
        except BaseException as error:
            message = f"{type(error).__name__}: {error}"
        os.write(writer, message.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        message = pipe.read()
    os.waitpid(child, 0)
    return message
