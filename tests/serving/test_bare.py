"""Estimators of scikit-learn that are served with arrays say the same as with tables; all others get tables."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, is_classifier
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, PolynomialFeatures, StandardScaler
from sklearn.svm import SVC

from runstone.models.signature import Schema
from runstone.serving.bare import bare_of, table_of
from runstone.serving.rows import RowReader
from runstone.serving.sources import example_body, widths_of

_DRAW = np.random.default_rng(3)


def people(rows: int, **dtypes: str) -> pd.DataFrame:
    """Return a table of numbers."""
    found = pd.DataFrame({name: _DRAW.normal(scale=3, size=rows) for name in ("income", "age", "debt")})
    return found.astype(dtypes) if dtypes else found


class Own(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Looks at the names of its columns, as whoever writes an estimator may."""

    def fit(self, data: Any, _truth: Any) -> Own:
        """Keep the names, as scikit-learn does."""
        self.feature_names_in_ = np.array(data.columns, dtype=object)
        self.classes_ = np.array([0, 1])
        return self

    def predict(self, data: Any) -> Any:
        """Say something."""
        return np.asarray(data)[:, 0] > 0


def by_name(data: Any) -> Any:
    """Look at a name where there is one."""
    return data * (2 if hasattr(data, "columns") and data.iloc[0, 0] > 5 else 1)


def asked(model: Any, data: pd.DataFrame) -> tuple[Any, RowReader]:
    """Return the estimator for arrays, and the reader of its requests."""
    with warnings.catch_warnings():
        # few steps are no solution, and none is needed; and what is warned of stops nothing where it is served
        warnings.simplefilter("ignore")
        model.fit(data, data["income"] > 0 if is_classifier(model) else data["income"])
        example = data.head()
        reader = RowReader(Schema.infer(example), widths_of(example), 1_000)
        return bare_of(model, reader, example_body(example)), reader


@pytest.mark.parametrize(
    "model",
    [
        LogisticRegression(),
        Ridge(),
        RandomForestClassifier(20, random_state=0),
        GradientBoostingRegressor(n_estimators=20, random_state=0),
        HistGradientBoostingClassifier(max_iter=10),
        KNeighborsRegressor(),
        SVC(),
        MLPRegressor(hidden_layer_sizes=(8,), max_iter=50, random_state=0),
        make_pipeline(StandardScaler(), PolynomialFeatures(), Ridge()),
        make_pipeline(StandardScaler(), LogisticRegression()),
    ],
    ids=lambda one: (
        type(one[-1]).__name__ + "Pipeline" * (len(one) - 1) if hasattr(one, "steps") else type(one).__name__
    ),
)
@pytest.mark.parametrize("dtypes", [{}, {"age": "int64"}, dict.fromkeys(("income", "age", "debt"), "float32")], ids=str)
def test_with_arrays_it_says_the_same_to_the_last_digit(model: Any, dtypes: dict[str, str]) -> None:
    bare, reader = asked(model, people(300, **dtypes))
    assert bare is not None
    for rows in (1, 2, 17, 200):
        columns, _count = reader.of_columns(people(rows, **dtypes).to_dict("list"))
        table = table_of(columns)
        assert table is not None
        told, said = model.predict(reader.assembled(columns)), bare.predict(table)
        assert told.dtype == said.dtype
        assert told.tobytes() == said.tobytes(), f"{rows} rows"
    assert list(model.feature_names_in_) == list(reader.names), "the estimator itself is as it was"


@pytest.mark.parametrize(
    "model",
    [
        Own(),
        GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2),
        make_pipeline(ColumnTransformer([("one", StandardScaler(), ["age"])], remainder="passthrough"), Ridge()),
        make_pipeline(FunctionTransformer(by_name), Ridge()),
        make_pipeline(StandardScaler(), FunctionTransformer(by_name), Ridge()),
        make_pipeline(FeatureUnion([("one", StandardScaler())]), Ridge()),
        make_pipeline(StandardScaler(), LogisticRegression()).set_output(transform="pandas"),
        make_pipeline("passthrough", Ridge()),
        make_pipeline(make_pipeline(StandardScaler()), Ridge()),
    ],
    ids=["own", "search", "columns", "function", "later function", "union", "set_output", "passthrough", "inner"],
)
def test_whoever_may_look_at_names_gets_tables(model: Any) -> None:
    bare, _reader = asked(model, people(300))
    assert bare is None


def test_other_columns_an_other_order_or_no_example_leave_it_with_tables() -> None:
    data = people(100)
    model = Ridge().fit(data, data["income"])
    turned = data[["debt", "age", "income"]]
    for example in (data.assign(kind="a"), turned):
        reader = RowReader(Schema.infer(example.head()), {}, 1_000)
        assert bare_of(model, reader, example_body(example.head())) is None
    reader = RowReader(Schema.infer(data.head()), {}, 1_000)
    assert bare_of(model, reader, None) is None
    assert bare_of(model, reader, {"inputs": [{"income": 1}]}) is None, "an example that does not fit"
    assert bare_of(Ridge().fit(data.to_numpy(), data["income"]), reader, example_body(data.head())) is None


def test_a_copy_that_says_something_else_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    data = people(100)
    model = Ridge().fit(data, data["income"])
    reader = RowReader(Schema.infer(data.head()), {}, 1_000)
    assert bare_of(model, reader, example_body(data.head())) is not None
    usual = Ridge.predict

    def turned(self: Any, given: Any) -> Any:
        return usual(self, given) + (0 if hasattr(given, "columns") else 1e-9)

    monkeypatch.setattr(Ridge, "predict", turned)
    assert bare_of(model, reader, example_body(data.head())) is None


def test_columns_that_are_no_numbers_after_all_make_no_array() -> None:
    numbers = np.array([1.0, 2.0])
    assert table_of({"a": numbers, "b": np.array([1, None], dtype=object)}) is None
    found = table_of({"a": numbers, "b": np.array([1, 2])})
    assert found is not None
    assert found.tolist() == [[1.0, 1.0], [2.0, 2.0]]
    assert found.flags.f_contiguous, "as pandas lays it out: sums are taken in the same order"
