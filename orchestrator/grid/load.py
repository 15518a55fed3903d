"""Load grid files: from YAML to trials, every one of them built and checked before any starts."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator.grid.document import Node, compose, read_text
from orchestrator.grid.draws import first_draws
from orchestrator.grid.expansion import MAX_TRIALS, expand
from orchestrator.grid.fields import ELSEWHERE, ORDERS, SECTIONS, SET_AS, SET_ELSEWHERE
from orchestrator.grid.names import trial_names
from orchestrator.grid.problems import GridError, Problem
from orchestrator.grid.reader import Reader
from orchestrator.grid.report import read_report
from orchestrator.grid.resources import largest, read_resources
from orchestrator.grid.search import Tuning
from orchestrator.grid.seeding import SeedRule, read_seeds, with_seeds
from orchestrator.grid.settings import Span, with_settings
from orchestrator.grid.trial import Grid, Trial
from orchestrator.grid.tuned import with_draws
from orchestrator.grid.tuning import read_tuning
from orchestrator.tables.schema import COLUMNS, SPECIAL
from trainer.builtin_metrics import ALWAYS
from trainer.config import TrainConfig, config_problems
from trainer.parts import METRICS
from trainer.plugin_files import Plugin
from trainer.plugins import load_plugins
from trainer.problems import shown, unknown
from trainer.registry import PartError
from trainer.results import OUTCOMES, Evaluation, Metrics

# Columns of tables and exported files, which a metric of one's own would hide.
RESERVED_METRICS = {
    *COLUMNS,
    *SPECIAL,
    *(field.name for kind in (Evaluation, Metrics) for field in dataclass_fields(kind)),
}
RESERVED_METRICS |= {"key", "epoch", "methods", "seed", "attempt"}
RESERVED_METRICS |= {"host", "device", "commit", "dirty", "code_digest", "data_sha256"}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def load_grid(path: str | Path, settings: Mapping[str, Any] | None = None) -> Grid:
    """Read a grid file and build every trial.

    `settings` replace values of the file, by field, as `--set FIELD=VALUE` does: they are written into the grid's text,
    as its section `set`, so that the text alone makes the same trials.

    Raises GridError: with every problem of the file, each with its line.
    """
    source = Path(path)
    text, span = read_text(source), None
    if settings:
        text, span = with_settings(str(source), text, settings)
    try:
        with _without_collector():
            return _load(source, text, settings or {})
    except GridError as error:
        raise GridError([_of_option(problem, span) for problem in error.problems]) from None


def _load(source: Path, text: str, settings: Mapping[str, Any]) -> Grid:
    root, problems = compose(str(source), text)
    reader = Reader(str(source), problems)
    if not isinstance(root.value, dict):
        what = f"is {shown(root.plain())}, not a mapping with a name and a grid"
        raise GridError([*problems, Problem(str(source), *root.place, "", what)])
    sections = reader.mapping(root, "", SECTIONS, elsewhere=ELSEWHERE)
    # What an unknown section means to give is unknown.
    invalid = set(TrainConfig.model_fields) if len(reader.problems) > len(problems) else set()
    plugins = _plugins(reader, sections.get("plugins"), source.parent)
    fields = _settle(reader, sections)
    configs, axes = expand(reader, sections, root, fields, invalid)
    name = _name(reader, root, sections.get("name"))
    order = reader.one_of(sections.get("order"), "order", "order", ORDERS, ORDERS[0])
    metrics = _metrics(reader, sections.get("metrics"))
    outcomes = reader.one_of(sections.get("outcomes"), "outcomes", "value", OUTCOMES, "correct")
    rule = _rule_of_seeds(reader, sections, configs, fields, metrics)
    if rule is not None:
        configs, axes = with_seeds(configs, rule.most), [*axes, "seed"]
    names = trial_names(configs, axes)
    report = read_report(reader, sections.get("report"), configs.values(), axes, tuned="tune" in sections)
    tune = sections.get("tune")
    if tune is not None and sections.get("seeds") is not None:
        what = "winners are trained on the seeds of the file, and none may come by a rule (`seeds`); leave one out"
        reader.note(tune.place, "tune", what)
    tuning = read_tuning(reader, tune, configs, names, metrics, report["selection"], methods_set="methods" in fields)
    shared, per_network = read_resources(reader, sections.get("resources"), configs)
    if reader.problems:
        raise GridError(reader.problems)
    trials = [
        Trial(key, trial_name, config, largest(config, shared, per_network) if per_network else shared)
        for (key, config), trial_name in zip(configs.items(), names, strict=True)
    ]
    grid = Grid(name, source, text, trials, report, order, settings, tuple(plugins), metrics, outcomes, tuning)
    if rule is not None:
        return _by_rule(grid, rule)
    return _with_draws(grid, tuning, sections["tune"]) if tuning is not None else grid


def _rule_of_seeds(
    reader: Reader,
    sections: dict[str, Node],
    configs: dict[str, TrainConfig],
    settings: dict[str, Node],
    metrics: tuple[str, ...],
) -> SeedRule | None:
    """Return the rule by which seeds are added, None where the file lists the seeds."""
    given = {"set.seed": settings["seed"].place} if "seed" in settings else {}
    blocks = sections["grid"].value if "grid" in sections else {}
    for key, node in (("fixed", sections.get("fixed")), *(("grid", block) for block in _blocks(blocks))):
        values = (node.value if isinstance(node, Node) else node) or {}
        if isinstance(values, dict) and "seed" in values:
            given[f"{key}.seed"] = values["seed"].place
    return read_seeds(reader, sections.get("seeds"), configs, metrics, given, MAX_TRIALS)


def _blocks(value: Any) -> Iterator[Any]:
    """Yield the mappings of a section `grid` that may name fields: its blocks, and what varies together in them."""
    for block in value if isinstance(value, list) else [value]:
        values = block.value if isinstance(block, Node) else block
        yield values
        if isinstance(values, dict) and isinstance(together := values.get("zip"), Node):
            yield from together.value if isinstance(together.value, list) else [together.value]


def _by_rule(grid: Grid, rule: SeedRule) -> Grid:
    """Return a grid with the seeds of its first look, that knows those of later ones."""
    rows: dict[str, list[Trial]] = {}
    for trial in grid.trials:
        rows.setdefault(trial.config.cell_key(), []).append(trial)
    first = [trial for members in rows.values() for trial in members[: rule.start]]
    report = grid.report | {"seeds": rule.facts(grid.report["selection"])}
    return replace(grid, trials=first, report=report, seeds=rule, rows={key: tuple(own) for key, own in rows.items()})


def _with_draws(grid: Grid, tuning: Tuning, node: Node) -> Grid:
    """Return a grid with the draws of its rows that need no results: all of a random search, else the defaults."""
    try:
        return with_draws(grid, {row.name: list(first_draws(tuning, row)) for row in tuning.rows})
    except ValidationError as error:
        message = "; ".join(f"{'.'.join(path)}: {message}" for path, message in config_problems(error))
        what = f"values that stand in `spaces` do not go together: {message}"
        raise GridError([Problem(str(grid.source), *node.place, "tune.spaces", what)]) from None


def _metrics(reader: Reader, node: Node | None) -> tuple[str, ...]:
    """Return the names of the metrics that a grid's trials measure beside those of every evaluation."""
    names: list[str] = []
    allowed = [name for name in METRICS if name not in ALWAYS]
    for item in reader.items(node, "metrics"):
        name = item.plain()
        if not isinstance(name, str) or name not in METRICS:
            reader.note(item.place, "metrics", unknown("metric", name, allowed))
        elif name in ALWAYS:
            reader.note(item.place, "metrics", f"{name} is measured in every evaluation; leave it out")
        elif name in RESERVED_METRICS:
            what = f"{name} is a column of every report; give the metric of {METRICS[name].source} another name"
            reader.note(item.place, "metrics", what)
        elif name in names:
            reader.note(item.place, "metrics", f"{name} is listed twice")
        else:
            names.append(name)
    return tuple(names)


def _plugins(reader: Reader, node: Node | None, beside: Path) -> list[Plugin]:
    """Load the plug-ins of a grid; raises GridError where one fails, because its names are unknown then."""
    names = {}
    noted = len(reader.problems)
    for item in reader.items(node, "plugins"):
        if isinstance(item.value, str) and item.value.strip():
            names[item.value] = item.place
        else:
            what = f"{shown(item.plain())} is neither a file, such as my_parts.py, nor a module"
            reader.note(item.place, "plugins", what)
    if len(reader.problems) == noted:
        # One more each time, so that the problem of one is at its place; what was run is not run again.
        for count in range(1, len(names) + 1):
            try:
                load_plugins(list(names)[:count], beside)
            except PartError as error:
                reader.note(names[list(names)[count - 1]], "plugins", str(error))
                break
    if len(reader.problems) > noted:
        raise GridError(reader.problems)
    return load_plugins(names, beside)


def _settle(reader: Reader, sections: dict[str, Node]) -> dict[str, Node]:
    """Put what the section `set` gives of other sections into them, and return the fields of trials that it gives."""
    node = sections.get("set")
    entries = reader.mapping(node, "set", [*TrainConfig.model_fields, *SET_ELSEWHERE], "field", SET_AS)
    fields = {}
    for name, child in entries.items():
        section, _, key = name.partition(".")
        if name in TrainConfig.model_fields:
            fields[name] = child
        elif not key:
            sections[name] = child
        else:
            old = sections.get(section, Node({}, *child.place))
            own = old.value if isinstance(old.value, dict) else {}
            places = old.places | {key: child.place}
            sections[section] = replace(old, value={**own, key: child}, places=places)
    return fields


def _of_option(problem: Problem, span: Span | None) -> Problem:
    """Return a problem of a setting as one of the command line, which stands in no line of the file."""
    if span is None or problem.line is None or not span.covers((problem.line, problem.column or 1)):
        return problem
    return replace(problem, line=None, column=None, key=f"--set {problem.key.removeprefix('set.')}")


@contextmanager
def _without_collector() -> Iterator[None]:
    """Pause the garbage collector: a hundred thousand objects that all stay would be scanned over and over."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _name(reader: Reader, root: Node, node: Node | None) -> str:
    if node is None:
        reader.note(root.place, "name", "is missing; results are kept and reported under the grid's name")
        return ""
    name = node.value
    if not isinstance(name, str) or not _NAME.fullmatch(name) or ".." in name:
        what = f"{shown(node.plain())} cannot name a grid: letters, digits, dots, dashes and underscores, at most 100"
        reader.note(node.place, "name", what)
    return str(name)
