"""A run as JSON: what it recorded, and its points."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from runstone.runinfo import RunInfo

FORMAT = 1


def run_as_dict(info: RunInfo) -> dict[str, Any]:
    """Return all of a run but its points and media, as values that `json` takes; times are datetimes."""
    return {
        "id": info.id,
        "name": info.name,
        "project": info.project,
        "group": info.group,
        "parent": info.parent,
        "notes": info.notes,
        "status": info.status.value,
        "failure": asdict(info.failure) if info.failure else None,
        "started_at": info.started_at,
        "ended_at": info.ended_at,
        "duration_s": info.duration_s,
        "path": str(info.path),
        "params": info.params,
        "tags": info.tags,
        "metrics": {name: asdict(summary) for name, summary in info.metrics.items()},
        "artifacts": [{**asdict(artifact), "size_bytes": artifact.size_bytes} for artifact in info.artifacts],
        "inputs": [asdict(link) for link in info.inputs],
        "outputs": [asdict(link) for link in info.outputs],
        "attempts": [asdict(attempt) for attempt in info.attempts],
        "dropped": info.dropped,
        "warnings": info.warnings,
        "is_pinned": info.is_pinned,
        "is_archived": info.is_archived,
        "is_deleted": info.is_deleted,
        "environment": info.environment,
    }


def write_json(info: RunInfo, path: Path) -> int:
    """Write all of a run into a file, metric by metric, and return how many points that were.

    `points` holds, by metric, columns of one length: `step`, `time` (seconds since the epoch, UTC), `value` (number, or
    text), without those that a later attempt superseded; `records` media and texts, without their bytes. NaN and ±Inf,
    which JSON lacks, are the texts `nan`, `inf` and `-inf`.

    Raises:
        OSError: it cannot be written.
    """
    count = 0
    names = set(info.metrics)
    with path.open("w", encoding="utf-8") as file:
        head = _dumped({"format": FORMAT, **run_as_dict(info)})
        file.write(head[:-1] + ',"points":{')
        for number, name in enumerate(sorted(names)):
            series = info.series(name)
            count += len(series)
            columns = {"step": series.step, "time": series.wall_s, "value": series.value}
            told = _dumped({key: column.tolist() for key, column in columns.items()})
            file.write(f"{',' if number else ''}\n{_dumped(name)}:{told}")
        file.write('},"records":{')
        for number, name in enumerate(info.record_names):
            rows = [_record(record) for record in info.records(name)]
            count += len(rows)
            file.write(f"{',' if number else ''}\n{_dumped(name)}:{_dumped(rows)}")
        file.write("}}\n")
    return count


def _record(record: Any) -> dict[str, Any]:
    told = {name: getattr(record, name) for name in ("step", "wall_s", "kind", "format", "size_bytes", "hash", "text")}
    return {"time": told.pop("wall_s"), **told, **record.metadata}


def _dumped(value: Any) -> str:
    return (
        json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=str)
        .encode("utf-8", "replace")
        .decode()
    )


def _plain(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
        case dict():
            return {str(key): _plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case datetime():
            return value.isoformat()
        case _:
            return value
