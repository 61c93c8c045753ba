"""Series for plots: any stretch of a metric in a given number of points, in time that does not grow with its length.

Beside a sealed file lie *levels*: of each bucket of 64 points, of each of 512 and of each of 4,096, those that a plot
needs (see `thin`). A plot of a long stretch is made from a level, one of a short stretch from the points. Buckets of
the answer are made of whole buckets of the level, so the answer is exact: no spike is lost, no extreme is moved.
"""

from __future__ import annotations

import itertools
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from runstone.errors import FormatError
from runstone.runlog import format as fmt
from runstone.runlog.live import concatenated
from runstone.runlog.portions import Portion, join
from runstone.runlog.sealed import DAMAGE, SealedMetrics, new_file
from runstone.runlog.series import MetricLog
from runstone.runlog.thin import equal_counts, equal_ranges, ranges_between, thin
from runstone.values import Series

LEVELS = "levels.parquet"
BUCKETS = (64, 512, 4096)
LEAST_POINTS = 1 << 17
LONG_POINTS = 1 << 24
"""An unsealed metric of more points is read through once for each plot, instead of being held in memory."""
_PIECE_ROWS = 1 << 20
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
    if log.live.points_of(name) > LONG_POINTS:
        found = log.through_sealing(lambda: _through(log, name, buckets, first, last))
        if found is not None:
            return found
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


def _through(log: MetricLog, name: str, buckets: int, first: int | None, last: int | None) -> Series | None:
    """Return what `zoom` does, from the logs, piece by piece; `None` where the points are not one ordered curve."""
    if log.sealed is not None or log.limits(name) or len({writer for writer, _step in log.live.first_steps(name)}) > 1:
        return None
    inside = [_inside(piece, first, last) for piece in log.live.pieces(name, _PIECE_ROWS)]
    if None in inside:
        return None
    ends = [stretch for stretch in inside if stretch]
    if any(after[0] < before[1] for before, after in itertools.pairwise(ends)):
        return None
    if not ends:
        empty = np.empty(0, np.int64)
        return Series(name, empty, empty.astype(np.float64), empty.astype(np.float64))
    whole = np.array([ends[0][0], ends[-1][1]])
    is_short = sum(stretch[2] for stretch in ends) <= 4 * buckets
    kept = []
    for piece in log.live.pieces(name, _PIECE_ROWS):
        low = int(np.searchsorted(piece.step, first, "left")) if first is not None else 0
        high = int(np.searchsorted(piece.step, last, "right")) if last is not None else len(piece)
        part = piece.select(slice(low, high))
        if len(part) and not is_short:
            starts = ranges_between(part.step, whole, buckets)
            part = part.select(thin(part.values().astype(np.float64), starts))
        kept.append(part)
    series = join(name, [concatenated(kept)])
    if is_short:
        return series
    return _rows(series, thin(series.value.astype(np.float64), ranges_between(series.step, whole, buckets)))


def _inside(piece: Portion, first: int | None, last: int | None) -> tuple[int, int, int] | tuple[()] | None:
    """Return the first and last step in a range, and how many points; nothing where there are none.

    `None` where steps go back.
    """
    if (piece.step[1:] < piece.step[:-1]).any():
        return None
    low = int(np.searchsorted(piece.step, first, "left")) if first is not None else 0
    high = int(np.searchsorted(piece.step, last, "right")) if last is not None else len(piece)
    return (int(piece.step[low]), int(piece.step[high - 1]), high - low) if low < high else ()


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
    long = [name for name in sealed.long_names(LEAST_POINTS) if is_plain(sealed, name)]
    if not long:
        return
    places: list[list[object]] = []
    with new_file(run_path / LEVELS) as path:
        encoding = dict.fromkeys(("row", "step", "time"), "DELTA_BINARY_PACKED") | {"value": "BYTE_STREAM_SPLIT"}
        options = {"compression": "zstd", "use_dictionary": False, "column_encoding": encoding}
        with pq.ParquetWriter(path, _SCHEMA, write_page_checksum=True, **options) as writer:
            group = 0
            for name in long:
                for bucket, table in zip(BUCKETS, _levels_of(sealed, name), strict=True):
                    groups = []
                    for start in range(0, len(table), _GROUP_ROWS):
                        part = table.slice(start, _GROUP_ROWS)
                        writer.write_table(part)
                        groups.append([group, part["row"][0].as_py()])
                        group += 1
                    places.append([name, bucket, sealed.count(name), groups])
            told = json.dumps({"format": 2, "sealed": sealed.id, "places": places}).encode()
            writer.add_key_value_metadata({b"runstone": told, b"runstone.crc32": str(zlib.crc32(told)).encode()})


def is_plain(sealed: SealedMetrics, name: str) -> bool:
    """Return whether the rows of a metric are its curve, at steps that never go back."""
    kinds, writers = sealed.kinds(name), {writer for writer, _step in sealed.first_steps(name)}
    return (
        len(kinds) == len(writers) == 1
        and kinds.isdisjoint(fmt.BESIDE)
        and not sealed.has_superseded(name)
        and sealed.is_ordered(name)
    )


def _levels_of(sealed: SealedMetrics, name: str) -> list[pa.Table]:
    """Return the levels of a metric, the finest first, read piece by piece."""
    levels: list[list[pa.Table]] = [[] for _ in BUCKETS]
    before = 0
    rest: Portion | None = None
    for piece in itertools.chain(sealed.pieces(name), [None]):
        if piece is not None:
            rest = concatenated([rest, piece]) if rest is not None else piece
        if rest is None:
            break
        # Whole buckets of the coarsest level, so that none is cut; what is left comes with the next piece.
        whole = len(rest) if piece is None else len(rest) // BUCKETS[-1] * BUCKETS[-1]
        part, rest = rest.select(slice(0, whole)), rest.select(slice(whole, None))
        rows = np.arange(whole)
        value = part.values().astype(np.float64)
        for bucket, level in zip(BUCKETS, levels, strict=True):
            # A coarser level is made of a finer one: what it keeps of a bucket is among what that kept.
            starts = np.searchsorted(rows, np.arange(0, whole, bucket)) if bucket > BUCKETS[0] else rows[::bucket]
            rows = rows[thin(value[rows], starts)]
            level.append(_table(rows, before, part, value))
        before += whole
    return [pa.concat_tables(level) for level in levels]


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
        if sealed is None or log.live.points_of(name) or sealed.count(name) < LEAST_POINTS:
            return None
        if not log.limits(name).keys().isdisjoint(log.attempt_of(writer) for writer, _ in sealed.first_steps(name)):
            return None
        if name not in sealed.memo:
            sealed.memo[name] = cls._read(sealed, name)
        found = sealed.memo[name]
        return found if isinstance(found, cls) else None

    @classmethod
    def _read(cls, sealed: SealedMetrics, name: str) -> _Levels | None:
        path = sealed.folder / LEVELS
        try:
            file = pq.ParquetFile(pa.OSFile(str(path)), page_checksum_verification=True)
            metadata = file.metadata.metadata or {}
            is_whole = zlib.crc32(metadata[b"runstone"]) == int(metadata[b"runstone.crc32"])
            told = json.loads(metadata[b"runstone"])
            places = [place for place in told["places"] if place[0] == name]
            is_as_written = (told["format"], told["sealed"]) == (2, sealed.id) and file.schema_arrow.equals(_SCHEMA)
        except (*DAMAGE, TypeError):  # derived: what is missing or damaged is done without
            return None
        if not is_whole or not is_as_written or not places:
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
        except DAMAGE as error:
            raise FormatError(f"{LEVELS} is damaged ({error}); delete it, it is derived") from None
        row = table["row"].to_numpy()
        inside = slice(int(np.searchsorted(row, low, "left")), int(np.searchsorted(row, high, "left")))
        walls = table["time"].cast(pa.int64()).to_numpy() / 1e3
        series = Series(self._name, table["step"].to_numpy()[inside], table["value"].to_numpy()[inside], walls[inside])
        return row[inside], series


def _table(rows: NDArray[np.int64], before: int, portion: Portion, value: NDArray[np.float64]) -> pa.Table:
    times = pa.array((portion.wall_s[rows] * 1e3).round().astype(np.int64)).cast(pa.timestamp("ms", "UTC"))
    columns = [pa.array(rows + before), pa.array(portion.step[rows]), times, pa.array(value[rows])]
    return pa.table(columns, schema=_SCHEMA)
