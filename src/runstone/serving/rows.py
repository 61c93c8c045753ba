"""What a request holds, as the model takes it: every value checked against the signature, and named where it is wrong.

A request becomes columns: arrays of one length by name. Those of several requests can be joined, so that the model
answers them together. Numbers are checked by the set of their Python types, which is one pass in C.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runstone.models.signature import Field, Schema
from runstone.names import shown
from runstone.server.errors import ApiError

Columns = dict[str, np.ndarray[Any, Any]]
ONLY = ""
"""Name of the column of a model that takes one array."""
_SHOWN = 10
_NONE = type(None)


class BadRows(ApiError):
    """A request that the model cannot take; `details` has row, column and problem of the first ten."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(
            "invalid",
            f"{first}{more}",
            status=422,
            details={"problems": [problem.to_json() for problem in problems[:_SHOWN]]},
        )


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: in which row, counted from 0, and which column, as far as it belongs to one."""

    text: str
    row: int | None = None
    column: str | None = None

    def __str__(self) -> str:
        """Write it with its place."""
        row = f"row {self.row}" if self.row is not None else ""
        column = f"column {self.column!r:.100}" if self.column is not None else ""
        place = ", ".join(part for part in (row, column) if part)
        return f"{place}: {self.text}" if place else self.text

    def to_json(self) -> dict[str, Any]:
        """Return it for an answer."""
        return {"row": self.row, "column": self.column, "problem": self.text}


class _Wrong(Exception):
    """A value that does not fit: its row and what is wrong."""

    def __init__(self, row: int | None, text: str) -> None:
        super().__init__(text)
        self.row = row
        self.text = text


class RowReader:
    """Makes columns of what requests hold.

    Args:
        schema: What the model takes.
        dtypes: Widths of numbers by name, as the model was tried with them; default: 64 bits.
        most_rows: Of a request.
    """

    def __init__(self, schema: Schema, dtypes: Mapping[str, np.dtype[Any]], most_rows: int) -> None:
        self.schema = schema
        self.names = tuple(field.name for field in schema.fields)
        self._most_rows = most_rows
        self._columns = [(field, _converter(field, dtypes.get(field.name))) for field in schema.fields]

    # --- forms -----------------------------------------------------------------------------------------------------

    def of_json(self, raw: Any) -> tuple[Columns, int]:
        """Return columns and the number of rows of a parsed JSON body.

        Raises:
            ApiError: the model cannot take it.
        """
        found = _unwrapped(raw)
        if self.schema.kind == "array":
            return self._of_arrays({ONLY: found})
        if self.schema.kind == "arrays":
            if not isinstance(found, Mapping):
                raise _form(f"give arrays by name: {self._words()}")
            return self._of_arrays(found)
        if isinstance(found, Mapping):
            if found.keys() == {"columns", "data"} or found.keys() == {"columns", "data", "index"}:
                return self._of_split(found["columns"], found["data"])
            return self._of_columns(found)
        if not isinstance(found, list):
            raise _form("`inputs` must be rows (a list of objects), columns (an object of lists), or columns and data")
        self._check_rows(len(found))
        if all(type(row) is dict for row in found):
            return self._of_records(found)
        return self._of_split(list(self.names), found)

    def of_columns(self, found: Mapping[str, Sequence[Any]]) -> tuple[Columns, int]:
        """Return checked columns of lists by name, such as a file holds them.

        Raises:
            ApiError: the model cannot take them.
        """
        if self.schema.kind == "table":
            return self._of_columns(found)
        if self.schema.kind == "array":
            rows = [list(row) for row in zip(*found.values(), strict=True)]
            return self._of_arrays({ONLY: rows})
        return self._of_arrays(found)

    def _of_records(self, rows: list[dict[str, Any]]) -> tuple[Columns, int]:
        values: dict[str, list[Any]] = {}
        missing: list[Problem] = []
        for field, _convert in self._columns:
            name = field.name
            try:
                values[name] = [row[name] for row in rows]
            except KeyError:
                if field.is_optional:
                    values[name] = [row.get(name) for row in rows]
                    continue
                row = next(place for place, row in enumerate(rows) if name not in row)
                missing.append(Problem("is missing", row, name))
        if missing:
            raise BadRows(missing)
        return self._converted(values, len(rows))

    def _of_columns(self, found: Mapping[str, Any]) -> tuple[Columns, int]:
        missing = [
            Problem("is missing", None, one.name)
            for one in self.schema.fields
            if one.name not in found and not one.is_optional
        ]
        if missing:
            raise BadRows(missing)
        count: int | None = None
        for name in self.names:
            values = found.get(name)
            if values is None and name not in found:
                continue
            if not isinstance(values, list):
                raise BadRows([Problem(f"must be a list of values, got {shown(values)}", None, name)])
            if count is not None and len(values) != count:
                raise BadRows([Problem(f"has {len(values)} values, where others have {count}", None, name)])
            count = len(values)
        count = count or 0
        self._check_rows(count)
        return self._converted({name: found.get(name, [None] * count) for name in self.names}, count)

    def _of_split(self, names: Any, rows: Any) -> tuple[Columns, int]:
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise _form("`columns` must be a list of names")
        if len(set(names)) < len(names):
            raise _form("a name occurs twice in `columns`")
        if not isinstance(rows, list):
            raise _form("`data` must be a list of rows")
        self._check_rows(len(rows))
        for place, row in enumerate(rows):
            if not isinstance(row, list) or len(row) != len(names):
                got = f"{len(row)} values" if isinstance(row, list) else shown(row)
                raise BadRows([Problem(f"must be a list of {len(names)} values, got {got}", place)])
        columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _name in names]
        return self._of_columns(dict(zip(names, columns, strict=True)))

    def _of_arrays(self, found: Mapping[str, Any]) -> tuple[Columns, int]:
        values: Columns = {}
        problems: list[Problem] = []
        count: int | None = None
        for field, convert in self._columns:
            if field.name not in found:
                problems.append(Problem("is missing", None, field.name))
                continue
            column = field.name or None
            try:
                array = _array(field, found[field.name], convert)
            except _Wrong as wrong:
                problems.append(Problem(wrong.text, wrong.row, column))
                continue
            if count is not None and len(array) != count:
                problems.append(Problem(f"has {len(array)} rows, where others have {count}", None, column))
            count = len(array)
            values[field.name] = array
        if problems:
            raise BadRows(problems)
        self._check_rows(count or 0)
        return values, count or 0

    # --- values ----------------------------------------------------------------------------------------------------

    def _converted(self, values: Mapping[str, list[Any]], count: int) -> tuple[Columns, int]:
        columns: Columns = {}
        problems: list[Problem] = []
        for field, convert in self._columns:
            try:
                columns[field.name] = convert(values[field.name])
            except _Wrong as wrong:
                problems.append(Problem(wrong.text, wrong.row, field.name))
        if problems:
            raise BadRows(problems)
        return columns, count

    def _check_rows(self, count: int) -> None:
        if count > self._most_rows:
            raise ApiError("too_large", f"a request has at most {self._most_rows:,} rows, this one has {count:,}")
        if count == 0:
            raise _form("there are no rows in it")

    def _words(self) -> str:
        return ", ".join(map(str, self.schema.fields[:_SHOWN]))

    def assembled(self, columns: Columns) -> Any:
        """Return columns as the model takes them: a DataFrame, an array, or arrays by name."""
        if self.schema.kind == "array":
            return columns[ONLY]
        if self.schema.kind == "arrays":
            return columns
        import pandas as pd  # a model of tables was made with it

        return pd.DataFrame(
            {
                field.name: pd.Categorical(columns[field.name])
                if field.dtype == "category"
                else _nullable(field, columns[field.name])
                for field in self.schema.fields
            }
        )


def joined(parts: Sequence[Columns]) -> Columns:
    """Return the columns of several requests below each other."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _unwrapped(raw: Any) -> Any:
    """Return what stands under the name that says its form; the names of MLflow's server are known, too."""
    if not isinstance(raw, dict):
        raise _form('the body must be an object such as {"inputs": [{"column": value}]}')
    for name in ("inputs", "dataframe_split", "dataframe_records", "instances"):
        if name in raw:
            return raw[name]
    if raw.keys() == {"columns", "data"}:
        return raw
    raise _form('the body has no "inputs"; give {"inputs": [{"column": value}]}')


def _form(text: str) -> BadRows:
    return BadRows([Problem(text)])


def _nullable(field: Field, values: np.ndarray[Any, Any]) -> Any:
    """Return a column in which whole numbers or truth values may be missing as pandas has it."""
    if values.dtype == object and field.dtype in ("int64", "bool"):
        import pandas as pd  # as above

        return pd.array(values.tolist(), dtype="Int64" if field.dtype == "int64" else "boolean")
    return values


def _converter(field: Field, width: np.dtype[Any] | None) -> Callable[[list[Any]], np.ndarray[Any, Any]]:
    """Return what makes an array of the values of a column."""
    match field.dtype:
        case "float64":
            dtype = width if width is not None and width.kind == "f" else np.dtype(np.float64)
            return lambda values: _floats(values, dtype)
        case "int64":
            dtype = width if width is not None and width.kind in "iu" else np.dtype(np.int64)
            return lambda values: _integers(values, dtype, is_optional=field.is_optional)
        case "bool":
            return lambda values: _typed(values, bool, "true or false", np.dtype(bool), is_optional=field.is_optional)
        case "text" | "category":
            return lambda values: _typed(values, str, "text", np.dtype(object), is_optional=field.is_optional)
        case "time" | "duration":
            return lambda values: _times(values, field)
        case "bytes":
            return lambda values: _bytes(values, is_optional=field.is_optional)
        case _:
            return _objects


def _floats(values: list[Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    if not set(map(type, values)) <= {float, int, _NONE, bool}:
        row = _first(values, (float, int, bool), is_optional=True)
        raise _Wrong(row, f"must be a number, got {shown(values[row])}")
    try:
        found = np.array(values, np.float64)  # null becomes NaN
        if dtype == np.float64:
            return found
        with np.errstate(over="ignore"):
            return found.astype(dtype)
    except OverflowError:
        row = next(place for place, value in enumerate(values) if type(value) is int and abs(value) >= 1 << 63)
        raise _Wrong(row, f"is too large a number: {shown(values[row])}") from None


def _integers(values: list[Any], dtype: np.dtype[Any], *, is_optional: bool) -> np.ndarray[Any, Any]:
    types = set(map(type, values))
    if not types <= {int, bool}:
        for row, value in enumerate(values):
            is_whole = type(value) is float and value.is_integer()
            if not (type(value) in (int, bool) or is_whole or (value is None and is_optional)):
                raise _Wrong(row, f"must be a whole number, got {shown(value)}")
        values = [None if value is None else int(value) for value in values]
    info = np.iinfo(dtype)
    for row, value in enumerate(values):
        if value is not None and not info.min <= value <= info.max:
            raise _Wrong(row, f"must lie from {info.min} to {info.max}, got {shown(value)}")
    return np.array(values, dtype=object if is_optional and None in values else dtype)


def _typed(
    values: list[Any], wanted: type, word: str, dtype: np.dtype[Any], *, is_optional: bool
) -> np.ndarray[Any, Any]:
    types = set(map(type, values))
    if not types <= {wanted}:
        row = _first(values, (wanted,), is_optional=is_optional)
        if row >= 0:
            raise _Wrong(row, f"must be {word}, got {shown(values[row])}")
        dtype = np.dtype(object)
    return np.array(values, dtype=dtype)


def _times(values: list[Any], field: Field) -> np.ndarray[Any, Any]:
    """Return moments (ISO 8601) or durations (seconds)."""
    word, unit = ("a time such as 2026-03-01T12:00:00", "datetime64[us]")
    if field.dtype == "duration":
        word, unit = ("a number of seconds", "timedelta64[us]")
    found = []
    for row, value in enumerate(values):
        if value is None and field.is_optional:
            found.append(np.array("NaT", unit))
            continue
        try:
            if field.dtype == "duration":
                if type(value) not in (int, float):
                    raise ValueError
                found.append(np.array(round(value * 1e6), unit))
            else:
                found.append(np.array(_moment(value), unit))
        except (ValueError, TypeError, OverflowError):
            raise _Wrong(row, f"must be {word}, got {shown(value)}") from None
    return np.array(found, unit)


def _moment(value: Any) -> Any:
    from datetime import UTC, date, datetime  # few models take times

    moment = datetime.fromisoformat(value) if type(value) is str else value
    if not isinstance(moment, date):
        raise ValueError("no time")
    if isinstance(moment, datetime) and moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return moment


def _bytes(values: list[Any], *, is_optional: bool) -> np.ndarray[Any, Any]:
    found: list[bytes | None] = []
    for row, value in enumerate(values):
        if value is None and is_optional:
            found.append(None)
            continue
        try:
            found.append(value if type(value) is bytes else base64.b64decode(value, validate=True))
        except (binascii.Error, ValueError, TypeError):
            raise _Wrong(row, f"must be Base64 text, got {shown(value)}") from None
    return _objects(found)


def _objects(values: list[Any]) -> np.ndarray[Any, Any]:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _first(values: list[Any], wanted: tuple[type, ...], *, is_optional: bool) -> int:
    """Return the first row whose value is of no wanted type; -1 where there is none."""
    for row, value in enumerate(values):
        if type(value) not in wanted and not (value is None and is_optional):
            return row
    return -1


def _array(field: Field, given: Any, convert: Callable[[list[Any]], np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """Return an array of nested lists, of the shape and kind that the model takes."""
    if not isinstance(given, list):
        raise _Wrong(None, f"must be a list, got {shown(given)}")
    if not given:
        raise _Wrong(None, "there are no rows in it")
    shape = field.shape[1:]
    flat, sizes = given, []
    for depth, size in enumerate(shape):
        sizes.append(size if size >= 0 else _length_of_first(flat))
        flat = _opened(flat, sizes[-1], depth, shape, len(given))
    try:
        array = convert(flat)
    except _Wrong as wrong:
        row = None if wrong.row is None else wrong.row * len(given) // len(flat)
        raise _Wrong(row, wrong.text) from None
    return array.reshape((len(given), *sizes))


def _length_of_first(lists: list[Any]) -> int:
    return len(lists[0]) if lists and isinstance(lists[0], list) else 0


def _opened(lists: list[Any], size: int, depth: int, shape: tuple[int, ...], rows: int) -> list[Any]:
    """Return the values of lists that all have one size."""
    for place, inner in enumerate(lists):
        if not isinstance(inner, list) or len(inner) != size:
            got = f"{len(inner)} values" if isinstance(inner, list) else shown(inner)
            row = place * rows // len(lists)
            raise _Wrong(row, f"must have the shape {_words(shape)}, got {got} at level {depth + 1}")
    return [value for inner in lists for value in inner]


def _words(shape: tuple[int, ...]) -> str:
    return f"({', '.join('*' if size < 0 else str(size) for size in shape)})"
