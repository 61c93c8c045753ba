"""Ended runs in one compact file, `metrics.parquet`, which any Parquet reader understands. Takes points, gives points.

Rows lie metric by metric, in the order in which they were logged; one row group holds part of a large metric or several
small ones. The footer says which rows are whose, so one metric is read without the others. Every page carries a
checksum.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from runstone.errors import FormatError
from runstone.runlog import format as fmt
from runstone.runlog.catalogue import SEALED_FORMAT, Catalogue, catalogue_of, read_catalogue
from runstone.runlog.live import BATCH_POINTS, Batch
from runstone.runlog.portions import Portion
from runstone.runlog.series import MetricLog
from runstone.runlog.tail import SEALED, file_identity

GROUP_ROWS = 1 << 17
DAMAGE = (pa.ArrowException, OSError, ValueError, LookupError)
"""What Arrow raises for a file that is damaged, depending on where."""
_EXACT = 2**53  # integers beyond it have no exact float
_FOOTER_BYTES = 1 << 30
_YEARS_1_TO_9999_MS = (-62_135_596_800_000, 253_402_300_799_000)  # a clock may tell anything; other tools know these

SCHEMA = pa.schema(
    [
        ("metric", pa.dictionary(pa.int32(), pa.string())),
        ("step", pa.int64()),
        ("time", pa.timestamp("ms", "UTC")),
        ("value", pa.float64()),
        ("integer", pa.int64()),
        ("text", pa.string()),
        ("attempt", pa.int32()),
        ("superseded", pa.bool_()),
    ]
)
_ENCODING = {
    "step": "DELTA_BINARY_PACKED",
    "time": "DELTA_BINARY_PACKED",
    "value": "BYTE_STREAM_SPLIT",
    "integer": "DELTA_BINARY_PACKED",
    "text": "PLAIN",
    "attempt": "DELTA_BINARY_PACKED",
    "superseded": "PLAIN",
}


@dataclass(frozen=True, slots=True)
class Stretches:
    """What is sealed together: points of neighbouring metrics, metric by metric, writer by writer.

    Attributes:
        names: Name of each stretch, in alphabetical order; one may have several.
        writer: Writer of each stretch, as a number.
        kind, attempt: Of each stretch.
        start: Where each stretch begins, and where the last ends, shape `(stretches + 1,)`.
        step, wall_s, bits: As in `Portion`, of all.
        is_superseded: Which points a later attempt superseded.
        payloads: Texts and records as JSON, by stretch.
    """

    names: list[str]
    writer: NDArray[np.int64]
    kind: NDArray[np.int64]
    attempt: NDArray[np.int64]
    start: NDArray[np.int64]
    step: NDArray[np.int64]
    wall_s: NDArray[np.float64]
    bits: NDArray[np.int64]
    is_superseded: NDArray[np.bool_]
    payloads: dict[int, NDArray[np.object_]]

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.step)

    def select(self, low: int, high: int) -> Stretches:
        """Return some of the points, given as a range of rows."""
        first = int(np.searchsorted(self.start, low, "right")) - 1
        last = int(np.searchsorted(self.start, high, "left"))
        start = np.clip(self.start[first : last + 1], low, high) - low
        payloads = {}
        for place, texts in self.payloads.items():
            if first <= place < last:
                begin = int(self.start[place])
                payloads[place - first] = texts[max(0, low - begin) : high - begin]
        rows = slice(low, high)
        return Stretches(
            self.names[first:last],
            self.writer[first:last],
            self.kind[first:last],
            self.attempt[first:last],
            start,
            self.step[rows],
            self.wall_s[rows],
            self.bits[rows],
            self.is_superseded[rows],
            payloads,
        )


class _Places:
    """Collects which rows of the file are whose."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._columns: list[tuple[NDArray[Any], ...]] = []

    def add(self, part: Stretches, group: int, row: int) -> None:
        """Note stretches that begin at a row of a row group."""
        numbers = []
        for name in part.names:
            if not self.names or self.names[-1] != name:
                self.names.append(name)
            numbers.append(len(self.names) - 1)
        starts, counts = part.start[:-1], np.diff(part.start)
        goes_back = np.append(part.step[1:] < part.step[:-1], False)
        goes_back[part.start[1:] - 1] = False  # from the last of one to the first of the next
        self._columns.append(
            (
                np.array(numbers),
                part.writer,
                part.kind,
                np.full(len(starts), group),
                starts + row,
                counts,
                np.logical_or.reduceat(part.is_superseded, starts),
                part.step[starts],
                part.step[part.start[1:] - 1],
                ~np.logical_or.reduceat(goes_back, starts),
            )
        )

    def catalogue(self, facts: dict[str, Any]) -> Catalogue:
        columns = [np.concatenate(column) for column in zip(*self._columns, strict=True)]
        return catalogue_of(facts, self.names, columns)


def write_sealed(path: Path, parts: Iterable[Stretches], writers: list[str]) -> int:
    """Write a sealed file at a new path, synced to the disk. Memory holds one part and one row group at a time.

    Args:
        path: Where; nothing must stand there.
        parts: The points, in the order in which they shall lie.
        writers: Those that the numbers in `parts` mean.

    Returns:
        How many points were written.

    Raises:
        OSError: the disk is full; what was written is left for the caller to remove.
    """
    places = _Places()
    count = group = 0
    with path.open("xb") as file:
        # One writer, many groups: small metrics share one, so that a run of a million names has no million groups.
        with pq.ParquetWriter(
            file,
            SCHEMA,
            compression="zstd",
            compression_level=3,
            use_dictionary=["metric"],
            column_encoding=_ENCODING,
            write_page_checksum=True,
        ) as writer:
            for rows in _groups(parts):
                row = 0
                for part in rows:
                    places.add(part, group, row)
                    row += len(part)
                writer.write_table(_table(rows))
                group, count = group + 1, count + row
            facts = {"format": SEALED_FORMAT, "id": os.urandom(16).hex(), "writers": writers}
            writer.add_key_value_metadata(places.catalogue(facts).write())
        file.flush()
        os.fsync(file.fileno())
    return count


def _groups(parts: Iterable[Stretches]) -> Iterator[list[Stretches]]:
    """Yield the rows of each row group: `GROUP_ROWS`, and fewer in the last."""
    waiting: list[Stretches] = []
    room = GROUP_ROWS
    for part in parts:
        low = 0
        while low < len(part):
            high = min(len(part), low + room)
            waiting.append(part.select(low, high))
            room -= high - low
            low = high
            if not room:
                yield waiting
                waiting, room = [], GROUP_ROWS
    if waiting:
        yield waiting


def parts_of(log: MetricLog, writers: list[str]) -> Iterator[Stretches]:
    """Yield the points of a run, metric by metric, as they are sealed, never more than a batch at a time.

    Args:
        log: The run's points.
        writers: Only of these; the numbers in the parts mean them.
    """
    numbers = {writer: number for number, writer in enumerate(writers)}
    if log.sealed is not None:  # gone on with after a sealing: its names lie among each other
        for name in log.names:
            portions = itertools.chain(log.sealed.pieces(name), log.live.portions(name))
            yield from _one_by_one(log, name, portions, numbers)
        return
    for first, last in log.live.batches():
        name = log.names[first]
        is_long = log.live.points_of(name) > BATCH_POINTS and log.live.kinds(name).isdisjoint(fmt.BESIDE)
        if is_long:
            yield from _one_by_one(log, name, log.live.pieces(name, GROUP_ROWS), numbers)
        else:
            yield from _batch(log, log.live.load(first, last), numbers)


def _one_by_one(log: MetricLog, name: str, portions: Iterable[Portion], numbers: dict[str, int]) -> Iterator[Stretches]:
    limits = log.limits(name)
    for portion in portions:
        if portion.writer not in numbers or not len(portion):
            continue
        attempt = log.attempt_of(portion.writer)
        limit = limits.get(attempt)
        yield Stretches(
            [name],
            np.array([numbers[portion.writer]]),
            np.array([portion.kind]),
            np.array([attempt]),
            np.array([0, len(portion)]),
            portion.step,
            portion.wall_s,
            portion.bits,
            np.zeros(len(portion), np.bool_) if limit is None else portion.step >= limit,
            {0: portion.payloads} if portion.payloads is not None else {},
        )


def _batch(log: MetricLog, batch: Batch, numbers: dict[str, int]) -> Iterator[Stretches]:
    writers = list(log.live.tails)
    number = np.array([numbers.get(writer, -1) for writer in writers])[batch.writer]
    attempt = np.array([log.attempt_of(writer) for writer in writers])[batch.writer]
    names = [log.names[place] for place in batch.name.tolist()]
    payloads = {}
    for run in np.flatnonzero(np.isin(batch.kind, fmt.BESIDE)).tolist():
        portion = log.live.portion(batch, run, is_shared=False)
        if portion.payloads is not None:
            payloads[run] = portion.payloads
    counts = np.diff(batch.start)
    is_whole = all(len(found) == counts[run] for run, found in payloads.items())
    if not is_whole or (number < 0).any():  # something is damaged, or a writer of the run still lives
        for run, name in enumerate(names):
            yield from _one_by_one(log, name, [log.live.portion(batch, run, is_shared=False)], numbers)
        return
    is_superseded = np.zeros(len(batch.step), np.bool_)
    if log.latest_attempt is not None:
        for run, name in enumerate(names):
            limit = log.limits(name).get(int(attempt[run]))
            rows = slice(int(batch.start[run]), int(batch.start[run + 1]))
            if limit is not None:
                is_superseded[rows] = batch.step[rows] >= limit
    columns = (batch.step, batch.wall_s, batch.bits)
    yield Stretches(names, number, batch.kind, attempt, batch.start, *columns, is_superseded, payloads)


def table_of(log: MetricLog) -> pa.Table:
    """Return the points of a run as one table of `SCHEMA`."""
    tables = [_table([part]) for part in parts_of(log, sorted(log.writers)) if len(part)]
    return pa.concat_tables(tables).unify_dictionaries() if tables else SCHEMA.empty_table()


def _table(parts: list[Stretches]) -> pa.Table:
    counts = np.concatenate([np.diff(part.start) for part in parts])
    kind = np.repeat(np.concatenate([part.kind for part in parts]), counts)
    bits = np.concatenate([part.bits for part in parts])
    is_float = kind == fmt.TYPE_FLOAT
    is_beside = np.isin(kind, fmt.BESIDE)
    values = np.where(is_float, bits.view(np.float64), bits.astype(np.float64))
    is_exact = is_float | is_beside | ((bits >= -_EXACT) & (bits <= _EXACT))
    names: dict[str, int] = {}
    numbers = [names.setdefault(name, len(names)) for part in parts for name in part.names]
    metric = pa.DictionaryArray.from_arrays(
        pa.array(np.repeat(np.array(numbers, np.int32), counts)), pa.array(list(names), pa.string())
    )
    walls = np.concatenate([part.wall_s for part in parts]) * 1e3
    walls = np.clip(np.nan_to_num(walls, nan=0.0), *_YEARS_1_TO_9999_MS).round().astype(np.int64)
    return pa.table(
        [
            metric,
            pa.array(np.concatenate([part.step for part in parts])),
            pa.array(walls).cast(pa.timestamp("ms", "UTC")),
            pa.array(values, mask=is_beside),
            pa.array(bits, mask=is_exact),
            pa.chunked_array([texts for part in parts for texts in _texts(part)], pa.string()),
            pa.array(np.repeat(np.concatenate([part.attempt for part in parts]), counts).astype(np.int32)),
            pa.array(np.concatenate([part.is_superseded for part in parts])),
        ],
        schema=SCHEMA,
    )


def _texts(part: Stretches) -> Iterator[pa.Array]:
    done = 0
    for place, payloads in sorted(part.payloads.items()):
        start, end = int(part.start[place]), int(part.start[place + 1])
        yield pa.nulls(start - done, pa.string())
        yield pa.array(payloads, pa.string())
        done = end
    yield pa.nulls(len(part) - done, pa.string())


class SealedMetrics:
    """Reads a sealed file; a metric is read when it is asked for.

    Raises:
        FileNotFoundError: there is none.
        FormatError: it is damaged, or a newer version wrote it.
    """

    def __init__(self, run_path: Path) -> None:
        self.folder = run_path
        self.memo: dict[str, object] = {}
        """Place for what readers derive from it, by metric; it goes with this reader."""
        self._path = run_path / SEALED
        self._group_at_hand = -1
        self._at_hand: dict[tuple[str, ...], pa.Table] = {}
        self.identity = file_identity(self._path)
        file = pa.OSFile(str(self._path))  # an open file, no path: it may be replaced while this reader lives
        try:
            self._file = pq.ParquetFile(file, page_checksum_verification=True, thrift_string_size_limit=_FOOTER_BYTES)
            metadata = self._file.metadata
            groups = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
            is_as_written = self._file.schema_arrow.equals(SCHEMA)
        except DAMAGE as error:
            raise FormatError(f"{self._path} is damaged: {error}") from None
        try:
            self.catalogue = read_catalogue(metadata.metadata or {})
        except (*DAMAGE, TypeError):
            raise FormatError(f"{self._path} was not written by Runstone, or is damaged") from None
        if int(self.catalogue.facts["format"]) > SEALED_FORMAT:
            raise FormatError(
                f"{self._path} has format {self.catalogue.facts['format']}, this version knows {SEALED_FORMAT}; "
                "upgrade runstone"
            )
        told = np.bincount(self.catalogue.group, self.catalogue.count, len(groups)).tolist()
        if not is_as_written or told != groups:  # the rest of the footer has no checksum
            raise FormatError(f"{self._path} is damaged: its columns or rows are not those that it tells of")
        self.writers = set(self.catalogue.writers)
        """The writers whose points are in it."""

    @property
    def names(self) -> list[str]:
        """The metrics in it, in alphabetical order."""
        return list(self.catalogue.names)

    @property
    def id(self) -> str:
        """What names this very sealing."""
        return str(self.catalogue.facts["id"])

    def count(self, name: str | None = None) -> int:
        """Return how many points of a metric, or in all, are in it."""
        if name is None:
            return int(self.catalogue.count.sum(dtype=np.int64))
        return sum(self.catalogue.count[self._slice(name)].tolist())

    def long_names(self, points: int) -> list[str]:
        """Return the metrics of at least so many points."""
        counts = np.bincount(self.catalogue.name, self.catalogue.count, len(self.catalogue.names))
        return [self.catalogue.names[place] for place in np.flatnonzero(counts >= points).tolist()]

    def _slice(self, name: str) -> slice:
        found = self.catalogue.stretches(name)
        return slice(found.start, found.stop)

    def kinds(self, name: str) -> set[int]:
        """Return the types under which a name was logged, numbers of several types as one."""
        return set(self.catalogue.kind[self._slice(name)].tolist())

    def names_beside(self) -> list[str]:
        """Return the names that have texts or records, in alphabetical order."""
        places = np.unique(self.catalogue.name[np.isin(self.catalogue.kind, fmt.BESIDE)])
        return [self.catalogue.names[place] for place in places.tolist()]

    def has_superseded(self, name: str) -> bool:
        """Return whether a later attempt had superseded points of a metric when it was sealed."""
        return bool(self.catalogue.is_superseded[self._slice(name)].any())

    def is_ordered(self, name: str) -> bool:
        """Return whether the steps of a metric never go back from row to row; `False` also where nothing tells."""
        rows, catalogue = self._slice(name), self.catalogue
        if not catalogue.is_ordered[rows].all():
            return False
        return bool((catalogue.first_step[rows][1:] >= catalogue.last_step[rows][:-1]).all())

    def first_steps(self, name: str) -> list[tuple[str, int]]:
        """Return each writer that logged a name, with the step of its first number, text and record.

        Raises:
            FormatError: a page is damaged.
        """
        first: dict[tuple[str, int], int] = {}
        writers = self.catalogue.writers
        for stretch in self.catalogue.stretches(name):
            kind = int(self.catalogue.kind[stretch])
            whose = writers[self.catalogue.writer[stretch]], kind if kind in fmt.BESIDE else fmt.TYPE_FLOAT
            if whose not in first:
                first[whose] = (
                    int(self.catalogue.first_step[stretch])
                    if self.catalogue.has_steps
                    else int(self._read(stretch, 0, 1).step[0])
                )
        return [(writer, step) for (writer, _family), step in first.items()]

    def portions(self, name: str, start: int = 0, stop: int | None = None) -> list[Portion]:
        """Return the points of a metric, apart by writer and kind.

        Args:
            name: The metric.
            start, stop: Only these rows, counted over all its points as they lie.

        Raises:
            FormatError: a page is damaged.
        """
        sizes: dict[tuple[str, int], int] = {}
        for stretch, low, high in self._ranges(name, start, stop):
            whose = self.catalogue.writers[self.catalogue.writer[stretch]], int(self.catalogue.kind[stretch])
            sizes[whose] = sizes.get(whose, 0) + high - low
        joined: dict[tuple[str, int], Portion] = {}
        filled = dict.fromkeys(sizes, 0)
        for piece in self.pieces(name, start, stop):
            whose = piece.writer, piece.kind
            size = sizes[whose]
            if len(piece) == size:
                joined[whose] = piece
                continue
            if whose not in joined:
                beside = np.empty(size, np.object_) if piece.payloads is not None else None
                joined[whose] = Portion(
                    *whose, np.empty(size, np.int64), np.empty(size), np.empty(size, np.int64), beside
                )
            place, after, whole = filled[whose], filled[whose] + len(piece), joined[whose]
            whole.step[place:after], whole.wall_s[place:after], whole.bits[place:after] = (
                piece.step,
                piece.wall_s,
                piece.bits,
            )
            if whole.payloads is not None:
                whole.payloads[place:after] = piece.payloads
            filled[whose] = after
        return list(joined.values())

    def _ranges(self, name: str, start: int, stop: int | None) -> Iterator[tuple[int, int, int]]:
        """Yield each stretch of a metric with the range of its rows that lies in a range of all of them."""
        passed = 0
        for stretch in self.catalogue.stretches(name):
            count = int(self.catalogue.count[stretch])
            low, high = max(start - passed, 0), min(count, (stop if stop is not None else passed + count) - passed)
            passed += count
            if low < high:
                yield stretch, low, high

    def pieces(self, name: str, start: int = 0, stop: int | None = None) -> Iterator[Portion]:
        """Yield what `portions` returns in pieces, none larger than a row group."""
        for stretch, low, high in self._ranges(name, start, stop):
            yield self._read(stretch, low, high)

    def numbers(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], Any, NDArray[np.float64]]]:
        """Yield all numbers, row group by row group: stretch of each point, step, value as a float, wall time.

        Raises:
            FormatError: a page is damaged.
        """
        groups, starts = np.unique(self.catalogue.group, return_index=True)
        ends = np.append(starts[1:], len(self.catalogue.group))
        for group, start, end in zip(groups.tolist(), starts.tolist(), ends.tolist(), strict=True):
            table = self._group(group, ("step", "time", "value"))
            stretch = np.repeat(np.arange(start, end), self.catalogue.count[start:end])
            value = table["value"].to_numpy()
            step, wall_s = table["step"].to_numpy(), _walls(table)
            is_number = ~np.isin(self.catalogue.kind[start:end], fmt.BESIDE)
            if not is_number.all():
                rows = is_number[stretch - start]
                stretch, step, value, wall_s = stretch[rows], step[rows], value[rows], wall_s[rows]
            yield stretch, step, value, wall_s

    def _group(self, group: int, columns: tuple[str, ...]) -> pa.Table:
        """Return columns of a row group; the last one stays at hand, since small metrics share one."""
        if self._group_at_hand != group:
            self._group_at_hand, self._at_hand = group, {}
        if columns not in self._at_hand:
            try:
                table = self._file.read_row_group(group, columns=list(columns)).combine_chunks()
            except DAMAGE as error:
                raise FormatError(f"{self._path} is damaged: {error}") from None
            self._at_hand[columns] = table
        return self._at_hand[columns]

    def _read(self, stretch: int, low: int, high: int) -> Portion:
        """Return some of the points of a stretch."""
        catalogue = self.catalogue
        kind = int(catalogue.kind[stretch])
        value = ("text",) if kind in fmt.BESIDE else ("value",) if kind == fmt.TYPE_FLOAT else ("value", "integer")
        table = self._group(int(catalogue.group[stretch]), ("step", "time", *value))
        table = table.slice(int(catalogue.row[stretch]) + low, high - low)
        step, wall_s = table["step"].to_numpy(), _walls(table)
        writer = catalogue.writers[catalogue.writer[stretch]]
        if kind in fmt.BESIDE:
            return Portion(writer, kind, step, wall_s, np.zeros(high - low, np.int64), table["text"].to_numpy())
        values = table["value"].to_numpy()
        if kind == fmt.TYPE_FLOAT:
            return Portion(writer, kind, step, wall_s, values.view(np.int64))
        column = table["integer"].combine_chunks()
        is_exact = column.is_null().to_numpy(zero_copy_only=False)
        whole = np.where(is_exact, values, 0.0).astype(np.int64)
        if not is_exact.all():
            whole[~is_exact] = column.drop_null().to_numpy()
        return Portion(writer, kind, step, wall_s, whole)


def _walls(table: pa.Table) -> NDArray[np.float64]:
    return np.asarray(table["time"].to_numpy().astype("datetime64[ms]").astype(np.int64) / 1e3)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give a new path to write to, which becomes `path` when the block ends well and vanishes when it does not."""
    partial = path.with_name(f"{path.name}.{os.urandom(16).hex()}.partial")
    try:
        yield partial
        partial.replace(path)
        sync_folder(path.parent)
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()


def sync_folder(path: Path) -> None:
    """Bring the names in a folder to the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
