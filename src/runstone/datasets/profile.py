"""The profile of tables: per column what values there are and how they are spread. Streamed, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from runstone.datasets.manifest import shown_path
from runstone.datasets.sketch import Counts, Moments, Quantiles
from runstone.datasets.tables import LOOSEST, STRICTEST, NoTable, Table

DISTINCT_BOUND = 10_000
"""More different values than this in a column are not counted."""
_TOP = 50
_BINS = 20
_SHARES = np.linspace(0.0, 1.0, 101)
_MOST_COLUMNS = 2_000
_SHOWN_PATHS = 20
_SHOWN_TEXT = 200


def describe(files: Iterable[Table], *, with_profile: bool) -> list[dict[str, Any]]:
    """Return what is known of the tables in files; files with the same columns are one table.

    Args:
        files: In the order in which they are read.
        with_profile: Whether all rows are read; else only the columns are known.

    Returns:
        For each table `paths` (the first twenty), `file_count`, `schema` (a list of `{name, type}`), and where they
        were read `rows` and `columns` (profiles by name); a file that cannot be read stands alone, with `trouble`.
    """
    files = list(files)
    found: list[dict[str, Any]] = []
    # Text says its types only by its beginning; where the rest does not keep to them, all is read anew, less strictly.
    for leniency in range(STRICTEST, LOOSEST + 1):
        found = _describe([file.read_as(leniency) for file in files], with_profile=with_profile)
        if not any(table.pop("is_mixed", False) for table in found):
            break
    return found


def _describe(files: list[Table], *, with_profile: bool) -> list[dict[str, Any]]:
    tables: dict[Any, dict[str, Any]] = {}
    columns: dict[Any, dict[str, _Column]] = {}
    for file in files:
        try:
            schema = file.schema()
            fields = [{"name": field.name, "type": str(field.type)} for field in schema]
            key: Any = tuple((field["name"], field["type"]) for field in fields)
            table = tables.setdefault(key, {"paths": [], "file_count": 0, "schema": fields})
            if with_profile:
                profiles = columns.setdefault(key, {f.name: _Column(f.type) for f in list(schema)[:_MOST_COLUMNS]})
                table["rows"] = table.get("rows", 0) + _read(file, profiles)
        except NoTable as error:
            key = ("trouble", file.path)
            table = tables.setdefault(key, {"paths": [], "file_count": 0, "schema": [], "trouble": str(error)})
            table["is_mixed"] = error.is_mixed
        table["file_count"] += 1
        if len(table["paths"]) < _SHOWN_PATHS:
            table["paths"].append(shown_path(file.path))
    for key, profiles in columns.items():
        if "rows" in tables[key]:
            tables[key]["columns"] = {name: column.summary() for name, column in profiles.items()}
    return list(tables.values())


def _read(file: Table, columns: Mapping[str, _Column]) -> int:
    rows = 0
    for batch in file.batches():
        rows += batch.num_rows
        names = batch.schema.names
        for name, column in columns.items():
            if name in names:
                column.add(batch.column(names.index(name)))
    return rows


class _Column:
    """One column while it is read."""

    def __init__(self, kind: pa.DataType) -> None:
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        self._kind = kind
        self._count = 0
        self._nulls = 0
        is_float = pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        is_number = is_float or pa.types.is_integer(kind)
        self._moments = Moments() if is_number else None
        self._quantiles = Quantiles() if is_number else None
        is_plain = is_number or pa.types.is_boolean(kind) or pa.types.is_temporal(kind) or _is_text(kind)
        self._counts = Counts(DISTINCT_BOUND, _TOP) if is_plain else None
        self._is_timed = pa.types.is_timestamp(kind) or pa.types.is_date(kind)
        self._range: list[Any] = [None, None]
        self._lengths = Moments() if _is_text(kind) else None

    def add(self, array: pa.Array) -> None:
        """Take in a part of the column."""
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        self._count += len(array)
        self._nulls += array.null_count
        array = array.drop_null()
        if not len(array):
            return
        if self._moments is not None and self._quantiles is not None:
            values = np.asarray(array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=np.float64)
            self._quantiles.add(self._moments.add(values))
        if self._is_timed:
            low, high = (one.as_py() for one in pc.min_max(array).values())
            self._range[0] = low if self._range[0] is None else min(self._range[0], low)
            self._range[1] = high if self._range[1] is None else max(self._range[1], high)
        if self._lengths is not None:
            lengths = pc.binary_length(array).to_numpy(zero_copy_only=False)
            self._lengths.add(np.asarray(lengths, dtype=np.float64))
        if self._counts is not None:
            self._add_counts(self._counts, array)

    def _add_counts(self, counts: Counts, array: pa.Array) -> None:
        if counts.is_over:  # only the most frequent so far are counted on
            watched = pa.array([_raw(value) for value in counts.watched], type=array.type)
            array = array.filter(pc.is_in(array, watched))
        counted = pc.value_counts(array)
        values, numbers = counted.field(0).to_pylist(), counted.field(1).to_pylist()
        counts.add({_hashable(value): number for value, number in zip(values, numbers, strict=True)})

    def summary(self) -> dict[str, Any]:
        """Return what the column comes down to, as JSON."""
        found: dict[str, Any] = {"type": str(self._kind), "count": self._count, "nulls": self._nulls}
        if self._moments is not None and self._quantiles is not None:
            found |= _numbers(self._moments, self._quantiles)
        if self._is_timed:
            found |= {"min": _shown(self._range[0]), "max": _shown(self._range[1])}
        if self._lengths is not None:
            lengths = self._lengths
            found["length"] = {"min": lengths.min, "max": lengths.max, "mean": lengths.mean}
        if self._counts is not None:
            found["distinct"] = self._counts.distinct
            if self._counts.is_over:
                found["distinct_over"] = DISTINCT_BOUND
            found["top"] = [[_shown(value), count] for value, count in self._counts.top()]
        return found


def _numbers(moments: Moments, quantiles: Quantiles) -> dict[str, Any]:
    values, weights = quantiles.weighted()
    found: dict[str, Any] = {
        "nans": moments.nan_count,
        "min": _shown(moments.min),
        "max": _shown(moments.max),
        "mean": moments.mean,
        "std": moments.std,
    }
    if len(values):
        low, high = float(values[0]), float(values[-1])
        edges = np.linspace(low, high, _BINS + 1) if high > low and np.isfinite(high - low) else np.array([low, high])
        shares, _ = np.histogram(values, bins=edges, weights=weights) if high > low else (np.array([sum(weights)]), 0)
        found["quantiles"] = [float(value) for value in quantiles.at(_SHARES)]
        found["histogram"] = {"edges": [float(edge) for edge in edges], "counts": [round(float(one)) for one in shares]}
    return found


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or str(kind) in ("string_view", "binary_view")
    )


class _NaN:
    """NaN as a key: each float NaN is another one."""

    def __str__(self) -> str:
        return "nan"


_NAN = _NaN()


def _hashable(value: Any) -> Any:
    return _NAN if isinstance(value, float) and value != value else value


def _raw(value: Any) -> Any:
    return float("nan") if value is _NAN else value


def _shown(value: Any) -> Any:
    """Return a value as JSON."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else str(value)
    text = str(value)
    return text if len(text) <= _SHOWN_TEXT else f"{text[:_SHOWN_TEXT]}…"
