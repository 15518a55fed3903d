"""Results and tables as pandas DataFrames, for a notebook or a program of one's own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from orchestrator.database import open_database
from reports.exporting import frames
from reports.gathering import gather
from reports.render import plain
from reports.render.html import fragment
from reports.render.latex import latex
from reports.table import Table

if TYPE_CHECKING:
    from orchestrator.database import Database

# What made a number: the device, the commit (`dirty` with uncommitted changes), the digest of the trainer's code, and
# the fingerprint of the data.
ORIGIN = ("host", "device", "commit", "dirty", "code_digest", "data_sha256")


def open_results(db: str | Path = "results.db") -> StoredResults:
    """Open the results database at a path or URL for reading, also while a grid runs into it.

    Raises DatabaseError where there is none that can be read.
    """
    results = StoredResults(db)
    with results.reading():
        return results


class StoredResults:
    """The results in a database, as DataFrames and tables.

    Every attribute reads the database anew, so that it shows what a run has added since; keep a large one in a
    variable. What is doubtful about the database is a `UserWarning`; rows that are broken are left out with one.
    """

    def __init__(self, db: str | Path) -> None:
        self.db = db

    def __repr__(self) -> str:
        return f"open_results({str(self.db)!r})"

    @property
    def grids(self) -> pd.DataFrame:
        """Return a row per trial of a grid: key, grid, position and the trial's name there."""
        with self.reading() as database:
            return _frame(database, "grids")

    @property
    def trials(self) -> pd.DataFrame:
        """Return a row per trial: key, state, finished (UTC), and a column per field of its configuration.

        `methods` reads `pskd+byot`; the last columns are those of its newest training attempt: `ORIGIN`.
        """
        with self.reading() as database:
            trials, attempts = _frame(database, "trials"), _frame(database, "attempts")
        newest = attempts[attempts["purpose"] == "train"].drop_duplicates("key", keep="last")
        return trials.merge(newest[["key", "attempt", *ORIGIN]], on="key", how="left")

    @property
    def attempts(self) -> pd.DataFrame:
        """Return a row per attempt of a trial, whatever its purpose: host, device, times (UTC), outcome, code."""
        with self.reading() as database:
            return _frame(database, "attempts")

    @property
    def parts(self) -> pd.DataFrame:
        """Return a row per part of an attempt, such as a method or a network: its version and its code's digest."""
        with self.reading() as database:
            return _frame(database, "parts")

    @property
    def epochs(self) -> pd.DataFrame:
        """Return a row per accepted epoch, with key and epoch (from 1), its learning rate, times and memory.

        The last columns are the trial's network, methods and seed, and the `ORIGIN` of the attempt that trained it.
        """
        with self.reading() as database:
            epochs = _frame(database, "epochs")
            trials, attempts = _frame(database, "trials"), _frame(database, "attempts")
        epochs = epochs.merge(trials[["key", "network", "methods", "seed"]], on="key", how="left")
        return epochs.merge(attempts[["key", "attempt", *ORIGIN]], on=["key", "attempt"], how="left")

    @property
    def losses(self) -> pd.DataFrame:
        """Return a row per loss term of an accepted epoch: key, epoch, term, value."""
        with self.reading() as database:
            return _frame(database, "losses")

    @property
    def evaluations(self) -> pd.DataFrame:
        """Return a row per classifier and split of an epoch: key, epoch, network, classifier, split, metrics.

        `network` is its number in the trial, from 0. The last columns are the trial's methods and seed, and the
        `ORIGIN` of the attempt that trained the epoch.
        """
        with self.reading() as database:
            evaluations, epochs = _frame(database, "evaluations"), _frame(database, "epochs")
            trials, attempts = _frame(database, "trials"), _frame(database, "attempts")
        origin = epochs[["key", "epoch", "attempt"]].merge(
            attempts[["key", "attempt", *ORIGIN]], on=["key", "attempt"], how="left"
        )
        evaluations = evaluations.merge(trials[["key", "methods", "seed"]], on="key", how="left")
        return evaluations.merge(origin, on=["key", "epoch"], how="left")

    def tables(self, *, selection: str | None = None, grids: Sequence[str] | None = None) -> list[ShownTable]:
        """Return the tables of a report.

        `selection` (best_test, best_val, last or mean_last_K) replaces the rule of the grids' files; `grids` are those
        that count. Raises ReportError for an unknown grid or rule, and for grids that disagree about a table's rule.
        """
        with self.reading() as database:
            return [ShownTable(table, grids) for table in gather(database, grids=grids, selection=selection).tables]

    def table(
        self, name: int | str | Mapping[str, Any], *, selection: str | None = None, grids: Sequence[str] | None = None
    ) -> ShownTable:
        """Return a table of a report by its number or its name (`table1`, `overview`, ...), or a declared one.

        A declaration is what a grid's YAML would say, as a mapping; see `tables` for the rest.

        With `-vs-paper` behind the name, it is the comparison with the published numbers. Raises ReportError, too, for
        a table that the report has not.
        """
        declared = [{"name": "table", **name}] if isinstance(name, Mapping) else []
        wanted = str(declared[0]["name"]) if declared else f"table{name}" if isinstance(name, int) else str(name)
        with self.reading() as database:
            vs_paper = wanted.endswith("-vs-paper")
            options: dict[str, Any] = {"grids": grids, "selection": selection, "vs_paper": vs_paper}
            gathered = gather(database, tables=declared, also=[wanted], **options)
            return ShownTable(gathered.table(wanted), grids)

    @contextmanager
    def reading(self, depth: int = 1) -> Iterator[Database]:
        """Open the database for reading, without its broken rows.

        Warnings name the line that called the function `depth` above.
        """
        with open_database(self.db, readonly=True) as database:
            for line in (*database.warnings, *database.leave_out_broken(numbers=True)):
                warnings.warn(line, stacklevel=3 + depth)
            yield database


def _frame(database: Database, name: str) -> pd.DataFrame:
    return pd.concat(frames(database, name), ignore_index=True)


@dataclass(frozen=True, repr=False)
class ShownTable:
    """A table that shows itself in a notebook.

    `data` holds its entries with the trials behind them, `grids` are those that were read (None for all).
    """

    data: Table
    grids: Sequence[str] | None = None

    @property
    def name(self) -> str:
        """Return the name of its file in a report."""
        return self.data.name

    @property
    def frame(self) -> pd.DataFrame:
        """Return a row per row, in full precision, with the columns of the CSV file: value, spread, n and flags."""
        return plain.frame(self.data)

    def to_markdown(self) -> str:
        """Return the table as GitHub-flavoured Markdown, with caption and footnotes."""
        return plain.markdown(self.data)

    def to_latex(self) -> str:
        """Return the table as LaTeX, for `\\input`; `orchestrate verify` checks its numbers."""
        return latex(self.data, self.grids)

    def to_html(self) -> str:
        """Return the table as a piece of HTML."""
        return fragment(self.data)

    def __repr__(self) -> str:
        return self.to_markdown()

    def _repr_html_(self) -> str:
        return self.to_html()
