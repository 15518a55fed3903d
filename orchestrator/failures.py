"""Classes of failures, which decide what happens next, and fingerprints that group equal causes."""

from __future__ import annotations

import errno
import hashlib
import re
import resource
import sys
import traceback
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import ValidationError

from orchestrator.errors import OrchestrateError
from trainer.errors import RankLost, TrainerError

INFRASTRUCTURE, OUT_OF_MEMORY, DIVERGED, DATA, CODE = "infrastructure", "out_of_memory", "diverged", "data", "code"

# Not the program's doing: a full or vanished disk, too many open files, a stale network handle.
_MACHINE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE, errno.EMFILE, errno.ENFILE}

# What CUDA, cuDNN, cuBLAS, PyTorch and the C library say where memory was missing. A library's handle is not made
# ("NOT_INITIALIZED") where its first allocation fails, which is how it shows that other trials have filled the device.
_MEMORY = re.compile(
    r"out of memory|not enough memory|Cannot allocate memory|can't allocate memory|bad_alloc|can't start new thread"
    r"|failed to map segment|(CUBLAS|CUDNN|CUSOLVER|CUSPARSE|CUFFT)_(STATUS_)?(\w+_)?(ALLOC_FAILED|ALLOCATION_FAILED)"
    r"|(CUBLAS|CUDNN|CUSOLVER|CUSPARSE)_STATUS_NOT_INITIALIZED",
    re.IGNORECASE,
)
# The program's own doing, also where another library passes it on: a wrong index, a kernel for another card.
_PROGRAM = re.compile(
    r"illegal memory access|device-side assert triggered|misaligned address|illegal instruction|no kernel image"
)
# A GPU, its driver or its link that fails whatever program uses it.
_HARDWARE = re.compile(
    r"uncorrectable (ECC|NVLink)|ECC_UNCORRECTABLE|NVLINK_UNCORRECTABLE|hardware stack error|unspecified launch failure"
    r"|device\(?s?\)? (is/are|are|is) busy or unavailable|system not yet initialized|GPU is lost|fallen off the bus"
    r"|driver shutting down|driver on your system is too old|driver version is insufficient|unsupported display driver"
    r"|no CUDA-capable device|No CUDA GPUs are available|Unexpected error from cudaGetDeviceCount|GPU requires reset"
    r"|CUDA (error: )?unknown|contained (error|exception)|launch timed out|MPS (server|client|control)",
    re.IGNORECASE,
)
# A machine's sockets, links or shared memory, as NCCL, gloo and PyTorch's loaders tell of them. NCCL's "invalid usage"
# and "invalid argument" are the program's.
_SURROUNDINGS = re.compile(
    r"nccl(System|Remote|Internal|UnhandledCuda)Error|NCCL error.*(unhandled (system|cuda) error|remote process exited)"
    r"|shared memory segment|out of shared memory|DataLoader worker .*(is killed by signal|exited unexpectedly)"
    r"|[Cc]onnection (closed by|reset by|refused)|Timed out waiting|collective operation timeout"
)
_LOST_RANK = re.compile(r"remote process exited|ncclRemoteError|[Cc]onnection (closed|reset) by (remote )?peer")
# How PyTorch's loaders and Ray hand on what another process raised.
_PASSED_ON = re.compile(r"Caught \w+ in .*\n|\x1b\[\d+mray::|ray::.*\n")
# What an extension says that has no word for a failed allocation.
_WORDLESS = re.compile(r"error return without exception set|returned NULL without setting an exception")

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
    """A failure as the database keeps it. `text` is the message followed by the traceback.

    `lost_rank`: it says no more than that a rank has lost another one, whose own failure is the reason.
    """

    error_class: str
    text: str
    fingerprint: str
    lost_rank: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain strings."""
        return asdict(self)

    @property
    def message(self) -> str:
        """Return the first line."""
        return self.text.splitlines()[0] if self.text else self.error_class


def failure_of(error: BaseException, gpu: str = "") -> Failure:
    """Classify an exception that ended a trial.

    `gpu` names the device of the trial, if it had one: a fault of the hardware is of that device, so that the message
    names it, and faults of different GPUs are different causes.
    """
    kind = _classify(error)
    first, _, rest = _headline(error).partition("\n")
    faulty = gpu if kind == INFRASTRUCTURE and _HARDWARE.search(str(error)) else ""
    if faulty:
        first += f" ({faulty})"
    if limit := _address_space_limit(error):
        first += f" (the address space is limited to {limit / 2**30:.1f} GiB, see `ulimit -v`)"
    message = f"{first}\n{rest}".strip()
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].name}" if frames else ""
    trace = "".join(traceback.format_exception(error))
    # A broken GPU fails wherever the program happens to be.
    cause = (faulty,) if faulty else (fingerprint(type(error).__name__, place, message),)
    follows = isinstance(error, RankLost) or _LOST_RANK.search(first) is not None
    return Failure(kind, f"{message}\n{trace}", _digest((kind, *cause)), follows)


def _headline(error: BaseException) -> str:
    """Return what an exception says, with what is wrong in the first line, whatever its class makes of that."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    name, message = type(error).__name__, str(error).strip()
    if isinstance(error, ValidationError):
        from trainer.config import config_problems

        listed = config_problems(error)
        return "configuration: " + "; ".join(": ".join(filter(None, (".".join(path), what))) for path, what in listed)
    if _PASSED_ON.match(message):
        # The reason stands at the end of another process's traceback.
        return f"{message.splitlines()[-1].strip()}\n{message}"
    if message and not isinstance(error, KeyError | StopIteration):
        return f"{name}: {message}"
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno}: {frames[-1].line or ''}" if frames else ""
    what = f"key {message} is missing" if isinstance(error, KeyError) and message else message or "no message"
    return f"{name}: {what}" + (f" ({where.rstrip(': ')})" if where else "")


def process_ended(report: str, which: str = "the trial's process") -> Failure:
    """Return the failure of a trial whose process vanished, from Ray's report."""
    # Tune writes every loss of a trial into one file.
    newest = re.split(r"^Failure # \d+ \(.*\)$", report, flags=re.MULTILINE)[-1].strip()
    return infrastructure_failure(f"{which} ended: {_reason(newest)}", newest)


def infrastructure_failure(message: str, details: str = "") -> Failure:
    """Return the failure of a trial whose process vanished or hung."""
    return Failure(INFRASTRUCTURE, f"{message}\n{details}".strip(), fingerprint(INFRASTRUCTURE, message))


def fingerprint(*parts: str) -> str:
    """Return 16 hex digits, equal for messages that differ only in numbers, addresses or paths."""
    return _digest([re.sub(r"/\S+|0x[0-9a-f]+|[0-9a-f]{12,}|\d+(\.\d+)?", "#", part) for part in parts])


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _reason(report: str) -> str:
    raised: list[str] = re.findall(r"^[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt)\b.*", report, re.MULTILINE)
    if raised:
        return raised[-1]
    for sign, reason in _LOSSES.items():
        if re.search(sign, report):
            return reason
    return next((line.strip() for line in reversed(report.splitlines()) if line.strip()), "no reason given")


def _classify(error: BaseException) -> str:
    if isinstance(error, TrainerError | OrchestrateError):
        return error.failure
    text = str(error)
    # Nothing is out of a device's memory before PyTorch is loaded.
    torch_error = getattr(sys.modules.get("torch"), "OutOfMemoryError", MemoryError)
    if isinstance(error, MemoryError | torch_error) or _address_space_limit(error):
        return OUT_OF_MEMORY
    if isinstance(error, ConnectionError | TimeoutError):
        return INFRASTRUCTURE
    if isinstance(error, OSError):
        if error.errno == errno.ENOMEM:
            return OUT_OF_MEMORY
        return INFRASTRUCTURE if error.errno in _MACHINE_ERRORS else CODE
    # Of a library's own words only: a ValueError may quote anything.
    if isinstance(error, RuntimeError | ImportError | AssertionError) and not _PROGRAM.search(text):
        if _MEMORY.search(text):
            return OUT_OF_MEMORY
        if _HARDWARE.search(text) or _SURROUNDINGS.search(text):
            return INFRASTRUCTURE
    return CODE


def _address_space_limit(error: BaseException) -> int:
    """Return the limit in bytes on this process's address space where it explains an error without words; else 0."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    wordless = isinstance(error, SystemError) and _WORDLESS.search(str(error))
    return limit if wordless and limit != resource.RLIM_INFINITY else 0
