"""Several processes that train one network together: which part of a batch is whose, and what they tell each other.

Every process walks the same batches and trains on its part of each; DistributedDataParallel averages the gradients.
In a process on its own, everything here leaves its arguments as they are.
"""

from __future__ import annotations

import gc
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trainer.errors import PeerLost

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

# What one process sends to the others at a time, for a GPU has to hold it.
CHUNK_BYTES = 64 * 2**20
# The others wait while the first process uploads a checkpoint or lists a data set on a slow disk.
TIMEOUT = timedelta(minutes=30)


class Part(NamedTuple):
    """The part of a batch that is a process's own.

    The mean over all processes of `weight` times the means over their parts is the mean over the batch.
    """

    images: slice
    weight: float


def process_count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_number() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if process_count() > 1 else 0


def part_of(count: int, number: int | None = None) -> Part:
    """The part of a batch of `count` images that belongs to a process (this one, if its number is not given).

    The parts are as even as can be. A batch with fewer than two images for each process is worked on as a whole by
    all of them: nobody is without an image, and batch norm has two.
    """
    processes = process_count()
    number = process_number() if number is None else number
    if count < 2 * processes:
        return Part(slice(0, count), 1.0)
    size, extra = divmod(count, processes)
    start = number * size + min(number, extra)
    size += number < extra
    return Part(slice(start, start + size), size * processes / count)


def gathered(values: Tensor, count: int) -> Tensor:
    """The rows [count, ...] of all processes, in order, from those of each one's part."""
    processes = process_count()
    sizes = [len(range(count)[part_of(count, number).images]) for number in range(processes)]
    if sum(sizes) != count or processes == 1:
        return values
    padded = values.new_zeros((max(sizes), *values.shape[1:]))
    padded[: len(values)] = values
    everything = values.new_empty((processes * max(sizes), *values.shape[1:]))
    dist.all_gather_into_tensor(everything, padded)
    parts = everything.split(max(sizes))
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def added(values: Tensor) -> Tensor:
    """The sums over all processes."""
    return _reduced(values, "SUM")


def least(values: Tensor) -> Tensor:
    """The least values of all processes."""
    return _reduced(values, "MIN")


def _reduced(values: Tensor, operation: str) -> Tensor:
    if process_count() > 1:
        values = values.clone()
        dist.all_reduce(values, getattr(dist.ReduceOp, operation))
    return values


def average_statistics(networks: nn.Module) -> None:
    """Give all processes the mean of their running statistics of batch norm.

    As each normalises with the statistics of its own part, the mean of the means is that of the whole batches.
    """
    if process_count() == 1:
        return
    buffers = [buffer for buffer in networks.buffers() if buffer.is_floating_point()]
    if not buffers:
        return
    means = added(torch.cat([buffer.flatten() for buffer in buffers])) / process_count()
    for buffer, mean in zip(buffers, means.split([buffer.numel() for buffer in buffers]), strict=True):
        buffer.copy_(mean.view_as(buffer))


def from_the_first(state: dict[str, Any] | None, device: torch.device) -> dict[str, Any] | None:
    """What the first process has read from a checkpoint (tensors on the CPU and plain values), in all of them."""
    if process_count() == 1:
        return state
    content = io.BytesIO()
    if state is not None and process_number() == 0:
        torch.save(state, content)
    # gloo sends from the CPU, NCCL from the GPU.
    place = device if dist.get_backend() == "nccl" else torch.device("cpu")
    size = torch.tensor(content.tell(), device=place)
    dist.broadcast(size, 0)
    if not size:
        return None
    sent = torch.frombuffer(content.getbuffer(), dtype=torch.uint8) if content.tell() else None
    for start in range(0, int(size), CHUNK_BYTES):
        length = min(CHUNK_BYTES, int(size) - start)
        chunk = torch.empty(length, dtype=torch.uint8) if sent is None else sent[start : start + length]
        chunk = chunk.to(place)
        dist.broadcast(chunk, 0)
        if sent is None:
            content.write(chunk.cpu().numpy().data)
    if sent is not None:
        return state
    content.seek(0)
    received: dict[str, Any] = torch.load(content, map_location="cpu", weights_only=True)
    return received


@contextmanager
def watching_peers() -> Iterator[None]:
    """Raise PeerLost in the place of what a broken connection to another process is called.

    Over gloo it breaks at once. NCCL may wait instead: whoever starts the processes has to end them together. Most
    errors of NCCL have other causes (an interface, shared memory, a driver), so that their message is kept.
    """
    try:
        yield
    except RuntimeError as error:
        if process_count() == 1:
            raise
        first = str(error).splitlines()[0]
        if _tells_of_a_loss(error):
            raise PeerLost(f"another process of this training has ended ({first})") from error
        if "NCCL" in str(error):
            # The cause stands in later lines of the message.
            error.add_note("NCCL_DEBUG=INFO in the environment has NCCL say more")
        raise


def _tells_of_a_loss(error: RuntimeError) -> bool:
    """Return whether an error can only mean that another process is gone."""
    text = str(error)
    if "NCCL" in text:
        return bool(re.search(r"remote process exited|connection closed by remote peer|ncclRemoteError", text, re.I))
    # The store is the first process's; a connection that it refuses or closes is lost with it.
    lost = isinstance(error, dist.DistNetworkError | dist.DistStoreError)
    return lost or bool(re.search(r"gloo|[Cc]onnection (closed|reset)", text))


@contextmanager
def together(
    device: torch.device, *, number: int | None = None, count: int | None = None, store: Store | None = None
) -> Iterator[None]:
    """Train together with other processes in this context: process `number` of `count`, which meet at `store`.

    Without these they are taken from the environment, as `torchrun` sets it. A process on a GPU speaks NCCL, one on a
    CPU gloo.
    """
    # DistributedDataParallel loads this, and what its functions take as the default group is the one there is by then:
    # it would be kept for good, see below.
    import torch.distributed.nn.functional

    meeting: dict[str, Any] = {"store": store, "rank": number, "world_size": count} if store is not None else {}
    if device.type == "cuda":
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", device_id=device, timeout=TIMEOUT, **meeting)
    else:
        dist.init_process_group("gloo", timeout=TIMEOUT, **meeting)
    yield
    # Not after an error: it would wait for processes that may be gone. Nothing else may hold the group, or its threads
    # go on, and one that lets go of a tensor while the interpreter ends aborts the process.
    gc.collect()
    dist.destroy_process_group()


def stay_on_this_machine(address: str) -> None:
    """Where processes meet at the loopback interface, keep them from any other. Call it before `together`."""
    if address == "localhost" or address.startswith("127.") or address == "::1":
        for library in ("GLOO", "NCCL"):
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo")
