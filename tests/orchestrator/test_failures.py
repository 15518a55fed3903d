"""Failure classes and fingerprints."""

import errno

import pytest

from orchestrator.failures import failure_of, fingerprint, infrastructure_failure, process_ended


class OutOfMemoryError(RuntimeError):
    pass


class Diverged(Exception):
    pass


class DataError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "out_of_memory"),
        (RuntimeError("CUDA error: out of memory"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (Diverged("the loss term 'cross_entropy' is not finite"), "diverged"),
        (DataError("cifar100: missing"), "data"),
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

    found = set()
    for number in (1, 22):
        try:
            fail(number)
        except ValueError as error:
            found.add(failure_of(error).fingerprint)
    assert len(found) == 1


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
