"""The log of a trial: what is left of one whose process crashes."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest

from orchestrator.worker.trial_log import logged_to


def test_a_crash_leaves_its_stack_in_the_log(tmp_path: Path):
    log = tmp_path / "trial.log"
    code = f"""
    import faulthandler
    from pathlib import Path
    from orchestrator.worker.trial_log import logged_to

    def convolve():
        faulthandler._sigsegv()

    with logged_to(Path({str(log)!r})):
        convolve()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True)
    assert done.returncode == -signal.SIGSEGV
    text = log.read_text()
    assert "Segmentation fault" in text
    assert "in convolve" in text


def test_later_crashes_are_not_written_to_a_log_that_is_over(tmp_path: Path):
    log = tmp_path / "trial.log"
    code = f"""
    import faulthandler, sys
    from pathlib import Path
    from orchestrator.worker.trial_log import logged_to

    faulthandler.enable()
    with logged_to(Path({str(log)!r})):
        pass
    reused = open({str(tmp_path / "reused")!r}, "w")
    faulthandler._sigsegv()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True)
    assert b"Segmentation fault" in done.stderr
    assert log.read_text() == (tmp_path / "reused").read_text() == ""


def test_what_is_logged_after_a_trial_goes_where_it_went_before(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    show = warnings.showwarning
    with logged_to(tmp_path / "a.log"):
        logging.getLogger("trainer.anything").warning("of the trial")
    logging.getLogger("trainer.anything").warning("of the program")
    assert caplog.messages == ["of the program"] and warnings.showwarning is show
    text = (tmp_path / "a.log").read_text()
    assert "of the trial" in text and "of the program" not in text
