"""The quality of an epoch's time: the CPU's counters on a machine made of files, a GPU made of a fake NVML."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest

from orchestrator.timing import DeviceSampler, Timing, device_facts, gpus_here, label
from orchestrator.timing.procfs import Process, ancestors, cpu_ticks, descendants
from tests.orchestrator.fake_gpu import GPU, MIG, OTHER_GPU, FakeNvml

ME = os.getpid()
TICKS = os.sysconf("SC_CLK_TCK")


class Machine:
    """The files of /proc and /sys of a machine that does what it is told, and its clock."""

    def __init__(self, root: Path, cpus: int = 4):
        self.root, self.now = root, 100.0
        self.busy = {cpu: 1000.0 for cpu in range(cpus)}
        self.stolen = {cpu: 0.0 for cpu in range(cpus)}
        self.waiting = 0.0
        self.processes: dict[int, SimpleNamespace] = {}
        self.start(1, "systemd", parent=0)
        self.start(ME, "python", parent=1)
        self.write(f"proc/{ME}/mountinfo", "22 27 0:21 / /proc rw - proc proc rw\n")
        self.write(f"proc/{ME}/cgroup", "0::/\n")
        self._write_counters()

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def start(self, pid: int, name: str, parent: int, command: str = "", cpus: str = "0-3", started: int = 7) -> None:
        self.processes[pid] = SimpleNamespace(name=name, parent=parent, started=started, used=0.0, reaped=0.0)
        self._write_process(pid)
        self.write(f"proc/{pid}/cmdline", command.replace(" ", "\0"))
        self.write(f"proc/{pid}/status", f"Name:\t{name}\nCpus_allowed_list:\t{cpus}\n")

    def run(self, pid: int, seconds: float, cpu: int = 0) -> None:
        """The process takes this much CPU time."""
        self.processes[pid].used += seconds
        self.busy[cpu] += seconds
        self._write_process(pid)
        self._write_counters()

    def end(self, pid: int, reaped_by: int | None = None) -> None:
        """The process ends, and the one that waits for it inherits its time."""
        process = self.processes.pop(pid)
        for file in (self.root / f"proc/{pid}").iterdir():
            file.unlink()
        (self.root / f"proc/{pid}").rmdir()
        if reaped_by is not None:
            self.processes[reaped_by].reaped += process.used + process.reaped
            self._write_process(reaped_by)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self._write_counters()

    def _write_process(self, pid: int) -> None:
        process = self.processes[pid]
        used, reaped = round(process.used * TICKS), round(process.reaped * TICKS)
        fields = [0] * 50
        fields[0:2] = ["R", process.parent]
        fields[11:15] = [used - used // 3, used // 3, reaped - reaped // 4, reaped // 4]
        fields[19] = process.started
        self.write(f"proc/{pid}/stat", f"{pid} ({process.name}) " + " ".join(map(str, fields)) + "\n")

    def _write_counters(self) -> None:
        lines = ["cpu  1 2 3 4 5 6 7 8 0 0"]
        for cpu, busy in self.busy.items():
            work = round(busy * TICKS)
            parts = [work // 2, 0, work - work // 2, 12345, round(self.waiting * TICKS), 0, 0]
            lines.append(f"cpu{cpu} " + " ".join(map(str, parts)) + f" {round(self.stolen[cpu] * TICKS)} 9999 9999")
        self.write("proc/stat", "\n".join([*lines, "intr 5 6 7", "ctxt 8"]) + "\n")

    def sampler(self, **options) -> DeviceSampler:
        return DeviceSampler("cpu", root=self.root, clock=lambda: self.now, **options)


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def epoch(machine: Machine, sampler: DeviceSampler, seconds: float = 10.0, **cores: float) -> Timing:
    """Time passes in which the processes p1, p2, ... take so many cores."""
    for name, share in cores.items():
        machine.run(int(name[1:]), share * seconds, cpu=int(name[1:]) % len(machine.busy))
    machine.pass_time(seconds)
    return sampler.mark()


def test_a_busy_loop_turns_exactly_its_own_epochs_to_foreign_load(machine):
    machine.start(500, "busy (loop) 1", parent=1)
    me = {f"p{ME}": 1.9}
    with machine.sampler() as sampler:
        timings = [epoch(machine, sampler, **me, p500=share) for share in (0.0, 0.02, 1.0, 0.3, 0.0)]
    assert [timing.quality for timing in timings] == [
        "exclusive",
        "exclusive",
        "foreign load",
        "foreign load",
        "exclusive",
    ]
    assert timings[2].detail["foreign_pids"] == [500]
    assert timings[2].detail["processes"] == [{"pid": 500, "name": "busy (loop) 1", "cores": 1.0}]
    assert timings[2].detail["foreign_cores"] == pytest.approx(1.0, abs=0.01)
    assert timings[2].detail["own_cores"] == pytest.approx(1.9, abs=0.01)
    assert timings[0].detail["unknown"] is None


def test_the_background_of_an_idle_machine_is_no_load(machine):
    with machine.sampler() as sampler:
        timing = epoch(machine, sampler, p1=0.09)
    assert timing.quality == "exclusive"
    assert timing.detail["foreign_pids"] == [1]


def test_time_that_no_process_shows_is_foreign(machine):
    """In a container, or with hidepid, others are seen in the machine's counters alone."""
    with machine.sampler() as sampler:
        machine.busy[2] += 5
        timing = epoch(machine, sampler)
    assert timing.quality == "foreign load"
    assert timing.detail["foreign_pids"] == []
    assert label(timing, {500}, shared=True) == "foreign load"


def test_stolen_time_is_foreign_and_waiting_for_a_disk_is_not(machine):
    with machine.sampler() as sampler:
        machine.waiting += 40
        assert epoch(machine, sampler).quality == "exclusive"
        machine.stolen[1] += 3
        timing = epoch(machine, sampler)
    assert timing.quality == "foreign load"
    assert timing.detail["stolen_cores"] == pytest.approx(0.3)


def test_children_are_own_also_when_they_come_and_go_within_an_epoch(machine):
    machine.start(600, "loader", parent=ME)
    machine.run(600, 50)
    with machine.sampler() as sampler:
        machine.start(601, "compiler", parent=600)
        assert epoch(machine, sampler, p600=1.0, p601=1.0).quality == "exclusive"
        machine.run(600, 8)
        machine.end(601, reaped_by=600)
        machine.end(600, reaped_by=ME)
        timing = epoch(machine, sampler)
    assert timing.quality == "exclusive"
    assert timing.detail["own_cores"] == pytest.approx(0.8)


def test_what_a_child_used_before_the_epoch_hides_no_foreign_load(machine):
    machine.start(600, "loader", parent=ME)
    machine.run(600, 50)
    with machine.sampler() as sampler:
        machine.start(500, "busy", parent=1)
        machine.end(600, reaped_by=ME)
        timing = epoch(machine, sampler, p500=1.0)
    assert timing.quality == "foreign load"
    assert timing.detail["own_cores"] == 0


def test_a_reused_pid_starts_from_nothing(machine):
    machine.start(500, "short", parent=1)
    machine.run(500, 9)
    with machine.sampler() as sampler:
        machine.end(500)
        machine.start(500, "busy", parent=1, started=8)
        timing = epoch(machine, sampler, p500=0.5)
    assert timing.detail["processes"] == [{"pid": 500, "name": "busy", "cores": 0.5}]


def test_the_pids_it_is_told_are_not_foreign(machine):
    machine.start(500, "driver", parent=1)
    own: set[int] = set()
    with machine.sampler(own_pids=lambda: own) as sampler:
        assert epoch(machine, sampler, p500=0.5).quality == "foreign load"
        own.add(500)
        own.add(77777)
        assert epoch(machine, sampler, p500=0.5).quality == "exclusive"


SESSION = "session_2026-01-02_03-04-05_678901_400"


@pytest.fixture
def ray_machine(machine):
    """This process as a Ray worker: driver 400, raylet 410 with agents and workers, dashboard 420 with children."""
    machine.start(400, "python", parent=1, command="python -m orchestrate run")
    machine.start(410, "raylet", parent=400, command=f"raylet --session-name={SESSION} --port=1")
    machine.start(411, "ray::DashboardA", parent=410, command="ray::DashboardAgent")
    machine.start(412, "ray::RuntimeEnv", parent=410, command="ray::RuntimeEnvAgent")
    machine.start(420, "python", parent=400, command=f"python dashboard.py --session-dir=/tmp/ray/{SESSION}")
    machine.start(421, "ray-dashboard-M", parent=420, command="ray-dashboard-MetricsHead-0")
    machine.start(430, "gcs_server", parent=400, command=f"gcs_server --session-name={SESSION}")
    machine.start(440, "ray::Trainable", parent=410, command="ray::Trainable")
    machine.start(441, "python", parent=440, command="python loader")
    machine.start(450, "ray::IDLE", parent=410, command="ray::IDLE")
    machine.start(460, "python", parent=400, command="python busy.py")
    machine.start(470, "python", parent=411, command="python job.py")
    machine.start(ME, "ray::Trainable", parent=410)
    return machine


def test_ray_and_the_driver_are_not_foreign(ray_machine):
    with ray_machine.sampler() as sampler:
        timing = epoch(ray_machine, sampler, p400=0.2, p410=0.2, p411=0.2, p412=0.2, p420=0.2, p421=0.2, p430=0.2)
        assert timing.quality == "exclusive"
        # Idle workers wake up now and then, and there may be one per core.
        for pid in range(1000, 1100):
            ray_machine.start(pid, "ray::IDLE", parent=410)
        assert epoch(ray_machine, sampler, **{f"p{pid}": 0.01 for pid in range(1000, 1100)}).quality == "exclusive"


@pytest.mark.parametrize("pid", [440, 450, 460, 470])
def test_workers_jobs_and_the_drivers_other_children_are_others(ray_machine, pid):
    with ray_machine.sampler() as sampler:
        timing = epoch(ray_machine, sampler, **{f"p{pid}": 1.0})
    assert timing.quality == "foreign load"
    assert timing.detail["foreign_pids"] == [pid]


def test_a_raylet_of_ray_start_does_not_make_init_a_driver(ray_machine):
    ray_machine.start(410, "raylet", parent=1, command=f"raylet --session-name={SESSION} --port=1")
    with ray_machine.sampler() as sampler:
        assert epoch(ray_machine, sampler, p1=1.0, p430=0.5).detail["foreign_pids"] == [1]


def test_another_ray_on_the_machine_is_foreign(ray_machine):
    ray_machine.start(700, "raylet", parent=1, command="raylet --session-name=session_2026-01-01_00-00-00_1_2")
    with ray_machine.sampler() as sampler:
        assert epoch(ray_machine, sampler, p700=0.5).quality == "foreign load"


def test_co_located_trials_make_packed_and_others_beside_them_foreign_load(ray_machine):
    with ray_machine.sampler() as sampler:
        packed = epoch(ray_machine, sampler, p440=0.9, p441=0.9)
        both = epoch(ray_machine, sampler, p440=0.9, p460=0.5)
        reaping = epoch(ray_machine, sampler, p441=0.9)
        ray_machine.end(440, reaped_by=410)
        ended = epoch(ray_machine, sampler)
    # What a worker's children take is the worker's.
    assert packed.detail["processes"] == [{"pid": 440, "name": "ray::Trainable", "cores": 1.8}]
    assert label(packed) == "foreign load"
    assert label(packed, {440}) == label(packed, {440}, shared=True) == "packed"
    assert label(packed, {999}, shared=True) == "foreign load"
    assert label(both, {440}, shared=True) == "foreign load"
    assert label(both, {440, 460}, shared=True) == "packed"
    assert label(reaping, {440}) == "packed"
    # A worker that ends leaves its time to the raylet, where it is not the tool's own all of a sudden.
    assert ended.detail["own_cores"] == 0


def test_only_the_cpus_this_process_may_use_count(machine):
    machine.start(ME, "python", parent=1, cpus="0-1")
    machine.start(500, "pinned elsewhere", parent=1, cpus="2-3")
    machine.start(501, "pinned here", parent=1, cpus="1")
    machine.start(502, "driver", parent=1, cpus="0-3")
    with machine.sampler(own_pids={502}) as sampler:
        machine.run(500, 10, cpu=2)
        elsewhere = epoch(machine, sampler)
        machine.run(501, 10, cpu=1)
        here = epoch(machine, sampler)
        # The driver ran on other CPUs: its time must not pay for what someone else took here.
        machine.busy[0] += 5
        machine.run(502, 5, cpu=3)
        hidden = epoch(machine, sampler)
    assert elsewhere.quality == "exclusive"
    assert elsewhere.detail["cores"] == 2
    assert here.quality == "foreign load"
    assert here.detail["foreign_pids"] == [501]
    assert hidden.quality == "foreign load"


@pytest.mark.parametrize(("seconds", "quality"), [(0.05, "unknown"), (0.3, "exclusive")])
def test_a_time_too_short_for_the_counters_is_unknown(machine, seconds, quality):
    with machine.sampler() as sampler:
        timing = epoch(machine, sampler, seconds=seconds)
        assert timing.quality == quality
        assert (timing.detail["unknown"] is None) == (quality == "exclusive")
        machine.start(500, "busy", parent=1)
        assert epoch(machine, sampler, seconds=0.3, p500=1.0).quality == "foreign load"


def test_counters_that_leave_this_process_out_prove_nothing(machine):
    with machine.sampler() as sampler:
        machine.run(ME, 10)
        machine.busy[0] -= 10
        timing = epoch(machine, sampler)
    assert timing.quality == "unknown"
    assert "leave out this process" in timing.detail["unknown"]


def test_a_container_with_counters_of_its_own_proves_nothing(machine):
    machine.write(f"proc/{ME}/mountinfo", "88 22 0:40 /proc/stat /proc/stat rw - fuse.lxcfs lxcfs rw\n")
    with machine.sampler() as sampler:
        timing = epoch(machine, sampler)
    assert timing.quality == "unknown"
    assert "lxcfs" in timing.detail["unknown"]


def test_a_system_without_such_counters_is_unknown(tmp_path):
    with DeviceSampler("cpu", root=tmp_path) as sampler:
        timing = sampler.mark()
    assert timing.quality == label(timing) == "unknown"
    assert label(timing, shared=True) == "packed"
    assert "No such file" in timing.detail["unknown"]


@pytest.mark.parametrize(
    ("cgroup", "path", "counter", "per_second"),
    [
        ("0::/job/step\n", "unified/../job/cpu.stat", "throttled_usec", 1e6),
        ("0::/job/step\n", "job/step/cpu.stat", "throttled_usec", 1e6),
        ("3:cpu,cpuacct:/docker/abc\n0::/\n", "cpu,cpuacct/cpu.stat", "throttled_time", 1e9),
    ],
)
def test_a_quota_that_holds_the_trial_back_is_throttled(machine, cgroup, path, counter, per_second):
    path = os.path.normpath(f"sys/fs/cgroup/{path}")
    machine.write(f"proc/{ME}/cgroup", cgroup)
    machine.write(path, f"nr_periods 9\nnr_throttled 4\n{counter} {3 * per_second:.0f}\n")
    with machine.sampler() as sampler:
        quiet = epoch(machine, sampler)
        machine.write(path, f"nr_periods 9\nnr_throttled 4\n{counter} {3.4 * per_second:.0f}\n")
        little = epoch(machine, sampler)
        machine.write(path, f"nr_periods 9\nnr_throttled 4\n{counter} {5 * per_second:.0f}\n")
        throttled = epoch(machine, sampler)
    assert [quiet.quality, little.quality, throttled.quality] == ["exclusive", "exclusive", "throttled"]
    assert throttled.detail["throttled"] == ["CPU quota"]
    assert label(throttled, shared=True) == "throttled"


def test_heat_is_throttled(machine):
    counter = "sys/devices/system/cpu/cpu2/thermal_throttle/package_throttle_total_time_ms"
    machine.write(counter, "5000\n")
    with machine.sampler() as sampler:
        assert epoch(machine, sampler).quality == "exclusive"
        machine.write(counter, "6000\n")
        assert epoch(machine, sampler).detail["throttled"] == ["CPU heat"]


def test_a_process_table_that_changes_while_it_is_read_is_no_error(machine):
    (machine.root / "proc/801").mkdir()
    machine.write("proc/802/stat", "")
    with machine.sampler() as sampler:
        assert epoch(machine, sampler).quality == "exclusive"


def test_ancestors_end_where_pids_were_reused_in_a_circle():
    table = {1: Process(2, 0, "a", 0, 0), 2: Process(1, 0, "b", 0, 0), 3: Process(9, 0, "c", 0, 0)}
    assert list(ancestors(1, table)) == [2]
    assert list(ancestors(3, table)) == []
    assert descendants(table, {1}) == {1, 2}


def test_cpu_ticks_never_runs_backwards():
    before = {5: Process(1, 3, "a", 100, 50), 6: Process(5, 3, "b", 40, 0)}
    after = {5: Process(1, 3, "a", 90, 60)}
    assert cpu_ticks(before, after) == {5: (0, 0)}


BUSY = "import time; end = time.time() + 60\nwhile time.time() < end: pass"


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_real_busy_loop():
    """The kernel's own counters; what else this machine does at the moment is told apart by pid."""
    with DeviceSampler("cpu") as sampler:
        time.sleep(0.5)
        before = sampler.mark()
        # Its parent ends at once, so that it is nobody's descendant but init's.
        shell = ["sh", "-c", '"$0" -c "$1" >/dev/null 2>&1 & echo $!', sys.executable, BUSY]
        pid = int(subprocess.run(shell, stdout=subprocess.PIPE, text=True, check=True).stdout)
        child = subprocess.Popen([sys.executable, "-c", BUSY])
        try:
            time.sleep(1.5)
            during = sampler.mark()
        finally:
            os.kill(pid, signal.SIGKILL)
            child.kill()
            child.wait()
        sampler.mark()
        time.sleep(0.5)
        after = sampler.mark()
    assert during.quality == "foreign load"
    assert pid in during.detail["foreign_pids"]
    assert child.pid not in during.detail["foreign_pids"]
    assert during.detail["own_cores"] > 0.02
    assert pid not in before.detail["foreign_pids"] + after.detail["foreign_pids"]
    foreign = max(before.detail["foreign_cores"], after.detail["foreign_cores"])
    if foreign > 0.05 or not os.environ.get("ORCHESTRATE_QUIET_MACHINE"):
        pytest.skip(f"others take {foreign} cores; ORCHESTRATE_QUIET_MACHINE=1 says that nobody else uses this machine")
    assert before.quality == after.quality == "exclusive"


@pytest.fixture
def nvml(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    return FakeNvml()


@pytest.fixture
def host(tmp_path):
    """A root on which this process sees all of the machine's pids."""
    return gpu_host(tmp_path, "pid:[4026531836]")


@pytest.fixture
def container(tmp_path):
    return gpu_host(tmp_path, "pid:[4026532999]")


def gpu_host(root, namespace):
    Machine(root)
    (root / "proc/self/ns").mkdir(parents=True)
    (root / "proc/self/ns/pid").symlink_to(namespace)
    return root


def gpu_sampler(nvml, root, uuid=GPU, **options):
    """Samples at marks alone, so that every sample is the test's own."""
    return DeviceSampler("cuda:0", uuid=uuid, nvml=nvml, root=root, **{"interval": 3600.0, **options})


def wait_for_samples(nvml: FakeNvml, count: int) -> None:
    wanted, deadline = nvml.calls + count, time.monotonic() + 60
    while nvml.calls < wanted:
        assert time.monotonic() < deadline, "the sampling thread does not run"
        time.sleep(0.001)


def test_a_gpu_alone_is_exclusive(nvml, host):
    with gpu_sampler(nvml, host) as sampler:
        timing = sampler.mark()
    assert timing.quality == label(timing) == "exclusive"
    assert timing.detail["unknown"] is None
    assert timing.detail["seen_pids"] == [ME]
    assert timing.detail["uuid"] == GPU
    assert timing.detail["utilisation_percent"] == 97
    assert (timing.detail["sm_clock_mhz"], timing.detail["sm_clock_max_mhz"]) == (1980, 1980)
    assert timing.detail["used_bytes"] == 900 * 2**20
    assert nvml.open == 0


def test_a_foreign_process_between_two_marks_spoils_that_epoch_only(nvml, host):
    with gpu_sampler(nvml, host, interval=0.001) as sampler:
        wait_for_samples(nvml, 3)
        before = sampler.mark()
        nvml.pids = {ME: 900, 4242: 500}
        wait_for_samples(nvml, 2)
        nvml.pids = {ME: 900}
        # One sample may still come that was read before.
        wait_for_samples(nvml, 2)
        during = sampler.mark()
        wait_for_samples(nvml, 3)
        after = sampler.mark()
    assert [before.quality, during.quality, after.quality] == ["exclusive", "foreign load", "exclusive"]
    assert during.detail["foreign_pids"] == [4242]
    assert during.detail["samples"] >= 5
    assert label(during, {4242}) == "packed"
    assert label(during, {4243}, shared=True) == "foreign load"
    assert label(before, {4242}, shared=True) == "packed"


def test_sampling_ends_with_the_context(nvml, host):
    def sampling() -> bool:
        return any(thread.name == "gpu-load" for thread in threading.enumerate())

    with gpu_sampler(nvml, host, interval=0.001):
        wait_for_samples(nvml, 2)
        assert sampling()
    assert not sampling()
    assert nvml.open == 0


def test_own_descendants_and_told_pids_are_not_foreign(nvml, host):
    machine = Machine(host)
    machine.start(600, "python", parent=ME)
    machine.start(601, "python", parent=600)
    machine.start(700, "python", parent=1)
    nvml.pids = {ME: 900, 601: 100, 700: 100, 701: 100}
    with gpu_sampler(nvml, host, own_pids={700}) as sampler:
        assert sampler.mark().detail["foreign_pids"] == [701]


@pytest.mark.parametrize(
    ("name", "quality", "reason"),
    [
        ("HwSlowdown", "throttled", "hardware slowdown"),
        ("HwThermalSlowdown", "throttled", "hardware thermal slowdown"),
        ("SwThermalSlowdown", "throttled", "software thermal slowdown"),
        ("HwPowerBrakeSlowdown", "throttled", "power brake"),
        ("SwPowerCap", "exclusive", None),
        ("ApplicationsClocksSetting", "exclusive", None),
        ("GpuIdle", "exclusive", None),
    ],
)
def test_clocks_held_back_by_heat_or_power_supply_are_throttled(nvml, host, name, quality, reason):
    with gpu_sampler(nvml, host) as sampler:
        nvml.reasons = getattr(pynvml, f"nvmlClocksEventReason{name}")
        timing = sampler.mark()
        nvml.reasons = 0
        assert sampler.mark().quality == "exclusive"
    assert timing.quality == quality
    assert timing.detail["throttled"] == ([reason] if reason else [])
    assert timing.detail["power_cap_share"] == (name == "SwPowerCap")
    assert label(timing, shared=True) == ("throttled" if reason else "packed")


def test_a_slowdown_in_few_samples_is_let_pass(nvml, host):
    nvml.slow_call = 10
    with gpu_sampler(nvml, host, interval=0.001) as sampler:
        wait_for_samples(nvml, 80)
        assert sampler.mark().quality == "exclusive"


def test_foreign_load_comes_before_throttled(nvml, host):
    nvml.pids = {ME: 900, 4242: 1}
    nvml.reasons = pynvml.nvmlClocksEventReasonHwSlowdown
    with gpu_sampler(nvml, host) as sampler:
        timing = sampler.mark()
    assert timing.quality == "foreign load"
    assert label(timing, {4242}) == "throttled"


def test_nvml_lost_on_the_way_is_unknown_and_training_goes_on(nvml, host):
    with gpu_sampler(nvml, host) as sampler:
        assert sampler.mark().quality == "exclusive"
        nvml.errors["processes"] = pynvml.NVML_ERROR_GPU_IS_LOST
        lost = sampler.mark()
        nvml.errors.clear()
        back = sampler.mark()
    assert lost.quality == "unknown"
    assert lost.detail["samples"] == 0
    assert lost.detail["unknown"] == "NVML: GPU is lost"
    assert label(lost, shared=True) == "packed"
    assert back.quality == "exclusive"


def test_one_lost_sample_is_enough_not_to_know(nvml, host):
    with gpu_sampler(nvml, host, interval=0.001) as sampler:
        nvml.errors["reasons"] = pynvml.NVML_ERROR_UNKNOWN
        wait_for_samples(nvml, 2)
        nvml.errors.clear()
        timing = sampler.mark()
    assert timing.quality == "unknown"
    assert timing.detail["samples"] >= 1


def test_no_driver_is_unknown(nvml, host):
    nvml.errors["init"] = pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
    with gpu_sampler(nvml, host) as sampler:
        timing = sampler.mark()
    assert timing.quality == "unknown"
    assert "Shared Library Not Found" in timing.detail["unknown"]
    assert device_facts("cuda:0", nvml=nvml) == {"name": None, "uuid": None, "driver": None, "memory_bytes": None}


def test_what_a_gpu_does_not_tell_is_left_out(nvml, host):
    nvml.errors = {"utilisation": pynvml.NVML_ERROR_NOT_SUPPORTED, "memory": pynvml.NVML_ERROR_NO_PERMISSION}
    with gpu_sampler(nvml, host) as sampler:
        timing = sampler.mark()
        assert timing.quality == "exclusive"
        assert timing.detail["utilisation_percent"] is None
        nvml.errors["reasons"] = pynvml.NVML_ERROR_NOT_SUPPORTED
        timing = sampler.mark()
    assert timing.quality == "unknown"
    assert "clocks" in timing.detail["unknown"]


def test_a_gpu_that_does_not_list_this_process_is_unknown(nvml, host):
    for pids in ({}, {4242: 100}, {4242: 100, 4243: 100}):
        nvml.pids = pids
        with gpu_sampler(nvml, host) as sampler:
            timing = sampler.mark()
        assert timing.quality == "unknown"
        assert timing.detail["foreign_pids"] == []
        assert timing.detail["seen_pids"] == sorted(pids)
        assert "--pid=host" in timing.detail["unknown"]


def test_in_a_container_the_only_process_on_the_gpu_is_this_one(nvml, container):
    nvml.pids = {31337: 900}
    with gpu_sampler(nvml, container) as sampler:
        assert sampler.mark().quality == "exclusive"
        nvml.pids = {31337: 900, 31338: 200}
        nvml.used = 1100
        assert sampler.mark().quality == "unknown"


def test_in_a_container_hidden_processes_show_by_their_memory(nvml, container):
    with gpu_sampler(nvml, container) as sampler:
        nvml.used = 930
        assert sampler.mark().quality == "exclusive"
        nvml.used = 1500
        hidden = sampler.mark()
        nvml.pids = {ME: None}
        untold = sampler.mark()
    assert hidden.quality == "unknown"
    assert hidden.detail["unknown"].startswith("600 MiB")
    assert untold.quality == "unknown"


@pytest.mark.parametrize(
    ("visible", "device", "uuid"),
    [
        (None, "cuda:0", GPU),
        (None, "cuda", GPU),
        (None, "cuda:1", OTHER_GPU),
        ("1,0", "cuda:1", GPU),
        ("1", "cuda:0", OTHER_GPU),
        (f"{OTHER_GPU}, {GPU}", "cuda:1", GPU),
        ("GPU-2222", "cuda:0", OTHER_GPU),
        (MIG, "cuda:0", MIG),
    ],
)
def test_the_gpu_is_the_one_that_cuda_makes_visible(nvml, monkeypatch, visible, device, uuid):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert device_facts(device, nvml=nvml)["uuid"] == uuid
    assert nvml.open == 0


@pytest.mark.parametrize(("uuid", "pids"), [(GPU, [ME]), (OTHER_GPU, []), (MIG, [ME])])
def test_a_trial_looks_at_the_gpu_that_torch_names(nvml, host, monkeypatch, uuid, pids):
    """Whatever the order of the GPUs, and though a job may not ask for those of others."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    nvml.forbidden = {GPU, OTHER_GPU} - {uuid}
    with gpu_sampler(nvml, host, uuid) as sampler:
        detail = sampler.mark().detail
    assert (detail["uuid"], detail["seen_pids"]) == (uuid, pids)
    assert device_facts("cuda:0", uuid=uuid, nvml=nvml)["name"] == "NVIDIA H200"
    assert nvml.open == 0


def test_a_driver_skips_the_gpus_of_other_jobs(nvml, monkeypatch):
    nvml.forbidden = {GPU}
    # CUDA's numbers are those within the job.
    assert device_facts("cuda:0", nvml=nvml)["uuid"] == OTHER_GPU
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-2222")
    assert device_facts("cuda:0", nvml=nvml)["uuid"] == OTHER_GPU
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert device_facts("cuda:0", nvml=nvml)["name"] is None


@pytest.mark.parametrize(
    ("visible", "count"),
    [(None, 2), ("", 0), ("-1", 0), ("0", 1), ("1,0", 2), ("0,1,2", 2), (f"{MIG},MIG-4,MIG-5", 3), (GPU, 1)],
)
def test_how_many_gpus_a_grid_may_use_here(nvml, monkeypatch, visible, count):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus_here(nvml) == count
    assert nvml.open == 0


def test_no_driver_is_no_gpu_and_a_gpu_of_another_job_is_none(nvml):
    nvml.forbidden = {OTHER_GPU}
    assert gpus_here(nvml) == 1
    nvml.errors["init"] = pynvml.NVML_ERROR_DRIVER_NOT_LOADED
    assert gpus_here(nvml) == 0


def test_without_a_uuid_it_is_not_known_which_gpu_it_is(nvml, host):
    with gpu_sampler(nvml, host, None) as sampler:
        timing = sampler.mark()
    assert timing.quality == "unknown"
    assert "UUID of cuda:0 is not known" in timing.detail["unknown"]


COUNTERS = {
    "software thermal slowdown": pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN,
    "hardware thermal slowdown": pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN,
    "power brake": pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN,
}


@pytest.mark.parametrize("reason", COUNTERS)
def test_what_the_driver_counts_goes_before_samples(nvml, host, reason):
    now = [0.0]
    nvml.held = {COUNTERS[reason]: 5 * 10**9}
    # A slowdown that passes, in the one sample that there is.
    nvml.reasons = pynvml.nvmlClocksEventReasonHwSlowdown
    with gpu_sampler(nvml, host, clock=lambda: now[0]) as sampler:
        qualities = []
        for seconds_held in (0.0, 0.04, 0.06):
            now[0] += 1.0
            nvml.held[COUNTERS[reason]] += round(seconds_held * 1e9)
            qualities.append((sampler.mark()).detail["throttled"])
    assert qualities == [[], [], [reason]]


def test_a_kernel_between_two_samples_is_seen(nvml, host):
    def ran(pid, second, busy=30):
        return SimpleNamespace(pid=pid, timeStamp=int(second * 1e6), smUtil=busy)

    # What the trial before this one ran here, as the driver tells of it within a second.
    nvml.ran = [ran(4000, 100)]
    with gpu_sampler(nvml, host) as sampler:
        nvml.ran += [ran(4000, 100.8), ran(ME, 101.5), ran(4241, 101.5, busy=0)]
        alone = sampler.mark()
        nvml.ran += [ran(4242, 102.5)]
        beside = sampler.mark()
        after = sampler.mark()
    assert [timing.quality for timing in (alone, beside, after)] == ["exclusive", "foreign load", "exclusive"]
    assert beside.detail["foreign_pids"] == [4242]
    assert label(beside, {4242}) == "packed"


def test_the_server_of_mps_is_nobody_and_its_clients_are_seen(nvml, host):
    machine = Machine(host)
    machine.start(300, "nvidia-cuda-mps", parent=1)
    machine.start(4242, "python", parent=1)
    nvml.pids, nvml.mps = {300: 30, ME: 900}, [ME]
    with gpu_sampler(nvml, host) as sampler:
        assert sampler.mark().quality == "exclusive"
        nvml.mps = [ME, 4242]
        timing = sampler.mark()
    assert timing.quality == "foreign load"
    assert timing.detail["foreign_pids"] == [4242]


@pytest.mark.parametrize(
    ("own", "foreign", "quality"),
    [
        (1.0, 0.0, "exclusive"),
        (1.0, 1.5, "exclusive"),  # a core and a half is idle
        (1.0, 2.5, "foreign load"),
        (1.9, 1.5, "foreign load"),
        (3.9, 0.0, "exclusive"),  # its own
    ],
)
def test_a_gpu_alone_on_a_busy_processor_is_not_exclusive(nvml, host, own, foreign, quality):
    machine = Machine(host)
    machine.start(500, "python", parent=1)
    with gpu_sampler(nvml, host, clock=lambda: machine.now) as sampler:
        timing = epoch(machine, sampler, **{f"p{ME}": own, "p500": foreign})
        quiet = epoch(machine, sampler)
    assert timing.quality == label(timing) == quality
    assert timing.detail["processor"]["foreign_cores"] == pytest.approx(foreign, abs=0.01)
    assert timing.detail["foreign_pids"] == [], "those of the GPU"
    assert quiet.quality == "exclusive"
    if quality == "foreign load":
        # A trial of ours on another GPU: the same at every repetition of the grid.
        assert label(timing, host_pids={500}) == "packed"
    else:
        assert label(timing, host_pids={500}) == "exclusive"


def test_a_processor_that_is_held_back_holds_the_gpu_back(nvml, host):
    machine = Machine(host)
    machine.write(f"proc/{ME}/cgroup", "0::/job\n")
    machine.write("sys/fs/cgroup/job/cpu.stat", "throttled_usec 0\n")
    with gpu_sampler(nvml, host, clock=lambda: machine.now) as sampler:
        machine.write("sys/fs/cgroup/job/cpu.stat", "throttled_usec 3000000\n")
        timing = epoch(machine, sampler)
    assert timing.quality == "throttled"
    assert timing.detail["throttled"] == ["CPU quota"]


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
@pytest.mark.parametrize(("asked", "quality"), [(0.5, "exclusive"), (4, "exclusive"), (5, "unknown"), (8, "unknown")])
def test_fewer_processors_than_it_asked_for_are_no_measure_of_a_trial(nvml, host, device, asked, quality):
    machine = Machine(host)
    uuid = GPU if device != "cpu" else None
    clock = {"clock": lambda: machine.now}
    with DeviceSampler(device, uuid=uuid, cpus=asked, nvml=nvml, root=host, interval=3600.0, **clock) as sampler:
        timing = epoch(machine, sampler)
    assert timing.quality == quality
    if quality == "unknown":
        assert timing.detail["unknown"] == f"the trial asks for {asked} processors and may use 4"


@pytest.mark.parametrize(
    ("visible", "device"), [("", "cuda:0"), ("0", "cuda:1"), ("7", "cuda:0"), ("GPU-", "cuda:0"), ("MIG-x", "cuda:0")]
)
def test_a_gpu_that_is_not_visible_is_unknown(nvml, monkeypatch, visible, device):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert device_facts(device, nvml=nvml)["name"] is None
    assert nvml.open == 0


def test_a_device_of_another_kind_is_unknown():
    with DeviceSampler("mps") as sampler:
        timing = sampler.mark()
    assert timing.quality == "unknown"
    assert "'mps'" in timing.detail["unknown"]
    assert device_facts("mps")["name"] is None


def test_device_facts(nvml, machine):
    assert device_facts("cuda:0", nvml=nvml) == {
        "name": "NVIDIA H200",
        "uuid": GPU,
        "driver": "580.65.06",
        "memory_bytes": 143771 * 2**20,
    }
    machine.write("proc/cpuinfo", "processor\t: 0\nmodel name\t: AMD EPYC 9654\nstepping\t: 1\n")
    facts = device_facts("cpu", root=machine.root)
    assert facts["name"] == "AMD EPYC 9654"
    assert facts["uuid"] is None
    assert facts["memory_bytes"] > 2**20
    (machine.root / "proc/cpuinfo").unlink()
    assert device_facts("cpu", root=machine.root)["name"]
