"""How a fitted estimator errs on held-out data, as tables of bounded size that a page can draw. Knows no run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn import inspection, metrics

from runstone_integrations._sklearn_data import feature_names

MAX_POINTS = 1_000
"""Points of one curve, and samples of one plot of residuals."""
MAX_CURVES = 20
"""Classes that get curves of their own: the most frequent ones."""
MAX_CELLS = 2_500
"""Cells of a confusion matrix."""
CALIBRATION_BINS = 10

Table = dict[str, list[Any]]


def evaluation_tables(
    kind: str | None, classes: Any, y: Any, predictions: Mapping[str, Any], sample_weight: Any = None
) -> dict[str, Table]:
    """Return tables by name, as columns; those that the predictions allow.

    Classifiers: `confusion`, and for the positive class, or for each of several against the rest, `roc`,
    `precision_recall` and `calibration`. Regressors: `residuals`.

    Args:
        kind: `classifier`, `regressor`, or anything else for no tables.
        classes: The `classes_` of the classifier.
        y: What is true, shape `(n,)`.
        predictions: What the estimator said, by method: `predict`, `predict_proba`, `decision_function`.
        sample_weight: Weight of each sample, shape `(n,)`.
    """
    predicted = predictions.get("predict")
    if y is None or predicted is None:
        return {}
    truth, predicted = np.asarray(y), np.asarray(predicted)
    if kind == "regressor":
        return _residuals(truth, predicted)
    if kind != "classifier" or truth.ndim != 1 or not isinstance(classes, np.ndarray) or classes.ndim != 1:
        return {}
    weight = np.ones(len(truth)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of data with one class only: the user did not ask for these tables
        tables = {"confusion": _confusion(truth, predicted, sample_weight)}
        scores = predictions.get("predict_proba", predictions.get("decision_function"))
        if scores is not None:
            columns = _by_class(classes, np.asarray(scores, dtype=float), truth)
            tables |= _curves(columns, truth, weight, has_probabilities="predict_proba" in predictions)
    return tables


def _confusion(truth: Any, predicted: Any, weight: Any) -> Table:
    """Return a row for each pair of classes; with many classes only for those pairs that occur, the most frequent."""
    labels = np.unique(np.concatenate([truth, predicted]))
    counts = metrics.confusion_matrix(truth, predicted, labels=labels, sample_weight=weight)
    cells = np.arange(counts.size)
    if counts.size > MAX_CELLS:
        order = np.argsort(-counts, axis=None, kind="stable")[:MAX_CELLS]
        cells = order[counts.ravel()[order] > 0]
    rows, columns = np.unravel_index(cells, counts.shape)
    return {
        "true": [str(label) for label in labels[rows]],
        "predicted": [str(label) for label in labels[columns]],
        "count": counts[rows, columns].tolist(),
    }


def _by_class(classes: Any, scores: Any, truth: Any) -> dict[Any, Any]:
    """Return the score of each sample for a class, by class: the positive one, or the most frequent of several."""
    if len(classes) == 2:
        return {classes[1]: scores if scores.ndim == 1 else scores[:, 1]}
    if scores.ndim != 2 or scores.shape[1] != len(classes):  # one against one
        return {}
    counts = [np.count_nonzero(truth == label) for label in classes]
    most = sorted(np.argsort(counts, kind="stable")[::-1][:MAX_CURVES].tolist())
    return {classes[index]: scores[:, index] for index in most}


def _curves(columns: Mapping[Any, Any], truth: Any, weight: Any, *, has_probabilities: bool) -> dict[str, Table]:
    roc: Table = {"class": [], "false_positive_rate": [], "true_positive_rate": [], "threshold": []}
    precision_recall: Table = {"class": [], "recall": [], "precision": [], "threshold": []}
    calibration: Table = {"class": [], "mean_predicted": [], "observed": [], "weight": []}
    for label, score in columns.items():
        is_positive = truth == label
        if is_positive.all() or not is_positive.any():
            continue  # no curve without both
        false_positive, true_positive, threshold = metrics.roc_curve(is_positive, score, sample_weight=weight)
        _extend(roc, label, false_positive, true_positive, threshold)
        precision, recall, threshold = metrics.precision_recall_curve(is_positive, score, sample_weight=weight)
        # The last point, where nothing is called positive, has no threshold.
        _extend(precision_recall, label, recall, precision, np.append(threshold, np.inf))
        if has_probabilities:
            _extend(calibration, label, *_calibration(is_positive, score, weight))
    found = {"roc": roc, "precision_recall": precision_recall, "calibration": calibration}
    return {name: table for name, table in found.items() if table["class"]}


def _extend(table: Table, label: Any, *columns: Any) -> None:
    """Add a curve, thinned where it has too many points; both ends stay."""
    chosen = _spread(len(columns[0]))
    table["class"] += [str(label)] * len(chosen)
    for name, column in zip(list(table)[1:], columns, strict=True):
        table[name] += column[chosen].tolist()


def _spread(count: int) -> Any:
    return np.unique(np.linspace(0, count - 1, min(count, MAX_POINTS)).round().astype(int))


def _calibration(is_positive: Any, probability: Any, weight: Any) -> tuple[Any, Any, Any]:
    """Return, for bins of equal width that are not empty: mean prediction, share of positives, weight in all."""
    bins = np.clip((probability * CALIBRATION_BINS).astype(int), 0, CALIBRATION_BINS - 1)
    in_all, predicted, observed = (
        np.bincount(bins, weight * values, minlength=CALIBRATION_BINS) for values in (1.0, probability, is_positive)
    )
    used = in_all > 0
    return predicted[used] / in_all[used], observed[used] / in_all[used], in_all[used]


def _residuals(truth: Any, predicted: Any) -> dict[str, Table]:
    if truth.size != len(truth) or predicted.size != truth.size or truth.dtype.kind not in "biuf":
        return {}  # several outputs
    chosen = _spread(len(truth))
    truth, predicted = truth.ravel()[chosen].astype(float), predicted.ravel()[chosen].astype(float)
    return {
        "residuals": {
            "actual": truth.tolist(),
            "predicted": predicted.tolist(),
            "residual": (truth - predicted).tolist(),
        }
    }


def permutation_importances(
    estimator: Any, X: Any, y: Any, sample_weight: Any = None, *, n_repeats: int, scoring: Any = None
) -> Table:
    """Return how much worse the score is with one feature shuffled: `feature`, `mean`, `std`, largest mean first.

    The seed is 0: the same model and data give the same table, and no random number of the user's is drawn.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # these predictions are ours
        found = inspection.permutation_importance(
            estimator, X, y, n_repeats=n_repeats, scoring=scoring, random_state=0, sample_weight=sample_weight
        )
    means, stds = found["importances_mean"], found["importances_std"]
    names = feature_names(X) or [f"x{index}" for index in range(len(means))]
    order = np.argsort(-means, kind="stable")
    return {"feature": [names[i] for i in order], "mean": means[order].tolist(), "std": stds[order].tolist()}
