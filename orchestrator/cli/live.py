"""The live page of `watch --serve`: what its server serves, and how a person opens it."""

from __future__ import annotations

import getpass
import os
from collections.abc import Sequence
from contextlib import suppress

from rich.console import Console
from rich.style import Style
from rich.text import Text


def serve_page(db: str, grids: Sequence[str] | None, *, every: float, port: int | None) -> None:
    """Serve the page of these grids until Ctrl-C.

    Raises DatabaseError where the database cannot be read at the start, ServingError where the port cannot be had.
    """
    from orchestrator.cli.app import database_option, tell
    from orchestrator.database import open_database
    from orchestrator.serving import Look, live_script, serve
    from reports.page import render_page
    from reports.report import page_of

    with open_database(db, readonly=True) as database:
        where, options = database.where, database_option(db, database)
        tell("warning", (*database.warnings, *database.leave_out_broken(numbers=True)))
    look = Look(db, grids, options)
    # What cannot be shown at all is said here, and not to the browser.
    look()

    def build(version: int) -> str:
        with open_database(db, readonly=True) as database:
            database.leave_out_broken(numbers=True)
            data = page_of(database, grids=grids)
        return render_page({**data, "live": {"version": version}}, more=live_script(), connect="'self'")

    def ready(address: str, port: int) -> None:
        console = Console(highlight=False, soft_wrap=True)
        shown = Text(address, Style(link=address)) if console.is_terminal else Text(address)
        console.print(Text.assemble(f"{where}: open ", shown, " in a browser of this machine; Ctrl-C ends it"))
        if tunnel := tunnel_command(port):
            console.print(Text(f"from your own machine, first: {tunnel}"))

    try:
        serve(look, build, port=port, every=every, ready=ready)
    finally:
        look.close()


def tunnel_command(port: int) -> str | None:
    """Return the command that forwards the page's port to the machine from which a person logged in by SSH, if so."""
    # The client's address and port, and this machine's as the client reached them.
    fields = os.environ.get("SSH_CONNECTION", "").split()
    if len(fields) != 4:
        return None
    user = ""
    # A user without an entry in the list of users has no name.
    with suppress(KeyError, OSError):
        user = f"{getpass.getuser()}@"
    server_port = "" if fields[3] == "22" else f" -p {fields[3]}"
    return f"ssh -N -L {port}:127.0.0.1:{port}{server_port} {user}{fields[2]}"
