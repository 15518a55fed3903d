"""Read the section `tune` of a grid file: the same number of draws for every row, and from which spaces."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from importlib.util import find_spec

from pydantic import ValidationError

from orchestrator.grid.declarations import without_validation
from orchestrator.grid.document import Node
from orchestrator.grid.problems import joined
from orchestrator.grid.reader import Reader
from orchestrator.grid.search import Space, TunedRow, Tuning, changed
from orchestrator.records import without_seed
from trainer.builtin_metrics import ALWAYS
from trainer.config import TrainConfig, config_problems
from trainer.parts import METHODS
from trainer.problems import shown, unknown

TUNE = ("draws", "metric", "epochs", "seed", "search", "spaces")
SEARCHES = ("random", "optuna")
KINDS = ("uniform", "log", "int", "choice")
# The recipe. Data, network, methods and seed say what is compared, and stay as the row has them.
TUNABLE = (
    *("batch_size", "optimizer", "learning_rate", "warmup", "schedule", "milestones", "gamma", "momentum"),
    *("nesterov", "weight_decay", "padding", "padding_mode", "flip"),
)
EVERY_ROW, NO_METHOD = "*", "baseline"
MOST_DRAWS, MOST_TRIALS = 1000, 50_000
DEFAULT_SEED = 100
EXAMPLE = '{"*": {learning_rate: {log: [0.01, 0.3]}}}'


def read_tuning(
    reader: Reader,
    node: Node | None,
    configs: Mapping[str, TrainConfig],
    names: Sequence[str],
    metrics: Sequence[str],
    selection: str,
    *,
    methods_set: bool = False,
) -> Tuning | None:
    """Return the tuning of a grid's trials (by key, with their names); its problems are noted in the reader.

    `metrics` are the grid's own, `selection` its rule. With `methods_set`, the methods are not those of the file
    (`--set methods=...`), which may then have spaces for methods that no row has.
    """
    if node is None:
        return None
    noted = len(reader.problems)
    entries = reader.mapping(node, "tune", TUNE)
    if not isinstance(node.value, dict):
        if node.value is None:
            reader.note(node.place, "tune", f"is empty; write {{draws: 20, spaces: {EXAMPLE}}}, or so")
        return None
    for name in ("draws", "spaces"):
        if name not in entries:
            example = "20" if name == "draws" else EXAMPLE
            reader.note(node.place, "tune", f"has no {name}; write {name}: {example}, or so")
    at_least = "draw 0 is the default, so 2 at least"
    draws = reader.whole(entries.get("draws"), "tune.draws", 2, MOST_DRAWS, at_least) or 2
    given = entries.get("epochs")
    epochs = None if given is None or given.value is None else reader.whole(given, "tune.epochs", 1, 1_000_000)
    seed = reader.whole(entries.get("seed"), "tune.seed", 0, 2**63 - 1)
    own = "; a metric of one's own stands under `metrics` first"
    metric = reader.one_of(entries.get("metric"), "tune.metric", "metric", [*ALWAYS, *metrics], "top1", own)
    search = reader.one_of(entries.get("search"), "tune.search", "search", SEARCHES, SEARCHES[0])
    if search == "optuna" and find_spec("optuna") is None:
        what = "optuna is not installed: pip install 'orchestrate-ablations[optuna]', or take search: random"
        reader.note(entries["search"].place, "tune.search", what)
    rows = _rows(configs, names)
    if lacking := without_validation(configs.values()):
        reader.note(node.place, "tune", f"a draw is judged on validation images alone, and {lacking}")
    seed = DEFAULT_SEED if seed is None else seed
    if seed in {one for row in rows for one in row.seeds}:
        place = entries["seed"].place if "seed" in entries else node.place
        what = (
            f"{seed} is a seed of the grid: the winners are judged on seeds that the search has not seen; take another"
        )
        reader.note(place, "tune.seed", what)
    if len(rows) * draws > MOST_TRIALS:
        what = f"{draws} draws of {len(rows):,} rows are {len(rows) * draws:,} trials; a grid may have {MOST_TRIALS:,}"
        reader.note(node.place, "tune.draws", what)
    spaces = _Spaces(reader, entries.get("spaces"), epochs, seed)
    rows = [spaces.of(row) for row in rows]
    if len(reader.problems) == noted:
        spaces.check_all_used(rows, methods_set)
        _check_apart(reader, entries["spaces"], rows)
    return Tuning(draws, metric, epochs, seed, search, selection, tuple(rows))


def row_name(trial: str, seed: int) -> str:
    """Return the name of a row from that of its trial with a seed."""
    return trial.removesuffix(f"/seed{seed}")


def _rows(configs: Mapping[str, TrainConfig], names: Iterable[str]) -> list[TunedRow]:
    """Return the rows of a grid, still without spaces: its configurations but for the seed, in its order."""
    members: dict[str, list[tuple[str, str, TrainConfig]]] = {}
    for (key, config), name in zip(configs.items(), names, strict=True):
        members.setdefault(config.cell_key(), []).append((key, name, config))
    return [
        TunedRow(
            row_name(trials[0][1], trials[0][2].seed),
            row,
            trials[0][2],
            tuple(config.seed for *_, config in trials),
            tuple(key for key, *_ in trials),
            (),
        )
        for row, trials in members.items()
    ]


class _Spaces:
    """The spaces of a file, by the rows that they are for: all (`*`), those with a method, or those without any."""

    def __init__(self, reader: Reader, node: Node | None, epochs: int | None, seed: int) -> None:
        self.reader, self.epochs, self.seed = reader, epochs, seed
        self.node = node
        self.used: set[str] = set()
        self.tried: set[tuple[str, str, str]] = set()
        scopes = reader.mapping(node, "tune.spaces", [EVERY_ROW, NO_METHOD, *METHODS], "method")
        self.scopes = {scope: self._scope(scope, child) for scope, child in scopes.items()}
        if node is not None and node.value in ({}, None):
            reader.note(node.place, "tune.spaces", f"has no space; write {EXAMPLE}, or so")

    def _scope(self, scope: str, node: Node) -> dict[str, tuple[Space, Node]]:
        key = joined("tune.spaces", scope)
        own = [one.name for one in fields(METHODS[scope].make)] if scope in METHODS else []
        spaces = {}
        entries = node.value if isinstance(node.value, dict) else {}
        if not entries:
            what = (
                f"{shown(node.plain())} is not a mapping of hyperparameters to spaces, such as {{learning_rate: ...}}"
            )
            self.reader.note(node.place, key, what)
        for name, child in entries.items():
            path = ("methods", scope, name) if name in own else (name,)
            if name not in own and name not in TUNABLE:
                if name in TrainConfig.model_fields:
                    what = "says what is compared, and is the same in every draw of a row; make it an axis of `grid`"
                else:
                    kind = f"hyperparameter of {scope}" if own else "field"
                    what = unknown(kind, name, [*own, *TUNABLE])
                    if home := [other for other in METHODS if name in (f.name for f in fields(METHODS[other].make))]:
                        what = f"is a hyperparameter of {' and '.join(home)}; write {{{home[0]}: {{{name}: ...}}}}"
                self.reader.note(node.places[name], joined(key, name), what)
            elif (space := self._space(path, child, joined(key, name))) is not None:
                spaces[name] = (space, child)
        return spaces

    def _space(self, path: tuple[str, ...], node: Node, key: str) -> Space | None:
        if not isinstance(node.value, dict) or len(node.value) != 1:
            what = (
                f"{shown(node.plain())} is not a space; write one of {{uniform: [low, high]}}, {{log: [low, high]}}, "
            )
            self.reader.note(node.place, key, f"{what}{{int: [low, high]}}, {{choice: [a, b]}}")
            return None
        if not self.reader.mapping(node, key, KINDS, "kind of space"):
            return None
        ((kind, child),) = node.value.items()
        values = child.plain()
        place, key = child.place, joined(key, kind)
        if kind == "choice":
            if isinstance(values, list) and len(values) >= 2 and len({repr(value) for value in values}) == len(values):
                return Space(path, kind, tuple(values))
            self.reader.note(place, key, f"{shown(values)} is not a list of two different values, or more")
            return None
        numbers = (int,) if kind == "int" else (int, float)
        if not (isinstance(values, list) and len(values) == 2 and all(type(value) in numbers for value in values)):
            what = "two whole numbers" if kind == "int" else "two numbers"
            self.reader.note(place, key, f"{shown(values)} is not a range; give {what}: [low, high]")
        elif values[0] >= values[1]:
            self.reader.note(place, key, f"{shown(values)} is not a range: the low end comes first, and is lower")
        elif kind == "log" and values[0] <= 0:
            self.reader.note(place, key, f"{shown(values)}: a logarithmic range begins above 0")
        else:
            return Space(path, kind, tuple(values) if kind == "int" else tuple(map(float, values)))
        return None

    def of(self, row: TunedRow) -> TunedRow:
        """Return a row with its spaces: those for all rows, and in their place those of its methods."""
        own = list(row.config.methods) or [NO_METHOD]
        chosen: dict[tuple[str, ...], tuple[str, Space, Node]] = {}
        for scope in (EVERY_ROW, *own):
            for name, (space, node) in self.scopes.get(scope, {}).items():
                earlier = chosen.get(space.path)
                if earlier is not None and earlier[0] != EVERY_ROW and earlier[1] != space:
                    what = f"has another space under {earlier[0]}, and row {row.name} has both methods; leave one out"
                    self.reader.note(node.place, joined("tune.spaces", scope, name), what)
                chosen[space.path] = (scope, space, node)
        self.used.update(scope for scope, *_ in chosen.values())
        for scope, space, node in chosen.values():
            self._try(row, scope, space, node)
        return TunedRow(
            row.name, row.key, row.config, row.seeds, row.keys, tuple(space for _, space, _ in chosen.values())
        )

    def _try(self, row: TunedRow, scope: str, space: Space, node: Node) -> None:
        """Build the row with the ends of a range, or every choice; what is wrong with one is a problem of its place."""
        ((kind, child),) = node.value.items() if isinstance(node.value, dict) else ((space.kind, node),)
        for number, value in enumerate(space.values):
            place = child.value[number].place if isinstance(child.value, list) else child.place
            try:
                changed(row.config, {space.path: value}, self.epochs, self.seed)
            except ValidationError as error:
                for path, message in config_problems(error):
                    own = path[: len(space.path)] == space.path
                    sentence = message if own else f"in row {row.name}: {'.'.join(path)}: {message}"
                    if own and kind in ("uniform", "log") and "not a whole number" in message:
                        sentence = f"{message}; write {{int: [low, high]}} or {{choice: [...]}}"
                    if (scope, space.name, sentence) not in self.tried:
                        self.tried.add((scope, space.name, sentence))
                        self.reader.note(place, joined("tune.spaces", scope, space.path[-1], kind), sentence)

    def check_all_used(self, rows: Sequence[TunedRow], methods_set: bool) -> None:
        """Note scopes that no row has, and rows that no scope gives anything to tune."""
        assert self.node is not None
        for scope in () if methods_set else self.scopes:
            if scope != EVERY_ROW and not any(
                scope in row.config.methods or (scope == NO_METHOD and not row.config.methods) for row in rows
            ):
                what = (
                    "no row of this grid trains with it"
                    if scope != NO_METHOD
                    else "every row of this grid has a method"
                )
                self.reader.note(self.node.places[scope], joined("tune.spaces", scope), what)
        for row in rows:
            if not row.spaces:
                scope = next(iter(row.config.methods), NO_METHOD)
                what = (
                    f"row {row.name} has nothing to tune, and every row gets the same number of draws; "
                    f'write a space for it under "{EVERY_ROW}" or {scope}'
                )
                self.reader.note(self.node.place, "tune.spaces", what)


def _check_apart(reader: Reader, node: Node, rows: Sequence[TunedRow]) -> None:
    """Note rows that differ in nothing but what is tuned: after the search they would be one."""
    first: dict[str, TunedRow] = {}
    for row in rows:
        rest = without_seed(row.config.model_dump(mode="json"))
        for space in row.spaces:
            part = rest
            for name in space.path[:-1]:
                part = part.get(name, {})
            part.pop(space.path[-1], None)
        other = first.setdefault(repr((sorted(rest.items()), row.spaces)), row)
        if other is not row:
            names = ", ".join(space.name for space in row.spaces)
            what = (
                f"rows {other.name} and {row.name} differ in nothing but what is tuned ({names}); leave one of them out"
            )
            reader.note(node.place, "tune.spaces", what)
