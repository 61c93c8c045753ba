"""Searches and cross-validation with real estimators: every candidate, fold and error."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import pytest
import sklearn
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401  # makes the searches below importable
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    cross_validate,
)
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC

import runstone
from runstone_integrations.sklearn import track
from tests.integrations.reading import last, table

pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_search_keeps_all_candidates_and_folds(n_jobs: int, iris: tuple[Any, ...]) -> None:
    X, X_test, y, y_test = iris
    search = GridSearchCV(SVC(), {"C": [0.01, 1, 100], "kernel": ["rbf", "linear"]}, cv=3, n_jobs=n_jobs)
    with track() as run:
        run.fit(search, X, y, eval_set={"test": (X_test, y_test)})
    info = run.read()
    assert info.status == "finished"
    rows = table(info, "cv_results")
    assert len(rows) == 6
    for fold in range(3):
        column = f"split{fold}_test_score"
        assert [row[column] for row in rows] == search.cv_results_[column].tolist()
    assert [row["param_kernel"] for row in rows] == ["rbf", "linear"] * 3
    assert [json.loads(row["params"]) for row in rows] == search.cv_results_["params"]
    assert [row["rank_test_score"] for row in rows] == search.cv_results_["rank_test_score"].tolist()
    assert info.series("cv/mean_test_score").value.tolist() == search.cv_results_["mean_test_score"].tolist()
    assert info.series("cv/mean_test_score").step.tolist() == list(range(6))
    assert last(info, "cv/best_score") == search.best_score_
    assert info.params["search"]["best_params"] == search.best_params_
    assert info.params["search"]["best_candidate"] == search.best_index_
    assert info.params["estimator"]["param_grid"] == {"C": [0.01, 1, 100], "kernel": ["rbf", "linear"]}
    assert last(info, "test/accuracy") == search.score(X_test, y_test)


def test_search_with_failing_candidates_estimators_as_values_and_distributions(iris: tuple[Any, ...]) -> None:
    from scipy.stats import loguniform

    X, _, y, _ = iris
    pipeline = Pipeline([("scale", StandardScaler()), ("svm", SVC())])
    space = {"scale": [StandardScaler(), MinMaxScaler(), "passthrough"], "svm__C": loguniform(1e-2, 1e2)}
    search = RandomizedSearchCV(
        pipeline, space, n_iter=4, cv=2, random_state=0, scoring=["accuracy", "f1_macro"], refit=False
    )
    broken = GridSearchCV(SVC(), {"C": [1.0, -1.0]}, cv=2)
    with track() as run:
        run.fit(search, X, y, name="random", eval_set={"all": (X, y)})
        with pytest.warns(sklearn.exceptions.FitFailedWarning), pytest.warns(UserWarning, match="non-finite"):
            run.fit(broken, X, y, name="broken")
    info = run.read()
    rows = table(info, "random/cv_results")
    assert {row["param_scale"] for row in rows} <= {"StandardScaler", "MinMaxScaler", "passthrough"}
    assert info.params["random"]["estimator"]["param_distributions"]["svm__C"] == "loguniform(0.01, 100.0)"
    assert len(info.series("random/cv/mean_test_f1_macro")) == 4
    assert "predict" in info.params["random"]["missing_scores"]["all"]  # without refit there is nothing to predict with
    fine, failed = table(info, "broken/cv_results")
    assert np.isnan(failed["mean_test_score"])
    assert (fine["failed_folds"], failed["failed_folds"]) == (0, 2)
    (error,) = info.params["broken"]["search"]["errors"]
    assert error["fits"] == 2
    assert "The 'C' parameter of SVC" in error["error"]
    assert np.isnan(info.series("broken/cv/mean_test_score").value[1])
    assert [warning["category"] for warning in info.params["broken"]["warnings"]] == ["FitFailedWarning", "UserWarning"]


def test_cross_validate_returns_what_sklearn_returns_and_logs_each_fold(iris: tuple[Any, ...]) -> None:
    X, _, y, _ = iris
    arguments = {"cv": 4, "scoring": ["accuracy", "f1_macro"], "return_train_score": True, "return_estimator": True}
    plain = cross_validate(SVC(), X, y, **arguments)
    with track() as run:
        tracked = run.cross_validate(SVC(), X, y, **arguments)
        run.fit(SVC(), X, y)
    assert tracked.keys() == plain.keys()
    assert np.array_equal(tracked["test_f1_macro"], plain["test_f1_macro"])
    info = run.read()
    assert info.series("cross_validate/test_accuracy").value.tolist() == plain["test_accuracy"].tolist()
    assert info.series("cross_validate/test_accuracy").step.tolist() == [0, 1, 2, 3]
    assert last(info, "cross_validate/mean_test_accuracy") == pytest.approx(plain["test_accuracy"].mean())
    assert last(info, "cross_validate/std_test_accuracy") == pytest.approx(plain["test_accuracy"].std())
    assert "cross_validate/fit_s" in info.metrics
    assert info.params["cross_validate"]["estimator"]["class"] == "sklearn.svm._classes.SVC"
    assert "fit_s" in info.metrics  # a fit of the same class stands at the top


def test_halving_search_keeps_every_round_with_its_resources(iris: tuple[Any, ...]) -> None:
    X, _, y, _ = iris
    search = HalvingGridSearchCV(SVC(), {"C": [0.1, 1, 10]}, cv=2, random_state=0, factor=2)
    with track() as run:
        run.fit(search, X, y)
    info = run.read()
    rows = table(info, "cv_results")
    assert [row["iter"] for row in rows] == search.cv_results_["iter"].tolist()
    assert info.series("cv/n_resources").value.tolist() == search.cv_results_["n_resources"].tolist()
    assert info.params["search"]["n_iterations"] == search.n_iterations_
    assert info.params["search"]["n_resources"] == search.n_resources_


def test_child_runs_are_one_run_for_each_candidate_below_the_run_of_the_search(iris: tuple[Any, ...]) -> None:
    X, _, y, _ = iris
    search = GridSearchCV(SVC(), {"C": [0.01, 1.0, -1.0]}, cv=3)
    with track(project="digits", group="night") as run:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run.fit(search, X, y, child_runs=True)
        assert runstone.current_run() is run.run
        run.fit(search.set_params(param_grid={"C": [1]}), X, y)  # only where asked for
    children = sorted(
        (info for info in run.workspace.runs() if info.parent == run.id), key=lambda info: info.params["C"]
    )
    assert [info.params["C"] for info in children] == [-1.0, 0.01, 1.0]
    broken, worse, best = children
    assert (broken.status, worse.status, best.status) == ("failed", "finished", "finished")
    assert {info.group for info in children} == {"night"}
    assert {info.project for info in children} == {"digits"}
    for fold, value in enumerate(best.series("test_score").value):
        assert value == table(run.read(), "cv_results")[1][f"split{fold}_test_score"]
    assert len(best.series("test_score")) == 3
    assert last(best, "mean_test_score") > last(worse, "mean_test_score")
    assert last(best, "mean_fit_s") > 0


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_nested_cross_validation_tells_what_each_outer_fold_chose(n_jobs: int, iris: tuple[Any, ...]) -> None:
    X, _, y, _ = iris
    search = GridSearchCV(SVC(), {"C": [0.01, 1, 100]}, cv=2)
    plain = cross_validate(search, X, y, cv=3, return_estimator=True)
    with track() as run:
        tracked = run.cross_validate(search, X, y, cv=3, n_jobs=n_jobs)
    assert tracked.keys() == plain.keys() - {"estimator"}
    assert np.array_equal(tracked["test_score"], plain["test_score"])
    info = run.read()
    assert info.status == "finished"
    chosen = [fold["best_params"] for fold in info.params["cross_validate"]["inner_searches"]]
    assert chosen == [inner.best_params_ for inner in plain["estimator"]]
    scores = info.series("cross_validate/inner_best_score").value.tolist()
    assert scores == [inner.best_score_ for inner in plain["estimator"]]
    rows = table(info, "cross_validate/cv_results")
    assert [(row["outer_fold"], row["param_C"]) for row in rows] == [(f, C) for f in range(3) for C in (0.01, 1, 100)]


def test_search_that_raises_for_a_candidate_keeps_the_error(iris: tuple[Any, ...]) -> None:
    X, _, y, _ = iris
    with pytest.raises(ValueError, match="'C' parameter"), track() as run:
        run.fit(GridSearchCV(SVC(), {"C": [-1.0]}, cv=2, error_score="raise"), X, y)
    info = run.read()
    assert info.status == "failed"
    assert "'C' parameter" in info.params["fit_error"]["message"]


def test_params_of_meta_estimators_are_told_with_their_changes(iris: tuple[Any, ...]) -> None:
    X, X_test, y, y_test = iris
    parts = [("svm", SVC(C=3.0)), ("knn", KNeighborsClassifier(2))]
    search = GridSearchCV(VotingClassifier(parts), {"knn__n_neighbors": [1, 2]}, cv=2)
    with track() as run:
        run.fit(StackingClassifier(parts, cv=2), X, y, name="stack", eval_set={"test": (X_test, y_test)})
        run.fit(search, X, y, name="vote", eval_set={"test": (X_test, y_test)})
    info = run.read()
    stack, vote = info.params["stack"], info.params["vote"]
    assert stack["estimator"]["estimators"] == [["svm", "SVC"], ["knn", "KNeighborsClassifier"]]
    assert stack["estimator"]["svm__C"] == 3.0
    assert {"svm__C", "knn__n_neighbors", "cv"} <= set(stack["changed_params"])
    assert "svm__kernel" not in stack["changed_params"]
    assert vote["estimator"]["estimator__svm__C"] == 3.0
    assert last(info, "vote/test/accuracy") == search.score(X_test, y_test)
    assert len(table(info, "stack/test/confusion")) == 9
