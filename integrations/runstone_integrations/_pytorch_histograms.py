"""Values of tensors on their way from a GPU to a histogram, copied without waiting for the device."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import torch

import runstone

MOST_VALUES = 1 << 16
"""Of a tensor with more values, so many are taken, evenly spread."""


class _Copy(NamedTuple):
    name: str
    step: int
    values: torch.Tensor
    event: Any


class Histograms:
    """The histograms of one run that have not all come yet."""

    def __init__(self, run: runstone.Run) -> None:
        self._run = run
        self._line: deque[_Copy] = deque()

    def log(self, name: str, tensors: list[torch.Tensor], *, step: int) -> None:
        """Record a histogram of the values of tensors on one device; from a GPU, once they have come."""
        stride = -(-sum(tensor.numel() for tensor in tensors) // MOST_VALUES) or 1
        values = torch.cat([tensor.detach().flatten()[::stride] for tensor in tensors])
        if values.dtype in (torch.float16, torch.bfloat16):
            values = values.float()
        if not values.is_cuda:
            self._run.log_histogram(name, values, step=step)
            return
        pinned = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        pinned.copy_(values, non_blocking=True)
        cuda: Any = torch.cuda
        event = cuda.Event()
        event.record(cuda.current_stream(values.device))
        self._line.append(_Copy(name, step, pinned, event))

    def log_what_came(self, *, wait: bool = False) -> None:
        """Record what has come since the last call, in order; with `wait`, all of it."""
        while self._line:
            copy = self._line[0]
            if wait:
                copy.event.synchronize()
            elif not copy.event.query():
                return
            self._line.popleft()
            self._run.log_histogram(copy.name, copy.values, step=copy.step)
