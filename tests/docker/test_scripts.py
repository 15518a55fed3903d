"""The shell scripts: what a container starts, what Compose reads, and a Slurm job from its start to its next turn."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENTRYPOINT = ROOT / "docker/entrypoint.sh"
MAKE_ENV = ROOT / "docker/make-env.sh"
SLURM = ROOT / "docs/examples/slurm.sbatch"
SCRIPTS = [ENTRYPOINT, MAKE_ENV, SLURM]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_is_sound_shell(script: Path):
    subprocess.run(["bash", "-n", script], check=True)
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    checked = subprocess.run(["shellcheck", "--shell=bash", script], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


class Place:
    """A folder with stand-ins for other programs, each of which writes down how it was called."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.programs = folder, folder / ".venv/bin"
        self.programs.mkdir(parents=True)

    def program(self, name: str, body: str = "") -> None:
        """Have a program that notes its arguments and does what `body` says."""
        path = self.programs / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >>{self.quoted("calls")}\n{body}\n')
        path.chmod(0o755)

    def quoted(self, name: str) -> str:
        """The path of a file in the folder, for a shell."""
        return shlex.quote(str(self.folder / name))

    def calls(self, program: str) -> list[str]:
        """The arguments of each call of a program so far."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.removeprefix(f"{program} ") for line in lines if line.startswith(f"{program} ")]

    def environment(self, **variables: str) -> dict[str, str]:
        """An environment in which the stand-ins are found before anything else."""
        return {"PATH": f"{self.programs}:{os.environ['PATH']}", **variables}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def enter(place: Place, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    place.program("ray", 'echo "address ${RAY_ADDRESS-none}"')
    return subprocess.run(
        [ENTRYPOINT, *arguments], env=place.environment(**variables), capture_output=True, text=True, check=False
    )


def test_a_head_is_no_one_elses_worker(place: Place):
    done = enter(place, "head", "--num-cpus=0", RAY_AUTH_TOKEN="t", RAY_ADDRESS="head:6379")
    (call,) = place.calls("ray")
    assert call.startswith("start --head --block --port=6379 ")
    # The last of two equal options is the one that counts.
    assert call.endswith(" --num-cpus=0")
    assert done.stdout == "address none\n"


def test_a_worker_joins_the_head(place: Place):
    enter(place, "worker", "--num-gpus=1", RAY_AUTH_TOKEN_PATH="/token", RAY_ADDRESS="head:6379")
    assert place.calls("ray") == ["start --address=head:6379 --block --metrics-export-port=8080 --num-gpus=1"]


@pytest.mark.parametrize(
    ("kind", "variables", "missing"),
    [
        ("head", {}, "RAY_AUTH_TOKEN"),
        ("worker", {}, "RAY_AUTH_TOKEN"),
        ("worker", {"RAY_AUTH_TOKEN": "t"}, "RAY_ADDRESS"),
    ],
)
def test_a_node_without_a_key_or_a_head_is_refused(place: Place, kind: str, variables: dict[str, str], missing: str):
    done = enter(place, kind, **variables)
    assert done.returncode == 2 and f"error: {missing} is not set" in done.stderr
    assert place.calls("ray") == []


def test_any_other_command_is_run_as_it_is(place: Place):
    place.program("orchestrate", "exit 3")
    assert enter(place, "orchestrate", "run", "a grid.yaml").returncode == 3
    assert place.calls("orchestrate") == ["run a grid.yaml"]


def test_the_secrets_are_new_and_for_the_owner_alone(tmp_path: Path):
    written = []
    for name in ("one", "two"):
        script = tmp_path / name / "make-env.sh"
        script.parent.mkdir()
        shutil.copy(MAKE_ENV, script)
        subprocess.run([script, "cpu"], check=True, stdout=subprocess.DEVNULL)
        again = subprocess.run([script, "cpu"], capture_output=True, text=True, check=False)
        assert again.returncode == 1 and "is there already" in again.stderr
        file = script.with_name(".env")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        written.append(dict(line.split("=", 1) for line in file.read_text().splitlines()))
    assert written[0]["VARIANT"] == written[0]["COMPOSE_PROFILES"] == "cpu"
    assert int(written[0]["USER_ID"]) == (os.getuid() or 1000)
    secrets = [value for each in written for name, value in each.items() if name.endswith(("TOKEN", "PASSWORD"))]
    assert len(set(secrets)) == len(secrets) == 6
    assert all(len(secret) == 64 for secret in secrets)


def test_the_variant_must_be_named(tmp_path: Path):
    script = shutil.copy(MAKE_ENV, tmp_path)
    done = subprocess.run([script, "gpu"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "cuda|cpu" in done.stderr
    assert not (tmp_path / ".env").exists()


@pytest.fixture
def jobs() -> Iterator[list[subprocess.Popen[str]]]:
    """The batch jobs of a test, which end with it."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for job in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
        job.communicate()


def submit(jobs: list[subprocess.Popen[str]], place: Place, driver: str) -> subprocess.Popen[str]:
    """Start the Slurm script as a batch job on one node, with `driver` for what `orchestrate` does."""
    place.program("srun", 'while [ "${1::2}" = -- ]; do shift; done; exec "$@"')
    place.program("scontrol")
    started = f'grep --quiet "^ray start" {place.quoted("calls")}'
    place.program("ray", f'case "$1" in start) exec sleep 600;; status) {started};; esac')
    place.program("orchestrate", driver)
    place.program("python", "echo key")
    variables = {"SLURM_SUBMIT_DIR": str(place.folder), "SLURM_JOB_ID": str(os.getpid()), "SLURM_NODEID": "0"}
    job = subprocess.Popen(
        ["bash", SLURM, "grids/table1.yaml", "--db", "results.db"],
        env=place.environment(**variables, SLURM_CPUS_PER_TASK="4", SLURM_GPUS_ON_NODE="2"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    jobs.append(job)
    return job


@pytest.mark.parametrize("code", [0, 1])
def test_a_slurm_job_runs_the_grid_on_its_own_cluster_and_ends_as_it_ends(
    jobs: list[subprocess.Popen[str]], place: Place, code: int
):
    job = submit(jobs, place, f"exit {code}")
    output, _ = job.communicate(timeout=60)
    assert job.returncode == code, output
    starts = [call for call in place.calls("ray") if call.startswith("start --head ")]
    assert len(starts) == 1 and "--num-cpus=4 --num-gpus=2" in starts[0]
    (call,) = place.calls("orchestrate")
    address = call.removeprefix("run grids/table1.yaml --db results.db --address ")
    host, port = address.split(":")
    assert f"--node-ip-address={host} --port={port} " in starts[0]
    assert place.calls("scontrol") == []


@pytest.mark.parametrize(("state", "requeued"), [("RUNNING", True), ("COMPLETING", False)])
def test_a_slurm_job_whose_time_is_up_ends_the_driver_and_queues_again_unless_cancelled(
    jobs: list[subprocess.Popen[str]], place: Place, state: str, requeued: bool
):
    place.program("squeue", f"echo {state}")
    note = """file=$SLURM_SUBMIT_DIR/driver; trap 'echo ended >>"$file"; exit 143' TERM; touch "$file\""""
    job = submit(jobs, place, f"{note}; while :; do sleep 0.1; done")
    deadline = time.monotonic() + 60
    while not (place.folder / "driver").exists():
        assert job.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM)
    output, _ = job.communicate(timeout=60)
    assert job.returncode == 143, output
    # It was waited for: what it had to record is recorded.
    assert (place.folder / "driver").read_text() == "ended\n"
    assert place.calls("scontrol") == ([f"requeue {os.getpid()}"] if requeued else [])
