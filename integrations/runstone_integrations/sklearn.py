"""Records fits, searches and cross-validations of scikit-learn in a run. Nothing is patched or wrapped."""

from __future__ import annotations

import contextlib
import copyreg
import csv
import json
import math
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
from runstone_integrations._shared import type_name
from runstone_integrations._sklearn_data import describe_data
from runstone_integrations._sklearn_scorer import EVALUATIONS, TrackedScorer, as_plain_scorer
from runstone_integrations._sklearn_scores import Scores, Scoring, kind_of, score

__all__ = ["TrackedRun", "TrackedScorer", "track"]

TOP_IMPORTANCES = 20


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
    """A run with three more verbs: `fit`, `cross_validate` and `scorer`. Made by `track`.

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
            log_model: Whether to keep the fitted estimator as the artifact `model.pkl`.
            fit_params, more_fit_params: Passed to `estimator.fit`; use the first for names that are taken here.

        Returns:
            What `estimator.fit` returns: the fitted estimator.

        Raises:
            What `estimator.fit` raises; `InvalidValue` where `eval_set` is not as above.
        """
        eval_sets = _check_eval_set(eval_set)
        label = self._label(name, estimator)
        number = self._fits.get(label, 0)
        self._fits[label] = number + 1
        prefix = f"{label}/" if label else ""
        with self._guarded():
            self._log_before(label, estimator, X, y)
        shown: list[warnings.WarningMessage] = []
        began_s = time.perf_counter()
        try:
            with _listening_to_warnings(shown):
                fitted = (
                    estimator.fit(X, **(fit_params or {}), **more_fit_params)
                    if y is None
                    else estimator.fit(X, y, **(fit_params or {}), **more_fit_params)
                )
        except Exception as error:
            with self._guarded():
                told = {"type": type(error).__name__, "message": str(error)[:2_000]}
                self._log_params(label, {"fit_error": told, **_told_warnings(shown)})
            raise
        fit_s = time.perf_counter() - began_s
        fitted = estimator if fitted is None else fitted
        with self._guarded():
            self.run.log({f"{prefix}fit_s": fit_s}, step=number)
            self._log_params(label, _told_warnings(shown))
        for record in (self._log_fitted, self._log_search):
            with self._guarded():
                record(label, fitted, X)
        has_labels = kind_of(fitted) == "clusterer" and hasattr(fitted, "labels_")  # told without predicting
        if score_training or has_labels:
            with self._guarded():
                self._log_scores(label, "train", score(fitted, X, y, scoring=scoring, is_training_data=True), number)
        for set_name, data in eval_sets.items():
            with self._guarded():
                began_s = time.perf_counter()
                scores = score(fitted, *data, scoring=scoring)
                scores.values["score_s"] = time.perf_counter() - began_s
                self._log_scores(label, set_name, scores, number)
        with self._guarded():
            self._log_files(prefix, fitted, draw=number == 0, log_model=log_model)
        self._keep_evaluations()
        return fitted

    def cross_validate(
        self, estimator: Any, X: Any, y: Any = None, *, name: str | None = None, **arguments: Any
    ) -> dict[str, Any]:
        """Call `sklearn.model_selection.cross_validate` and record each fold.

        Metrics are `cross_validate/<column>` with the fold as step, and `mean_…` and `std_…` of the scores; below
        `<name>/` where there is a name.

        Args:
            estimator, X, y: As there.
            name: What to record it under; see the class.
            arguments: As there: `cv`, `scoring`, `n_jobs`, `return_train_score` …

        Returns:
            What it returns, unchanged.
        """
        label = f"{name}/cross_validate" if name else "cross_validate"
        with self._guarded():
            self._log_before(label, estimator, X, y)
        shown: list[warnings.WarningMessage] = []
        with _listening_to_warnings(shown):
            results: dict[str, Any] = model_selection.cross_validate(estimator, X, y, **arguments)
        with self._guarded():
            self._log_folds(label, results)
            self._log_params(label, _told_warnings(shown))
        self._keep_evaluations()
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

    # --- what is recorded ------------------------------------------------------------------------------------------

    def _label(self, name: str | None, estimator: Any) -> str:
        if name is not None:
            return name
        if self._classes.setdefault("", type(estimator)) is type(estimator):
            return ""
        return type(estimator).__name__

    def _log_params(self, label: str, params: Mapping[str, Any]) -> None:
        if params:
            for name in reversed(label.split("/") if label else ()):
                params = {name: params}
            self.run.log_params(params)

    def _log_before(self, label: str, estimator: Any, X: Any, y: Any) -> None:
        self._log_params(
            label,
            {
                "estimator": estimators.describe_estimator(estimator),
                "changed_params": estimators.changed_params(estimator),
                "data": describe_data(X, y, has_classes=kind_of(estimator) == "classifier"),
                "sklearn_version": sklearn.__version__,
            },
        )

    def _log_fitted(self, label: str, fitted: Any, X: Any) -> None:
        prefix = f"{label}/" if label else ""
        learner = estimators.innermost(fitted)
        values = estimators.fitted_values(learner)
        if values:
            self._log_params(label, {"fitted": values})
        single = {
            name: values[attribute]
            for name, attribute in (("oob_score", "oob_score_"), ("inertia", "inertia_"))
            if isinstance(values.get(attribute), float)
        }
        n_iter = estimators.iterations(learner)
        if n_iter is not None:
            single["n_iter"] = n_iter
        if single:
            self.run.log({f"{prefix}{name}": value for name, value in single.items()}, step=self._fits[label] - 1)
        for name, curve in estimators.curves(learner).items():
            handle = self.run.metric(f"{prefix}{name}")
            for step, value in enumerate(curve):
                handle(value, step=step)
        found = estimators.importances(fitted, X)
        if found is not None:
            kind, by_feature = found
            top = list(by_feature.items())[:TOP_IMPORTANCES]
            step = self._fits[label] - 1
            self.run.log({f"{prefix}{kind}/{feature}": value for feature, value in top}, step=step)
            with _scratch(f"{kind}.csv") as path:
                _write_csv(path, [{"feature": feature, kind: value} for feature, value in by_feature.items()])
                self.run.log_artifact(path, name=f"{prefix}{kind}.csv")

    def _log_search(self, label: str, fitted: Any, X: Any) -> None:
        """Record all candidates of a search: as a table, and as series over the candidates."""
        results = getattr(fitted, "cv_results_", None)
        if not isinstance(results, Mapping) or "params" not in results:
            return
        prefix = f"{label}/" if label else ""
        rows = estimators.search_rows(results)
        for row in rows:
            measured = {
                f"{prefix}cv/{_in_seconds(name)}": value
                for name, value in row.items()
                if isinstance(value, int | float) and name.startswith(("mean_", "std_", "rank_"))
            }
            self.run.log(measured, step=row["candidate"])
        best: dict[str, Any] = {"n_candidates": len(rows), "n_splits": getattr(fitted, "n_splits_", None)}
        if hasattr(fitted, "best_index_"):
            best["best_candidate"] = int(fitted.best_index_)
            best["best_params"] = rows[int(fitted.best_index_)]["params"]
        self._log_params(label, {"search": best})
        summary = {
            f"{prefix}cv/best_score": getattr(fitted, "best_score_", None),
            f"{prefix}refit_s": getattr(fitted, "refit_time_", None),
        }
        self.run.log({name: value for name, value in summary.items() if value is not None}, step=self._fits[label] - 1)
        with _scratch("cv_results.csv") as path:
            _write_csv(path, [_flat(row) for row in rows])
            self.run.log_artifact(path, name=f"{prefix}cv_results.csv")
        with _scratch("cv_results.json") as path:
            path.write_text(json.dumps([_without_nan(row) for row in rows], indent=1), encoding="utf-8")
            self.run.log_artifact(path, name=f"{prefix}cv_results.json")

    def _log_scores(self, label: str, set_name: str, scores: Scores, number: int) -> None:
        prefix = f"{label}/" if label else ""
        if scores.values:
            self.run.log({f"{prefix}{set_name}/{name}": value for name, value in scores.values.items()}, step=number)
        if scores.missing:
            self._log_params(label, {"missing_scores": {set_name: scores.missing}})

    def _log_folds(self, label: str, results: Mapping[str, Any]) -> None:
        columns = {
            name: [float(value) for value in values]
            for name, values in results.items()
            if getattr(values, "dtype", None) is not None and values.dtype.kind in "biuf"
        }
        first = self._folds.get(label, 0)
        n_folds = max((len(values) for values in columns.values()), default=0)
        self._folds[label] = first + n_folds
        for fold in range(n_folds):
            row = {f"{label}/{_in_seconds(name)}": values[fold] for name, values in columns.items()}
            self.run.log(row, step=first + fold)
        summary: dict[str, float] = {}
        for name, values in columns.items():
            if not name.endswith("_time"):
                mean = sum(values) / len(values)
                summary[f"{label}/mean_{name}"] = mean
                summary[f"{label}/std_{name}"] = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
        self.run.log(summary, step=self._folds[label] - 1)

    def _log_files(self, prefix: str, fitted: Any, *, draw: bool, log_model: bool) -> None:
        if draw and hasattr(fitted, "__sklearn_tags__"):  # scikit-learn draws only what derives from its own
            with self._guarded(), _scratch("estimator.html") as path:
                path.write_text(estimator_html_repr(fitted), encoding="utf-8")
                self.run.log_artifact(path, name=f"{prefix}estimator.html")
        if not log_model:
            return
        with _scratch("model.pkl") as path:
            with path.open("wb") as file:
                pickler = pickle.Pickler(file, protocol=5)
                # The saved model must load where Runstone is not installed.
                pickler.dispatch_table = {**copyreg.dispatch_table, TrackedScorer: as_plain_scorer}
                pickler.dump(fitted)
            about = {
                "class": type_name(fitted),
                "python": ".".join(map(str, sys.version_info[:3])),
                "sklearn": sklearn.__version__,
            }
            self.run.log_artifact(path, name=f"{prefix}model.pkl", metadata=about)

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


def _in_seconds(column: str) -> str:
    """Return our name of a column: scikit-learn's times are seconds and do not say so."""
    return f"{column.removesuffix('_time')}_s" if column.endswith("_time") else column


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of a search with a column for each param."""
    params = {
        f"param_{name}": value if isinstance(value, str | int | float | None) else json.dumps(value)
        for name, value in row["params"].items()
    }
    rest = {name: value for name, value in row.items() if name not in ("candidate", "params")}
    return {"candidate": row["candidate"], **params, **rest}


def _without_nan(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as JSON has it: without NaN and infinity."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


@contextlib.contextmanager
def _scratch(name: str) -> Iterator[Path]:
    """Give a path for a file that is stored with the run and then deleted."""
    with tempfile.TemporaryDirectory(prefix="runstone-") as folder:
        yield Path(folder, name)
