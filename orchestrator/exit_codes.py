"""Exit codes of the commands, for programs that start `orchestrate`.

An error that is expected carries its own: `trainer.TrainerError`, `orchestrator.OrchestrateError` and
`reports.ReportError` have the attribute `exit_code`. One without it is a bug and shows its traceback.
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


def of(error: Exception) -> int | None:
    """Return the exit code of an error that was expected, None for a bug."""
    # A full disk or a lack of descriptors strikes anywhere; nobody has made that mistake.
    if isinstance(error, OSError) and of_system(error) == TRY_AGAIN:
        return TRY_AGAIN
    return getattr(error, "exit_code", None)
