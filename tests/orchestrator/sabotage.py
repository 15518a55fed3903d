"""A training method that fails, or waits, on purpose. Tests copy this file beside the real methods of a workplace."""

from __future__ import annotations

import errno
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from trainer.method import Method


@dataclass
class Sabotage(Method):
    """Fail at the beginning of epoch `at`, while the file `flag` exists; with `once`, remove it first.

    `wait` fails nothing: it goes on when the file is gone.
    """

    name: ClassVar[str] = "sabotage"
    title: ClassVar[str] = "Sabotage"
    how: Literal["code", "memory", "disk", "kill", "hang", "wait"] = "code"
    flag: str = ""
    once: bool = False
    at: int = 1

    def start_epoch(self, epoch: int, epochs: int) -> None:
        if epoch != self.at or not Path(self.flag).exists():
            return
        if self.once:
            Path(self.flag).unlink()
        if self.how == "code":
            raise ValueError(f"epoch {epoch} was sabotaged")
        if self.how == "memory":
            raise MemoryError("there is none left for epoch 1")
        if self.how == "disk":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "hang":
            time.sleep(3600)
        while self.how == "wait" and Path(self.flag).exists():
            time.sleep(0.05)
