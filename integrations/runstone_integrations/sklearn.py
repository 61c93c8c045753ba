"""Records fits, searches and cross-validations of scikit-learn in a run. Nothing is patched or wrapped."""

from __future__ import annotations

import contextlib
import copyreg
import pickle
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import sklearn
from sklearn import metrics, model_selection
from sklearn.utils import estimator_html_repr

import runstone
from runstone_integrations import _sklearn_estimators as estimators
from runstone_integrations import _sklearn_searches as searches
from runstone_integrations._shared import type_name
from runstone_integrations._sklearn_callback import ScoringCallback, TrackingCallback, as_stand_in
from runstone_integrations._sklearn_data import describe_data
from runstone_integrations._sklearn_evaluation import evaluation_tables, permutation_importances
from runstone_integrations._sklearn_place import Place
from runstone_integrations._sklearn_scorer import EVALUATIONS, TrackedScorer, as_plain_scorer
from runstone_integrations._sklearn_scores import Scoring, first_scorer, kind_of, score

__all__ = ["TrackedRun", "TrackedScorer", "TrackingCallback", "track"]

TOP_IMPORTANCES = 20
DEFAULT_REPEATS = 5


def track(
    *,
    project: str | None = None,
    name: str | None = None,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    group: str | None = None,
    notes: str | None = None,
    run_id: str | None = None,
    run: runstone.Run | None = None,
    workspace: str | Path | runstone.Workspace | None = None,
    on_error: Literal["warn", "raise"] | None = None,
) -> TrackedRun:
    """Start a run that knows scikit-learn.

    ```python
    with track(project="digits") as run:
        search = run.fit(GridSearchCV(SVC(), grid), X, y, eval_set={"test": (X_test, y_test)})
    ```

    Args:
        project, name, params, tags, group, notes, run_id, workspace, on_error: As in `runstone.start_run`.
        run: A run that you opened and that you end, in place of a new one.

    Returns:
        The open run; it ends with the `with` block, or by `finish()`.

    Raises:
        What `runstone.start_run` raises.
    """
    if run is not None:
        return TrackedRun(run, is_owner=False, on_error=on_error)
    run = runstone.start_run(
        project=project,
        name=name,
        params=params,
        tags=tags,
        group=group,
        notes=notes,
        run_id=run_id,
        workspace=workspace,
        on_error=on_error,
    )
    return TrackedRun(run, is_owner=True, on_error=on_error)


class TrackedRun:
    """A run with more verbs: `fit`, `partial_fit`, `cross_validate`, `scorer` and `callback`. Made by `track`.

    Everything recorded for one `fit` without a name stands at the top: params `estimator`, `data`, metrics
    `<eval set>/<score>`. With `name="gbm"` it stands below that name: `gbm/test/accuracy`. The scores of the n-th fit
    of a name stand at step n, counted from 0; another class of estimator, fitted without a name, is named after itself.

    Attributes:
        run: The run itself, for all that is not here.
    """

    def __init__(self, run: runstone.Run, *, is_owner: bool, on_error: Literal["warn", "raise"] | None = None) -> None:
        self.run = run
        self._is_owner = is_owner
        self._on_error = on_error
        self._classes: dict[str, type] = {}
        self._fits: dict[str, int] = {}
        self._folds: dict[str, int] = {}
        self._scorer_folder: str | None = None
        self._kept_bytes = 0
        self._warned: set[str] = set()
        self._callbacks: list[TrackingCallback] = []

    # --- what a run can do -----------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """Id of the run."""
        return self.run.id

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.run.name

    @property
    def should_stop(self) -> bool:
        """Whether somebody asked the run to stop; for loops over `partial_fit`."""
        return self.run.should_stop

    def log(self, metrics: Mapping[str, Any], *, step: int | None = None) -> None:
        """See `runstone.Run.log`."""
        self.run.log(metrics, step=step)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """See `runstone.Run.log_params`."""
        self.run.log_params(params)

    def set_tags(self, tags: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """See `runstone.Run.set_tags`."""
        self.run.set_tags(tags, **more)

    def log_artifact(
        self, path: str | Path, *, name: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> runstone.Artifact | None:
        """See `runstone.Run.log_artifact`."""
        return self.run.log_artifact(path, name=name, metadata=metadata)

    def read(self) -> runstone.RunInfo:
        """See `runstone.Run.read`."""
        return self.run.read()

    def finish(self, status: runstone.Status | str | None = None) -> None:
        """End the run; see `runstone.Run.finish`."""
        self._keep_evaluations()
        if self._scorer_folder is not None:
            shutil.rmtree(self._scorer_folder, ignore_errors=True)
            self._scorer_folder = None
        if self._is_owner:
            self.run.finish(status)

    def __enter__(self) -> Self:
        """Return the run."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run as the block ended; an exception goes on its way."""
        if self._is_owner and error is not None:
            self._keep_evaluations()
            self.run.__exit__(kind, error, trace)
        self.finish()

    def __getattr__(self, name: str) -> Any:
        """Hand everything else to the run."""
        if name == "run" or name.startswith("_"):  # not there yet, while a copy is being made
            raise AttributeError(name)
        return getattr(self.run, name)

    # --- the verbs -------------------------------------------------------------------------------------------------

    def fit(
        self,
        estimator: Any,
        X: Any,
        y: Any = None,
        *,
        eval_set: Mapping[str, tuple[Any, ...]] | None = None,
        name: str | None = None,
        scoring: Scoring = None,
        score_training: bool = False,
        curves: bool = True,
        permutation_importance: bool | int = False,
        child_runs: bool = False,
        log_model: bool = True,
        fit_params: Mapping[str, Any] | None = None,
        **more_fit_params: Any,
    ) -> Any:
        """Fit an estimator and record what it is, how long it took, what it says of itself and how good it is.

        The result is the same as that of `estimator.fit(X, y)`: no copy is made, no seed drawn, no warning lost.

        Args:
            estimator: Anything with `fit`: estimators, pipelines, searches, and others that follow the protocol.
            X, y: Passed on as they are.
            eval_set: Held-out data by name, `{"test": (X_test, y_test)}`, or with sample weights as a third part.
            name: What to record it under; see the class.
            scoring: Scorers in place of the usual ones: a name, names, a callable, or callables by name.
            score_training: Whether to score the training data too (one more prediction over all of it).
            curves: Whether to record, of each data set that is scored, tables of how the estimator errs: confusion
                matrix, ROC, precision and recall, calibration, residuals. Not with `scoring`, which asks for no more.
            permutation_importance: Whether to shuffle each feature of each `eval_set`, 5 times or so many times, and
                record what that costs. That is a prediction of all of it each time.
            child_runs: Whether each candidate of a search becomes a run below this one, at most 1,000.
            log_model: Whether to keep the fitted estimator as the artifact `model.pkl`.
            fit_params, more_fit_params: Passed to `estimator.fit`; use the first for names that are taken here.

        Returns:
            What `estimator.fit` returns: the fitted estimator.

        Raises:
            What `estimator.fit` raises; `InvalidValue` where an argument is not as above.
        """
        eval_sets, n_repeats = _check_eval_set(eval_set), _check_repeats(permutation_importance)
        place = self._next_place(name, estimator)
        with self._guarded():
            self._log_before(place, estimator, X, y)
        fitted, shown = self._call(place, estimator, "fit", X, y, {**(fit_params or {}), **more_fit_params})
        with self._guarded():
            self._log_fitted(place, fitted, X)
        has_labels = kind_of(fitted) == "clusterer" and hasattr(fitted, "labels_")  # told without predicting
        if score_training or has_labels:
            self._score(place, "train", fitted, (X, y), scoring=scoring, curves=curves, is_training_data=True)
        for set_name, data in eval_sets.items():
            self._score(place, set_name, fitted, data, scoring=scoring, curves=curves)
            if n_repeats:
                with self._guarded():
                    self._permute(place, set_name, fitted, data, n_repeats=n_repeats, scoring=scoring)
        if searches.is_search(fitted):
            with self._guarded():
                searches.record_search(place, fitted, shown=shown, child_runs=child_runs)
        if place.step == 0 and hasattr(fitted, "__sklearn_tags__"):  # scikit-learn draws only what derives from its own
            place.add_file(
                "estimator.html", lambda path: path.write_text(estimator_html_repr(fitted), encoding="utf-8")
            )
        if log_model:
            _add_model(place, fitted)
        self._store(place)
        return fitted

    def partial_fit(
        self,
        estimator: Any,
        X: Any,
        y: Any = None,
        *,
        eval_set: Mapping[str, tuple[Any, ...]] | None = None,
        name: str | None = None,
        scoring: Scoring = None,
        score_training: bool = False,
        log_model: bool = False,
        fit_params: Mapping[str, Any] | None = None,
        **more_fit_params: Any,
    ) -> Any:
        """Call `partial_fit` and record one point of each series: the n-th call of a name stands at step n.

        Params are recorded with the first call, the model where asked for, say with the last one.

        Args:
            estimator: Anything with `partial_fit`.
            X, y, eval_set, name, scoring, score_training, log_model: As for `fit`.
            fit_params, more_fit_params: Passed to `estimator.partial_fit`: `classes` …

        Returns:
            What `estimator.partial_fit` returns.

        Raises:
            What `estimator.partial_fit` raises; `InvalidValue` where an argument is not as above.
        """
        eval_sets = _check_eval_set(eval_set)
        place = self._next_place(name, estimator)
        if place.step == 0:
            with self._guarded():
                self._log_before(place, estimator, X, y)
        arguments = {**(fit_params or {}), **more_fit_params}
        fitted, _shown = self._call(place, estimator, "partial_fit", X, y, arguments)
        with self._guarded():
            place.log(estimators.progress(fitted))
        if score_training:
            self._score(place, "train", fitted, (X, y), scoring=scoring, curves=False, is_training_data=True)
        for set_name, data in eval_sets.items():
            self._score(place, set_name, fitted, data, scoring=scoring, curves=False)
        if log_model:
            _add_model(place, fitted)
            self._store(place)
        return fitted

    def cross_validate(
        self, estimator: Any, X: Any, y: Any = None, *, name: str | None = None, **arguments: Any
    ) -> dict[str, Any]:
        """Call `sklearn.model_selection.cross_validate` and record each fold.

        Metrics are `cross_validate/<column>` with the fold as step, and `mean_…` and `std_…` of the scores; below
        `<name>/` where there is a name. Of a search, which makes it nested, the inner search of each fold is recorded
        too; scikit-learn keeps those until the end for that.

        Args:
            estimator, X, y: As there.
            name: What to record it under; see the class.
            arguments: As there: `cv`, `scoring`, `n_jobs`, `return_train_score` …

        Returns:
            What it returns, unchanged.
        """
        label = f"{name}/cross_validate" if name else "cross_validate"
        first = self._folds.get(label, 0)
        place = Place(self.run, label, step=first)
        with self._guarded():
            self._log_before(place, estimator, X, y)
        is_nested = searches.will_search(estimator)
        wanted = {**arguments, "return_estimator": True} if is_nested else arguments
        shown: list[warnings.WarningMessage] = []
        with _listening_to_warnings(shown):
            results: dict[str, Any] = model_selection.cross_validate(estimator, X, y, **wanted)
        inner = results["estimator"] if is_nested else ()
        if is_nested and not arguments.get("return_estimator"):
            del results["estimator"]
        with self._guarded():
            self._folds[label] = first + searches.record_folds(place, results, first=first)
            place.log_params(_told_warnings(shown))
        with self._guarded():
            searches.record_inner_searches(place, inner, first=first)
        self._store(place)
        return results

    def scorer(self, scoring: str | Callable[..., Any] = "accuracy", *, name: str | None = None) -> TrackedScorer:
        """Return a scorer that records each evaluation live: pass it as `scoring=` to any search, with any `n_jobs`.

        Args:
            scoring: A name that scikit-learn knows, or `scorer(estimator, X, y)`.
            name: Name of the metric, `scorer/<name>`; default: that of the scorer.

        Raises:
            ValueError: scikit-learn knows no scorer of this name.
        """
        if self._scorer_folder is None:
            self._scorer_folder = tempfile.mkdtemp(prefix="runstone-scorer-")
        told = scoring if isinstance(scoring, str) else getattr(scoring, "__name__", type(scoring).__name__)
        return TrackedScorer(
            self.run, metrics.get_scorer(scoring), name=name or told.strip("_"), folder=self._scorer_folder
        )

    def callback(
        self,
        *,
        name: str | None = None,
        eval_set: Mapping[str, tuple[Any, ...]] | None = None,
        scoring: Scoring = None,
        score_training: bool = False,
        propagate: bool = True,
    ) -> TrackingCallback:
        """Return a callback for estimators that take callbacks, as some do since scikit-learn 1.9.

        ```python
        model = LogisticRegression().set_callbacks(run.callback(eval_set={"val": (X_val, y_val)}))
        run.fit(model, X, y)
        ```

        Args:
            name: What to record it under, before `live/…`; see the class.
            eval_set: Held-out data by name, scored after each iteration of the estimator that has the callback.
            scoring: Scorers in place of the usual ones.
            score_training: Whether to score the training data after each iteration.
            propagate: `False` for an estimator inside a pipeline or search; see `TrackingCallback`.

        Raises:
            InvalidValue: `eval_set` is not as above.
        """
        eval_sets = _check_eval_set(eval_set)
        callback = (
            ScoringCallback(
                self.run,
                label=name or "",
                propagate=propagate,
                eval_set=eval_sets,
                scoring=scoring,
                score_training=score_training,
            )
            if eval_sets or score_training
            else TrackingCallback(self.run, label=name or "", propagate=propagate)
        )
        self._callbacks.append(callback)
        return callback

    # --- what is recorded ------------------------------------------------------------------------------------------

    def _next_place(self, name: str | None, estimator: Any) -> Place:
        label = self._label(name, estimator)
        number = self._fits.get(label, 0)
        self._fits[label] = number + 1
        return Place(self.run, label, step=number)

    def _label(self, name: str | None, estimator: Any) -> str:
        if name is not None:
            return name
        if self._classes.setdefault("", type(estimator)) is type(estimator):
            return ""
        return type(estimator).__name__

    def _call(
        self, place: Place, estimator: Any, method: str, X: Any, y: Any, arguments: Mapping[str, Any]
    ) -> tuple[Any, list[warnings.WarningMessage]]:
        """Fit, and record how long it took and which warnings were shown; or the exception."""
        shown: list[warnings.WarningMessage] = []
        fit = getattr(estimator, method)
        began_s = time.perf_counter()
        try:
            with contextlib.ExitStack() as around:
                for callback in self._callbacks:
                    around.enter_context(callback.in_run_fit())
                around.enter_context(_listening_to_warnings(shown))
                fitted = fit(X, **arguments) if y is None else fit(X, y, **arguments)
        except Exception as error:
            with self._guarded():
                told = {"type": type(error).__name__, "message": str(error)[:2_000]}
                place.log_params({"fit_error": told, **_told_warnings(shown)})
            raise
        fit_s = time.perf_counter() - began_s
        with self._guarded():
            place.log({f"{method}_s": fit_s})
            place.log_params(_told_warnings(shown))
        return estimator if fitted is None else fitted, shown

    def _log_before(self, place: Place, estimator: Any, X: Any, y: Any) -> None:
        place.log_params(
            {
                "estimator": estimators.describe_estimator(estimator),
                "changed_params": estimators.changed_params(estimator),
                "data": describe_data(X, y, has_classes=kind_of(estimator) == "classifier"),
                "sklearn_version": sklearn.__version__,
            }
        )

    def _log_fitted(self, place: Place, fitted: Any, X: Any) -> None:
        learner = estimators.innermost(fitted)
        values = estimators.fitted_values(learner)
        if values:
            place.log_params({"fitted": values})
        place.log(estimators.progress(fitted))
        for name, curve in estimators.curves(learner).items():
            place.log_curve(name, curve)
        found = estimators.importances(fitted, X)
        if found is not None:
            kind, by_feature = found
            place.log({f"{kind}/{feature}": by_feature[feature] for feature in list(by_feature)[:TOP_IMPORTANCES]})
            place.add_table(kind, {"feature": list(by_feature), kind: list(by_feature.values())})

    def _score(
        self,
        place: Place,
        set_name: str,
        fitted: Any,
        data: tuple[Any, ...],
        *,
        scoring: Scoring,
        curves: bool,
        is_training_data: bool = False,
    ) -> None:
        with self._guarded():
            began_s = time.perf_counter()
            scores = score(fitted, *data, scoring=scoring, is_training_data=is_training_data)
            scores.values["score_s"] = time.perf_counter() - began_s
            place.log({f"{set_name}/{name}": value for name, value in scores.values.items()})
            if scores.missing:
                place.log_params({"missing_scores": {set_name: scores.missing}})
            if curves and scores.predictions:
                classes = getattr(fitted, "classes_", None)
                tables = evaluation_tables(kind_of(fitted), classes, data[1], scores.predictions, *data[2:])
                for name, table in tables.items():
                    place.add_table(f"{set_name}/{name}", table)

    def _permute(
        self, place: Place, set_name: str, fitted: Any, data: tuple[Any, ...], *, n_repeats: int, scoring: Scoring
    ) -> None:
        table = permutation_importances(fitted, *data, n_repeats=n_repeats, scoring=first_scorer(scoring))
        top = list(zip(table["feature"], table["mean"], strict=True))[:TOP_IMPORTANCES]
        place.log({f"{set_name}/permutation_importance/{feature}": mean for feature, mean in top})
        place.add_table(f"{set_name}/permutation_importance", table)

    def _store(self, place: Place) -> None:
        for error in place.store():
            with self._guarded():
                raise error
        self._keep_evaluations()

    def _keep_evaluations(self) -> None:
        """Keep what tracked scorers wrote in any process since the last time."""
        if self._scorer_folder is None or self.run.is_finished:
            return
        path = Path(self._scorer_folder, EVALUATIONS)
        with self._guarded():
            size = path.stat().st_size if path.exists() else 0
            if size > self._kept_bytes:
                self.run.log_artifact(path)
                self._kept_bytes = size

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Keep an error of the tracker away from the user's work: the one place that decides."""
        try:
            yield
        except Exception as error:
            if "raise" in (self._on_error, self.run.on_error):
                raise
            kind = type(error).__name__
            if kind not in self._warned:
                self._warned.add(kind)
                with contextlib.suppress(runstone.TrackingWarning):  # a filter that raises stops no fit
                    message = f"the fit goes on, but not everything is recorded: {kind}: {error}"
                    warnings.warn(message, runstone.TrackingWarning, stacklevel=4)


def _check_eval_set(eval_set: Mapping[str, tuple[Any, ...]] | None) -> dict[str, tuple[Any, ...]]:
    if eval_set is None:
        return {}
    if not isinstance(eval_set, Mapping):
        raise runstone.InvalidValue(
            f"eval_set must be data by name, such as {{'test': (X_test, y_test)}}, got {type(eval_set).__name__}; "
            "an eval_set for the estimator itself goes into fit_params={'eval_set': …}"
        )
    checked = {}
    for name, data in eval_set.items():
        parts = tuple(data) if isinstance(data, list | tuple) else (data, None)
        if len(parts) not in (2, 3):
            raise runstone.InvalidValue(
                f"eval_set {name!r} has {len(parts)} parts; it must be (X, y) or (X, y, sample_weight)"
            )
        checked[str(name)] = parts
    return checked


def _check_repeats(permutation_importance: bool | int) -> int:
    if isinstance(permutation_importance, bool):
        return DEFAULT_REPEATS if permutation_importance else 0
    if not isinstance(permutation_importance, int) or permutation_importance < 0:
        raise runstone.InvalidValue(
            f"permutation_importance must be True, False or how often to shuffle, got {permutation_importance!r:.80}"
        )
    return permutation_importance


def _add_model(place: Place, fitted: Any) -> None:
    about = {
        "class": type_name(fitted),
        "python": ".".join(map(str, sys.version_info[:3])),
        "sklearn": sklearn.__version__,
    }
    place.add_file("model.pkl", lambda path: _pickle(fitted, path), metadata=about)


def _pickle(fitted: Any, path: Path) -> None:
    with path.open("wb") as file:
        pickler = pickle.Pickler(file, protocol=5)
        # The saved model must load where Runstone is not installed.
        own = dict.fromkeys((TrackingCallback, ScoringCallback), as_stand_in)
        pickler.dispatch_table = {**copyreg.dispatch_table, TrackedScorer: as_plain_scorer, **own}
        pickler.dump(fitted)


@contextlib.contextmanager
def _listening_to_warnings(shown: list[warnings.WarningMessage]) -> Iterator[None]:
    """Collect warnings while they are shown as ever.

    `warnings.showwarning` is there to be replaced. `catch_warnings` would also forget which warnings were shown before.
    """
    show = warnings.showwarning

    def listen(message: Any, category: Any, filename: Any, lineno: Any, file: Any = None, line: Any = None) -> None:
        shown.append(warnings.WarningMessage(message, category, filename, lineno))
        show(message, category, filename, lineno, file, line)

    warnings.showwarning = listen
    try:
        yield
    finally:
        if warnings.showwarning is listen:  # else the fit has put a function of its own there
            warnings.showwarning = show


def _told_warnings(shown: list[warnings.WarningMessage]) -> dict[str, Any]:
    """Return the warnings as params, each text once with how often it came."""
    told: dict[tuple[str, str], int] = {}
    for warning in shown:
        key = (warning.category.__name__, str(warning.message)[:500])
        told[key] = told.get(key, 0) + 1
    if not told:
        return {}
    listed = [{"category": kind, "message": text, "count": count} for (kind, text), count in told.items()]
    return {"warnings": listed[:20]}
