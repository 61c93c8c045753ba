"""The prediction log as one Parquet file, with the labels that came later: for whatever reads tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from runstone.errors import InvalidValue, NotFound
from runstone.monitoring.tables import labelled_folder
from runstone.serving.labels import SUFFIX, keyed

_TOGETHER = 50_000
"""Rows of a row group; so many are in memory at once."""


def export_log(folder: Path, path: Path) -> int:
    """Write the closed parts of a prediction log as one Parquet file, a row each prediction; return the rows.

    Args:
        folder: Of the log.
        path: The file, which is replaced as a whole.

    Raises:
        NotFound: there is no log, or nothing in it.
        InvalidValue: a column holds values that are no one type, such as numbers and text.
    """
    parts = sorted(folder.glob(f"*{SUFFIX}"))
    if not parts:
        raise NotFound(f"{folder} has no closed part of a prediction log")
    labels = {key: row["label"] for part in labelled_folder(folder).glob(f"*{SUFFIX}") for key, row in keyed(part)}
    schema: pa.Schema | None = None
    for table in _tables(parts, labels):
        schema = table.schema if schema is None else _joined(schema, table.schema)
    if schema is None:
        raise NotFound(f"{folder} has no prediction")
    partial = path.with_name(f".{path.name}.partial")
    rows = 0
    try:
        with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
            for table in _tables(parts, labels):
                writer.write_table(pa.Table.from_pylist(table.to_pylist(), schema))
                rows += table.num_rows
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return rows


def _tables(parts: list[Path], labels: dict[tuple[str, int], Any]) -> Iterator[pa.Table]:
    rows: list[dict[str, Any]] = []
    for part in parts:
        for key, row in keyed(part):
            rows.append({**row, "label": labels.get(key, row.get("label"))})
            if len(rows) >= _TOGETHER:
                yield _table(rows)
                rows = []
    if rows:
        yield _table(rows)


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    try:
        return pa.Table.from_pylist(rows)
    except pa.ArrowException as error:
        raise InvalidValue(f"the prediction log is no table: {str(error).splitlines()[0]:.300}") from None


def _joined(one: pa.Schema, other: pa.Schema) -> pa.Schema:
    try:
        return pa.unify_schemas([one, other], promote_options="permissive")
    except pa.ArrowException as error:
        raise InvalidValue(f"the prediction log is no table: {str(error).splitlines()[0]:.300}") from None
