"""Records `keras.Model.fit`, and any loop that calls Keras's callback hooks. Keras need not be installed."""

from __future__ import annotations

import contextlib
import functools
import math
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, Literal, ParamSpec

import numpy as np

import runstone
from runstone_integrations._checkpoint_files import CheckpointFile, CheckpointFiles, Signature
from runstone_integrations._shared import clean_params, open_own_run, run_of_user
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


class TrackingCallback:
    """Callback that records a Keras training as a run.

    ```python
    model.fit(x, y, callbacks=[TrackingCallback(project="digits")])
    ```

    All metrics share one axis: the number of the train batch, counted from 0 over all epochs and fits. Metrics of an
    epoch have Keras's own names, with `learning_rate`, `epoch` and `epoch_s` beside them, and stand at its last
    batch; metrics of a batch are named `batch/<name>`, those of `model.evaluate` `evaluate/<name>`. A loop that
    reports no batches counts epochs.

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

    # Without this, a batch hook in one callback makes Keras (on JAX and TensorFlow) wait for every batch in all of
    # them. It holds: the axis is locked, and a run takes points from any thread.
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
        self._checkpoints = [CheckpointFiles(source) for source in _as_list(checkpoints)]
        self._logged_files: dict[str, Signature] = {}
        self._run = run
        self._is_owner = run is None
        self._is_adopted = False
        self._is_kept_open = False
        self._could_not_open = False
        self._warned: set[str] = set()

        self._axis = StepAxis()
        self._is_axis_placed = False
        self._fits: list[dict[str, Any]] = []
        self._is_in_fit = False
        self._is_in_epoch = False
        self._is_apart = False
        self._epoch: int | None = None
        self._epoch_began_s: float | None = None
        self._epoch_logs: dict[str, float] = {}
        self._validation_logs: dict[str, float] = {}
        self._last_batch_logged = -1
        self._last_evaluation = -1
        self._summary_hash: int | None = None

    # --- for the user ---------------------------------------------------------------------------------------

    @property
    def run(self) -> runstone.Run | None:
        """The run that is written to; `None` before the first hook, and where it could not be opened."""
        return self._run

    @property
    def should_stop(self) -> bool:
        """Whether somebody asked the run to stop; `keras.Model.fit` is stopped by the callback itself."""
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
        self._is_in_fit = False  # an earlier fit that an exception ended never said so
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
        step = self._axis.end_batch(batch)
        if self._every_n and self._is_due(step):
            self._last_batch_logged = step
            row = {f"batch/{name}": value for name, value in self._scalars(logs).items()}
            # On JAX the optimizer's own variables are stale within an epoch.
            if row and not hasattr(self.model, "jax_state_sync"):
                rate = _learning_rate(self.model)
                if rate is not None:
                    row["batch/learning_rate"] = rate
            run.log(row, step=step)
        if run.should_stop:
            self._obey(run)

    @_hook
    def on_epoch_end(self, epoch: Any, logs: Mapping[str, Any] | None = None) -> None:
        """Record the epoch."""
        run = self._fit_run()
        if run is None:
            return
        self._place_axis(run)
        if not self._is_in_epoch:
            self._epoch = self._number_of_epoch(epoch)
        step = self._axis.end_epoch()
        self._is_in_epoch = False
        row = self._scalars(logs)
        for name, value in self._validation_logs.items():
            row.setdefault(name, value)  # a hand-written loop may report them in on_test_end only
        self._validation_logs = {}
        self._epoch_logs = dict(row)
        rate = row.get("learning_rate")
        if rate is None:
            rate = _learning_rate(self.model)
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
            step = _last_step(run)
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

    # --- hooks that must exist for `fit`, `evaluate` and `predict` to run -----------------------------------

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Nothing to record."""

    def on_test_batch_begin(self, batch: Any, logs: Mapping[str, Any] | None = None) -> None:
        """Nothing to record."""

    def on_test_batch_end(self, batch: Any, logs: Mapping[str, Any] | None = None) -> None:
        """Nothing to record."""

    def on_predict_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Nothing to record."""

    def on_predict_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Nothing to record."""

    def on_predict_batch_begin(self, batch: Any, logs: Mapping[str, Any] | None = None) -> None:
        """Nothing to record."""

    def on_predict_batch_end(self, batch: Any, logs: Mapping[str, Any] | None = None) -> None:
        """Nothing to record."""

    # --- opening and ending ---------------------------------------------------------------------------------

    def _open(self) -> runstone.Run | None:
        """Return the run, opening or joining it where that is needed; `None` where that failed before."""
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
            return self._run
        run = self._open()
        if run is not None:
            self._begin_fit(run)
        return run

    def _begin_fit(self, run: runstone.Run) -> None:
        self._is_in_fit = True
        self._is_in_epoch = False
        self._epoch = None
        if not self._fits:
            with self._guarded():
                self._fits = _earlier_fits(run)
        fit: dict[str, Any] = {"first_step": None, "first_epoch": None, "last_step": None, "last_epoch": None}
        fit["epochs"] = self.params.get("epochs")
        fit["steps_per_epoch"] = self.params.get("steps")
        fit["ended_by"] = None
        self._fits.append(fit)
        with self._guarded():
            described = _describe_model(self.model)
            run.log_params({"keras": {**described, "fits": self._fits}})
        with self._guarded():
            self._log_architecture(run)
        self._obey(run)

    def _place_axis(self, run: runstone.Run) -> None:
        """Say where the fit begins; in a continued run, go on from the step that the weights have reached.

        Not in `on_train_begin`: Keras's `BackupAndRestore` may restore the weights in its own, after this one.
        """
        fit = self._fits[-1] if self._fits else {}
        if not self._is_axis_placed:
            self._is_axis_placed = True
            if run.is_resumed:
                self._axis.next_step = _next_step(run, self._fits, self.model, self._epoch)
                run.rewind(self._axis.next_step)
        if self._is_in_fit and fit.get("first_step") is None:
            fit["first_step"] = self._axis.next_step
            fit["first_epoch"] = self._epoch
            fit["first_iteration"] = _iterations(self.model)
            run.log_params({"keras": {"fits": self._fits}})

    def _why_fit_ended(self) -> str:
        if self.should_stop:
            return "request"
        return "stop_training" if getattr(self.model, "stop_training", False) else "epochs"

    def _end_fit(self, *, ended_by: str) -> None:
        """Record how the fit ended and keep its files."""
        self._is_in_fit = False
        run = self._run
        if run is None or run.is_finished:
            return
        self._fits[-1]["ended_by"] = ended_by
        with self._guarded():
            run.log_params({"keras": {"fits": self._fits}})
        with self._guarded():
            self._scan_checkpoints()
            self._log_checkpoints(run)
        if self._log_model and ended_by != "exception":
            with self._guarded():
                self._save_model(run)

    def _obey(self, run: runstone.Run) -> None:
        if run.should_stop and self.model is not None:
            with contextlib.suppress(AttributeError):  # a hand-written loop's model may take no new attributes
                self.model.stop_training = True

    # --- metrics --------------------------------------------------------------------------------------------

    def _is_due(self, step: int) -> bool:
        """Return whether an n-th batch lies in the one that ended, which `steps_per_execution` makes several."""
        width = whole_number(getattr(self.model, "steps_per_execution", 1)) or 1
        is_nth = (step + 1) // self._every_n > max(0, step + 1 - width) // self._every_n
        return is_nth and step != self._last_batch_logged  # both names of a hook may be called

    def _scalars(self, logs: Mapping[str, Any] | None) -> dict[str, float]:
        row: dict[str, float] = {}
        for name, value in (logs or {}).items():
            try:
                row[str(name)] = _scalar(value)
            except Exception as error:  # foreign tensors raise what they like; the other metrics are kept
                self._handle(TypeError(f"metric {name!r} is not one number: {type(value).__name__} ({error})"))
        return row

    def _take_validation(self, row: Mapping[str, float]) -> None:
        named = {name if name.startswith("val_") else f"val_{name}": value for name, value in row.items()}
        if self._is_in_epoch:
            self._validation_logs = named
        elif self._run is not None:
            self._run.log(named, step=self._axis.last_step)

    def _number_of_epoch(self, epoch: Any) -> int:
        number = whole_number(epoch)
        if number is not None:
            return number
        return 0 if self._epoch is None else self._epoch + 1

    # --- files ----------------------------------------------------------------------------------------------

    def _scan_checkpoints(self) -> None:
        for files in self._checkpoints:
            files.scan(epoch=self._epoch, step=self._axis.last_step, logs=self._epoch_logs)

    def _log_checkpoints(self, run: runstone.Run) -> None:
        for number, files in enumerate(self._checkpoints):
            folder = "checkpoints" if number == 0 else f"checkpoints-{number + 1}"
            for file in files.best_and_last():
                name = f"{folder}/{file.role}{''.join(_suffixes(file.path))}"
                if self._logged_files.get(name) != file.signature:
                    run.log_artifact(file.path, name=name, metadata=_checkpoint_metadata(file))
                    self._logged_files[name] = file.signature

    def _save_model(self, run: runstone.Run) -> None:
        with tempfile.TemporaryDirectory(prefix="runstone-") as folder:
            path = Path(folder, "model.keras")
            self.model.save(path)
            run.log_artifact(path, metadata={"step": self._axis.last_step, "epoch": self._epoch})

    def _log_architecture(self, run: runstone.Run) -> None:
        summary = _summary(self.model)
        if summary is None or hash(summary) == self._summary_hash:
            return
        self._summary_hash = hash(summary)
        with tempfile.TemporaryDirectory(prefix="runstone-") as folder:
            path = Path(folder, "summary.txt")
            path.write_text(summary, encoding="utf-8")
            run.log_artifact(path, name="model/summary.txt")
            with contextlib.suppress(Exception):  # a subclassed model need not have a config
                path = Path(folder, "config.json")
                path.write_text(self.model.to_json(), encoding="utf-8")
                run.log_artifact(path, name="model/config.json")

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
        kind = type(error).__name__
        if kind in self._warned:
            return
        self._warned.add(kind)
        message = f"training goes on, but not everything is recorded: {kind}: {error}"
        try:
            warnings.warn(message, runstone.TrackingWarning, stacklevel=4)
        except runstone.TrackingWarning:  # a filter turns warnings into errors, and would stop the training
            print(f"runstone: {message}", file=sys.stderr)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the model behind; a copy of an open callback writes to the same run and does not end it."""
        state = {**self.__dict__, "model": None}
        if self._run is None or not self._is_owner:
            return state
        if self._run.is_finished:  # opened again only when the copy has something to record
            return {**state, "_run": None, "_start": {"run_id": self._run.id, "workspace": self._start["workspace"]}}
        return {**state, "_is_owner": False}


def _as_list(sources: Any) -> list[Any]:
    if sources is None:
        return []
    return list(sources) if isinstance(sources, list | tuple | set | frozenset) else [sources]


def _scalar(value: Any) -> float:
    """Return a Python number for a number, a NumPy or tensor scalar, or an array of one element."""
    if value.__class__ in (float, int, bool):
        return value
    item = getattr(value, "item", None)
    number = item() if callable(item) else value
    if isinstance(number, bool | int | float):
        return number
    return float(number)


def _learning_rate(model: Any) -> float | None:
    """Return the rate now in force, that of a schedule included; `None` where the model has no such thing."""
    optimizer = getattr(model, "optimizer", None)
    rate = getattr(optimizer, "learning_rate", None)
    if rate is None:
        return None
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()  # within a fit on JAX the optimizer's variables live elsewhere
    try:
        return float(rate)
    except (TypeError, ValueError, RuntimeError):
        return None


def _iterations(model: Any) -> int | None:
    """Return how many steps the optimizer has made, over all fits and restores."""
    iterations = getattr(getattr(model, "optimizer", None), "iterations", None)
    if iterations is None:
        return None
    try:
        return int(iterations)
    except (TypeError, ValueError, RuntimeError):
        return None


def _earlier_fits(run: runstone.Run) -> list[dict[str, Any]]:
    if not run.is_resumed:
        return []
    described = run.read().params.get("keras")
    fits = described.get("fits") if isinstance(described, dict) else None
    return [dict(fit) for fit in fits if isinstance(fit, dict)] if isinstance(fits, list) else []


def _next_step(run: runstone.Run, fits: list[dict[str, Any]], model: Any, epoch: int | None) -> int:
    """Return the step at which a continued run goes on: where the weights are, or the epoch; else after the last."""
    first = next((fit["first_iteration"] for fit in fits if fit.get("first_iteration") is not None), None)
    iterations = _iterations(model)
    if iterations is not None and first is not None and iterations > first:
        return iterations - int(first)
    if epoch is None:
        return _last_step(run) + 1
    with contextlib.suppress(runstone.MetricNotFound):
        epochs = run.read().series("epoch")
        (before,) = np.nonzero(epochs.value == epoch - 1)
        if len(before):
            return int(epochs.step[before[-1]]) + 1
    return 0


def _last_step(run: runstone.Run) -> int:
    """Return the last step that the run trained, -1 where it did not."""
    metrics = run.read().metrics
    return max((metric.last_step for name, metric in metrics.items() if not name.startswith("evaluate/")), default=-1)


def _describe_model(model: Any) -> dict[str, Any]:
    """Return what is to be trained, and with what, as params. Any part may be missing."""
    if model is None:
        return {}
    described: dict[str, Any] = {"model": _describe_layers(model)}
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None:
        described["optimizer"] = _describe_optimizer(optimizer)
    for what in ("loss", "steps_per_execution"):
        value = getattr(model, what, None)
        if value is not None:
            described[what] = _plain(value)
    keras = sys.modules.get("keras")  # only what the user has imported
    if keras is not None and _is_keras(model):
        described["version"] = getattr(keras, "__version__", None)
        with contextlib.suppress(AttributeError):
            described["backend"] = keras.backend.backend()
    return described


def _is_keras(model: Any) -> bool:
    return any(kind.__module__.partition(".")[0] == "keras" for kind in type(model).__mro__)


def _describe_layers(model: Any) -> dict[str, Any]:
    described: dict[str, Any] = {"class": type(model).__name__}
    name = getattr(model, "name", None)
    if isinstance(name, str):
        described["name"] = name
    layers = getattr(model, "layers", None)
    if isinstance(layers, list | tuple):
        described["layers"] = len(layers)
    policy = getattr(getattr(model, "dtype_policy", None), "name", None)
    if policy is not None:
        described["dtype_policy"] = policy
    with contextlib.suppress(Exception):  # an unbuilt model has no weights to count yet
        if hasattr(model, "count_params"):
            described["params_total"] = int(model.count_params())
            described["params_trainable"] = sum(math.prod(weight.shape) for weight in model.trainable_weights)
        elif hasattr(model, "parameters"):  # a torch module in a hand-written loop
            sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
            described["params_total"] = sum(size for size, _ in sizes)
            described["params_trainable"] = sum(size for size, is_trained in sizes if is_trained)
    return described


def _describe_optimizer(optimizer: Any) -> dict[str, Any]:
    described: dict[str, Any] = {"class": type(optimizer).__name__}
    with contextlib.suppress(Exception):  # a hand-made optimizer need not have a config
        described.update(clean_params(optimizer.get_config()))
    described.pop("name", None)
    rate = described.get("learning_rate")
    # Keras keeps it as float32; 0.001 must not be shown as 0.0010000000474974513.
    if isinstance(rate, float) and math.isfinite(rate) and float(np.float32(rate)) == rate:
        described["learning_rate"] = float(str(np.float32(rate)))
    return described


def _plain(value: Any) -> Any:
    """Return JSON for what `compile` takes: names stay, losses and functions become theirs."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return getattr(value, "__name__", None) or type(value).__name__


def _summary(model: Any) -> str | None:
    if not hasattr(model, "summary") or not getattr(model, "built", False):
        return None
    lines: list[str] = []
    model.summary(print_fn=lambda text, *_, **__: lines.append(str(text)), expand_nested=True)
    return "\n".join(lines)


def _suffixes(path: Path) -> list[str]:
    """Return the endings that say what a file is, such as `.weights.h5`; not those of `0.97-acc.keras`."""
    return path.suffixes[-2:] if path.name.endswith(".weights.h5") else path.suffixes[-1:]


def _checkpoint_metadata(file: CheckpointFile) -> dict[str, Any]:
    return {
        "role": file.role,
        "path": str(file.path),
        "epoch": file.epoch,
        "step": file.step,
        "monitor": file.monitor,
        "score": file.score,
    }
