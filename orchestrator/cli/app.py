"""Parts that all commands share: the options, the database, and how errors become messages and exit codes."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

import typer
from typer.core import TyperCommand
from typer.models import CommandFunctionType

from orchestrator import exit_codes
from orchestrator.errors import OrchestrateError
from orchestrator.exit_codes import BAD_INPUT, DONE, INTERRUPTED, of_system
from trainer.paths import PathError, user_path

if TYPE_CHECKING:
    from orchestrator.database import Database


class _Command(TyperCommand):
    """A command: every error that a person can mend becomes one message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, OutputError):
            raise
        except BrokenPipeError:
            stop_printing()
            raise typer.Exit(DONE) from None
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            code = exit_codes.of(error)
            if code is None:
                raise
            prefix = "" if code > 128 else "error: "
            typer.echo(f"{prefix}{error}", err=True)
            raise typer.Exit(code) from None


class _Commands(typer.Typer):
    """The command line, whose commands end as `_Command` says."""

    def command(
        self, name: str | None = None, *, cls: type[TyperCommand] | None = _Command, **options: Any
    ) -> Callable[[CommandFunctionType], CommandFunctionType]:
        """Register a function as a command."""
        return super().command(name, cls=cls, **options)


app = _Commands(
    name="orchestrate",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Rich's panels shorten the names of options in a terminal of 80 columns.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Run an ablation grid on Ray, keep every epoch in a SQL database, and print the paper's tables from it.

    `orchestrate run grids/quickstart.yaml` trains what is missing; `orchestrate report` writes the tables and the
    figure. Exit codes: 0 done, 1 some trial failed, 2 bad input, 3 another run holds the database or some trials,
    75 the machine failed (a full disk, a server that is away, Ray): try again, 130 interrupted.
    """,
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"orchestrate {metadata.version('orchestrate-ablations')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    db: Annotated[
        str | None,
        typer.Option(
            "--db", metavar="FILE|URL", parser=database_location, help="The results database, as behind the command."
        ),
    ] = None,
) -> None:
    """Take the options that stand before a command."""


def database_before(context: typer.Context, parameter: typer.CallbackParam, value: str | None) -> str | None:
    """Return the database given behind the command, else the one given before it, else that of the environment."""
    before: str | None = context.find_root().params.get("db")
    source = context.get_parameter_source(str(parameter.name))
    given = source is not None and source.name == "COMMANDLINE"
    return value if given or before is None else before


def path(text: str | Path) -> Path:
    """Parse a path option: `~` is the home folder, also behind `=` and in environment variables.

    `parser=path`, `parser=location` or `parser=database_location` belongs to every option that takes a path.
    """
    try:
        return user_path(text)
    except PathError as error:
        raise typer.BadParameter(str(error)) from None


def location(text: str) -> str:
    """Parse an option that takes a path or a URL; a URL stays as it is."""
    return text if "://" in text or not text else str(path(text))


def database_location(text: str) -> str:
    """Parse a database option; `sqlite:///FILE` becomes the file's path, beside which checkpoints and logs lie."""
    return location(_SQLITE_URL.sub("", text) if "?" not in text else text)


def database_option(db: str, database: Database) -> list[str]:
    """Return the options by which another command reads the same database; none where it is the default."""
    return [] if is_default(db) else ["--db", database.where]


def is_default(db: str) -> bool:
    """Return whether a command without --db has this database."""
    return db == database_location(os.environ.get("ORCHESTRATE_DB") or "results.db")


_SQLITE_URL = re.compile(r"^sqlite(\+\w+)?:///(?=.)(?!:memory:)")

GridFile = Annotated[
    Path, typer.Argument(metavar="GRID", parser=path, help="The grid file (YAML).", show_default=False)
]
DatabaseOption = Annotated[
    str,
    typer.Option(
        "--db",
        metavar="FILE|URL",
        parser=database_location,
        callback=database_before,
        envvar="ORCHESTRATE_DB",
        help="The results database: an SQLite file or a PostgreSQL URL.",
    ),
]
DataRoot = Annotated[
    str,
    typer.Option(
        metavar="DIR|URL",
        parser=location,
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
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Give a field this value (YAML) instead of the file's; may be repeated.",
        show_default=False,
    ),
]
GridNames = Annotated[
    list[str] | None,
    typer.Option("--grid", metavar="NAME", help="Only this grid; may be repeated.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@contextmanager
def existing(db: str) -> Iterator[Database | None]:
    """Yield the database, or None where there is none yet: planning needs none."""
    if "://" not in db and not Path(db).exists():
        yield None
        return
    with opened(db) as database:
        yield database


@contextmanager
def opened(db: str, *, numbers: bool = False) -> Iterator[Database]:
    """Open a database for a command that reads; prints its warnings.

    Broken rows are named and left out; the command then ends with BAD_INPUT, though it did the rest. `numbers` checks
    the rows of epochs and metrics as well.
    """
    from orchestrator.database import open_database

    with open_database(db, readonly=True) as database:
        broken = database.leave_out_broken(numbers=numbers)
        tell("warning", (*database.warnings, *broken))
        yield database
    if broken:
        raise typer.Exit(BAD_INPUT)


def tell(kind: Literal["note", "warning", "error"], lines: Iterable[str]) -> None:
    """Print lines on standard error, each after its kind."""
    for line in lines:
        typer.echo(f"{kind}: {line}", err=True)


class OutputError(OrchestrateError):
    """Standard output cannot be written (a full disk behind `>`); the message says why, and what to do."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Stdout:
    """Standard output. Raises OutputError when it cannot be written; delegates everything else.

    A reader that went away stays a BrokenPipeError.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with _output_errors():
            return self._stream.write(text)

    def flush(self) -> None:
        with _output_errors():
            self._stream.flush()


@contextmanager
def _output_errors() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        message = f"standard output cannot be written: {error.strerror}; make room there, or send it elsewhere"
        raise OutputError(message, of_system(error)) from error


def stop_printing() -> None:
    """Drop all further output, because the reader went away (`| head`) or the disk is full."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
