"""A private PostgreSQL server from the system's own binaries, for the tests of this process."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Durability costs time and protects nothing here.
SETTINGS = {"fsync": "off", "full_page_writes": "off", "max_connections": "50"}


class Missing(Exception):
    """There is no PostgreSQL that this user could start; the message says why."""


class Server:
    """A running server on a socket in its own folder and on 127.0.0.1; `stop` and `start` keep its data."""

    def __init__(self, folder: Path, binaries: Path, account: dict[str, Any]) -> None:
        self.folder, self.binaries, self.account = folder, binaries, account
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process: subprocess.Popen | None = None
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self.schemas = 0

    def new_database(self) -> str:
        """The URL of a new, empty schema, which takes a hundredth of the files of a database."""
        self.schemas += 1
        self.execute(f"CREATE SCHEMA test{self.schemas}")
        return f"{self.url}?options=-csearch_path%3Dtest{self.schemas}"

    def execute(self, statement: str) -> list[tuple]:
        """Run a statement as the server's administrator."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        import psycopg

        settings = {**SETTINGS, "port": str(self.port), "listen_addresses": "127.0.0.1"}
        settings["unix_socket_directories"] = str(self.folder)
        arguments = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.binaries / "postgres", "-D", self.folder / "data", *arguments],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                **self.account,
            )
        while True:
            try:
                psycopg.connect(self.url).close()
                return
            except psycopg.OperationalError:
                if self.process.poll() is not None:
                    raise RuntimeError((self.folder / "log").read_text()) from None
                time.sleep(0.05)

    def stop(self) -> None:
        """End it without waiting for anything, as a crash would; whoever is connected is cut off."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait()
            self.process = None


@contextmanager
def postgresql_server() -> Iterator[Server]:
    """Start a new server and remove it at the end; raises Missing where that cannot be."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    if not installed and not on_path:
        raise Missing("PostgreSQL's server is not installed (Debian: apt install postgresql)")
    binaries = (installed[-1] if installed else Path(on_path).resolve()).parent
    account: dict[str, Any] = {}
    if os.geteuid() == 0:
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            raise Missing("root must not run PostgreSQL and there is no user `postgres`") from None
        account = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    folder = Path(tempfile.mkdtemp(prefix="orchestrate-postgresql-"))
    try:
        if account:
            os.chown(folder, account["user"], account["group"])
        options = ["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run(
            [binaries / "initdb", "-D", folder / "data", *options],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=folder,
            **account,
        )
        server = Server(folder, binaries, account)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)
