"""An iterator over batches that times the loop around it: how long it waits for data, how long a step takes."""

from __future__ import annotations

import itertools
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

import runstone
from runstone_integrations._pytorch_ranks import rank_and_size
from runstone_integrations._pytorch_run import run_to_record_in

Batch = TypeVar("Batch")

_METRICS = ("step_s", "data_s", "samples_per_s", "epoch", "epoch_s")

_DEPTH, _WIDTH = 4, 8  # how far into a batch a tensor is looked for


def tracked(
    loader: Iterable[Batch],
    run: runstone.Run | None = None,
    *,
    name: str = "train",
    every_n_steps: int = 50,
    epoch: int | None = None,
    first_step: int = 0,
) -> TrackedLoader[Batch]:
    """Return a loader that gives the same batches and records how fast the loop around it is.

    ```python
    for epoch in range(10):
        for x, y in tracked(loader):
            ...
    ```

    Each pass over it is an epoch. Every n steps and at the end of a pass it records, as means over the steps since the
    row before: `<name>/step_s`, seconds from batch to batch; `<name>/data_s`, those of them spent waiting for the
    loader; `<name>/samples_per_s`, where the batch holds tensors or arrays with the samples along their first
    dimension; and `<name>/epoch`. A pass to the end of the loader adds `<name>/epoch_s`. The step is the number of the
    batch, counted from 0 over all passes with this run and name.

    **When somebody asks the run to stop, it gives no more batches**, in this pass and in later ones. Not so in a
    distributed job of several processes: to stop there is for all of them to agree on. There, rank 0 records; on the
    others, batches only pass through.

    `len()`, attributes and methods are those of the loader; exceptions go through. What a GPU does beside the thread is
    counted where the thread waits for it: means over many steps are right, those of single ones say little.

    Args:
        loader: A `DataLoader`, or anything that can be iterated.
        run: Default: the one that is open.
        name: Prefix of the metrics; one for each loop of a run.
        every_n_steps: At least 1.
        epoch: Number of the epoch; default: passes are counted, from 0.
        first_step: Step of the first batch that this process trains with in the run: after a restart, that of the
            checkpoint.

    Raises:
        InvalidValue: `every_n_steps` is below 1.
        RunNotFound: there is no `run`, and none is open.
    """
    if every_n_steps < 1:
        raise runstone.InvalidValue(f"every_n_steps is {every_n_steps!r}; it must be 1 or more")
    found = run_to_record_in(run)
    progress = None
    if found is not None:
        progress = _progress.setdefault(found, {}).setdefault(name, _Progress(first_step))
    return TrackedLoader(loader, found, progress, name=name, every_n_steps=every_n_steps, epoch=epoch)


class TrackedLoader(Generic[Batch]):
    """Gives the batches of a loader and times them; see `tracked`, which makes it."""

    def __init__(
        self,
        loader: Iterable[Batch],
        run: runstone.Run | None,
        progress: _Progress | None,
        *,
        name: str,
        every_n_steps: int,
        epoch: int | None,
    ) -> None:
        self._loader = loader
        self._run = run
        self._progress = progress
        # Handles count steps of their own, so that these leave those of `run.log` alone.
        self._metrics = {metric: run.metric(f"{name}/{metric}") for metric in _METRICS} if run is not None else {}
        self._every_n = every_n_steps
        self._epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        """Give the batches of one pass."""
        run, progress = self._run, self._progress
        if run is None or progress is None:
            yield from self._loader
            return
        epoch = self._epoch if self._epoch is not None else progress.epoch
        progress.epoch = epoch + 1
        is_alone = rank_and_size()[1] == 1
        if run.should_stop and is_alone:
            return
        window, first_step = _Window(self._metrics, epoch), progress.next_step
        clock, every_n, is_whole = time.perf_counter, self._every_n, False
        started = asked = clock()
        batches = iter(self._loader)
        try:
            while not (run.should_stop and is_alone):
                try:
                    batch = next(batches)
                except StopIteration:
                    is_whole = True
                    break
                came = clock()
                samples = _samples_in(batch)
                progress.next_step += 1
                yield batch
                del batch  # or it would be kept in memory while the next one is made
                done = clock()
                window.data_s += came - asked
                window.step_s += done - asked
                window.steps += 1
                window.samples += samples
                asked = done
                if progress.next_step % every_n == 0:
                    window.log(progress.next_step - 1)
                    asked = clock()
        finally:  # also after a break, when the loop lets go of this generator
            if not run.is_finished:
                window.log(progress.next_step - 1)
                if is_whole and progress.next_step > first_step:
                    self._metrics["epoch_s"](clock() - started, step=progress.next_step - 1)

    def __len__(self) -> int:
        """Return how many batches the loader says it has."""
        return len(self._loader)  # type: ignore[arg-type]  # raises TypeError as the loader does

    def __getattr__(self, name: str) -> Any:
        """Return what the loader has under this name."""
        if name == "_loader":  # asked for while a copy is made
            raise AttributeError(name)
        return getattr(self._loader, name)


class _Progress:
    """How far the loops of one name have come in one run."""

    def __init__(self, first_step: int) -> None:
        self.next_step = first_step
        self.epoch = 0


class _Window:
    """The steps of one pass since its last row.

    Args:
        metrics: Handles by name.
        epoch: Number of the pass.
    """

    __slots__ = ("_epoch", "_metrics", "data_s", "samples", "step_s", "steps")

    def __init__(self, metrics: Mapping[str, runstone.MetricHandle], epoch: int) -> None:
        self._metrics = metrics
        self._epoch = epoch
        self._clear()

    def _clear(self) -> None:
        self.steps = self.samples = 0
        self.step_s = self.data_s = 0.0

    def log(self, step: int) -> None:
        """Record the means, if there was a step, and begin anew."""
        metrics, steps = self._metrics, self.steps
        if steps:
            metrics["step_s"](self.step_s / steps, step=step)
            metrics["data_s"](self.data_s / steps, step=step)
            metrics["epoch"](self._epoch, step=step)
            if self.samples and self.step_s > 0.0:
                metrics["samples_per_s"](self.samples / self.step_s, step=step)
        self._clear()


def _samples_in(batch: Any) -> int:
    """Return the first dimension of the first tensor or array in a batch, 0 where there is none."""
    first = batch[0] if batch.__class__ in (tuple, list) and batch else batch
    try:
        return len(first) if hasattr(first.__class__, "shape") else _search(batch, _DEPTH)
    except Exception:  # foreign code; a scalar has no first dimension
        return 0


def _search(batch: Any, depth: int) -> int:
    if hasattr(batch, "shape"):
        return int(batch.shape[0]) if len(batch.shape) else 0
    if not depth:
        return 0
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ()
    sizes = (_search(part, depth - 1) for part in itertools.islice(parts, _WIDTH))
    return next((size for size in sizes if size), 0)


# Loops are written anew each epoch, and their steps go on. Process-wide, as open runs are.
_progress: weakref.WeakKeyDictionary[runstone.Run, dict[str, _Progress]] = weakref.WeakKeyDictionary()
