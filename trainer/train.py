"""The training loop: one configuration in, one `EpochResult` per epoch out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainer.checkpoint import Saver, fitting, keep_newest, remove_checkpoint, resume_from
from trainer.config import TrainConfig
from trainer.data import ImageFiles, Loader, Splits, epoch_loader, evaluation_sets, load_splits
from trainer.device import keep_freed_memory, prepare_device, wait_for
from trainer.distributed import average_statistics, broadcast_state, rank, watching_ranks
from trainer.errors import Diverged
from trainer.evaluation import evaluate
from trainer.method import Batch
from trainer.objective import Objective
from trainer.outcomes import Keeper, drop_surpassed
from trainer.own_metrics import try_out
from trainer.results import EpochResult
from trainer.state import build_networks, build_optimizer, checkpoint_state, derived_seed, load_state, teacher_config
from trainer.step import Replayed, Step, build_step, choose_engine, eager, set_rate

Report = Callable[[EpochResult], None]


@dataclass(frozen=True)
class _Run:
    """The arguments of `train` that change nothing of what is learned."""

    device: torch.device
    data_root: Path
    checkpoint: Path | None
    checkpoint_seconds: float | None
    stop_after: int | None
    engine: str
    report_engine: Callable[[str], None]
    own_metrics: tuple[str, ...]
    outcomes: str


def train(
    config: TrainConfig,
    report: Report,
    *,
    device: str | torch.device = "cpu",
    data_root: Path = Path("data"),
    checkpoint: Path | None = None,
    checkpoint_seconds: float | None = 0.0,
    stop_after: int | None = None,
    engine: str = "auto",
    deterministic: bool = False,
    report_engine: Callable[[str], None] = lambda engine: None,
    report_teacher: Report | None = None,
    own_metrics: Sequence[str] = (),
    outcomes: str = "none",
) -> EpochResult:
    """Train one configuration and report every epoch, in order.

    With `checkpoint`, training continues from that file if it is there, after reporting the epochs it holds once
    more (`restored`), and writes it after the last epoch, and in between when `checkpoint_seconds` have passed since
    the last time (None: after the first epoch, and then so seldom that writing takes at most 2 % of the time).
    An epoch is written before it is reported, so whatever was reported from a checkpointed epoch is never trained
    differently again. On one CPU machine with one number of threads, an interrupted run gives the bits of an
    undisturbed one; on one GPU it does with `deterministic`.

    `engine` is one of `trainer.results.ENGINES`: how steps reach the device. `report_engine` is given the one that is
    used, before the first epoch, and again if another takes its place.

    Where a method needs a teacher, it is trained first, with a checkpoint of its own beside the other, and
    `report_teacher` is given its epochs. With `stop_after`, training ends after so many epochs of the configuration's
    schedule; without a checkpoint, as in measuring speed, so does the teacher's.

    `own_metrics` are names of registered metrics that are measured beside those of every evaluation.

    `outcomes` is one of `trainer.results.OUTCOMES`: what is kept of each test image, for the main classifier of each
    network, in epochs that are the best so far and in the last one. Results from a checkpoint have those of the best
    and of its newest epoch.

    Within `trainer.distributed.process_group` several processes train the same networks. All call this function and are
    given every epoch, which differ in what is measured of the process: seconds and memory. The first one alone measures
    the own metrics, and reads and writes the checkpoint (the others need not name it), and a training may go on with
    another number of processes.

    Raises:
        Diverged: a loss term or the output of a classifier is not finite.
        DataError: the data set is missing or damaged.
        CheckpointError: the checkpoint belongs to another configuration, a newer program, or is none.
        MetricError: one of the own metrics fails, or gives no finite number; as a rule before the first epoch.
        OSError: the checkpoint cannot be read or written.
        RankLost: another process that trains the same networks has ended.
    """
    place = prepare_device(device, deterministic=deterministic)
    own = tuple(own_metrics)
    run = _Run(place, data_root, checkpoint, checkpoint_seconds, stop_after, engine, report_engine, own, outcomes)
    if place.type == "cpu":
        keep_freed_memory()
    with watching_ranks():
        result, _ = _fit(config, run, report, report_teacher or (lambda result: None))
    return result


class Training:
    """One configuration on one device, ready to train its epochs.

    `teacher`, the network that a method may need, is trained by whoever builds this. `engine` is the one in use.

    Raises DataError when the data set is missing or damaged, MetricError when one of the own metrics fails.
    """

    def __init__(
        self,
        config: TrainConfig,
        device: torch.device,
        data_root: Path,
        engine: str = "auto",
        own_metrics: Sequence[str] = (),
        outcomes: str = "none",
    ) -> None:
        self.config, self.device, self.own_metrics = config, device, own_metrics
        self.keeper = Keeper(outcomes, config.epochs)
        self.splits: Splits = load_splits(config, data_root)
        self.num_classes = self.splits.train.num_classes
        try_out(own_metrics, self.num_classes)
        self.networks = build_networks(config, self.num_classes, device)
        self.parameters = sum(parameter.numel() for parameter in self.networks.parameters())
        self.objective = Objective(config.build_methods(), self.num_classes)
        self.optimizer = build_optimizer(config, self.networks)
        pairs, augmenting = self.objective.requires.class_pairs, self.objective.augmenting
        self.loader = epoch_loader(self.splits, config, device, class_pairs=pairs, augmenting=augmenting)
        self.evaluated = evaluation_sets(self.splits, config, device)
        self.in_memory = not isinstance(self.splits.train, ImageFiles)
        self.chosen = choose_engine(engine, config, device, in_memory=self.in_memory)
        self.step: Step | Replayed | None = None

    @property
    def engine(self) -> str:
        """Return the engine in use."""
        given_up = isinstance(self.step, Replayed) and self.step.given_up
        return "launched" if given_up and self.chosen == "replayed" else self.chosen

    def set_up(self, teacher: nn.Module | None) -> None:
        """Create the state of the methods."""
        labels = self.splits.train.labels.to(self.device)
        for method in self.objective.methods:
            method.setup(labels, self.num_classes, len(self.networks), teacher)

    def epoch(self, epoch: int) -> EpochResult:
        """Train and evaluate an epoch (0-based).

        Nothing here waits for the device between the first step and the last. On a GPU, data takes the seconds until
        the first batch is there: later ones are prepared while the device works.

        Raises Diverged when a loss term or the output of a classifier is not finite.
        """
        config, device, step = self.config, self.device, self._built_step()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        # Random numbers in a network (dropout) depend on the seed and the epoch alone; every rank draws others.
        torch.manual_seed(derived_seed(config.seed, "epoch", epoch) + rank())
        for method in self.objective.methods:
            method.start_epoch(epoch, config.epochs)
        self.networks.train()
        rates = config.learning_rates(epoch, len(self.loader))

        wait_for(device)
        started = time.perf_counter()
        with step.stream():
            step.tally.start()
            batches = _Clocked(self.loader, epoch, device)
            images, rate = 0, None
            for next_rate, batch in zip(rates, batches, strict=True):
                if next_rate != rate:
                    set_rate(self.optimizer, rate := next_rate)
                step(batch)
                images += batch.images
            losses, first_bad = step.tally.read(images)
        _refuse_bad_terms(config, epoch, first_bad, len(rates))
        average_statistics(self.networks)
        wait_for(device)
        trained_at = time.perf_counter()

        with eager(self.chosen == "compiled"):
            evaluations = evaluate(config, self.networks, self.evaluated, device, self.own_metrics, self.keeper, epoch)
        wait_for(device)
        evaluated_at = time.perf_counter()
        result = EpochResult(
            epoch=epoch,
            learning_rate=rates[-1],
            train_seconds=trained_at - started - batches.seconds,
            eval_seconds=evaluated_at - trained_at,
            data_seconds=batches.seconds,
            images=images,
            losses=losses,
            evaluations=evaluations,
            parameters=self.parameters,
            peak_memory_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        )
        _refuse_bad_outputs(config, result)
        return result

    def _built_step(self) -> Step | Replayed:
        if self.step is None:
            # Here and not before, because the step needs the process group, and the weights of a checkpoint.
            plain = Step(self.config, self.networks, self.objective, self.optimizer)
            self.step = build_step(plain, self.chosen, in_memory=self.in_memory)
        return self.step


class _Clocked:
    """The batches of an epoch, with the `seconds` spent on them: on a GPU those until the first batch is there."""

    def __init__(self, loader: Loader, epoch: int, device: torch.device) -> None:
        began = time.perf_counter()
        self.batches, self.first_alone = loader.epoch(epoch), device.type != "cpu"
        self.counting = True
        self.seconds = time.perf_counter() - began

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        asked = time.perf_counter()
        try:
            return next(self.batches)
        finally:
            if self.counting:
                self.seconds += time.perf_counter() - asked
            self.counting = not self.first_alone


def _refuse_bad_terms(config: TrainConfig, epoch: int, first_bad: dict[str, float], steps: int) -> None:
    term = min(first_bad, key=first_bad.__getitem__)
    if first_bad[term] < math.inf:
        raise Diverged(
            f"the loss term {term!r} is not finite at step {first_bad[term]:.0f} of {steps} "
            f"in epoch {epoch + 1} of {config.epochs}"
        )


def _fit(config: TrainConfig, run: _Run, report: Report, report_teacher: Report) -> tuple[EpochResult, nn.ModuleList]:
    checkpoint = run.checkpoint if rank() == 0 else None
    # Read first: a checkpoint that must not be overwritten is refused before any work.
    saved = resume_from(checkpoint, config) if checkpoint else None
    if saved is not None:
        del saved["config"]
    saved = broadcast_state(saved, run.device)
    training = Training(config, run.device, run.data_root, run.engine, run.own_metrics, run.outcomes)
    training.set_up(_teacher(training, run, saved is not None, report_teacher))
    results = _restored(training, run, saved)
    del saved
    training.keeper.see(results)
    for result in results:
        report(result)

    epochs = config.epochs if run.stop_after is None else min(run.stop_after, config.epochs)
    saver = Saver(checkpoint, run.checkpoint_seconds)
    engine = training.engine
    run.report_engine(engine)
    for epoch in range(len(results), epochs):
        result = training.epoch(epoch)
        if training.engine != engine:
            engine = training.engine
            run.report_engine(engine)
        results.append(result)
        drop_surpassed(results)
        state = partial(checkpoint_state, training.networks, training.optimizer, training.objective, results)
        saver.save(config, state, last=epoch == epochs - 1)
        report(result)
    if checkpoint and len(results) == config.epochs:
        keep_newest(checkpoint)
        remove_checkpoint(_teachers(checkpoint))
    return results[-1], training.networks


def _restored(training: Training, run: _Run, saved: dict[str, Any] | None) -> list[EpochResult]:
    """Load a checkpoint's content; return the results of its epochs."""
    if saved is None:
        return []
    with fitting(run.checkpoint) if run.checkpoint else nullcontext():
        load_state(saved, training.networks, training.optimizer, training.objective)
        return [replace(EpochResult.from_dict(values), restored=True) for values in saved["results"]]


def _teacher(training: Training, run: _Run, saved: bool, report: Report) -> nn.Module | None:
    """Return the teacher that a method needs: the same network, trained beforehand without any method."""
    if not training.objective.requires.teacher:
        return None
    plain = teacher_config(training.config)
    if saved:
        # A checkpoint holds the teacher's weights as well.
        return build_networks(plain, training.num_classes, run.device)[0]
    if run.checkpoint:
        run = replace(run, checkpoint=_teachers(run.checkpoint), stop_after=None)
    # Never compiled: a resumed training has its teacher from a checkpoint, as it was written.
    engine = "auto" if run.engine == "compiled" else run.engine
    try:
        run = replace(run, engine=engine, report_engine=lambda engine: None, own_metrics=(), outcomes="none")
        return _fit(plain, run, report, report)[1][0]
    except Diverged as error:
        raise Diverged(f"the teacher: {error}") from None


def _teachers(checkpoint: Path) -> Path:
    return checkpoint.with_name(checkpoint.name + ".teacher")


def _refuse_bad_outputs(config: TrainConfig, result: EpochResult) -> None:
    # A confident mistake has a finite NLL, however confident: what is not finite here is a logit.
    for evaluation in result.evaluations:
        if not math.isfinite(evaluation.metrics.nll):
            raise Diverged(
                f"the output of classifier {evaluation.classifier!r} of {config.network_names[evaluation.network]} "
                f"is not finite after epoch {result.epoch + 1} of {config.epochs}"
            )
