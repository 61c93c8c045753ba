"""`track()` with real estimators: what is recorded, and that nothing else changes."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn import metrics as sk_metrics
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes, load_iris
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import SequentialFeatureSelector
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, SGDClassifier
from sklearn.model_selection import (
    GridSearchCV,
    cross_val_score,
    cross_validate,
)
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

import runstone
from runstone_integrations.sklearn import TrackedScorer, track
from tests.integrations.reading import last, table

pytestmark = pytest.mark.usefixtures("elsewhere")


def content(run: runstone.RunInfo, name: str) -> bytes:
    """Return the bytes of an artifact."""
    (artifact,) = [artifact for artifact in run.artifacts if artifact.name == name]
    (file,) = artifact.files
    return (run.path.parents[2] / "blobs" / file.hash[:2] / file.hash).read_bytes()


# --- what is recorded ----------------------------------------------------------------------------------------------


def test_fit_returns_the_fitted_estimator_itself_and_records_it(iris: tuple[Any, ...]) -> None:
    X, X_test, y, y_test = iris
    model = make_pipeline(StandardScaler(), LogisticRegression(C=10.0))
    with track(project="iris", params={"seed": 0}, tags={"by": "test"}) as run:
        fitted = run.fit(model, X, y, eval_set={"test": (X_test, y_test)})
    assert fitted is model
    info = run.read()
    assert info.status == "finished"
    assert info.project == "iris"
    assert info.tags == {"by": "test"}
    assert info.params["seed"] == 0
    estimator = info.params["estimator"]
    assert estimator["class"] == "sklearn.pipeline.Pipeline"
    assert estimator["logisticregression"] == "LogisticRegression"
    assert estimator["logisticregression__C"] == 10.0
    assert estimator["steps"] == [["standardscaler", "StandardScaler"], ["logisticregression", "LogisticRegression"]]
    assert info.params["changed_params"] == ["logisticregression__C", "steps"]
    assert info.params["sklearn_version"] == sklearn.__version__
    assert last(info, "fit_s") > 0
    assert last(info, "test/score_s") > 0
    assert "train/accuracy" not in info.metrics


def test_scores_of_a_multiclass_classifier_equal_those_of_sklearn(iris: tuple[Any, ...]) -> None:
    X, X_test, y, y_test = iris
    weights = np.linspace(0.5, 2, len(y_test))
    with track() as run:
        model = run.fit(
            LogisticRegression(C=0.01), X, y, eval_set={"test": (X_test, y_test), "weighted": (X_test, y_test, weights)}
        )
    info = run.read()
    predicted, probabilities = model.predict(X_test), model.predict_proba(X_test)
    assert last(info, "test/accuracy") == sk_metrics.accuracy_score(y_test, predicted)
    assert last(info, "test/f1_macro") == sk_metrics.f1_score(y_test, predicted, average="macro")
    assert last(info, "test/log_loss") == sk_metrics.log_loss(y_test, probabilities)
    assert last(info, "test/roc_auc_ovr") == sk_metrics.roc_auc_score(y_test, probabilities, multi_class="ovr")
    assert last(info, "weighted/accuracy") == sk_metrics.accuracy_score(y_test, predicted, sample_weight=weights)


def test_scores_of_a_binary_classifier_equal_those_of_sklearn_with_text_labels_too(cancer: tuple[Any, ...]) -> None:
    X, X_test, y, y_test = cancer
    names = np.array(["benign", "malignant"])
    with track() as run:
        forest = run.fit(
            RandomForestClassifier(10, random_state=0), X, names[y], eval_set={"t": (X_test, names[y_test])}
        )
        svm = run.fit(SVC(), X, y, name="svm", eval_set={"t": (X_test, y_test)})
    info = run.read()
    predicted = forest.predict(X_test)
    assert last(info, "t/f1") == sk_metrics.f1_score(names[y_test], predicted, pos_label="malignant")
    assert last(info, "t/roc_auc") == sk_metrics.roc_auc_score(y_test, forest.predict_proba(X_test)[:, 1])
    assert last(info, "svm/t/roc_auc") == sk_metrics.roc_auc_score(y_test, svm.decision_function(X_test))
    assert "svm/t/log_loss" not in info.metrics


def test_scores_of_a_regressor_equal_those_of_sklearn() -> None:
    X, y = load_diabetes(return_X_y=True)
    with track() as run:
        model = run.fit(Ridge(), X[:300], y[:300], eval_set={"test": (X[300:], y[300:])}, score_training=True)
    info = run.read()
    predicted = model.predict(X[300:])
    assert last(info, "test/r2") == sk_metrics.r2_score(y[300:], predicted)
    assert last(info, "test/mae") == sk_metrics.mean_absolute_error(y[300:], predicted)
    assert last(info, "test/rmse") == pytest.approx(sk_metrics.root_mean_squared_error(y[300:], predicted))
    assert last(info, "train/r2") == model.score(X[:300], y[:300])


def test_clusterer_has_clusters_and_silhouette_without_any_labels() -> None:
    X, _ = load_iris(return_X_y=True)
    with track() as run:
        model = run.fit(KMeans(3, random_state=0), X, eval_set={"half": X[::2]})
    info = run.read()
    assert last(info, "train/n_clusters") == 3
    assert last(info, "train/silhouette") == pytest.approx(sk_metrics.silhouette_score(X, model.labels_))
    assert last(info, "half/silhouette") == pytest.approx(sk_metrics.silhouette_score(X[::2], model.predict(X[::2])))
    assert last(info, "inertia") == model.inertia_


def test_transformer_and_multi_output_classifier_are_scored_by_what_they_have(iris: tuple[Any, ...]) -> None:
    X, _, y, _ = iris
    both = np.column_stack([y, y])
    with track() as run:
        pca = run.fit(PCA(2), X, eval_set={"all": (X, None)})
        run.fit(MultiOutputClassifier(LogisticRegression()), X, both, name="multi", eval_set={"all": (X, both)})
    info = run.read()
    assert last(info, "all/score") == pca.score(X)
    # scikit-learn's accuracy knows no target of several classes and several outputs
    assert "accuracy" in info.params["multi"]["missing_scores"]["all"]


def test_scoring_takes_the_place_of_the_usual_scores(iris: tuple[Any, ...]) -> None:
    X, X_test, y, y_test = iris
    with track() as run:
        run.fit(
            KNeighborsClassifier(),
            X,
            y,
            eval_set={"test": (X_test, y_test)},
            scoring={"balanced": "balanced_accuracy", "misses": lambda est, X, y: (est.predict(X) != y).sum()},
        )
    names = {name for name in run.read().metrics if name.startswith("test/")}
    assert names == {"test/balanced", "test/misses", "test/score_s"}


def test_one_score_that_cannot_be_computed_costs_only_itself(iris: tuple[Any, ...]) -> None:
    X, _, y, _ = iris
    unseen = y.copy()
    unseen[0] = 7
    with track() as run:
        run.fit(LogisticRegression(), X, y, eval_set={"odd": (X, unseen)})
    info = run.read()
    assert last(info, "odd/accuracy") > 0.9
    assert "log_loss" in info.params["missing_scores"]["odd"]


def test_data_is_told_by_shape_names_classes_and_a_hash_of_the_content(iris: tuple[Any, ...]) -> None:
    X, _, y, _ = iris
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    told = []
    for data in (frame, frame.copy(), frame + 1, X, X.tolist()):
        with track() as run:
            run.fit(DecisionTreeClassifier(random_state=0), data, y, log_model=False)
        told.append(run.read().params["data"])
    first, same, other, array, lists = told
    assert first["n_samples"] == 112
    assert first["n_features"] == 4
    assert first["feature_names"] == ["a", "b", "c", "d"]
    assert first["X"]["dtype"] == {"float64": 4}
    assert first["y"]["classes"] == {"0": 37, "1": 34, "2": 41}
    assert first["X"]["hash"] == same["X"]["hash"] != other["X"]["hash"]
    assert array["X"]["hash"] == lists["X"]["hash"]
    assert first["X"]["hash_is_sampled"] is False


def test_hash_of_large_data_costs_a_bounded_number_of_bytes_and_says_so() -> None:
    from runstone_integrations._sklearn_data import describe_data

    large = np.zeros((4_000_000, 8), dtype=np.float32)
    assert describe_data(large)["X"]["hash_is_sampled"] is True
    assert describe_data(["some text", "more text"])["X"]["hash"]
    assert "hash" not in describe_data([[1], [2, 3]])["X"]
    from scipy.sparse import csr_array

    assert describe_data(csr_array(np.eye(3)))["X"]["hash"] != describe_data(csr_array(2 * np.eye(3)))["X"]["hash"]


def test_what_the_estimator_keeps_of_its_iterations_becomes_series(iris: tuple[Any, ...]) -> None:
    X, _, y, _ = iris
    with track() as run:
        mlp = run.fit(
            MLPClassifier((8,), solver="sgd", early_stopping=True, max_iter=300, tol=1e-9, random_state=0),
            X,
            y,
            name="mlp",
        )
        boosted = run.fit(GradientBoostingClassifier(n_estimators=7, random_state=0), X, y, name="gb")
        run.fit(HistGradientBoostingClassifier(max_iter=5, early_stopping=True, random_state=0), X, y, name="hist")
        forest = run.fit(RandomForestClassifier(60, oob_score=True, random_state=0), X, y, name="forest")
    info = run.read()
    assert info.series("mlp/loss_curve").value.tolist() == mlp.loss_curve_
    assert info.series("mlp/validation_score").value.tolist() == mlp.validation_scores_
    assert last(info, "mlp/n_iter") == mlp.n_iter_
    assert info.series("gb/train_score").value.tolist() == boosted.train_score_.tolist()
    assert info.series("gb/train_score").step.tolist() == list(range(7))
    assert len(info.series("hist/validation_score")) == 6
    assert last(info, "forest/oob_score") == forest.oob_score_
    assert info.params["forest"]["fitted"]["oob_score_"] == forest.oob_score_


def test_importances_carry_feature_names_through_a_pipeline(iris: tuple[Any, ...]) -> None:
    X, _, y, _ = iris
    frame = pd.DataFrame(X, columns=["sepal length", "sepal width", "petal length", "petal width"])
    columns = ColumnTransformer([("scale", MinMaxScaler(), ["petal length", "petal width"])])
    with track() as run:
        forest = run.fit(RandomForestClassifier(20, random_state=0), frame, y)
        run.fit(make_pipeline(columns, LogisticRegression()), frame, y, name="linear")
    info = run.read()
    by_feature = dict(zip(frame.columns, forest.feature_importances_, strict=True))
    assert {name: last(info, f"importance/{name}") for name in frame.columns} == by_feature
    assert {name for name in info.metrics if name.startswith("linear/coef/")} == {
        "linear/coef/scale__petal length",
        "linear/coef/scale__petal width",
    }
    rows = table(info, "importance")
    assert [row["feature"] for row in rows] == sorted(by_feature, key=by_feature.__getitem__, reverse=True)


def test_repeated_fits_are_a_series_and_another_class_is_named_after_itself(iris: tuple[Any, ...]) -> None:
    X, X_test, y, y_test = iris
    forest = RandomForestClassifier(5, warm_start=True, random_state=0)
    with track() as run:
        for trees in (5, 10, 15):
            run.fit(forest.set_params(n_estimators=trees), X, y, eval_set={"test": (X_test, y_test)})
        run.fit(SVC(), X, y, eval_set={"test": (X_test, y_test)})
    info = run.read()
    assert info.series("test/accuracy").step.tolist() == [0, 1, 2]
    assert info.params["estimator"]["n_estimators"] == 15
    assert info.params["SVC"]["estimator"]["kernel"] == "rbf"
    assert "SVC/test/accuracy" in info.metrics
    assert {"model.pkl", "SVC/model.pkl"} <= {artifact.name for artifact in info.artifacts}


def test_partial_fit_loop_logs_through_the_same_object(iris: tuple[Any, ...]) -> None:
    X, X_test, y, y_test = iris
    model = SGDClassifier(random_state=0)
    with track() as run:
        for epoch in range(3):
            model.partial_fit(X, y, classes=[0, 1, 2])
            run.log({"test/accuracy": model.score(X_test, y_test)}, step=epoch)
            assert not run.should_stop
        run.log_params({"lr": 1})
        run.set_notes("through the run")
    info = run.read()
    assert info.series("test/accuracy").step.tolist() == [0, 1, 2]
    assert info.notes == "through the run"


def test_model_and_diagram_are_artifacts_and_the_model_can_be_left_out(iris: tuple[Any, ...], tmp_path: Path) -> None:
    X, X_test, y, _ = iris
    with track() as run:
        model = run.fit(make_pipeline(StandardScaler(), SVC()), X, y)
        run.fit(SVC(), X, y, name="unkept", log_model=False)
    info = run.read()
    loaded = pickle.loads(content(info, "model.pkl"))
    assert np.array_equal(loaded.predict(X_test), model.predict(X_test))
    file = tmp_path / "model"
    file.write_bytes(content(info, "model.pkl"))
    assert np.array_equal(joblib.load(file).predict(X_test), model.predict(X_test))
    assert b"StandardScaler" in content(info, "estimator.html")
    assert {"unkept/estimator.html"} == {a.name for a in info.artifacts if a.name.startswith("unkept/")}


def test_model_that_cannot_be_pickled_is_a_warning_and_not_an_error(iris: tuple[Any, ...]) -> None:
    X, _, y, _ = iris
    model = make_pipeline(FunctionTransformer(lambda X: X), SVC())
    with track(on_error="warn") as run, pytest.warns(runstone.TrackingWarning, match="not everything is recorded"):
        fitted = run.fit(model, X, y)
    assert fitted.predict(X).shape == y.shape
    assert run.read().status == "finished"


def test_files_that_cannot_be_stored_are_told_and_the_fit_goes_on(iris: tuple[Any, ...], tmp_path: Path) -> None:
    X, X_test, y, y_test = iris
    with track(workspace=tmp_path / "full", on_error="warn") as run:
        (tmp_path / "full" / "blobs").write_text("in the way of a folder")
        with pytest.warns(runstone.TrackingWarning) as told:
            run.fit(SVC(), X, y, eval_set={"test": (X_test, y_test)})
    assert {str(warning.message).partition(": ")[2].partition(":")[0] for warning in told} == {
        "could not record artifact",
        "could not record table",
    }
    assert run.read().status == "finished"
    with track(workspace=tmp_path / "full", on_error="raise") as run, pytest.raises(OSError):
        run.fit(SVC(), X, y)


# --- the tracked scorer ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_scorer_records_each_evaluation_with_params_in_every_process(n_jobs: int, iris: tuple[Any, ...]) -> None:
    X, _, y, _ = iris
    grid = {"C": [0.01, 1, 100]}
    plain = GridSearchCV(SVC(), grid, cv=3, scoring="accuracy").fit(X, y)
    with track() as run:
        search = run.fit(GridSearchCV(SVC(), grid, cv=3, scoring=run.scorer("accuracy"), n_jobs=n_jobs), X, y)
    assert search.cv_results_["mean_test_score"].tolist() == plain.cv_results_["mean_test_score"].tolist()
    info = run.read()
    live = info.series("scorer/accuracy")
    assert sorted(live.step.tolist()) == list(range(9))
    lines = [json.loads(line) for line in content(info, "evaluations.jsonl").splitlines()]
    assert len(lines) == 9
    scores = sorted((line["params"]["C"], line["scores"]["accuracy"]) for line in lines)
    expected = [
        (C, plain.cv_results_[f"split{fold}_test_score"][n]) for n, C in enumerate(grid["C"]) for fold in range(3)
    ]
    assert scores == sorted(expected)
    assert {line["n_samples"] for line in lines} == {37, 38}
    assert all((line["pid"] == os.getpid()) == (n_jobs == 1) for line in lines)


def test_run_is_finished_while_idle_workers_still_live(iris: tuple[Any, ...]) -> None:
    X, _, y, _ = iris
    with track() as run:
        run.fit(GridSearchCV(SVC(), {"C": [1, 2]}, cv=2, scoring=run.scorer("accuracy"), n_jobs=2), X, y)
    assert run.read().status == "finished"
    assert len(run.read().attempts) == 1


def test_scorer_survives_clone_copy_and_pickle_and_works_where_scorers_do(iris: tuple[Any, ...]) -> None:
    X, _, y, _ = iris
    with track() as run:
        scorer = run.scorer("accuracy")
        search = clone(GridSearchCV(SVC(), {"C": [1]}, cv=2, scoring=scorer))
        search.fit(X, y)
        copy.deepcopy(scorer)(search, X, y)
        again = pickle.loads(pickle.dumps(scorer))
        assert isinstance(again, TrackedScorer)
        again(search, X, y)
        assert (
            cross_val_score(SVC(), X, y, cv=2, scoring=scorer).tolist() == cross_val_score(SVC(), X, y, cv=2).tolist()
        )
        cross_validate(SVC(), X, y, cv=2, scoring={"a": scorer, "b": run.scorer("f1_macro", name="f1")})
        SequentialFeatureSelector(SVC(), n_features_to_select=1, cv=2, scoring=scorer).fit(X, y)
        run.scorer(lambda model, X, y: {"a": 1.0, "b": 2.0})(search, X, y)
    info = run.read()
    assert info.metrics["scorer/accuracy"].count == 2 + 1 + 1 + 2 + 2 + 2 * 4
    assert info.metrics["scorer/f1"].count == 2
    assert last(info, "scorer/b") == 2.0
    assert repr(scorer) == "TrackedScorer('accuracy')"


def test_scorer_of_a_finished_run_still_scores_and_pickles_as_the_plain_one(iris: tuple[Any, ...]) -> None:
    X, _, y, _ = iris
    with track() as run:
        scorer = run.scorer("accuracy")
        model = SVC().fit(X, y)
    assert scorer(model, X, y) == model.score(X, y)
    plain = pickle.loads(pickle.dumps(scorer))
    assert type(plain).__module__.startswith("sklearn.")
    assert plain(model, X, y) == model.score(X, y)
    assert "scorer/accuracy" not in run.read().metrics


def test_scorer_passes_metadata_routing_on_as_the_scorer_inside(iris: tuple[Any, ...]) -> None:
    X, _, y, _ = iris
    weights = np.linspace(1, 2, len(y))
    with sklearn.config_context(enable_metadata_routing=True), track() as run:
        weighted = sk_metrics.get_scorer("accuracy").set_score_request(sample_weight=True)
        model = SVC().set_fit_request(sample_weight=False)
        plain = cross_validate(model, X, y, cv=2, scoring=weighted, params={"sample_weight": weights})
        tracked = run.cross_validate(
            model, X, y, cv=2, scoring=run.scorer(weighted, name="w"), params={"sample_weight": weights}
        )
    assert tracked["test_score"].tolist() == plain["test_score"].tolist()


# --- nothing else changes --------------------------------------------------------------------------------------------


def test_h1_public_names_are_the_same_objects_with_the_same_pickles_before_and_after(iris: tuple[Any, ...]) -> None:
    X, X_test, y, y_test = iris
    modules = [sklearn, sk_metrics, sklearn.model_selection, sklearn.pipeline, sklearn.base, sklearn.svm]

    def names() -> dict[tuple[str, str], tuple[int, bytes]]:
        found = {}
        for module in modules:
            for name in module.__all__ if hasattr(module, "__all__") else ():
                if name.startswith("Halving"):  # raises until its experimental import
                    continue
                value = getattr(module, name)
                if callable(value):
                    found[module.__name__, name] = (id(value), pickle.dumps(value))
        return found

    before, filters, show = names(), list(warnings.filters), warnings.showwarning
    methods = {name: id(value) for name, value in vars(SVC).items()}
    with track() as run:
        run.fit(GridSearchCV(SVC(), {"C": [1]}, cv=2, scoring=run.scorer()), X, y, eval_set={"t": (X_test, y_test)})
        assert names() == before
    assert names() == before
    assert {name: id(value) for name, value in vars(SVC).items()} == methods
    assert warnings.filters == filters
    assert warnings.showwarning is show


def test_results_are_bit_equal_with_and_without_and_no_random_number_is_drawn(iris: tuple[Any, ...]) -> None:
    X, X_test, y, y_test = iris

    def make() -> Any:
        return FeatureUnion([("pca", PCA(2)), ("best", StandardScaler())])

    np.random.seed(3)
    plain = make_pipeline(make(), RandomForestClassifier(10)).fit(X, y)
    state = np.random.get_state()[1]
    np.random.seed(3)
    with track() as run:
        tracked = run.fit(
            make_pipeline(make(), RandomForestClassifier(10)),
            X,
            y,
            eval_set={"t": (X_test, y_test)},
            score_training=True,
        )
    assert np.array_equal(np.random.get_state()[1], state)
    assert np.array_equal(tracked.predict_proba(X_test), plain.predict_proba(X_test))
    assert pickle.dumps(tracked[-1].estimators_[0].tree_) == pickle.dumps(plain[-1].estimators_[0].tree_)
    assert vars(tracked).keys() == vars(plain).keys()
    assert tracked.get_params().keys() == plain.get_params().keys()


def test_warnings_of_the_fit_are_recorded_and_shown_as_without(iris: tuple[Any, ...]) -> None:
    X, X_test, y, y_test = iris
    with warnings.catch_warnings(record=True) as plain:
        warnings.simplefilter("always")
        LogisticRegression(max_iter=2).fit(X, y)
    with track() as run:
        with warnings.catch_warnings(record=True) as tracked:
            warnings.simplefilter("always")
            run.fit(LogisticRegression(max_iter=2), X, y, eval_set={"t": (X_test, y_test)})
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(ConvergenceWarning):
                run.fit(LogisticRegression(max_iter=2), X, y, name="as error")
    assert [(w.category, str(w.message), w.filename, w.lineno) for w in tracked] == [
        (w.category, str(w.message), w.filename, w.lineno) for w in plain
    ]
    info = run.read()
    (told,) = info.params["warnings"]
    assert told["category"] == "ConvergenceWarning"
    assert told["count"] == 1
    assert info.params["as error"]["fit_error"]["type"] == "ConvergenceWarning"


def test_exception_in_fit_goes_on_and_fails_the_run_with_its_traceback(iris: tuple[Any, ...]) -> None:
    X, _, y, _ = iris
    run = track()
    with pytest.raises(ValueError, match="inconsistent numbers of samples"), run:
        run.fit(LinearRegression(), X, y[:5])
    info = run.read()
    assert info.status == "failed"
    assert info.failure is not None
    assert info.failure.type == "ValueError"
    assert "LinearRegression" in info.failure.traceback or "check_X_y" in info.failure.traceback
    assert info.params["estimator"]["class"].endswith("LinearRegression")


def test_a_failed_fit_that_the_user_catches_does_not_fail_the_run(iris: tuple[Any, ...]) -> None:
    X, _, y, _ = iris
    with track() as run:
        with pytest.raises(ValueError):
            run.fit(LinearRegression(), X, y[:5])
        run.fit(LinearRegression(), X, y)
    info = run.read()
    assert info.status == "finished"
    assert info.params["fit_error"]["type"] == "ValueError"


def test_memory_pipelines_and_estimators_that_only_follow_the_protocol_work(
    iris: tuple[Any, ...], tmp_path: Path
) -> None:
    X, _, y, _ = iris

    class Mine:
        def fit(self, X: Any, y: Any = None, *, eval_set: Any = None) -> None:
            self.seen_ = eval_set

    with track() as run:
        run.fit(make_pipeline(StandardScaler(), SVC(), memory=str(tmp_path / "cache")), X, y)
        mine = run.fit(Mine(), X, y, name="mine", fit_params={"eval_set": "mine"}, log_model=False)
        assert isinstance(mine, Mine)
        assert mine.seen_ == "mine"
        run.fit(Mine(), X, y, name="scored", eval_set={"t": (X, y)}, log_model=False)
        with pytest.raises(runstone.InvalidValue, match="fit_params"):
            run.fit(Mine(), X, y, eval_set=[(X, y)])  # type: ignore[arg-type]
        with pytest.raises(runstone.InvalidValue, match="4 parts"):
            run.fit(Mine(), X, y, eval_set={"t": (X, y, y, y)})
    assert run.read().params["mine"]["estimator"]["class"].endswith("Mine")


def test_run_of_the_user_is_written_to_and_not_ended() -> None:
    with runstone.start_run(project="outer") as outer:
        with track(run=outer) as run:
            run.fit(KMeans(2, random_state=0), np.arange(10.0).reshape(-1, 1), log_model=False)
        assert not outer.is_finished
        outer.log({"after": 1})
    assert outer.read().status == "finished"
    assert {"after", "fit_s"} <= set(outer.read().metrics)


def test_saved_models_load_in_a_process_without_runstone(iris: tuple[Any, ...], tmp_path: Path) -> None:
    X, _, y, _ = iris
    with track() as run:
        search = run.fit(GridSearchCV(SVC(), {"C": [1]}, cv=2, scoring=run.scorer("accuracy")), X, y)
        assert isinstance(search.scoring, TrackedScorer)  # the estimator itself is left as it was
    (tmp_path / "artifact.pkl").write_bytes(content(run.read(), "model.pkl"))
    joblib.dump(search, tmp_path / "by_hand.joblib")
    script = (
        "import sys, joblib\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.startswith('runstone'): raise ImportError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from sklearn.datasets import load_iris\n"
        "X, y = load_iris(return_X_y=True)\n"
        "for path in sys.argv[1:]:\n"
        "    print(joblib.load(path).score(X, y))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "artifact.pkl"), str(tmp_path / "by_hand.joblib")],
        capture_output=True,
        text=True,
        check=True,
    )
    score = search.score(*load_iris(return_X_y=True))
    assert [float(line) for line in result.stdout.split()] == [score, score]


def test_everything_works_with_recording_switched_off(iris: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNSTONE_DISABLED", "1")
    X, X_test, y, y_test = iris
    with track() as run:
        search = GridSearchCV(SVC(), {"C": [1, 2]}, cv=2, scoring=run.scorer(), n_jobs=2)
        run.fit(search, X, y, eval_set={"test": (X_test, y_test)})
        run.cross_validate(SVC(), X, y, cv=2)
    assert search.score(X_test, y_test) > 0.8
    assert not run.run.path.exists()
