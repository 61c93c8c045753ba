"""A table of runs, as the index found them. Knows values and columns, not how they were found."""

from __future__ import annotations

import html
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from runstone import settings
from runstone.capture.metrics.energy import energy_in
from runstone.index.conditions import Attribute, Field, Metric, Param, Tag
from runstone.index.records import RunRecord, escaped, list_text, split_path, unescaped
from runstone.names import SYSTEM
from runstone.params import flatten_params
from runstone.query.parser import parse_field
from runstone.values import JSON, MetricSummary

if TYPE_CHECKING:
    import pandas as pd

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
        attributes = [*_ATTRIBUTES, *CONSUMPTION]
        attributes = [name for name in attributes if self.has(name)]
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

    def values(self, column: str) -> list[Any]:
        """Return one column, `None` where a run has no value.

        Args:
            column: A field of the filter language, such as `metrics.val/acc.max`, or one of `columns`.

        Raises:
            InvalidFilter: there is no such field.
        """
        field = self.field(column)
        return [value_of(record, field, self._now) for record in self.records]

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
        row: dict[str, Any] = {name: _attribute(record, name, self._now) for name in (*_ATTRIBUTES, *CONSUMPTION)}
        row |= {f"params.{name}": value for name, value in flatten_params(record.params).items()}
        row |= {f"metrics.{name}": summary.last for name, summary in sorted(record.metrics.items())}
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
        field: A metric's statistic, a param, a tag or an attribute.
        now: Seconds since the epoch, the end of runs that go on.
    """
    if isinstance(field, Attribute):
        return _attribute(record, field.name, now)
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
