"""How fitted estimators err, as tables: the same numbers as scikit-learn's, bounded, and nothing else changes."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk_metrics
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_diabetes
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LinearRegression, LogisticRegression, SGDClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

import runstone
from runstone_integrations._sklearn_evaluation import MAX_CELLS, MAX_CURVES, MAX_POINTS, evaluation_tables
from runstone_integrations.sklearn import track
from tests.integrations.reading import last, table

pytestmark = pytest.mark.usefixtures("elsewhere")


def test_confusion_matrix_equals_that_of_sklearn_weights_included(iris: tuple[Any, ...]) -> None:
    X, X_test, y, y_test = iris
    names, weights = np.array(["setosa", "versicolor", "virginica"]), np.linspace(0.5, 2, len(y_test))
    with track() as run:
        model = run.fit(
            LogisticRegression(C=0.01),
            X,
            names[y],
            eval_set={"test": (X_test, names[y_test]), "weighted": (X_test, names[y_test], weights)},
        )
    info = run.read()
    expected = sk_metrics.confusion_matrix(names[y_test], model.predict(X_test), labels=names)
    rows = table(info, "test/confusion")
    assert {(row["true"], row["predicted"]): row["count"] for row in rows} == {
        (names[i], names[j]): expected[i, j] for i in range(3) for j in range(3)
    }
    assert sum(row["count"] for row in table(info, "weighted/confusion")) == pytest.approx(weights.sum())


def test_roc_and_precision_recall_of_a_binary_classifier_have_the_areas_of_sklearn(cancer: tuple[Any, ...]) -> None:
    X, X_test, y, y_test = cancer
    with track() as run:
        model = run.fit(GaussianNB(), X, y, eval_set={"test": (X_test, y_test)})
        run.fit(LinearSVC(), X, y, name="svm", eval_set={"test": (X_test, y_test)})
    info = run.read()
    probability = model.predict_proba(X_test)[:, 1]
    roc = table(info, "test/roc")
    assert {row["class"] for row in roc} == {"1"}
    area = sk_metrics.auc([r["false_positive_rate"] for r in roc], [r["true_positive_rate"] for r in roc])
    assert area == pytest.approx(sk_metrics.roc_auc_score(y_test, probability))
    curve = table(info, "test/precision_recall")
    average = sum((a["recall"] - b["recall"]) * a["precision"] for a, b in itertools.pairwise(curve))
    assert average == pytest.approx(sk_metrics.average_precision_score(y_test, probability))
    assert len(table(info, "svm/test/roc")) > 2  # by its decision function
    assert "svm/test/calibration" not in info.record_names


def test_calibration_tells_predicted_and_observed_shares_in_each_bin(cancer: tuple[Any, ...]) -> None:
    X, X_test, y, y_test = cancer
    with track() as run:
        model = run.fit(
            make_pipeline(StandardScaler(), LogisticRegression()), X, y, eval_set={"test": (X_test, y_test)}
        )
    rows = table(run.read(), "test/calibration")
    probability = model.predict_proba(X_test)[:, 1]
    assert sum(row["weight"] for row in rows) == len(y_test)
    in_last = probability >= 0.9
    assert rows[-1]["observed"] == pytest.approx(y_test[in_last].mean())
    assert rows[-1]["mean_predicted"] == pytest.approx(probability[in_last].mean())


def test_several_classes_have_a_curve_each_against_the_rest(iris: tuple[Any, ...]) -> None:
    X, X_test, y, y_test = iris
    with track() as run:
        model = run.fit(OneVsRestClassifier(GaussianNB()), X, y, name="ovr", eval_set={"test": (X_test, y_test)})
        run.fit(CalibratedClassifierCV(LinearSVC(), cv=2), X, y, name="sigmoid", eval_set={"test": (X_test, y_test)})
        run.fit(SVC(decision_function_shape="ovo"), X, y, name="ovo", eval_set={"test": (X_test, y_test)})
    info = run.read()
    roc = table(info, "ovr/test/roc")
    for label in range(3):
        own = [row for row in roc if row["class"] == str(label)]
        area = sk_metrics.auc([r["false_positive_rate"] for r in own], [r["true_positive_rate"] for r in own])
        assert area == pytest.approx(sk_metrics.roc_auc_score(y_test == label, model.predict_proba(X_test)[:, label]))
    assert {row["class"] for row in table(info, "sigmoid/test/calibration")} == {"0", "1", "2"}
    assert len(table(info, "ovo/test/confusion")) == 9
    assert "missing_scores" not in info.params["ovo"]


def test_residuals_of_a_regressor_are_at_most_a_thousand_samples() -> None:
    X, y = load_diabetes(return_X_y=True)
    many = np.tile(X, (6, 1)), np.tile(y, 6)
    with track() as run:
        model = run.fit(LinearRegression(), X, y, eval_set={"all": (X, y), "many": many})
        run.fit(LinearRegression(), X, np.column_stack([y, y]), name="two", eval_set={"all": (X, np.c_[y, y])})
    info = run.read()
    rows = table(info, "all/residuals")
    assert [row["actual"] for row in rows] == y.tolist()
    assert [row["residual"] for row in rows] == (y - model.predict(X)).tolist()
    assert len(table(info, "many/residuals")) == MAX_POINTS
    assert "two/all/residuals" not in info.record_names


def test_tables_are_bounded_whatever_the_number_of_samples_and_classes() -> None:
    random = np.random.default_rng(0)
    n, k = 20_000, 60
    truth, scores = random.integers(0, k, n), random.random((n, k))
    predictions = {"predict": scores.argmax(axis=1), "predict_proba": scores}
    tables = evaluation_tables("classifier", np.arange(k), truth, predictions)
    assert len(tables["confusion"]["count"]) == MAX_CELLS
    assert len(set(tables["roc"]["class"])) == MAX_CURVES
    binary = {"predict": scores[:, 0] > 0.5, "predict_proba": scores[:, :2]}
    tables = evaluation_tables("classifier", np.arange(2), truth % 2, binary)
    for name, column in (("roc", "true_positive_rate"), ("precision_recall", "recall")):
        assert len(tables[name]["class"]) == MAX_POINTS
        assert {tables[name][column][0], tables[name][column][-1]} == {0, 1}  # both ends are there
    one_class = evaluation_tables("classifier", np.arange(2), np.zeros(3), {"predict": np.zeros(3)})
    assert one_class["confusion"]["count"] == [3]


def test_curves_are_left_out_where_nobody_asked_for_them(iris: tuple[Any, ...]) -> None:
    X, X_test, y, y_test = iris
    with track() as run:
        run.fit(GaussianNB(), X, y, eval_set={"test": (X_test, y_test)}, curves=False)
        run.fit(GaussianNB(), X, y, eval_set={"test": (X_test, y_test)}, scoring="balanced_accuracy")
    assert run.read().record_names == []


def test_permutation_importances_are_those_of_sklearn_and_only_on_request(iris: tuple[Any, ...]) -> None:
    X, X_test, y, y_test = iris
    frame, frame_test = (pd.DataFrame(data, columns=["a", "b", "c", "d"]) for data in (X, X_test))
    state = np.random.get_state()[1]
    with track() as run:
        model = run.fit(
            make_pipeline(StandardScaler(), GaussianNB()),
            frame,
            y,
            eval_set={"test": (frame_test, y_test)},
            permutation_importance=3,
        )
        run.fit(GaussianNB(), X, y, name="not", eval_set={"test": (X_test, y_test)})
        with pytest.raises(runstone.InvalidValue, match="how often"):
            run.fit(GaussianNB(), X, y, permutation_importance=-1)
    assert np.array_equal(np.random.get_state()[1], state)
    info = run.read()
    expected = permutation_importance(model, frame_test, y_test, n_repeats=3, random_state=0)
    rows = table(info, "test/permutation_importance")
    by_name = {row["feature"]: row["mean"] for row in rows}
    assert [by_name[name] for name in frame.columns] == expected["importances_mean"].tolist()
    assert [row["mean"] for row in rows] == sorted(by_name.values(), reverse=True)
    assert last(info, "test/permutation_importance/a") == by_name["a"]
    assert "not/test/permutation_importance" not in info.record_names


def test_partial_fit_loop_is_a_series_with_the_model_of_its_last_call(iris: tuple[Any, ...]) -> None:
    X, X_test, y, y_test = iris
    plain = SGDClassifier(random_state=0)
    model = SGDClassifier(random_state=0)
    mlp = MLPClassifier((4,), random_state=0)
    with track() as run:
        for epoch in range(3):
            plain.partial_fit(X, y, classes=[0, 1, 2])
            returned = run.partial_fit(
                model, X, y, classes=[0, 1, 2], eval_set={"test": (X_test, y_test)}, log_model=epoch == 2
            )
            run.partial_fit(mlp, X, y, name="mlp", classes=[0, 1, 2])
    assert returned is model
    assert np.array_equal(model.coef_, plain.coef_)
    info = run.read()
    assert info.series("test/accuracy").step.tolist() == [0, 1, 2]
    assert last(info, "test/accuracy") == model.score(X_test, y_test)
    assert info.series("mlp/loss").value.tolist() == mlp.loss_curve_
    assert len(info.series("partial_fit_s")) == 3
    assert info.params["estimator"]["class"].endswith("SGDClassifier")
    assert [artifact.name for artifact in info.artifacts] == ["model.pkl"]


def test_evaluation_adds_no_warning_and_changes_nothing(iris: tuple[Any, ...]) -> None:
    X, X_test, y, y_test = iris
    tree = DecisionTreeClassifier(random_state=0)
    tree.set_output(transform="pandas") if hasattr(tree, "set_output") else None
    before = tree.get_params()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with track() as run:
            run.fit(
                tree,
                pd.DataFrame(X),
                y,
                eval_set={"arrays": (X_test, y_test), "one class": (X_test[:1], y_test[:1])},
                permutation_importance=True,
            )
    assert tree.get_params() == before
    assert set(vars(tree)) == set(vars(DecisionTreeClassifier(random_state=0).fit(pd.DataFrame(X), y)))
    assert len(table(run.read(), "one class/confusion")) >= 1
