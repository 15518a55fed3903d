"""Every class of failure, injected into real trials on a real Ray, with its policy; code that is edited meanwhile."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.orchestrator.runs import Workplace, ended, wait_for, workplace

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

# What is wrong with a trial, and how its attempts end.
ATTEMPTS = {
    "nothing": [("done", None)],
    "code": [("failed", "code")],
    "diverged": [("failed", "diverged")],
    "data": [("failed", "data")],
    # Once more alone on the device, then given up.
    "memory": [("failed", "out_of_memory")] * 2,
    # Three times more, for free.
    "kill": [("failed", "infrastructure")] * 4,
    "kill once": [("failed", "infrastructure"), ("done", None)],
    "disk once": [("failed", "infrastructure"), ("done", None)],
    "hang once": [("failed", "infrastructure"), ("done", None)],
}
# The first line of the last failure, as people see it.
REASONS = {
    "code": "ValueError: epoch 1 was sabotaged",
    "diverged": "Diverged: the loss term 'cross_entropy' is not finite at step",
    "data": "DataError: ",
    "memory": "MemoryError: there is none left for epoch 1",
    "kill": "the trial's process ended: it was killed or crashed",
    "kill once": "the trial's process ended: it was killed or crashed",
    "disk once": "OSError: [Errno 28] No space left on device: 'somewhere'",
    "hang once": "nothing was heard of the trial for 25 s, so it was killed",
}
FAILED = {fault for fault, attempts in ATTEMPTS.items() if attempts[-1][0] == "failed"}


@dataclass(frozen=True)
class Attempt:
    outcome: str
    error_class: str | None
    error_text: str | None
    log: str | None
    environment: dict[str, Any]
    host: str | None
    device: str | None
    pid: int | None


@dataclass(frozen=True)
class Evidence:
    """The output, files and rows that a grid of failures leaves, before anything is repaired."""

    place: Workplace
    grid: Path
    code: int
    output: str
    triage: list[dict[str, Any]]
    plan: list[dict[str, Any]]
    attempts: dict[str, list[Attempt]]

    def fault_of(self, name: str) -> str:
        return next(fault for fault, other in names(self.place).items() if other == name)


def fault_of(config: dict[str, Any]) -> str:
    """Return what was made wrong with a trial, from its configuration."""
    if config["learning_rate"] > 1:
        return "diverged"
    if config["dataset"] != "digits":
        return "data"
    sabotage = config["methods"].get("sabotage")
    if sabotage is None:
        return "nothing"
    return sabotage.get("how", "code") + (" once" if sabotage.get("once") else "")


def names(place: Workplace) -> dict[str, str]:
    """The name of the trial for each fault."""
    query = "SELECT t.config, g.name FROM trials t JOIN grid_trials g ON g.trial_id = t.id"
    return {fault_of(json.loads(config)): name for config, name in place.ask(query)}


def attempts(place: Workplace) -> dict[str, list[Attempt]]:
    """The attempts of the trial for each fault."""
    query = """
        SELECT t.config, a.outcome, a.error_class, a.error_text, a.log, a.environment, a.host, a.device, a.pid
        FROM attempts a JOIN trials t ON t.id = a.trial_id ORDER BY a.trial_id, a.number"""
    by_trial: dict[str, list[Attempt]] = {}
    for config, outcome, error_class, text, log, environment, *where in place.ask(query):
        attempt = Attempt(outcome, error_class, text, log, json.loads(environment), *where)
        by_trial.setdefault(fault_of(json.loads(config)), []).append(attempt)
    return by_trial


def break_images(folder: Path) -> None:
    """Two classes of images, of which one has lost its second half."""
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            (folder / split / label).mkdir(parents=True)
            for number in range(4):
                Image.effect_noise((32, 32), 50).convert("RGB").save(folder / split / label / f"{number}.png")
    cut = folder / "train/dog/2.png"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])


def sabotage(place: Workplace, how: str, *, once: bool = False) -> dict[str, Any]:
    """The method that fails, and its flag."""
    flag = place.folder / f"fail-{how}-{once}"
    flag.touch()
    return {"sabotage": {"how": how, "flag": str(flag), "once": once}}


@pytest.fixture(scope="module")
def evidence() -> Iterator[Evidence]:
    """One run of a grid in which everything fails that can, with the trainer's code broken after the launch."""
    with workplace() as place:
        shutil.copy(Path(__file__).parents[1] / "sabotage.py", place.code / "trainer/methods")
        break_images(place.folder / "data/broken")
        methods = [sabotage(place, fault.removesuffix(" once"), once="once" in fault) for fault in ATTEMPTS if fault in
                   ("hang once", "kill", "kill once", "disk once", "memory", "code")]  # fmt: skip
        # The hanging one first, so that the others use the time.
        methods.sort(key=lambda method: method["sabotage"]["how"] != "hang")
        usual = {"dataset": ["digits"], "learning_rate": [0.05]}
        blocks = [{"methods": [*methods, {}]}, {"learning_rate": [1e30]}, {"dataset": ["folder:broken"]}]
        fixed = {"subset": 4, "dataset": None, "learning_rate": None}
        grid = place.grid("faults", [usual | block for block in blocks], epochs=2, fixed=fixed)
        run = place.start("run", grid, "--no-dashboard", "--no-canary", "--stall-seconds", 25)
        with ended(run):
            assert wait_for(lambda: "started" in run.text() or run.over())
            kept = {
                path: path.read_text() for path in map((place.code / "trainer").joinpath, ("train.py", "metrics.py"))
            }
            for path, text in kept.items():
                path.write_text(text + "\nraise RuntimeError('edited after the launch')\n")
            code, output = run.code(), run.text()
            for path, text in kept.items():
                path.write_text(text)
        assert place.database.exists(), output
        triage, plan = place.run("triage", "--json")[1], place.run("plan", grid, "--json")[1]
        yield Evidence(place, grid, code, output, json.loads(triage), json.loads(plan)["trials"], attempts(place))


def test_the_run_goes_on_to_its_end_and_says_that_some_failed(evidence):
    assert evidence.code == 1
    assert "Traceback" not in evidence.output
    assert f"4 of {len(ATTEMPTS)} done, 5 failed" in evidence.output


@pytest.mark.parametrize("fault", ATTEMPTS)
def test_each_class_is_tried_again_as_its_policy_says(evidence, fault):
    trial_attempts = evidence.attempts[fault]
    assert [(attempt.outcome, attempt.error_class) for attempt in trial_attempts] == ATTEMPTS[fault]


@pytest.mark.parametrize("fault", REASONS)
def test_the_reason_stands_in_the_database_and_in_the_output(evidence, fault):
    failure = [attempt for attempt in evidence.attempts[fault] if attempt.outcome == "failed"][-1]
    message = failure.error_text.splitlines()[0]
    assert message.startswith(REASONS[fault])
    consequence = "failed (" + failure.error_class + ")" if fault in FAILED else "tried again"
    assert f"{names(evidence.place)[fault]}: {consequence}: {message}" in evidence.output


@pytest.mark.parametrize("fault", ["code", "memory", "disk once"])
def test_the_traceback_names_the_place(evidence, fault):
    text = evidence.attempts[fault][0].error_text
    assert 'trainer/methods/sabotage.py", line' in text
    assert "in start_epoch" in text


@pytest.mark.parametrize("fault", ATTEMPTS)
def test_every_attempt_has_a_log_of_its_own_that_exists(evidence, fault):
    logs = [attempt.log for attempt in evidence.attempts[fault]]
    assert len(set(logs)) == len(logs)
    for attempt in evidence.attempts[fault]:
        text = Path(attempt.log).read_text()
        if fault in ("code", "memory", "diverged", "data", "disk once") and attempt.outcome == "failed":
            assert attempt.error_text.splitlines()[0] in text


def test_what_was_trained_before_a_failure_is_kept(evidence):
    query = "SELECT t.config, e.epoch FROM epochs e JOIN trials t ON t.id = e.trial_id WHERE e.accepted = 1"
    epochs: dict[str, list[int]] = {}
    for config, epoch in evidence.place.ask(query):
        epochs.setdefault(fault_of(json.loads(config)), []).append(epoch)
    done = {fault: [0, 1] for fault in ATTEMPTS.keys() - FAILED}
    assert epochs == done | {fault: [0] for fault in FAILED - {"data", "diverged"}}


def test_a_retried_trial_repeats_no_epoch(evidence):
    assert evidence.place.ask("SELECT count(*) FROM epochs WHERE accepted IS NULL") == [(0,)]
    assert evidence.place.unfinished() == []


def test_triage_groups_by_cause_and_says_how_to_go_on(evidence):
    by_class = {failure["error_class"]: failure for failure in evidence.triage}
    assert by_class.keys() == {"code", "diverged", "data", "out_of_memory", "infrastructure"}
    for failure in evidence.triage:
        fault = evidence.fault_of(failure["trials"][0])
        assert failure["error"].startswith(REASONS[fault])
        assert failure["remedy"]
        assert failure["retry"] == f"orchestrate run {evidence.grid.name} --retry-failed"
        assert Path(failure["log"]).exists()
        assert any(line.strip() for line in failure["excerpt"])
    assert "sabotage.py" in "\n".join(by_class["code"]["excerpt"])
    code, text = evidence.place.run("triage")
    assert code == 0
    for fault in FAILED:
        assert REASONS[fault] in text


def test_the_plan_says_what_failed_and_what_would_be_done(evidence):
    reasons = {evidence.fault_of(trial["name"]): (trial["status"], trial["reason"]) for trial in evidence.plan}
    for fault, (status, reason) in reasons.items():
        assert status == ("failed" if fault in FAILED else "done")
        if fault in FAILED:
            assert REASONS[fault] in reason
            assert "--retry-failed" in reason


def test_code_that_is_edited_after_the_launch_changes_no_trial(evidence):
    later = [attempt for found in evidence.attempts.values() for attempt in found][2:]
    assert later
    assert not any("edited after the launch" in (attempt.error_text or "") for attempt in later)
    assert {attempt.environment["code_changed"] for attempt in later} == {False}


def test_every_attempt_says_where_and_with_what_it_ran(evidence):
    for trial_attempts in evidence.attempts.values():
        for attempt in trial_attempts:
            environment = attempt.environment
            assert attempt.host and attempt.device.startswith("cpu") and attempt.pid
            assert environment["versions"]["torch"] and environment["versions"]["ray"]
            assert environment["python"] and environment["command"] and len(environment["code_digest"]) == 64
            assert {"commit", "dirty", "diff"} <= environment.keys()


def test_failed_trials_wait_to_be_asked_for(evidence):
    """Without the option nothing is tried again and Ray is not even started."""
    before = evidence.place.ask("SELECT count(*) FROM attempts")
    code, output = evidence.place.run("run", evidence.grid)
    assert code == 1
    assert "nothing to run" in output and "5 failed (--retry-failed tries again)" in output
    assert evidence.place.ask("SELECT count(*) FROM attempts") == before


def test_what_was_repaired_is_done_when_asked_for(evidence):
    """The last test of this grid: it repairs everything but the learning rate."""
    place = evidence.place
    for flag in place.folder.glob("fail-*"):
        flag.unlink()
    images = place.folder / "data/broken/train/dog"
    shutil.copy(images / "1.png", images / "2.png")
    code, output = place.run("run", evidence.grid, "--retry-failed", "--no-dashboard", "--no-canary")
    assert code == 1, output
    by_trial = attempts(place)
    for fault in ATTEMPTS:
        last, tries = by_trial[fault][-1], len(by_trial[fault]) - len(ATTEMPTS[fault])
        assert (last.outcome, tries) == (("failed" if fault == "diverged" else "done"), int(fault in FAILED)), output
    assert place.ask("SELECT count(*) FROM epochs WHERE accepted IS NULL") == [(0,)]
    states = place.states()
    assert [name for name in states if states[name] != "done"] == [names(place)["diverged"]]


def test_the_same_cause_time_after_time_stops_the_grid():
    with workplace() as place:
        shutil.copy(Path(__file__).parents[1] / "sabotage.py", place.code / "trainer/methods")
        broken = sabotage(place, "code")
        broken["sabotage"]["at"] = 0
        # Every trial that fails costs a process that imports PyTorch: a limit of two stands for that of five.
        place.edit("orchestrator/scheduler/options.py", "same_failure_limit: int = 5", "same_failure_limit: int = 2")
        grid = place.grid("hopeless", {"methods": [broken], "seed": list(range(5))}, epochs=1, fixed={"subset": 4})
        code, output = place.run("run", grid, "--no-dashboard")
        assert code == 1
        assert "error: 2 trials in a row failed with the same cause, so the rest was not started" in output
        assert "ValueError: epoch 0 was sabotaged" in output
        states = sorted(place.states().values())
        assert states == ["failed"] * 2 + ["pending"] * 3
        assert place.unfinished() == []
        (group,) = json.loads(place.run("triage", "--json")[1])
        assert len(group["trials"]) == 2
