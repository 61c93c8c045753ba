"""What stretches of 64 points of a long sealed metric come down to: lowest, highest, sum and more. Derived.

A chart of millions of points that also says mean and number of points is made from these, without reading the points.
They lie beside the sealed file, as its levels do (see `zoom`), for the same metrics: one writer, steps that never go
back.
"""

from __future__ import annotations

import itertools
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from runstone.runlog.live import concatenated
from runstone.runlog.portions import Portion, join
from runstone.runlog.sealed import DAMAGE, SealedMetrics, new_file
from runstone.runlog.zoom import is_plain
from runstone.values import Series

BLOCKS = "blocks.parquet"
SIZE = 64
LEAST_POINTS = 1 << 18
_GROUP_ROWS = 1 << 16
_COLUMNS: dict[str, Any] = {
    "step": pa.int64(),
    "wall_s": pa.float64(),
    "last": pa.float64(),
    "low": pa.float64(),
    "high": pa.float64(),
    "total": pa.float64(),
    "count": pa.int32(),
    "nan": pa.int32(),
    "inf": pa.int32(),
}
_SCHEMA = pa.schema(list(_COLUMNS.items()))

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Figures:
    """What stretches of points come down to, arrays of one length.

    Attributes:
        low, high, total: Of the finite values; NaN, NaN and 0 where there are none.
        count: Finite values.
        nan, inf: Values that are NaN, and ±Inf.
    """

    low: Floats
    high: Floats
    total: Floats
    count: Counts
    nan: Counts
    inf: Counts


@dataclass(frozen=True, slots=True)
class Blocks:
    """A long metric, block by block; the last block may be shorter.

    Attributes:
        points: In all.
        first_step, first_wall_s: Of the first of them.
        step, wall_s, last: Of the last point of each block.
        figures: Of each block.
        writer: Who logged it.
    """

    points: int
    first_step: int
    first_wall_s: float
    step: NDArray[np.int64]
    wall_s: Floats
    last: Floats
    figures: Figures
    writer: str


def figures_of(value: Floats, starts: Counts) -> Figures:
    """Return what stretches of values come down to.

    Args:
        value: Shape `(n,)`.
        starts: Ascending indices at which the stretches begin, the first 0, each less than n.
    """
    if not len(value) or not len(starts):
        none, zero = np.empty(0), np.empty(0, np.int64)
        return Figures(none, none, none, zero, zero, zero)
    sizes = np.diff(np.append(starts, len(value)))
    with np.errstate(all="ignore"):  # a sum may be too large for a float: then it says so
        low, total = np.minimum.reduceat(value, starts), np.add.reduceat(value, starts)
        # A sum of finite numbers that overflows looks like one with Inf: then it is looked at more closely, too.
        if np.isfinite(total).all():
            zero = np.zeros(len(starts), np.int64)
            return Figures(low, np.maximum.reduceat(value, starts), total, sizes, zero, zero)
        finite = np.isfinite(value)
        numbers = np.where(finite, value, np.nan)
        nan = np.add.reduceat(np.isnan(value), starts, dtype=np.int64)
        count = np.add.reduceat(finite, starts, dtype=np.int64)
        return Figures(
            np.fmin.reduceat(numbers, starts),
            np.fmax.reduceat(numbers, starts),
            np.add.reduceat(np.where(finite, value, 0.0), starts),
            count,
            nan,
            sizes - count - nan,
        )


def merged(figures: Figures, places: Counts) -> Figures:
    """Return the figures of stretches of stretches, which begin at these places."""
    with np.errstate(all="ignore"):
        return Figures(
            np.fmin.reduceat(figures.low, places),
            np.fmax.reduceat(figures.high, places),
            np.add.reduceat(figures.total, places),
            np.add.reduceat(figures.count, places),
            np.add.reduceat(figures.nan, places),
            np.add.reduceat(figures.inf, places),
        )


def write_blocks(run_path: Path) -> None:
    """Write the blocks of the long metrics of a sealed run, as far as the rows of the sealed file are their curves.

    Raises:
        OSError: the disk is full; the run is as it was.
    """
    sealed = SealedMetrics(run_path)
    names = [name for name in sealed.long_names(LEAST_POINTS) if is_plain(sealed, name)]
    if not names:
        return
    places: list[list[object]] = []
    with new_file(run_path / BLOCKS) as path:
        options = {"compression": "zstd", "use_dictionary": False}
        with pq.ParquetWriter(path, _SCHEMA, write_page_checksum=True, **options) as writer:
            group = 0
            for name in names:
                groups = []
                table = _table_of(sealed, name)
                for start in range(0, len(table), _GROUP_ROWS):
                    writer.write_table(table.slice(start, _GROUP_ROWS))
                    groups.append(group)
                    group += 1
                first = points_between(sealed, name, 0, 1)
                begin = [int(first.step[0]), float(first.wall_s[0])]
                places.append([name, sealed.count(name), groups, *begin])
            told = json.dumps({"format": 1, "sealed": sealed.id, "places": places}).encode()
            writer.add_key_value_metadata({b"runstone": told, b"runstone.crc32": str(zlib.crc32(told)).encode()})


def _table_of(sealed: SealedMetrics, name: str) -> pa.Table:
    tables: list[pa.Table] = []
    rest: Portion | None = None
    for piece in itertools.chain(sealed.pieces(name), [None]):
        if piece is not None:
            rest = concatenated([rest, piece]) if rest is not None else piece
        if rest is None:
            break
        # Whole blocks, so that none is cut; what is left comes with the next piece.
        whole = len(rest) if piece is None else len(rest) // SIZE * SIZE
        part, rest = rest.select(slice(0, whole)), rest.select(slice(whole, None))
        if len(part):
            tables.append(_table(part))
    return pa.concat_tables(tables)


def _table(part: Portion) -> pa.Table:
    value = part.values().astype(np.float64)
    starts = np.arange(0, len(part), SIZE)
    ends = np.append(starts[1:], len(part)) - 1
    found = figures_of(value, starts)
    columns = {
        "step": part.step[ends],
        "wall_s": part.wall_s[ends],
        "last": value[ends],
        **{name: getattr(found, name) for name in Figures.__slots__},
    }
    return pa.table([pa.array(columns[name], kind) for name, kind in _COLUMNS.items()], schema=_SCHEMA)


def read_blocks(sealed: SealedMetrics, name: str) -> Blocks | None:
    """Return the blocks of a metric; `None` where it has none, or they are damaged or of another sealed file."""
    try:
        file = pq.ParquetFile(pa.OSFile(str(sealed.folder / BLOCKS)), page_checksum_verification=True)
        metadata = file.metadata.metadata or {}
        is_whole = zlib.crc32(metadata[b"runstone"]) == int(metadata[b"runstone.crc32"])
        told = json.loads(metadata[b"runstone"])
        if not is_whole or (told["format"], told["sealed"]) != (1, sealed.id):
            return None
        place = next((place for place in told["places"] if place[0] == name), None)
        if place is None or place[1] != sealed.count(name):
            return None
        table = file.read_row_groups(place[2], use_threads=False).combine_chunks()
        columns = {column: table[column].to_numpy() for column in _COLUMNS}
        begin = int(place[3]), float(place[4])
    except (*DAMAGE, TypeError):  # derived: what is missing or damaged is done without
        return None
    counts = {column: columns[column].astype(np.int64) for column in ("count", "nan", "inf")}
    figures = Figures(columns["low"], columns["high"], columns["total"], **counts)
    writer = sealed.first_steps(name)[0][0]
    return Blocks(place[1], *begin, columns["step"], columns["wall_s"], columns["last"], figures, writer)


def points_between(sealed: SealedMetrics, name: str, low: int, high: int) -> Series:
    """Return the points of some rows of a metric that has blocks.

    Raises:
        FormatError: they are damaged.
    """
    return join(name, sealed.portions(name, low, high))
