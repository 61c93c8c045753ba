"""Records `keras.Model.fit`, and any loop that calls Keras's callback hooks. Keras need not be installed."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, Literal, ParamSpec

import runstone
from runstone_integrations._keras_files import Files
from runstone_integrations._keras_hooks import QuietHooks
from runstone_integrations._keras_model import describe_model, is_on_jax, iterations, learning_rate
from runstone_integrations._keras_order import RowsInOrder
from runstone_integrations._keras_resume import earlier_fits, last_step, next_step
from runstone_integrations._keras_values import is_on_gpu, scalar
from runstone_integrations._pytorch_ranks import Ranks, rank_and_size
from runstone_integrations._shared import open_own_run, run_of_user, warn_once
from runstone_integrations._step_axis import StepAxis, whole_number

__all__ = ["TrackingCallback"]

P = ParamSpec("P")


def _hook(
    method: Callable[Concatenate[TrackingCallback, P], None],
) -> Callable[Concatenate[TrackingCallback, P], None]:
    """Keep an error of the tracker away from the training."""

    @functools.wraps(method)
    def guarded(self: TrackingCallback, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            self._handle(error)

    return guarded


class TrackingCallback(QuietHooks):
    """Callback that records a Keras training as a run.

    ```python
    model.fit(x, y, callbacks=[TrackingCallback(project="digits")])
    ```

    All metrics share one axis: the number of the train batch, counted from 0 over all epochs and fits. Metrics of an
    epoch have Keras's own names, with `learning_rate`, `epoch` and `epoch_s` beside them, and stand at its last
    batch; metrics of a batch are named `batch/<name>`, those of `model.evaluate` `evaluate/<name>`. A loop that
    reports no batches counts epochs.

    In a distributed job of torch or JAX the first process records. Others of torch report what their machine does into
    the same run.

    The run opens with the first hook that has something to record and ends with `on_train_end`; a later `fit` or
    `evaluate` with this callback goes on in the same run. `with TrackingCallback(...) as callback:` keeps it open
    over several calls and records an exception as its failure. A run of the user's, given as `run=`, is written to and
    never ended here.

    Loops of your own call the same hooks, as many of them as they like, and read `callback.should_stop`.

    Args:
        project, name, params, tags, group, notes, workspace, on_error: As in `runstone.start_run`.
        run_id: Id of the run to create or to continue.
        log_every_n_batches: Record the metrics of every n-th batch too; default: epochs only.
        checkpoints: Whose files to keep as artifacts when a fit ends, the best and the last: a `ModelCheckpoint`, a
            path, a glob pattern, a template with `{epoch}`, or a list of these. They are copied, for Keras overwrites
            its files in place.
        log_model: Whether to save the model as the artifact `model.keras` when a fit ends.
        run: A run that you opened and that you end; `project` to `run_id`, `workspace` and `on_error` are its own.
            Default: the run that is open when the fit starts (`with runstone.start_run(): …`), if there is one.

    Raises:
        InvalidValue: `log_every_n_batches` or `checkpoints` is none of the above. Hooks raise only with
            `on_error="raise"`.
    """

    # Without this, a batch hook in one callback makes Keras wait for every batch in all of them. It holds: the axis is
    # locked, rows are put in order, and a run takes points from any thread.
    async_safe = True

    def __init__(
        self,
        *,
        project: str | None = None,
        name: str | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        group: str | None = None,
        notes: str | None = None,
        run_id: str | None = None,
        log_every_n_batches: int | None = None,
        checkpoints: Any = None,
        log_model: bool = False,
        run: runstone.Run | None = None,
        workspace: str | Path | runstone.Workspace | None = None,
        on_error: Literal["warn", "raise"] | None = None,
    ) -> None:
        if log_every_n_batches is not None and (whole_number(log_every_n_batches) or 0) < 1:
            raise runstone.InvalidValue(
                f"log_every_n_batches is {log_every_n_batches!r}; it must be 1 or more, or None"
            )
        self.model: Any = None
        self.params: Mapping[str, Any] = {}  # what Keras says of the fit, by its protocol
        self._start: dict[str, Any] = {
            "project": project,
            "name": name,
            "params": params,
            "tags": tags,
            "group": group,
            "notes": notes,
            "run_id": run_id,
            "workspace": workspace,
        }
        self._on_error = on_error
        self._every_n = whole_number(log_every_n_batches) or 0
        self._log_model = log_model
        self._files = Files(checkpoints)
        self._run = run
        self._is_owner = run is None
        self._is_adopted = False
        self._is_kept_open = False
        self._could_not_open = False
        self._warned: set[str] = set()

        self._axis = StepAxis()
        self._rows = RowsInOrder(self._log_row)
        self._thread = 0  # in which the fit began; Keras may call the hooks of batches in others
        self._is_axis_placed = False
        self._fits: list[dict[str, Any]] = []
        self._is_in_fit = False
        self._is_in_epoch = False
        self._is_apart = False
        self._ranks: Ranks | None = None  # of the fit that is going on
        self._is_stopping = False
        self._epoch: int | None = None
        self._epoch_began_s: float | None = None
        self._epoch_logs: dict[str, Any] = {}
        self._validation_logs: dict[str, Any] = {}
        self._last_batch_logged = -1
        self._last_batch_number: int | None = None
        self._last_evaluation = -1

    # --- for the user ---------------------------------------------------------------------------------------

    @property
    def run(self) -> runstone.Run | None:
        """The run that is written to; `None` before the first hook, and where it could not be opened."""
        return self._run

    @property
    def should_stop(self) -> bool:
        """Whether somebody asked the run to stop; `keras.Model.fit` is stopped by the callback itself.

        In a distributed job it becomes true on all ranks at once, at the end of the epoch after the request.
        """
        if rank_and_size()[1] > 1:
            return self._is_stopping
        return self._run is not None and self._run.should_stop

    def __enter__(self) -> TrackingCallback:
        """Open the run and keep it open until the block ends."""
        self._is_kept_open = True
        self._could_not_open = False
        with self._guarded():
            self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run by how the block ended. The user's exception goes on."""
        self._is_kept_open = False
        if self._is_in_fit:
            with self._guarded():
                self._end_fit(ended_by="epochs" if error is None else "exception")
        if self._run is not None and self._is_owner and not self._run.is_finished:
            with self._guarded():
                self._run.__exit__(kind, error, trace)

    # --- hooks that carry something -------------------------------------------------------------------------

    def set_params(self, params: Mapping[str, Any] | None) -> None:
        """Take what the loop says of itself: `epochs`, `steps`, `verbose`."""
        self.params = params or {}

    def set_model(self, model: Any) -> None:
        """Take the model. `fit`, `evaluate` and `predict` each begin with it."""
        self.model = model
        # An evaluation with callbacks= of its own says this first, one inside a fit does not.
        self._is_apart = True

    @_hook
    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Open the run, or go on in it, and record what is to be trained and how."""
        self._could_not_open = False
        self._is_apart = False
        self._leave_fit()  # an earlier one that an exception ended never said so
        self._is_stopping = False
        self._fit_run()

    @_hook
    def on_epoch_begin(self, epoch: Any, logs: Mapping[str, Any] | None = None) -> None:
        """Note where the epoch begins."""
        run = self._fit_run()
        if run is None:
            return
        self._scan_checkpoints()  # here, because checkpoint callbacks later in the list have had their turn
        self._epoch = self._number_of_epoch(epoch)
        self._place_axis(run)
        self._axis.start_epoch()
        self._rows.start(self._axis.next_step)
        self._is_in_epoch = True
        self._is_apart = False
        self._epoch_began_s = time.perf_counter()
        self._obey(run)

    @_hook
    def on_train_batch_begin(self, batch: Any, logs: Mapping[str, Any] | None = None) -> None:
        """Count the batch, and stop where that is asked for."""
        run = self._fit_run()
        if run is None:
            return
        if not self._is_axis_placed:
            self._place_axis(run)
        self._is_apart = False
        self._axis.begin_batch(batch)
        if run.should_stop:
            self._obey(run)

    @_hook
    def on_train_batch_end(self, batch: Any, logs: Mapping[str, Any] | None = None) -> None:
        """Record the batch, where batches are recorded and it is its turn."""
        run = self._fit_run()
        if run is None:
            return
        if not self._is_axis_placed:
            self._place_axis(run)
        if self._last_batch_number is not None and (whole_number(batch) or 0) > self._last_batch_number:
            batch = self._last_batch_number
        step = self._axis.end_batch(batch)
        row = self._row_of_batch(step, logs) if self._every_n else None
        if threading.get_ident() == self._thread:
            if row:
                run.log(row, step=step)
        elif self._every_n:
            self._rows.put(step, row, width=self._width())
        if run.should_stop:
            self._obey(run)

    @_hook
    def on_epoch_end(self, epoch: Any, logs: Mapping[str, Any] | None = None) -> None:
        """Record the epoch."""
        run = self._fit_run()
        if run is None:
            self._obey_rank_0(epoch)
            return
        self._place_axis(run)
        if not self._is_in_epoch:
            self._epoch = self._number_of_epoch(epoch)
        self._rows.flush()
        step = self._axis.end_epoch()
        self._is_in_epoch = False
        row = self._scalars(logs)
        for name, value in self._validation_logs.items():
            row.setdefault(name, value)  # a hand-written loop may report them in on_test_end only
        self._validation_logs = {}
        self._epoch_logs = {name: value for name, value in row.items() if not is_on_gpu(value)}  # scores of checkpoints
        rate = row.get("learning_rate")
        if rate is None:
            rate = learning_rate(self.model)
        if rate is not None:
            row["learning_rate"] = rate
        row["epoch"] = self._epoch if self._epoch is not None else step
        if self._epoch_began_s is not None:
            row["epoch_s"] = time.perf_counter() - self._epoch_began_s
        run.log(row, step=step)
        self._fits[-1]["last_step"] = step
        self._fits[-1]["last_epoch"] = self._epoch
        self._obey(run)

    @_hook
    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Keep the checkpoints and end the run, softly: a later call goes on in it."""
        if not self._is_in_fit:
            return
        try:
            self._end_fit(ended_by=self._why_fit_ended())
        finally:
            self._close()

    @_hook
    def on_test_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Record an evaluation: that of the epoch within a fit, one of its own elsewhere."""
        row = self._scalars(logs)
        if not row:
            return
        if self._is_in_fit and not self._is_apart:
            self._take_validation(row)
            return
        run = self._open()
        if run is None:
            return
        step = self._axis.last_step
        if run.is_resumed and not self._is_axis_placed:
            step = last_step(run)
        self._last_evaluation = max(step, self._last_evaluation + 1)  # two evaluations of one model are two points
        run.log({f"evaluate/{name}": value for name, value in row.items()}, step=self._last_evaluation)
        if not self._is_in_fit:
            self._close()

    def on_batch_begin(self, batch: Any, logs: Mapping[str, Any] | None = None) -> None:
        """Old name of `on_train_batch_begin`."""
        self.on_train_batch_begin(batch, logs)

    def on_batch_end(self, batch: Any, logs: Mapping[str, Any] | None = None) -> None:
        """Old name of `on_train_batch_end`."""
        self.on_train_batch_end(batch, logs)

    # --- opening and ending ---------------------------------------------------------------------------------

    def _open(self) -> runstone.Run | None:
        """Return the run, opening or joining it where needed; `None` on ranks but 0, and where that failed before."""
        if rank_and_size()[0] > 0:
            return None
        run = self._run
        if run is not None:
            if run.is_finished and (self._is_owner or self._is_adopted):
                self._is_owner = True  # where a block around an adopted run has ended, it is ours to end
                run.reopen()
            return run
        adopted = run_of_user() if self._start.get("run_id") is None else None
        if adopted is not None:
            self._run, self._is_owner, self._is_adopted = adopted, False, True
            adopted.log_params(self._start.get("params") or {})
            adopted.set_tags(self._start.get("tags") or {})
            return adopted
        if self._could_not_open:
            return None
        self._could_not_open = True  # until it has worked
        self._run = open_own_run(**self._start, on_error=self._on_error)
        self._could_not_open = False
        return self._run

    def _close(self) -> None:
        if self._is_owner and not self._is_kept_open and self._run is not None:
            self._run.finish()

    def _fit_run(self) -> runstone.Run | None:
        """Return the run of the fit that is going on, which begins here if the loop did not say so."""
        if self._is_in_fit:
            if self._ranks is None or self._ranks.rank == 0:
                return self._run
            self._ranks.look()
            return None
        run = self._open()
        if run is not None:
            self._begin_fit(run)
        elif rank_and_size()[0] > 0:
            self._is_in_fit, self._epoch, self._ranks = True, None, Ranks()
            self._ranks.look()
        return run

    def _begin_fit(self, run: runstone.Run) -> None:
        self._is_in_fit = True
        self._thread = threading.get_ident()
        self._is_in_epoch = False
        self._epoch = None
        with self._guarded():
            self._ranks = Ranks()
            self._ranks.invite(run)
        if not self._fits:
            with self._guarded():
                self._fits = earlier_fits(run)
        self._last_batch_number = self._find_last_batch_number()
        fit: dict[str, Any] = {"first_step": None, "first_epoch": None, "last_step": None, "last_epoch": None}
        fit["epochs"] = self.params.get("epochs")
        fit["steps_per_epoch"] = self.params.get("steps")
        fit["ended_by"] = None
        self._fits.append(fit)
        with self._guarded():
            described = describe_model(self.model)
            run.log_params({"keras": {**described, "fits": self._fits}})
        with self._guarded():
            self._files.log_architecture(run, self.model)
        self._obey(run)

    def _place_axis(self, run: runstone.Run) -> None:
        """Say where the fit begins; in a continued run, go on from the step that the weights have reached.

        Not in `on_train_begin`: Keras's `BackupAndRestore` may restore the weights in its own, after this one.
        """
        fit = self._fits[-1] if self._fits else {}
        if not self._is_axis_placed:
            self._is_axis_placed = True
            if run.is_resumed:
                self._axis.next_step = next_step(run, self._fits, self.model, self._epoch)
                run.rewind(self._axis.next_step)
        if self._is_in_fit and fit.get("first_step") is None:
            fit["first_step"] = self._axis.next_step
            fit["first_epoch"] = self._epoch
            fit["first_iteration"] = iterations(self.model)
            run.log_params({"keras": {"fits": self._fits}})

    def _why_fit_ended(self) -> str:
        if self.should_stop:
            return "request"
        return "stop_training" if getattr(self.model, "stop_training", False) else "epochs"

    def _end_fit(self, *, ended_by: str) -> None:
        """Record how the fit ended and keep its files."""
        is_other_rank = self._ranks is not None and self._ranks.rank > 0
        self._leave_fit()
        run = self._run
        if run is None or run.is_finished or is_other_rank:
            return
        self._fits[-1]["ended_by"] = ended_by
        with self._guarded():
            run.log_params({"keras": {"fits": self._fits}})
        with self._guarded():
            self._scan_checkpoints()
            self._files.log_checkpoints(run)
        if self._log_model and ended_by != "exception":
            with self._guarded():
                self._files.log_model(run, self.model, step=self._axis.last_step, epoch=self._epoch)

    def _leave_fit(self) -> None:
        self._is_in_fit = False
        with self._guarded():
            self._rows.flush()
        if self._ranks is not None:
            self._ranks.end()
            self._ranks = None

    def _obey(self, run: runstone.Run) -> None:
        """Stop where the run is asked to: at once, or in a distributed job where all ranks can."""
        if not run.should_stop:
            return
        if self._ranks is not None and self._ranks.size > 1:
            # Others may have looked for this epoch already; to stop alone would leave them waiting in a collective.
            epoch = self._epoch if self._epoch is not None else -1
            self._ranks.stop_after(epoch + 1)
            if self._is_in_epoch or not self._ranks.is_last(epoch):
                return
        self._stop()

    def _obey_rank_0(self, epoch: Any) -> None:
        self._epoch = self._number_of_epoch(epoch)
        if self._ranks is not None and self._ranks.is_last(self._epoch):
            self._stop()

    def _stop(self) -> None:
        self._is_stopping = True
        if self.model is not None:
            with contextlib.suppress(AttributeError):  # a hand-written loop's model may take no new attributes
                self.model.stop_training = True

    # --- metrics --------------------------------------------------------------------------------------------

    def _row_of_batch(self, step: int, logs: Mapping[str, Any] | None) -> dict[str, Any] | None:
        if not self._is_due(step):
            return None
        self._last_batch_logged = step
        row = {f"batch/{name}": value for name, value in self._scalars(logs).items()}
        # On JAX the optimizer's own variables are stale within an epoch.
        if row and not is_on_jax(self.model):
            rate = learning_rate(self.model)
            if rate is not None:
                row["batch/learning_rate"] = rate
        return row

    def _log_row(self, step: int, row: dict[str, Any]) -> None:
        if self._run is not None:
            self._run.log(row, step=step)

    def _width(self) -> int:
        """Return how many batches Keras tells of as one."""
        return whole_number(getattr(self.model, "steps_per_execution", 1)) or 1

    def _is_due(self, step: int) -> bool:
        """Return whether an n-th batch lies in the one that ended, which `steps_per_execution` makes several."""
        is_nth = (step + 1) // self._every_n > max(0, step + 1 - self._width()) // self._every_n
        return is_nth and step != self._last_batch_logged  # both names of a hook may be called

    def _find_last_batch_number(self) -> int | None:
        """Return the number of an epoch's last batch where Keras may name a later one: that of a whole execution."""
        steps = whole_number(self.params.get("steps"))
        is_rounded = self._width() > 1
        return steps - 1 if steps is not None and is_rounded else None

    def _scalars(self, logs: Mapping[str, Any] | None) -> dict[str, Any]:
        row: dict[str, Any] = {}
        for name, value in (logs or {}).items():
            try:
                row[str(name)] = scalar(value)
            except Exception as error:  # foreign tensors raise what they like; the other metrics are kept
                self._handle(TypeError(f"metric {name!r} is not one number: {type(value).__name__} ({error})"))
        return row

    def _take_validation(self, row: Mapping[str, Any]) -> None:
        named = {name if name.startswith("val_") else f"val_{name}": value for name, value in row.items()}
        if self._is_in_epoch:
            self._validation_logs = named
        elif self._run is not None:
            self._run.log(named, step=self._axis.last_step)

    def _scan_checkpoints(self) -> None:
        self._files.scan(epoch=self._epoch, step=self._axis.last_step, logs=self._epoch_logs)

    def _number_of_epoch(self, epoch: Any) -> int:
        number = whole_number(epoch)
        if number is not None:
            return number
        return 0 if self._epoch is None else self._epoch + 1

    # --- errors and copies ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._handle(error)

    def _handle(self, error: Exception) -> None:
        """Warn once of each kind of error, or raise where the user wants that: the one place that decides."""
        if (self._on_error or (self._run.on_error if self._run else None)) == "raise":
            raise error
        warn_once(error, self._warned)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the model behind; a copy of an open callback writes to the same run and does not end it."""
        state = {**self.__dict__, "model": None, "_ranks": None}
        if self._run is None or not self._is_owner:
            return state
        if self._run.is_finished:  # opened again only when the copy has something to record
            return {**state, "_run": None, "_start": {"run_id": self._run.id, "workspace": self._start["workspace"]}}
        return {**state, "_is_owner": False}
