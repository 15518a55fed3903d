"""`python -m trainer`: train one configuration and print a line per epoch, or evaluate a checkpoint."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trainer.arguments import option, parse_arguments
from trainer.config import TrainConfig, config_problems
from trainer.errors import Diverged, RankLost, TrainerError
from trainer.results import EpochResult, Evaluation

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


class _Stop(TrainerError):
    """An end that was foreseen, with its exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    logging.basicConfig(format="warning: %(message)s")
    try:
        options = parse_arguments(arguments)
        _evaluate(options) if options.evaluate else _train(options)
    except TrainerError as error:
        _complain(error)
        return error.exit_code
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`| head`): no error, and nothing can be printed any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return DONE


def _train(options: Namespace) -> None:
    config = _config(options)
    with _foreseen():
        from trainer.data import prepare
        from trainer.train import train

        device = _device(options)
        prepare(config, options.data_root, progress=_say)
        table = _EpochTable(config)
        first = _rank() == 0
        if first and not options.json:
            count = f"{config.epochs} epoch{'s' if config.epochs > 1 else ''}"
            where = f"{_process_count()} processes, {device}" if _process_count() > 1 else device
            print(f"{_description(config)}, {count} on {where}", flush=True)

        def report(result: EpochResult) -> None:
            if first and options.json:
                print(json.dumps(result.to_dict() | {"epoch": result.epoch + 1}), flush=True)
            elif first:
                table.print(result)

        with _process_group(device):
            result = train(
                config,
                report,
                device=device,
                data_root=options.data_root,
                checkpoint=options.checkpoint,
                checkpoint_seconds=options.checkpoint_seconds,
                engine=options.engine,
                deterministic=options.deterministic,
                report_teacher=lambda result: _say(_teacher_line(result, config.epochs)),
            )
    if first and not options.json:
        terms = ", ".join(f"{name} {value:.4f}" for name, value in result.losses.items())
        print(f"\n{result.parameters:,} parameters; loss terms of the last epoch: {terms}\n")
        print("\n".join(_evaluation_table(config, result.evaluations)))


def _evaluate(options: Namespace) -> None:
    with _foreseen():
        from trainer.checkpoint import fitting, read_checkpoint
        from trainer.data import evaluation_sets, load_splits, prepare
        from trainer.device import prepare_device
        from trainer.evaluation import evaluate
        from trainer.state import build_networks

        device = prepare_device(_device(options), deterministic=options.deterministic)
        state = read_checkpoint(options.evaluate)
        config = state["config"]
        if options.given:
            config = _config(options, config.model_dump())
        prepare(config, options.data_root, progress=_say)
        splits = load_splits(config, options.data_root)
        networks = build_networks(config, splits.train.num_classes, device)
        with fitting(options.evaluate):
            networks.load_state_dict(state["networks"])
        with _process_group(str(device)):
            evaluations = evaluate(config, networks, evaluation_sets(splits, config, device), device)
    if _rank() > 0:
        return
    if options.json:
        print(json.dumps([asdict(evaluation) for evaluation in evaluations]))
        return
    print(f"{options.evaluate}: {_description(config)}, {len(state['results'])} of {config.epochs} epochs\n")
    print("\n".join(_evaluation_table(config, evaluations)))


def _config(options: Namespace, values: dict[str, Any] | None = None) -> TrainConfig:
    """Return the configuration from `values` or the file of `--config`, and from the options, which come first."""
    if values is None:
        values = _config_file(options.config) if options.config else {}
    try:
        return TrainConfig(**values | options.given)
    except ValidationError as error:
        listed = []
        for (name, *below), message in config_problems(error):
            place = option(name) if name in options.given or options.config is None else f"{options.config}: {name}"
            listed.append(f"{'.'.join([place, *below])}: {message}")
        raise _Stop("\n       ".join(listed), BAD_INPUT) from None


def _config_file(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _Stop(f"{path}: cannot be read ({error.strerror})", BAD_INPUT) from None
    except (ValueError, RecursionError) as error:
        raise _Stop(f"{path}: is not JSON ({error})", BAD_INPUT) from None
    if not isinstance(values, dict):
        example = '{"network": "resnet18", "methods": {"pskd": {}}}'
        raise _Stop(f"{path}: holds no mapping of configuration fields, such as {example}", BAD_INPUT)
    return values


def _device(options: Namespace) -> str:
    import torch

    device, count = str(options.device), torch.cuda.device_count()
    if not re.fullmatch(r"cpu|cuda(:\d{1,4})?", device):
        raise _Stop(f"--device: {device!r} is none; give cpu, cuda or cuda:N", BAD_INPUT)
    if device != "cpu" and not count:
        raise _Stop(f"--device: {device}: no CUDA device is available here; leave it out for the CPU", BAD_INPUT)
    if device != "cpu" and _process_count() > 1:
        if ":" in device:
            raise _Stop(f"--device: {device}: each process has a GPU of its own; give cuda", BAD_INPUT)
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    if device != "cpu" and int(device.partition(":")[2] or 0) >= count:
        raise _Stop(f"--device: {device}: there is cuda:0 to cuda:{count - 1} here", BAD_INPUT)
    return device


def _process_count() -> int:
    """Return how many processes `torchrun` has started to train together."""
    return int(os.environ.get("WORLD_SIZE", 1))


def _rank() -> int:
    return int(os.environ["RANK"]) if _process_count() > 1 else 0


def _process_group(device: str) -> AbstractContextManager[None]:
    if _process_count() == 1:
        return nullcontext()
    import torch

    from trainer.distributed import process_group, stay_on_this_machine

    stay_on_this_machine(os.environ["MASTER_ADDR"])
    return process_group(torch.device(device))


@contextmanager
def _foreseen() -> Iterator[None]:
    """Turn expected errors into one message. Imports torch, so bad arguments are refused before."""
    import torch

    try:
        yield
    except BrokenPipeError:
        raise
    except RankLost:
        raise _Stop("another process of this training has ended; what it says is the reason", FAILED) from None
    except Diverged as error:
        raise _Stop(f"{error}: it diverged; a lower --learning-rate may help", FAILED) from None
    except TrainerError:
        raise
    except OSError as error:
        raise _Stop(f"{error.filename}: {error.strerror}" if error.filename else str(error), BAD_INPUT) from None
    except torch.OutOfMemoryError as error:
        raise _Stop(f"{str(error).splitlines()[0]} Lower --batch-size or --width", FAILED) from None


def _complain(error: Exception) -> None:
    # Printed by every process: `torchrun` ends the others when any process has ended.
    who = f"error in process {_rank()}" if _process_count() > 1 else "error"
    print(f"{who}: {error}", file=sys.stderr, flush=True)


def _say(line: str) -> None:
    # Standard output is for results; one rank's messages are enough.
    if _rank() == 0:
        print(line, file=sys.stderr, flush=True)


def _description(config: TrainConfig) -> str:
    networks = " and ".join(config.network_names)
    width = "" if config.width == 64 else f" of width {config.width}"
    methods = " with " + ", ".join(config.methods) if config.methods else ""
    return f"{networks}{width}{methods} on {config.dataset}"


def _label(config: TrainConfig, evaluation: Evaluation) -> str:
    """Return the name of a classifier among those of all networks and splits."""
    number = f"{evaluation.network + 1}:" if len(config.network_names) > 1 else ""
    return f"{number}{evaluation.classifier}{'' if evaluation.split == 'test' else ' (val)'}"


def _teacher_line(result: EpochResult, epochs: int) -> str:
    return f"teacher: epoch {result.epoch + 1}/{epochs}, top-1 error {result.evaluations[0].metrics.top1_error:.2f} %"


class _EpochTable:
    """A line per epoch, under a heading of the classifiers evaluated."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.headed = False

    def print(self, result: EpochResult) -> None:
        """Print an epoch, the first one below the heading."""
        if not self.headed:
            labels = "".join(f"  {_label(self.config, evaluation):>6}" for evaluation in self._shown(result))
            width = len(labels)
            print(f"\n{'':<9}{'learning':>10}{'':>10}  {' top-1 error in % ':-^{width - 2}}{'  seconds of':>18}")
            print(f"{'epoch':<9}{'rate':>10}{'loss':>10}{labels}{'training':>10}{'testing':>9}")
            self.headed = True
        errors = "".join(
            f"  {evaluation.metrics.top1_error:>{max(6, len(_label(self.config, evaluation)))}.2f}"
            for evaluation in self._shown(result)
        )
        print(
            f"{f'{result.epoch + 1}/{self.config.epochs}':<9}{result.learning_rate:>10.4g}"
            f"{sum(result.losses.values()):>10.4f}{errors}"
            f"{result.train_seconds + result.data_seconds:>10.1f}{result.eval_seconds:>9.1f}"
            f"{'  (from the checkpoint)' if result.restored else ''}",
            flush=True,
        )

    @staticmethod
    def _shown(result: EpochResult) -> list[Evaluation]:
        """Return every classifier on the test split, and the deepest one on the validation split."""
        return [e for e in result.evaluations if e.split == "test" or e.classifier == "main"]


def _evaluation_table(config: TrainConfig, evaluations: Sequence[Evaluation]) -> list[str]:
    outside = any(evaluation.ood_auroc is not None for evaluation in evaluations)
    # Two spaces behind the longest name, and of several networks a number and a colon before it.
    wide = max(18, max(map(len, config.network_names)) + 2 * len(config.network_names))
    place = f"{'network':<{wide}}{'split':<12}{'classifier':<12}"
    heading = f"{place}{'top-1 %':>8}{'top-5 %':>9}{'NLL':>9}{'ECE %':>8}{'AURC':>9}"
    lines = [heading + (f"{'OOD AUROC %':>13}" if outside else "")]
    for evaluation in evaluations:
        network = config.network_names[evaluation.network]
        number = f"{evaluation.network + 1}:" if len(config.network_names) > 1 else ""
        m = evaluation.metrics
        lines.append(
            f"{number + network:<{wide}}{evaluation.split:<12}{evaluation.classifier:<12}"
            f"{m.top1_error:8.2f}{m.top5_error:9.2f}{m.nll:9.4f}{m.ece:8.2f}{m.aurc:9.2f}"
            + ("" if evaluation.ood_auroc is None else f"{evaluation.ood_auroc:13.2f}")
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
