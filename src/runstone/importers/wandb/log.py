"""What the records of a `.wandb` file say: field numbers of wandb's published protocol, and nothing else of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

from runstone.importers.items import Content
from runstone.importers.values import UNREADABLE, parse_json
from runstone.importers.wandb.wire import (
    Damage,
    Fields,
    WireError,
    inner,
    inners,
    message,
    number,
    records,
    text,
    texts,
)


class Kind(IntEnum):
    """Which record it is: the number of the field of a record that is set."""

    HISTORY = 2
    SUMMARY = 3
    OUTPUT = 4
    CONFIG = 5
    FILES = 6
    STATS = 7
    ARTIFACT = 8
    ALERT = 10
    METRIC = 12
    OUTPUT_RAW = 13
    RUN = 17
    EXIT = 18
    LINK_ARTIFACT = 24
    USE_ARTIFACT = 25
    ENVIRONMENT = 26


_ERRORS_STREAM = 0  # of an output record: 0 standard error, 1 standard output


def log_records(content: Content, damage: Damage) -> Iterator[tuple[Kind, Fields]]:
    """Yield kind and fields of each record that is known here.

    Raises:
        ValueError: it is no `.wandb` file.
        OSError: it cannot be read.
    """
    with content.opened() as path, path.open("rb") as file:
        for data in records(file, damage):
            try:
                outer = message(data)
                for kind in Kind:
                    if kind in outer:
                        yield kind, inner(outer, kind)
            except WireError:
                damage.pieces += 1


@dataclass(slots=True)
class ArtifactRecord:
    """An artifact that a run logged: its files as path, place on the machine, digest and reference."""

    name: str
    type: str
    digest: str
    description: str
    metadata: Any
    aliases: list[str]
    files: list[tuple[str, str, str, str]]


@dataclass(slots=True)
class RunRecords:
    """All that a file says of its run, but history, statistics and output."""

    run_id: str = ""
    project: str = ""
    entity: str = ""
    name: str = ""
    group: str = ""
    job_type: str = ""
    notes: str = ""
    sweep: str = ""
    host: str = ""
    started_s: float | None = None
    runtime_s: int | None = None
    exit_code: int | None = None
    tags: list[str] = field(default_factory=list)
    git: tuple[str, str] = ("", "")
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    environment: dict[int, list[int | bytes]] = field(default_factory=dict)
    artifacts: list[ArtifactRecord] = field(default_factory=list)
    used: list[tuple[str, str]] = field(default_factory=list)
    alerts: list[str] = field(default_factory=list)
    defined_metrics: int = 0
    links: int = 0
    unreadable: int = 0

    def take(self, kind: Kind, fields: Fields) -> None:
        """Take in one record.

        Raises:
            WireError: it is damaged.
        """
        match kind:
            case Kind.RUN:
                self._take_run(fields)
            case Kind.CONFIG:
                self._update(self.config, fields)
            case Kind.SUMMARY:
                self._update(self.summary, fields)
            case Kind.ARTIFACT:
                self._take_artifact(fields)
            case Kind.ALERT:
                self.alerts.append(": ".join(filter(None, (text(fields, 1), text(fields, 2)))))
            case Kind.METRIC:
                self.defined_metrics += 1
            case Kind.EXIT:
                self.exit_code, self.runtime_s = number(fields, 1), number(fields, 2)
            case Kind.LINK_ARTIFACT:
                self.links += 1
            case Kind.USE_ARTIFACT:
                self.used.append((text(fields, 3) or text(fields, 1), text(fields, 2)))
            case Kind.ENVIRONMENT:
                for key, values in fields.items():
                    self.environment.setdefault(key, []).extend(values)

    def _take_run(self, fields: Fields) -> None:
        self.run_id, self.entity, self.project = text(fields, 1), text(fields, 2), text(fields, 3)
        self.group, self.job_type, self.name = text(fields, 6), text(fields, 7), text(fields, 8)
        self.notes, self.tags, self.sweep = text(fields, 9), texts(fields, 10), text(fields, 12)
        self.host = text(fields, 13)
        self._update(self.config, inner(fields, 4))
        self._update(self.summary, inner(fields, 5))
        started = timestamp(inner(fields, 17))
        self.started_s = started if self.started_s is None else self.started_s
        git = inner(fields, 21)
        if git:
            self.git = text(git, 1), text(git, 2)

    def _take_artifact(self, fields: Fields) -> None:
        manifest = inner(fields, 12)
        files = [(text(e, 1), text(e, 6), text(e, 2), text(e, 3)) for e in inners(manifest, 4)]
        metadata = parse_json(text(fields, 8))
        self.artifacts.append(
            ArtifactRecord(
                text(fields, 5), text(fields, 4), text(fields, 6), text(fields, 7), metadata, texts(fields, 11), files
            )
        )

    def _update(self, standing: dict[str, Any], fields: Fields) -> None:
        for item in inners(fields, 1):
            found = item_value(item)
            if found is None:
                self.unreadable += 1
                continue
            put(standing, *found)
        for item in inners(fields, 2):
            drop(standing, texts(item, 2) or texts(item, 1))


def item_value(item: Fields) -> tuple[list[str], Any] | None:
    """Return path and value of an item of a config, summary or history; `None` where it cannot be read."""
    path = texts(item, 2) or texts(item, 1)
    value = parse_json(text(item, 16))
    return (path, value) if path and value is not UNREADABLE and len(path) < 64 else None


def put(standing: dict[str, Any], path: list[str], value: Any) -> None:
    """Set a value in nested objects."""
    for part in path[:-1]:
        below = standing.get(part)
        if not isinstance(below, dict):
            below = standing[part] = {}
        standing = below
    standing[path[-1]] = value


def drop(standing: dict[str, Any], path: list[str]) -> None:
    """Remove a value from nested objects, where it is there."""
    for part in path[:-1]:
        below = standing.get(part)
        if not isinstance(below, dict):
            return
        standing = below
    if path:
        standing.pop(path[-1], None)


def history_row(fields: Fields) -> tuple[int | None, dict[str, Any], int]:
    """Return step, nested values, and how many could not be read, of one call of `log`."""
    row: dict[str, Any] = {}
    unreadable = 0
    for item in inners(fields, 1):
        found = item_value(item)
        if found is None:
            unreadable += 1
        else:
            put(row, *found)
    step = number(inner(fields, 2), 1) if 2 in fields else None
    return step, row, unreadable


def stats_row(fields: Fields) -> tuple[float | None, dict[str, Any]]:
    """Return time and values of one sample of the machine."""
    found = {}
    for item in inners(fields, 3):
        value = parse_json(text(item, 16))
        if text(item, 1) and value is not UNREADABLE:
            found[text(item, 1)] = value
    return timestamp(inner(fields, 2)), found


def printed(fields: Fields) -> tuple[int, bytes, float | None]:
    """Return stream (1 output, 2 errors), bytes and time of what was printed."""
    data = [value for value in fields.get(3, ()) if isinstance(value, bytes)]
    stream = 2 if number(fields, 1, _ERRORS_STREAM) == _ERRORS_STREAM else 1
    return stream, data[-1] if data else b"", timestamp(inner(fields, 2))


def timestamp(fields: Fields) -> float | None:
    """Return a time of protocol buffers as seconds, `None` where there is none."""
    if not fields:
        return None
    seconds = number(fields, 1) + number(fields, 2) / 1e9
    return seconds if math.isfinite(seconds) and 0 <= seconds < 253_402_300_800.0 else None


def file_size(path: Path) -> int:
    """Return the size of a file, 0 where it is gone."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
