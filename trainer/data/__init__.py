"""Data sets: downloaded, read, augmented and given out in batches."""

from typing import TYPE_CHECKING

from trainer.lazy import on_first_use

if TYPE_CHECKING:
    from trainer.data.augmentation import Loader
    from trainer.data.content import known_fingerprint
    from trainer.data.download import alone, file_problem, prepare, what_is_missing
    from trainer.data.folders import list_folder
    from trainer.data.reading import ImageFiles, Images, fingerprint, read_dataset
    from trainer.data.splits import EvaluationSet, EvaluationSets, Splits, epoch_loader, evaluation_sets, load_splits

__all__ = [
    "EvaluationSet",
    "EvaluationSets",
    "ImageFiles",
    "Images",
    "Loader",
    "Splits",
    "alone",
    "epoch_loader",
    "evaluation_sets",
    "file_problem",
    "fingerprint",
    "known_fingerprint",
    "list_folder",
    "load_splits",
    "prepare",
    "read_dataset",
    "what_is_missing",
]

# Imported on first use, so that a grid is checked without torch.
_HOMES = {
    "EvaluationSet": ".splits",
    "EvaluationSets": ".splits",
    "ImageFiles": ".reading",
    "Images": ".reading",
    "Loader": ".augmentation",
    "Splits": ".splits",
    "alone": ".download",
    "epoch_loader": ".splits",
    "evaluation_sets": ".splits",
    "file_problem": ".download",
    "fingerprint": ".reading",
    "known_fingerprint": ".content",
    "list_folder": ".folders",
    "load_splits": ".splits",
    "prepare": ".download",
    "read_dataset": ".reading",
    "what_is_missing": ".download",
}

if not TYPE_CHECKING:
    __getattr__ = on_first_use(__name__, _HOMES)
