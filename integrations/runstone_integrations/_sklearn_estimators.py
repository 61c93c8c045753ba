"""What an estimator is before its fit and what it says of itself after. Knows no run."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from runstone_integrations._shared import clean_params, type_name
from runstone_integrations._sklearn_data import feature_names

MAX_FITTED_ITEMS = 20

# Attributes that are one value per iteration, and the name under which they are a series.
_CURVES = {
    "loss_curve_": "loss_curve",  # MLP, one value an epoch
    "validation_scores_": "validation_score",
    "train_score_": "train_score",  # gradient boosting
    "validation_score_": "validation_score",
    "oob_scores_": "oob_score",
}


def describe_estimator(estimator: Any) -> dict[str, Any]:
    """Return the class and all params: `{"class": "sklearn.svm._classes.SVC", "C": 1.0, …}`.

    Params of nested estimators have scikit-learn's own names (`clf__C`); an estimator itself is the name of its
    class. No param can be called `class`: that is no Python name.
    """
    return {"class": type_name(estimator), **describe_params(estimator)}


def describe_params(estimator: Any) -> dict[str, Any]:
    """Return `get_params(deep=True)` as JSON, nested estimators as the names of their classes."""
    if not hasattr(estimator, "get_params"):
        return {}
    return clean_params({name: _plain(value) for name, value in estimator.get_params(deep=True).items()})


def changed_params(estimator: Any) -> list[str]:
    """Return which params are not at their default, nested ones included; an estimator is never at its default."""
    if not hasattr(estimator, "get_params"):
        return []
    params = estimator.get_params(deep=True)
    defaults: dict[str, Mapping[str, Any]] = {}
    changed = []
    for name, value in params.items():
        prefix, _, own = name.rpartition("__")
        owner = params.get(prefix) if prefix else estimator
        if prefix not in defaults:
            defaults[prefix] = _defaults(owner)
        if own not in defaults[prefix]:
            if prefix or not _is_estimator(value):  # steps of a pipeline are params too, and told by `steps`
                changed.append(name)
        elif not _is_same(value, defaults[prefix][own]):
            changed.append(name)
    return sorted(changed)


def _defaults(owner: Any) -> Mapping[str, Any]:
    try:
        signature = inspect.signature(type(owner).__init__)
    except (TypeError, ValueError):  # written in C
        return {}
    return {
        name: parameter.default
        for name, parameter in signature.parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }


def _is_same(value: Any, default: Any) -> bool:
    if value is default:
        return True
    if type(value) is not type(default):
        is_number = isinstance(value, int | float) and isinstance(default, int | float)
        return is_number and not isinstance(value, bool) and not isinstance(default, bool) and value == default
    try:
        return bool(value == default) or (isinstance(value, float) and value != value and default != default)
    except (TypeError, ValueError):  # arrays have no single truth
        return False


def _is_estimator(value: Any) -> bool:
    return not isinstance(value, type) and hasattr(value, "get_params") and hasattr(value, "fit")


def _plain(value: Any) -> Any:
    """Put names in place of estimators and distributions, wherever they are nested."""
    if _is_estimator(value):
        return type(value).__name__
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, type):
        return type_name(value)
    if type(value).__module__.startswith("runstone_integrations."):  # a tracked scorer
        return repr(value)
    distribution = getattr(value, "dist", None)
    if distribution is not None and hasattr(value, "args"):  # frozen by scipy.stats; its repr is an address
        told = [repr(argument) for argument in value.args]
        told += [f"{name}={argument!r}" for name, argument in getattr(value, "kwds", {}).items()]
        return f"{getattr(distribution, 'name', type_name(distribution))}({', '.join(told)})"
    return value


def innermost(estimator: Any) -> Any:
    """Return the estimator that learned: the best one of a search, the last step of a pipeline."""
    for _ in range(20):  # nested by hand; nobody nests deeper
        steps = getattr(estimator, "steps", None)
        if hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        elif isinstance(steps, list) and steps and _is_estimator(steps[-1][1]):
            estimator = steps[-1][1]
        elif hasattr(estimator, "regressor_"):
            estimator = estimator.regressor_
        else:
            break
    return estimator


def curves(estimator: Any) -> dict[str, list[float]]:
    """Return what the fitted estimator kept of each iteration, as lists of numbers by name."""
    found: dict[str, list[float]] = {}
    for attribute, name in _CURVES.items():
        values = _numbers(getattr(estimator, attribute, None))
        if values is not None and name not in found:
            found[name] = values
    evaluations = getattr(estimator, "evals_result_", None)  # LightGBM; XGBoost has a method
    if evaluations is None and hasattr(estimator, "evals_result"):
        try:
            evaluations = estimator.evals_result()
        except Exception:  # XGBoost raises one of its own where nothing was evaluated
            evaluations = None
    if isinstance(evaluations, Mapping):
        for data, by_metric in evaluations.items():
            for metric, numbers in by_metric.items():
                values = _numbers(numbers)
                if values is not None:
                    found[f"{data}/{metric}"] = values
    return found


def fitted_values(estimator: Any) -> dict[str, Any]:
    """Return the small public attributes that the fit left (`n_iter_`, `C_`, `oob_score_`, `inertia_`), as JSON."""
    found: dict[str, Any] = {}
    for name, value in _public_results(estimator):
        if isinstance(value, bool | int | float | str | np.generic):
            found[name] = value
        elif isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind in "biuf":
            found[name] = value.reshape(-1)[0]
        elif isinstance(value, np.ndarray) and value.ndim == 1 and value.size <= MAX_FITTED_ITEMS:
            if value.dtype.kind in "biuf":
                found[name] = value.tolist()
        elif isinstance(value, dict) and name.startswith("best_") and len(value) <= MAX_FITTED_ITEMS * 5:
            found[name] = {str(key): _plain(item) for key, item in value.items()}
    return clean_params(found)


_NOT_RESULTS = frozenset({"feature_importances_", "coef_", "intercept_", "classes_", "labels_", "n_features_in_"})


def _public_results(estimator: Any) -> Iterator[tuple[str, Any]]:
    for name, value in vars(estimator).items() if hasattr(estimator, "__dict__") else ():
        if name.endswith("_") and not name.startswith("_") and name not in _NOT_RESULTS and name not in _CURVES:
            yield name, value


def progress(fitted: Any) -> dict[str, float]:
    """Return the numbers that tell how a fit went: `n_iter` (the most, of several problems), `loss`, `oob_score` …"""
    learner = innermost(fitted)
    found: dict[str, float] = {}
    for name in ("oob_score", "inertia", "loss"):
        value = getattr(learner, f"{name}_", None)
        if isinstance(value, int | float):
            found[name] = float(value)
    n_iter = getattr(learner, "n_iter_", None)
    numbers = _numbers(np.ravel(n_iter)) if n_iter is not None else None
    if numbers:
        found["n_iter"] = max(numbers)
    return found


def importances(fitted: Any, X: Any) -> tuple[str, dict[str, float]] | None:
    """Return what matters to the fitted estimator, largest first: `("importance", {feature: value})`.

    That is `feature_importances_`, or `coef_` (signed for one output, the mean of the absolute values for several).
    Linear coefficients depend on the scale of their features.
    """
    learner = innermost(fitted)
    try:
        values, kind = getattr(learner, "feature_importances_", None), "importance"
        if values is None:
            values, kind = getattr(learner, "coef_", None), "coef"
    except Exception:  # computed on access; some kernels and boosters have none and raise
        return None
    if values is None:
        return None
    values = np.asarray(values.toarray() if hasattr(values, "toarray") else values, dtype=float)
    if values.ndim == 2:
        values = values[0] if len(values) == 1 else np.abs(values).mean(axis=0)
    if values.ndim != 1 or not values.size:
        return None
    names = _names_for(fitted, X, len(values))
    order = np.argsort(-np.abs(values), kind="stable")
    return kind, {names[index]: float(values[index]) for index in order}


def _names_for(fitted: Any, X: Any, count: int) -> list[str]:
    """Return the names of the features as the last estimator saw them; `x0`, `x1` … where nothing knows them."""
    best = getattr(fitted, "best_estimator_", fitted)
    names: Sequence[Any] | None = None
    if hasattr(best, "steps") and len(best.steps) > 1:
        try:
            names = list(best[:-1].get_feature_names_out(feature_names(X)))
        except Exception:  # a step that does not know its names
            names = None
    elif getattr(innermost(fitted), "feature_names_in_", None) is not None:
        names = list(innermost(fitted).feature_names_in_)
    if names is None or len(names) != count or len(set(map(str, names))) != count:
        return [f"x{index}" for index in range(count)]
    return [str(name) for name in names]


def search_rows(cv_results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return `cv_results_` as one row a candidate: its params as JSON, then every column, folds included."""
    candidates = [{name: _plain(value) for name, value in params.items()} for params in cv_results["params"]]
    columns = {name: values for name, values in cv_results.items() if not name.startswith("param")}
    rows = []
    for index, params in enumerate(candidates):
        row: dict[str, Any] = {"candidate": index, "params": clean_params(params)}
        for name, values in columns.items():
            value = values[index]
            row[name] = value.item() if hasattr(value, "item") else value
        rows.append(row)
    return rows


def _numbers(values: Any) -> list[float] | None:
    """Return a flat list of numbers, `None` for anything else."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError):
        return None
    if array.ndim != 1 or array.dtype.kind not in "biuf" or not array.size:
        return None
    return [float(value) for value in array.tolist()]
