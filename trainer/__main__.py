"""`python -m trainer`: train one configuration and print a line per epoch, or evaluate a checkpoint."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trainer.config import TrainConfig, config_problems
from trainer.results import EpochResult, Evaluation

EXAMPLES = """\
examples:
  python -m trainer --dataset digits --width 8 --methods pskd,byot --epochs 6
  python -m trainer --network resnet50 --methods '{"byot": {"blocks": [3]}, "dmfl": {}}' --device cuda
  python -m trainer --evaluate run.pt --data-root data
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 diverged, 2 bad input."""
    logging.basicConfig(format="%(levelname)s: %(message)s")
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        return _evaluate(options) if options.evaluate else _train(options)
    except _expected_errors() as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if type(error).__name__ == "Diverged" else 2


def _train(options: argparse.Namespace) -> int:
    values = json.loads(options.config.read_text()) if options.config else {}
    if not isinstance(values, dict):
        raise ValueError(f"{options.config}: holds {values!r}, not a mapping of configuration fields")
    given = {name: getattr(options, name) for name in TrainConfig.model_fields if getattr(options, name) is not None}
    try:
        config = TrainConfig(**values | given)
    except ValidationError as error:
        listed = [f"--{'.'.join(path).replace('_', '-')}: {message}" for path, message in config_problems(error)]
        raise ValueError("\n       ".join(listed)) from None
    from trainer.download import prepare
    from trainer.train import train

    prepare(config, options.data_root, progress=print)

    def report(result: EpochResult) -> None:
        if options.json:
            print(json.dumps(result.to_dict()), flush=True)
        else:
            print(_line(result, config.epochs), flush=True)

    train(config, report, device=_device(options), data_root=options.data_root, checkpoint=options.checkpoint)
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    import torch

    from trainer.checkpoint import read_checkpoint
    from trainer.data import load_splits
    from trainer.download import prepare
    from trainer.train import build_networks, evaluate

    state = read_checkpoint(options.evaluate)
    config = state["config"]
    device = torch.device(_device(options))
    prepare(config, options.data_root, progress=print)
    splits = load_splits(config, options.data_root)
    networks = build_networks(config, splits.train.num_classes, device)
    networks.load_state_dict(state["networks"])
    evaluations = evaluate(config, networks, splits, device)
    if options.json:
        print(
            json.dumps([evaluation.__dict__ | {"metrics": evaluation.metrics.__dict__} for evaluation in evaluations])
        )
        return 0
    print(f"{options.evaluate}: {config.dataset}, {len(state['results'])} of {config.epochs} epochs trained")
    print(f"{'network':<18} {'split':<10} {'classifier':<10}  top-1 %  top-5 %     NLL   ECE %    AURC  OOD AUROC %")
    for evaluation in evaluations:
        print(f"{config.network_names[evaluation.network]:<18} {_row(evaluation)}")
    return 0


def _row(evaluation: Evaluation) -> str:
    metrics = evaluation.metrics
    numbers = (
        f"{metrics.top1_error:8.2f} {metrics.top5_error:8.2f} {metrics.nll:7.3f} {metrics.ece:7.2f} {metrics.aurc:7.2f}"
    )
    outside = "" if evaluation.ood_auroc is None else f" {evaluation.ood_auroc:12.2f}"
    return f"{evaluation.split:<10} {evaluation.classifier:<10} {numbers}{outside}"


def _line(result: EpochResult, epochs: int) -> str:
    errors = "  ".join(
        f"{'' if evaluation.network == 0 else f'network {evaluation.network} '}{evaluation.classifier} "
        f"{evaluation.metrics.top1_error:.2f}%"
        for evaluation in result.evaluations
        if evaluation.split == "test"
    )
    losses = "  ".join(f"{name} {value:.4f}" for name, value in result.losses.items())
    seconds = result.train_seconds + result.data_seconds
    return (
        f"epoch {result.epoch + 1}/{epochs}  rate {result.learning_rate:g}  train {seconds:.1f} s  "
        f"test {result.eval_seconds:.1f} s  |  loss: {losses}  |  top-1 error: {errors}"
        + ("  (from the checkpoint)" if result.restored else "")
    )


def _device(options: argparse.Namespace) -> str:
    import torch

    if options.device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(
            f"--device {options.device}: no CUDA device is available here; leave it out to train on the CPU"
        )
    return options.device


def _expected_errors() -> tuple[type[Exception], ...]:
    """What a person can mend. Imported late: bad arguments are refused before torch is loaded."""
    from trainer.checkpoint import CheckpointError
    from trainer.download import DataError
    from trainer.train import Diverged

    return (ValueError, OSError, CheckpointError, DataError, Diverged)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run = parser.add_argument_group("where and how it runs")
    run.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    run.add_argument("--data-root", type=Path, default=Path("data"), help="folder of the data sets (default: data)")
    run.add_argument("--checkpoint", type=Path, help="continue from this file if it is there, and keep it up to date")
    run.add_argument(
        "--evaluate", type=Path, metavar="CHECKPOINT", help="do not train: evaluate every classifier of this"
    )
    run.add_argument(
        "--config", type=Path, metavar="FILE", help="a JSON file of fields; options given here override it"
    )
    run.add_argument("--json", action="store_true", help="print JSON: one object per epoch, or the list of evaluations")
    science = parser.add_argument_group("configuration (every field of trainer.config.TrainConfig)")
    for name, field in TrainConfig.model_fields.items():
        default = field.get_default(call_default_factory=True)
        science.add_argument(
            f"--{name.replace('_', '-')}",
            type={"methods": _methods, "milestones": _numbers}.get(name, str),
            metavar=name.upper(),
            help=f"{field.description or ''} (default: {'none' if default in (None, {}) else default})".strip().replace(
                "%", "%%"
            ),
        )
    return parser


def _methods(text: str) -> Any:
    """`pskd,byot` or JSON with hyperparameters."""
    return (
        json.loads(text)
        if text.lstrip().startswith("{")
        else {name.strip(): {} for name in text.split(",") if name.strip()}
    )


def _numbers(text: str) -> list[str]:
    return [part for part in text.split(",") if part.strip()]


if __name__ == "__main__":
    sys.exit(main())
