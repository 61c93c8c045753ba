"""The runs of a comparison: what the index knows of each, and its files where more is asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, cast

from runstone.environments import as_used, recorded_patch
from runstone.index.figures import PackedFigures
from runstone.index.records import RunRecord
from runstone.params import flatten_params
from runstone.query.table import RunTable
from runstone.runinfo import RunInfo
from runstone.values import JSON, Link, MetricSummary


class Member:
    """One run of a comparison. Params, tags and metrics are at hand; the rest is read when asked for.

    Args:
        record: What a table of runs shows of it.
        read: Returns the run.
    """

    def __init__(self, record: RunRecord, read: Callable[[], RunInfo]) -> None:
        self.record = record
        self._read = read

    @property
    def id(self) -> str:
        """The run's id."""
        return self.record.id

    @property
    def name(self) -> str:
        """Its readable name."""
        return self.record.name

    @property
    def started_at(self) -> datetime:
        """When it was created: aware, UTC."""
        return datetime.fromtimestamp(self.record.started_at, UTC)

    @property
    def duration_s(self) -> float:
        """Seconds from its creation to its end, or to now."""
        return self.record.duration_s(now_s())

    @property
    def tags(self) -> Mapping[str, str]:
        """Its tags."""
        return self.record.tags

    @property
    def metrics(self) -> Mapping[str, MetricSummary]:
        """What each metric comes down to, by name."""
        return self.record.metrics

    @cached_property
    def params(self) -> dict[str, JSON]:
        """Its params, under dotted names."""
        return flatten_params(self.record.params)

    @cached_property
    def info(self) -> RunInfo:
        """The run, read from its files when first asked for.

        Raises:
            RunNotFound: its folder has been removed meanwhile.
        """
        return self._read()

    def read_environment(self) -> Mapping[str, Any]:
        """Return its environment, as the program used it; empty where none was recorded."""
        found = self.info.environment
        return as_used(found) if found is not None else {}

    def read_patch(self, environment: Mapping[str, Any]) -> bytes:
        """Return what was not committed, as a patch; nothing where none was kept.

        Args:
            environment: What `read_environment` returns.
        """
        return recorded_patch(self.info, environment) or b""

    @property
    def inputs(self) -> Sequence[Link]:
        """What it used."""
        return self.info.inputs


def members_of(runs: Iterable[RunInfo]) -> list[Member]:
    """Return the runs to compare, each once, in the order given. Of a `RunTable`, no file of a run is opened."""
    if isinstance(runs, RunTable):
        table = runs
        found = [Member(record, _reader(table, place)) for place, record in enumerate(table.records)]
    else:
        found = [Member(_record(info), _given(info)) for info in runs]
    return list({member.id: member for member in found}.values())


def _reader(table: RunTable, place: int) -> Callable[[], RunInfo]:
    return lambda: table[place]


def _given(info: RunInfo) -> Callable[[], RunInfo]:
    return lambda: info


def _record(info: RunInfo) -> RunRecord:
    """Return what a table would show of a run that was read from its files."""
    failure = info.failure
    said: dict[str, Any] = {
        "folder": "/".join(info.path.parts[-2:]),
        "started_at": info.started_at.timestamp(),
        "ended_at": info.ended_at.timestamp() if info.ended_at is not None else None,
        "failure": f"{failure.type}: {failure.message}" if failure is not None else None,
        "attempts": len(info.attempts),
        "warnings": len(info.warnings),
        "metrics": cast(PackedFigures, info.metrics),  # both are mappings of summaries; only the index packs them
    }
    said |= {
        field.name: getattr(info, field.name)
        for field in fields(RunRecord)
        if field.name not in said and hasattr(info, field.name)
    }
    return RunRecord(**said)


def now_s() -> float:
    """Return the seconds since the epoch at which runs that go on are looked at."""
    return time.time()
