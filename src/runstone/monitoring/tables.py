"""What is watched, as rows in batches: files, folders of parts, tables and arrays. Knows nothing of statistics."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from runstone.datasets import DatasetVersion
from runstone.datasets.kinds import table_kind
from runstone.datasets.objects import in_memory
from runstone.datasets.tables import LOOSEST, STRICTEST, MemoryTable, NoTable, Table, TableFile
from runstone.errors import InvalidValue, NotFound

BATCH_ROWS = 65_536
_INDEX = "__index_level_"
"""What columns begin with that pandas adds for its index: its rows have other numbers in each batch."""
MOST_COLUMNS = 2_000


@dataclass(frozen=True, slots=True)
class ArrayTable:
    """An array of shape `(n,)` or `(n, k)` as a table with the columns `x0`, `x1`, …; further axes are flattened."""

    path: str
    array: Any

    def schema(self) -> pa.Schema:
        """Return names and types of its columns."""
        return _of_array(self.array[:0]).schema

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield its rows in batches."""
        for start in range(0, len(self.array), BATCH_ROWS):
            yield from _of_array(self.array[start : start + BATCH_ROWS]).to_batches()

    def read_as(self, leniency: int) -> ArrayTable:
        """Return itself: its types are known."""
        return self


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows under a name, read as often as one likes.

    Attributes:
        name: For people.
        tables: One after the other.
        beside: Columns from elsewhere by name, with as many rows.
    """

    name: str
    tables: tuple[Table, ...]
    beside: tuple[tuple[str, Rows], ...] = ()

    def batches(self, leniency: int = STRICTEST) -> Iterator[pa.RecordBatch]:
        """Yield the rows in batches; structs `inputs` and `outputs`, as in a prediction log, are taken apart.

        Raises:
            NoTable: a file cannot be read as a table.
            InvalidValue: a column from elsewhere has another number of rows.
        """
        columns = [(name, _Strip(name, rows.batches(leniency))) for name, rows in self.beside]
        for table in self.tables:
            for batch in table.read_as(leniency).batches():
                flat = flattened(batch)
                for name, strip in columns:
                    flat = _with(flat, name, strip.take(flat.num_rows))
                yield flat
        for _name, strip in columns:
            strip.check_end()

    def with_column(self, name: str, rows: Rows) -> Rows:
        """Return the same with one more column."""
        return Rows(self.name, self.tables, (*self.beside, (name, rows)))


def rows_of(data: Any, *, name: str | None = None) -> Rows:
    """Return data of any kind as rows.

    Args:
        data: The path of a table (CSV, TSV, Parquet, Arrow, JSON lines, .npy) or of a folder of such; a table of
            pandas, polars or Arrow; an array or a mapping of arrays; a version of a dataset; or rows.
        name: For people; default: the last part of the path.

    Raises:
        NotFound: there is nothing.
        InvalidValue: it holds no rows.
    """
    if isinstance(data, Rows):
        return data
    if isinstance(data, DatasetVersion):
        return Rows(name or str(data), _some(tuple(data.table_files()), str(data)))
    if isinstance(data, str | os.PathLike):
        path = Path(data).expanduser()
        return Rows(name or path.name, _some(tuple(_at(path)), str(path)))
    if isinstance(data, np.ndarray):
        return Rows(name or "an array", (ArrayTable("array", data),))
    if isinstance(data, Mapping):
        table = pa.table({str(key): _column(value) for key, value in data.items()})
        return Rows(name or "arrays", (MemoryTable("arrays", table),))
    found = in_memory(data)
    tables = tuple(MemoryTable(one, table) for one, table in found.tables.items())
    return Rows(name or f"a {type(data).__name__}", _some(tables, f"a {found.type}"))


def column_of(data: Any, *, what: str, beside: Sequence[str] = ()) -> Rows:
    """Return labels or predictions as rows of one column: a file (`labels.csv`, `labels.csv:truth`), or values.

    Args:
        data: As above.
        what: Of what, for messages.
        beside: Columns that it could have been the name of.

    Raises:
        NotFound, InvalidValue: there is no such file or column, or it is not clear which one is meant.
    """
    if isinstance(data, str | os.PathLike):
        text = os.fspath(data)
        path, _colon, column = text.rpartition(":") if not Path(text).exists() and ":" in text else (text, "", "")
        try:
            rows = rows_of(path)
        except NotFound:
            there = f"{', '.join(beside[:20])}{' and more' if len(beside) > 20 else ''}"
            raise NotFound(
                f"{text!r:.120} is neither a column of the data nor a file that could hold the {what}; its columns are "
                f"{there:.600}"
            ) from None
    else:
        values = getattr(data, "to_numpy", lambda: data)()
        rows, column = Rows(what, (MemoryTable(what, pa.table({what: _column(values)})),)), what
    names = rows.tables[0].schema().names
    if column and column not in names:
        raise NotFound(f"{rows.name} has no column {column!r:.80}; it has {', '.join(names[:20])}")
    if not column and len(names) != 1:
        raise InvalidValue(f"{rows.name} has {len(names)} columns; say which holds the {what}: {rows.name}:COLUMN")
    chosen = column or names[0]
    return Rows(rows.name, tuple(_Chosen(table, chosen) for table in rows.tables))


def leniencies() -> Sequence[int]:
    """Return how strictly the types of text files are taken, the strictest way first."""
    return range(STRICTEST, LOOSEST + 1)


def flattened(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch of a prediction log as plain columns: inputs by their names, outputs as `prediction`, `label`."""
    if "inputs" not in batch.schema.names or not pa.types.is_struct(batch.schema.field("inputs").type):
        named = [name for name in batch.schema.names if not name.startswith(_INDEX)]
        return batch if len(named) == batch.num_columns else batch.select(named)
    columns: dict[str, pa.Array] = {}
    for name in ("version", "at", "label"):
        if name in batch.schema.names and not pa.types.is_null(batch.schema.field(name).type):
            columns[f"{LOG}{name}"] = batch.column(batch.schema.get_field_index(name))
    for side in ("inputs", "outputs"):
        place = batch.schema.get_field_index(side)
        if place >= 0 and pa.types.is_struct(batch.schema.field(side).type):
            struct = batch.column(place)
            for field, values in zip(struct.type, struct.flatten(), strict=True):
                columns[field.name if side == "inputs" else f"{LOG}{field.name}"] = values
    return pa.RecordBatch.from_pydict(columns)


LOG = "runstone:"
"""What columns of a prediction log begin with that are no inputs."""


def labelled_folder(folder: Path) -> Path:
    """Return where rows of a prediction log go whose label came later: beside it, since a closed part never changes."""
    return folder.with_name(f"{folder.name}.labelled")


def of_version(version: str) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """Return what leaves out predictions of other versions."""

    def keep(batch: pa.RecordBatch) -> pa.RecordBatch:
        column = f"{LOG}version"
        if column not in batch.schema.names:
            return batch
        told = batch.column(batch.schema.get_field_index(column)).cast(pa.string())
        return batch.filter(pc.fill_null(pc.equal(told, version), False))

    return keep


def versions_in(batches: Iterable[pa.RecordBatch]) -> dict[str, int]:
    """Return how many predictions of each version some rows of a prediction log hold; "": of whichever is watched.

    The latter are those of logs without a column for the version.
    """
    found: dict[str, int] = {}
    for batch in batches:
        place = batch.schema.get_field_index(f"{LOG}version")
        if place < 0:
            found[""] = found.get("", 0) + batch.num_rows
            continue
        for counted in pc.value_counts(batch.column(place).cast(pa.string())).to_pylist():
            if counted["values"] is not None:
                found[counted["values"]] = found.get(counted["values"], 0) + counted["counts"]
    return found


@dataclass(frozen=True, slots=True)
class _Chosen:
    """One column of a table."""

    table: Table
    column: str

    @property
    def path(self) -> str:
        """Its name."""
        return self.table.path

    def schema(self) -> pa.Schema:
        """Return name and type of the column."""
        return pa.schema([self.table.schema().field(self.column)])

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield it in batches."""
        for batch in self.table.batches():
            yield batch.select([self.column])

    def read_as(self, leniency: int) -> _Chosen:
        """Return it as it is read less strictly."""
        return _Chosen(self.table.read_as(leniency), self.column)


class _Strip:
    """A column from elsewhere, cut as the rows are that it goes beside."""

    def __init__(self, name: str, batches: Iterator[pa.RecordBatch]) -> None:
        self._name = name
        self._batches = batches
        self._rest: pa.Array | None = None

    def take(self, count: int) -> pa.Array:
        parts = []
        while count:
            if self._rest is None or not len(self._rest):
                batch = next(self._batches, None)
                if batch is None:
                    raise InvalidValue(f"there are fewer {self._name} than rows; each row takes one, in the same order")
                self._rest = batch.column(0)
            parts.append(self._rest.slice(0, count))
            self._rest = self._rest.slice(len(parts[-1]))
            count -= len(parts[-1])
        return pa.concat_arrays(parts) if parts else pa.nulls(0)

    def check_end(self) -> None:
        more = len(self._rest) if self._rest is not None else 0
        if more or any(batch.num_rows for batch in self._batches):
            raise InvalidValue(f"there are more {self._name} than rows; each row takes one, in the same order")


def _with(batch: pa.RecordBatch, name: str, values: pa.Array) -> pa.RecordBatch:
    names = [*batch.schema.names, name]
    return pa.RecordBatch.from_arrays([*batch.columns, values], names=names)


def _at(path: Path) -> Iterator[Table]:
    if not path.exists():
        raise NotFound(f"there is no file or folder {path}")
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for file in files:
        if file.suffix == ".npy":
            yield ArrayTable(str(file), _mapped(file))
        elif table_kind(file.name) is not None:
            yield TableFile(str(file), lambda file=file: file.open("rb"))  # type: ignore[misc]


def _mapped(path: Path) -> Any:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise NoTable(f"{path} cannot be read as an array: {error}") from None


def _some(tables: tuple[Table, ...], what: str) -> tuple[Table, ...]:
    if not tables:
        raise InvalidValue(
            f"{what:.200} holds no table; what can be read are CSV, TSV, Parquet, Arrow, JSON lines, .npy, and tables "
            "or arrays in memory"
        )
    return tables


def _of_array(array: Any) -> pa.Table:
    flat = np.asarray(array)
    flat = flat.reshape(len(flat), int(np.prod(flat.shape[1:], dtype=np.int64)))
    if flat.shape[1] > MOST_COLUMNS:
        raise InvalidValue(f"an array of {flat.shape[1]:,} columns cannot be watched; at most {MOST_COLUMNS:,} can")
    return pa.table({f"x{place}": _column(flat[:, place]) for place in range(flat.shape[1])})


def _column(values: Any) -> pa.Array:
    try:
        array = np.asarray(values) if not isinstance(values, pa.Array | pa.ChunkedArray) else values
        return pa.array(np.ascontiguousarray(array)) if isinstance(array, np.ndarray) else array
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InvalidValue(f"a column cannot be read: {str(error).splitlines()[0]:.200}") from None
