"""Check storage, data sets and checkpoints before any trial starts."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.exit_codes import TRY_AGAIN, of_system
from trainer.paths import folder_refusal

if TYPE_CHECKING:
    from orchestrator.database import Database
    from orchestrator.grid import Trial
    from orchestrator.planning import Plan
    from orchestrator.scheduler.observer import Observer
    from orchestrator.scheduler.options import RunOptions


def without_checkpoint(database: Database, plan: Plan, options: RunOptions) -> str | None:
    """Return a line naming the trials that must start again from epoch 1; None where only the nodes can tell."""
    from orchestrator.storage import is_url
    from orchestrator.text import counted

    if options.address is not None or is_url(options.checkpoints):
        return None
    begun = [key for key, state in database.states([entry.trial.key for entry in plan.pending]).items() if state.epochs]
    lost = sum(
        not any(Path(options.checkpoint(key) + suffix).exists() for suffix in ("", ".previous")) for key in begun
    )
    if not lost:
        return None
    return (
        f"no checkpoint in {options.checkpoints} of {counted(lost, 'interrupted trial')}: training starts again from "
        "the first epoch. If the run before had another --checkpoints, stop this one and give it again"
    )


def start_anew(trials: Sequence[Trial], database: Database, options: RunOptions, observer: Observer) -> None:
    """Have trials trained from their first epoch; their attempts and epochs stay in the database, superseded."""
    from orchestrator.storage import is_url, remove_checkpoint
    from orchestrator.text import counted

    states = database.states([trial.key for trial in trials])
    # Another driver's trial keeps the checkpoint that it goes on from.
    trials = [trial for trial in trials if states[trial.key].driver is None]
    # Before the database says that they are pending: a trial must not go on from what other code has trained.
    for trial in trials:
        remove_checkpoint(options.checkpoint(trial.key))
    count = database.retrain([trial.key for trial in trials])
    if options.address is not None and not is_url(options.checkpoints):
        observer.warning(
            f"warning: checkpoints of these trials are removed from {options.checkpoints} as this machine sees it; "
            "where the nodes have folders of their own, remove them there"
        )
    observer.note(
        f"{counted(count, 'trial')} to train anew, from the first epoch; what was trained before stays in the "
        "database, superseded"
    )


def refuse_here(trials: Sequence[Trial], options: RunOptions) -> None:
    """Raise SchedulerError for trials that a private Ray on this machine could never hold, before it starts.

    Starting Ray takes half a minute, and on a cluster only the nodes can tell.
    """
    from orchestrator.grid import placed
    from orchestrator.scheduler.cluster import Cluster
    from orchestrator.timing import gpus_here, processors

    if options.wait_for_nodes or options.address:
        return
    gpus = gpus_here()
    Cluster([{"CPU": processors(), "GPU": gpus}], None).refuse_infeasible(placed(trials, gpus > 0))


def make_ready(trials: Sequence[Trial], options: RunOptions, observer: Observer) -> None:
    """Prepare storage and data sets before any trial starts, as far as this machine can tell.

    Raises StorageError and DataError. On a cluster, data that is missing here may be on the nodes, which check for
    themselves.
    """
    from orchestrator.storage import check_writable, is_url, missing_data
    from trainer.data import prepare
    from trainer.datasets import DataError

    if is_url(options.checkpoints):
        check_writable(str(options.checkpoints))
    elif options.address is None:
        _check_folder(Path(options.checkpoints).absolute(), "choose another with --checkpoints")
    if options.address is None:
        _check_folder(
            options.logs.absolute(),
            "logs lie beside the database file (name one in another folder with --db), and with a server in the folder "
            "of the command",
        )
    needed = {(trial.config.dataset, trial.config.ood_dataset): trial.config for trial in trials}
    if is_url(options.data_root):
        for name in sorted({name for names in needed for name in names if name}):
            if problem := missing_data(name, str(options.data_root)):
                raise DataError(f"{name}: {problem}; put it there, or choose another data root (--data-root)")
        return
    printed: set[str] = set()

    def say_once(line: str) -> None:
        # Several trials may need the same data set.
        if line not in printed:
            printed.add(line)
            observer.note(line)

    for config in needed.values():
        try:
            prepare(config, Path(options.data_root), progress=say_once)
        except DataError as error:
            if options.address is None:
                raise
            observer.warning(f"warning: on this machine, {error}. The nodes of the cluster look for their own")


def _check_folder(folder: Path, remedy: str) -> None:
    """Raise StorageError for a folder that no trial can write to, before any trial starts."""
    from orchestrator.storage import StorageAway, StorageError

    nearest = folder
    try:
        nearest = next(path for path in (folder, *folder.parents) if path.exists())
        refusal = folder_refusal(nearest)
    except OSError as error:
        refusal = error
    if refusal is None:
        return
    if isinstance(refusal, PermissionError):
        reason = f"{nearest} is read-only for this user; {remedy}"
    elif isinstance(refusal, NotADirectoryError):
        reason = f"{nearest} is no folder; {remedy}"
    else:
        reason = f"{nearest}: {refusal.strerror}; mend that, or {remedy}"
    # A disk that has turned read-only is the machine's fault, as a full one is.
    away = refusal.errno == errno.EROFS or of_system(refusal) == TRY_AGAIN
    raise (StorageAway if away else StorageError)(f"{folder} cannot be written: {reason}") from refusal
