"""A trial's log: a file for each attempt, with the trainer's messages and Python's warnings."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path

from orchestrator.logs import log_name
from orchestrator.storage import StorageError


def new_log(log_folder: str, name: str, key: str) -> Path:
    """Create the log of an attempt; its number is the first that no file has yet.

    Where the trial's folder is that of another user, who began with the trial, this user has one beside it.

    Raises StorageError where this user may write neither.
    """
    folder = Path(log_folder) / name.replace("/", "_")
    for place in (folder, folder.with_name(f"{folder.name}-{os.getuid()}")):
        with suppress(PermissionError):
            return _new_log(place, key)
    raise StorageError(
        f"{folder}: this user may not write a log there; give the folder to a common group, with the right to write it"
    )


def _new_log(folder: Path, key: str) -> Path:
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
    """Send the trainer's log and Python warnings to a file and to standard output, which Ray keeps as well.

    A crash of the process, which ends without an exception, leaves the stacks of its threads in the file.
    """

    def __init__(self, path: Path) -> None:
        self.file = path.open("a", encoding="utf-8")
        self.handlers: list[logging.Handler] = [logging.StreamHandler(self.file), logging.StreamHandler(sys.stdout)]

    def __enter__(self) -> None:
        logging.captureWarnings(True)
        loggers = [logging.getLogger(name) for name in ("trainer", "py.warnings")]
        self.before = [(logger, logger.propagate, logger.level) for logger in loggers]
        for logger in loggers:
            logger.propagate = False
            logger.setLevel(logging.INFO)
            for handler in self.handlers:
                handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
                logger.addHandler(handler)
        self.enabled_before = faulthandler.is_enabled()
        faulthandler.enable(self.file)

    def __exit__(self, *error: object) -> None:
        # Where Python itself writes them; its file has to be open for as long as it is named.
        faulthandler.disable()
        if self.enabled_before and sys.__stderr__ is not None:
            faulthandler.enable(sys.__stderr__)
        for logger, propagate, level in self.before:
            logger.propagate = propagate
            logger.setLevel(level)
            for handler in self.handlers:
                logger.removeHandler(handler)
        logging.captureWarnings(False)
        self.file.close()
