"""Storage of checkpoints and data: local files and object stores."""

from typing import TYPE_CHECKING

from trainer.lazy import on_first_use

if TYPE_CHECKING:
    from orchestrator.storage.leftovers import Leftovers, find_leftovers
    from orchestrator.storage.staging import local_checkpoint, local_data, missing_data, node_folder, remove_checkpoint
    from orchestrator.storage.store import StorageAway, StorageError, Store, absolute, check_writable, is_url, joined

__all__ = [
    "Leftovers",
    "StorageAway",
    "StorageError",
    "Store",
    "absolute",
    "check_writable",
    "find_leftovers",
    "is_url",
    "joined",
    "local_checkpoint",
    "local_data",
    "missing_data",
    "node_folder",
    "remove_checkpoint",
]

# Imported on first use, so that the command line starts at once.
if not TYPE_CHECKING:
    __getattr__ = on_first_use(
        __name__,
        {
            ".leftovers": ("Leftovers", "find_leftovers"),
            ".staging": ("local_checkpoint", "local_data", "missing_data", "node_folder", "remove_checkpoint"),
            ".store": ("StorageAway", "StorageError", "Store", "absolute", "check_writable", "is_url", "joined"),
        },
    )
