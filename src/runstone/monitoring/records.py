"""What checks found over time, in files of the workspace: one line each, and the whole report beside it.

`monitoring/<folder of the model>/checks.jsonl` holds a line for each check; `reports/<id>.json` what it found, and
`batches/<id>.json.z` what the batch looked like. Appended to by any process; the reports of the newest thousand checks
are kept, and as many batches as find room. What opened an incident is in its blob anyway.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runstone.errors import FormatError, NotFound
from runstone.monitoring.batches import Batch, keep_batch, kept_batch
from runstone.monitoring.report import Report
from runstone.names import folder_name

FOLDER = "monitoring"
_KEPT = 1_000


@dataclass(frozen=True, slots=True)
class Check:
    """One check, in short.

    Attributes:
        id: Of its report.
        model, version: Of whom.
        at: When, in seconds since the Unix epoch.
        verdict, headline: What it said.
        data, rows: What was looked at.
        drifted: How many columns are worse than ok.
        performance: Name and value of the figure that is judged; `None` without labels.
        incident: Number of the incident that it opened or belongs to.
    """

    id: str
    model: str
    version: str
    at: float
    verdict: str
    headline: str
    data: str
    rows: int
    drifted: int
    performance: tuple[str, float] | None = None
    incident: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)


def folder_of(workspace: Path, model: str) -> Path:
    """Return where the checks of a model lie."""
    return workspace / FOLDER / folder_name(model)


def note_check(
    workspace: Path, report: Report, *, incident: int | None = None, sample_rows: int | None = None
) -> Check:
    """Keep what a check found, and what its batch looked like with so many of its rows at most (`None`: as it is)."""
    assert report.model is not None  # noqa: S101 (callers have looked)
    assert report.version is not None  # noqa: S101
    moment = datetime.fromtimestamp(report.at, UTC)
    check = Check(
        id=f"{moment:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}",
        model=report.model,
        version=report.version,
        at=report.at,
        verdict=report.verdict,
        headline=report.headline,
        data=report.data,
        rows=report.rows,
        drifted=sum(one.level != "ok" for one in report.features),
        performance=(report.performance.figure, report.performance.value) if report.performance is not None else None,
        incident=incident,
    )
    folder = folder_of(workspace, report.model) / "reports"
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{check.id}.partial"
    partial.write_bytes(report_bytes(report))
    partial.replace(folder / f"{check.id}.json")
    if report.batch is not None:
        kept = replace(report.batch, profile=report.batch.profile.with_rows(sample_rows))
        keep_batch(folder.parent, check.id, kept)
    line = json.dumps({"format": 1, **check.to_dict()}, ensure_ascii=False) + "\n"
    fd = os.open(folder.parent / "checks.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(fd, line.encode("utf-8", "replace"))
    finally:
        os.close(fd)
    for old in sorted(folder.glob("*.json"))[:-_KEPT]:
        old.unlink(missing_ok=True)
    return check


def report_bytes(report: Report) -> bytes:
    """Return a report as it is kept; JSON has no NaN, so a figure that is none is null."""
    return json.dumps(plain(report.to_dict()), ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")


def plain(value: Any) -> Any:
    """Return JSON in which numbers that are not finite are null."""
    match value:
        case float() if value != value or value in (float("inf"), float("-inf")):
            return None
        case dict():
            return {str(key): plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [plain(inner) for inner in value]
        case _:
            return value


def checks_of(workspace: Path, model: str, *, version: str | None = None) -> list[Check]:
    """Return the checks of a model, or of one version of it, the oldest first; a line cut off by a crash is none."""
    return [one for one in _lines(folder_of(workspace, model) / "checks.jsonl") if version in (None, one.version)]


def _lines(path: Path) -> Iterator[Check]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    for line in data.splitlines():
        try:
            raw = json.loads(line)
            raw.pop("format")
            performance = raw.pop("performance")
            yield Check(**raw, performance=tuple(performance) if performance else None)
        except (ValueError, KeyError, TypeError, AttributeError):
            continue


def read_report(workspace: Path, model: str, check_id: str) -> dict[str, Any]:
    """Return the report of a check, as JSON.

    Raises:
        NotFound: there is none, or it is kept no more.
        FormatError: it is damaged.
    """
    path = folder_of(workspace, model) / "reports" / f"{check_id}.json"
    if not _is_known(workspace, model, check_id) or not path.is_file():
        raise NotFound(f"there is no report {check_id!r:.80} of model {model!r:.80}")
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        raise FormatError(f"{path} is damaged: {error}") from None
    return found


def read_batch(workspace: Path, model: str, check_id: str) -> Batch | None:
    """Return what the batch of a check looked like; `None`: it was checked by an older version, or had to make room.

    Raises:
        NotFound: there is no such check.
        FormatError: it is damaged, or a newer version wrote it.
    """
    if not _is_known(workspace, model, check_id):
        raise NotFound(f"there is no check {check_id!r:.80} of model {model!r:.80}")
    return kept_batch(folder_of(workspace, model), check_id)


def _is_known(workspace: Path, model: str, check_id: str) -> bool:
    """Return whether there was such a check: no other file is read by a name that somebody gives."""
    return any(one.id == check_id for one in checks_of(workspace, model))
