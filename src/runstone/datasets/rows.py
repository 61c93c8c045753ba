"""Rows of tables compared by their content, whatever their order, without holding them: their hashes go to the disk.

Memory is bounded by the size of a batch and of one of 64 parts of the hashes (8 bytes a row).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from runstone.blobs.intake import hash_of_bytes
from runstone.datasets.tables import LOOSEST, STRICTEST, NoTable, Table

_PARTS = 64
_SHOWN_TEXT = 200
Hashes = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class RowDifference:
    """How the rows of two versions differ; a row that occurs twice counts twice.

    Attributes:
        before, after: How many rows each has.
        added, removed: Rows that only one has.
        columns: What was compared: the columns that both have.
        added_samples, removed_samples: The first few of them, as column and value.
    """

    before: int
    after: int
    added: int
    removed: int
    columns: tuple[str, ...]
    added_samples: tuple[Mapping[str, Any], ...]
    removed_samples: tuple[Mapping[str, Any], ...]


def compare_rows(before: Sequence[Table], after: Sequence[Table], *, samples: int = 5) -> RowDifference:
    """Compare the rows of all tables of two versions, in the columns that both have.

    Args:
        before, after: The tables.
        samples: How many rows are shown of each kind.

    Raises:
        NoTable: one cannot be read.
    """
    for leniency in range(STRICTEST, LOOSEST + 1):
        try:
            return _compare(
                [table.read_as(leniency) for table in before], [table.read_as(leniency) for table in after], samples
            )
        except NoTable as error:
            if not error.is_mixed or leniency == LOOSEST:
                raise
    raise AssertionError("unreachable")


def _compare(before: Sequence[Table], after: Sequence[Table], samples: int) -> RowDifference:
    kinds = _common(before, after)
    with tempfile.TemporaryDirectory(prefix="runstone-rows-") as folder:
        sides = [Path(folder, "before"), Path(folder, "after")]
        counts = [_spill(tables, kinds, side) for tables, side in zip((before, after), sides, strict=True)]
        added = removed = 0
        wanted: tuple[dict[int, int], dict[int, int]] = ({}, {})
        for part in range(_PARTS):
            old, new = (_counted(side / f"{part:02}") for side in sides)
            values = np.union1d(old[0], new[0])
            change = _at(values, *new) - _at(values, *old)
            removed -= int(change[change < 0].sum())
            added += int(change[change > 0].sum())
            for index, is_kind in enumerate((change < 0, change > 0)):
                # more than are shown: the first in the files are looked for among them
                for value, count in zip(values[is_kind], np.abs(change[is_kind]), strict=True):
                    if len(wanted[index]) >= samples * 20:
                        break
                    wanted[index][int(value)] = int(count)
    shown = [_shown(tables, kinds, want, samples) for tables, want in zip((before, after), wanted, strict=True)]
    return RowDifference(counts[0], counts[1], added, removed, tuple(kinds), shown[1], shown[0])


def _common(before: Sequence[Table], after: Sequence[Table]) -> dict[str, str]:
    """Return the columns that both have, and how their values are compared."""
    sides: list[dict[str, set[str]]] = [{}, {}]
    for side, tables in zip(sides, (before, after), strict=True):
        for table in tables:
            for one in table.schema():
                side.setdefault(one.name, set()).add(_kind(one.type))
    kinds = {}
    for name in sides[0]:
        if name in sides[1]:
            both = sides[0][name] | sides[1][name]
            kinds[name] = both.pop() if len(both) == 1 else "float" if both == {"int", "float"} else "text"
    return kinds


def _kind(kind: pa.DataType) -> str:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        return "int" if not pa.types.is_uint64(kind) else "text"
    return "float" if pa.types.is_floating(kind) else "text"


def _spill(tables: Sequence[Table], kinds: Mapping[str, str], folder: Path) -> int:
    folder.mkdir()
    files = [(folder / f"{part:02}").open("wb") for part in range(_PARTS)]
    count = 0
    try:
        for batch in _batches(tables):
            hashes = row_hashes(batch, kinds)
            count += len(hashes)
            parts = hashes % np.uint64(_PARTS)
            for part in np.unique(parts):
                files[int(part)].write(hashes[parts == part].tobytes())
    finally:
        for file in files:
            file.close()
    return count


def _batches(tables: Sequence[Table]) -> Iterator[pa.RecordBatch]:
    for table in tables:
        yield from table.batches()


def row_hashes(batch: pa.RecordBatch, kinds: Mapping[str, str]) -> Hashes:
    """Return a hash of each row, shape `(rows,)`."""
    rows = np.zeros(batch.num_rows, dtype=np.uint64)
    for name, kind in kinds.items():
        index = batch.schema.get_field_index(name)
        seed = np.uint64(int(hash_of_bytes(name.encode())[:16], 16))
        values = _WAYS[kind](batch.column(index)) if index >= 0 else np.zeros(batch.num_rows, dtype=np.uint64)
        rows = _mixed(rows ^ _mixed(values ^ seed))
    return rows


def _mixed(values: Hashes) -> Hashes:
    """Spread bits: the finalizer of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


_NULL = np.uint64(0x9E3779B97F4A7C15)


def _of_ints(array: pa.Array) -> Hashes:
    array = _plain(array)
    numbers = array.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    return _with_nulls(array, np.asarray(numbers, dtype=np.int64).view(np.uint64))


def _of_floats(array: pa.Array) -> Hashes:
    array = _plain(array)
    cast = array.cast(pa.int64()) if pa.types.is_boolean(array.type) else array
    numbers = np.array(cast.cast(pa.float64(), safe=False).fill_null(0.0), dtype=np.float64)
    numbers[np.isnan(numbers)] = np.nan  # one NaN
    return _with_nulls(array, (numbers + 0.0).view(np.uint64))  # one zero


def _of_texts(array: pa.Array) -> Hashes:
    array = _plain(array)
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        array = pa.array([None if value is None else _as_text(value) for value in array.to_pylist()], pa.large_string())
    coded = pc.dictionary_encode(array)
    codes = np.asarray(coded.indices.fill_null(0).to_numpy(zero_copy_only=False), dtype=np.int64)
    texts = coded.dictionary.to_pylist()
    hashes = np.array([int(hash_of_bytes(text.encode())[:16], 16) for text in texts] or [0], dtype=np.uint64)
    return _with_nulls(array, hashes[codes])


_WAYS: dict[str, Callable[[pa.Array], Hashes]] = {"int": _of_ints, "float": _of_floats, "text": _of_texts}


def _plain(array: pa.Array) -> pa.Array:
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _with_nulls(array: pa.Array, values: Hashes) -> Hashes:
    if not array.null_count:
        return values
    return np.where(np.asarray(array.is_null()), _NULL, values)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)


def _counted(path: Path) -> tuple[Hashes, NDArray[np.int64]]:
    values, counts = np.unique(np.fromfile(path, dtype=np.uint64), return_counts=True)
    return values, counts.astype(np.int64)


def _at(values: Hashes, known: Hashes, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how often each value occurs."""
    if not len(known):
        return np.zeros(len(values), dtype=np.int64)
    places = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return np.where(known[places] == values, counts[places], 0)


def _shown(
    tables: Sequence[Table], kinds: Mapping[str, str], wanted: dict[int, int], samples: int
) -> tuple[Mapping[str, Any], ...]:
    """Return the first rows whose hashes are wanted."""
    if not wanted or not samples:
        return ()
    looked_for = np.array(sorted(wanted), dtype=np.uint64)
    found: list[Mapping[str, Any]] = []
    left = dict(wanted)
    for batch in _batches(tables):
        hashes = row_hashes(batch, kinds)
        for row in np.flatnonzero(np.isin(hashes, looked_for)):
            key = int(hashes[row])
            if left[key]:
                left[key] -= 1
                (values,) = batch.slice(int(row), 1).to_pylist()
                found.append({name: _short(value) for name, value in values.items()})
            if len(found) == samples:
                return tuple(found)
    return tuple(found)


def _short(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    text = _as_text(value)
    return text if len(text) <= _SHOWN_TEXT else f"{text[:_SHOWN_TEXT]}…"
