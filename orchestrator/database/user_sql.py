"""Run the SQL that a person writes, reading only, and describe the tables for that person."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from orchestrator.database.errors import DatabaseError, describe
from orchestrator.database.models import Base

if TYPE_CHECKING:
    from orchestrator.database.store import Database

TAKEN = ("SELECT", "WITH", "VALUES", "EXPLAIN")
# Steps of SQLite's machine between two looks at the clock, about a millisecond.
_STEPS = 20_000
# Pragmas that change nothing; queries call them as tables (`FROM pragma_table_info('trials')`).
_PRAGMAS = {
    *("table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo", "foreign_key_list"),
    *("database_list", "function_list", "collation_list", "module_list", "compile_options"),
}
_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
# SQLSTATEs: https://www.postgresql.org/docs/current/errcodes-appendix.html
_CANCELLED, _READ_ONLY, _NO_TABLE, _NO_COLUMN, _UNTYPED = "57014", "25006", "42P01", "42703", "42P02"
_SEVERAL = "give one statement at a time"
_PLACEHOLDER = "has a placeholder (? or :name), for which there is no value; write the value itself"


@dataclass(frozen=True)
class Answer:
    """The columns of a query, and its rows as they are read: numbers, text, bytes and None."""

    columns: tuple[str, ...]
    rows: Iterator[tuple[Any, ...]]


@contextmanager
def answer(database: Database, sql: str, *, seconds: float | None = None) -> Iterator[Answer]:
    """Yield what one statement of SQL reads; one that would change anything is refused.

    Raises DatabaseError, also while the rows are read: for a statement that does not only read, for a mistake in it,
    with the line, the column and names that are near, and for one that takes longer than `seconds`.
    """
    word = re.match(r"\w*", _blanked(sql).lstrip(" \t\r\n("))
    first = word[0].upper() if word else ""
    if first not in TAKEN:
        begins = f"begins with {first}" if first else "is no statement of SQL"
        raise DatabaseError(f"`query` only reads, and this {begins}; give {', '.join(TAKEN[:-1])} or {TAKEN[-1]}")
    run = _on_sqlite if database.path is not None else _on_postgresql
    with run(database, sql, seconds) as given:
        yield given


def schema_rows() -> list[tuple[str, str, str, str]]:
    """Return (table, column, type, meaning) of every column; the first row of each table describes the table."""
    classes = {mapper.local_table: mapper.class_ for mapper in Base.registry.mappers}
    rows = []
    for name, table in Base.metadata.tables.items():
        rows.append((name, "", "", " ".join((classes[table].__doc__ or "").split()).replace("`", "")))
        for column in table.columns:
            target = next((key.target_fullname.partition(".")[0] for key in column.foreign_keys), None)
            meaning = f"the row of {target}" if target else "the row's number" if column.name == "id" else column.doc
            rows.append((name, column.name, _type_name(column), meaning or ""))
    return rows


def _type_name(column: Any) -> str:
    names = {int: "integer", float: "number", str: "text", datetime: "time", bytes: "bytes"}
    return names.get(column.type.python_type, "JSON") + (" or NULL" if column.nullable else "")


@contextmanager
def _on_sqlite(database: Database, sql: str, seconds: float | None) -> Iterator[Answer]:
    with database.engine.connect() as connected:
        raw: Any = connected.connection.driver_connection
        refused: list[str] = []
        deadline = time.monotonic() + seconds if seconds is not None else None

        def authorize(action: int, first: str | None, second: str | None, *_: object) -> int:
            # json_each and its like announce their columns so; SQLite itself refuses a person's UPDATE of this table.
            announced = action == sqlite3.SQLITE_UPDATE and first == "sqlite_master"
            if action in _READING or announced or (action == sqlite3.SQLITE_PRAGMA and first in _PRAGMAS):
                return sqlite3.SQLITE_OK
            refused.append(f"change {first}" if first else "change something")
            return sqlite3.SQLITE_DENY

        def late() -> bool:
            # Ctrl-C is noticed here, too: SQLite then stops the statement as it does when this returns true.
            return deadline is not None and time.monotonic() > deadline

        def explained(error: Exception) -> BaseException:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_INTERRUPT:
                return _too_long(database.where, seconds or 0) if late() else KeyboardInterrupt()
            if refused:
                return DatabaseError(f"`query` only reads, and this would {refused[0]}")
            return _sqlite_mistake(error, database.where, sql, raw)

        raw.set_authorizer(authorize)
        raw.set_progress_handler(late, _STEPS)
        try:
            cursor = raw.execute(sql)
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise explained(error) from error
        yield Answer(tuple(each[0] for each in cursor.description or ()), _rows(cursor, sqlite3.Error, explained))


@contextmanager
def _on_postgresql(database: Database, sql: str, seconds: float | None) -> Iterator[Answer]:
    import psycopg
    from psycopg.types.string import TextLoader

    def explained(error: Exception) -> Exception:
        if getattr(error, "sqlstate", None) == _CANCELLED and seconds is not None:
            return _too_long(database.where, seconds)
        return _postgresql_mistake(error, database.where, sql)

    with database.engine.connect() as connected:
        raw: Any = connected.connection.driver_connection
        try:
            # The text of JSON as in an SQLite file.
            for kind in ("json", "jsonb"):
                raw.adapters.register_loader(kind, TextLoader)
            raw.execute("SET TRANSACTION READ ONLY")
            raw.execute(f"SET LOCAL statement_timeout = {round((seconds or 0) * 1000)}")
            if raw.info.server_version >= 140_000:
                # Otherwise the server goes on with the statement of a client that was killed.
                raw.execute("SET LOCAL client_connection_check_interval = '2s'")
            # A statement that is prepared is sent alone: the server refuses a second one behind a semicolon.
            cursor = raw.execute(sql, prepare=True)
        except psycopg.Error as error:
            raise explained(error) from error
        yield Answer(tuple(each.name for each in cursor.description or ()), _rows(cursor, psycopg.Error, explained))


def _rows(
    cursor: Any, error_class: type[Exception], explained: Callable[[Exception], BaseException]
) -> Iterator[tuple[Any, ...]]:
    try:
        for row in cursor:
            yield tuple(map(_plain, row))
    except error_class as error:
        raise explained(error) from error


def _plain(value: Any) -> Any:
    """Return a value as an SQLite file would hold it."""
    if value is None or isinstance(value, str | int | float | bytes):
        return value
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="microseconds")
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return bytes(value) if isinstance(value, memoryview | bytearray) else str(value)


def _too_long(where: str, seconds: float) -> DatabaseError:
    return DatabaseError(f"{where}: the query took longer than {seconds:g} s and was stopped; --timeout gives it more")


def _sqlite_mistake(error: Exception, where: str, sql: str, raw: Any) -> DatabaseError:
    """Describe a mistake in a statement, with its place in it."""
    message = str(error)
    if "one statement at a time" in message:
        return DatabaseError(_SEVERAL)
    if "number of bindings" in message:
        return DatabaseError(f"the query {_PLACEHOLDER}")
    if message == "not authorized":
        return DatabaseError("`query` only reads, and calls no function that loads code")
    if table := re.fullmatch(r"no such table: (.+)", message):
        return _no_table(table[1], _named(sql, table[1]), sql)
    if column := re.fullmatch(r"no such column: (.+?)( - .*)?", message):
        return _no_column(column[1], _named(sql, column[1]), sql)
    if near := re.fullmatch(r'near "(.+)": syntax error', message, re.DOTALL):
        return _mistake(f"syntax error near {near[1]!r}", _refused_at(raw, sql, near[1], message), sql)
    if message == "incomplete input":
        return _mistake("the statement ends too early", len(sql.rstrip()), sql)
    if token := re.fullmatch(r'unrecognized token: "(.+)"', message, re.DOTALL):
        return _mistake(f"{token[1]!r} cannot be read", sql.find(token[1]), sql)
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in (0, sqlite3.SQLITE_ERROR):
        return _mistake(message, None, sql)
    return describe(error, where)


def _refused_at(raw: Any, sql: str, token: str, message: str) -> int | None:
    """Return where the parser stopped: behind the first of the equal tokens with which it refuses what it has read."""
    explain = "" if re.match(r"\s*explain\b", sql, re.IGNORECASE) else "EXPLAIN "
    for place in re.finditer(re.escape(token), sql):
        try:
            raw.execute(explain + sql[: place.end()])
        except sqlite3.Error as error:
            if str(error) == message:
                return place.start()
    return None


def _postgresql_mistake(error: Any, where: str, sql: str) -> DatabaseError:
    """Describe a mistake in a statement, with its place in it."""
    state, message = error.sqlstate or "", error.diag.message_primary or str(error)
    place = int(error.diag.statement_position) - 1 if error.diag.statement_position else None
    if state == _READ_ONLY:
        return DatabaseError(f"`query` only reads, and the server {message}")
    if "multiple commands" in message:
        return DatabaseError(_SEVERAL)
    if state == _UNTYPED:
        return DatabaseError(f"the query {_PLACEHOLDER}")
    if state == _NO_TABLE and (table := re.fullmatch(r'relation "(.+)" does not exist', message)):
        return _no_table(table[1], place, sql)
    if state == _NO_COLUMN and (column := re.fullmatch(r'column "?(.+?)"? does not exist', message)):
        return _no_column(column[1], place, sql)
    if state[:2] in ("42", "22", "21", "0A"):
        return _mistake(message, place, sql)
    return describe(error, where)


def _no_table(name: str, place: int | None, sql: str) -> DatabaseError:
    tables = list(Base.metadata.tables)
    near = get_close_matches(name.rpartition(".")[2], tables, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(sorted(tables))}"
    return _mistake(f"there is no table {name}; {hint}", place, sql)


def _no_column(name: str, place: int | None, sql: str) -> DatabaseError:
    table, _, column = name.rpartition(".")
    chosen = [table] if table in Base.metadata.tables else list(Base.metadata.tables)
    columns: dict[str, list[str]] = {}
    for owner in chosen:
        for listed in Base.metadata.tables[owner].columns:
            columns.setdefault(listed.name, []).append(str(listed))
    near = [full for known in get_close_matches(column, columns, n=2, cutoff=0.5) for full in columns[known]]
    hint = f"did you mean {' or '.join(near[:3])}?" if near else "--schema lists all"
    return _mistake(f"there is no column {name} here; {hint}", place, sql)


def _mistake(message: str, place: int | None, sql: str) -> DatabaseError:
    if place is None or place < 0:
        return DatabaseError(f"in the query: {message}")
    line, column = sql.count("\n", 0, place) + 1, place - (sql.rfind("\n", 0, place) + 1) + 1
    where = f"line {line}, column {column}" if "\n" in sql.strip() else f"column {column}"
    return DatabaseError(f"{where} of the query: {message}")


def _named(sql: str, name: str) -> int | None:
    """Return where a name stands first in a statement, outside of strings and comments."""
    match = re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", _blanked(sql), re.IGNORECASE)
    return match.start() if match else None


def _blanked(sql: str) -> str:
    """Return a statement with its strings and comments made blank, and everything else at its place."""
    return re.sub(r"'(?:''|[^'])*'|--[^\n]*|/\*.*?\*/", lambda part: " " * len(part[0]), sql, flags=re.DOTALL)
