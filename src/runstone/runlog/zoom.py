"""Series for plots: any stretch of a metric in a given number of points, in time that does not grow with its length.

Beside a sealed file lie *levels*: of each bucket of 64 points, of each of 512 and of each of 4,096, those that a plot
needs (see `thin`). A plot of a long stretch is made from a level, one of a short stretch from the points. Buckets of
the answer are made of whole buckets of the level, so the answer is exact: no spike is lost, no extreme is moved.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from runstone.errors import FormatError
from runstone.runlog import format as fmt
from runstone.runlog.portions import Portion, join
from runstone.runlog.sealed import SealedMetrics, new_file
from runstone.runlog.series import MetricLog
from runstone.runlog.thin import equal_counts, equal_ranges, thin
from runstone.values import Series

LEVELS = "levels.parquet"
BUCKETS = (64, 512, 4096)
LEAST_POINTS = 1 << 17
_GROUP_ROWS = 1 << 14
_SCHEMA = pa.schema(
    [("row", pa.int64()), ("step", pa.int64()), ("time", pa.timestamp("ms", "UTC")), ("value", pa.float64())]
)


def zoom(log: MetricLog, name: str, *, buckets: int, first: int | None = None, last: int | None = None) -> Series:
    """Return a stretch of a metric in at most `buckets` buckets, each with its first, last, lowest and highest point.

    Args:
        log: The run's points.
        name: The metric.
        buckets: How many; of steps that only grow each covers the same range, about a pixel of a plot.
        first, last: Only steps in this closed range; default: all.

    Returns:
        The points that were kept, as they were logged, in order. NaN and ±Inf of a bucket show by the first of each.

    Raises:
        MetricNotFound: the run never logged it.
        FormatError: it is sealed and damaged.
    """
    levels = _Levels.of(log, name)
    if levels is not None:
        return levels.zoom(buckets, first, last)
    series, is_ordered = log.curve(name)
    low, high = 0, len(series)
    if is_ordered:
        low = int(np.searchsorted(series.step, first, "left")) if first is not None else low
        high = int(np.searchsorted(series.step, last, "right")) if last is not None else high
    elif first is not None or last is not None:
        inside = np.ones(len(series), np.bool_)
        inside &= series.step >= first if first is not None else True
        inside &= series.step <= last if last is not None else True
        return _thinned(_rows(series, np.flatnonzero(inside)), buckets, is_ordered=False)
    return _thinned(_rows(series, slice(low, high)), buckets, is_ordered=is_ordered)


def _rows(series: Series, rows: slice | NDArray[np.int64]) -> Series:
    return Series(series.name, series.step[rows], series.value[rows], series.wall_s[rows])


def _thinned(series: Series, buckets: int, *, is_ordered: bool) -> Series:
    if len(series) <= 4 * buckets:
        return series
    starts = equal_ranges(series.step, buckets) if is_ordered else equal_counts(len(series), buckets)
    return _rows(series, thin(series.value.astype(np.float64, copy=False), starts))


def write_levels(run_path: Path) -> None:
    """Write the levels of the long metrics of a sealed run; short ones need none.

    A metric has levels where one writer logged it, at steps that never go back: then the rows of the sealed file are
    its curve.

    Raises:
        OSError: the disk is full; the run is as it was.
    """
    sealed = SealedMetrics(run_path)
    long = [name for name in sealed.names if sealed.count(name) >= LEAST_POINTS]
    tables: list[tuple[str, int, int, pa.Table]] = []
    for name in long:
        portions = sealed.portions(name)
        if len(portions) != 1 or portions[0].kind not in (fmt.TYPE_FLOAT, fmt.TYPE_INT, fmt.TYPE_BOOL):
            continue
        steps = portions[0].slots["step"]
        if not (np.diff(steps) >= 0).all() or sealed.has_superseded(name):
            continue
        values = portions[0].values().astype(np.float64)
        for bucket in BUCKETS:
            rows = thin(values, np.arange(0, len(values), bucket))
            tables.append((name, bucket, len(values), _table(rows, portions[0], values)))
    if not tables:
        return
    places: list[list[object]] = []
    with new_file(run_path / LEVELS) as path:
        encoding = dict.fromkeys(("row", "step", "time"), "DELTA_BINARY_PACKED") | {"value": "BYTE_STREAM_SPLIT"}
        options = {"compression": "zstd", "use_dictionary": False, "column_encoding": encoding}
        with pq.ParquetWriter(path, _SCHEMA, write_page_checksum=True, **options) as writer:
            group = 0
            for name, bucket, count, table in tables:
                groups = []
                for start in range(0, len(table), _GROUP_ROWS):
                    part = table.slice(start, _GROUP_ROWS)
                    writer.write_table(part)
                    groups.append([group, part["row"][0].as_py()])
                    group += 1
                places.append([name, bucket, count, groups])
            told = {"format": 1, "sealed": sealed.id, "places": places}
            writer.add_key_value_metadata({b"runstone": json.dumps(told).encode()})


class _Levels:
    """The levels of one metric whose curve is the rows of the sealed file."""

    def __init__(self, sealed: SealedMetrics, name: str, file: pq.ParquetFile, places: list[list[Any]]) -> None:
        self._sealed = sealed
        self._name = name
        self._file = file
        self._count = int(places[0][2])
        self._groups: dict[int, list[list[int]]] = {bucket: groups for _name, bucket, _count, groups in places}

    @classmethod
    def of(cls, log: MetricLog, name: str) -> _Levels | None:
        """Return the levels of a metric; `None` where it has none, or where points came since."""
        sealed = log.sealed
        if sealed is None or not log.is_sealed or sealed.count(name) < LEAST_POINTS:
            return None
        if name not in sealed.memo:
            sealed.memo[name] = cls._read(sealed, name)
        found = sealed.memo[name]
        return found if isinstance(found, cls) else None

    @classmethod
    def _read(cls, sealed: SealedMetrics, name: str) -> _Levels | None:
        path = sealed.folder / LEVELS
        try:
            file = pq.ParquetFile(pa.memory_map(str(path)), page_checksum_verification=True)
            told = json.loads((file.metadata.metadata or {})[b"runstone"])
        except (OSError, pa.ArrowInvalid, KeyError, ValueError):  # derived: what is missing or damaged is done without
            return None
        places = [place for place in told["places"] if place[0] == name]
        if told.get("format") != 1 or told.get("sealed") != sealed.id or not places:
            return None
        return cls(sealed, name, file, places)

    def zoom(self, buckets: int, first: int | None, last: int | None) -> Series:
        low = self._row_of(first, "left") if first is not None else 0
        high = self._row_of(last, "right") if last is not None else self._count
        sizes = [size for size in BUCKETS if (high - low) >= size * buckets]
        if not sizes:
            return _thinned(self._points(low, high), buckets, is_ordered=True)
        size = sizes[-1]
        inner_low, inner_high = -(-low // size) * size, high // size * size
        row, inner = self._level(size, inner_low, inner_high)
        left, right = self._points(low, inner_low), self._points(inner_high, high)
        rows = np.concatenate([np.arange(low, inner_low), row, np.arange(inner_high, high)])
        series = Series(
            self._name,
            np.concatenate([left.step, inner.step, right.step]),
            np.concatenate([left.value, inner.value, right.value]).astype(np.float64),
            np.concatenate([left.wall_s, inner.wall_s, right.wall_s]),
        )
        # A bucket of the answer may begin only where one of the level does, or among the single points at the ends.
        possible = np.flatnonzero((rows % size == 0) | (rows < inner_low) | (rows >= inner_high))
        wanted = equal_ranges(series.step, buckets)
        places = np.searchsorted(possible, wanted)
        starts = np.unique(np.append(0, possible[places[places < len(possible)]]))
        return _rows(series, thin(series.value, starts))

    def _row_of(self, step: int, side: Any) -> int:
        """Return the first row of which the step is not before (left), or is after (right), a step."""
        size = BUCKETS[-1]
        row, level = self._level(size, 0, self._count)
        starts = np.flatnonzero(row % size == 0)
        bucket = max(0, int(np.searchsorted(level.step[starts], step, side)) - 1)
        low, high = bucket * size, min((bucket + 1) * size, self._count)
        return low + int(np.searchsorted(self._points(low, high).step, step, side))

    def _points(self, low: int, high: int) -> Series:
        return join(self._name, self._sealed.portions(self._name, low, high))

    def _level(self, size: int, low: int, high: int) -> tuple[NDArray[np.int64], Series]:
        """Return the rows, and the points, of a level between two rows."""
        groups = self._groups[size]
        firsts = [first for _group, first in groups]
        begin = max(0, int(np.searchsorted(firsts, low, "right")) - 1)
        end = int(np.searchsorted(firsts, high, "left"))
        try:
            table = self._file.read_row_groups([group for group, _first in groups[begin:end]], use_threads=False)
        except (OSError, pa.ArrowInvalid) as error:
            raise FormatError(f"{LEVELS} is damaged ({error}); delete it, it is derived") from None
        row = table["row"].to_numpy()
        inside = slice(int(np.searchsorted(row, low, "left")), int(np.searchsorted(row, high, "left")))
        walls = table["time"].cast(pa.int64()).to_numpy() / 1e3
        series = Series(self._name, table["step"].to_numpy()[inside], table["value"].to_numpy()[inside], walls[inside])
        return row[inside], series


def _table(rows: NDArray[np.int64], portion: Portion, values: NDArray[np.float64]) -> pa.Table:
    slots = portion.slots[rows]
    times = pa.array((slots["wall"] * 1e3).round().astype(np.int64)).cast(pa.timestamp("ms", "UTC"))
    return pa.table([pa.array(rows), pa.array(slots["step"]), times, pa.array(values[rows])], schema=_SCHEMA)
