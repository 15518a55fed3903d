"""The arguments of `python -m trainer`: an option for every field of a configuration, and where and how it runs."""

from __future__ import annotations

import json
import math
import re
import textwrap
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn, get_args

from trainer.config import TrainConfig
from trainer.datasets import FOLDER_PREFIX
from trainer.errors import TrainerError
from trainer.parts import DATASETS, METHODS, NETWORKS, OPTIMIZERS, SCHEDULES
from trainer.paths import PathError, user_path
from trainer.plugins import load_plugins
from trainer.problems import unknown
from trainer.results import ENGINES

USAGE = """\
python -m trainer [OPTION ...]
       python -m trainer --evaluate CHECKPOINT [OPTION ...]"""

DESCRIPTION = """\
Train one configuration and print a line per epoch, or evaluate the networks of a checkpoint.

Neither Ray nor a database takes part. The defaults are the recipe of the CIFAR papers; the same configuration on the
same machine gives the same numbers. Exit codes: 0 done, 1 the training failed, 2 bad input,
75 the network or the machine failed (try again), 130 interrupted."""

EXAMPLES = """\
examples:
  python -m trainer --dataset digits --width 8 --methods pskd,byot --epochs 6
      a small network on scikit-learn's digits, with two methods; no download
  python -m trainer --methods '{"byot": {"blocks": [3]}, "dmfl": {}}' --device cuda --checkpoint run.pt
      ResNet-18 on CIFAR-100; the same command goes on from run.pt after an interruption
  python -m trainer --evaluate run.pt --ood-dataset svhn
      every classifier of run.pt and their ensemble, also against images of another kind"""

GROUPS = {
    "data": ("dataset", "subset", "validation", "normalization", "padding", "padding_mode", "flip", "ood_dataset"),
    "network": ("network", "width", "stages", "heads", "peer"),
    "training": (
        *("methods", "epochs", "batch_size", "optimizer", "momentum", "nesterov", "weight_decay", "learning_rate"),
        *("warmup", "schedule", "milestones", "gamma", "precision", "seed"),
    ),
}
METAVARS = {"methods": "A,B|JSON", "milestones": "N,N", "optimizer": "NAME|JSON", "schedule": "NAME|JSON"}
PART_EXAMPLES = {
    "optimizer": """its name, such as adamw, or JSON, such as '{"adamw": {"betas": [0.9, 0.95]}}'""",
    "schedule": """its name, such as cosine, or JSON, such as '{"cosine": {"final": 0.01}}'""",
}
# Fields that may change for the evaluation of a stored network.
OF_EVALUATION = ("ood_dataset",)


class BadArguments(TrainerError):
    """The arguments are wrong; the message says which and what to do."""


def option(name: str) -> str:
    """Return the option for a field of the configuration."""
    return f"--{name.replace('_', '-')}"


def parse_arguments(arguments: Sequence[str] | None = None) -> Namespace:
    """Parse the options; `given` holds the fields of the configuration that were given, not yet checked.

    Raises BadArguments. Ends the program after `--help`.
    """
    load_plugins(_plugins(arguments), Path.cwd())
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    for name in rest:
        if name.startswith("--"):
            allowed = [text for action in parser._actions for text in action.option_strings if text.startswith("--")]
            raise BadArguments(unknown("option", name.partition("=")[0], allowed))
        raise BadArguments(f"{name!r} belongs to no option; `python -m trainer --help` lists them")
    given = {name: getattr(options, name) for name in TrainConfig.model_fields}
    options.given = {name: value for name, value in given.items() if value is not None}
    if "methods" in options.given:
        options.given["methods"] = _methods(options.given["methods"])
    for name in ("optimizer", "schedule"):
        if options.given.get(name, "").lstrip().startswith("{"):
            options.given[name] = _json(name, options.given[name], PART_EXAMPLES[name])
    if "milestones" in options.given:
        options.given["milestones"] = [part for part in options.given["milestones"].split(",") if part.strip()]
    if options.evaluate:
        useless = [option(name) for name in options.given if name not in OF_EVALUATION]
        of_training = ("checkpoint", "checkpoint_seconds", "config")
        useless += [option(name) for name in of_training if getattr(options, name) is not None]
        if useless:
            raise BadArguments(
                f"--evaluate takes the configuration from its checkpoint; leave out {', '.join(useless)}"
            )
    if options.checkpoint_seconds is not None and not options.checkpoint:
        raise BadArguments("--checkpoint-seconds: no checkpoint is written without --checkpoint FILE")
    return options


def _plugins(arguments: Sequence[str] | None) -> list[str]:
    """Return the plug-ins, which are loaded before the other options are read: `--help` lists their parts."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--plugin", action="append", default=[])
    names: list[str] = parser.parse_known_args(arguments)[0].plugin
    return names


def _methods(text: str) -> Any:
    """Parse `pskd,byot` or `pskd+byot`, `baseline` for none, or JSON with hyperparameters."""
    if not text.lstrip().startswith(("{", "[")):
        named = [name.strip() for name in re.split(r"[,+]", text) if name.strip()]
        return {} if named == ["baseline"] else {name: {} for name in named}
    return _json(
        "methods", text, """names, such as pskd,byot, or JSON, such as '{"pskd": {}, "byot": {"blocks": [3]}}'"""
    )


def _json(name: str, text: str, example: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadArguments(f"{option(name)}: is not JSON ({error}); give {example}") from None


def _path(text: str) -> Path:
    try:
        return user_path(text)
    except PathError as error:
        raise ArgumentTypeError(str(error)) from None


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 <= (seconds := float(text)) < math.inf:
            return seconds
    raise ArgumentTypeError(f"{text!r} is not a number of seconds, such as 600, or 0 for every epoch")


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadArguments(message.removeprefix("argument "))


def _parser() -> ArgumentParser:
    parser = _Parser(
        prog="python -m trainer",
        usage=USAGE,
        description=DESCRIPTION,
        epilog=f"{_catalogue()}\n\n{EXAMPLES}",
        formatter_class=lambda prog: RawDescriptionHelpFormatter(prog, max_help_position=26, width=110),
        allow_abbrev=False,
        add_help=False,
    )
    run = parser.add_argument_group("where and how it runs")
    run.add_argument("--device", metavar="DEVICE", default="cpu", help="cpu (default), cuda or cuda:N")
    run.add_argument(
        "--data-root", metavar="FOLDER", type=_path, default=Path("data"), help="of the data sets (default: data)"
    )
    run.add_argument(
        "--checkpoint",
        metavar="FILE",
        type=_path,
        help="keep the training here, and go on from it",
    )
    run.add_argument(
        "--checkpoint-seconds",
        metavar="SECONDS",
        type=_seconds,
        help="least time between two checkpoints; 0 writes one every epoch (default: as seldom as takes at most 2 %% "
        "of the time)",
    )
    run.add_argument(
        "--engine",
        choices=ENGINES,
        default="auto",
        metavar="|".join(ENGINES),
        help="how steps reach the device: auto (the fastest with equal bits), one by one, recorded and replayed "
        "(on a GPU), or with compiled networks (other rounding)",
    )
    run.add_argument(
        "--deterministic", action="store_true", help="equal bits in every run on a GPU, by slower algorithms"
    )
    run.add_argument("--evaluate", metavar="CHECKPOINT", type=_path, help="train nothing, evaluate these networks")
    run.add_argument(
        "--config", metavar="FILE", type=_path, help="a JSON file with fields of the configuration; options come first"
    )
    run.add_argument(
        "--plugin", metavar="FILE|MODULE", action="append", help="of one's own parts; may be given more than once"
    )
    run.add_argument("--json", action="store_true", help="print an object per epoch, or a list of evaluations")
    run.add_argument("-h", "--help", action="help", help="print this")
    for title, names in GROUPS.items():
        group = parser.add_argument_group(title)
        for name in names:
            field = TrainConfig.model_fields[name]
            default = field.get_default(call_default_factory=True)
            shown = "" if default in (None, {}) else f" (default: {str(default).lower()})"
            group.add_argument(
                option(name),
                metavar=_metavar(name, field.annotation),
                help=f"{field.description}{shown}".replace("%", "%%"),
            )
    return parser


def _metavar(name: str, annotation: Any) -> str:
    if name in METAVARS:
        return METAVARS[name]
    kinds = [kind for kind in get_args(annotation) or (annotation,) if kind is not type(None)]
    if all(isinstance(kind, str) for kind in kinds):
        return "|".join(kinds)
    return {bool: "true|false", int: "N", float: "X", str: "NAME"}[kinds[0]]


def _catalogue() -> str:
    """Return the names that the options accept."""
    names = {
        "data sets": (*DATASETS, f"{FOLDER_PREFIX}NAME (a folder of images below the data root)"),
        "networks": NETWORKS,
    }
    lines = [
        textwrap.fill(f"{title + ':':<11}{', '.join(listed)}", 110, subsequent_indent=" " * 11, break_on_hyphens=False)
        for title, listed in names.items()
    ]
    lines.append("methods, with the defaults of their hyperparameters:")
    for name, method in sorted(METHODS.items()):
        lines.append(f"  {name:<16} {method.title:<16} {_settings(method.make)}".rstrip())
    for title, parts in (("optimizers", OPTIMIZERS), ("schedules", SCHEDULES)):
        lines.append(f"{title}, likewise:")
        for name, part in parts.items():
            fields_read = f"({', '.join(map(option, part.make.reads))})" if part.make.reads else ""
            lines.append(f"  {name:<16} {fields_read or _settings(part.make)}".rstrip())
    return "\n".join(lines)


def _settings(part: Any) -> str:
    return ", ".join(f"{field.name} {'auto' if field.default is None else field.default}" for field in fields(part))
