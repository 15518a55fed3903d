"""`python -m trainer`, as the person at the terminal sees it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.training import run_program, small, trained
from trainer.__main__ import _EpochTable, _evaluation_table, main
from trainer.arguments import GROUPS
from trainer.config import TrainConfig
from trainer.results import EpochResult, Evaluation, Metrics

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parents[2]
SMALL = [*("--dataset", "npz:tiny.npz", "--width", "4", "--batch-size", "16", "--epochs", "2"), "--precision=float32"]


class Outcome:
    """The output of a command, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err
        self.lines = out.splitlines()

    def rows(self, first: str) -> list[list[str]]:
        """The words of the lines that begin so."""
        return [line.split() for line in self.lines if line.startswith(first)]


@pytest.fixture
def run(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command line with the small data set, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str, small: bool = True) -> Outcome:
        code = main([*(SMALL if small else ()), "--data-root", str(data_root), *arguments])
        return Outcome(code, *capsys.readouterr())

    return command


def refused(outcome: Outcome) -> str:
    """The one message of a command that was refused."""
    assert outcome.code == 2
    assert len(outcome.lines) <= 1, "nothing was trained"
    assert outcome.err.startswith("error: ")
    assert outcome.err.endswith("\n")
    assert "Traceback" not in outcome.err
    return outcome.err[len("error: ") : -1]


# Training


def test_a_line_for_every_epoch_and_a_table_at_the_end(run: Any) -> None:
    done = run("--methods", "pskd,byot")
    assert (done.code, done.err) == (0, "")
    assert done.lines[0] == "resnet18 of width 4 with byot, pskd on npz:tiny.npz, 2 epochs on cpu"
    assert done.rows("epoch") == [
        ["epoch", "rate", "loss", "main", "head1", "head2", "head3", "ensemble", "training", "testing"]
    ]
    first, second = done.rows("1/2") + done.rows("2/2")
    assert len(first) == len(second) == 10
    assert (first[1], second[1]) == ("0.1", "0.01")
    table = done.rows("resnet18          ")
    assert [row[1:3] for row in table] == [["test", name] for name in ("main", "head1", "head2", "head3", "ensemble")]
    assert [row[3] for row in table] == second[3:8], "the last line and the table agree"
    assert "loss terms of the last epoch: cross_entropy " in done.out
    assert max(map(len, done.lines[2:5])) <= 100


def test_columns_stand_below_their_headings(run: Any) -> None:
    done = run("--methods", "dcm", "--validation", "6", "--stages", "2")
    (heading,) = (line for line in done.lines if line.startswith("epoch"))
    names = ["1:main", "1:head1", "1:ensemble", "1:main (val)", "2:main", "2:head1", "2:ensemble", "2:main (val)"]
    for line in (line for line in done.lines if line.startswith(("1/2", "2/2"))):
        for name in ["rate", "loss", *names, "training", "testing"]:
            end = heading.index(name) + len(name)
            assert line[end - 1].isdigit()
            assert line[end : end + 1] in ("", " ")
    table = done.rows("1:resnet18") + done.rows("2:resnet18")
    assert [row[:3] for row in table] == [
        [f"{network}:resnet18", split, classifier]
        for network in (1, 2)
        for split in ("test", "validation")
        for classifier in ("main", "head1", "ensemble")
    ]


def test_json_holds_what_was_measured(run: Any, data_root: Path, tmp_path: Path) -> None:
    done = run("--json", "--methods", '{"byot": {"blocks": [2, 3]}, "pskd": {"alpha": 0.5}}')
    results = [json.loads(line) for line in done.lines]
    state = trained(
        small(methods={"byot": {"blocks": [2, 3]}, "pskd": {"alpha": 0.5}}), tmp_path / "same.pt", data_root
    )
    for result, expected in zip(results, state["results"], strict=True):
        # The file holds the place of an epoch, from 0; what is printed counts from 1.
        assert {name: result[name] for name in expected} == expected | {"epoch": expected["epoch"] + 1}


def test_options_come_before_the_configuration_file(run: Any, tmp_path: Path) -> None:
    values = {
        "dataset": "npz:tiny.npz",
        "width": 4,
        "batch_size": 16,
        "epochs": 9,
        "methods": {"byot": {"blocks": [1]}},
    }
    (tmp_path / "run.json").write_text(json.dumps(values))
    done = run("--config", "run.json", "--epochs", "1", "--stages", "2", small=False)
    assert done.lines[0] == "resnet18 of width 4 with byot on npz:tiny.npz, 1 epoch on cpu"
    assert len(done.rows("1/1")) == 1


def test_a_checkpoint_is_gone_on_from(run: Any) -> None:
    straight = run("--json", "--checkpoint", "straight.pt", "--methods", "tfkd")
    assert straight.err.splitlines()[0].startswith("teacher: epoch 1/2, top-1 error ")
    assert len(straight.err.splitlines()) == 2
    again = run("--checkpoint", "straight.pt", "--methods", "tfkd")
    assert again.err == ""
    assert [row[-3:] for row in again.rows("1/2") + again.rows("2/2")] == 2 * [["(from", "the", "checkpoint)"]]


def test_checkpoints_are_as_far_apart_as_asked(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    files_there, original = [], _EpochTable.print

    def look(table: _EpochTable, result: EpochResult) -> None:
        files_there.append((Path("often.pt").exists(), Path("seldom.pt").exists()))
        original(table, result)

    monkeypatch.setattr(_EpochTable, "print", look)
    # An epoch is written before it is printed.
    run("--checkpoint", "seldom.pt", "--checkpoint-seconds", "1e6")
    run("--checkpoint", "often.pt", "--checkpoint-seconds", "0")
    assert files_there == [(False, False), (False, True), (True, True), (True, True)]
    assert "--checkpoint-seconds SECONDS" in python("-m", "trainer", "--help").stdout


def test_a_refused_checkpoint_is_told_in_a_warning(data_root: Path, tmp_path: Path) -> None:
    trained(small(), tmp_path / "run.pt", data_root, stop_after=1)
    os.replace(tmp_path / "run.pt", tmp_path / "run.pt.previous")
    (tmp_path / "run.pt").write_bytes(b"")
    done = run_program("trainer", *SMALL, "--data-root", str(data_root), "--checkpoint", "run.pt", folder=tmp_path)
    assert done.code == 0
    (line,) = done.err.splitlines()
    assert line.startswith("warning: run.pt: damaged")
    assert "(from the checkpoint)" in done.out


# Evaluating


@pytest.mark.parametrize(
    "options",
    [
        ("--methods", "pskd,byot", "--precision", "bfloat16"),
        ("--methods", "dml", "--peer", "preact_resnet18", "--validation", "6"),
        ("--methods", "dcm", "--stages", "3", "--ood-dataset", "npz:other.npz", "--precision", "float64"),
    ],
    ids=["heads", "two networks", "out of distribution"],
)
def test_a_stored_network_gives_the_numbers_of_its_training(run: Any, options: tuple[str, ...]) -> None:
    training = run(*options, "--json", "--checkpoint", "run.pt")
    last = json.loads(training.lines[-1])["evaluations"]
    assert json.loads(run("--evaluate", "run.pt", "--json", small=False).out) == last

    printed = run("--evaluate", "run.pt", small=False)
    assert printed.lines[0].startswith("run.pt: resnet18")
    assert printed.lines[0].endswith("on npz:tiny.npz, 2 of 2 epochs")
    rows = [line.split() for line in printed.lines[3:]]
    assert len(rows) == len(last)
    for row, evaluation in zip(rows, last, strict=True):
        assert row[1:3] == [evaluation["split"], evaluation["classifier"]]
        shown = [*evaluation["metrics"].values()] + [evaluation["ood_auroc"]] * (evaluation["ood_auroc"] is not None)
        assert [float(number) for number in row[3:]] == pytest.approx(shown, abs=0.00501)
    assert run(*options, "--checkpoint", "run.pt").lines[-len(rows) :] == printed.lines[3:]


def test_a_stored_network_meets_another_data_set(run: Any) -> None:
    with_it = json.loads(run("--ood-dataset", "npz:other.npz", "--checkpoint", "with.pt", "--json").lines[-1])
    run("--checkpoint", "without.pt")
    evaluations = json.loads(
        run("--evaluate", "without.pt", "--ood-dataset", "npz:other.npz", "--json", small=False).out
    )
    assert evaluations == with_it["evaluations"]


def test_an_unfinished_training_can_be_evaluated(run: Any, data_root: Path, tmp_path: Path) -> None:
    trained(small(), tmp_path / "run.pt", data_root, stop_after=1)
    assert run("--evaluate", "run.pt", small=False).lines[0].endswith("1 of 2 epochs")


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--width", "0"], "--width: '0' is too small; it must be 1 or more"),
        (["--width", "wide"], "--width: 'wide' is not a whole number"),
        (["--batch-size", "-5"], "--batch-size: '-5' is too small; it must be 1 or more"),
        (["--learning-rate", "nan"], "--learning-rate: 'nan' is not a finite number"),
        (["--flip", "perhaps"], "--flip: 'perhaps' is neither true nor false"),
        (["--precision", "float16"], "--precision: unknown value 'float16'; did you mean 'bfloat16'?"),
        (["--network", "resnet81"], "--network: unknown network 'resnet81'; did you mean 'resnet18'?"),
        (["--dataset", "cifar"], "--dataset: unknown data set 'cifar'; did you mean 'cifar10'?"),
        (["--methods", "ps-kd"], "--methods.ps-kd: unknown method 'ps-kd'; did you mean 'pskd'?"),
        (["--methods", '{"byot": {"blocks": [7]}}'], "blocks: there is no block 7 on this network; allowed: 1 to 3"),
        (["--methods", '{"byot": '], "--methods: is not JSON (Expecting value"),
        (["--methods", "[" * 100_000], "--methods: is not JSON ("),
        (["--methods", "[1]"], "--methods: [1] is not a mapping of methods"),
        (["--milestones", "9,3"], "--milestones: [9, 3] must be rising epoch numbers"),
        (["--milestones", "soon"], "--milestones.0: 'soon' is not a whole number"),
        (["--stages", "7"], "--stages: resnet18 has 2 to 4 stages, not 7"),
        (["--peer", "resnet34"], "--peer: 'resnet34' is not used"),
        (["--epoch", "3"], "unknown option '--epoch'; did you mean '--epochs'?"),
        (["--lr=3"], "unknown option '--lr'"),
        (["pskd"], "'pskd' belongs to no option; `python -m trainer --help` lists them"),
        (["--width"], "--width: expected one argument"),
        (["--device", "tpu"], "--device: 'tpu' is none; give cpu, cuda or cuda:N"),
        (["--config", "nowhere.json"], "nowhere.json: cannot be read (No such file or directory)"),
        (["--config", "."], ".: cannot be read (Is a directory)"),
        (["--dataset", "folder:nowhere"], "nowhere is missing; put its images into"),
        (["--validation", "29"], "npz:tiny.npz: validation: 29 of 30 images leave some class without any"),
        (
            ["--checkpoint", "a.pt", "--checkpoint-seconds", "-1"],
            "--checkpoint-seconds: '-1' is not a number of seconds",
        ),
        (["--checkpoint", "a.pt", "--checkpoint-seconds", "nan"], "'nan' is not a number of seconds"),
        (["--checkpoint-seconds", "5"], "--checkpoint-seconds: no checkpoint is written without --checkpoint FILE"),
        (["--checkpoint", "."], "is a folder, not a checkpoint; give the path of a file"),
        (["--checkpoint", "/dev/null/run.pt"], "/dev/null"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_mistakes_are_one_message(run: Any, arguments: list[str], message: str) -> None:
    assert message in refused(run(*arguments))


def test_all_mistakes_are_told_at_once(run: Any) -> None:
    lines = refused(run("--width", "0", "--network", "vgg", "--methods", '{"pskd": {"beta": 1}}')).splitlines()
    assert len(lines) == 3
    assert [line.strip().partition(":")[0] for line in lines] == ["--network", "--width", "--methods.pskd.beta"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "run.json: is not JSON (Expecting property name"),
        (b"\xff\xfe", "run.json: is not JSON ("),
        (b"[" * 100_000, "run.json: is not JSON ("),
        (b"[1, 2]", "run.json: holds no mapping of configuration fields"),
        (b'{"widht": 4}', "run.json: widht: unknown key 'widht'; did you mean 'width'?"),
        (b'{"seed": -1}', "run.json: seed: -1 is too small"),
    ],
)
def test_mistakes_in_the_configuration_file_name_it(run: Any, tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "run.json").write_bytes(text)
    assert refused(run("--config", "run.json")).startswith(message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "run.pt: there is no such checkpoint"),
        (b"", "run.pt: damaged (only 0 bytes are left)"),
        (b"weights", "run.pt: is not a checkpoint of this program"),
    ],
)
def test_what_cannot_be_evaluated(run: Any, tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "run.pt").write_bytes(content)
    assert refused(run("--evaluate", "run.pt", small=False)).startswith(message)


def test_an_evaluation_takes_no_other_configuration(run: Any) -> None:
    message = refused(run("--evaluate", "run.pt", "--seed", "1", "--config", "x.json", small=False))
    assert message == "--evaluate takes the configuration from its checkpoint; leave out --seed, --config"


def test_another_configuration_does_not_overwrite_a_checkpoint(run: Any, tmp_path: Path) -> None:
    run("--checkpoint", "run.pt", "--seed", "1")
    before = (tmp_path / "run.pt").read_bytes()
    message = refused(run("--checkpoint", "run.pt", "--json"))
    assert message.startswith("run.pt: belongs to another configuration (seed: 1 there, 0 here)")
    assert (tmp_path / "run.pt").read_bytes() == before


@pytest.mark.parametrize("count", [0, 2])
def test_a_device_that_is_not_there(run: Any, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    if count:
        assert refused(run("--device", "cuda:2")) == "--device: cuda:2: there is cuda:0 to cuda:1 here"
    else:
        assert refused(run("--device", "cuda")).startswith("--device: cuda: no CUDA device is available here")


def test_divergence_is_told_with_a_remedy(run: Any) -> None:
    ended = run("--learning-rate", "1e30", "--json")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == (
        "error: the loss term 'cross_entropy' is not finite at step 2 of 2 in epoch 1 of 2: it diverged; "
        "a lower --learning-rate may help\n"
    )


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (
            torch.OutOfMemoryError("CUDA out of memory.\nTried"),
            1,
            "error: CUDA out of memory. Lower --batch-size or --width\n",
        ),
        (OSError(28, "No space left on device", "run.pt"), 2, "error: run.pt: No space left on device\n"),
    ],
    ids=["interrupted", "out of memory", "full disk"],
)
def test_what_ends_a_training(
    run: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, message: str
) -> None:
    def failing(*arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr("trainer.train.evaluate", failing)
    ended = run("--json")
    assert (ended.code, ended.out, ended.err) == (code, "", message)


def test_a_mistake_of_the_program_keeps_its_traceback(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*arguments: Any, **options: Any) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("trainer.train.evaluate", failing)
    with pytest.raises(ValueError, match="a bug"):
        run()


# The program itself


def test_every_field_of_a_configuration_has_an_option() -> None:
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(TrainConfig.model_fields)


def test_help_reads_like_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 120
    for words in ("(default: cifar100)", "--batch-size N", "zeros|reflect", "tinyimagenet", "wrn28_10", "blocks auto"):
        assert words in shown
    assert "None" not in shown
    assert all(field.description for field in TrainConfig.model_fields.values())


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def loaded_by(*arguments: str) -> tuple[set[str], str]:
    """The packages that `python -m trainer` with these arguments loads, and what it printed on standard output."""
    code = (
        "import atexit, runpy, sys\n"
        "atexit.register(lambda: print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr))\n"
        f"sys.argv = ['trainer', *{list(arguments)!r}]\n"
        "runpy.run_module('trainer', run_name='__main__', alter_sys=True)\n"
    )
    done = python("-c", code)
    return set(done.stderr.splitlines()[-1].split()), done.stdout


def test_training_needs_neither_ray_nor_a_database(data_root: Path) -> None:
    packages, printed = loaded_by(*SMALL, "--data-root", str(data_root), "--methods", "pskd,byot")
    assert "2/2 " in printed
    assert "torch" in packages
    assert not packages & {"ray", "sqlalchemy", "pandas", "typer", "matplotlib", "orchestrator", "reports"}


@pytest.mark.parametrize("argument", ["--help", "--width=none"])
def test_help_and_bad_arguments_do_not_wait_for_torch(argument: str) -> None:
    packages, _ = loaded_by(argument)
    assert "pydantic" in packages
    assert "torch" not in packages


def test_a_reader_that_goes_away_is_no_error(data_root: Path, tmp_path: Path) -> None:
    done = run_program("trainer", *SMALL, "--data-root", str(data_root), "--json", folder=tmp_path, read=False)
    assert (done.code, done.err) == (0, "")


def test_a_long_name_of_a_network_stands_apart(tmp_path: Path):
    config = TrainConfig(dataset="digits", network="torchvision:shufflenet_v2_x1_0")
    evaluation = Evaluation(0, "main", Metrics(1.0, 0.5, 0.1, 1.0, 2.0), 10)
    heading, line = _evaluation_table(config, [evaluation])
    assert line.split()[:2] == ["torchvision:shufflenet_v2_x1_0", "test"]
    assert heading.index("split") == line.index("test")
