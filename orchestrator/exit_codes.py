"""Exit codes of the commands, for programs that start `orchestrate`.

An expected error carries its exit code as the attribute `exit_code`; an error without one is a bug and shows its
traceback.
"""

from __future__ import annotations

import errno
import os

DONE, SOME_FAILED, BAD_INPUT, BUSY = 0, 1, 2, 3
# The machine has failed, and the same command may succeed later: EX_TEMPFAIL of sysexits.h.
TRY_AGAIN = os.EX_TEMPFAIL
INTERRUPTED = 130

_MACHINE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN),
    *(errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH),
    *(errno.ECONNREFUSED, errno.ECONNRESET, errno.EADDRINUSE),
}


def of_system(error: OSError) -> int:
    """Return TRY_AGAIN for an error of the machine that may pass, BAD_INPUT for any other."""
    return TRY_AGAIN if error.errno in _MACHINE else BAD_INPUT
