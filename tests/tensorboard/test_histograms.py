"""Histograms from either version of TensorBoard, against what NumPy counts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from runstone.errors import InvalidValue
from runstone.media import histogram
from runstone.tensorboard.histograms import MOST_BINS, of_message, of_tensor, to_tensor
from runstone.tensorboard.protos import Summary, TensorProto

Floats = st.floats(-1e6, 1e6)


def tensor(rows: Any, *, dtype: str = "<f8") -> Any:
    array = np.array(rows, dtype).reshape(-1, 3)
    made = TensorProto(dtype=2 if dtype == "<f8" else 1, tensor_content=array.tobytes())
    for size in array.shape:
        made.tensor_shape.dim.add(size=size)
    return made


def message(**fields: Any) -> Any:
    value = Summary.Value()
    for name, content in fields.items():
        if name.startswith("bucket"):
            getattr(value.histo, name).extend(content)
        else:
            setattr(value.histo, name, content)
    return value.histo


@given(st.lists(Floats), st.integers(1, 40))
def test_a_histogram_comes_back_from_a_tensor_as_it_was(values: list[float], bins: int) -> None:
    metadata = histogram(values, bins=bins).metadata
    assert of_tensor(to_tensor(metadata)) == {"edges": metadata["edges"], "counts": metadata["counts"]}


@given(st.lists(Floats, min_size=1), st.integers(1, 40))
def test_a_histogram_of_tensorboardx_has_the_counts_of_numpy(values: list[float], bins: int) -> None:
    from tensorboardX.summary import make_histogram

    try:
        counts, edges = np.histogram(values, bins)
    except ValueError:  # NumPy has no edges that close together, and tensorboardX asks NumPy
        reject()
    found = of_message(make_histogram(np.array(values), bins))
    used = np.flatnonzero(counts)
    assert found["counts"] == counts[used[0] : used[-1] + 1].tolist()
    expected = edges[used[0] : used[-1] + 2].tolist()
    assert found["edges"] == pytest.approx(expected)
    assert found["count"] == len(values)
    assert found["mean"] == pytest.approx(np.mean(values))


def test_the_outermost_buckets_of_tensorflow_end_at_the_least_and_the_largest_value() -> None:
    largest = sys.float_info.max
    found = of_message(
        message(min=-5.0, max=9.0, num=6, sum=6.0, bucket_limit=[-1.0, 0.0, 1.0, largest], bucket=[1, 0, 2, 3])
    )
    assert (found["edges"], found["counts"]) == ([-5.0, -1.0, 0.0, 1.0, 9.0], [1, 0, 2, 3])
    assert (found["min"], found["max"], found["mean"]) == (-5.0, 9.0, 1.0)


def test_buckets_of_one_value_get_a_width_and_empty_ones_go() -> None:
    # what TensorFlow writes of values that are all the same: buckets of no width, the last with all
    assert of_tensor(tensor([[3, 3, 0], [3, 3, 0], [3, 3, 7]])) == {"edges": [2.5, 3.5], "counts": [7]}


def test_gaps_between_buckets_are_empty_ones() -> None:
    found = of_tensor(tensor([[0, 1, 2], [4, 5, 0.5]], dtype="<f4"))
    assert found == {"edges": [0, 1, 4, 5], "counts": [2, 0, 0.5]}


def test_without_values_there_are_no_buckets() -> None:
    empty = {"edges": [], "counts": []}
    assert of_tensor(tensor([])) == of_message(message()) == of_message(message(bucket_limit=[1], bucket=[0])) == empty


@pytest.mark.parametrize(
    "rows",
    [
        [[0, 2, 1], [1, 3, 1]],
        [[1, 0, 1]],
        [[0, 1, -1]],
        [[0, 1, np.inf]],
        [[0, np.nan, 1]],
        [[-np.inf, 1, 1]],
        [[n, n + 1, 1] for n in range(MOST_BINS + 1)],
    ],
)
def test_what_is_no_histogram_is_refused(rows: Any) -> None:
    with pytest.raises(InvalidValue):
        of_tensor(tensor(rows))


def test_a_tensor_that_lies_about_its_size_is_refused() -> None:
    lying = tensor([[0, 1, 2]])
    lying.tensor_shape.dim[0].size = 5000
    with pytest.raises(InvalidValue):
        of_tensor(lying)
    lying.tensor_content = b""
    with pytest.raises(InvalidValue):
        of_tensor(lying)
    lying.tensor_shape.dim[0].size = 2**60
    with pytest.raises(InvalidValue):
        of_tensor(lying)


ANY = st.floats() | st.sampled_from([0.0, 1.0, 2.0, 3.0])


@given(st.lists(st.tuples(ANY, ANY), max_size=6), ANY, ANY, ANY, ANY)
def test_messages_of_any_numbers_give_ascending_edges_or_are_refused(
    buckets: list[tuple[float, float]], low: float, high: float, num: float, total: float
) -> None:
    limits, counts_in = [limit for limit, _count in buckets], [count for _limit, count in buckets]
    assert_fit_or_refused(
        of_message, message(min=low, max=high, num=num, sum=total, bucket_limit=limits, bucket=counts_in)
    )


@given(st.lists(st.tuples(ANY, ANY, ANY), max_size=6))
def test_tensors_of_any_numbers_give_ascending_edges_or_are_refused(rows: list[tuple[float, float, float]]) -> None:
    assert_fit_or_refused(of_tensor, tensor(rows))


def assert_fit_or_refused(read: Callable[[Any], dict[str, Any]], given_: Any) -> None:
    try:
        found = read(given_)
    except InvalidValue:
        return
    assert sum(found["counts"]) < 2**66
    assert all(np.isfinite(value) for name, value in found.items() if name not in ("edges", "counts"))
    edges, counts = found["edges"], found["counts"]
    assert isinstance(edges, list)
    assert isinstance(counts, list)
    assert len(edges) == len(counts) + bool(counts)
    assert edges == sorted(set(edges))
