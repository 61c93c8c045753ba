"""Searches and cross-validations as they are recorded: every candidate and fold, errors, runs of candidates."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import runstone
from runstone_integrations import _sklearn_estimators as estimators
from runstone_integrations._sklearn_place import Place

MAX_CHILD_RUNS = 1_000
_OF_CANDIDATES = ("mean_", "std_", "rank_", "iter", "n_resources", "failed_folds")
_OF_SEARCH = ("n_splits_", "n_iterations_", "n_resources_", "n_candidates_")
_SPLIT = re.compile(r"split(\d+)_(.+)")
_FAILED_FITS = re.compile(r"^(\d+) fits failed with the following error:\n", re.MULTILINE)


def is_search(fitted: Any) -> bool:
    """Return whether this is a search that has been fitted, of scikit-learn or of others that follow it."""
    results = getattr(fitted, "cv_results_", None)
    return isinstance(results, Mapping) and "params" in results


def will_search(estimator: Any) -> bool:
    """Return whether fitting this is a search over an estimator inside it."""
    return all(hasattr(estimator, name) for name in ("estimator", "cv", "refit"))


def record_search(place: Place, fitted: Any, *, shown: Sequence[Any], child_runs: bool) -> None:
    """Record all candidates: as the table `cv_results`, as series over the candidates, and the best one as params.

    Args:
        place: Where.
        fitted: The fitted search.
        shown: Warnings of the fit; scikit-learn tells errors of candidates by one.
        child_runs: Whether to make a run of each candidate too.
    """
    rows = _rows(fitted)
    for row in rows:
        numbers = {
            f"cv/{in_seconds(name)}": value
            for name, value in row.items()
            if isinstance(value, int | float) and name.startswith(_OF_CANDIDATES)
        }
        place.log(numbers, step=row["candidate"])
    place.log_params({"search": {**_told(fitted, rows), **_errors(shown)}})
    summary = {"cv/best_score": getattr(fitted, "best_score_", None), "refit_s": getattr(fitted, "refit_time_", None)}
    place.log({name: value for name, value in summary.items() if value is not None})
    place.add_table("cv_results", [_flat(row) for row in rows])
    if child_runs:
        try:
            workspace = place.run.workspace
        except runstone.WorkspaceNotFound:  # recording is switched off
            return
        for row in rows[:MAX_CHILD_RUNS]:
            _record_candidate(place, row, workspace)


def _rows(fitted: Any) -> list[dict[str, Any]]:
    """Return the rows of `cv_results_`, each with how many of its folds have no score."""
    rows = estimators.search_rows(fitted.cv_results_)
    for row in rows:
        folds = {found[1] for name, value in row.items() if _is_nan(value) and (found := _SPLIT.fullmatch(name))}
        row["failed_folds"] = len(folds)
    return rows


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _told(fitted: Any, rows: list[dict[str, Any]]) -> dict[str, Any]:
    told: dict[str, Any] = {"n_candidates": len(rows)}
    told |= {name.rstrip("_"): getattr(fitted, name) for name in _OF_SEARCH if hasattr(fitted, name)}
    if hasattr(fitted, "best_index_"):
        told["best_candidate"] = int(fitted.best_index_)
        told["best_params"] = rows[int(fitted.best_index_)]["params"]
    return told


def _errors(shown: Sequence[Any]) -> dict[str, Any]:
    """Return what scikit-learn says of fits that failed, without their tracebacks, each error once."""
    errors: list[dict[str, Any]] = []
    for warning in shown:
        if warning.category.__name__ == "FitFailedWarning":
            _, *parts = _FAILED_FITS.split(str(warning.message))
            for count, trace in zip(parts[::2], parts[1::2], strict=True):
                lines = [line for line in trace.splitlines() if line and not set(line) <= {"-"}]
                errors.append({"error": lines[-1][:2_000] if lines else "", "fits": int(count)})
    return {"errors": errors[:20]} if errors else {}


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of the table: a column for each param, and all of them as JSON, which keeps their types."""
    params = {
        f"param_{name}": value if isinstance(value, str | int | float | None) else json.dumps(value)
        for name, value in row["params"].items()
    }
    rest = {name: value for name, value in row.items() if name not in ("candidate", "params")}
    return {"candidate": row["candidate"], **params, "params": json.dumps(row["params"]), **rest}


def _record_candidate(place: Place, row: Mapping[str, Any], workspace: runstone.Workspace) -> None:
    """Make a run below the run of the search: params, the scores of each fold by step, and those over all folds."""
    folds: dict[int, dict[str, Any]] = {}
    in_all: dict[str, Any] = {}
    for name, value in row.items():
        if (found := _SPLIT.fullmatch(name)) is not None:
            folds.setdefault(int(found[1]), {})[found[2]] = value
        elif isinstance(value, int | float) and name.startswith(_OF_CANDIDATES):
            in_all[in_seconds(name)] = value
    run = place.run
    with runstone.start_run(
        project=run.project,
        name=f"{run.name} {place.below('candidate')} {row['candidate']}",
        params=row["params"],
        group=run.group,
        parent=run.id,
        workspace=workspace,
        on_error=run.on_error,
        environment=False,
        system_metrics=False,
    ) as child:
        for fold, scores in sorted(folds.items()):
            child.log(scores, step=fold)
        child.log(in_all, step=max(folds, default=0))
        if folds and row["failed_folds"] == len(folds):
            child.finish("failed")


def record_folds(place: Place, results: Mapping[str, Any], *, first: int) -> int:
    """Record the columns of `cross_validate` with the fold as step, and their mean and deviation.

    Args:
        place: Where.
        results: What `cross_validate` returned.
        first: Step of the first fold.

    Returns:
        How many folds there are.
    """
    columns = {
        name: [float(value) for value in values]
        for name, values in results.items()
        if getattr(values, "dtype", None) is not None and values.dtype.kind in "biuf"
    }
    n_folds = max((len(values) for values in columns.values()), default=0)
    for fold in range(n_folds):
        place.log({in_seconds(name): values[fold] for name, values in columns.items()}, step=first + fold)
    summary: dict[str, float] = {}
    for name, values in columns.items():
        if not name.endswith("_time"):
            mean = sum(values) / len(values)
            summary[f"mean_{name}"] = mean
            summary[f"std_{name}"] = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    place.log(summary, step=first + n_folds - 1)
    return n_folds


def record_inner_searches(place: Place, searches: Sequence[Any], *, first: int) -> None:
    """Record nested cross-validation: the candidates of each outer fold in one table, and its best ones.

    Args:
        place: Where the outer folds are recorded.
        searches: The fitted search of each outer fold.
        first: Step of the first fold.
    """
    table: list[dict[str, Any]] = []
    best: list[dict[str, Any]] = []
    for fold, search in enumerate(searches):
        if not is_search(search):  # failed
            best.append({})
            continue
        rows = _rows(search)
        table += [{"outer_fold": fold, **_flat(row)} for row in rows]
        told = _told(search, rows)
        best.append({name: told[name] for name in ("best_candidate", "best_params") if name in told})
        place.log({"inner_best_score": getattr(search, "best_score_", math.nan)}, step=first + fold)
    if table:
        place.log_params({"inner_searches": best})
        place.add_table("cv_results", table)


def in_seconds(column: str) -> str:
    """Return our name of a column: scikit-learn's times are seconds and do not say so."""
    return f"{column.removesuffix('_time')}_s" if column.endswith("_time") else column
