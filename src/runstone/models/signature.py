"""What a model takes and gives: names, types and shapes, inferred from data and checked before a prediction.

A signature describes tables (columns by name) and arrays (one, or several by name). It is inferred by duck typing, so
NumPy, pandas, polars, torch, JAX and TensorFlow data are all understood and none of them has to be installed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from runstone.errors import InvalidValue, RunstoneError
from runstone.names import shown

Kind = Literal["table", "array", "arrays"]
_MANY = -1
# What a value of one type may be handed to without losing anything.
_WIDER: dict[str, tuple[str, ...]] = {
    "bool": ("int64", "float64"),
    "int64": ("float64",),
    "category": ("text",),
    "text": ("category",),
}
_SHOWN = 10


class SignatureMismatch(RunstoneError, TypeError):
    """Data that a model cannot take, with everything that is wrong about it."""


@dataclass(frozen=True, slots=True)
class Field:
    """One column or array.

    Attributes:
        name: Of the column or the array; empty for the only array.
        dtype: `bool`, `int64`, `float64`, `text`, `category`, `time`, `duration`, `bytes`, `complex128`, `object`: the
            kind of value, whatever its width.
        shape: Of an array, -1 where any length goes; the first axis of more than one item counts samples. Empty for
            a column.
        is_optional: Whether a column may hold nothing in some rows.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] = ()
    is_optional: bool = False

    def __str__(self) -> str:
        """Write it as `name: dtype` with its shape."""
        shape = f"[{', '.join('*' if size == _MANY else str(size) for size in self.shape)}]" if self.shape else ""
        optional = "?" if self.is_optional else ""
        return f"{self.name}: {self.dtype}{shape}{optional}" if self.name else f"{self.dtype}{shape}"


@dataclass(frozen=True, slots=True)
class Schema:
    """One side of a signature: the columns of a table, or arrays."""

    kind: Kind
    fields: tuple[Field, ...]

    @classmethod
    def infer(cls, data: Any) -> Schema:
        """Return what data looks like.

        Args:
            data: A DataFrame, an array or tensor, a mapping of these by name, a list of numbers, or one Series.

        Raises:
            InvalidValue: it is none of these.
        """
        columns = _columns(data)
        if columns is not None:
            return cls("table", tuple(Field(name, *_of_column(column)) for name, column in columns))
        if isinstance(data, Mapping):
            if not data:
                raise InvalidValue("a signature cannot be inferred from an empty mapping")
            return cls("arrays", tuple(Field(str(name), *_of_array(value)) for name, value in data.items()))
        return cls("array", (Field("", *_of_array(data)),))

    def problems(self, data: Any) -> list[str]:
        """Return what keeps `data` from being of this schema, each in one line; empty where it fits."""
        try:
            given = Schema.infer(data)
        except InvalidValue as error:
            return [str(error)]
        if self.kind != given.kind:
            return [f"it needs {_KIND_WORDS[self.kind]}, got {_KIND_WORDS[given.kind]}"]
        there = {field.name: field for field in given.fields}
        found = []
        for field in self.fields:
            other = there.get(field.name)
            name = f"{field.name!r}" if field.name else "the array"
            if other is None:
                found.append(f"{'column' if self.kind == 'table' else 'array'} {name} is missing")
                continue
            if field.dtype not in (other.dtype, *_WIDER.get(other.dtype, ())):
                found.append(f"{name} must be {field.dtype}, got {other.dtype}")
            if other.is_optional and not field.is_optional:
                found.append(f"{name} has empty rows, and the model never saw one")
            if not _fits(field.shape, other.shape):
                found.append(f"{name} must have the shape {_shape(field.shape)}, got {_shape(other.shape)}")
        return found

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "kind": self.kind,
            "fields": [
                {
                    "name": field.name,
                    "dtype": field.dtype,
                    **({"shape": list(field.shape)} if field.shape else {}),
                    **({"optional": True} if field.is_optional else {}),
                }
                for field in self.fields
            ],
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Schema:
        """Return what `to_json` gave."""
        return cls(
            raw["kind"],
            tuple(
                Field(f["name"], f["dtype"], tuple(f.get("shape", ())), bool(f.get("optional"))) for f in raw["fields"]
            ),
        )


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes, and what it gives where that is known."""

    inputs: Schema
    outputs: Schema | None = None

    @classmethod
    def infer(cls, inputs: Any, outputs: Any = None) -> Signature:
        """Return the signature of a model that was given `inputs` and gave `outputs`.

        Raises:
            InvalidValue: one of them is no table and no array.
        """
        return cls(Schema.infer(inputs), None if outputs is None else Schema.infer(outputs))

    def check(self, data: Any, *, model: str = "the model") -> Any:
        """Return `data` as the model takes it: a table has the model's columns in their order, and no others.

        Args:
            data: What is to be predicted on.
            model: What the message calls the model.

        Raises:
            SignatureMismatch: it does not fit; the message says everything that is wrong.
        """
        problems = self.inputs.problems(data)
        if problems:
            more = f"\n  … and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
            listed = "\n  ".join(problems[:_SHOWN])
            raise SignatureMismatch(f"{model} cannot take this:\n  {listed}{more}\nit takes {self.describe_inputs()}")
        if self.inputs.kind == "table":
            names = [field.name for field in self.inputs.fields]
            columns = {str(column): column for column in data.columns}  # a column may be named by a number
            return data[[columns[name] for name in names]] if list(columns) != names else data
        return data

    def describe_inputs(self) -> str:
        """Return what the model takes, in one line."""
        shown_fields = ", ".join(map(str, self.inputs.fields[:_SHOWN]))
        more = f", … ({len(self.inputs.fields)} in all)" if len(self.inputs.fields) > _SHOWN else ""
        return f"{_KIND_WORDS[self.inputs.kind]} ({shown_fields}{more})"

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"inputs": self.inputs.to_json(), "outputs": self.outputs.to_json() if self.outputs else None}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Signature:
        """Return what `to_json` gave."""
        return cls(Schema.from_json(raw["inputs"]), Schema.from_json(raw["outputs"]) if raw.get("outputs") else None)


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing in which two signatures differ, and whether those who use the model must change for it."""

    what: str
    is_breaking: bool


def compare(old: Signature | None, new: Signature | None) -> list[Difference]:
    """Return in what the new signature differs from the old one.

    It breaks those who use the model when it needs what they do not send, or no longer gives what they read.
    """
    if old is None or new is None:
        if old is new:
            return []
        gone = "the signature is gone" if new is None else "there is a signature now"
        return [Difference(gone, is_breaking=new is None)]
    found = _compare(old.inputs, new.inputs, is_input=True)
    if old.outputs is not None and new.outputs is not None:
        found += _compare(old.outputs, new.outputs, is_input=False)
    elif old.outputs is not None:
        found.append(Difference("the outputs are no longer described", is_breaking=False))
    return found


def _compare(old: Schema, new: Schema, *, is_input: bool) -> list[Difference]:
    side = "input" if is_input else "output"
    if old.kind != new.kind:
        return [Difference(f"{side}: {_KIND_WORDS[new.kind]} instead of {_KIND_WORDS[old.kind]}", is_breaking=True)]
    before = {field.name: field for field in old.fields}
    after = {field.name: field for field in new.fields}
    found = []
    for name in before.keys() - after.keys():
        found.append(Difference(f"{side} {name!r} is gone", is_breaking=not is_input))
    for name in after.keys() - before.keys():
        found.append(Difference(f"{side} {name!r} is new", is_breaking=is_input))
    for name in before.keys() & after.keys():
        one, other = before[name], after[name]
        what = f"{side} {name!r}" if name else side
        if one.dtype != other.dtype:
            sent, taken = (one.dtype, other.dtype) if is_input else (other.dtype, one.dtype)
            is_breaking = taken not in _WIDER.get(sent, ())
            found.append(Difference(f"{what} is {other.dtype} instead of {one.dtype}", is_breaking))
        if one.shape != other.shape:
            fits = _fits(other.shape, one.shape) if is_input else _fits(one.shape, other.shape)
            shapes = f"{_shape(other.shape)} instead of {_shape(one.shape)}"
            found.append(Difference(f"{what} has the shape {shapes}", is_breaking=not fits))
        if one.is_optional != other.is_optional:
            needs = "may be empty" if other.is_optional else "must not be empty any more"
            found.append(Difference(f"{what} {needs}", is_breaking=other.is_optional != is_input))
    return sorted(found, key=lambda difference: (not difference.is_breaking, difference.what))


_KIND_WORDS: dict[Kind, str] = {"table": "a table", "array": "one array", "arrays": "arrays by name"}


def _columns(data: Any) -> list[tuple[str, Any]] | None:
    """Return name and column of a table of pandas or polars, or `None` where it is no table."""
    if not hasattr(data, "columns") or not hasattr(data, "dtypes"):
        return None
    names = list(data.columns)
    return [(str(name), data[name]) for name in names]


def _of_column(column: Any) -> tuple[str, tuple[int, ...], bool]:
    dtype = str(column.dtype)
    values: Sequence[Any] = ()
    if dtype == "object":
        values = [value for value in column if value is not None and value == value]
    nulls = column.isna().any() if hasattr(column, "isna") else column.null_count() > 0
    kind = _kind_of(dtype, values)
    # A float column holds NaN as a number like others; only what has no such number is empty.
    return kind, (), bool(nulls) and kind != "float64"


def _of_array(value: Any) -> tuple[str, tuple[int, ...]]:
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        value = _as_array(value)
    shape = tuple(int(size) for size in value.shape)
    kind = _kind_of(str(value.dtype), value.ravel()[:1000].tolist() if str(value.dtype) == "object" else ())
    # The first axis counts samples.
    return kind, (_MANY, *shape[1:]) if shape else ()


def _as_array(value: Any) -> Any:
    import numpy as np

    try:
        array = np.asarray(value)
    except (ValueError, TypeError):
        array = None
    if array is None or (array.dtype == object and array.shape == ()):
        raise InvalidValue(f"a signature comes from tables, arrays and mappings of arrays, not from {shown(value)}")
    return array


def _kind_of(dtype: str, values: Sequence[Any]) -> str:
    """Return the kind of value that a dtype of any library stands for."""
    word = dtype.lower().rpartition(".")[2]  # torch.float32
    for begin, kind in _DTYPES:
        if word.startswith(begin):
            return kind
    if values and all(isinstance(value, str) for value in values):
        return "text"
    if values and all(isinstance(value, bytes) for value in values):
        return "bytes"
    if values and all(isinstance(value, bool) for value in values):
        return "bool"
    return "object"


_DTYPES = (
    ("bool", "bool"),
    ("int", "int64"),
    ("uint", "int64"),
    ("long", "int64"),
    ("float", "float64"),
    ("double", "float64"),
    ("half", "float64"),
    ("bfloat", "float64"),
    ("decimal", "float64"),
    ("complex", "complex128"),
    ("str", "text"),
    ("utf8", "text"),
    ("<u", "text"),
    (">u", "text"),
    ("categor", "category"),
    ("enum", "category"),
    ("date", "time"),
    ("time", "time"),
    ("period", "time"),
    ("duration", "duration"),
    ("binary", "bytes"),
    ("|s", "bytes"),
)


def _fits(taken: tuple[int, ...], given: tuple[int, ...]) -> bool:
    if len(taken) != len(given):
        return False
    return all(a in (_MANY, b) for a, b in zip(taken, given, strict=True))


def _shape(shape: tuple[int, ...]) -> str:
    return f"({', '.join('*' if size == _MANY else str(size) for size in shape)})"
