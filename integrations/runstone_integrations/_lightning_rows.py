"""The rows that a logger of Lightning would receive. Knows Lightning's private state, and no life of a run.

The parity tests, which compare every row with what `CSVLogger` receives, guard what is read here.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runstone import Run
    from runstone_integrations._lightning_timing import StepClock


class Rows:
    """The rows that a logger of Lightning would receive, read from its private state.

    Callbacks run before the module's hook of the same name, so what a hook logs is complete only at the next one:
    `note_…` remembers that a row is due, `flush_…` reads and writes it one hook later. Nothing here asks Lightning to
    compute a metric: under DDP that would be a collective call on one rank.
    """

    def __init__(self, run: Run, every: int | None, clock: StepClock, *, repeats: bool = True) -> None:
        self.run = run
        self.is_new = True
        self.last_step = -1
        self.beside: dict[str, Any] = {}  # what is written with the row of the batch that runs, if it is due
        self._clock = clock
        self._repeats = repeats
        self._written: dict[str, Any] = {}
        self._every = every
        self._rates = _LearningRates()
        self._rates_now: dict[str, Any] = {}
        self._batch_step: int | None = None
        self._held: dict[str, Any] = {}
        self._epoch: tuple[dict[str, Any], int, dict[str, int], dict[str, float]] | None = None
        self._evaluation_batch: tuple[Any, int | None, int, dict[str, Any]] | None = None
        self._evaluation: dict[str, Any] = {}
        self._seen: set[str] = set()
        self._tail: tuple[int, dict[str, Any]] | None = None

    # --- training steps

    def note_learning_rates(self, trainer: Any) -> None:
        """Remember the rates that the batch to come trains with."""
        step = trainer.fit_loop.epoch_loop._batches_that_stepped
        self._rates_now = self._rates.read(trainer, is_copied=self.is_due(trainer, step))

    def note_batch(self, trainer: Any, module: Any) -> bool:
        """Remember that a batch ended; return `False` for one that only accumulates gradients: it is no step."""
        loop = trainer.fit_loop.epoch_loop
        if trainer.accumulate_grad_batches != 1 and module.automatic_optimization and loop._should_accumulate():
            self._batch_step = None
            return False
        self._batch_step = self.last_step = step = loop._batches_that_stepped
        # Callbacks that stand before this one log the start of the next batch before this row is read.
        self._held = _step_values(loop._results, is_from_start=True) if self.is_due(trainer, step) else {}
        return True

    def flush_batch(self, trainer: Any) -> None:
        """Write the row of the last batch, if it is due."""
        step, self._batch_step = self._batch_step, None
        if step is None:
            return
        beside, self.beside = self.beside, {}
        if not self.is_due(trainer, step):
            if not self._seen and self._interval(trainer):  # the first row may never come
                self._note_tail(trainer, step)
            return
        values = {**_step_values(trainer.fit_loop.epoch_loop._results), **self._held}
        if not self._repeats:
            values, self._written = self._logged_since(values), values
        self._seen.update(values, self._rates_now)
        times = self._clock.take_row()
        beside = {**self._rates_now, **beside, **times} if beside or times else self._rates_now
        self._write(values, step, _axes(trainer), beside)
        self._tail = None

    def _logged_since(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what was logged since the last row: each `self.log` leaves a tensor of its own."""
        return {name: value for name, value in values.items() if self._written.get(name) is not value}

    def is_due(self, trainer: Any, step: int) -> bool:
        """Return whether the metrics of a step are kept."""
        every = self._interval(trainer)
        return every > 0 and ((step + 1) % every == 0 or trainer.should_stop)

    def _interval(self, trainer: Any) -> int:
        """Return how many steps lie between rows; 0: no step has one."""
        return trainer.log_every_n_steps if self._every is None else self._every

    # --- training epochs

    def note_epoch(self, trainer: Any) -> None:
        """Remember what Lightning had logged before the epoch's own metrics; what changes after that is its row."""
        loop = trainer.fit_loop.epoch_loop
        if self.last_step >= 0:  # the results are emptied after this hook
            self._note_tail(trainer, self.last_step)
        before = dict(trainer._logger_connector._logged_metrics)
        self._epoch = (before, loop._batches_that_stepped - 1, _axes(trainer), self._clock.take_epoch())

    def flush_epoch(self, trainer: Any) -> None:
        """Write the row of the last epoch."""
        if self._epoch is None:
            return
        (before, step, axes, times), self._epoch = self._epoch, None
        now = trainer._logger_connector._logged_metrics
        # Lightning puts new tensor objects there, for equal values too.
        values = {name: value for name, value in now.items() if before.get(name) is not value}
        self._write(values, step, axes, times)

    def flush_all(self, trainer: Any) -> None:
        """Write what is still due when training ends, and the last value of step metrics that never came due."""
        progress = trainer.fit_loop.epoch_loop.batch_progress.current
        if progress.completed == progress.processed:  # else the last batch failed before a logger would have got it
            self.flush_batch(trainer)
        self.flush_epoch(trainer)
        if self._tail is None or not self._interval(trainer):
            return
        (step, row), self._tail = self._tail, None
        unseen = {name: value for name, value in row.items() if name not in self._seen and name != "step"}
        if unseen:
            self._seen.update(unseen)
            self.run.log({name: number(value) for name, value in unseen.items()}, step=step)
            self.run.set_tags({"lightning.short_run": f"log_every_n_steps never came due; step {step} was kept"})

    def _note_tail(self, trainer: Any, step: int) -> None:
        values = {**_step_values(trainer.fit_loop.epoch_loop._results), **self._held}
        self._tail = (step, {**self._rates_now, **values})

    # --- validation and test

    def note_evaluation_batch(self, loop: Any, dataloader_idx: int) -> None:
        """Remember that a batch ended; its step is a count of batches for each loader."""
        results = loop._results
        held = _step_values(results, results.dataloader_idx, is_from_start=True)
        step = loop._seen_batches_per_dataloader.get(dataloader_idx, 0)
        self._evaluation_batch = (results, results.dataloader_idx, step, held)

    def flush_evaluation_batch(self, prefix: str) -> None:
        """Write what the last batch logged for each step."""
        if self._evaluation_batch is None:
            return
        (results, dataloader_idx, step, held), self._evaluation_batch = self._evaluation_batch, None
        values = {**_step_values(results, dataloader_idx), **held}
        if values:
            self.run.log({prefix + name: number(value) for name, value in values.items()}, step=step)

    def note_evaluation(self, loop: Any) -> None:
        """Remember what each loader logged; Lightning forgets it before the evaluation's last hook."""
        self._evaluation = dict(ChainMap(*loop._logged_outputs))

    def write_evaluation(self, trainer: Any, prefix: str) -> None:
        """Write the row of a validation or test that has just ended."""
        values, self._evaluation = self._evaluation, {}
        for result in trainer._evaluation_loop._results.values():  # with what was logged at the end, for no loader
            meta = result.meta
            is_valid = not result.has_reset and meta.dataloader_idx is None and result._computed is not None
            if is_valid and meta.logger and meta.on_epoch:
                values[meta.forked_name(False)] = result._computed
        values = {prefix + name: value for name, value in values.items()}
        self._write(values, trainer.fit_loop.epoch_loop._batches_that_stepped, _axes(trainer))

    def _write(
        self, values: Mapping[str, Any], step: int, axes: Mapping[str, int], beside: Mapping[str, Any] | None = None
    ) -> None:
        row: dict[str, Any] = {}
        if values:
            row = {**axes, **{name: number(value) for name, value in values.items()}}
            if "step" in row:  # as in Lightning, a metric of this name replaces the step, and then there is no epoch
                step = int(row.pop("step"))
                if "epoch" not in values:
                    del row["epoch"]
        for name, value in (beside or {}).items():
            if name not in row:
                row[name] = value if value.__class__ is float else number(value)
        if row:
            self.run.log(row, step=step)


def _step_values(results: Any, dataloader_idx: int | None = None, *, is_from_start: bool = False) -> dict[str, Any]:
    """Return what was logged with `on_step` as tensors: nothing is computed, copied or moved.

    With `is_from_start`, only what the hooks at the start of a batch logged.
    """
    return {
        result.meta.forked_name(True) + _loader_suffix(result.meta): result._forward_cache
        for result in results.values()
        if result.meta.on_step
        and result.meta.logger
        and not result.has_reset
        and result.meta.dataloader_idx == dataloader_idx
        and result._forward_cache is not None
        and (not is_from_start or result.meta.fx.partition(".")[0].endswith("_batch_start"))
    }


def _loader_suffix(meta: Any) -> str:
    has_suffix = meta.add_dataloader_idx and meta.dataloader_idx is not None
    return f"/dataloader_idx_{meta.dataloader_idx}" if has_suffix else ""


def _axes(trainer: Any) -> dict[str, int]:
    return {"epoch": trainer.current_epoch, "trainer/global_step": trainer.global_step}


def number(value: Any, *, is_waiting: bool = False) -> Any:
    """Return a tensor as a Python number; one on a GPU as it is, which a run takes without waiting for it.

    With `is_waiting` that one is waited for: only where no step of the training can be held up.
    """
    if hasattr(value, "item") and (is_waiting or not getattr(value, "is_cuda", False)):
        return value.item()
    return value


class _LearningRates:
    """Learning rate of every param group of every optimizer, under the names of Lightning's `LearningRateMonitor`."""

    def __init__(self) -> None:
        self._optimizers: list[Any] = []
        self._sizes: list[int] = []
        self._groups: list[tuple[str, dict[str, Any]]] = []

    def read(self, trainer: Any, *, is_copied: bool) -> dict[str, Any]:
        """Return the rates as they are now. Rates that are tensors change in place: `is_copied` keeps their value."""
        optimizers = trainer.optimizers
        if optimizers is not self._optimizers or self._sizes != [len(each.param_groups) for each in optimizers]:
            self._optimizers = optimizers
            self._sizes = [len(each.param_groups) for each in optimizers]
            self._groups = list(self._named_groups(trainer))
        if is_copied:
            return {name: _copied(group["lr"]) for name, group in self._groups if "lr" in group}
        return {name: group["lr"] for name, group in self._groups if "lr" in group}

    def _named_groups(self, trainer: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        named = [(config.scheduler.optimizer, config.name) for config in trainer.lr_scheduler_configs]
        # DeepSpeed and others wrap the optimizer.
        named += [(getattr(optimizer, "optimizer", optimizer), None) for optimizer in trainer.optimizers]
        done: set[int] = set()
        used: dict[str, int] = {}
        for optimizer, given in named:
            if id(optimizer) in done:
                continue
            done.add(id(optimizer))
            name = given or f"lr-{type(optimizer).__name__}"
            used[name] = used.get(name, 0) + 1
            if used[name] > 1:
                name = f"{name}-{used[name] - 1}"
            groups = optimizer.param_groups
            labels = [group.get("name") or f"pg{number}" for number, group in enumerate(groups, 1)]
            if len(set(labels)) < len(labels):
                labels = [f"pg{number}" for number in range(1, len(groups) + 1)]
            for group, label in zip(groups, labels, strict=True):
                is_alone = len(groups) == 1 and not group.get("name")
                yield (name if is_alone else f"{name}/{label}"), group


def _copied(rate: Any) -> Any:
    return rate.detach().clone() if hasattr(rate, "detach") else rate
