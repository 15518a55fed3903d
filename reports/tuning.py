"""Place the trials of a tuned grid: its rows as they are, its rows as tuned, and draws, which stand in no table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator.database import queries, scores
from orchestrator.records import DEFAULT, TUNED, TUNING, draw_of, row_identity, tuned_row_of, without_seed
from orchestrator.tables.addresses import value
from orchestrator.text import counted
from reports.columns import column_of

if TYPE_CHECKING:
    from orchestrator.database import Database
    from orchestrator.records import DrawRow


class Place(NamedTuple):
    """A trial in a cell: the cell's configuration without the seed, and what a footnote says of the cell."""

    trial: int
    name: str
    config: dict[str, Any]
    about: str = ""


def places(
    members: Sequence[tuple[int, str]], configs: Mapping[int, Mapping[str, Any]], tune: Mapping[str, Any] | None
) -> Iterator[Place]:
    """Yield the places of a grid's trials (id and name), a tuned row behind the row itself.

    A tuned row has the row's own configuration with `tuning: tuned`, so that it stands beside the row, and its
    hyperparameters are in the footnote. A row that draw 0 won has its own trials as tuned ones. `tune` is what the
    grid's report section says of its search, None for a grid without one.
    """
    if tune is None:
        for trial, name in members:
            yield Place(trial, name, without_seed(configs[trial]))
        return
    searched = tune["rows"]
    tuned: dict[str, list[tuple[int, str]]] = {}
    own: dict[str, str] = {}
    for trial, name in members:
        if (row := tuned_row_of(name)) is not None:
            tuned.setdefault(row, []).append((trial, name))
        elif draw_of(name) is None:
            # By its configuration: a name that is too long ends with the key of its own trial.
            own.setdefault(row_identity(configs[trial]), name.removesuffix(f"/seed{configs[trial]['seed']}"))
    for trial, name in members:
        if draw_of(name) is not None or tuned_row_of(name) is not None:
            continue
        config, row = without_seed(configs[trial]), own[row_identity(configs[trial])]
        yield Place(trial, name, config | {TUNING: DEFAULT})
        about = _about(searched.get(row, {}))
        for other, other_name in tuned.pop(row, []):
            yield Place(other, other_name, config | {TUNING: TUNED}, about)
        if searched.get(row, {}).get("winner") == 0:
            yield Place(trial, name, config | {TUNING: TUNED}, about)


class Search(NamedTuple):
    """The search of a grid: its facts (`tune` of the grid's report section), and per row its draws by number."""

    grid: str
    tune: Mapping[str, Any]
    draws: Mapping[str, Mapping[int, DrawRow]]

    def best_so_far(self, row: str, lower: bool) -> list[tuple[int, float]]:
        """Return the best score after each draw of a row, as (number of draws, score), from the first that has one."""
        best: float | None = None
        curve = []
        for number, draw in sorted(self.draws.get(row, {}).items()):
            score = draw.score
            if score is not None and (best is None or (score < best if lower else score > best)):
                best = score
            if best is not None:
                curve.append((number, best))
        return curve


def searches(database: Database, grids: Sequence[str] | None = None) -> list[Search]:
    """Return the searches of the named grids, of all for None."""
    with database.reading() as connection:
        return [
            Search(
                row.name,
                tune,
                scores.draws(connection, row.name, tune["metric"], tune["selection"]),
            )
            for row in queries.grids(connection)
            if (tune := (row.report or {}).get("tune")) and (grids is None or row.name in grids)
        ]


def _about(row: Mapping[str, Any]) -> str:
    """Return which draw won a row, and what it has in place of the row's own hyperparameters."""
    if row.get("winner") is None:
        return ""
    failed = f"; {row['failed']} failed" if row.get("failed") else ""
    if row["winner"] == 0:
        return f"no draw of {row['draws']} is better than the row as it is{failed}"
    return f"draw {row['winner']} of {row['draws']}: {hyperparameters(row['values'])}{failed}"


def hyperparameters(values: Mapping[str, Any]) -> str:
    """Return tuned values in a line: `learning_rate 0.042, pskd.alpha 0.61`."""
    return ", ".join(f"{path.removeprefix('methods.')} {value(each)}" for path, each in values.items())


def budget(tune: Mapping[str, Any]) -> tuple[str, str]:
    """Return what a caption says of a search, in sentences and in a few words."""
    epochs = f" of {counted(tune['epochs'], 'epoch')}" if tune["epochs"] else ""
    fewer = [name for name, row in tune["rows"].items() if row["draws"] < tune["draws"]]
    less = f" (all that their spaces hold: {', '.join(fewer)})" if fewer else ""
    failed = sum(row.get("failed", 0) for row in tune["rows"].values())
    lost = f" {counted(failed, 'draw')} failed and counted all the same." if failed else ""
    title = column_of(tune["metric"]).title
    metric = title if title[:2].isupper() else title[:1].lower() + title[1:]
    words = (
        f"Tuned: {counted(tune['draws'], 'draw')} per row{less}, draw 0 the row as it is, by {tune['search']} search "
        f"from seed {tune['seed']}{epochs}, chosen by the {metric} on the validation images ({tune['selection']}); the "
        f"winners are trained on the grid's seeds.{lost}"
    )
    return words, f"tuned: {tune['draws']} draws per row"
