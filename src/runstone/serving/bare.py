"""Tables of numbers go to estimators of scikit-learn as arrays, where that is the same: four times as fast.

With a DataFrame scikit-learn compares the names of columns and takes the table apart at each call, which takes longer
than a small model. Requests were checked by the signature, and their columns stand in its order. So an estimator gets
an array, and a copy of it forgets the names, without which it would warn. Who looks at names inside gets tables.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from runstone.serving.rows import Columns, RowReader

_NAMES = "feature_names_in_"
_NUMBERS = ("float64", "int64")
# They hand tables, or parts of them, to functions or estimators that may look at names.
_BY_NAME = ("ColumnTransformer", "FunctionTransformer", "FeatureUnion")


def bare_of(model: Any, reader: RowReader, example: Any) -> Any:
    """Return a copy of an estimator that takes arrays and says the same as the estimator to tables.

    Args:
        model: As it was loaded.
        reader: Of its requests.
        example: Body of a request that it takes, by which that is tried.

    Returns:
        `None` where it takes something other than columns of numbers, is no estimator of scikit-learn throughout, or
        does not say the same.
    """
    schema = reader.schema
    if example is None or schema.kind != "table" or any(field.dtype not in _NUMBERS for field in schema.fields):
        return None
    names = getattr(model, _NAMES, None)
    if names is None or list(names) != list(reader.names):
        return None
    bare = _without_names(model)
    if bare is None or not all(_is_plain(one) for one in _estimators(bare)):
        return None
    try:
        columns, _rows = reader.of_json(example)
        table = table_of(columns)
        if table is None:
            return None
        told, said = model.predict(reader.assembled(columns)), bare.predict(table)
    except Exception:  # whatever a model raises: it is asked as it was
        return None
    is_same = type(told) is type(said) is np.ndarray and told.dtype == said.dtype and np.array_equal(told, said)
    return bare if is_same else None


def table_of(columns: Columns) -> np.ndarray[Any, Any] | None:
    """Return columns of numbers beside each other, laid out as pandas does it; `None` where one has other values."""
    arrays = list(columns.values())
    if any(array.dtype.kind not in "fiu" for array in arrays):
        return None
    return np.array(arrays).T


def _without_names(model: Any) -> Any:
    """Return a copy that does not know the names of its columns; of a pipeline the first step is what knows them."""
    bare = copy.copy(model)
    steps = getattr(model, "steps", None)
    if not steps:
        vars(bare).pop(_NAMES, None)
        return bare
    name, first = steps[0]
    if not hasattr(first, "get_params"):  # "passthrough"
        return None
    first = copy.copy(first)
    vars(first).pop(_NAMES, None)
    bare.steps = [(name, first), *steps[1:]]
    return bare


def _is_plain(estimator: Any) -> bool:
    kind = type(estimator)
    return (
        kind.__module__.startswith("sklearn.")
        and kind.__name__ not in _BY_NAME
        and _NAMES not in vars(estimator)  # as `set_output` gives to those behind it, and a search to what it holds
    )


def _estimators(value: Any) -> Iterator[Any]:
    """Yield an estimator and those that it holds."""
    if hasattr(value, "get_params"):
        yield value
        value = vars(value)
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, np.ndarray) and value.dtype == object:
        value = value.ravel().tolist()
    if isinstance(value, list | tuple):
        for one in value:
            yield from _estimators(one)
