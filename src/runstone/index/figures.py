"""Figures of a run's metrics as bytes, and read from them when asked for: a run may have a million. Loads no NumPy.

Little endian: CRC-32 of what follows, number of metrics, length of the names; the names as a JSON list; eleven columns
of 8 bytes a metric, integers or floats.
"""

from __future__ import annotations

import json
import struct
import sys
import zlib
from array import array
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from runstone.values import MetricSummary

_HEAD = struct.Struct("<III")
_CRC_BYTES = 4
_NUMPY_CODES = {"q": "i8", "d": "f8"}
# The mean of a metric without a number is 0 here, as are its extremes: its counts tell.
_COLUMNS = (
    ("count", "q"),
    ("nan_count", "q"),
    ("first_step", "q"),
    ("last_step", "q"),
    ("last", "d"),
    ("min", "d"),
    ("min_step", "q"),
    ("max", "d"),
    ("max_step", "q"),
    ("mean", "d"),
    ("last_at", "d"),
)
_ROW = ("count", "nan_count", "first_step", "last_step", "last", "min", "max", "mean")
_LAST = 4
_FIRST_EXTREME, _LAST_COLUMN = 5, 10


class PackedFigures(Mapping[str, MetricSummary]):
    """What each metric comes down to, by name, from bytes.

    Args:
        data: What `data` of another one holds.

    Raises:
        ValueError: the bytes are damaged.
    """

    def __init__(self, data: bytes) -> None:
        if len(data) < _HEAD.size or zlib.crc32(memoryview(data)[_CRC_BYTES:]) != _HEAD.unpack_from(data)[0]:
            raise ValueError("the figures of metrics are damaged")
        self.data = data
        self._count = int(_HEAD.unpack_from(data)[1])

    @classmethod
    def of(cls, names: list[str], columns: Mapping[str, Any]) -> PackedFigures:
        """Return the figures of metrics.

        Args:
            names: Of the metrics.
            columns: Arrays by the names of `MetricSummary`, which hold 0 where a metric without a number has none.
        """
        texts = json.dumps(names, separators=(",", ":")).encode()
        arrays = [columns[name].astype(f"<{_NUMPY_CODES[code]}").tobytes() for name, code in _COLUMNS]
        body = b"".join([_HEAD.pack(0, len(names), len(texts))[_CRC_BYTES:], texts, *arrays])
        return cls(zlib.crc32(body).to_bytes(_CRC_BYTES, "little") + body)

    @cached_property
    def _rows(self) -> dict[str, int]:
        length = int(_HEAD.unpack_from(self.data)[2])
        return {name: row for row, name in enumerate(json.loads(self.data[_HEAD.size : _HEAD.size + length]))}

    @cached_property
    def columns(self) -> tuple[array[Any], ...]:
        """Values by column, in the order of the names; those of a metric without a number are 0."""
        start = len(self.data) - 8 * self._count * len(_COLUMNS)
        columns = []
        for place, (_name, code) in enumerate(_COLUMNS):
            begin = start + 8 * self._count * place
            column = array(code, self.data[begin : begin + 8 * self._count])
            if sys.byteorder == "big":
                column.byteswap()
            columns.append(column)
        return tuple(columns)

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield name, count, NaN count, first and last step, last, min, max and mean of each metric.

        `None` stands for NaN and for what is missing.
        """
        columns = dict(zip((name for name, _code in _COLUMNS), self.columns, strict=True))
        wanted = [
            columns[name] for name in ("count", "nan_count", "first_step", "last_step", "last", "min", "max", "mean")
        ]
        for name, count, nan_count, first, end, last, lowest, highest, mean in zip(self._rows, *wanted, strict=True):
            last = None if last != last else last
            if count == nan_count:
                yield name, count, nan_count, first, end, last, None, None, None
            else:
                yield name, count, nan_count, first, end, last, lowest, highest, None if mean != mean else mean

    def last_values(self) -> dict[str, float]:
        """Return the last value of each metric, by name."""
        return dict(zip(self._rows, self.columns[_LAST], strict=True))

    def __getitem__(self, name: str) -> MetricSummary:
        """Return what one metric comes down to."""
        row = self._rows[name]
        values: list[Any] = [column[row] for column in self.columns]
        if values[0] == values[1]:  # not one that is a number
            values[_FIRST_EXTREME:_LAST_COLUMN] = [None] * (_LAST_COLUMN - _FIRST_EXTREME)
        return MetricSummary(name, *values)

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self._rows)

    def __len__(self) -> int:
        """Return the number of metrics."""
        return self._count

    def __contains__(self, name: object) -> bool:
        """Return whether the run has the metric."""
        return name in self._rows

    def __repr__(self) -> str:
        """Show it as the dict that it stands for."""
        return repr(dict(self))

    def __reduce__(self) -> tuple[type[PackedFigures], tuple[bytes]]:
        """Pickle the bytes."""
        return PackedFigures, (self.data,)
