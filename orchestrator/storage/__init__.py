"""Storage of checkpoints and data: local files and object stores."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.storage.staging import local_checkpoint, local_data, missing_data, node_folder
    from orchestrator.storage.store import StorageAway, StorageError, Store, absolute, check_writable, is_url, joined

__all__ = [
    "StorageAway",
    "StorageError",
    "Store",
    "absolute",
    "check_writable",
    "is_url",
    "joined",
    "local_checkpoint",
    "local_data",
    "missing_data",
    "node_folder",
]

# Imported on first use, so that the command line starts at once.
_HOMES = {
    "StorageAway": "store",
    "StorageError": "store",
    "Store": "store",
    "absolute": "store",
    "check_writable": "store",
    "is_url": "store",
    "joined": "store",
    "local_checkpoint": "staging",
    "local_data": "staging",
    "missing_data": "staging",
    "node_folder": "staging",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
