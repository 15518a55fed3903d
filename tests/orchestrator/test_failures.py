"""Failure classes and fingerprints."""

import errno
import resource
import subprocess
import sys

import pytest
import torch

from orchestrator.failures import failure_of, fingerprint, infrastructure_failure, process_ended
from orchestrator.storage import StorageAway
from trainer.checkpoint import CheckpointError
from trainer.datasets import DataAway, DataError
from trainer.errors import Diverged, RankLost
from trainer.paths import PathError


class Foreign(Exception):
    """An error that happens to be called as one of ours: its name says nothing."""


Foreign.__name__ = "DataError"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "out_of_memory"),
        (RuntimeError("CUDA error: out of memory"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (Diverged("the loss term 'cross_entropy' is not finite"), "diverged"),
        (DataError("cifar100: missing"), "data"),
        (CheckpointError("run.pt: cut off"), "code"),
        (StorageAway("s3://b/k: no answer"), "infrastructure"),
        (RankLost("another process of this training has ended"), "infrastructure"),
        (Foreign("the index of a column"), "code"),
        (DataAway("cifar100: could not be downloaded"), "infrastructure"),
        (PathError("/tmp/orchestrate-0 belongs to another user; set ORCHESTRATE_CACHE on this node"), "infrastructure"),
        (OSError(errno.ENOSPC, "No space left on device"), "infrastructure"),
        (OSError(errno.EIO, "Input/output error"), "infrastructure"),
        (ConnectionResetError("peer"), "infrastructure"),
        (PermissionError(errno.EACCES, "Permission denied"), "code"),
        (ValueError("bad shape"), "code"),
    ],
)
def test_class(error, expected):
    failure = failure_of(error)
    assert failure.error_class == expected
    assert failure.message.startswith(type(error).__name__)


NCCL = "NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.hpp:268, "
ASYNC = (
    "\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be "
    "incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\nCompile with `TORCH_USE_CUDA_DSA` to enable "
    "device-side assertions.\n"
)
# As the libraries word them, with the class that decides what happens next.
MESSAGES = [
    ("infrastructure", "CUDA error: uncorrectable ECC error encountered" + ASYNC),
    ("infrastructure", "CUDA error: uncorrectable NVLink error detected during the execution" + ASYNC),
    ("infrastructure", "CUDA error: unspecified launch failure" + ASYNC),
    ("infrastructure", "CUDA error: hardware stack error" + ASYNC),
    ("infrastructure", "CUDA error: unknown error" + ASYNC),
    ("infrastructure", "CUDA error: all CUDA-capable devices are busy or unavailable"),
    ("infrastructure", "CUDA error: CUDA-capable device(s) is/are busy or unavailable" + ASYNC),
    ("infrastructure", "CUDA error: no CUDA-capable device is detected" + ASYNC),
    ("infrastructure", "CUDA error: the launch timed out and was terminated" + ASYNC),
    ("infrastructure", "No CUDA GPUs are available"),
    (
        "infrastructure",
        "Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling NumCudaDevices() "
        "that might have already set an error? Error 802: system not yet initialized",
    ),
    (
        "infrastructure",
        "The NVIDIA driver on your system is too old (found version 12040). Please update your GPU driver by "
        "downloading and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx",
    ),
    ("infrastructure", "CUDA error: CUDA driver version is insufficient for CUDA runtime version" + ASYNC),
    (
        "infrastructure",
        NCCL + "unhandled system error (run with NCCL_DEBUG=INFO for details), NCCL version 2.21.5\nncclSystemError: "
        "System call (e.g. socket, malloc) or external library call failed or device error. \nLast error:\n"
        "Error while creating shared memory segment /dev/shm/nccl-LeXlEJ (size 9637888)",
    ),
    (
        "infrastructure",
        NCCL + "remote process exited or there was a network error, NCCL version 2.21.5\nncclRemoteError: A call "
        "failed possibly due to a network error or a remote process exiting prematurely.\nLast error:\n"
        "socketProgressOpt: Call to recv from 172.16.0.9<33759> failed : Connection reset by peer",
    ),
    (
        "infrastructure",
        NCCL + "internal error, NCCL version 2.14.3\nncclInternalError: Internal check failed.\nLast error:\n"
        "Net : Connection closed by remote peer user<50260>",
    ),
    ("infrastructure", "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.2]:41"),
    (
        "infrastructure",
        "DataLoader worker (pid 4711) is killed by signal: Bus error. It is possible that dataloader's workers are out "
        "of shared memory. Please try to raise your shared memory limit.",
    ),
    ("out_of_memory", "CUDA error: out of memory" + ASYNC),
    ("out_of_memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ("out_of_memory", "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    ("out_of_memory", "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
    ("out_of_memory", "cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ("out_of_memory", "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    (
        "out_of_memory",
        NCCL + "unhandled cuda error (run with NCCL_DEBUG=INFO for details), NCCL version 2.21.5\n"
        "ncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\nCuda failure 2 'out of memory'",
    ),
    (
        "out_of_memory",
        "[enforce fail at alloc_cpu.cpp:75] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 132426121216 bytes. Error code 12 (Cannot allocate memory)",
    ),
    ("out_of_memory", "can't start new thread"),
    ("code", "CUDA error: an illegal memory access was encountered" + ASYNC),
    ("code", "CUDA error: device-side assert triggered" + ASYNC),
    ("code", "CUDA error: misaligned address" + ASYNC),
    ("code", "CUDA error: no kernel image is available for execution on the device" + ASYNC),
    ("code", "CUDA error: invalid device ordinal" + ASYNC),
    ("code", "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`"),
    ("code", "cuDNN error: CUDNN_STATUS_BAD_PARAM"),
    (
        "code",
        NCCL + "unhandled cuda error (run with NCCL_DEBUG=INFO for details), NCCL version 2.21.5\n"
        "ncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\n"
        "Cuda failure 'an illegal memory access was encountered'",
    ),
    (
        "code",
        NCCL + "invalid usage (run with NCCL_DEBUG=WARN for details), NCCL version 2.21.5\nncclInvalidUsage: This "
        "usually reflects invalid usage of NCCL library.\nLast error:\nDuplicate GPU detected : rank 1 and rank 0",
    ),
    ("code", "The size of tensor a (64) must match the size of tensor b (32) at non-singleton dimension 1"),
]


@pytest.mark.parametrize(("expected", "message"), MESSAGES)
def test_class_of_what_the_libraries_say(expected, message):
    kind = torch.distributed.DistBackendError if message.startswith("NCCL") else torch.AcceleratorError
    for error in (RuntimeError(message), kind(message)):
        assert failure_of(error, "GPU-1 on host").error_class == expected


def test_a_fault_of_the_hardware_names_its_gpu_and_is_a_cause_of_its_own():
    def fault(message, gpu):
        return failure_of(RuntimeError(message), gpu)

    ecc, launch = MESSAGES[0][1], MESSAGES[2][1]
    one, other = fault(ecc, "GPU-aa11bb22cc33dd44 on n1"), fault(ecc, "GPU-ff11bb22cc33dd55 on n1")
    assert one.message == ("RuntimeError: CUDA error: uncorrectable ECC error encountered (GPU-aa11bb22cc33dd44 on n1)")
    assert one.fingerprint != other.fingerprint
    assert one.fingerprint == fault(launch, "GPU-aa11bb22cc33dd44 on n1").fingerprint
    # What is not the GPU's fault is one cause on all of them.
    assert "GPU-" not in fault("bad shape", "GPU-aa11bb22cc33dd44 on n1").message
    assert fault("bad shape", "GPU-a on n1").fingerprint == fault("bad shape", "GPU-b on n1").fingerprint
    assert fault("CUDA error: out of memory", "GPU-a").fingerprint == fault("CUDA error: out of memory", "").fingerprint


def test_a_limit_on_the_address_space_explains_an_error_without_words():
    program = """
import resource
from orchestrator.failures import failure_of
error = SystemError("error return without exception set")
print(failure_of(error).error_class)
resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))
print(failure_of(error).error_class, failure_of(error).message, sep="|")
print(failure_of(SystemError("bad argument to internal function")).error_class)
"""
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY, "this test needs no limit around it"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    message = (
        "SystemError: error return without exception set (the address space is limited to 6.0 GiB, see `ulimit -v`)"
    )
    assert output.splitlines() == ["code", f"out_of_memory|{message}", "code"]


def test_text_holds_message_then_traceback():
    try:
        raise ValueError("bad shape")
    except ValueError as error:
        failure = failure_of(error)
    assert failure.message == "ValueError: bad shape"
    assert "test_text_holds_message_then_traceback" in failure.text


def test_fingerprint_ignores_numbers_addresses_and_paths():
    one = fingerprint("code", "RuntimeError", "at step 12 of /tmp/a/b.pt, object 0x7f3a")
    assert one == fingerprint("code", "RuntimeError", "at step 7 of /home/c.pt, object 0x11")
    assert one != fingerprint("code", "RuntimeError", "at stage 12 of /tmp/a/b.pt, object 0x7f3a")
    assert one != fingerprint("data", "RuntimeError", "at step 12 of /tmp/a/b.pt, object 0x7f3a")


def test_same_place_and_message_give_the_same_fingerprint():
    def fail(number):
        raise ValueError(f"row {number} is broken")

    fingerprints = set()
    for number in (1, 22):
        try:
            fail(number)
        except ValueError as error:
            fingerprints.add(failure_of(error).fingerprint)
    assert len(fingerprints) == 1


def test_infrastructure_failure_groups_by_reason():
    one = infrastructure_failure("the trial's process ended: worker 12 died", "details a")
    other = infrastructure_failure("the trial's process ended: worker 99 died", "details b")
    assert one.fingerprint == other.fingerprint
    assert one.text.endswith("details a")


# As Ray 2.60 words them.
DIED = "The actor died unexpectedly before finishing this task.\n\tclass_name: Trial\n\tpid: 4711\n\tip: 127.0.0.1\n"
KILLED = (
    "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker "
    "unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the process was "
    "killed by the OOM killer due to high memory usage, (2) ray stop --force was called."
)
LOST = "The actor is dead because its owner has died. Owner Id: 01ff Worker exit detail: Owner's node has crashed."
UNREACHABLE = "The actor 3613db36f49c is unavailable: The actor is temporarily unavailable: RpcError: Socket closed"
STARVED = "Task was killed due to the node running low on memory.\nMemory on the node was 15.2GB / 15.5GB (0.98)."
NOT_IMPORTED = """The actor is dead because its worker process has died. Worker exit detail: Worker exits unexpectedly.
Traceback (most recent call last):
  File "function_manager.py", line 657, in temporary_actor_method
RuntimeError: The actor with name Trial failed to import on the worker.

Traceback (most recent call last):
  File "trainer/__init__.py", line 7, in <module>
ModuleNotFoundError: No module named 'torch'

An unexpected internal error occurred while the worker was executing a task."""


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        (DIED + KILLED, "it was killed or crashed"),
        (DIED + LOST, "its node was lost"),
        (UNREACHABLE, "its node was lost or could not be reached"),
        (STARVED, "its node ran low on memory"),
        (DIED + NOT_IMPORTED, "ModuleNotFoundError: No module named 'torch'"),
        (DIED + "Something new.\n", "Something new."),
        ("", "no reason given"),
    ],
)
def test_the_first_line_of_a_lost_process_names_the_cause(report, reason):
    failure = process_ended(report)
    assert failure.error_class == "infrastructure"
    assert failure.message.startswith("the trial's process ended: ")
    assert reason in failure.message
    assert failure.text.endswith(report.strip())


def test_only_the_newest_loss_of_a_trial_is_told():
    report = f"Failure # 1 (occurred at 2026-11-21_15-43-49)\n{STARVED}\n"
    report += f"Failure # 2 (occurred at 2026-11-21_15-49-49)\n{DIED}{KILLED}\n"
    failure = process_ended(report)
    assert "killed or crashed" in failure.message
    assert "low on memory" not in failure.text


def test_losses_of_one_kind_are_one_cause():
    assert process_ended(DIED + KILLED).fingerprint == process_ended(DIED.replace("4711", "1") + KILLED).fingerprint
    assert process_ended(DIED + KILLED).fingerprint != process_ended(DIED + LOST).fingerprint
