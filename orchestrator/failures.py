"""Why a trial failed: its class, which decides what happens next, and a fingerprint that groups equal causes."""

from __future__ import annotations

import errno
import hashlib
import re
import traceback
from dataclasses import asdict, dataclass
from typing import Any

INFRASTRUCTURE, OUT_OF_MEMORY, DIVERGED, DATA, CODE = "infrastructure", "out_of_memory", "diverged", "data", "code"

# Not the program's doing: a full or vanished disk, too many open files, a stale network handle.
_MACHINE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE, errno.EMFILE, errno.ENFILE}

REMEDIES = {
    INFRASTRUCTURE: "the machine or its storage failed; it was retried and can be again",
    OUT_OF_MEMORY: "the device's memory did not suffice, not even alone; use a larger device or a smaller batch_size",
    DIVERGED: "the loss stopped being a number; lower learning_rate, or leave the cell as diverged",
    DATA: "the data set is missing or damaged; repair it",
    CODE: "the program raised an error; the traceback names the place",
}

# What Ray's paragraphs on a lost process come down to.
_LOSSES = {
    "running low on memory": "Ray killed it, because its node ran low on memory",
    "node has (died|crashed)|node was terminated|is unavailable": "its node was lost or could not be reached",
    "connection error code 2": "it was killed or crashed (SIGKILL, the kernel's lack of memory, a segmentation fault)",
}


@dataclass(frozen=True)
class Failure:
    """A failure as the database keeps it. `text` is the message followed by the traceback."""

    error_class: str
    text: str
    fingerprint: str

    def to_dict(self) -> dict[str, Any]:
        """Plain strings."""
        return asdict(self)

    @property
    def message(self) -> str:
        """The first line."""
        return self.text.splitlines()[0] if self.text else self.error_class


def failure_of(error: BaseException) -> Failure:
    """Classify an exception that ended a trial."""
    kind = _classify(error)
    message = f"{type(error).__name__}: {error}".strip()
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].name}" if frames else ""
    trace = "".join(traceback.format_exception(error))
    return Failure(kind, f"{message}\n{trace}", fingerprint(kind, type(error).__name__, place, message))


def process_ended(report: str, which: str = "the trial's process") -> Failure:
    """The failure of a trial whose process vanished, from what Ray says of it."""
    # Tune writes every loss of a trial into one file.
    newest = re.split(r"^Failure # \d+ \(.*\)$", report, flags=re.MULTILINE)[-1].strip()
    return infrastructure_failure(f"{which} ended: {_reason(newest)}", newest)


def infrastructure_failure(message: str, details: str = "") -> Failure:
    """The failure of a trial whose process vanished or hung."""
    return Failure(INFRASTRUCTURE, f"{message}\n{details}".strip(), fingerprint(INFRASTRUCTURE, message))


def fingerprint(*parts: str) -> str:
    """16 hex digits, equal for messages that differ only in numbers, addresses or paths."""
    text = "\0".join(re.sub(r"/\S+|0x[0-9a-f]+|[0-9a-f]{12,}|\d+(\.\d+)?", "#", part) for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _reason(report: str) -> str:
    raised = re.findall(r"^[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt)\b.*", report, re.MULTILINE)
    if raised:
        return raised[-1]
    for sign, reason in _LOSSES.items():
        if re.search(sign, report):
            return reason
    return next((line.strip() for line in reversed(report.splitlines()) if line.strip()), "no reason given")


def _classify(error: BaseException) -> str:
    names = {cls.__name__ for cls in type(error).__mro__}
    if isinstance(error, MemoryError) or "OutOfMemoryError" in names or "out of memory" in str(error).lower():
        return OUT_OF_MEMORY
    if "Diverged" in names:
        return DIVERGED
    if "DataError" in names:
        return DATA
    if isinstance(error, ConnectionError | TimeoutError) or "StorageError" in names:
        return INFRASTRUCTURE
    if isinstance(error, OSError) and error.errno in _MACHINE_ERRORS:
        return INFRASTRUCTURE
    return CODE
