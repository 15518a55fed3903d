"""`watch --serve` in a process of its own, and a client that speaks HTTP to it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.database import Database, open_database
from orchestrator.failures import Failure
from tests.orchestrator.databases.samples import config, result, start

# Far above what a busy machine needs: it ends a test that hangs, and decides nothing else.
PATIENCE = 120.0


class Answer(NamedTuple):
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Stream:
    """Server-sent events as they come."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.response = response

    def next(self, name: str = "state") -> tuple[str, Any]:
        """Return the id and the value of the next event of this name."""
        fields: dict[str, str] = {}
        while True:
            line = self.response.readline().decode().rstrip("\n")
            if line:
                key, _, value = line.partition(": ")
                fields[key.rstrip(":")] = value
            elif fields.get("event") == name:
                return fields.get("id", ""), json.loads(fields["data"]) if fields.get("data") else None
            else:
                fields = {}

    def until(self, condition: Any) -> dict[str, Any]:
        """Return the first state that is as wanted."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            _, state = self.next()
            if condition(state):
                return dict(state)
        raise AssertionError(f"the last state: {state}")


class Live:
    """A server that was started; `address` opens its page."""

    def __init__(self, process: subprocess.Popen[str], output: Path) -> None:
        self.process, self.output = process, output
        self._streams: list[Any] = []
        self.address = self.port = self.token = ""
        deadline = time.monotonic() + PATIENCE
        while not self.token and process.poll() is None and time.monotonic() < deadline:
            if match := re.search(r"http://127\.0\.0\.1:(\d+)/\?token=(\S+)", output.read_text()):
                self.address, self.port, self.token = match[0], match[1], match[2]
            time.sleep(0.05)
        assert self.token, output.read_text()

    def ask(self, path: str = "/", *, method: str = "GET", token: str | None = "right", **headers: str) -> Answer:
        """Return the answer to a request, which is not followed anywhere."""
        connection, response = self._request(path, method, token, headers)
        with closing(connection):
            return Answer(response.status, response.headers, response.read())

    def events(self, **headers: str) -> Stream:
        """Open the stream of events, until the server is left."""
        connection, response = self._request("/events", "GET", "right", headers)
        self._streams.append(connection)
        self._streams.append(response)
        assert response.status == 200 and response.headers["Content-Type"] == "text/event-stream"
        return Stream(response)

    def _request(
        self, path: str, method: str, token: str | None, headers: dict[str, str]
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = http.client.HTTPConnection("127.0.0.1", int(self.port), timeout=PATIENCE)
        given = {name.replace("_", "-"): value.encode() for name, value in headers.items()}
        if token is not None:
            given["Authorization"] = f"Bearer {self.token if token == 'right' else token}".encode()
        connection.request(method, path, headers=given)
        return connection, connection.getresponse()

    def close(self) -> None:
        """End the server, and the streams from it."""
        self.process.kill()
        self.process.wait()
        for stream in self._streams:
            stream.close()

    def press_ctrl_c(self) -> int:
        """Send SIGINT and return the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE)


@contextmanager
def serving(folder: Path, *arguments: str, **variables: str) -> Iterator[Live]:
    """Serve the database `results.db` of a folder in a process until the end of the context."""
    output = folder / "serve.txt"
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("ORCHESTRATE", "SSH_"))}
    command = [sys.executable, "-c", "from orchestrator.cli import main; main()", "watch", "--serve", "--every", "0.2"]
    with output.open("w") as file:
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=folder,
            env={**environment, **variables},
            stdout=file,
            stderr=file,
            text=True,
            # A test that was started in the background ignores SIGINT, and its children would, too.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
    live = Live(process, output)
    try:
        yield live
    finally:
        live.close()


def fill(folder: Path, *, host: str) -> None:
    """Make a grid of done, running, failed and waiting trials, with a log of the running one on `host`."""
    logs = folder / "results-logs"
    logs.mkdir()
    trials = [
        (f"{number:064x}", config("resnet18", method, seed), f"resnet18/{method}/seed{seed}")
        for number, (method, seed) in enumerate([("baseline", 0), ("baseline", 1), ("pskd", 0), ("pskd", 1)])
    ]
    with open_database(folder / "results.db", create=True) as database:
        database.save_grid("table1", str(folder / "table1.yaml"), "name: table1", {}, trials)
        done = start(database, trials[0][0])
        for epoch in range(4):
            database.record_epoch(done, result(epoch, error=30.0 - epoch), "exclusive")
        database.finish_attempt(done, "done", trial_state="done")
        log = logs / f"{trials[2][0][:8]}-1.log"
        log.write_text("epoch 1/4: so far, <b>so good</b>\n")
        dashboards = {"ray": "http://127.0.0.1:8265", "grafana": "javascript:alert(1)"}
        running = start(database, trials[2][0], host=host, log=str(log), environment={"dashboards": dashboards})
        database.record_epoch(running, result(0, error=40.0), "exclusive")
        failed = start(database, trials[1][0], log=None)
        failure = Failure("out_of_memory", "CUDA out of memory\nTraceback", "f")
        database.finish_attempt(failed, "failed", failure=failure, trial_state="failed")


def attempt_of(database: Database, number: int) -> int:
    """Return the id of the newest attempt of a trial of `fill`."""
    return database.attempts(f"{number:064x}")[-1].id
