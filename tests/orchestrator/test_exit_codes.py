"""Exit codes tell a person's mistake from a machine's, in the program and wherever they are promised."""

from __future__ import annotations

import ast
import builtins
import errno
import os
import re
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner

from orchestrator import OrchestrateError, exit_codes
from orchestrator.cli import app
from orchestrator.database.errors import describe
from reports import ReportError
from trainer import TrainerError

ROOT = Path(__file__).parents[2]


def of_sqlite(code: int) -> Exception:
    original = sqlite3.OperationalError("said")
    original.sqlite_errorcode = code
    return OperationalError("INSERT", {}, original)


def of_server(message: str) -> Exception:
    """Return an error as psycopg raises it for a connection that failed, without an SQLSTATE."""
    original = type("OperationalError", (Exception,), {"sqlstate": None})(message)
    return OperationalError("SELECT", {}, original)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (of_sqlite(13), 75),  # The disk is full.
        (of_sqlite(10), 75),  # The disk reports an error.
        (of_sqlite(5), 75),  # Somebody's shell has it locked.
        (of_sqlite(8), 2),  # It is read-only.
        (of_sqlite(11), 2),  # It is damaged.
        (of_server("connection refused"), 75),
        (of_server("FATAL:  the database system is starting up"), 75),
        (of_server('FATAL:  password authentication failed for user "me"'), 2),
        (of_server('FATAL:  database "results" does not exist'), 2),
    ],
)
def test_of_a_database_only_what_gets_better_by_itself_is_tried_again(error: Exception, code: int) -> None:
    assert describe(error, "results.db").exit_code == code


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.EIO])
def test_a_system_that_has_no_more_of_something_ends_any_command_in_one_line(
    number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*arguments: object, **more: object) -> None:
        raise OSError(number, os.strerror(number), "/somewhere/file")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("orchestrator.database.open_database", full)
    completed = CliRunner().invoke(app, ["status"])
    assert (completed.exit_code, completed.stdout) == (75, "")
    assert completed.stderr == f"error: [Errno {number}] {os.strerror(number)}: '/somewhere/file'\n"


def test_the_errors_of_a_package_have_one_base_with_an_exit_code() -> None:
    bases = {
        (path.relative_to(ROOT).parts[0], node.name): {ast.unparse(base) for base in node.bases}
        for package in ("trainer", "orchestrator", "reports")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    }
    builtin = {
        name for name, what in vars(builtins).items() if isinstance(what, type) and issubclass(what, BaseException)
    }
    errors = {name for name, of in bases.items() if of & builtin}
    # Leaving Ray Tune's `fit` is no error; the other two are foreseen ends as well as what they were before.
    assert errors == {
        ("trainer", "TrainerError"),
        *(("trainer", name) for name in ("PathError", "RankLost")),
        ("orchestrator", "OrchestrateError"),
        ("orchestrator", "Abandoned"),
        ("reports", "ReportError"),
    }
    assert all("TrainerError" in bases["trainer", name] for name in ("PathError", "RankLost"))
    for base in (TrainerError, OrchestrateError, ReportError):
        assert exit_codes.of(base("said")) == 2
    assert exit_codes.of(ValueError("a bug")) is None
    assert exit_codes.of(OSError(errno.ENOSPC, "full")) == 75


def test_every_promise_names_the_code_of_trying_again() -> None:
    assert exit_codes.TRY_AGAIN == 75
    assert re.search(r"75 the\s+machine failed", CliRunner().invoke(app, ["--help"]).output)
    unit = (ROOT / "docs/cloud.md").read_text()
    # What does not get better by itself is not started again; 75 is.
    assert re.search(r"^RestartPreventExitStatus=1 2$", unit, re.MULTILINE)
    for page in ("cloud.md", "kubernetes.md", "slurm.md", "docker.md", "storage.md", "examples/slurm.sbatch"):
        assert re.search(r"\b75\b", (ROOT / "docs" / page).read_text()), page
