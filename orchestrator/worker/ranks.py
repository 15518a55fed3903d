"""One trial in several processes: Ray actors in the trial's placement group, watched by the trial's own process.

The trial's process trains nothing. It merges the ranks' messages and kills all ranks when one fails, because ranks
that are blocked in a collective operation cannot report.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util import get_current_placement_group, get_node_ip_address
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from orchestrator.errors import OrchestrateError
from orchestrator.failures import Failure, failure_of, infrastructure_failure, process_ended
from orchestrator.timing import worst
from orchestrator.worker.attempt import run_job
from orchestrator.worker.job import Job, Rank
from orchestrator.worker.messages import DataProgress, Done, EpochDone, Failed, Message, Started, TeacherEpoch
from orchestrator.worker.trial_log import new_log

# Seconds to wait, after a rank has lost another one, for the reason or the death of the lost rank.
REASON_SECONDS = 10.0


@dataclass(frozen=True)
class Place:
    """The host that a process runs on, and the numbers of the GPUs that Ray gives it there."""

    host: str
    address: str
    pid: int
    gpus: tuple[str, ...]


def run_ranks(job: Job, report: Callable[[Message], None]) -> Failure | None:
    """Run one trial in `job.processes` processes; reports and returns as `orchestrator.worker.attempt.run_job`."""
    group = get_current_placement_group()
    assert group is not None
    actors: list[Any] = [
        ray.remote(_Process)
        .options(
            num_cpus=job.cpus,
            num_gpus=job.gpus,
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=number),
        )
        .remote(job, number)
        for number in range(job.processes)
    ]
    try:
        return _watched(job, actors, report)
    except RayError as error:
        return process_ended(str(error), f"one of the trial's {job.processes} processes")
    except (OSError, OrchestrateError) as error:
        return failure_of(error)
    finally:
        for actor in actors:
            ray.kill(actor)


def _watched(job: Job, actors: Sequence[Any], report: Callable[[Message], None]) -> Failure | None:
    """Train, and report of it, until all are ready or one has failed; the failure that was the cause."""
    log_path = new_log(job.log_folder, job.name, job.key)
    places = ray.get([actor.place.remote() for actor in actors])
    meeting = ray.get(actors[0].open_meeting.remote())
    streams: dict[Any, int] = {
        actor.run.options(num_returns="streaming").remote(places, meeting, log_path): number
        for number, actor in enumerate(actors)
    }
    merged = _Merged(len(actors), report)
    failures: list[Failure] = []
    concluded: set[int] = set()
    deadline = None
    while streams:
        ready, _ = ray.wait(list(streams), timeout=deadline and max(0.0, deadline - time.monotonic()))
        if not ready:
            break
        stream: Any = ready[0]
        number = streams[stream]
        message: Message
        try:
            message = ray.get(next(stream))
        except StopIteration:
            del streams[stream]
            if number in concluded:
                continue
            lost = f"process {number} of the trial's {len(actors)} ended without a word, its training unfinished"
            message = Failed(infrastructure_failure(lost))
        except RayError as error:
            del streams[stream]
            message = Failed(process_ended(str(error), f"process {number} of the trial's {len(actors)}"))
        if isinstance(message, Done):
            concluded.add(number)
        elif not isinstance(message, Failed):
            merged.hear(number, message)
        elif not message.failure.lost_rank:
            return message.failure
        else:
            concluded.add(number)
            failures.append(message.failure)
            deadline = deadline or time.monotonic() + REASON_SECONDS
    return failures[0] if failures else None


class _Merged:
    """Merges the ranks' messages of a start or an epoch into one; of all other messages it passes on rank 0's."""

    def __init__(self, count: int, report: Callable[[Message], None]) -> None:
        self.count, self.report = count, report
        self.waiting: dict[int | None, dict[int, Message]] = {}
        # Facts of rank 0 about an attempt that the driver has yet to hear of: it starts when all ranks have.
        self.held: list[Message] = []
        self.started = False

    def hear(self, number: int, message: Message) -> None:
        """Take a rank's message; report it when all ranks have sent theirs."""
        if not isinstance(message, Started | EpochDone):
            if number == 0 and (self.started or isinstance(message, TeacherEpoch | DataProgress)):
                self.report(message)
            elif number == 0:
                self.held.append(message)
            return
        about = message.result.epoch if isinstance(message, EpochDone) else None
        received = self.waiting.setdefault(about, {})
        received[number] = message
        if len(received) == self.count:
            del self.waiting[about]
            in_order: list[Any] = [received[number] for number in range(self.count)]
            self.report(_started(in_order) if about is None else _epoch(in_order))
            if about is None:
                self.started = True
                for held in self.held:
                    self.report(held)


def _started(messages: Sequence[Started]) -> Started:
    """Return rank 0's message, with the places of all ranks in the attempt's environment."""
    named = ("host", "device", "device_uuid", "pid")
    every = [message.facts for message in messages]
    first = every[0]
    environment = {
        **first.environment,
        "processes": [{name: getattr(facts, name) for name in named} for facts in every],
        "code_changed": any(facts.environment["code_changed"] for facts in every),
    }
    pids = tuple(pid for message in messages if message.facts.host == first.host for pid in message.pids)
    return replace(messages[0], facts=replace(first, environment=environment), pids=pids)


def _epoch(messages: Sequence[EpochDone]) -> EpochDone:
    """Return rank 0's message, whose seconds include waiting for the others, with the worst timing of all ranks."""
    return replace(messages[0], timing=worst([message.timing for message in messages]))


def _device(own: Place, places: Sequence[Place]) -> tuple[str, str]:
    """Return a rank's device, and the CUDA_VISIBLE_DEVICES that its number refers to; empty on a CPU.

    Each sees the GPUs of all on its host, or NCCL could not copy from one to another.
    """
    if not own.gpus:
        return "cpu", ""
    visible = sorted({gpu for place in places if place.host == own.host for gpu in place.gpus})
    return f"cuda:{visible.index(own.gpus[0])}", ",".join(visible)


class _Process:
    """One process of a trial."""

    def __init__(self, job: Job, number: int) -> None:
        self.job, self.number = job, number
        self.store: Any = None

    def __repr__(self) -> str:
        # What the dashboard shows.
        return f"{self.job.name} process {self.number}"

    def place(self) -> Place:
        """Return where this process runs, once it is ready to train."""
        import torch  # noqa: F401  (all load it at the same time)

        gpus = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
        return Place(socket.gethostname(), get_node_ip_address(), os.getpid(), tuple(map(str, gpus)))

    def open_meeting(self) -> tuple[str, int]:
        """Open the store where the processes meet; returns its address and port."""
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        address = get_node_ip_address()
        # A socket of our own: the store's would listen on every interface, and its port might be taken by then.
        listener = socket.create_server((address, 0))
        port = listener.getsockname()[1]
        self.store = TCPStore(
            address,
            port,
            self.job.processes,
            is_master=True,
            wait_for_workers=False,
            master_listen_fd=listener.detach(),
        )
        return address, port

    def run(self, places: Sequence[Place], meeting: tuple[str, int], log_path: Path) -> Iterator[Message]:
        """Train; yields the messages of the training, then `Done` or `Failed`."""
        own = places[self.number]
        device, visible = _device(own, places)
        if visible:
            os.environ["CUDA_VISIBLE_DEVICES"] = visible
        rank = Rank(
            number=self.number,
            device=device,
            other_pids=tuple(place.pid for place in places if place.host == own.host and place.pid != own.pid),
            log_path=log_path if self.number == 0 else log_path.with_suffix(f".process{self.number}.log"),
            process_group=partial(self._process_group, meeting),
        )
        messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()

        def train() -> None:
            try:
                failure = run_job(self.job, messages.put, rank)
            except BaseException as error:
                failure = failure_of(error)
            messages.put(Failed(failure) if failure else Done())
            messages.put(None)

        threading.Thread(target=train, daemon=True).start()
        while (message := messages.get()) is not None:
            yield message

    def _process_group(self, meeting: tuple[str, int], device: str) -> Any:
        import torch
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        from trainer.distributed import process_group, stay_on_this_machine

        stay_on_this_machine(meeting[0])
        store = self.store or TCPStore(*meeting, self.job.processes, is_master=False)
        return process_group(torch.device(device), number=self.number, count=self.job.processes, store=store)
