"""Addresses of Ray clusters: which cluster to use, and whether a Ray answers there."""

from __future__ import annotations

import os
import re
import socket

from orchestrator.errors import OrchestrateError
from orchestrator.exit_codes import TRY_AGAIN

# Timeout in seconds; a cluster on the same continent answers in a fraction of it.
ANSWER_SECONDS = 5.0
# Ray speaks gRPC, which is HTTP/2: its server answers this opening with its settings (RFC 9113, section 3.4).
_OPENING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_SETTINGS = 4


class SchedulerError(OrchestrateError):
    """A grid cannot run here; the message says what is missing and what to do."""


class RayAway(SchedulerError):
    """Ray does not start or answer now, but may later."""

    exit_code = TRY_AGAIN


def cluster_address(given: str | None) -> str | None:
    """Return the address of the Ray cluster to use (`auto` or host:port), None for a private Ray.

    No address, an empty one and Ray's own word `local` ask for a private Ray. `auto` is RAY_ADDRESS where that names a
    cluster (in a Ray job), else the Ray on this machine.

    Raises SchedulerError for an invalid address.
    """
    address = (given or "").strip()
    if address.lower() in ("", "local"):
        return None
    if address.lower() == "auto":
        around = os.environ.get("RAY_ADDRESS", "").strip().lower()
        return "auto" if around in ("", "local", "auto") else cluster_address(os.environ["RAY_ADDRESS"])
    if "://" in address:
        raise SchedulerError(
            f"--address {address}: a grid runs on a node of the cluster, not through a URL; give its host:port there "
            "(6379 unless `ray start --port` says otherwise) or `auto`, or submit the command as a job "
            "(`ray job submit`)"
        )
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.%\w]+\]|[^\s:/\[\]]+):(\d+)", address)
    if match is None:
        example = f"[{address}]:6379" if address.count(":") > 1 and "[" not in address else f"{address or 'host'}:6379"
        hint = f", such as {example}" if re.fullmatch(r"[\w.:-]+", address) and not address.endswith(":") else ""
        raise SchedulerError(
            f"--address {address}: is no address of a cluster; give host:port{hint}, `auto` or `local`"
        )
    if not 1024 <= int(match[2]) <= 65535:
        raise SchedulerError(f"--address {address}: {match[2]} is no port of a Ray, which are 1024 to 65535")
    return address


def refuse_silent(address: str) -> None:
    """Raise RayAway unless a Ray answers at host:port within seconds; Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    remedy = "start one there with `ray start --head`, or leave --address and RAY_ADDRESS out for a private Ray"
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS) as connection:
            connection.sendall(_OPENING)
            answer = connection.recv(9)
    # Python raises UnicodeError for an invalid host name.
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise RayAway(f"no Ray cluster answers at {address} ({why}); {remedy}") from None
    if len(answer) < 4 or answer[3] != _SETTINGS:
        raise RayAway(f"no Ray cluster answers at {address} (something else has that port); {remedy}")
