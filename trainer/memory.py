"""Keep freed memory with the process, so that the kernel need not clear the same pages again."""

from __future__ import annotations

import ctypes

# The names of glibc's malloc.h; a threshold of -1 is never reached, however much is free.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
NEVER = -1


def keep_freed_memory() -> None:
    """Have this process keep the memory that it frees, for its next allocation.

    On a CPU every step allocates the same large tensors. Given back to the kernel in between, each page of them is
    cleared and mapped anew, which takes some percent of the time. Does nothing where the C library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, NEVER)
