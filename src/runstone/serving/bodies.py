"""Bodies of requests by their content type: JSON, CSV, Parquet, Arrow."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import orjson

from runstone.models.signature import Schema
from runstone.server.errors import ApiError
from runstone.serving.rows import Columns, RowReader

JSON = "application/json"
CSV = "text/csv"
PARQUET = "application/vnd.apache.parquet"
ARROW = "application/vnd.apache.arrow.stream"
_LARGEST_CELLS = 4_000_000
_EXPANDED_BYTES = 256 << 20


def parsed(kind: str, body: bytes, reader: RowReader, most_rows: int) -> tuple[Columns, int]:
    """Return checked columns and the number of rows of a body.

    Args:
        kind: Content type, without parameters.
        body: The bytes.
        reader: Of the version that is to answer.
        most_rows: Of a request.

    Raises:
        ApiError: it does not parse, or the model cannot take it.
    """
    if kind == JSON:
        return reader.of_json(json_of(body))
    if kind not in _READ:
        raise ApiError(
            "invalid", f"send {JSON}, {CSV}, {PARQUET} or {ARROW} as Content-Type, not {kind!r:.80}", status=415
        )
    import pyarrow as pa  # none is needed for JSON

    try:
        table = _READ[kind](body, reader.schema, most_rows)
        return reader.of_columns({str(name): table.column(name).to_pylist() for name in table.column_names})
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, UnicodeError, OverflowError) as error:
        raise ApiError("invalid", f"the body is no {kind}: {error!s:.300}") from None


def json_of(body: bytes) -> Any:
    """Return what a JSON body says.

    Raises:
        ApiError: it does not parse.
    """
    try:
        return orjson.loads(body)
    except (orjson.JSONDecodeError, RecursionError) as error:
        raise ApiError("invalid", f"the body is no JSON: {error!s:.200}") from None


def _csv(body: bytes, schema: Schema, most_rows: int) -> Any:
    import pyarrow as pa
    from pyarrow import csv

    types = {one.name: _ARROW[one.dtype] for one in schema.fields if one.dtype in _ARROW and one.name}
    columns = {name: getattr(pa, kind)() for name, kind in types.items()}
    # Texts are nothing only where they are not there at all: a category may be called `null`.
    convert = csv.ConvertOptions(column_types=columns, strings_can_be_null=True, quoted_strings_can_be_null=False)
    reading = csv.open_csv(io.BytesIO(body), convert_options=convert, read_options=csv.ReadOptions(use_threads=False))
    return _gathered(reading, most_rows)


def _parquet(body: bytes, schema: Schema, most_rows: int) -> Any:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(io.BytesIO(body))
    told = file.metadata
    expanded = sum(told.row_group(place).total_byte_size for place in range(told.num_row_groups))
    _check_size(told.num_rows, most_rows, told.num_columns, expanded)
    names = set(file.schema_arrow.names)
    wanted = [one.name for one in schema.fields if one.name in names] if schema.kind == "table" else None
    return file.read(columns=wanted, use_threads=False)


def _arrow(body: bytes, _schema: Schema, most_rows: int) -> Any:
    import pyarrow as pa

    return _gathered(pa.ipc.open_stream(body), most_rows)


def _gathered(batches: Any, most_rows: int) -> Any:
    import pyarrow as pa

    found, rows = [], 0
    for batch in batches:
        rows += batch.num_rows
        batch.validate()  # sizes that lie would be read far beyond the body
        _check_size(rows, most_rows, batch.num_columns, batch.nbytes)
        batch.validate(full=True)
        found.append(batch)
    return pa.Table.from_batches(found, schema=batches.schema)


def _check_size(rows: int, most_rows: int, columns: int, size: int) -> None:
    if rows > most_rows:
        raise ApiError("too_large", f"a request has at most {most_rows:,} rows; send the others in further requests")
    if size > _EXPANDED_BYTES or rows * columns > _LARGEST_CELLS:
        raise ApiError("too_large", f"{rows:,} rows of {columns:,} columns are too much for one request")


_READ: dict[str, Callable[[bytes, Schema, int], Any]] = {CSV: _csv, PARQUET: _parquet, ARROW: _arrow}
_ARROW = {"float64": "float64", "int64": "int64", "bool": "bool_", "text": "string", "category": "string"}
