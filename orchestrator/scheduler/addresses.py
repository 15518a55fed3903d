"""Addresses of Ray clusters: which one to use, and whether this program can join the one there."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import socket
from collections.abc import Iterator
from pathlib import Path

from orchestrator.errors import OrchestrateError
from orchestrator.exit_codes import TRY_AGAIN

# Timeout in seconds; a cluster on the same continent answers in a fraction of it.
ANSWER_SECONDS = 5.0
# How long, in seconds, to look for a node on this machine: it may have been started just before.
NODE_SECONDS = 10.0
# Ray speaks gRPC, which is HTTP/2: its server answers this opening with its settings (RFC 9113, section 3.4).
_OPENING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_SETTINGS = 4


class SchedulerError(OrchestrateError):
    """A grid cannot run here; the message says what is missing and what to do."""


class RayAway(SchedulerError):
    """Ray does not start or answer now, but may later."""

    exit_code = TRY_AGAIN


def names_cluster(given: str | None = None) -> bool:
    """Return whether an address, or RAY_ADDRESS where none was given, asks for a cluster, be it a valid one or not."""
    return _asked_for(given).lower() not in ("", "local")


def _asked_for(given: str | None) -> str:
    return (os.environ.get("RAY_ADDRESS", "") if given is None else given).strip()


def cluster_address(given: str | None) -> str | None:
    """Return the address of the Ray cluster to use (`auto` or host:port), None for a private Ray.

    Where none is given, RAY_ADDRESS counts. An empty one and Ray's own word `local` ask for a private Ray. `auto` is
    RAY_ADDRESS where that names a cluster (in a Ray job), else the Ray on this machine.

    Raises SchedulerError for an invalid address.
    """
    if not names_cluster(given):
        return None
    address = _asked_for(given)
    if address.lower() == "auto":
        return "auto" if _asked_for(None).lower() in ("", "local", "auto") else cluster_address(None)
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


def find_head(address: str) -> str:
    """Return the host:port, where a Ray answers, that Ray connects to for an address of `cluster_address`.

    Ray takes 127.0.0.1 for the machine's own address. For `auto` it is the Ray that was started last on this machine,
    whose address Ray keeps in a file, or another one: a cluster that has died leaves its address in that file, and the
    private Ray of another run listens where nobody can join it.

    Raises RayAway.
    """
    from ray._private.services import canonicalize_bootstrap_address, find_bootstrap_address, find_gcs_addresses

    if address != "auto":
        taken = str(canonicalize_bootstrap_address(address))
        refuse_silent(taken, address)
        return taken
    silent = []
    for place in dict.fromkeys((find_bootstrap_address(None) or "", *sorted(find_gcs_addresses()))):
        # Ray's file may be damaged.
        with contextlib.suppress(ValueError):
            taken = str(canonicalize_bootstrap_address(place))
            try:
                refuse_silent(taken)
                return taken
            except RayAway:
                silent.append(taken)
    tried = f" (tried {', '.join(silent)})" if silent else ""
    raise RayAway(
        f"--address auto: no Ray cluster answers on this machine{tried}; start one with `ray start --head`, or leave "
        "--address out for a private Ray"
    )


def listens(address: str) -> bool:
    """Return whether anything takes connections at host:port, be it too busy to answer."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
    except OSError:
        return False
    return True


def refuse_silent(address: str, given: str | None = None) -> None:
    """Raise RayAway unless a Ray answers at host:port within seconds; Ray itself tries for minutes.

    `given` is what a person has given as the address, where Ray makes another one of it.
    """
    host, _, port = address.rpartition(":")
    where = address if given in (None, address) else f"{address}, the address that Ray takes for {given}"
    remedy = "start one there with `ray start --head`, or leave --address and RAY_ADDRESS out for a private Ray"
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS) as connection:
            connection.sendall(_OPENING)
            answer = connection.recv(9)
    # Python raises UnicodeError for an invalid host name.
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise RayAway(f"no Ray cluster answers at {where} ({why}); {remedy}") from None
    if len(answer) < 4 or answer[3] != _SETTINGS:
        raise RayAway(f"no Ray cluster answers at {where} (something else has that port); {remedy}")


def key_place() -> str | None:
    """Return the variable or the file that Ray takes this user's key from; None where there is no key.

    Raises SchedulerError for a RAY_AUTH_TOKEN_PATH without a key.
    """
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "RAY_AUTH_TOKEN"
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    with contextlib.suppress(OSError, UnicodeError):
        file = Path(named or Path(os.environ["HOME"], ".ray", "auth_token"))
        if file.read_text().strip():
            return str(file)
    if named:
        raise SchedulerError(
            f"RAY_AUTH_TOKEN_PATH={named}: there is no file with a key that can be read; correct the path, or unset it"
        )
    return None


def cluster_id(address: str) -> str:
    """Return the id, in hex digits, that the head at host:port has given its cluster: a new one at every start.

    Raises ray.exceptions.AuthenticationError where the head does not take this user's key.
    """
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    return str(GcsClient(address).cluster_id.hex())


def identify_cluster(address: str) -> str:
    """Return the id of the cluster at host:port; raises SchedulerError where it does not take this user's key.

    `ray.init` would not say why. Ray has to be ready to read the key from the environment, see `ray_cluster`.
    """
    from ray.exceptions import AuthenticationError

    remedy = "`ray get-auth-token` prints it there"
    mode = os.environ["RAY_AUTH_MODE"]
    place = key_place() if mode.lower() == "token" else f"RAY_AUTH_MODE={mode}"
    if place is None:
        raise SchedulerError(
            f"there is no key to the Ray cluster at {address}; set RAY_AUTH_TOKEN to that of its head ({remedy}), or "
            "RAY_AUTH_MODE=disabled where the head asks for none"
        )
    try:
        with _silent_errors():
            identity = cluster_id(address)
            if mode.lower() == "token" and not _asks_for_key(address):
                # The cluster's workers and this process would refuse each other: every trial would fail.
                raise SchedulerError(
                    f"the Ray cluster at {address} asks for no key, and a run with one cannot join it: set "
                    "RAY_AUTH_MODE=disabled, or have RAY_AUTH_MODE=token on all nodes where the cluster is started"
                )
            return identity
    except AuthenticationError:
        if mode.lower() != "token":
            raise SchedulerError(
                f"the Ray cluster at {address} asks for a key, which {place} leaves out; unset RAY_AUTH_MODE"
            ) from None
        raise SchedulerError(
            f"the Ray cluster at {address} does not accept the key in {place}; set RAY_AUTH_TOKEN to that of its head "
            f"({remedy})"
        ) from None


def _asks_for_key(address: str) -> bool:
    """Return whether the head at host:port refuses who has no key."""
    from ray.exceptions import AuthenticationError

    mode = os.environ["RAY_AUTH_MODE"]
    try:
        os.environ["RAY_AUTH_MODE"] = "disabled"
        read_mode_and_key()
        cluster_id(address)
    except AuthenticationError:
        return True
    finally:
        os.environ["RAY_AUTH_MODE"] = mode
        read_mode_and_key()
    return False


def read_mode_and_key() -> None:
    """Have Ray's core read from the environment whether there is a key, and which; by itself it does so only once."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    # In this order: a thread of Ray that looks for the key after the reset has to find the new mode.
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def refuse_apart(address: str) -> None:
    """Raise SchedulerError unless a program here can join the cluster at host:port, which takes this user's key.

    That needs the cluster's own versions of Ray and Python, and a node of it on this machine (RayAway without one).
    `ray.init` looks for that node for 40 s, and then says only that it has failed to connect.
    """
    import ray
    from ray._common.usage.usage_lib import get_cluster_metadata
    from ray._private.services import get_node_to_connect_for_driver
    from ray._private.utils import check_version_info
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    head = GcsClient(address)
    metadata: dict[str, str] = {}
    # A head that has just begun to start may have none yet.
    with contextlib.suppress(AttributeError):
        metadata = get_cluster_metadata(head)
    try:
        if metadata:
            check_version_info(metadata, "")
    except RuntimeError:
        raise SchedulerError(
            f"the Ray cluster at {address} has Ray {metadata['ray_version']} on Python {metadata['python_version']}, "
            f"and this program Ray {ray.__version__} on Python {platform.python_version()}; they must be the same: "
            "start the cluster from this program's virtual environment, or install the program in the cluster's"
        ) from None
    try:
        get_node_to_connect_for_driver(head, timeout_seconds=int(NODE_SECONDS))
    except RuntimeError:
        raise RayAway(
            f"no node of the Ray cluster at {address} is on this machine; start one here with "
            f"`ray start --address {address}`, or run the command on a node of the cluster"
        ) from None


@contextlib.contextmanager
def _silent_errors() -> Iterator[None]:
    """Send the lines to nowhere that Ray's core writes on standard error itself, whatever its log level."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
