"""Ended runs in one compact file, `metrics.parquet`, which any Parquet reader understands. Takes points, gives points.

Rows lie metric by metric, in the order in which they were logged; one row group holds part of a large metric or several
small ones. The footer says which rows are whose, so one metric is read without the others. Every page carries a
checksum.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from runstone.errors import FormatError
from runstone.runlog import format as fmt
from runstone.runlog.portions import SLOT, Portion
from runstone.runlog.series import MetricLog
from runstone.runlog.tail import SEALED, file_identity

SEALED_FORMAT = 1
GROUP_ROWS = 1 << 17
_KEY = b"runstone"
_EXACT = 2**53  # integers beyond it have no exact float

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


_COLUMNS = {fmt.TYPE_FLOAT: ("value",), fmt.TYPE_STRING: ("text",), fmt.TYPE_RECORD: ("text",)}


@dataclass(frozen=True, slots=True)
class SealedPart:
    """What is sealed together: points of one metric of one writer, with what readers of the file want to know."""

    name: str
    portion: Portion
    attempt: int
    superseded: NDArray[np.bool_]


def write_sealed(path: Path, parts: Iterable[SealedPart], facts: dict[str, Any]) -> int:
    """Write a sealed file at a new path, synced to the disk.

    Args:
        path: Where; nothing must stand there.
        parts: The points, in the order in which they shall lie.
        facts: JSON to keep in the footer.

    Returns:
        How many points were written.

    Raises:
        OSError: the disk is full; what was written is left for the caller to remove.
    """
    places: list[list[Any]] = []
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
            waiting: list[tuple[SealedPart, int, int]] = []
            group = rows = 0
            for part in parts:
                for start in range(0, len(part.portion.slots), GROUP_ROWS):
                    count = min(GROUP_ROWS, len(part.portion.slots) - start)
                    if rows and rows + count > GROUP_ROWS:
                        writer.write_table(_table(waiting))
                        group, waiting, rows = group + 1, [], 0
                    gone = bool(part.superseded[start : start + count].any())
                    places.append([part.name, part.portion.writer, part.portion.kind, group, rows, count, gone])
                    waiting.append((part, start, count))
                    rows += count
            if waiting:
                writer.write_table(_table(waiting))
            told = {**facts, "format": SEALED_FORMAT, "id": os.urandom(16).hex(), "places": places}
            writer.add_key_value_metadata({_KEY: json.dumps(told, separators=(",", ":")).encode()})
        file.flush()
        os.fsync(file.fileno())
    return sum(place[5] for place in places)


def parts_of(log: MetricLog, writers: set[str] | None = None) -> Iterator[SealedPart]:
    """Yield the points of a run, metric by metric, as they are sealed.

    Args:
        log: The run's points.
        writers: Only of these; default: of all.
    """
    for name in log.names:
        for portion, gone in log.superseded(name, log.portions(name)):
            if writers is None or portion.writer in writers:
                yield SealedPart(name, portion, log.attempt_of(portion), gone)


def table_of(log: MetricLog) -> pa.Table:
    """Return the points of a run as one table of `SCHEMA`."""
    tables = [_table([(part, 0, len(part.portion))]) for part in parts_of(log) if len(part.portion)]
    return pa.concat_tables(tables).unify_dictionaries() if tables else SCHEMA.empty_table()


def _table(waiting: list[tuple[SealedPart, int, int]]) -> pa.Table:
    slots = np.concatenate([part.portion.slots[start : start + count] for part, start, count in waiting])
    counts = [count for _part, _start, count in waiting]
    is_float = np.repeat([part.portion.kind == fmt.TYPE_FLOAT for part, _s, _c in waiting], counts)
    is_beside = np.repeat([part.portion.kind in fmt.BESIDE for part, _s, _c in waiting], counts)
    integers = slots["value"].view("<i8")
    values = np.where(is_float, slots["value"], integers.astype(np.float64))
    is_exact = is_float | is_beside | ((integers >= -_EXACT) & (integers <= _EXACT))
    names = list(dict.fromkeys(part.name for part, _s, _c in waiting))
    numbers = {name: number for number, name in enumerate(names)}
    metric = pa.DictionaryArray.from_arrays(
        pa.array(np.repeat([numbers[part.name] for part, _s, _c in waiting], counts).astype(np.int32)),
        pa.array(names, pa.string()),
    )
    superseded = np.concatenate([part.superseded[start : start + count] for part, start, count in waiting])
    walls = np.nan_to_num(slots["wall"] * 1e3, nan=0.0, posinf=0.0, neginf=0.0).round().astype(np.int64)
    return pa.table(
        [
            metric,
            pa.array(slots["step"]),
            pa.array(walls).cast(pa.timestamp("ms", "UTC")),
            pa.array(values, mask=is_beside),
            pa.array(integers, mask=is_exact),
            pa.chunked_array([_texts(part, start, count) for part, start, count in waiting]),
            pa.array(np.repeat([part.attempt for part, _s, _c in waiting], counts).astype(np.int32)),
            pa.array(superseded),
        ],
        schema=SCHEMA,
    )


def _texts(part: SealedPart, start: int, count: int) -> pa.Array:
    if part.portion.payloads is None:
        return pa.nulls(count, pa.string())
    return pa.array(part.portion.payloads[start : start + count], pa.string())


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
        self.identity = file_identity(self._path)
        try:
            # A map of what was opened: the file may be replaced while this reader lives.
            self._file = pq.ParquetFile(pa.memory_map(str(self._path)), page_checksum_verification=True)
        except pa.ArrowInvalid as error:
            raise FormatError(f"{self._path} is damaged: {error}") from None
        metadata = self._file.metadata.metadata or {}
        try:
            self.facts: dict[str, Any] = json.loads(metadata[_KEY])
        except (KeyError, ValueError):
            raise FormatError(f"{self._path} was not written by Runstone, or is damaged") from None
        if int(self.facts.get("format", 0)) > SEALED_FORMAT:
            raise FormatError(
                f"{self._path} has format {self.facts['format']}, this version knows {SEALED_FORMAT}; upgrade runstone"
            )

    @property
    def writers(self) -> set[str]:
        """The writers whose points are in it."""
        return set(self.facts["writers"])

    @cached_property
    def _places(self) -> dict[str, list[list[Any]]]:
        places: dict[str, list[list[Any]]] = {}
        for place in self.facts["places"]:
            places.setdefault(place[0], []).append(place)
        return places

    @property
    def names(self) -> list[str]:
        """The metrics in it, in no order."""
        return list(self._places)

    @property
    def id(self) -> str:
        """What names this very sealing."""
        return str(self.facts["id"])

    def count(self, name: str) -> int:
        """Return how many points of a metric are in it."""
        return sum(place[5] for place in self._places.get(name, ()))

    def kinds(self, name: str) -> set[int]:
        """Return the types under which a name was logged, numbers of several types as one."""
        return {place[2] for place in self._places.get(name, ())}

    def has_superseded(self, name: str) -> bool:
        """Return whether a later attempt had superseded points of a metric when it was sealed."""
        return any(place[6] for place in self._places.get(name, ()))

    def portions(self, name: str, start: int = 0, stop: int | None = None) -> list[Portion]:
        """Return the points of a metric, apart by writer and kind.

        Args:
            name: The metric.
            start, stop: Only these rows, counted over all its points as they lie.

        Raises:
            FormatError: a page is damaged.
        """
        joined: dict[tuple[str, int], list[Portion]] = {}
        passed = 0
        for _name, writer, kind, group, first, count, _gone in self._places.get(name, ()):
            low, high = max(start - passed, 0), min(count, (stop if stop is not None else passed + count) - passed)
            passed += count
            if low < high:
                portion = self._read(writer, group, kind, first + low, high - low)
                joined.setdefault((writer, kind), []).append(portion)
        return [
            Portion(
                writer,
                kind,
                np.concatenate([part.slots for part in parts]),
                np.concatenate([part.values() for part in parts]) if kind in fmt.BESIDE else None,
            )
            for (writer, kind), parts in joined.items()
        ]

    def _read(self, writer: str, group: int, kind: int, first: int, count: int) -> Portion:
        try:
            columns = ["step", "time", *_COLUMNS.get(kind, ("value", "integer"))]
            table = self._file.read_row_group(group, columns=columns).slice(first, count)
        except (OSError, pa.ArrowInvalid) as error:
            raise FormatError(f"{self._path} is damaged: {error}") from None
        slots = np.zeros(count, SLOT)
        slots["step"] = table["step"].to_numpy()
        slots["wall"] = table["time"].cast(pa.int64()).to_numpy() / 1e3
        if kind in fmt.BESIDE:
            return Portion(writer, kind, slots, table["text"].to_numpy())
        values = table["value"].to_numpy()
        if kind == fmt.TYPE_FLOAT:
            slots["value"] = values
            return Portion(writer, kind, slots)
        column = table["integer"].combine_chunks()
        is_exact = column.is_null().to_numpy(zero_copy_only=False)
        whole = np.where(is_exact, values, 0.0).astype(np.int64)
        if not is_exact.all():
            whole[~is_exact] = column.drop_null().to_numpy()
        slots["value"] = whole.view("<f8")
        return Portion(writer, kind, slots)


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
