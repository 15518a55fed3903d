"""What all commands share: the options, the database, and how errors become messages and exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

if TYPE_CHECKING:
    from orchestrator.database import Database

DONE, SOME_FAILED, BAD_INPUT, BUSY = 0, 1, 2, 3

app = typer.Typer(
    name="orchestrate",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Rich's panels cut the names of options short in a terminal of 80 columns.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Run an ablation grid on Ray, keep every epoch in a SQL database, and print the paper's tables from it.

    `orchestrate run grids/quickstart.yaml` trains what is missing; `orchestrate report` writes the tables and the
    figure. Exit codes: 0 done, 1 some trial failed, 2 bad input, 3 another run holds the database or some trials,
    130 interrupted.
    """,
)

GridFile = Annotated[Path, typer.Argument(metavar="GRID", help="The grid file (YAML).", show_default=False)]
DatabaseOption = Annotated[
    str,
    typer.Option(
        "--db",
        metavar="FILE|URL",
        envvar="ORCHESTRATE_DB",
        help="The results database: an SQLite file or a PostgreSQL URL.",
    ),
]
DataRoot = Annotated[
    str,
    typer.Option(
        metavar="DIR|URL",
        envvar="ORCHESTRATE_DATA",
        help="The folder that holds the data sets: a path or a URL (s3://...).",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS", envvar="RAY_ADDRESS", help="A Ray cluster (`auto`, host:port); a private Ray without."
    ),
]
GridNames = Annotated[
    list[str] | None,
    typer.Option("--grid", metavar="NAME", help="Only this grid; may be repeated.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@contextmanager
def existing(db: str) -> Iterator[Database | None]:
    """The database if there is one yet: planning needs none."""
    from orchestrator.database import open_database

    if "://" not in db and not Path(db).exists():
        yield None
        return
    with open_database(db, readonly=True) as database:
        yield database


@contextmanager
def errors() -> Iterator[None]:
    """Turn every error that a person can mend into one message and an exit code."""
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except BrokenPipeError:
        stop_printing()
        raise typer.Exit(DONE) from None
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(130) from None
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        prefix = "" if code > 128 else "error: "
        typer.echo(f"{prefix}{error}", err=True)
        raise typer.Exit(code) from None


def _exit_code(error: Exception) -> int | None:
    """The exit code of an error that was expected; None for a bug."""
    from orchestrator.database import Busy, DatabaseError
    from orchestrator.grid import GridError
    from orchestrator.monitor import PageError
    from orchestrator.recorder import CircuitOpen
    from orchestrator.scheduler import Interrupted, RayEnded, SchedulerError
    from orchestrator.storage import StorageError
    from orchestrator.trackers import TrackerError
    from reports import ReportError
    from trainer.download import DataError

    if isinstance(error, Interrupted):
        return error.exit_code
    if isinstance(error, Busy):
        return BUSY
    if isinstance(error, CircuitOpen | RayEnded):
        return SOME_FAILED
    if isinstance(
        error,
        GridError | DatabaseError | DataError | PageError | SchedulerError | StorageError | TrackerError | ReportError,
    ):
        return BAD_INPUT
    return None


class OutputError(Exception):
    """Standard output cannot be written (a full disk behind `>`); the message says why, and what to do."""


class Output:
    """Standard output whose failures are told from those of all other files; whatever else is asked, the stream knows.

    A reader that went away stays a BrokenPipeError.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with _told():
            return self._stream.write(text)

    def flush(self) -> None:
        with _told():
            self._stream.flush()


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        message = f"standard output cannot be written: {error.strerror}; make room there, or send it elsewhere"
        raise OutputError(message) from error


def stop_printing() -> None:
    """Nothing can be said any more, because the reader went away (`| head`) or the disk is full; drop the rest."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
