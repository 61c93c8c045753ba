"""How long steps and epochs take, how long they wait for data, the memory of the GPU. Asks no device to wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

_INTERVAL_S = 0.1
_NOTHING: dict[str, float] = {}
_DEPTH = 4


class StepClock:
    """Measures steps on the training thread: a few reads of the clock a batch.

    Work that a GPU does meanwhile is counted where the thread waits for it. So times of single steps tell little there,
    and the mean over the steps since the last row tells what a step costs. There are at most ten rows a second.

    Args:
        world_size: Processes that train; each is taken to have batches as large as this one's.
        count_tokens: Number of tokens in a batch; default: positions of `batch["input_ids"]`, padding included.
        device: Torch device that this process trains on.
    """

    def __init__(self, *, world_size: int, count_tokens: Callable[[Any], int] | None, device: Any) -> None:
        self._world_size = world_size
        self._count_tokens = count_tokens or _tokens_of
        self._always_has_tokens = count_tokens is not None
        self._batch_type: type | None = None  # of the last batch
        self._has_tokens = False
        self._device = device if getattr(device, "type", None) == "cuda" else None
        self._mark = self._epoch_start = time.perf_counter()
        self._row_at = 0.0
        self._forget()

    def _forget(self) -> None:
        self._data_s = self._busy_s = 0.0
        self._steps = self._samples = self._tokens = 0

    def skip(self) -> None:
        """Leave out the time since the last batch: it went into a validation."""
        self._mark = time.perf_counter()

    def begin_epoch(self) -> None:
        """Note that an epoch starts."""
        self._mark = self._epoch_start = time.perf_counter()

    def begin_batch(self, batch: Any, now: float) -> None:
        """Note that a batch has come, at `now` on `time.perf_counter`."""
        self._data_s += now - self._mark
        self._mark = now
        if batch.__class__ is not self._batch_type:
            self._batch_type = batch.__class__
            self._has_tokens = self._always_has_tokens or isinstance(batch, Mapping)
        self._samples += _size_of(batch, _DEPTH) or 0
        if self._has_tokens:
            self._tokens += self._count_tokens(batch)

    def end_batch(self, *, is_step: bool) -> None:
        """Note that a batch is done; `is_step` is false where it has only accumulated gradients."""
        now = time.perf_counter()
        self._busy_s += now - self._mark
        self._mark = now
        self._steps += is_step

    def take_row(self) -> dict[str, float]:
        """Return the means over the steps since the last row, and begin anew."""
        if self._mark - self._row_at < _INTERVAL_S or not self._steps:
            return _NOTHING
        self._row_at = self._mark
        steps, elapsed_s = self._steps, self._data_s + self._busy_s
        row = {"trainer/step_s": elapsed_s / steps, "trainer/data_s": self._data_s / steps}
        if self._samples:
            row["trainer/samples_per_s"] = self._samples * self._world_size / elapsed_s
        if self._tokens:
            row["trainer/tokens_per_s"] = self._tokens * self._world_size / elapsed_s
        if self._device is not None:
            row |= self._memory()
        self._forget()
        return row

    def take_epoch(self) -> dict[str, float]:
        """Return how long the epoch took, its validations included."""
        return {"trainer/epoch_s": time.perf_counter() - self._epoch_start}

    def _memory(self) -> dict[str, float]:
        import torch  # loaded long since: this process trains with it

        # What torch's own functions take apart at each call: one call instead of three.
        stats = torch.cuda.memory_stats_as_nested_dict(self._device)
        if not stats:
            return {}
        allocated = stats["allocated_bytes"]["all"]
        return {
            "trainer/gpu_allocated_bytes": float(allocated["current"]),
            "trainer/gpu_max_allocated_bytes": float(allocated["peak"]),
            "trainer/gpu_reserved_bytes": float(stats["reserved_bytes"]["all"]["current"]),
        }


def _tokens_of(batch: Mapping[Any, Any]) -> int:
    count = getattr(batch.get("input_ids"), "numel", None)
    return int(count()) if count is not None else 0


def _size_of(batch: Any, depth: int) -> int | None:
    """Return the first dimension of the first tensor in a batch; `None` where there is none."""
    shape = getattr(batch, "shape", None)
    if shape is not None:
        try:
            return int(shape[0])
        except (TypeError, IndexError, RuntimeError):  # a scalar, or a tensor without a shape of its own
            return None
    if depth:
        parts = batch if isinstance(batch, list | tuple) else batch.values() if isinstance(batch, Mapping) else ()
        for part in parts:
            size = _size_of(part, depth - 1)
            if size is not None:
                return size
    return None
