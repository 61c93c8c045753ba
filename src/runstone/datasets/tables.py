"""Tables in files: CSV, TSV, Parquet, Arrow and Feather, JSON lines, read in batches. Knows nothing of versions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Protocol

import pyarrow as pa

from runstone.datasets.kinds import table_kind
from runstone.errors import FormatError

_BLOCK_BYTES = 4 << 20
_BATCH_ROWS = 65_536
STRICTEST, LOOSEST = 0, 2
Opener = Callable[[], BinaryIO]


class NoTable(FormatError):
    """A file is not the table that its name says.

    Attributes:
        is_mixed: Whether reading it less strictly may help: text whose rows do not keep to the types of the first.
    """

    is_mixed = False


class Table(Protocol):
    """Rows under a name, read as often as one likes."""

    @property
    def path(self) -> str:
        """Its name."""

    def schema(self) -> pa.Schema:
        """Return names and types of its columns."""

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield its rows in batches."""

    def read_as(self, leniency: int) -> Table:
        """Return it as it is read less strictly."""


@dataclass(frozen=True, slots=True)
class TableFile:
    """A table in a file.

    Attributes:
        path: Its name, which says how it is read.
        open: Opens it, each time from its begin.
    """

    path: str
    open: Opener
    leniency: int = STRICTEST

    def read_as(self, leniency: int) -> TableFile:
        """Return it as it is read with whole numbers as floats (1) or everything as text (2), where it is text."""
        return replace(self, leniency=leniency)

    def schema(self) -> pa.Schema:
        """Return names and types of its columns; for text, those that its beginning speaks for.

        Raises:
            NoTable: it cannot be read as a table.
        """
        with self._opened() as (schema, _batches):
            return schema

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield its rows in batches.

        Raises:
            NoTable: it cannot be read as a table.
        """
        with self._opened() as (_schema, batches):
            while True:
                try:
                    batch = next(batches, None)
                except (pa.ArrowException, OSError, UnicodeDecodeError, EOFError) as error:
                    trouble = NoTable(f"{self.path!r:.200} cannot be read as a table: {_first_line(error)}")
                    trouble.is_mixed = table_kind(self.path) in ("csv", "tsv") and self.leniency < LOOSEST
                    raise trouble from None
                if batch is None:
                    return
                for start in range(0, max(batch.num_rows, 1), _BATCH_ROWS):
                    yield batch.slice(start, _BATCH_ROWS)

    @contextmanager
    def _opened(self) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
        try:
            file = self.open()
        except OSError as error:
            raise NoTable(f"{self.path!r:.200} cannot be opened: {error}") from None
        with file:
            try:
                opened = self._read(file)
            except (pa.ArrowException, OSError, UnicodeDecodeError, EOFError) as error:
                raise NoTable(f"{self.path!r:.200} cannot be read as a table: {_first_line(error)}") from None
            yield opened

    def _read(self, file: BinaryIO) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        match table_kind(self.path):
            case "csv":
                return _text(file, ",", self.path, self.leniency)
            case "tsv":
                return _text(file, "\t", self.path, self.leniency)
            case "parquet":
                import pyarrow.parquet as pq

                parquet = pq.ParquetFile(file, pre_buffer=False)  # with it, the whole file would be held
                return parquet.schema_arrow, parquet.iter_batches(_BATCH_ROWS)
            case "jsonl":
                return _json_lines(file)
            case "arrow":
                return _arrow(file)
        raise NoTable(f"{self.path!r:.200} is not known as a table by its name")


@dataclass(frozen=True, slots=True)
class MemoryTable:
    """A table that is in memory."""

    path: str
    table: pa.Table

    def schema(self) -> pa.Schema:
        """Return names and types of its columns."""
        return self.table.schema

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield its rows in batches."""
        yield from self.table.to_batches(max_chunksize=_BATCH_ROWS)

    def read_as(self, leniency: int) -> MemoryTable:
        """Return itself: its types are known."""
        return self


def _text(file: BinaryIO, delimiter: str, path: str, leniency: int) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    import pyarrow.csv as csv

    def opened(types: dict[str, pa.DataType]) -> Any:
        stream: Any = file
        if path.lower().endswith(".gz"):
            stream = pa.CompressedInputStream(pa.PythonFile(file, "r"), "gzip")
        convert = csv.ConvertOptions(
            strings_can_be_null=True, quoted_strings_can_be_null=False, column_types=types, check_utf8=True
        )
        return csv.open_csv(stream, read_options=read, parse_options=parse, convert_options=convert)

    read = csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False)
    parse = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    reader = opened({})
    if leniency:
        loose = {
            field.name: pa.float64() if leniency == 1 and pa.types.is_integer(field.type) else pa.string()
            for field in reader.schema
            if leniency == LOOSEST or pa.types.is_integer(field.type)
        }
        file.seek(0)
        reader = opened(loose)
    return reader.schema, iter(reader)


def _json_lines(file: BinaryIO) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    import pyarrow.json as json

    reader = json.open_json(file, read_options=json.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False))
    return reader.schema, iter(reader)


def _arrow(file: BinaryIO) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    head = file.read(6)
    file.seek(0)
    if head == b"ARROW1":
        opened = pa.ipc.open_file(file)
        return opened.schema, (opened.get_batch(index) for index in range(opened.num_record_batches))
    if head[:4] == b"FEA1":
        raise NoTable("Feather of version 1 is not read; write it anew with version 2")
    stream = pa.ipc.open_stream(file)
    return stream.schema, iter(stream)


def _first_line(error: BaseException) -> str:
    return next(itertools.islice(str(error).splitlines(), 1), type(error).__name__)[:300]
