"""Signatures: inferred from the data of real libraries, checked with every problem named, compared for what breaks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from runstone.errors import InvalidValue
from runstone.models.signature import Difference, Schema, Signature, SignatureMismatch, compare

TABLE = pd.DataFrame(
    {
        "age": [30, 40],
        "income": [1.5, float("nan")],
        "city": ["Bern", "Köln"],
        "kind": pd.Categorical(["a", "b"]),
        "at": pd.to_datetime(["2026-01-01", "2026-01-02"]),
        "is_new": [True, False],
    }
)


def words(schema: Schema) -> list[str]:
    return [str(field) for field in schema.fields]


def test_a_table_is_described_by_its_columns() -> None:
    schema = Schema.infer(TABLE)
    assert schema.kind == "table"
    assert words(schema) == [
        "age: int64",
        "income: float64",
        "city: text",
        "kind: category",
        "at: time",
        "is_new: bool",
    ]
    gaps = Schema.infer(pd.DataFrame({"a": ["x", None], "b": pd.array([1, None], dtype="Int64"), 3: [1, 2]}))
    assert words(gaps) == ["a: text?", "b: int64?", "3: int64"]


@pytest.mark.parametrize(
    "value",
    [
        np.zeros((5, 3), np.float32),
        torch.zeros(5, 3, dtype=torch.bfloat16),
        [[1.0, 2.0, 3.0]] * 5,
        torch.nn.Parameter(torch.zeros(5, 3)),
    ],
)
def test_arrays_of_any_library_and_width_are_described_alike(value: Any) -> None:
    assert words(Schema.infer(value)) == ["float64[*, 3]"]


def test_several_arrays_have_names() -> None:
    schema = Schema.infer({"ids": torch.zeros(2, 7, dtype=torch.int64), "mask": np.ones((2, 7), bool)})
    assert schema.kind == "arrays"
    assert words(schema) == ["ids: int64[*, 7]", "mask: bool[*, 7]"]
    assert words(Schema.infer(np.array(["a", "b"], dtype=object))) == ["text[*]"]
    assert words(Schema.infer(np.array(["a", "b"]))) == ["text[*]"]
    assert words(Schema.infer(pd.Series([1, 2]))) == ["int64[*]"]


@pytest.mark.parametrize("value", [object(), {}, {"a": object()}, [[1], [1, 2]]])
def test_what_is_no_data_is_refused(value: Any) -> None:
    with pytest.raises(InvalidValue, match="signature"):
        Signature.infer(value)


def test_a_signature_is_read_as_it_is_written() -> None:
    signature = Signature.infer(TABLE, np.zeros(2))
    assert Signature.from_json(signature.to_json()) == signature
    without = Signature.infer({"x": np.zeros((2, 3, 4))})
    assert Signature.from_json(without.to_json()) == without


def test_columns_are_put_in_order_and_others_left_out() -> None:
    signature = Signature.infer(TABLE[["age", "city"]])
    given = pd.DataFrame({"extra": [1], "city": ["Rom"], "age": [1]})
    assert list(signature.check(given).columns) == ["age", "city"]
    assert signature.check(TABLE[["age", "city"]]) is not None
    numbered = Signature.infer(pd.DataFrame({0: [1], 1: [2]}))
    assert list(numbered.check(pd.DataFrame({1: [1], 0: [2]})).columns) == [0, 1]


def test_everything_that_does_not_fit_is_said_at_once() -> None:
    signature = Signature.infer(TABLE[["age", "income", "city"]])
    with pytest.raises(SignatureMismatch) as caught:
        signature.check(pd.DataFrame({"age": [1.5], "city": ["x"]}), model="credit-risk@1.0.0")
    assert str(caught.value).splitlines() == [
        "credit-risk@1.0.0 cannot take this:",
        "  'age' must be int64, got float64",
        "  column 'income' is missing",
        "it takes a table (age: int64, income: float64, city: text)",
    ]
    with pytest.raises(SignatureMismatch, match="needs a table, got one array"):
        signature.check(np.zeros((2, 3)))
    with pytest.raises(SignatureMismatch, match="'city' has empty rows, and the model never saw one"):
        signature.check(pd.DataFrame({"age": [1, 2], "income": [1.0, 2.0], "city": ["x", None]}))


def test_what_loses_nothing_is_taken() -> None:
    signature = Signature.infer(pd.DataFrame({"a": [1.5], "b": pd.Categorical(["x"])}))
    assert signature.check(pd.DataFrame({"a": [2], "b": ["y"]})) is not None


def test_shapes_count_but_for_the_number_of_samples() -> None:
    signature = Signature.infer(np.zeros((8, 3, 32, 32)))
    assert signature.check(torch.zeros(1, 3, 32, 32)) is not None
    with pytest.raises(SignatureMismatch, match=r"the shape \(\*, 3, 32, 32\), got \(\*, 1, 32, 32\)"):
        signature.check(np.zeros((8, 1, 32, 32)))
    with pytest.raises(SignatureMismatch, match="shape"):
        signature.check(np.zeros((3, 32, 32)))


def test_a_long_list_of_problems_is_cut() -> None:
    signature = Signature.infer(pd.DataFrame({f"c{i}": [1] for i in range(40)}))
    with pytest.raises(SignatureMismatch, match="… and 29 more"):
        signature.check(pd.DataFrame({"c0": [1]}))


def of(inputs: Any, outputs: Any = None) -> Signature:
    return Signature.infer(inputs, outputs)


A, AB = TABLE[["age"]], TABLE[["age", "city"]]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (of(A), of(A), []),
        (None, None, []),
        (None, of(A), [("there is a signature now", False)]),
        (of(A), None, [("the signature is gone", True)]),
        (of(A), of(AB), [("input 'city' is new", True)]),
        (of(AB), of(A), [("input 'city' is gone", False)]),
        (of(A, A), of(A, AB), [("output 'city' is new", False)]),
        (of(A, AB), of(A, A), [("output 'city' is gone", True)]),
        (of(np.zeros((2, 3))), of(np.zeros((2, 4))), [("input has the shape (*, 4) instead of (*, 3)", True)]),
        (of(A), of(np.zeros((2, 4))), [("input: one array instead of a table", True)]),
        (of(A), of(A.astype(float)), [("input 'age' is float64 instead of int64", False)]),
        (of(A.astype(float)), of(A), [("input 'age' is int64 instead of float64", True)]),
        # a reader of whole numbers may not be given fractions; one of fractions may be given whole numbers
        (of(A, np.zeros(2, int)), of(A, np.zeros(2)), [("output is float64 instead of int64", True)]),
        (of(A, np.zeros(2)), of(A, np.zeros(2, int)), [("output is int64 instead of float64", False)]),
        (of(A, A), of(A), [("the outputs are no longer described", False)]),
    ],
)
def test_what_breaks_those_who_use_a_model_is_told(
    old: Signature | None, new: Signature | None, expected: list[tuple[str, bool]]
) -> None:
    assert compare(old, new) == [Difference(*one) for one in expected]
