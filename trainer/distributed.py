"""Data-parallel training: sharding and collectives.

Every process walks the same batches and trains on its shard of each; DistributedDataParallel averages the gradients. In
a process on its own, every function here leaves its arguments as they are.
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

from trainer.errors import RankLost

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

# Bytes that one process sends to the others at a time; each holds them on its device.
CHUNK_BYTES = 64 * 2**20
# The other ranks wait this long for rank 0, which uploads a checkpoint or lists a data set on a slow disk.
TIMEOUT = timedelta(minutes=30)


class Shard(NamedTuple):
    """A rank's shard of a batch.

    The mean over all ranks of `weight` times the mean over their shard is the mean over the batch.
    """

    images: slice
    weight: float


def process_count() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the rank of this process, from 0."""
    return dist.get_rank() if process_count() > 1 else 0


def shard(count: int, number: int | None = None) -> Shard:
    """Return a rank's shard of a batch of `count` images (by default this rank's).

    Shards are as even as possible. A batch with fewer than two images for each rank is not divided: every rank works on
    all of it, so that each has images, and batch norm two of them.
    """
    processes = process_count()
    number = rank() if number is None else number
    if count < 2 * processes:
        return Shard(slice(0, count), 1.0)
    size, extra = divmod(count, processes)
    start = number * size + min(number, extra)
    size += number < extra
    return Shard(slice(start, start + size), size * processes / count)


def all_gather(values: Tensor, count: int) -> Tensor:
    """All-gather the rows [count, ...] of all ranks, in order, from the rows of each rank's shard."""
    processes = process_count()
    sizes = [len(range(count)[shard(count, number).images]) for number in range(processes)]
    if sum(sizes) != count or processes == 1:
        return values
    padded = values.new_zeros((max(sizes), *values.shape[1:]))
    padded[: len(values)] = values
    everything = values.new_empty((processes * max(sizes), *values.shape[1:]))
    dist.all_gather_into_tensor(everything, padded)
    parts = everything.split(max(sizes))
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def all_reduce_sum(values: Tensor) -> Tensor:
    """Return the sums over all ranks."""
    return _reduced(values, "SUM")


def all_reduce_min(values: Tensor) -> Tensor:
    """Return the least values of all ranks."""
    return _reduced(values, "MIN")


def _reduced(values: Tensor, operation: str) -> Tensor:
    if process_count() > 1:
        values = values.clone()
        dist.all_reduce(values, getattr(dist.ReduceOp, operation))
    return values


def average_statistics(networks: nn.Module) -> None:
    """Average the running statistics of batch norm over all ranks.

    Each rank normalises with the statistics of its own shard, so the mean of the means is that of the whole batches.
    """
    if process_count() == 1:
        return
    buffers = [buffer for buffer in networks.buffers() if buffer.is_floating_point()]
    if not buffers:
        return
    means = all_reduce_sum(torch.cat([buffer.flatten() for buffer in buffers])) / process_count()
    for buffer, mean in zip(buffers, means.split([buffer.numel() for buffer in buffers]), strict=True):
        buffer.copy_(mean.view_as(buffer))


def broadcast_state(state: dict[str, Any] | None, device: torch.device) -> dict[str, Any] | None:
    """Broadcast rank 0's state of a checkpoint (tensors on the CPU and plain values) to all ranks."""
    if process_count() == 1:
        return state
    content = io.BytesIO()
    if state is not None and rank() == 0:
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
def watching_ranks() -> Iterator[None]:
    """Raise RankLost in the place of the many errors of a broken connection to another rank.

    Over gloo the connection breaks at once. NCCL may wait instead: the program that starts the ranks has to end them
    together. Most errors of NCCL have other causes (an interface, shared memory, a driver), so that their message is
    kept.
    """
    try:
        yield
    except RuntimeError as error:
        if process_count() == 1:
            raise
        first = str(error).splitlines()[0]
        if _tells_of_a_loss(error):
            raise RankLost(f"another process of this training has ended ({first})") from error
        if "NCCL" in str(error):
            # NCCL's message has the cause in its later lines.
            error.add_note("NCCL_DEBUG=INFO in the environment has NCCL say more")
        raise


def _tells_of_a_loss(error: RuntimeError) -> bool:
    """Return whether an error can only mean that another process is gone."""
    text = str(error)
    if "NCCL" in text:
        return bool(re.search(r"remote process exited|connection closed by remote peer|ncclRemoteError", text, re.I))
    # Rank 0 has the store; a connection that the store refuses or closes is lost with it.
    lost = isinstance(error, dist.DistNetworkError | dist.DistStoreError)
    return lost or bool(re.search(r"gloo|[Cc]onnection (closed|reset)", text))


@contextmanager
def process_group(
    device: torch.device, *, number: int | None = None, count: int | None = None, store: Store | None = None
) -> Iterator[None]:
    """Join the process group in this context: process `number` of `count`, which meet at `store`.

    Without these arguments, the environment has them, as `torchrun` sets it. A process on a GPU uses NCCL, one on a CPU
    gloo.
    """
    # DistributedDataParallel imports this module, whose functions take the default group of that moment as their
    # default argument and would keep it for good, see below.
    import torch.distributed.nn.functional

    meeting: dict[str, Any] = {"store": store, "rank": number, "world_size": count} if store is not None else {}
    if device.type == "cuda":
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", device_id=device, timeout=TIMEOUT, **meeting)
    else:
        dist.init_process_group("gloo", timeout=TIMEOUT, **meeting)
    yield
    # Not after an error: NCCL and gloo would wait for processes that may be gone. No other object may hold the group,
    # or its threads go on, and one that frees a tensor while the interpreter ends aborts the process.
    gc.collect()
    dist.destroy_process_group()


def stay_on_this_machine(address: str) -> None:
    """Keep processes that meet at the loopback interface from any other. Call it before `process_group`."""
    if address == "localhost" or address.startswith("127.") or address == "::1":
        for library in ("GLOO", "NCCL"):
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo")
