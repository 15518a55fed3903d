"""Add what another database holds to a copy of one, so that one report has the grids of both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Table, func, insert, select, update

from orchestrator.database.models import (
    Attempt,
    AttemptPart,
    Base,
    Epoch,
    Evaluation,
    Grid,
    GridTrial,
    LabelSet,
    Look,
    Part,
    Trial,
)

# How many rows are held in memory at once.
BATCH = 2000
# Rows that are one in both databases when these columns are equal.
_IDENTITY: Mapping[Any, tuple[str, ...]] = {
    Grid: ("name",),
    Trial: ("key",),
    Part: ("kind", "name", "version", "digest"),
}


@dataclass
class Merged:
    """Counts of what was added, of trials that both databases have, and of what was not taken over of these.

    `other_text` names grids that both have from different files: the target's text stays. `other_looks` names grids
    whose looks of sequential seeds do not go on from those of the target, and were left out.
    """

    grids: int = 0
    trials: int = 0
    shared: int = 0
    attempts: int = 0
    attempts_left: int = 0
    epochs_left: int = 0
    other_text: list[str] = field(default_factory=list)
    other_looks: list[str] = field(default_factory=list)


@dataclass
class _Merging:
    source: Connection
    target: Connection
    merged: Merged = field(default_factory=Merged)
    # The new ids of rows by table and old id; a trial that stays as it is in the target takes no attempts over.
    ids: dict[str, dict[int, int]] = field(default_factory=dict)
    kept: set[int] = field(default_factory=set)
    numbers: dict[int, int] = field(default_factory=dict)

    def merge(self) -> Merged:
        for model in (Grid, Trial, Part):
            self._named(model)
        self._members()
        for table in (Attempt.__table__, AttemptPart.__table__, Epoch.__table__, Evaluation.__table__):
            self._copy(table)
        for name in ("metric_values", "outcomes"):
            self._copy(Base.metadata.tables[name])
        self._label_sets()
        self._looks()
        return self.merged

    def _named(self, model: Any) -> None:
        """Take over rows that have a name of their own, or learn their ids where the target has them."""
        table, names = model.__table__, _IDENTITY[model]
        present = {tuple(row[name] for name in names): row for row in _rows(self.target, table)}
        ids = self.ids.setdefault(table.name, {})
        following = _next_id(self.target, table)
        fresh = []
        for row in _rows(self.source, table):
            old = present.get(tuple(row[name] for name in names))
            if old is None:
                values = row | {"id": following}
                fresh.append(values | ({"state": _settled(row), "driver": None} if model is Trial else {}))
                ids[row["id"]] = following
                following += 1
            else:
                ids[row["id"]] = old["id"]
                if model is Trial:
                    self._shared(row, old)
                elif model is Grid and row["text"] != old["text"]:
                    self.merged.other_text.append(row["name"])
        _insert(self.target, table, fresh)
        self.merged.grids += len(fresh) if model is Grid else 0
        self.merged.trials += len(fresh) if model is Trial else 0

    def _label_sets(self) -> None:
        table = LabelSet.__table__
        present = set(self.target.scalars(select(LabelSet.sha256)))
        _insert(self.target, table, [row for row in _rows(self.source, table) if row["sha256"] not in present])

    def _looks(self) -> None:
        """Take over the looks of sequential seeds, all of a baseline's rows or none.

        Where both databases have looked at them, these come where they only go on from those of the target: same rule,
        same rows, same decisions at the looks that both have.
        """
        table = Look.__table__
        following, ids = _next_id(self.target, table), self.ids["grids"]
        present = _by_baseline(_rows(self.target, table))
        given = _by_baseline(row | {"grid_id": ids[row["grid_id"]]} for row in _rows(self.source, table))
        grids = {row["id"]: row for row in _rows(self.target, Grid.__table__)}
        rules = {grid: row["report"]["seeds"] for grid, row in grids.items() if row["report"].get("seeds")}
        rules |= {grid: look["rule"] for (grid, _), looks in present.items() for look in looks.values()}
        fresh: list[dict[str, Any]] = []
        for (grid, baseline), looks in given.items():
            before = present.get((grid, baseline), {})
            same_rule = all(look["rule"] == rules.get(grid, look["rule"]) for look in looks.values())
            same_rows = not before or {row for row, _ in before} == {row for row, _ in looks}
            common = looks.keys() & before.keys()
            if same_rule and same_rows and all(_decided(looks[each]) == _decided(before[each]) for each in common):
                fresh += [look for place, look in looks.items() if place not in before]
            elif (name := grids[grid]["name"]) not in self.merged.other_looks:
                self.merged.other_looks.append(name)
        _insert(self.target, table, [row | {"id": following + place} for place, row in enumerate(fresh)])

    def _shared(self, row: Mapping[str, Any], old: Mapping[str, Any]) -> None:
        """Keep the target's trial, unless the source's alone is done, or has more epochs where neither is."""
        self.merged.shared += 1
        epochs, present = _epochs(self.source, row["id"]), _epochs(self.target, old["id"])
        if (row["state"] == "done", epochs) <= (old["state"] == "done", present) or old["state"] == "done":
            self.kept.add(row["id"])
            attempts = select(func.count()).select_from(Attempt).where(Attempt.trial_id == row["id"])
            self.merged.attempts_left += self.source.scalar(attempts) or 0
            self.merged.epochs_left += epochs
            return
        values = {"state": _settled(row), "driver": None, "finished": row["finished"]}
        values["numbers_sha256"] = row["numbers_sha256"]
        self.target.execute(update(Trial).where(Trial.id == old["id"]).values(values))
        self.target.execute(update(Epoch).where(Epoch.trial_id == old["id"]).values(accepted=None))
        last = self.target.scalar(select(func.max(Attempt.number)).where(Attempt.trial_id == old["id"]))
        self.numbers[old["id"]] = last or 0

    def _members(self) -> None:
        """Take over which trials a grid has; a grid that both have gets the trials of both."""
        table = GridTrial.__table__
        have = {(row["grid_id"], row["trial_id"]) for row in _rows(self.target, table)}
        names = {(row["grid_id"], row["name"]) for row in _rows(self.target, table)}
        last = {
            grid: position
            for grid, position in self.target.execute(
                select(GridTrial.grid_id, func.max(GridTrial.position)).group_by(GridTrial.grid_id)
            )
        }
        fresh = []
        for row in _rows(self.source, table):
            grid, trial = self.ids["grids"][row["grid_id"]], self.ids["trials"][row["trial_id"]]
            if (grid, trial) not in have:
                name = row["name"] if (grid, row["name"]) not in names else f"{row['name']}-{trial}"
                position = row["position"] + last.get(grid, -1) + 1
                fresh.append({"grid_id": grid, "trial_id": trial, "position": position, "name": name})
        _insert(self.target, table, fresh)

    def _copy(self, table: Any) -> None:
        """Take over the rows of a table that belong to rows taken over before, with new ids."""
        ids = self.ids.setdefault(table.name, {})
        belongs = {key.parent.name: key.column.table.name for key in table.foreign_keys}
        following = _next_id(self.target, table) if "id" in table.c else 0
        fresh: list[dict[str, Any]] = []
        for row in _rows(self.source, table):
            if row.get("trial_id") in self.kept or any(row[name] not in self.ids[of] for name, of in belongs.items()):
                continue
            values = row | {name: self.ids[of][row[name]] for name, of in belongs.items()}
            if "id" in row:
                ids[row["id"]] = values["id"] = following
                following += 1
            if table is Attempt.__table__:
                values |= {"number": row["number"] + self.numbers.get(values["trial_id"], 0)}
                values |= {"outcome": row["outcome"] or "lost", "driver": None}
                self.merged.attempts += 1
            fresh.append(values)
            if len(fresh) >= BATCH:
                _insert(self.target, table, fresh)
                fresh = []
        _insert(self.target, table, fresh)


def merge_into(target: Connection, source: Connection) -> Merged:
    """Add all grids, trials and results of one database to another, in the target's transaction.

    A trial that both have is one: the target's, or the source's where that alone is done, or has more epochs where
    neither is. What runs in the source waits in the target, as after a crash.
    """
    return _Merging(source, target).merge()


def _epochs(connection: Connection, trial_id: int) -> int:
    """Return how many accepted epochs a trial has."""
    accepted = select(func.count()).select_from(Epoch).where(Epoch.trial_id == trial_id, Epoch.accepted.is_not(None))
    return connection.scalar(accepted) or 0


def _settled(row: Mapping[str, Any]) -> str:
    return "pending" if row["state"] == "running" else str(row["state"])


def _by_baseline(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[int, str], dict[tuple[str, int], dict[str, Any]]]:
    """Return looks by the id of their grid and the baseline's key, and there by the row's key and the look's number."""
    groups: dict[tuple[int, str], dict[tuple[str, int], dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["grid_id"], row["baseline_key"]), {})[row["row_key"], row["look"]] = dict(row)
    return groups


def _decided(look: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(look[name] for name in ("seeds", "shared", "difference", "separated"))


def _next_id(connection: Connection, table: Table) -> int:
    return int(connection.scalar(select(func.max(table.c.id))) or 0) + 1


def _rows(connection: Connection, table: Any) -> Iterator[dict[str, Any]]:
    order = list(table.primary_key.columns)
    for row in connection.execution_options(stream_results=True).execute(select(table).order_by(*order)):
        yield dict(row._mapping)


def _insert(connection: Connection, table: Any, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(insert(table), rows)
