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

    def __init__(self, run: Run, every: int | None, clock: StepClock, strategy: Any, *, repeats: bool = True) -> None:
        self.run = run
        self.is_new = True
        self.last_step = -1
        self.beside: dict[str, Any] = {}  # what is written with the row of the batch that runs, if it is due
        self._clock = clock
        self._repeats = repeats
        self._written: dict[str, Any] = {}
        self._every = every
        self._steps = _StepMetrics()
        self._evaluation_steps = _StepMetrics()
        self._rates = _LearningRates(strategy)
        self._rates_now: dict[str, Any] = {}
        self._batch_step: int | None = None
        self._held: dict[str, Any] = {}
        self._epoch: tuple[dict[str, Any], int, dict[str, int], dict[str, float]] | None = None
        self._evaluation_batch: tuple[Any, int | None, int, dict[str, Any]] | None = None
        self._evaluation: dict[str, Any] = {}
        self._seen: set[str] = set()
        self._tail: tuple[int, dict[str, Any]] | None = None

    # --- training steps

    def begin_batch(self, trainer: Any, batch: Any, now: float) -> None:
        """Write the row of the batch before; remember when this one came and the rates that it trains with."""
        self.flush(trainer)
        self._clock.begin_batch(batch, now)
        self._rates_now = rates = self._rates.read()
        for name, rate in rates.items():
            if rate.__class__ is not float and self.is_due(trainer, trainer.fit_loop.epoch_loop._batches_that_stepped):
                rates[name] = _copied(rate)  # a rate that is a tensor changes in place

    def end_batch(self, trainer: Any, module: Any) -> None:
        """Remember that a batch ended. One that only accumulates gradients is no step, and has no row."""
        loop = trainer.fit_loop.epoch_loop
        if trainer.accumulate_grad_batches != 1 and module.automatic_optimization and loop._should_accumulate():
            self._clock.end_batch(is_step=False)
            return
        self._clock.end_batch(is_step=True)
        self._batch_step = self.last_step = loop._batches_that_stepped
        # Callbacks that stand before this one log the start of the next batch before this row is read.
        self._held = self._steps.read_start(loop._results)

    def flush(self, trainer: Any) -> None:
        """Write what was complete after the hook before: the rows of the last batch and of the last epoch."""
        if self._batch_step is not None:
            self._flush_batch(trainer, self._batch_step)
        if self._epoch is not None:
            self._flush_epoch(trainer, *self._epoch)

    def _flush_batch(self, trainer: Any, step: int) -> None:
        """Write the row of the last batch, if it is due."""
        self._batch_step = None
        beside = self._rates_now
        if self.beside:
            beside, self.beside = {**beside, **self.beside}, {}
        if not self.is_due(trainer, step):
            if not self._seen and self._interval(trainer):  # the first row may never come
                self._note_tail(trainer, step)
            return
        values = self._steps.read(trainer.fit_loop.epoch_loop._results)
        if self._held:
            values |= self._held
        if not self._repeats:
            values, self._written = self._logged_since(values), values
        self._seen.update(values, self._rates_now)
        times = self._clock.take_row()
        self._write(values, step, _axes(trainer), {**beside, **times} if times else beside)
        self._tail = None

    def _logged_since(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what was logged since the last row: each `self.log` leaves a tensor of its own."""
        return {name: value for name, value in values.items() if self._written.get(name) is not value}

    def is_due(self, trainer: Any, step: int) -> bool:
        """Return whether the metrics of a step are kept."""
        every = trainer.log_every_n_steps if self._every is None else self._every
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

    def _flush_epoch(
        self, trainer: Any, before: Mapping[str, Any], step: int, axes: dict[str, int], times: Mapping[str, float]
    ) -> None:
        """Write the row of the last epoch."""
        self._epoch = None
        now = trainer._logger_connector._logged_metrics
        # Lightning puts new tensor objects there, for equal values too.
        values = {name: value for name, value in now.items() if before.get(name) is not value}
        self._write(values, step, axes, times)

    def flush_all(self, trainer: Any) -> None:
        """Write what is still due when training ends, and the last value of step metrics that never came due."""
        progress = trainer.fit_loop.epoch_loop.batch_progress.current
        if progress.completed != progress.processed:  # the last batch failed before a logger would have got it
            self._batch_step = None
        self.flush(trainer)
        if self._tail is None or not self._interval(trainer):
            return
        (step, row), self._tail = self._tail, None
        unseen = {name: value for name, value in row.items() if name not in self._seen and name != "step"}
        if unseen:
            self._seen.update(unseen)
            self.run.log({name: number(value) for name, value in unseen.items()}, step=step)
            self.run.set_tags({"lightning.short_run": f"log_every_n_steps never came due; step {step} was kept"})

    def _note_tail(self, trainer: Any, step: int) -> None:
        values = self._steps.read(trainer.fit_loop.epoch_loop._results) | self._held
        self._tail = (step, {**self._rates_now, **values})

    # --- validation and test

    def note_evaluation_batch(self, loop: Any, dataloader_idx: int) -> None:
        """Remember that a batch ended; its step is a count of batches for each loader."""
        results = loop._results
        held = self._evaluation_steps.read_start(results, results.dataloader_idx)
        step = loop._seen_batches_per_dataloader.get(dataloader_idx, 0)
        self._evaluation_batch = (results, results.dataloader_idx, step, held)

    def flush_evaluation_batch(self, prefix: str) -> None:
        """Write what the last batch logged for each step."""
        if self._evaluation_batch is None:
            return
        (results, dataloader_idx, step, held), self._evaluation_batch = self._evaluation_batch, None
        values = self._evaluation_steps.read(results, dataloader_idx) | held
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
        row = dict(beside) if beside else {}
        if values:
            row.update(axes)
            for name, value in values.items():
                row[name] = number(value)
            if "step" in row:  # as in Lightning, a metric of this name replaces the step, and then there is no epoch
                step = int(row.pop("step"))
                if "epoch" not in values:
                    del row["epoch"]
        if row:
            self.run.log(row, step=step)


class _StepMetrics:
    """What was logged with `on_step`, as tensors under the names that loggers get: nothing is computed or moved.

    Lightning keeps one result a metric for as long as the loop lives, so names are made only when there is another.
    """

    def __init__(self) -> None:
        self._results: Any = None
        self._count = 0
        self._dataloader_idx: int | None = None
        self._named: list[tuple[str, dict[str, Any]]] = []
        self._named_at_start: list[tuple[str, dict[str, Any]]] = []

    def read(self, results: Any, dataloader_idx: int | None = None) -> dict[str, Any]:
        """Return the last value of each metric that was logged since the results were emptied."""
        if results is not self._results or len(results) != self._count or dataloader_idx != self._dataloader_idx:
            self._learn(results, dataloader_idx)
        return _last_values(self._named)

    def read_start(self, results: Any, dataloader_idx: int | None = None) -> dict[str, Any]:
        """Return only what the hooks at the start of a batch logged."""
        if results is not self._results or len(results) != self._count or dataloader_idx != self._dataloader_idx:
            self._learn(results, dataloader_idx)
        return _last_values(self._named_at_start) if self._named_at_start else {}

    def _learn(self, results: Any, dataloader_idx: int | None) -> None:
        self._results, self._count, self._dataloader_idx = results, len(results), dataloader_idx
        self._named, self._named_at_start = [], []
        for result in results.values():
            meta = result.meta
            if meta.on_step and meta.logger and meta.dataloader_idx == dataloader_idx:
                named = meta.forked_name(True) + _loader_suffix(meta), vars(result)
                self._named.append(named)
                if meta.fx.partition(".")[0].endswith("_batch_start"):
                    self._named_at_start.append(named)


def _last_values(named: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    # Of a result's attributes: it is a torch module, which makes asking it for one of them slow.
    return {
        name: value
        for name, result in named
        if not result["has_reset"] and (value := result["_forward_cache"]) is not None
    }


def _loader_suffix(meta: Any) -> str:
    has_suffix = meta.add_dataloader_idx and meta.dataloader_idx is not None
    return f"/dataloader_idx_{meta.dataloader_idx}" if has_suffix else ""


def _axes(trainer: Any) -> dict[str, int]:
    loop = trainer.fit_loop  # as `trainer.current_epoch` and `trainer.global_step`, by fewer steps
    return {"epoch": loop.epoch_progress.current.completed, "trainer/global_step": loop.epoch_loop.global_step}


def number(value: Any, *, is_waiting: bool = False) -> Any:
    """Return a tensor as a Python number; one on a GPU as it is, which a run takes without waiting for it.

    With `is_waiting` that one is waited for: only where no step of the training can be held up.
    """
    if value.__class__ is float:
        return value
    try:
        return value if value.is_cuda and not is_waiting else value.item()
    except AttributeError:  # no tensor
        return value.item() if hasattr(value, "item") else value


class _LearningRates:
    """Learning rate of every param group of every optimizer, under the names of Lightning's `LearningRateMonitor`."""

    def __init__(self, strategy: Any) -> None:
        self._strategy = strategy  # which holds what the properties of the trainer give
        self._optimizers: list[Any] = []
        self._known: list[tuple[Any, list[Any], int]] = []  # optimizers, with their groups as they were
        self._groups: list[tuple[str, dict[str, Any]]] = []
        self._momenta: list[tuple[str, dict[str, Any]]] = []
        self._last_momenta: list[Any] = []

    def read(self) -> dict[str, Any]:
        """Return the rates as they are now, and each momentum that is another than at the row before.

        Most never change, and the params say what they are.
        """
        if self._strategy.optimizers is not self._optimizers:
            self._learn()
        for optimizer, groups, size in self._known:
            if optimizer.param_groups is not groups or len(groups) != size:
                self._learn()
                break
        rates = {name: group["lr"] for name, group in self._groups}
        if self._momenta:
            momenta = [_momentum_of(group) for _, group in self._momenta]
            if momenta != self._last_momenta:
                for (name, _), now, last in zip(self._momenta, momenta, self._last_momenta, strict=True):
                    if now != last:
                        rates[f"{name}-momentum"] = now
                self._last_momenta = momenta
        return rates

    def _learn(self) -> None:
        self._optimizers = self._strategy.optimizers
        self._known = [(each, each.param_groups, len(each.param_groups)) for each in self._optimizers]
        self._groups = [(name, group) for name, group in self._named_groups() if "lr" in group]
        self._momenta = [(name, group) for name, group in self._groups if _momentum_of(group)]
        # A scheduler that cycles it has set it before the first row.
        schedulers = [config.scheduler for config in self._strategy.lr_scheduler_configs]
        is_cycled = any(getattr(scheduler, "cycle_momentum", False) for scheduler in schedulers)
        self._last_momenta = [None if is_cycled else _momentum_of(group) for _, group in self._momenta]

    def _named_groups(self) -> Iterator[tuple[str, dict[str, Any]]]:
        named = [(config.scheduler.optimizer, config.name) for config in self._strategy.lr_scheduler_configs]
        # DeepSpeed and others wrap the optimizer.
        named += [(getattr(optimizer, "optimizer", optimizer), None) for optimizer in self._optimizers]
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


def _momentum_of(group: dict[str, Any]) -> Any:
    """Return the momentum of a group of params: Adam and its like have it as the first of their betas."""
    betas = group.get("betas")
    return betas[0] if betas else group.get("momentum")


def _copied(rate: Any) -> Any:
    return rate.detach().clone() if hasattr(rate, "detach") else rate
