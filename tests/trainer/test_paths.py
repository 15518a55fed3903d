"""`~` in paths: a home folder, or a refusal; never a folder of that name."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.__main__ import main
from trainer.arguments import parse_arguments
from trainer.paths import PathError, user_path


@pytest.mark.parametrize(
    ("written", "meant"),
    [("~", ""), ("~/data", "data"), ("~/a b/~c", "a b/~c")],
)
def test_a_tilde_is_the_home_folder(written: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path(written) == tmp_path / meant
    assert user_path(Path(written)) == tmp_path / meant


@pytest.mark.parametrize("written", ["data", "/data", "a/~/b", "./~", "a~"])
def test_other_paths_stay(written: str) -> None:
    assert user_path(written) == Path(written)


def test_a_home_that_nobody_has_is_refused() -> None:
    with pytest.raises(PathError, match=r"'~nobody-at-all/x': no home folder is known of a user 'nobody-at-all'"):
        user_path("~nobody-at-all/x")


@pytest.mark.parametrize("option", ["data-root", "checkpoint", "evaluate", "config"])
def test_every_path_of_the_trainer_knows_the_home_folder(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    options = parse_arguments([f"--{option}=~/there"])
    assert getattr(options, option.replace("-", "_")) == tmp_path / "there"


def test_the_trainer_says_that_there_is_no_such_home(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--dataset", "digits", "--data-root=~nobody-at-all/x"]) == 2
    assert "error: --data-root: '~nobody-at-all/x': no home folder is known" in capsys.readouterr().err
