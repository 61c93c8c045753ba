"""A table of runs, as the index found them. Knows values and columns, not how they were found."""

from __future__ import annotations

import html
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from runstone import settings
from runstone.capture.metrics.energy import energy_in
from runstone.errors import InvalidValue
from runstone.index.conditions import (
    ATTRIBUTES,
    At,
    Attribute,
    AttributeType,
    Count,
    Environment,
    Field,
    Metric,
    Param,
    Tag,
)
from runstone.index.figures import PackedFigures
from runstone.index.records import RunRecord, escaped, list_text, split_path, unescaped
from runstone.names import SYSTEM
from runstone.params import flatten_params
from runstone.query.parser import parse_field
from runstone.values import JSON, MetricSummary

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from runstone.runinfo import RunInfo

_ATTRIBUTES = (
    "id",
    "name",
    "project",
    "status",
    "group",
    "started_at",
    "ended_at",
    "duration",
    "attempts",
    "parent",
    "notes",
    "failure",
)
MARKS = ("pinned", "archived")
"""Columns of a table in which a run has the mark."""
_MARKS = {"pinned": "is_pinned", "archived": "is_archived", "deleted": "is_deleted"}
_NOT_IN_RECORDS = (At, Environment, Count)
CONSUMPTION = ("energy_j", "energy_cost", "carbon_g")
"""Columns that are reckoned from the series of the machines' meters; the last two need a price, and an intensity."""
_SHOWN_ROWS, _SHOWN_COLUMNS = 20, 12


class RunTable(Sequence["RunInfo"]):
    """Runs that were found, in order.

    Items are `RunInfo`, read from the run's files when asked for, one by one. `to_dicts()` and `to_pandas()`
    give what the index knows of all of them (params, tags, last values of metrics) without touching their files.

    Attributes:
        total: How many runs matched, where `limit` cut the table off.
        troubles: Run folders that could not be read, in words.
    """

    def __init__(
        self,
        workspace_path: Path,
        records: Sequence[RunRecord],
        *,
        total: int | None = None,
        troubles: Sequence[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._workspace_path = workspace_path
        self._now = clock()
        self.records = tuple(records)
        self.total = len(records) if total is None else total
        self.troubles = tuple(troubles)

    def __len__(self) -> int:
        """Return the number of runs in the table."""
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> RunInfo: ...

    @overload
    def __getitem__(self, index: slice) -> RunTable: ...

    def __getitem__(self, index: int | slice) -> RunInfo | RunTable:
        """Return a run, read from its files now, or a part of the table.

        Raises:
            RunNotFound: its folder has been removed meanwhile.
        """
        if isinstance(index, slice):
            now = self._now
            return RunTable(self._workspace_path, self.records[index], clock=lambda: now)
        from runstone.runinfo import RunInfo  # loads numpy

        return RunInfo(self._workspace_path / "runs" / self.records[index].folder)

    def __iter__(self) -> Iterator[RunInfo]:
        """Yield the runs, each read when its turn comes."""
        return (self[index] for index in range(len(self)))

    @property
    def columns(self) -> list[str]:
        """The columns that hold a value in a run: attributes, then `params.…`, `metrics.…` and `tags.…`.

        `energy_j` is among the attributes where anything was metered, `energy_cost` and `carbon_g` where
        `RUNSTONE_PRICE_PER_KWH` and `RUNSTONE_CARBON_G_PER_KWH` are set, too.
        """
        attributes = [name for name in _ATTRIBUTES if self.has(name)]
        attributes += [name for name in MARKS if any(getattr(record, _MARKS[name]) for record in self.records)]
        attributes += [name for name in CONSUMPTION if self.has(name)]
        params = dict.fromkeys(f"params.{name}" for record in self.records for name in flatten_params(record.params))
        metrics = sorted({f"metrics.{name}" for record in self.records for name in record.metrics})
        tags = sorted({f"tags.{name}" for record in self.records for name in record.tags})
        return [*attributes, *params, *metrics, *tags]

    def has(self, attribute: str) -> bool:
        """Return whether any run has a value of an attribute, or of what it consumed."""
        return any(_attribute(record, attribute, self._now) is not None for record in self.records)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one dict a run: its attributes, and what it has of params, metrics (last value) and tags.

        Keys are those of `columns`. Times are aware UTC; `duration` is seconds.
        """
        return [self._row(record) for record in self.records]

    def to_pandas(self) -> pd.DataFrame:
        """Return a frame with one row a run and the columns of `columns` (needs pandas)."""
        import pandas as pd  # heavy and optional

        columns = self.columns
        rows = self.to_dicts()
        frame = pd.DataFrame({name: [row.get(name) for row in rows] for name in columns}, columns=columns)
        for name in ("started_at", "ended_at"):
            if name in columns:
                frame[name] = pd.to_datetime(frame[name], utc=True)
        return frame

    def to_arrow(self) -> pa.Table:
        """Return an Arrow table with one row a run and the columns of `columns`.

        Numbers stay numbers; a column whose values are of several types, and lists, are text, as JSON.
        """
        rows = self.to_dicts()
        return arrow_table({name: [row.get(name) for row in rows] for name in self.columns})

    def to_parquet(self, path: str | Path) -> None:
        """Write the table of `to_arrow` into a Parquet file, whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        _write(self.to_arrow(), Path(path))

    def values(self, column: str) -> list[Any]:
        """Return one column, `None` where a run has no value.

        Args:
            column: A field of the filter language, such as `metrics.val/acc.max`, or one of `columns`.

        Raises:
            InvalidFilter: there is no such field.
        """
        return self.values_of(self.field(column))

    def values_of(self, field: Field) -> list[Any]:
        """Return what the runs have under a field, `None` where one has nothing; several values as a list."""
        if not _is_in_records(field):
            return self._asked(field)
        return [value_of(record, field, self._now) for record in self.records]

    def _asked(self, field: Field) -> list[Any]:
        from runstone.index.asking import keys_of, values  # loads NumPy
        from runstone.index.opening import open_index
        from runstone.index.store import Question

        folders = [record.folder for record in self.records]

        def answer(question: Question) -> list[Any]:
            keys = keys_of(question, folders)
            there = [folder for folder in folders if folder in keys]
            found = dict(zip(there, values(question, [keys[folder] for folder in there], field), strict=True))
            return [found.get(folder) for folder in folders]

        with open_index(self._workspace_path) as index:
            return index.ask(answer)

    def field(self, column: str) -> Field:
        """Return the field that a column shows; names of `columns` need no quotes, whatever they hold.

        Raises:
            InvalidFilter: there is no such field.
        """
        if column in CONSUMPTION:
            return Attribute(column)
        kind, _, name = column.partition(".")
        for record in self.records:
            if kind == "metrics" and name in record.metrics:
                return Metric(name)
            if kind == "tags" and name in record.tags:
                return Tag(name)
            if kind == "params" and name in flatten_params(record.params):
                return Param(tuple(split_path(name)), is_exact=True)
        return parse_field(column)

    def _row(self, record: RunRecord) -> dict[str, Any]:
        row: dict[str, Any] = {name: _attribute(record, name, self._now) for name in (*_ATTRIBUTES, *MARKS)}
        is_metered = _attribute(record, CONSUMPTION[0], self._now) is not None
        row |= {name: _attribute(record, name, self._now) if is_metered else None for name in CONSUMPTION}
        row |= {f"params.{name}": value for name, value in flatten_params(record.params).items()}
        row |= {f"metrics.{name}": last for name, last in sorted(_last_values(record.metrics).items())}
        row |= {f"tags.{name}": text for name, text in sorted(record.tags.items())}
        return row

    def __repr__(self) -> str:
        """Show the first runs and the columns in which they differ."""
        header, rows = self._excerpt()
        if not rows:
            return "RunTable: no runs"
        widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in (header, *rows)
        ]
        return "\n".join([self._title(), *lines])

    def _repr_html_(self) -> str:
        header, rows = self._excerpt()
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        return (
            f"<div><p>{html.escape(self._title())}</p>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )

    def _title(self) -> str:
        runs = "1 run" if len(self) == 1 else f"{len(self):,} runs"
        of = f" of {self.total:,}" if self.total > len(self) else ""
        more = f", the first {_SHOWN_ROWS}:" if len(self) > _SHOWN_ROWS else ":"
        return f"RunTable: {runs}{of}{more if len(self) else ''}"

    def _excerpt(self) -> tuple[list[str], list[list[str]]]:
        shown = RunTable(self._workspace_path, self.records[:_SHOWN_ROWS], clock=lambda: self._now)
        rows = shown.to_dicts()
        columns = ["id", "name", "project", "status", "duration"]
        rest = [name for name in shown.columns if name.startswith(("metrics.", "params."))]
        rest = [name for name in rest if not name.startswith(f"metrics.{SYSTEM}")]
        telling = [name for name in rest if len({plain(row.get(name)) for row in rows}) > 1] or rest
        columns = [*columns, *telling[: _SHOWN_COLUMNS - len(columns)]]
        cells = [[_short(name, row.get(name)) for name in columns] for row in rows]
        return columns, cells


def value_of(record: RunRecord, field: Field, now: float) -> Any:
    """Return what a run has under a field, `None` where it has nothing.

    Args:
        record: The run.
        field: A metric's statistic, a param, a tag or an attribute with one value.
        now: Seconds since the epoch, the end of runs that go on.

    Raises:
        InvalidValue: the field is not known of a record alone; `RunTable.values_of` asks the index.
    """
    if not _is_in_records(field):
        raise InvalidValue(f"this works with a metric, a param, a tag or an attribute of one value, not with {field}")
    if isinstance(field, Attribute):
        return _attribute(record, field.name, now)
    assert isinstance(field, Metric | Param | Tag)  # noqa: S101 (what is left, for the type checker)
    return recorded_value(field, params=record.params, tags=record.tags, metrics=record.metrics)


def recorded_value(
    field: Metric | Param | Tag,
    *,
    params: Mapping[str, JSON],
    tags: Mapping[str, str],
    metrics: Mapping[str, MetricSummary],
) -> Any:
    """Return what was recorded under a field, `None` where nothing was."""
    match field:
        case Metric(name, statistic):
            summary = metrics.get(name)
            return None if summary is None else getattr(summary, statistic.value)
        case Tag(name):
            return tags.get(name)
        case Param(keys, is_exact):
            flat = flatten_params(params)
            path = ".".join(map(escaped, keys))
            if path in flat or is_exact:
                return flat.get(path)
            name = ".".join(keys)
            return next((flat[path] for path in flat if unescaped(path) == name), None)


def _last_values(metrics: Mapping[str, MetricSummary]) -> dict[str, float]:
    if isinstance(metrics, PackedFigures):  # makes no object for each of them
        return metrics.last_values()
    return {name: summary.last for name, summary in metrics.items()}


def _attribute(record: RunRecord, name: str, now: float) -> Any:
    match name:
        case "started_at" | "ended_at":
            epoch_s = getattr(record, name)
            return None if epoch_s is None else datetime.fromtimestamp(epoch_s, UTC)
        case "duration":
            return round(record.duration_s(now), 3)
        case "status":
            return record.status.value
        case "energy_j" | "energy_cost" | "carbon_g":
            return _consumption(record, name)
        case "pinned" | "archived" | "deleted":
            return getattr(record, _MARKS[name])
        case _:
            return getattr(record, name)


def _consumption(record: RunRecord, name: str) -> float | None:
    energy = energy_in(record.metrics)
    price, carbon = settings.number("RUNSTONE_PRICE_PER_KWH"), settings.number("RUNSTONE_CARBON_G_PER_KWH")
    match name:
        case "energy_cost":
            return energy.cost(price) if price is not None else None
        case "carbon_g":
            return energy.carbon_g(carbon) if carbon is not None else None
        case _:
            return energy.total_j


def _is_in_records(field: Field) -> bool:
    is_texts = isinstance(field, Attribute) and ATTRIBUTES[field.name] is AttributeType.TEXTS
    return not isinstance(field, _NOT_IN_RECORDS) and not is_texts


def arrow_table(columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """Return columns as an Arrow table."""
    import pyarrow as pa  # slow, only for tables

    return pa.table({name: _arrow_column(values) for name, values in columns.items()})


def write_columns(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns into a Parquet file, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    _write(arrow_table(columns), path)


def _arrow_column(values: Sequence[Any]) -> pa.Array:
    """Return values as an Arrow array: of one type where they have one, else as text."""
    import pyarrow as pa  # slow, only for tables

    kinds = {type(value) for value in values if value is not None}
    if kinds <= {bool} or kinds <= {str}:
        return pa.array(values, pa.bool_() if kinds == {bool} else pa.string() if kinds else pa.null())
    if kinds <= {int, float}:
        is_small = kinds == {int} and all(value is None or -(2**63) <= value < 2**63 for value in values)
        return pa.array(
            [None if value is None else value if is_small else _as_float(value) for value in values],
            pa.int64() if is_small else pa.float64(),
        )
    if kinds == {datetime}:
        return pa.array(values, pa.timestamp("us", "UTC"))
    texts = [value if value is None or isinstance(value, str) else list_text(value) for value in values]
    return pa.array([text.encode("utf-8", "replace").decode() if text is not None else None for text in texts])


def _as_float(value: int | float) -> float:
    """Return a number as a float; an integer beyond all floats as the largest."""
    try:
        return float(value)
    except OverflowError:
        return math.copysign(sys.float_info.max, value)


def _write(table: pa.Table, path: Path) -> None:
    import pyarrow.parquet as pq  # slow, only for tables

    partial = path.with_name(f"{path.name}.{os.urandom(8).hex()}.partial")
    try:
        pq.write_table(table, partial, compression="zstd")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def plain(value: Any) -> str:
    """Return a value as short text: six significant digits, lists as JSON, nothing for `None`."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float() if math.isfinite(value) and value.is_integer() and abs(value) < 1e15:
            return f"{value:.0f}"
        case float():
            return f"{value:.6g}"
        case datetime():
            return f"{value:%Y-%m-%d %H:%M:%S}"
        case list() | dict():
            return list_text(value)
        case _:
            return str(value)


def _short(name: str, value: Any) -> str:
    text = plain(value)
    if name == "duration":
        text = f"{float(value or 0):.1f} s"
    text = "".join(c if c.isprintable() else "·" for c in text[:200])
    return text if len(text) <= 40 else f"{text[:39]}…"
