"""A trial's log: a file for each attempt, with the trainer's messages and Python's warnings."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from orchestrator.logs import log_name


def new_log(log_folder: str, name: str, key: str) -> Path:
    """Create the log of an attempt; its number is the first that no file has yet."""
    folder = Path(log_folder) / name.replace("/", "_")
    folder.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        path = folder / log_name(key, number)
        try:
            path.touch(exist_ok=False)
            return path
        except FileExistsError:
            number += 1


class logged_to:
    """Send the trainer's log and Python warnings to a file and to standard output, which Ray keeps as well."""

    def __init__(self, path: Path) -> None:
        self.handlers: list[logging.Handler] = [logging.FileHandler(path), logging.StreamHandler(sys.stdout)]

    def __enter__(self) -> None:
        logging.captureWarnings(True)
        self.loggers = [logging.getLogger(name) for name in ("trainer", "py.warnings")]
        for logger in self.loggers:
            logger.propagate = False
            logger.setLevel(logging.INFO)
            for handler in self.handlers:
                handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
                logger.addHandler(handler)

    def __exit__(self, *error: object) -> None:
        for handler in self.handlers:
            for logger in self.loggers:
                logger.removeHandler(handler)
        self.handlers[0].close()
