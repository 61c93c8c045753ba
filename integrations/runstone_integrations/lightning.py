"""Records what a Lightning `Trainer` does, through the hooks of a callback.

One class serves `lightning.pytorch` and `pytorch_lightning`: both call hooks by name, so it inherits from neither and
importing this module imports no framework.
"""

from __future__ import annotations

import copy
import functools
import multiprocessing
import multiprocessing.util
import sys
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, Self

import runstone
from runstone_integrations._lightning_facts import (
    ending_facts,
    facts_at_start,
    facts_of_callbacks,
    facts_of_optimizers,
    is_sharded,
    why_training_ended,
)
from runstone_integrations._lightning_files import AfterException, CheckpointArtifacts, CheckpointPolicy
from runstone_integrations._lightning_gradients import GradientDetail, Gradients
from runstone_integrations._lightning_model import LayerShapes, layer_table, store_weights
from runstone_integrations._lightning_ranks import Ranks
from runstone_integrations._lightning_rows import Rows
from runstone_integrations._lightning_run import RunChoice
from runstone_integrations._lightning_timing import StepClock
from runstone_integrations._shared import clean_params, warn

if TYPE_CHECKING:
    from runstone import Run, Workspace

P = ParamSpec("P")

# What a copy of the callback takes along. The rest belongs to one process; Lightning adds methods of the module to it.
_COPIED = (
    "_log_every_n_steps",
    "_repeats",
    "_checkpoint_policy",
    "_has_model",
    "_gradient_detail",
    "_has_graph",
    "_count_tokens",
    "_is_autolog",
    "_monitor",
    "_last_step",
)
_STATE, _AUTOLOG_STATE = "runstone.TrackingCallback", "runstone.TrackingCallback.autolog"
# What a launcher raises in the process that started the workers; the workers had the run.
_WORKER_FAILURES = frozenset({"ProcessExitedException", "ProcessRaisedException"})


def _hook(
    method: Callable[Concatenate[TrackingCallback, P], None],
) -> Callable[Concatenate[TrackingCallback, P], None]:
    """Keep what goes wrong in tracking out of the training: the one place that decides between warning and raising."""

    @functools.wraps(method)
    def guarded(self: TrackingCallback, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            self._report(method.__name__, error)

    return guarded


class TrackingCallback:
    """Records a Lightning training as a run: metrics, learning rates, hyperparameters, checkpoints and how it ended.

    Give it to any `Trainer`, with any logger or none: `Trainer(callbacks=[TrackingCallback(project="digits")])`.
    Metrics are those of `self.log(...)`, at the steps at which Lightning's own loggers write them, and beside them
    `epoch` and `trainer/global_step`. The run starts with the first stage that really runs (`fit`, `validate`, `test`,
    `predict`) and ends with it; a later stage goes on with it, except that a fit of another `Trainer` opens a new one.

    Args:
        project: Project of the run.
        name: Name of the run; two words and a number where there is none.
        params: Params beside the hyperparameters of module and datamodule; these win over those.
        tags: Tags of the run.
        group: What the run belongs to inside the project.
        notes: Free text.
        log_every_n_steps: How often step metrics are kept; default: as the `Trainer` says. 0: only those of epochs.
        repeat: Keep the last value of a step metric again where it was not logged since, as Lightning's loggers do.
            `False`: keep each value once.
        checkpoints: Which files of `ModelCheckpoint` become artifacts: `"best+last"`, once, when the fit ends;
            `"all"`, these and each file that it keeps, when it was saved (what it deletes is let go); `"none"`.
        log_model: Store the weights that the fit ends with, without the state of optimizers, as the artifact `model`.
        log_gradients: Norms of the gradients, at steps that are kept: `"norms"` or `True` (all together, and each param
            group), `"layers"` (each layer too), `"histograms"` (also a histogram of each layer; waits for a GPU).
        log_graph: Record a table of all layers as the text `model/layers`, with the shapes of the first batch.
        count_tokens: Number of tokens in a batch; default: positions of `batch["input_ids"]`, where there are any.
        resume: What a fit from a checkpoint does: `"continue"` goes on with the run that wrote it, `"fork"` opens one
            below it.
        monitor: Of several `ModelCheckpoint`, those that monitor this metric; default: all.
        run: A run that you opened and that you end; then `project` to `notes`, `workspace` and `on_error` are its own.
            Default: the run that is open when training starts (`with runstone.start_run(): …`), if there is one.
        workspace: Where the run is kept.
        on_error: `"warn"` (default) or `"raise"`: what happens when something cannot be recorded.

    Raises:
        InvalidValue: an option is none of the above.
    """

    def __init__(
        self,
        *,
        project: str | None = None,
        name: str | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        group: str | None = None,
        notes: str | None = None,
        log_every_n_steps: int | None = None,
        repeat: bool = True,
        checkpoints: CheckpointPolicy = "best+last",
        log_model: bool = False,
        log_gradients: bool | GradientDetail = False,
        log_graph: bool = False,
        count_tokens: Callable[[Any], int] | None = None,
        resume: Literal["continue", "fork"] = "continue",
        monitor: str | None = None,
        run: Run | None = None,
        workspace: str | Path | Workspace | None = None,
        on_error: Literal["warn", "raise"] | None = None,
    ) -> None:
        _check("checkpoints", checkpoints, ("best+last", "all", "none"))
        _check("log_gradients", log_gradients, (False, True, "norms", "layers", "histograms"))
        _check("resume", resume, ("continue", "fork"))
        if log_model not in (False, True):
            raise runstone.InvalidValue(f"log_model is {log_model!r}; use checkpoints='all' to keep each checkpoint")
        if log_every_n_steps is not None and log_every_n_steps < 0:
            raise runstone.InvalidValue(f"log_every_n_steps is {log_every_n_steps}; it must be 0 or more")
        self._choice = RunChoice(
            identity={"project": project, "name": name, "group": group, "notes": notes},
            params=params or {},
            tags=tags or {},
            workspace=workspace,
            on_error=on_error,
            given=run,
            resume=resume,
        )
        self._log_every_n_steps = log_every_n_steps
        self._repeats = repeat
        self._checkpoint_policy: CheckpointPolicy = checkpoints
        self._has_model = log_model
        self._gradient_detail: GradientDetail | None = "norms" if log_gradients is True else log_gradients or None
        self._has_graph = log_graph
        self._count_tokens = count_tokens
        self._is_autolog = False
        self._monitor = monitor
        self._last_step = -1
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._rows: Rows | None = None  # while a stage is being recorded by this process
        self._clock: StepClock | None = None
        self._files: CheckpointArtifacts | None = None
        self._gradients: Gradients | None = None
        self._shapes: LayerShapes | None = None
        self._ranks = Ranks()
        self._trainer: weakref.ref[Any] | None = None
        self._take_sigterm_back: Callable[[], None] = _nothing
        self._end_later: Callable[[], None] | None = None  # while others still save files of an exception
        self._is_rewind_due = False
        self._reported: set[tuple[str, str]] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy in this or another process needs to write to the same run."""
        return {"_choice": copy.copy(self._choice), **{name: self.__dict__[name] for name in _COPIED}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Become a copy; what is bound to a process starts afresh."""
        self.__dict__.update(state)
        self._start_afresh()

    @classmethod
    def for_autolog(cls) -> Self:
        """Return the callback of a `Trainer` that was given none; beside one that was given it does nothing."""
        made = cls()
        made._is_autolog = True
        return made

    @property
    def run(self) -> Run | None:
        """The run recorded now or last; `None` before the first stage, and on ranks other than 0."""
        return self._choice.run if self._choice.run is not None else self._choice.given

    # ------------------------------------------------------------------ state in checkpoints

    @property
    def state_key(self) -> str:
        """Name of its state in checkpoints; two stateful callbacks with one name are an error in Lightning."""
        return _AUTOLOG_STATE if self._is_autolog else _STATE

    @property
    def _legacy_state_key(self) -> type[TrackingCallback]:
        return type(self)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: text only, so that it loads anywhere, without this package too."""
        return self._choice.for_checkpoint()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember which run wrote a checkpoint; whether it is continued is decided when a stage starts."""
        self._choice.loaded = dict(state_dict)

    @_hook
    def on_load_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        """Take the state that the other kind of this callback, explicit or by autolog, has left."""
        states = checkpoint.get("callbacks") or {}
        self._choice.loaded = dict(states.get(_STATE) or states.get(_AUTOLOG_STATE) or {})

    @_hook
    def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        """Note that a file is about to be written; its path is known at the next hook."""
        if self._files is not None:
            self._files.note_save(trainer, self._last_step)

    # ------------------------------------------------------------------ stages

    @_hook
    def setup(self, trainer: Any, module: Any, stage: str) -> None:
        """Forget what another trainer did. The run is not opened here: tuning calls this hook too."""
        self._choice.loaded = {}
        self._finish_ending()
        self._leave_sigterm_to_lightning()
        is_other_trainer = self._trainer is not None and self._trainer() is not trainer
        if is_other_trainer and trainer.state.fn.value == "fit" and not trainer.fast_dev_run:
            self._choice.forget()
            self._last_step = -1 if self._choice.given is None else self._last_step

    @_hook
    def on_fit_start(self, trainer: Any, module: Any) -> None:
        """Open the run and record hyperparameters."""
        if not trainer.strategy.restore_checkpoint_after_setup:  # else which run to go on with is not known yet
            self._open(trainer, "fit")
            self._record_facts(trainer, module)

    @_hook
    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Record optimizers as they are now: tuning and resuming have happened."""
        if trainer.strategy.restore_checkpoint_after_setup:
            self._open(trainer, "fit")
            self._record_facts(trainer, module)
        if self._rows is None:
            return
        facts: dict[str, Any] = {"trainer": {"num_training_batches": trainer.num_training_batches}}
        if not self._is_rewind_due:  # a resumed optimizer is in the middle of its schedule
            facts |= facts_of_optimizers(trainer)
        self._rows.run.log_params({"lightning": clean_params(facts)})
        if self._gradient_detail is not None and is_sharded(trainer):
            warn(f"log_gradients is left out: {type(trainer.strategy).__name__} leaves no rank whole gradients")
        elif self._gradient_detail is not None:
            self._gradients = Gradients(self._gradient_detail, self._log_histogram)
        if self._has_graph:
            self._shapes = LayerShapes()
            self._shapes.watch(module)

    @_hook
    def on_fit_end(self, trainer: Any, module: Any) -> None:
        """Keep the checkpoints and weights that training left, and what its callbacks came to."""
        if self._rows is None:
            return
        run = self._rows.run
        if self._files is not None:
            self._files.store(trainer)
        _record_end(run, why_training_ended(trainer, run.stop_reason, self._last_step))
        run.log_params({"lightning": clean_params(facts_of_callbacks(trainer))})
        if self._has_model and is_sharded(trainer):
            warn(f"log_model is left out: {type(trainer.strategy).__name__} leaves no rank whole weights")
        elif self._has_model:
            weights = trainer.strategy.lightning_module_state_dict()
            store_weights(run, module, weights, step=self._last_step, epoch=trainer.current_epoch)

    @_hook
    def teardown(self, trainer: Any, module: Any, stage: str) -> None:
        """End the run; a later stage of the same trainer continues it."""
        self._take_sigterm_back()
        rows = self._rows
        self._leave_stage()
        self._ranks.stop_reports()
        if rows is not None and rows.run is not self._choice.given:
            rows.run.finish()

    @_hook
    def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
        """Record why training ended, with what it had logged until then."""
        self._take_sigterm_back()
        if self._ranks.is_other:
            self._end_other_rank(exception)
            return
        if self._rows is None:
            if not self._is_failure_before_start(trainer, exception):
                return
            self._open(trainer, str(trainer.state.fn.value), is_collective=False)
        rows, files = self._rows, self._files
        self._leave_stage()
        if rows is None:
            return
        run = rows.run
        status = _status_of(exception)
        self._end_later = functools.partial(self._end, run, exception, status)
        try:
            rows.flush_all(trainer)
            _record_end(run, ending_facts(type(exception).__name__, trainer, self._last_step))
            if files is not None and type(exception).__name__ != "SIGTERMException":  # there the time is short
                files.store(trainer)
                files.note_save(trainer, self._last_step)
                if files.expects_file_of_exception(trainer):
                    run.fail(exception)  # in case that no hook comes any more
                    AfterException(trainer, functools.partial(self._keep_file_of_exception, trainer, files))
                    return
        except BaseException:
            self._finish_ending()
            raise
        self._finish_ending()

    def _keep_file_of_exception(self, trainer: Any, files: CheckpointArtifacts) -> None:
        try:
            files.store(trainer)
            files.store_file_of_exception(trainer)
        except Exception as error:
            self._report("on_exception", error)
        finally:
            self._finish_ending()

    def _finish_ending(self) -> None:
        end, self._end_later = self._end_later, None
        if end is not None:
            end()

    def _end(self, run: Run, exception: BaseException, status: Literal["stopped", "pruned"] | None) -> None:
        if status is not None:  # Lightning turns these into an exit: a `with run:` outside could not tell
            run.finish(status)
            return
        self._choice.has_failed = True
        run.fail(exception)
        if run is not self._choice.given:
            run.finish("failed")

    def _leave_stage(self) -> None:
        self._rows = self._files = self._clock = self._gradients = self._shapes = None
        self._ranks.part()

    def _leave_sigterm_to_lightning(self) -> None:
        """Take the handler of open runs away for a stage.

        Lightning would call it beside its own, and it ends the process at once; left alone, Lightning ends the batch,
        calls `on_exception` and lets callbacks save. Lightning takes over the signal between `setup` and training.
        """
        take_back, hand_back = self._take_sigterm_back, runstone.hand_over_sigterm()

        def both() -> None:
            self._take_sigterm_back = _nothing
            hand_back()
            take_back()

        self._take_sigterm_back = both

    def _is_failure_before_start(self, trainer: Any, exception: BaseException) -> bool:
        return (
            isinstance(exception, Exception)
            and trainer.is_global_zero
            and not trainer.fast_dev_run
            and type(exception).__name__ not in _WORKER_FAILURES
            and trainer.state.fn is not None
        )

    def _open(self, trainer: Any, stage: str, *, is_collective: bool = True) -> None:
        """Start, or join, the run of this stage on rank 0, and tell the other ranks which one it is."""
        if trainer.fast_dev_run or (self._is_autolog and _has_explicit(trainer)):
            return
        is_resuming = stage == "fit" and bool(self._choice.loaded or trainer.ckpt_path)
        run: Run | None = None
        before = self._choice.run_id
        is_reporting = False
        try:
            if trainer.is_global_zero:
                run = self._choice.join(stage, is_resuming=is_resuming)
        finally:  # the other ranks wait for this, whatever happened here
            is_reporting = self._ranks.meet(trainer, run, is_collective=is_collective)
        if stage == "fit" and (is_reporting or run is not None):  # the first run of a process has just taken SIGTERM
            self._leave_sigterm_to_lightning()
        if multiprocessing.parent_process() is not None:
            self._end_with_worker()
        if run is None:
            return
        if before not in (None, run.id):
            self._last_step = -1
        self._trainer = weakref.ref(trainer)
        device = getattr(trainer.strategy, "root_device", None)
        self._clock = StepClock(world_size=trainer.world_size, count_tokens=self._count_tokens, device=device)
        self._rows = Rows(run, self._log_every_n_steps, self._clock, trainer.strategy, repeats=self._repeats)
        if stage == "fit" and self._checkpoint_policy != "none":
            self._files = CheckpointArtifacts(run, self._checkpoint_policy, self._monitor)
        self._is_rewind_due = is_resuming and run.is_resumed

    def _end_other_rank(self, exception: BaseException) -> None:
        try:
            if _status_of(exception) is None:
                self._ranks.report_failure(exception)
        finally:
            self._ranks.stop_reports()

    def _end_with_worker(self) -> None:
        """See to it that a worker which Lightning has spawned or forked tells how it ended.

        Lightning calls `on_exception` in the process that started the workers, which knows of no run.
        """
        callback = weakref.ref(self)

        def end() -> None:
            tracking = callback()
            if tracking is not None:
                tracking._end_in_worker(_first_cause(sys.exception()))

        multiprocessing.util.Finalize(None, end, exitpriority=100)

    @_hook
    def _end_in_worker(self, error: BaseException | None) -> None:
        rows = self._rows
        error = error or KeyboardInterrupt()  # torch's workers leave without a word then
        if self._ranks.is_other:
            self._end_other_rank(error)
        if rows is not None:
            self._leave_stage()
            self._end(rows.run, error, _status_of(error))

    def _report(self, hook: str, error: Exception) -> None:
        is_strict = "raise" in (self._choice.on_error, self.run.on_error if self.run else None)
        if is_strict and hook != "on_exception":  # there it would hide the error of the user
            raise error
        kind = (hook, type(error).__name__)
        if kind not in self._reported:
            self._reported.add(kind)
            warn(f"training goes on, but {hook} could not be recorded: {type(error).__name__}: {error}")

    # ------------------------------------------------------------------ hyperparameters

    def _record_facts(self, trainer: Any, module: Any) -> None:
        if self._rows is None:
            return
        found, given = facts_at_start(trainer, module), self._choice.params
        self._rows.run.log_params(clean_params({name: found[name] for name in found if name not in given}))

    # ------------------------------------------------------------------ training

    @_hook
    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        """Record the epoch before, and checkpoints saved at its end."""
        if self._rows is not None and self._clock is not None:
            self._catch_up(trainer, self._rows)
            self._clock.begin_epoch()

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        """Record the batch before; note the learning rates that this one trains with."""
        now, rows, files = time.perf_counter(), self._rows, self._files
        if rows is None:
            return
        try:  # as `_hook` does, which takes a while: this comes with each batch
            rows.begin_batch(trainer, batch, now)
            if files is not None and files.is_due:
                files.scan(trainer)
            if rows.is_new:
                self._begin_steps(trainer, rows)
        except Exception as error:
            self._report("on_train_batch_start", error)

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        """Measure the gradients of a step that is kept."""
        if self._gradients is not None:
            self._measure_gradients(trainer, module, optimizer)

    @_hook
    def _measure_gradients(self, trainer: Any, module: Any, optimizer: Any) -> None:
        if self._gradients is None or self._rows is None:
            return
        if self._rows.is_due(trainer, trainer.fit_loop.epoch_loop._batches_that_stepped):
            self._rows.beside |= self._gradients.measure(trainer, module, optimizer)

    def _log_histogram(self, name: str, values: Any) -> None:
        if self._rows is not None and self._trainer is not None:
            trainer: Any = self._trainer()
            self._rows.run.log_histogram(name, values, step=trainer.fit_loop.epoch_loop._batches_that_stepped)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Note a finished step, and stop if the run was asked to."""
        rows, ranks = self._rows, self._ranks
        if rows is not None:
            try:  # as in on_train_batch_start
                rows.end_batch(trainer, module)
                self._last_step = rows.last_step
                if self._shapes is not None:
                    shapes, self._shapes = self._shapes.take(), None
                    rows.run.log_text("model/layers", layer_table(module, shapes), step=max(rows.last_step, 0))
                if rows.run.should_stop and not ranks.have_met:
                    trainer.should_stop = True
            except Exception as error:
                self._report("on_train_batch_end", error)
        if ranks.have_met:
            loop = trainer.fit_loop.epoch_loop
            every = self._log_every_n_steps if self._log_every_n_steps is not None else trainer.log_every_n_steps
            if every and (loop._batches_that_stepped + 1) % every == 0 and not loop._should_accumulate():
                self._agree_on_stop(trainer)

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        """Record the last batch; what the epoch logged is complete at the next hook."""
        self._note_epoch(trainer)
        if self._ranks.have_met:
            self._agree_on_stop(trainer)

    @_hook
    def _note_epoch(self, trainer: Any) -> None:
        rows = self._rows
        if rows is None:
            return
        self._catch_up(trainer, rows)
        if self._is_rewind_due:
            self._begin_steps(trainer, rows)
        rows.note_epoch(trainer)
        if rows.run.should_stop and not self._ranks.have_met:
            trainer.should_stop = True

    @_hook
    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Record the last epoch, and the last step of metrics that never came due."""
        if self._rows is not None:
            self._catch_up(trainer, self._rows)
            self._rows.flush_all(trainer)

    def _catch_up(self, trainer: Any, rows: Rows) -> None:
        """Record what the hook before could not see: rows that were complete after it, and files written after it."""
        rows.flush(trainer)
        if self._files is not None and self._files.is_due:
            self._files.scan(trainer)

    def _begin_steps(self, trainer: Any, rows: Rows) -> None:
        """Say from which step on a resumed fit logs again."""
        step = trainer.fit_loop.epoch_loop._batches_that_stepped
        if self._is_rewind_due:
            self._is_rewind_due = False
            rows.run.rewind(step)
        elif rows.is_new and step <= self._last_step:
            warn(f"steps start again at {step} in run {rows.run.name}, which has steps up to {self._last_step}")
        rows.is_new = False

    @_hook
    def _agree_on_stop(self, trainer: Any) -> None:
        """Let all ranks stop at the same batch: rank 0 alone knows that the run was asked to."""
        is_asked = self._rows is not None and self._rows.run.should_stop
        if trainer.strategy.reduce_boolean_decision(is_asked, all=False):
            trainer.should_stop = True

    # ------------------------------------------------------------------ validation, test, prediction

    @_hook
    def on_validation_start(self, trainer: Any, module: Any) -> None:
        """Record the training batch before; `Trainer.validate` opens the run here."""
        self._start_evaluation(trainer, module, "validate")

    @_hook
    def on_test_start(self, trainer: Any, module: Any) -> None:
        """Open the run: `Trainer.test` begins."""
        self._start_evaluation(trainer, module, "test")

    @_hook
    def on_predict_start(self, trainer: Any, module: Any) -> None:
        """Open the run: `Trainer.predict` begins."""
        self._start_evaluation(trainer, module, "predict")

    def _start_evaluation(self, trainer: Any, module: Any, stage: str) -> None:
        if trainer.state.fn.value == stage:
            is_first = self._choice.run_id is None
            self._open(trainer, stage)
            if is_first:  # what a test is done with must not replace what the training was done with
                self._record_facts(trainer, module)
        elif self._rows is not None and not trainer.sanity_checking:
            self._catch_up(trainer, self._rows)
            if self._is_rewind_due:
                self._begin_steps(trainer, self._rows)

    @_hook
    def _flush_evaluation(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        if self._rows is not None and not trainer.sanity_checking:
            self._rows.flush_evaluation_batch(_prefix(trainer))

    @_hook
    def _note_evaluation_batch(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self._rows is not None and not trainer.sanity_checking:
            self._rows.note_evaluation_batch(trainer._evaluation_loop, dataloader_idx)

    @_hook
    def _note_loaders(self, trainer: Any, module: Any) -> None:
        if self._rows is not None and not trainer.sanity_checking:
            self._rows.flush_evaluation_batch(_prefix(trainer))
            self._rows.note_evaluation(trainer._evaluation_loop)

    on_validation_batch_start = on_test_batch_start = _flush_evaluation
    on_validation_epoch_end = on_test_epoch_end = _note_loaders
    on_validation_batch_end = on_test_batch_end = _note_evaluation_batch

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        """Record what the validation logged, at the step of the last finished training step; stop if asked to."""
        if trainer.sanity_checking:
            return
        self._note_evaluation(trainer)
        if self._clock is not None:
            self._clock.skip()
        if trainer.state.fn.value == "fit":
            if self._ranks.have_met:
                self._agree_on_stop(trainer)
            elif self._rows is not None and self._rows.run.should_stop:
                trainer.should_stop = True

    def on_test_end(self, trainer: Any, module: Any) -> None:
        """Record what the test logged."""
        self._note_evaluation(trainer)

    @_hook
    def _note_evaluation(self, trainer: Any) -> None:
        if self._rows is not None:
            self._rows.write_evaluation(trainer, _prefix(trainer))

    # ------------------------------------------------------------------ the rest of Lightning's protocol

    def _ignore(self, *args: Any, **kwargs: Any) -> None:
        """Take a hook that tells nothing worth recording."""

    on_sanity_check_start = on_sanity_check_end = _ignore
    on_validation_epoch_start = on_test_epoch_start = on_predict_epoch_start = _ignore
    on_predict_batch_start = on_predict_batch_end = on_predict_epoch_end = on_predict_end = _ignore
    on_before_backward = on_after_backward = on_before_zero_grad = _ignore

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Take hooks of later Lightning versions; an attribute error in one would end the training."""
            if name.startswith("on_"):
                return self._ignore
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def _prefix(trainer: Any) -> str:
    """Return what keeps `Trainer.validate` off the curves of the validations inside a fit."""
    return "validate/" if trainer.state.fn.value == "validate" else ""


def _status_of(exception: BaseException) -> Literal["stopped", "pruned"] | None:
    """Return how a run ends whose training was ended on purpose; `None`: it failed."""
    names = {kind.__name__ for kind in type(exception).__mro__}
    if "TrialPruned" in names:  # Optuna's, known by name: it need not be installed
        return "pruned"
    if isinstance(exception, SystemExit):  # SIGTERMException is one, with no code
        return "stopped" if exception.code in (None, 0) else None
    return "stopped" if isinstance(exception, KeyboardInterrupt) or "SIGTERMException" in names else None


def _record_end(run: Run, facts: Mapping[str, Any]) -> None:
    run.log_params({"lightning": {"ended": clean_params(facts)}})
    run.set_tags({"lightning.ended_by": facts["by"]})


def _has_explicit(trainer: Any) -> bool:
    return any(isinstance(callback, TrackingCallback) and not callback._is_autolog for callback in trainer.callbacks)


def _check(option: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        words = ", ".join(repr(word) for word in allowed)
        raise runstone.InvalidValue(f"{option} is {value!r}; it must be one of {words}")


def _first_cause(error: BaseException | None) -> BaseException | None:
    """Return what a worker failed of; it leaves by `sys.exit` while it handles that."""
    while isinstance(error, SystemExit) and error.code not in (None, 0) and error.__context__ is not None:
        error = error.__context__
    return error


def _nothing() -> None:
    """Stand where there is nothing to undo."""
