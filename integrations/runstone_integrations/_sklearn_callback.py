"""A callback for the estimators that take callbacks themselves. Duck-typed: scikit-learn is not imported here."""

from __future__ import annotations

import contextlib
import operator
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import runstone

_EVALUATION = "candidate-split-evaluation"


class TrackingCallback:
    """Records a fit while it goes on: `estimator.set_callbacks(run.callback())`, with scikit-learn 1.9 or later.

    Below `live/<class of the estimator>/`:

    - each iteration: `iteration_s`, by step;
    - each step of a pipeline, each refit of a search: `<task>_s`, by the number of the fit;
    - each candidate on each fold of a search: `evaluation_s`, at `candidate * folds + fold`, from whichever process;
    - without `run.fit`: `fit_s`, the params, and the exception that ended the fit.

    A hook never raises into the fit, and the fit is told to stop where somebody asked the run to; which estimators do
    so is up to scikit-learn.

    Copies are the callback itself. A pickle goes on recording while a fit is under way, which is how it comes to worker
    processes, and before the first one. After that, it holds a stand-in that does nothing: a saved model loads where
    Runstone is not installed.

    Args:
        run: The run to write to.
        label: What stands before every name.
        propagate: Whether estimators inside the one that has it get it too, where all of them take callbacks.
            `False` for an estimator that is itself inside another.
    """

    def __init__(self, run: runstone.Run, *, label: str = "", propagate: bool = True) -> None:
        self._run = run
        self._label = label
        self._is_in_worker = False
        self._is_in_run_fit = False
        self._fits = 0
        self._fits_under_way = 0
        self._steps: dict[str, int] = {}
        self._began: dict[tuple[Any, ...], float] = {}
        self._handled: BaseException | None = None
        if propagate:  # scikit-learn asks whether there is such an attribute
            self.max_propagation_depth: int | None = 0

    # --- the hooks of scikit-learn -----------------------------------------------------------------------------------

    def setup(self, estimator: Any, context: Any) -> None:
        """Begin a fit."""
        self._fits_under_way += 1
        self._handled = sys.exc_info()[1]  # a fit may be somebody's way of handling an exception
        if hasattr(self, "max_propagation_depth"):
            # scikit-learn warns of what takes no callbacks; without this one there would be no warning.
            self.max_propagation_depth = None if _all_take_callbacks(estimator) else 0
        with self._guarded():
            if not self._is_in_run_fit and not self._is_in_worker and self._fits == 0:
                from runstone_integrations._sklearn_estimators import describe_estimator  # NumPy, once a fit

                self._log_params(estimator, {"estimator": describe_estimator(estimator)})

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        """Note the time."""
        self._began[_path(context)] = time.perf_counter()

    def on_fit_task_end(self, estimator: Any, context: Any, *, X: Any) -> bool:
        """Record one task."""
        with self._guarded():
            self._record(context, X)
        return self._run.should_stop

    def teardown(self, estimator: Any, context: Any) -> None:
        """End a fit; scikit-learn calls it after errors too."""
        self._fits_under_way -= 1
        self._fits += 1
        for path in [path for path in self._began if path[0] == context.root_uuid]:
            del self._began[path]
        error = sys.exc_info()[1]
        if error is None or error is self._handled or self._is_in_run_fit or self._is_in_worker:
            return
        with self._guarded():
            self._log_params(estimator, {"fit_error": {"type": type(error).__name__, "message": str(error)[:2_000]}})

    # --- what is recorded --------------------------------------------------------------------------------------------

    def _record(self, context: Any, X: Any) -> None:
        began = self._began.pop(_path(context), None)
        if began is None or self._run.is_finished:
            return
        duration_s = time.perf_counter() - began
        parent = context.parent
        task = context.source_task_name or context.task_name
        if _EVALUATION in (context.task_name, context.source_task_name):
            round_ = "" if parent.task_name == "search" else f"{parent.task_name}-{parent.task_id}/"
            self._log(parent, {f"{round_}evaluation_s": duration_s}, context.task_id)
        elif self._is_in_worker or _is_part_of_evaluation(context):
            return  # as many series as there are candidates and folds
        elif parent is None:
            if not self._is_in_run_fit:
                self._log(context, {"fit_s": duration_s}, self._fits)
        elif _is_iteration(context):
            if X is not None:  # else scikit-learn closes an iteration that it did not begin
                series = context.estimator_name
                step = self._steps.get(series, -1) + 1  # further fits go on where the last one ended
                self._steps[series] = step
                self._log(context, {"iteration_s": duration_s, **self._scores(context)}, step)
        else:
            owner = parent if context.source_task_name else context
            self._log(owner, {f"{task}_s": duration_s}, self._fits)

    def _scores(self, context: Any) -> Mapping[str, float]:
        return {}

    def _log(self, context: Any, values: Mapping[str, float], step: int) -> None:
        prefix = f"{self._label}/" if self._label else ""
        where = f"{prefix}live/{context.estimator_name}/"
        self._run.log({f"{where}{name}": value for name, value in values.items()}, step=step)

    def _log_params(self, estimator: Any, params: Mapping[str, Any]) -> None:
        told: dict[str, Any] = {"live": {type(estimator).__name__: params}}
        for name in reversed(self._label.split("/") if self._label else ()):
            told = {name: told}
        self._run.log_params(told)

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Keep an error of the tracker away from the fit, which it would end."""
        try:
            yield
        except Exception as error:
            if self._run.on_error == "raise":
                raise
            with contextlib.suppress(runstone.TrackingWarning):  # a filter that raises stops no fit
                message = f"a task of the fit could not be recorded: {type(error).__name__}: {error}"
                warnings.warn(message, runstone.TrackingWarning, stacklevel=4)

    @contextlib.contextmanager
    def in_run_fit(self) -> Iterator[None]:
        """Leave to `run.fit` what it records anyway."""
        before, self._is_in_run_fit = self._is_in_run_fit, True
        try:
            yield
        finally:
            self._is_in_run_fit = before

    # --- copies ------------------------------------------------------------------------------------------------------

    def __copy__(self) -> TrackingCallback:
        """Return the callback itself."""
        return self

    def __deepcopy__(self, _memo: object) -> TrackingCallback:
        """Return the callback itself."""
        return self

    def __reduce__(self) -> Any:
        """Pickle for a worker process, or, after the fit, as a stand-in."""
        if self._run.is_finished or (self._fits and not self._fits_under_way):
            return as_stand_in(self)
        return _in_worker, (self._run, self._label, getattr(self, "max_propagation_depth", "none"))


class ScoringCallback(TrackingCallback):
    """Records scores after each iteration too. scikit-learn builds a copy of the estimator for that each time.

    Args:
        run, label, propagate: As there.
        eval_set: Held-out data by name, for the estimator that has the callback itself, not for those inside it.
        scoring: Scorers in place of the usual ones.
        score_training: Whether to score the training data, as the iterating estimator sees them.
    """

    def __init__(
        self,
        run: runstone.Run,
        *,
        label: str = "",
        propagate: bool = True,
        eval_set: Mapping[str, tuple[Any, ...]],
        scoring: Any = None,
        score_training: bool = False,
    ) -> None:
        super().__init__(run, label=label, propagate=propagate)
        self._eval_set = eval_set
        self._scoring = scoring
        self._score_training = score_training
        self._now: tuple[Any, Any, Any] = (None, None, None)

    def on_fit_task_end(  # type: ignore[override]  # scikit-learn passes what the signature names
        self, estimator: Any, context: Any, *, X: Any, y: Any, fitted_estimator: Any
    ) -> bool:
        """Record one task, with scores where it was an iteration."""
        self._now = (fitted_estimator, X, y)
        try:
            return super().on_fit_task_end(estimator, context, X=X)
        finally:
            self._now = (None, None, None)

    def _scores(self, context: Any) -> Mapping[str, float]:
        from runstone_integrations._sklearn_scores import score  # scikit-learn, which is running

        fitted, X, y = self._now
        if fitted is None:
            return {}
        sets = {"train": (X, y)} if self._score_training else {}
        if context.parent.parent is None:
            sets |= self._eval_set
        found: dict[str, float] = {}
        for name, data in sets.items():
            values = score(fitted, *data, scoring=self._scoring).values
            found |= {f"{name}/{metric}": value for metric, value in values.items()}
        return found


def _path(context: Any) -> tuple[Any, ...]:
    """Return what tells a task from all others: the tree it belongs to, and the way to it."""
    root, ids = context.root_uuid, []
    while context is not None:
        ids.append(context.task_id)
        context = context.parent
    return (root, *ids)


def _is_iteration(context: Any) -> bool:
    """Return whether a task is one of an estimator's own, with nothing below it: an iteration."""
    return context.max_subtasks == 0 and context.source_task_name is None and context.task_name.endswith("-iter")


def _is_part_of_evaluation(context: Any) -> bool:
    above = context.parent
    while above is not None:
        if _EVALUATION in (above.task_name, above.source_task_name):
            return True
        above = above.parent
    return False


def _all_take_callbacks(estimator: Any) -> bool:
    """Return whether a callback reaches everything inside an estimator without a warning."""
    if not hasattr(estimator, "get_params"):
        return False
    inside = [value for value in estimator.get_params(deep=True).values() if hasattr(value, "fit")]
    return all(
        hasattr(part, "set_callbacks")
        and (type(part).__name__ != "LogisticRegression" or part.solver == "lbfgs")  # warned of as well
        for part in inside
    )


def _in_worker(run: runstone.Run, label: str, depth: Any) -> TrackingCallback:
    callback = TrackingCallback(run, label=label, propagate=depth != "none")
    if depth != "none":
        callback.max_propagation_depth = depth
    callback._is_in_worker = True
    return callback


def as_stand_in(_callback: TrackingCallback) -> tuple[Any, ...]:
    """Reduce to an object of the standard library that has all hooks and does nothing, for a pickle without Runstone.

    The objects of a hook are never the same one, so `is_` says no: do not stop.
    """
    hooks = {"on_fit_task_begin": operator.is_, "on_fit_task_end": operator.is_}
    return SimpleNamespace, (), {"setup": dict, "teardown": dict, **hooks}
