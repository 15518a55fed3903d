"""Failure classes and fingerprints."""

import errno

import pytest

from orchestrator.failures import failure_of, fingerprint, infrastructure_failure


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
