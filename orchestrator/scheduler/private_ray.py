"""Prepare the machine for a private Ray: key, home, a short folder for its sockets."""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from pathlib import Path

from orchestrator.exit_codes import BAD_INPUT, of_system
from orchestrator.scheduler.addresses import RayAway, SchedulerError, key_place

# Longest path of a Unix socket in bytes (Linux, without the final zero), and the longest that Ray appends.
SOCKET_BYTES = 107
_LONGEST = "/session_2026-11-25_23-59-59_123456_4194304/sockets/plasma_store"


def have_home() -> None:
    """Set HOME where it is missing: to the user's home folder or, for a user without an entry, to the temporary one.

    Ray and its processes read HOME when they are imported (`docker run --user 1000` has none).
    """
    if not os.environ.get("HOME"):
        os.environ.pop("HOME", None)
        try:
            os.environ["HOME"] = str(Path.home())
        except RuntimeError:
            os.environ["HOME"] = tempfile.gettempdir()
            os.environ.setdefault("USER", f"user{os.getuid()}")
            # Not in a folder that everybody can read.
            _have_own_token()


def _have_own_token() -> None:
    if not os.environ.get("RAY_AUTH_TOKEN_PATH"):
        os.environ["RAY_AUTH_TOKEN"] = os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32)


def keep_token_private() -> None:
    """Create the key to this user's private Rays with mode 600; Ray itself would let everybody read it.

    Without a home folder to keep the key in, this run and its processes have one of their own.

    Raises SchedulerError for a RAY_AUTH_TOKEN_PATH without a key.
    """
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        key_place()
        return
    path = Path(os.environ["HOME"], ".ray", "auth_token")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists() or not path.read_text().strip():
            # Atomically: another run that starts now must not read half a key.
            descriptor, name = tempfile.mkstemp(dir=path.parent)
            with open(descriptor, "w") as file:
                file.write(secrets.token_hex(32))
            os.replace(name, path)
        if stat.S_IMODE(path.stat().st_mode) != 0o600:
            path.chmod(0o600)
    except (OSError, UnicodeError):
        _have_own_token()


def session_folder() -> str:
    """Return the folder of a private Ray's sessions: writable, and short enough for its sockets.

    It is `ray` in RAY_TMPDIR, else TMPDIR, else /tmp, as in Ray itself; TMPDIR is skipped where it is too long.

    Raises SchedulerError where no folder is suitable.
    """
    wanted = os.environ.get("RAY_TMPDIR")
    if wanted and not _fits(Path(wanted, "ray").absolute()):
        raise SchedulerError(
            f"RAY_TMPDIR={wanted} is too long for the sockets of Ray (at most "
            f"{SOCKET_BYTES - len(_LONGEST) - len('/ray')} bytes); give a shorter one, such as: export RAY_TMPDIR=/tmp"
        )
    problem = ""
    for base in (wanted,) if wanted else (os.environ.get("TMPDIR"), "/tmp", "/var/tmp", "/dev/shm"):
        # The second folder is for a machine where another user owns the first.
        for folder in (Path(base, "ray").absolute(), Path(base, f"ray-{os.getuid()}").absolute()) if base else ():
            if _fits(folder):
                try:
                    folder.mkdir(parents=True, exist_ok=True)
                    with tempfile.TemporaryFile(dir=folder):
                        return str(folder)
                except OSError as error:
                    problem = problem or f"{folder}: {error.strerror}"
    raise SchedulerError(
        f"Ray has no folder for its sockets and logs ({problem}); make room in /tmp, or name a short path on a local "
        "disk that you may write: export RAY_TMPDIR=/path"
    )


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder)) + len(_LONGEST) <= SOCKET_BYTES


def not_started(error: Exception) -> SchedulerError:
    """Return the error for Ray's own failure to start, with what to do."""
    message = " ".join(str(error).split()) or type(error).__name__
    remedy = "the same command may succeed later; Ray's logs are in the newest session_* below its folder (RAY_TMPDIR)"
    kind: type[SchedulerError] = RayAway
    if isinstance(error, OSError) and of_system(error) == BAD_INPUT:
        kind = SchedulerError
        remedy = "give it a folder that you may write: export RAY_TMPDIR=/tmp (its files), HOME=/tmp (its key)"
    return kind(f"Ray did not start: {message[:500]}; {remedy}")
