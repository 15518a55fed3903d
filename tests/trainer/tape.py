"""A CUDA graph played on a CPU: the operations of some work, recorded once and done again on the same storages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def record(work: Callable[[], None]) -> Callable[[], None]:
    """Record work without a trace of its having run, as `trainer.step.cuda_graph` does; return its replay."""
    tape = _Tape()
    with tape:
        work()
    tape.undo()
    return tape.replay


class _Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self.before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        # Its schema keeps silent about the running statistics.
        if function._schema.is_mutable or "batch_norm" in function.name():
            for tensor in _tensors((args, kwargs)):
                storage = tensor.untyped_storage()
                self.before.setdefault(storage.data_ptr(), (storage, storage.clone()))
        result = function(*args, **kwargs)
        self.operations.append((function, args, kwargs, result))
        return result

    def undo(self) -> None:
        """Give every storage that was written its content from before."""
        for storage, content in self.before.values():
            storage.copy_(content)

    @torch.no_grad()
    def replay(self) -> None:
        """Do every operation again, into the tensors that it gave while it was recorded."""
        for function, args, kwargs, result in self.operations:
            schema = function._schema
            if schema.is_mutable:
                function(*args, **kwargs)
            elif not any(value.alias_info for value in schema.returns):
                for new, old in zip(_tensors(function(*args, **kwargs)), _tensors(result), strict=True):
                    old.copy_(new)


def _tensors(values: Any) -> Iterable[Tensor]:
    return (value for value in tree_leaves(values) if isinstance(value, Tensor))
