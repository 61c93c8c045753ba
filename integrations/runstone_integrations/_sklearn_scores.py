"""Scores of a fitted estimator on held-out data, by the kind of the estimator. Knows no run."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn import metrics
from sklearn.base import is_classifier, is_clusterer, is_regressor

MAX_SILHOUETTE_SAMPLES = 2_000
Scoring = str | Callable[..., Any] | Sequence[str] | Mapping[str, Any] | None


class Scores:
    """What came out of scoring one data set.

    Attributes:
        values: Score by name; what could be computed.
        missing: Why a score is missing, by name.
        predictions: What the estimator was asked for on the way, by method.
    """

    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        self.missing: dict[str, str] = {}
        self.predictions: dict[str, Any] = {}

    def add(self, name: str, compute: Callable[[], Any]) -> None:
        """Add one score; an error costs only this one."""
        with self._kept(name):
            self.values[name] = float(compute())

    @contextlib.contextmanager
    def _kept(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # foreign estimators and odd data raise anything
            self.missing[name] = f"{type(error).__name__}: {error}"[:500]

    def predict(self, estimator: Any, method: str, X: Any) -> Any:
        """Return predictions, or `None` and the reason in `missing`."""
        with self._kept(method):
            self.predictions[method] = getattr(estimator, method)(X)
        return self.predictions.get(method)


def kind_of(estimator: Any) -> str | None:
    """Return `classifier`, `regressor`, `clusterer`, or `None` for anything else, estimators of others included."""
    try:
        for kind, is_kind in (("classifier", is_classifier), ("regressor", is_regressor), ("clusterer", is_clusterer)):
            if is_kind(estimator):
                return kind
    except Exception:  # what is no BaseEstimator has no tags, and asking for them raises
        return getattr(estimator, "_estimator_type", None)
    return None


def score(
    estimator: Any,
    X: Any,
    y: Any,
    sample_weight: Any = None,
    *,
    scoring: Scoring = None,
    is_training_data: bool = False,
) -> Scores:
    """Score `estimator` on `X`, `y`: one prediction of each kind, no warning of its own.

    Classifiers: accuracy, f1 (macro-averaged as `f1_macro` for several classes), log_loss, roc_auc
    (`roc_auc_ovr` for several). Regressors: r2, mae, rmse. Clusterers: silhouette, on at most 2,000 samples.
    Others: `score`, where the estimator has one. With `scoring`, those scorers and nothing else.
    """
    scores, kind = Scores(), kind_of(estimator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # these predictions are ours; the user did not ask for their warnings
        if scoring is not None:
            _custom(scores, estimator, X, y, sample_weight, scoring)
        elif kind == "classifier" and y is not None:
            _classification(scores, estimator, X, y, sample_weight)
        elif kind == "regressor" and y is not None:
            _regression(scores, estimator, X, y, sample_weight)
        elif kind == "clusterer":
            _clustering(scores, estimator, X, is_training_data=is_training_data)
        elif hasattr(estimator, "score"):
            scores.add("score", lambda: estimator.score(X) if y is None else estimator.score(X, y))
    return scores


def _custom(scores: Scores, estimator: Any, X: Any, y: Any, sample_weight: Any, scoring: Scoring) -> None:
    more = {} if sample_weight is None else {"sample_weight": sample_weight}
    for name, one in _by_name(scoring).items():
        scores.add(name, lambda one=one: metrics.get_scorer(one)(estimator, X, y, **more))  # type: ignore[misc]


def first_scorer(scoring: Scoring) -> Any:
    """Return the first of the scorers, `None` where none is given."""
    return next(iter(_by_name(scoring).values()), None)


def _by_name(scoring: Scoring) -> dict[str, Any]:
    if isinstance(scoring, Mapping):
        return dict(scoring)
    if isinstance(scoring, str) or callable(scoring):
        return {scoring if isinstance(scoring, str) else getattr(scoring, "__name__", "score"): scoring}
    return {str(name): name for name in scoring or ()}


def _classification(scores: Scores, estimator: Any, X: Any, y: Any, weight: Any) -> None:
    classes = getattr(estimator, "classes_", None)
    predicted = scores.predict(estimator, "predict", X)
    if predicted is None:
        return
    scores.add("accuracy", lambda: metrics.accuracy_score(y, predicted, sample_weight=weight))
    is_flat = np.ndim(y) == 1 and isinstance(classes, np.ndarray) and classes.ndim == 1
    is_binary = is_flat and len(classes) == 2  # type: ignore[arg-type]
    if is_binary:
        positive = classes[1]  # type: ignore[index]
        scores.add(
            "f1",
            lambda: metrics.f1_score(y, predicted, pos_label=positive, sample_weight=weight, zero_division=0),
        )
    else:
        scores.add(
            "f1_macro",
            lambda: metrics.f1_score(y, predicted, average="macro", sample_weight=weight, zero_division=0),
        )
    if not is_flat:
        return  # several outputs: their probabilities come in as many shapes as there are estimators
    if hasattr(estimator, "predict_proba"):
        probabilities = scores.predict(estimator, "predict_proba", X)
        if probabilities is None:
            return
        scores.add("log_loss", lambda: metrics.log_loss(y, probabilities, labels=classes, sample_weight=weight))
        decision = probabilities[:, 1] if is_binary else probabilities
    elif hasattr(estimator, "decision_function"):
        decision = scores.predict(estimator, "decision_function", X)
        if decision is None or not is_binary:
            return  # of several classes it is not on one scale
    else:
        return
    if is_binary:
        is_positive = np.asarray(y) == positive
        scores.add("roc_auc", lambda: metrics.roc_auc_score(is_positive, decision, sample_weight=weight))
    else:
        scores.add(
            "roc_auc_ovr",
            lambda: metrics.roc_auc_score(
                y, decision, multi_class="ovr", labels=classes, average="macro", sample_weight=weight
            ),
        )


def _regression(scores: Scores, estimator: Any, X: Any, y: Any, weight: Any) -> None:
    predicted = scores.predict(estimator, "predict", X)
    if predicted is None:
        return
    scores.add("r2", lambda: metrics.r2_score(y, predicted, sample_weight=weight))
    scores.add("mae", lambda: metrics.mean_absolute_error(y, predicted, sample_weight=weight))
    scores.add("rmse", lambda: metrics.mean_squared_error(y, predicted, sample_weight=weight) ** 0.5)


def _clustering(scores: Scores, estimator: Any, X: Any, *, is_training_data: bool) -> None:
    labels = getattr(estimator, "labels_", None) if is_training_data else None
    if labels is None:
        labels = scores.predict(estimator, "predict", X)
        if labels is None:
            return
    scores.values["n_clusters"] = len(set(np.unique(labels).tolist()) - {-1})
    size = min(MAX_SILHOUETTE_SAMPLES, len(labels))
    # A seed of its own: NumPy's global generator is the user's.
    sample_size = None if size == len(labels) else size
    scores.add(
        "silhouette",
        lambda: metrics.silhouette_score(X, labels, sample_size=sample_size, random_state=0),
    )
