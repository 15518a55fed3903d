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
if not TYPE_CHECKING:
    __getattr__ = on_first_use(
        __name__,
        {
            ".augmentation": ("Loader",),
            ".content": ("known_fingerprint",),
            ".download": ("alone", "file_problem", "prepare", "what_is_missing"),
            ".folders": ("list_folder",),
            ".reading": ("ImageFiles", "Images", "fingerprint", "read_dataset"),
            ".splits": ("EvaluationSet", "EvaluationSets", "Splits", "epoch_loader", "evaluation_sets", "load_splits"),
        },
    )
