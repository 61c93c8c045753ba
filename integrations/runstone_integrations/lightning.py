"""Records what a Lightning `Trainer` does, through the hooks of a callback.

One class serves `lightning.pytorch` and `pytorch_lightning`: both call hooks by name, so it inherits from neither and
importing this module imports no framework.
"""

from __future__ import annotations

import contextlib
import functools
import signal
import sys
import warnings
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec

import runstone
from runstone_integrations._lightning_rows import Rows, number
from runstone_integrations._shared import clean_params, open_own_run, parameter_count, run_of_user, type_name

if TYPE_CHECKING:
    from runstone import Run, Workspace

Checkpoints = Literal["best+last", "all", "none"]
P = ParamSpec("P")

# What a copy of the callback takes along. The rest belongs to one process; Lightning adds methods of the module to it.
_COPIED = (
    "_identity",
    "_params",
    "_tags",
    "_log_every_n_steps",
    "_checkpoint_policy",
    "_monitor",
    "_given_run",
    "_is_adopted",
    "_workspace",
    "_on_error",
    "_run_id",
    "_run_project",
    "_last_step",
    "_loaded",
)
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
        checkpoints: Which files of `ModelCheckpoint` become artifacts: `"best+last"`, once, when the fit ends;
            `"all"`, these and each file when it was saved; `"none"`.
        monitor: Of several `ModelCheckpoint`, those that monitor this metric; default: all.
        run: A run that you opened and that you end; then `project` to `notes`, `workspace` and `on_error` are its own.
            Default: the run that is open when training starts (`with runstone.start_run(): …`), if there is one.
        workspace: Where the run is kept.
        on_error: `"warn"` (default) or `"raise"`: what happens when something cannot be recorded.

    Raises:
        InvalidValue: `checkpoints` or `log_every_n_steps` is none of the above.
    """

    state_key = "runstone.TrackingCallback"

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
        checkpoints: Checkpoints = "best+last",
        monitor: str | None = None,
        run: Run | None = None,
        workspace: str | Path | Workspace | None = None,
        on_error: Literal["warn", "raise"] | None = None,
    ) -> None:
        if checkpoints not in ("best+last", "all", "none"):
            raise runstone.InvalidValue(f"checkpoints is {checkpoints!r}; it must be 'best+last', 'all' or 'none'")
        if log_every_n_steps is not None and log_every_n_steps < 0:
            raise runstone.InvalidValue(f"log_every_n_steps is {log_every_n_steps}; it must be 0 or more")
        self._identity: dict[str, Any] = {"project": project, "name": name, "group": group, "notes": notes}
        self._params = dict(params or {})
        self._tags = dict(tags or {})
        self._log_every_n_steps = log_every_n_steps
        self._checkpoint_policy: Checkpoints = checkpoints
        self._monitor = monitor
        self._given_run = run
        self._is_adopted = False
        self._workspace = workspace
        self._on_error = on_error
        self._run_id: str | None = None
        self._run_project: str | None = None
        self._last_step = -1
        self._loaded: dict[str, Any] = {}
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._run: Run | None = None
        self._rows: Rows | None = None  # while a stage is being recorded by this process
        self._files: _CheckpointFiles | None = None
        self._peer: tuple[str, str] | None = None  # run id and workspace, where rank 0 records
        self._reports: runstone.RankReports | None = None  # of a rank other than 0
        self._trainer: weakref.ref[Any] | None = None
        self._has_failed = False
        self._sigterm_handler: Any = None
        self._is_shared = False  # whether all ranks know of the run and agree on when to stop
        self._is_rewind_due = False
        self._reported: set[tuple[str, str]] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy in this or another process needs to write to the same run."""
        return {name: self.__dict__[name] for name in _COPIED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Become a copy; what is bound to a process starts afresh."""
        self.__dict__.update(state)
        self._start_afresh()

    @property
    def run(self) -> Run | None:
        """The run recorded now or last; `None` before the first stage, and on ranks other than 0."""
        return self._run if self._run is not None else self._given_run

    # ------------------------------------------------------------------ state in checkpoints

    @property
    def _legacy_state_key(self) -> type[TrackingCallback]:
        return type(self)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: text only, so that it loads anywhere, without this package too."""
        return {} if self._run_id is None else {"run_id": self._run_id, "project": self._run_project or ""}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember which run wrote a checkpoint; whether it is continued is decided when a stage starts."""
        self._loaded = dict(state_dict)

    @_hook
    def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        """Note that a file is about to be written; its path is known at the next hook."""
        if self._files is not None:
            self._files.note_save(trainer, self._last_step)

    # ------------------------------------------------------------------ stages

    @_hook
    def setup(self, trainer: Any, module: Any, stage: str) -> None:
        """Forget what another trainer did. The run is not opened here: tuning calls this hook too."""
        self._loaded = {}
        self._leave_sigterm_to_lightning()
        is_other_trainer = self._trainer is not None and self._trainer() is not trainer
        if is_other_trainer and trainer.state.fn.value == "fit" and not trainer.fast_dev_run:
            self._run_id = self._run_project = None
            self._last_step = -1 if self._given_run is None else self._last_step

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
        if self._run is None or self._rows is None:
            return
        facts: dict[str, Any] = {"trainer": {"num_training_batches": trainer.num_training_batches}}
        if not self._is_rewind_due:  # a resumed optimizer is in the middle of its schedule
            facts["optimizers"] = [_optimizer_facts(optimizer) for optimizer in trainer.optimizers]
            facts["schedulers"] = [
                {"class": type_name(config.scheduler), "interval": config.interval, "frequency": config.frequency}
                for config in trainer.lr_scheduler_configs
            ]
        self._run.log_params({"lightning": clean_params(facts)})

    @_hook
    def on_fit_end(self, trainer: Any, module: Any) -> None:
        """Keep the checkpoints that training left."""
        if self._files is not None:
            self._files.store(trainer)

    @_hook
    def teardown(self, trainer: Any, module: Any, stage: str) -> None:
        """End the run; a later stage of the same trainer continues it."""
        self._take_sigterm_back()
        run, rows = self._run, self._rows
        self._rows = self._files = self._peer = None
        self._is_shared = False
        if self._reports is not None:
            self._reports.stop()
        if run is not None and rows is not None and run is not self._given_run:
            run.finish()

    @_hook
    def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
        """Record why training ended, with what it had logged until then."""
        self._take_sigterm_back()
        if self._reports is not None:
            self._reports.stop()
        if self._peer is not None:
            self._report_failure_of_other_rank(exception)
            return
        if self._rows is None:
            if not self._is_failure_before_start(trainer, exception):
                return
            self._open(trainer, str(trainer.state.fn.value), is_collective=False)
        run, rows, files = self._run, self._rows, self._files
        self._rows = self._files = None
        self._is_shared = False
        if run is None or rows is None:
            return
        status = _status_of(exception)
        try:
            rows.flush_all(trainer)
            if files is not None and type(exception).__name__ != "SIGTERMException":  # there the time is short
                files.store(trainer)
        finally:
            if status is not None:  # Lightning turns these into an exit: a `with run:` outside could not tell
                run.finish(status)
            else:
                self._has_failed = True
                run.fail(exception)
                if run is not self._given_run:
                    run.finish("failed")

    def _leave_sigterm_to_lightning(self) -> None:
        """Take the handler of open runs away for a stage.

        Lightning would call it beside its own, and it ends the process at once; left alone, Lightning ends the batch,
        calls `on_exception` and lets callbacks save. Lightning takes over the signal between `setup` and training.
        """
        handler = signal.getsignal(signal.SIGTERM)
        if str(getattr(handler, "__module__", "")).startswith("runstone."):
            with contextlib.suppress(ValueError):  # only the main thread may
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                self._sigterm_handler = handler

    def _take_sigterm_back(self) -> None:
        handler, self._sigterm_handler = self._sigterm_handler, None
        if handler is not None and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, handler)

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
        if trainer.fast_dev_run:
            return
        is_resuming = stage == "fit" and bool(self._loaded or trainer.ckpt_path)
        where: tuple[str, str] | None = None
        invitation: Any = None
        run: Run | None = None
        self._is_shared = False
        try:
            if trainer.is_global_zero:
                run = self._join_run(trainer, stage, is_resuming=is_resuming)
                with contextlib.suppress(runstone.WorkspaceNotFound):  # a run that records nothing has none
                    where = run.id, str(run.workspace.path)
                    invitation = runstone.RankReports.invitation_to(run) if trainer.world_size > 1 else None
        finally:  # the other ranks wait for this, whatever happened here
            if is_collective and trainer.world_size > 1:
                where, invitation = trainer.strategy.broadcast((where, invitation))
                self._is_shared = where is not None
                self._peer = None if trainer.is_global_zero else where
        if invitation is not None and not trainer.is_global_zero:
            self._report_rank(trainer, stage, invitation)
        if run is None:
            return
        self._run, self._run_id, self._run_project, self._has_failed = run, run.id, run.project, False
        if stage == "fit":  # the first run of a process has just installed it
            self._leave_sigterm_to_lightning()
        self._trainer = weakref.ref(trainer)
        self._rows = Rows(run, self._log_every_n_steps)
        if stage == "fit" and self._checkpoint_policy != "none":
            self._files = _CheckpointFiles(run, self._checkpoint_policy, self._monitor)
        self._is_rewind_due = is_resuming and run.is_resumed

    def _report_rank(self, trainer: Any, stage: str, invitation: Any) -> None:
        """Let a rank other than 0 report its process, and what its host does, into the run of rank 0."""
        user_run = run_of_user()
        if self._peer is not None and user_run is not None and user_run.id == self._peer[0]:
            return  # the script has started it in this rank too: there it reports by itself
        if self._reports is None or not self._reports.is_for(invitation):
            self._reports = runstone.RankReports(
                invitation,
                rank=trainer.global_rank,
                world_size=trainer.world_size,
                local_rank=trainer.local_rank,
                local_size=trainer.num_devices,
                node_rank=trainer.node_rank,
            )
        self._reports.start()
        if stage == "fit":  # see _open
            self._leave_sigterm_to_lightning()

    def _join_run(self, trainer: Any, stage: str, *, is_resuming: bool) -> Run:
        if self._is_adopted and self._given_run is not None and self._given_run.is_finished:
            self._given_run = None  # the block around it has ended: from here on the run is ours to end
        if self._given_run is None and self._run_id is None:
            self._given_run = run_of_user()
            self._is_adopted = self._given_run is not None
        if self._given_run is not None:
            if self._is_adopted and self._run is not self._given_run:
                self._given_run.log_params(clean_params(self._params))
                self._given_run.set_tags(self._tags)
            return self._given_run
        run_id, project, parent = self._run_id, self._run_project, None
        wrote = self._loaded.get("run_id")
        # In a trial the first run of the process is the trial's, wherever its weights come from.
        if wrote and not (run_id is None and runstone.trial_params()):
            if stage == "fit":
                run_id, project = wrote, self._loaded.get("project") or None
            elif run_id is None:
                parent = wrote
        is_new_attempt = is_resuming or (stage == "fit" and self._has_failed)
        if self._run is not None and self._run.id == run_id and not is_new_attempt:
            self._run.reopen()
            return self._run
        common: dict[str, Any] = {
            "params": clean_params(self._params),
            "tags": self._tags,
            "workspace": self._workspace,
            "on_error": self._on_error,
        }
        if run_id is not None:
            return open_own_run(run_id=run_id, project=project or self._identity["project"], **common)
        return open_own_run(**self._identity, parent=parent, **common)

    def _report_failure_of_other_rank(self, exception: BaseException) -> None:
        peer, self._peer = self._peer, None
        if peer is None or _status_of(exception) is not None:
            return
        run_id, workspace = peer
        if runstone.open_workspace(workspace).run(run_id).status.is_ended:
            return  # rank 0 has told why; what other ranks see after that is only its echo
        run = runstone.start_run(
            run_id=run_id, workspace=workspace, resume=True, environment=False, system_metrics=False
        )
        run.fail(exception)
        run.finish("failed")

    def _report(self, hook: str, error: Exception) -> None:
        is_strict = "raise" in (self._on_error, self.run.on_error if self.run else None)
        if is_strict and hook != "on_exception":  # there it would hide the error of the user
            raise error
        kind = (hook, type(error).__name__)
        if kind not in self._reported:
            self._reported.add(kind)
            self._warn(f"training goes on, but {hook} could not be recorded: {type(error).__name__}: {error}")

    def _warn(self, message: str) -> None:
        try:
            warnings.warn(message, runstone.TrackingWarning, stacklevel=4)
        except runstone.TrackingWarning:  # where warnings are errors, they still stop no training
            print(f"runstone: {message}", file=sys.stderr)

    # ------------------------------------------------------------------ hyperparameters

    def _record_facts(self, trainer: Any, module: Any) -> None:
        if self._run is None or self._rows is None:
            return
        params: dict[str, Any] = {}
        for owner in (module, trainer.datamodule):
            if owner is not None and getattr(owner, "_log_hyperparams", False):
                params.update(_hyperparameters(owner))
        params = {name: value for name, value in params.items() if name not in self._params}
        params["lightning"] = {
            "version": getattr(sys.modules.get(type(trainer).__module__.partition(".")[0]), "__version__", None),
            "module": {"class": type_name(module), **_parameter_facts(module)},
            "datamodule": None if trainer.datamodule is None else {"class": type_name(trainer.datamodule)},
            "trainer": _trainer_facts(trainer),
        }
        self._run.log_params(clean_params(params))

    # ------------------------------------------------------------------ training

    @_hook
    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        """Record the epoch before, and checkpoints saved at its end."""
        if self._rows is not None:
            self._catch_up(trainer, self._rows)

    @_hook
    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        """Record the batch before; note the learning rates that this one trains with."""
        rows = self._rows
        if rows is None:
            return
        self._catch_up(trainer, rows)
        if self._is_rewind_due or rows.is_new:
            self._begin_steps(trainer, rows)
        rows.note_learning_rates(trainer)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Note a finished step, and stop if the run was asked to."""
        self._note_batch(trainer, module)
        if self._is_shared:
            loop = trainer.fit_loop.epoch_loop
            every = self._log_every_n_steps if self._log_every_n_steps is not None else trainer.log_every_n_steps
            if every and (loop._batches_that_stepped + 1) % every == 0 and not loop._should_accumulate():
                self._agree_on_stop(trainer)

    @_hook
    def _note_batch(self, trainer: Any, module: Any) -> None:
        rows = self._rows
        if rows is None:
            return
        rows.note_batch(trainer, module)
        self._last_step = rows.last_step
        if rows.run.should_stop and not self._is_shared:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        """Record the last batch; what the epoch logged is complete at the next hook."""
        self._note_epoch(trainer)
        if self._is_shared:
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
        if rows.run.should_stop and not self._is_shared:
            trainer.should_stop = True

    @_hook
    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Record the last epoch, and the last step of metrics that never came due."""
        if self._rows is not None:
            self._catch_up(trainer, self._rows)
            self._rows.flush_all(trainer)

    def _catch_up(self, trainer: Any, rows: Rows) -> None:
        """Record what the hook before could not see: rows that were complete after it, and files written after it."""
        rows.flush_batch(trainer)
        rows.flush_epoch(trainer)
        if self._files is not None and self._files.is_due:
            self._files.scan(trainer)

    def _begin_steps(self, trainer: Any, rows: Rows) -> None:
        """Say from which step on a resumed fit logs again."""
        step = trainer.fit_loop.epoch_loop._batches_that_stepped
        if self._is_rewind_due:
            self._is_rewind_due = False
            rows.run.rewind(step)
        elif rows.is_new and step <= self._last_step:
            self._warn(f"steps start again at {step} in run {rows.run.name}, which has steps up to {self._last_step}")
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
            is_first = self._run_id is None
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
        if trainer.state.fn.value == "fit":
            if self._is_shared:
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
    on_before_backward = on_after_backward = on_before_optimizer_step = on_before_zero_grad = _ignore
    on_load_checkpoint = _ignore

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Take hooks of later Lightning versions; an attribute error in one would end the training."""
            if name.startswith("on_"):
                return self._ignore
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def _prefix(trainer: Any) -> str:
    """Return what keeps `Trainer.validate` off the curves of the validations inside a fit."""
    return "validate/" if trainer.state.fn.value == "validate" else ""


class _CheckpointFiles:
    """The files that `ModelCheckpoint` writes, as artifacts of the run. Only reads them.

    No hook tells that a file was written: `note_save` hears that one is about to be, `scan` finds it at the next hook.
    """

    def __init__(self, run: Run, policy: Checkpoints, monitor: str | None) -> None:
        self.is_due = False
        self._run = run
        self._policy = policy
        self._monitor = monitor
        self._mark: dict[str, Any] = {}
        self._known: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {}  # by path: stat, and when it was saved

    def note_save(self, trainer: Any, step: int) -> None:
        """Remember at which step the file that comes was saved."""
        self.is_due = True
        self._mark = {"step": step, "epoch": trainer.current_epoch, "global_step": trainer.global_step}

    def scan(self, trainer: Any) -> None:
        """Find files that are new or rewritten; with the policy `all`, store them before they are deleted again."""
        self.is_due = False
        for callback in self._callbacks(trainer):
            for path in _paths(callback):
                stat = _stat(path)
                if stat is None or self._known.get(path, (None,))[0] == stat:
                    continue
                self._known[path] = (stat, self._mark)
                if self._policy == "all":
                    self._store(callback, path, f"checkpoints/{Path(path).name}", "saved")

    def store(self, trainer: Any) -> None:
        """Store the best and the last checkpoint of each `ModelCheckpoint`, as they stand now."""
        self.scan(trainer)
        callbacks = self._callbacks(trainer)
        if self._monitor is not None and not callbacks:
            raise runstone.InvalidValue(f"no ModelCheckpoint monitors {self._monitor!r}: no checkpoint was kept")
        for index, callback in enumerate(callbacks):
            place = "checkpoints"
            if len(callbacks) > 1:
                monitors = [each.monitor for each in callbacks]
                is_unique = callback.monitor is not None and monitors.count(callback.monitor) == 1
                place = f"checkpoints/{callback.monitor if is_unique else index}"
            best, last = callback.best_model_path, getattr(callback, "last_model_path", "")
            if callback.monitor is None:  # then Lightning calls the newest file the best
                best, last = "", last or best
            for kind, path in (("best", best), ("last", last)):
                if path and _stat(path) is not None:
                    self._store(callback, path, f"{place}/{kind}", kind)

    def _callbacks(self, trainer: Any) -> list[Any]:
        return [
            callback
            for callback in trainer.checkpoint_callbacks
            if hasattr(callback, "best_model_path") and self._monitor in (None, callback.monitor)
        ]

    def _store(self, callback: Any, path: str, name: str, kind: str) -> None:
        scores = getattr(callback, "best_k_models", {})
        score = callback.best_model_score if kind == "best" else scores.get(path)
        metadata = {
            **self._known.get(path, ((), {}))[1],
            "kind": kind,
            "monitor": callback.monitor,
            "mode": getattr(callback, "mode", None),
            "score": None if score is None else number(score),
            "file": path,
        }
        if _stat(path) is not None:  # ModelCheckpoint deletes what it no longer keeps
            self._run.log_artifact(Path(path).resolve(), name=name, metadata=metadata)


def _paths(callback: Any) -> list[str]:
    last = getattr(callback, "last_model_path", "")
    paths = [*getattr(callback, "best_k_models", {}), callback.best_model_path, last]
    return [path for path in dict.fromkeys(paths) if path]


def _stat(path: str) -> tuple[int, ...] | None:
    """Return what changes when a file or folder is written anew; `None` where there is none."""
    try:
        stat = Path(path).stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _status_of(exception: BaseException) -> Literal["stopped", "pruned"] | None:
    """Return how a run ends whose training was ended on purpose; `None`: it failed."""
    names = {kind.__name__ for kind in type(exception).__mro__}
    if "TrialPruned" in names:  # Optuna's, known by name: it need not be installed
        return "pruned"
    if isinstance(exception, SystemExit):  # SIGTERMException is one, with no code
        return "stopped" if exception.code in (None, 0) else None
    return "stopped" if isinstance(exception, KeyboardInterrupt) or "SIGTERMException" in names else None


def _hyperparameters(owner: Any) -> dict[str, Any]:
    """Return what `save_hyperparameters` kept at first. The public property would copy it, weights and all."""
    found = getattr(owner, "_hparams_initial", None)
    found = owner.hparams_initial if found is None else found
    return {name: value for name, value in dict(found).items() if name != "_class_path"}


def _parameter_facts(module: Any) -> dict[str, Any]:
    return {
        "parameters": parameter_count(module.parameters()),
        "trainable_parameters": parameter_count(each for each in module.parameters() if each.requires_grad),
    }


def _trainer_facts(trainer: Any) -> dict[str, Any]:
    facts = {name: getattr(trainer, name, None) for name in _TRAINER_FACTS}
    return {
        **facts,
        "accelerator": type_name(trainer.accelerator),
        "strategy": type_name(trainer.strategy),
    }


_TRAINER_FACTS = (
    "max_epochs",
    "min_epochs",
    "max_steps",
    "min_steps",
    "precision",
    "num_devices",
    "num_nodes",
    "world_size",
    "accumulate_grad_batches",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "log_every_n_steps",
    "val_check_interval",
    "check_val_every_n_epoch",
    "limit_train_batches",
    "limit_val_batches",
    "overfit_batches",
)


def _optimizer_facts(optimizer: Any) -> dict[str, Any]:
    optimizer = getattr(optimizer, "optimizer", optimizer)
    groups = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    return {"class": type_name(optimizer), "groups": groups}
