"""Add seeds to the rows of a grid where its rule asks for them: looks at pairs of rows, each at a number of seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from orchestrator.errors import OrchestrateError
from orchestrator.exit_codes import BAD_INPUT
from orchestrator.planning.seeds import paired_p
from orchestrator.records import LookRow, row_of
from orchestrator.stages.decision import Decision
from orchestrator.text import counted, shortlist

if TYPE_CHECKING:
    from orchestrator.database import Database
    from orchestrator.grid import Grid, SeedRule, Trial

# Pairs that a line of news names.
LISTED = 5


class SeedsError(OrchestrateError):
    """The rule of a grid's seeds, or the rows it compares, are others than those of the looks it has had."""

    exit_code = BAD_INPUT


@dataclass
class _Pairs:
    """The rows that are compared with one baseline, and the looks that each has had, those that are kept first."""

    baseline: str
    rows: list[str]
    looks: dict[str, list[LookRow]]
    fresh: list[LookRow] = field(default_factory=list)

    def open(self, most: int) -> list[str]:
        """Return the rows that are neither separated nor at their last look."""
        return [row for row in self.rows if len(self.looks[row]) < most and not self.separated(row)]

    def separated(self, row: str) -> bool:
        return any(look.separated for look in self.looks[row])


def add_seeds(grid: Grid, database: Database | None) -> Decision:
    """Return a grid with the seeds that the looks at its pairs call for by now.

    A look is made when every trial that it needs, of all open pairs with one baseline, has ended; a failed one is left
    out of the test. What a look decided stays, whatever becomes of the trials later.

    Raises SeedsError for a rule that is not that of the earlier looks, and for rows that came or went since.
    """
    rule = grid.seeds
    if rule is None:
        return Decision(grid)
    keys = [trial.key for members in grid.rows.values() for trial in members]
    selection = grid.report["selection"]
    ended, values = set[str](), dict[str, tuple[float, int]]()
    had: list[LookRow] = []
    if database is not None:
        had = database.looks(grid.name)
        _check_rule(grid, rule.facts(selection), had)
        _check_rows(grid, rule, had)
        ended = {key for key, state in database.states(keys).items() if state.state in ("done", "failed")}
        values = database.test_scores(keys, rule.metric, selection)
    groups = [_looked(grid, rule, pairs, ended, values) for pairs in _groups(rule, had)]
    seeds = dict.fromkeys(grid.rows, rule.start)
    for pairs in groups:
        still = pairs.open(len(rule.looks))
        for row in pairs.rows:
            looks = pairs.looks[row]
            wanted = rule.looks[len(looks)] if row in still else looks[-1].seeds
            for key in (row, pairs.baseline):
                seeds[key] = max(seeds[key], wanted)
    fresh = [look for pairs in groups for look in pairs.fresh]
    return Decision(
        replace(grid, trials=[trial for key, members in grid.rows.items() for trial in members[: seeds[key]]]),
        tuple(_news(rule, fresh)),
        tuple(_outlook(grid, rule, groups, seeds)),
        _may_come(rule, groups, seeds),
        (lambda target: target.record_looks(fresh)) if fresh else None,
    )


def _check_rule(grid: Grid, facts: Mapping[str, object], had: Sequence[LookRow]) -> None:
    for look in had:
        changed = [name for name in facts if look.rule.get(name) != facts[name]]
        if changed:
            was = ", ".join(f"{name}: {look.rule.get(name)}" for name in changed)
            now = ", ".join(f"{name}: {facts[name]}" for name in changed)
            raise SeedsError(
                f"{grid.source}: the rule of `seeds` is {now}, and grid {grid.name} was looked at by {was}: a rule "
                "that changes after a look at results does not keep its 5 %. Write it as it was, or give the grid "
                "another name (--set name=...): trials that are done count there too, and its looks start anew"
            )


def _check_rows(grid: Grid, rule: SeedRule, had: Sequence[LookRow]) -> None:
    # All pairs with one baseline have their first look at once, so the looks say which rows share the 5 %.
    for baseline in dict.fromkeys(other for _, other in rule.pairs):
        before = {look.row_key: look.row_name for look in had if look.baseline_key == baseline}
        listed = {row: _name(grid.rows[row]) for row, other in rule.pairs if other == baseline}
        added = [name for key, name in listed.items() if key not in before]
        gone = [name for key, name in before.items() if key not in listed]
        if before and (added or gone):
            news = [f"{', '.join(names)} {what}" for names, what in ((added, "added"), (gone, "gone")) if names]
            raise SeedsError(
                f"{grid.source}: {' and '.join(news)} since grid {grid.name} was looked at: the rows that are compared "
                f"with {_name(grid.rows[baseline])} share 5 %, which does not hold where rows come or go after a look "
                "at results. Write them as they were and put new rows, with their baseline, into a grid of their own, "
                "or give this grid another name (--set name=...): trials that are done count there too, and its looks "
                "start anew"
            )


def _groups(rule: SeedRule, had: Sequence[LookRow]) -> list[_Pairs]:
    groups: dict[str, _Pairs] = {}
    for row, baseline in rule.pairs:
        pairs = groups.setdefault(baseline, _Pairs(baseline, [], {}))
        pairs.rows.append(row)
        pairs.looks[row] = [look for look in had if (look.row_key, look.baseline_key) == (row, baseline)]
    return list(groups.values())


def _looked(
    grid: Grid, rule: SeedRule, pairs: _Pairs, ended: set[str], values: Mapping[str, tuple[float, int]]
) -> _Pairs:
    """Return the pairs after all the looks that the trials allow; new ones are in `fresh`."""
    from orchestrator.statistics.sequential import verdicts

    while still := pairs.open(len(rule.looks)):
        seeds = {row: rule.looks[len(pairs.looks[row])] for row in still}
        needed = [trial for row in still for key in (row, pairs.baseline) for trial in grid.rows[key][: seeds[row]]]
        if any(trial.key not in ended for trial in needed):
            break
        shared = {row: _shared(grid, row, pairs.baseline, seeds[row], values) for row in still}
        p_values = {row: _p_value(both, rule.metric) for row, both in shared.items()}
        before = sum(map(pairs.separated, pairs.rows))
        places = {row: len(pairs.looks[row]) for row in still}
        for row, verdict in verdicts(p_values, places, rule.looks, len(pairs.rows), before).items():
            own = [one - other for (one, _), (other, _) in shared[row]]
            look = LookRow(
                grid.name,
                row,
                pairs.baseline,
                _name(grid.rows[row]),
                _name(grid.rows[pairs.baseline]),
                places[row] + 1,
                seeds[row],
                len(own),
                sum(own) / len(own) if own else None,
                p_values[row],
                verdict.level,
                verdict.separated,
                rule.facts(grid.report["selection"]),
            )
            pairs.looks[row].append(look)
            pairs.fresh.append(look)
    return pairs


def _shared(
    grid: Grid, row: str, baseline: str, seeds: int, values: Mapping[str, tuple[float, int]]
) -> list[tuple[tuple[float, int], tuple[float, int]]]:
    """Return what two rows have, value and number of test images, of the seeds that both have a value of."""
    both = zip(grid.rows[row][:seeds], grid.rows[baseline][:seeds], strict=True)
    return [(values[one.key], values[other.key]) for one, other in both if one.key in values and other.key in values]


def _p_value(shared: Sequence[tuple[tuple[float, int], tuple[float, int]]], metric: str) -> float | None:
    """Return the p-value of the paired t test of two rows, None where they allow none."""
    images = min((count for both in shared for _, count in both), default=0)
    return paired_p([(one, other) for (one, _), (other, _) in shared], metric, images)


def _name(trials: Sequence[Trial]) -> str:
    return row_of(trials[0].name)


def _news(rule: SeedRule, fresh: Sequence[LookRow]) -> list[str]:
    """Return lines about new looks: one per separated pair, and one for the others at each number of seeds."""
    lines = []
    for look in fresh:
        if look.separated and look.difference is not None:
            saved = rule.most - look.seeds
            rest = f"; it stops, {counted(saved, 'seed')} before the most" if saved else ""
            lines.append(
                f"seeds: look {look.look} at {look.seeds}: {look.row_name} is told from {look.baseline_name} by "
                f"{look.difference:+.3g} in {rule.metric}, p {look.p:.2g} at or below {look.level:.2g}{rest}"
            )
    for count in sorted({look.seeds for look in fresh}):
        going_on = [look for look in fresh if look.seeds == count and not look.separated]
        if going_on:
            named = [
                f"{look.row_name} ({'no test' if look.p is None else f'p {look.p:.2g}, {look.level:.2g} needed'})"
                for look in going_on
            ]
            end = "stay open: these were the last seeds" if count == rule.most else "go on"
            lines.append(f"seeds: look {going_on[0].look} at {count}: {shortlist(named, LISTED)} {end}")
    return lines


def _outlook(grid: Grid, rule: SeedRule, groups: Sequence[_Pairs], seeds: Mapping[str, int]) -> list[str]:
    """Return lines for a plan: where every pair stands, and what may still come."""
    total = sum(len(pairs.rows) for pairs in groups)
    still = sum(len(pairs.open(len(rule.looks))) for pairs in groups)
    separated = sum(pairs.separated(row) for pairs in groups for row in pairs.rows)
    saved = sum(
        rule.most - pairs.looks[row][-1].seeds for pairs in groups for row in pairs.rows if pairs.separated(row)
    )
    looks = ", ".join(map(str, rule.looks))
    counts = [(separated, "separated"), (total - still - separated, "open after the last look"), (still, "to decide")]
    listed = ", ".join(f"{count} {what}" for count, what in counts if count)
    line = f"seeds: looks at {looks} seeds, {counted(total, 'pair')} in {rule.metric}: {listed}"
    if saved:
        line += f"; {counted(saved, 'seed')} saved by stopping early"
    lines = [line]
    if may_come := _may_come(rule, groups, seeds):
        lines.append(f"seeds: up to {counted(may_come, 'trial')} more may come, where a pair is not separated before")
    return lines


def _may_come(rule: SeedRule, groups: Sequence[_Pairs], seeds: Mapping[str, int]) -> int:
    wanted = dict(seeds)
    for pairs in groups:
        for row in pairs.open(len(rule.looks)):
            wanted[row] = wanted[pairs.baseline] = rule.most
    return sum(wanted.values()) - sum(seeds.values())
