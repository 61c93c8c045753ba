"""One run as it is read: a picture of its files, taken when asked for. Writes nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runstone.blobs import Blobs, open_blobs
from runstone.errors import FormatError, InvalidValue, RunNotFound
from runstone.params import flatten_params
from runstone.runlog import format as fmt
from runstone.runlog.damage import Damage
from runstone.runlog.reader import JournalState, read_journal, to_datetime
from runstone.runlog.series import MetricLog
from runstone.runlog.tail import SEALED, MetricTail
from runstone.values import JSON, Alert, Artifact, Attempt, Failure, Link, MetricSummary, Record, Series, Status

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import pyarrow as pa

    from runstone.console import ConsoleLine


class RunInfo:
    """What a run recorded, read from its folder. Everything but the points is read at once; points when first needed.

    Take a new one to see what a living run recorded since.

    Args:
        path: Folder of the run.

    Raises:
        RunNotFound: there is no run in this folder.
        FormatError: a newer version of Runstone wrote it.
    """

    def __init__(self, path: Path) -> None:
        self._journal: JournalState = read_journal(path)
        if not self._journal.writers:
            raise RunNotFound(f"there is no run in {path}")

    @property
    def id(self) -> str:
        """The run's id."""
        return self._journal.run_id

    @property
    def path(self) -> Path:
        """Its folder."""
        return self._journal.path

    @property
    def name(self) -> str:
        """Its readable name."""
        return self._journal.name or self._journal.run_id

    @property
    def project(self) -> str:
        """The project it belongs to; the folder's name where what told it was lost."""
        return self._journal.project or self.path.parent.name

    @property
    def group(self) -> str | None:
        """What it belongs to inside the project, such as a sweep."""
        return self._journal.group

    @property
    def notes(self) -> str | None:
        """Free text."""
        return self._journal.notes

    @property
    def parent(self) -> str | None:
        """Id of the run that it belongs under."""
        return self._journal.parent

    @property
    def status(self) -> Status:
        """How it stands, or why it ended."""
        return self._journal.status

    @property
    def failure(self) -> Failure | None:
        """Why it failed, with the traceback; `None` where it did not."""
        return self._journal.failure

    @property
    def params(self) -> dict[str, JSON]:
        """Params, nested as they were given."""
        return self._journal.params

    @property
    def flat_params(self) -> dict[str, JSON]:
        """Params under dotted names."""
        return flatten_params(self._journal.params)

    @property
    def tags(self) -> dict[str, str]:
        """Tags that stand."""
        return self._journal.tags

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """Artifacts; of several with one name, the one logged last."""
        return tuple(self._journal.artifacts.values())

    @property
    def inputs(self) -> tuple[Link, ...]:
        """Datasets, models and artifacts that it used, in the order in which it first did."""
        return tuple(self._journal.inputs.values())

    @property
    def outputs(self) -> tuple[Link, ...]:
        """Datasets and models that it made, in the order in which it first did."""
        return tuple(self._journal.outputs.values())

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Its process lives, oldest first."""
        return tuple(self._journal.attempts)

    @property
    def started_at(self) -> datetime:
        """When it was created: aware, UTC."""
        return to_datetime(self._journal.created_at)

    @property
    def ended_at(self) -> datetime | None:
        """When its latest attempt ended (after a crash: its last sign of life); `None` while it runs."""
        return to_datetime(self._journal.ended_at) if self._journal.ended_at is not None else None

    @property
    def duration_s(self) -> float:
        """Seconds from its creation to its end, or to now."""
        end = self.ended_at or datetime.now(UTC)
        return max(0.0, (end - self.started_at).total_seconds())

    def console(self) -> Iterator[ConsoleLine]:
        """Yield the lines that `runstone run` saw the program print, as far as they were kept."""
        from runstone.console import console_lines  # only where asked for

        return console_lines(self.path)

    @property
    def is_deleted(self) -> bool:
        """Whether it is hidden from lists."""
        return self._journal.is_deleted

    @property
    def is_pinned(self) -> bool:
        """Whether somebody marked it, to find it again."""
        return self._journal.is_pinned

    @property
    def is_archived(self) -> bool:
        """Whether it was put away: lists show it only where asked for."""
        return self._journal.is_archived

    @property
    def dropped(self) -> int:
        """Points that could not be written."""
        return self._journal.dropped

    @property
    def warnings(self) -> tuple[str, ...]:
        """What could not be recorded, and what of its files cannot be read, in words."""
        return (*map(str, self.damage), *self._journal.warnings)

    @cached_property
    def damage(self) -> tuple[Damage, ...]:
        """Which of its files cannot be read, or not all of them, why, and what that costs."""
        found = list(self._journal.damage)
        try:
            found += self._log.damage()
            self._log.summaries()
        except FormatError as error:
            found.append(Damage(SEALED, f"cannot be read ({error})", "the points in it are not known"))
        return tuple(found)

    @property
    def alerts(self) -> tuple[Alert, ...]:
        """What somebody wanted to be told of, oldest first."""
        return tuple(self._journal.alerts.values())

    @cached_property
    def _log(self) -> MetricLog:
        return MetricLog(self.path, self._journal)

    @cached_property
    def metrics(self) -> Mapping[str, MetricSummary]:
        """What each metric comes down to, by name."""
        return self._log.summaries()

    def series(self, name: str, *, attempt: int | str | None = None) -> Series:
        """Return one metric as arrays: its numbers; its texts where it never was a number.

        Args:
            name: Metric name exactly as logged.
            attempt: `None`: the run's curve, without points that a later attempt superseded; a number: what that
                attempt logged; `"all"`: every point of every attempt.

        Raises:
            MetricNotFound: the run never logged it; the message names the nearest ones.
            FormatError: it is sealed and damaged.
        """
        return self._log.series(name, attempt=attempt)

    @property
    def record_names(self) -> list[str]:
        """Names under which media or texts were logged, in alphabetical order."""
        return self._log.record_names

    def records(
        self,
        name: str,
        *,
        attempt: int | str | None = None,
        first_step: int | None = None,
        last_step: int | None = None,
    ) -> list[Record]:
        """Return the media and texts of one name, in the order of time.

        Args:
            name: Exactly as logged.
            attempt: `None`: without what a later attempt superseded; a number: what that attempt logged; `"all"`.
            first_step, last_step: Only this closed range of steps; default: all.

        Raises:
            MetricNotFound: nothing of the kind was logged under this name; the message names the nearest ones.
            FormatError: it is sealed and damaged.
        """
        blobs = open_blobs(self.path.absolute().parents[2])
        rows = self._log.records(name, attempt=attempt)
        if first_step is not None:
            rows = [row for row in rows if row[0] >= first_step]
        if last_step is not None:
            rows = [row for row in rows if row[0] <= last_step]
        return [_record(blobs, *row) for row in rows]

    def record_steps(self, name: str) -> list[int]:
        """Return the steps at which media or texts were logged under a name, each once, from low to high.

        It reads no content: of 10,000 steps that takes tens of milliseconds.

        Raises:
            MetricNotFound, FormatError: as `records` does.
        """
        return sorted({row[0] for row in self._log.records(name)})

    def zoom(
        self, name: str, *, buckets: int = 1000, first_step: int | None = None, last_step: int | None = None
    ) -> Series:
        """Return what a plot of one metric needs: of each bucket its first, last, lowest and highest point.

        No spike is lost: a line through these points covers the same pixels as one through all, if a bucket is a pixel
        wide. Of NaN, +Inf and -Inf the first of each bucket is kept too. Of ended, sealed runs any stretch of any
        length takes milliseconds.

        Args:
            name: Metric name exactly as logged.
            buckets: How many, at least 1; each covers the same range of steps, where steps never go back.
            first_step, last_step: Only this closed range of steps; default: all.

        Returns:
            At most 7 points a bucket (4 where all are finite), as they were logged.

        Raises:
            MetricNotFound: the run never logged it; the message names the nearest ones.
            InvalidValue: `buckets` is less than 1.
            FormatError: it is sealed and damaged.

        Source: Jugel et al., "M4: A Visualization-Oriented Time Series Data Aggregation", PVLDB 7(10), 2014.
        """
        from runstone.runlog.zoom import zoom  # Arrow, only for plots

        if buckets < 1:
            raise InvalidValue(f"buckets is {buckets}; it must be 1 or more")
        return zoom(self._log, name, buckets=buckets, first=first_step, last=last_step)

    def points(self) -> pa.Table:
        """Return all points as an Arrow table: `metric, step, time, value, integer, text, attempt, superseded`.

        Rows lie metric by metric, in the order in which they were logged. `value` is float64; `integer` holds the exact
        value of integers beyond 2**53; `text` holds texts, and media as JSON; points that a later attempt superseded
        are marked, not left out.
        """
        from runstone.runlog.sealed import table_of  # Arrow, only where asked for

        return table_of(self._log)

    def follow(self, *, interval_s: float = 0.05) -> Iterator[dict[str, Series]]:
        """Yield the points of a run as they come, by metric, until it has ended; first those that are there.

        Args:
            interval_s: Longest time in seconds from a point to its yield.

        Raises:
            FormatError: it is sealed and damaged.
        """
        tail = MetricTail(self.path)
        while True:
            is_ended = read_journal(self.path).status.is_ended  # before the poll: what came until then is in it
            new = tail.poll()
            if new:
                yield new
            if is_ended:
                return
            time.sleep(interval_s)

    @property
    def environment(self) -> dict[str, Any] | None:
        """The environment snapshot of the latest attempt's first rank; `None` where none was taken.

        What a program took of itself comes before what its launcher took beside it.
        """
        writers = sorted(
            self._journal.writers,
            key=lambda writer: (-writer.attempt, writer.role == "launcher", writer.rank, writer.started_at),
        )
        for writer in writers:
            try:
                found = json.loads((self.path / f"environment.{writer.writer}.json").read_bytes())
            except (OSError, ValueError):
                continue
            if isinstance(found, dict):
                return found
        return None

    def plot(
        self,
        *metrics: str,
        x: str = "step",
        smoothing: float = 0.0,
        log_y: bool = False,
        theme: str = "light",
    ) -> go.Figure:
        """Return a figure of the curves of metrics (needs plotly).

        Args:
            *metrics: Their names.
            x: `step`, `time`, `relative` (seconds since the run began), or another metric.
            smoothing: From 0 to below 1; the raw curve stays visible.
            log_y: Whether the axis of values is logarithmic.
            theme: `light` or `dark`.

        Raises:
            MetricNotFound: the run never logged one of them; the message names the nearest ones.
            InvalidValue: none is named, or `smoothing` or `theme` is out of range.
            InvalidConfig: plotly is not installed.
        """
        from runstone.display import plot_run  # figures, only where asked for

        if not metrics:
            raise InvalidValue(f"name a metric to plot; the run has {', '.join(list(self.metrics)[:8]) or 'none'}")
        return plot_run(self, metrics, x=x, smoothing=smoothing, log_y=log_y, theme=theme)

    def _repr_html_(self) -> str:
        from runstone.display import run_html  # only in notebooks

        return run_html(self)

    def __repr__(self) -> str:
        """Say what it is in one line."""
        return f"<RunInfo {self.name} of {self.project}: {self.status}, id {self.id}>"


def _record(blobs: Blobs, step: int, wall_s: float, kind: int, payload: str) -> Record:
    if kind == fmt.TYPE_STRING:
        return Record(step, wall_s, "text", size_bytes=len(payload.encode()), text=payload)
    fields = fmt.unpack_record(payload) or {}
    told, content = str(fields.pop("kind", "unknown")), fields.pop("hash", None)
    form, size = fields.pop("name", None), fields.pop("size", 0)
    path = None
    if isinstance(content, str) and content in blobs:  # else the run was copied without the workspace's blobs
        path = blobs.local_path(content)
    return Record(step, wall_s, told, form, size, content, path, None, fields)
