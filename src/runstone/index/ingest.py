"""From run folders to records: which folders changed, and what they hold now. Knows files, no SQL.

Which folders are looked at when a question is asked is told in decision 10.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from runstone.errors import FormatError, NotFound
from runstone.index.conditions import At
from runstone.index.details import Details, details_of
from runstone.index.figures import PackedFigures
from runstone.index.records import RunRecord
from runstone.runlog.changes import news
from runstone.runlog.damage import Damage
from runstone.runlog.format import SEALED
from runstone.runlog.liveness import boot_id
from runstone.runlog.reader import JournalState, read_journal

if TYPE_CHECKING:
    from runstone.runlog.summary import Summaries

_STEADY_NS = 10_000_000_000
"""A folder is trusted by its time of change once that is this old: what is written into a file that is there
already does not change its folder's time, and the clocks of file systems are coarse."""


_SILENT_NS = 3_600_000_000_000
SMALL_S = 0.02
"""All folders are compared at each question where that takes less."""
_SCAN_SHARE = 20


class Watch(IntEnum):
    """How a run folder is watched, beside the comparison of all folders and what their writers announce."""

    SETTLED = 0
    """Not at all: its time of change tells all."""
    RESTLESS = 1
    """Each question looks at its files: it changed a moment ago."""
    LIVING = 2
    """Each question reads it: its points go to mapped memory, and its death leaves no trace in any file."""
    AWAY = 3
    """Each question looks at its files: a writer on another machine fell silent, and may come back."""
    SILENT = 4
    """Each comparison of all folders looks at its files: such a writer has been silent for an hour."""


@dataclass(frozen=True, slots=True)
class Known:
    """In which state the index saw a run folder.

    Attributes:
        mtime_ns: Time of the folder's last change.
        signature: Hash over its files' names, sizes and times; empty where that tells nothing, since the run lives.
        watch: How it is watched.
        seen_at: When it was seen so, nanoseconds since the epoch.
    """

    mtime_ns: int
    signature: str = ""
    watch: Watch = Watch.LIVING
    seen_at: int = 0


@dataclass(frozen=True, slots=True)
class Reading:
    """One run folder, read.

    Attributes:
        record: The run; `None` where the folder holds no run (yet).
        known: The state of the folder before it was read.
        details: What is kept of it beside the record.
        trouble: Why it could not be read, or what of it could not be, else empty.
        progress: How far its points were read, for the next time; `None` where that is of no use.
    """

    folder: str
    record: RunRecord | None
    known: Known
    details: Details | None = None
    trouble: str = ""
    progress: bytes | None = None


@dataclass(frozen=True, slots=True)
class Before:
    """What the index knows before a question.

    Attributes:
        feed: How much of each file of announcements was read.
        scanned_at: When all folders were compared last, seconds since the epoch; 0 where they never were.
        scan_s: How long that took.
        watched: Folders that are restless or live.
        unread: Folders that held no run when they were looked at last.
    """

    feed: Mapping[str, int] = field(default_factory=dict)
    scanned_at: float = 0.0
    scan_s: float = 0.0
    watched: Mapping[str, Known] = field(default_factory=dict)
    unread: frozenset[str] = frozenset()

    def is_scan_due(self, now: float) -> bool:
        """Return whether all folders are to be compared: always where that is quick, else for 1/20 of the time."""
        return self.scan_s < SMALL_S or not 0 <= now - self.scanned_at < self.scan_s * _SCAN_SHARE


@dataclass(slots=True)
class Changes:
    """What is to be done so that the index is as the disk.

    Attributes:
        stale: Folders to read, with their time of change.
        confirmed: Folders that were looked into and found as they were, with the state as of now.
        gone: Folders that are no longer there.
        feed: How much of each file of announcements was read now.
        scanned_at, scan_s: As in `Before`, where all folders were compared.
    """

    stale: dict[str, int] = field(default_factory=dict)
    confirmed: dict[str, Known] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    feed: dict[str, int] = field(default_factory=dict)
    scanned_at: float = 0.0
    scan_s: float = 0.0

    def __bool__(self) -> bool:
        """Return whether runs changed."""
        return bool(self.stale or self.confirmed or self.gone)


class States(Protocol):
    """In which states the index saw run folders."""

    def settled(self) -> dict[str, int]:
        """Return the settled ones, with their time of change."""

    def unsettled(self) -> dict[str, Known]:
        """Return the others."""

    def of(self, folders: Iterable[str]) -> dict[str, Known]:
        """Return those of some folders, as far as they are known."""


def find_changes(workspace: Path, before: Before, states: States) -> Changes:
    """Compare what is on disk with what the index knows.

    Args:
        workspace: Its folder.
        before: What the index knows of all.
        states: What it knows of each folder.
    """
    told, feed, goes_on = news(workspace, before.feed)  # before the look: what is told later is told to the next one
    started = time.time()
    found = Changes(feed=feed)
    if before.is_scan_due(started) or not goes_on:
        clock = time.perf_counter()
        _compare_all(workspace, states, found)
        found.gone += [folder for folder in before.unread if not (workspace / "runs" / folder).is_dir()]
        found.scanned_at, found.scan_s = started, time.perf_counter() - clock
        return found
    known = dict(before.watched)
    known.update(states.of(told - set(known)))
    for folder in known.keys() | told:
        try:
            mtime_ns = (workspace / "runs" / folder).stat().st_mtime_ns
        except OSError:
            if folder in known or folder in before.unread:
                found.gone.append(folder)
            continue
        _compare(workspace, folder, mtime_ns, known.get(folder), found, is_scan=False)
    return found


def _compare_all(workspace: Path, states: States, found: Changes) -> None:
    on_disk, settled, others = scan(workspace), states.settled(), states.unsettled()
    for folder, mtime_ns in on_disk.items():
        if settled.get(folder) != mtime_ns:
            _compare(workspace, folder, mtime_ns, others.get(folder), found, is_scan=True)
    found.gone = [folder for known in (settled, others) for folder in known if folder not in on_disk]


def scan(workspace: Path) -> dict[str, int]:
    """Return the run folders, as `<project folder>/<run id>`, with the time of their last change in nanoseconds."""
    found: dict[str, int] = {}
    for project in _folders(workspace / "runs"):
        for run in _folders(Path(project.path)):
            try:
                found[f"{project.name}/{run.name}"] = run.stat().st_mtime_ns
            except OSError:  # deleted under our hands
                continue
    return found


def _folders(path: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return [entry for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    except OSError:
        return []


def _compare(
    workspace: Path, folder: str, mtime_ns: int, state: Known | None, found: Changes, *, is_scan: bool
) -> None:
    """Sort one folder into what is to be done."""
    if state is None or state.mtime_ns != mtime_ns or state.watch is Watch.LIVING:
        found.stale[folder] = mtime_ns
        return
    if state.watch is Watch.SETTLED or (state.watch is Watch.SILENT and not is_scan):
        return
    now = time.time_ns()
    if _signature(workspace / "runs" / folder) != state.signature:
        found.stale[folder] = mtime_ns
    elif state.watch is Watch.RESTLESS and now - mtime_ns > _STEADY_NS:
        found.confirmed[folder] = replace(state, watch=Watch.SETTLED, seen_at=now)
    elif state.watch is Watch.AWAY and now - state.seen_at > _SILENT_NS:
        found.confirmed[folder] = replace(state, watch=Watch.SILENT, seen_at=now)


def read(
    workspace: Path, folder: str, mtime_ns: int, progress: bytes | None = None, details: Details | None = None
) -> Reading:
    """Read one run folder.

    Args:
        workspace: Folder of the workspace.
        folder: The run's, below `runs/`.
        mtime_ns: When the folder changed last.
        progress: How far its points were read before; only what came since is read then.
        details: What was read of it before; its snapshot is read again only where that is another file.
    """
    path = workspace / "runs" / folder
    seen_at = time.time_ns()
    unsure = Known(mtime_ns, seen_at=seen_at)
    signature = _signature(path)
    try:
        journal = read_journal(path)
        if not journal.writers:
            return Reading(folder, None, unsure)
        is_held_only = bool(journal.is_held)  # whoever goes on with it makes new files
        lives = any(writer.is_alive for writer in journal.writers) or not (journal.status.is_ended or is_held_only)
        metrics, progress, damage = _metrics(path, journal, progress, lives=lives)
        record = _record(folder, journal, metrics, warnings=len(journal.warnings) + len(damage))
        trouble = _told(record, damage)
        details = details_of(path, journal, details)
    except FormatError as error:
        return Reading(folder, None, unsure, trouble=str(error))
    except (OSError, ValueError, KeyError, TypeError) as error:  # damage: one folder must not hide the others
        trouble = f"run folder {folder} cannot be read: {type(error).__name__}: {error}"
        return Reading(folder, None, unsure, trouble=trouble)
    if lives or not signature:
        return Reading(folder, record, unsure, details, trouble, progress)
    known = Known(mtime_ns, signature, _watch(journal, mtime_ns, seen_at), seen_at)
    return Reading(folder, record, known, details, trouble)


def _told(record: RunRecord, damage: Sequence[object]) -> str:
    """Return what is said of a run whose files are damaged, empty where none is."""
    if not damage:
        return ""
    more = f" ({len(damage) - 1:,} more: runstone runs show {record.id})" if len(damage) > 1 else ""
    name = record.id if record.name == record.id else f"{record.name} ({record.id})"
    return f"run {name} is not whole: {damage[0]}{more}"


def _watch(journal: JournalState, mtime_ns: int, seen_at: int) -> Watch:
    """Return how a run that does not live is watched."""
    if not _is_over(journal):
        silent_since = max(mtime_ns, int((journal.ended_at or 0.0) * 1e9))
        return Watch.SILENT if seen_at - silent_since > _SILENT_NS else Watch.AWAY
    return Watch.SETTLED if seen_at - mtime_ns > _STEADY_NS else Watch.RESTLESS


def _metrics(
    path: Path, journal: JournalState, before: bytes | None, *, lives: bool
) -> tuple[PackedFigures, bytes | None, list[Damage]]:
    """Return what the metrics of a run come down to, how far they were read, and what of its files is damaged."""
    from runstone.runlog.progress import Progress  # loads numpy; a query over unchanged runs does without
    from runstone.runlog.series import MetricLog
    from runstone.runlog.summary import Figures, Summaries

    try:
        progress = Progress.from_bytes(path, before) if before is not None else None
        if progress is None or not progress.advance(journal):
            log = MetricLog(path, journal)
            if not lives:
                return _packed(log.summaries()), None, [*journal.damage, *log.damage()]
            progress = Progress(log, journal)
    except FormatError as error:  # damaged, or of a newer version: the run is there all the same
        damage = Damage(SEALED, f"cannot be read ({error})", "its metrics are not known")
        return _packed(Summaries({}, Figures(0))), None, [*journal.damage, damage]
    damages = [*journal.damage, *progress.damage(journal)]
    return _packed(progress.summaries()), progress.to_bytes() if lives else None, damages


def _packed(summaries: Summaries) -> PackedFigures:
    return PackedFigures.of(list(summaries), summaries.columns())


def _is_over(journal: JournalState) -> bool:
    """Return whether each writer is certainly gone.

    One of another machine that fell silent may come back, or its folder may be copied here again with more in it.
    """
    here = boot_id()
    return all(
        writer.status is not None or writer.role == "edit" or (here and writer.boot_id == here)
        for writer in journal.writers
    )


def _signature(path: Path) -> str:
    """Return a hash over names, sizes and times of the files of a run."""
    try:
        with os.scandir(path) as entries:
            stats = [(entry.name, entry.stat()) for entry in entries]
        files = sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)
    except OSError:
        return ""
    return hashlib.blake2b(repr(files).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _record(folder: str, journal: JournalState, metrics: PackedFigures, *, warnings: int) -> RunRecord:
    failure = journal.failure
    is_ended = journal.status.is_ended
    return RunRecord(
        id=journal.run_id,
        folder=folder,
        project=journal.project or folder.partition("/")[0],
        name=journal.name or journal.run_id,
        status=journal.status,
        started_at=journal.created_at,
        ended_at=journal.ended_at if is_ended else None,
        group=_text(journal.group),
        notes=_text(journal.notes),
        parent=_text(journal.parent),
        failure=f"{failure.type}: {failure.message}" if failure is not None else None,
        params=journal.params,
        tags=journal.tags,
        metrics=metrics,
        attempts=max(1, len(journal.attempts)),
        is_deleted=journal.is_deleted,
        is_pinned=journal.is_pinned,
        is_archived=journal.is_archived,
        dropped=journal.dropped,
        warnings=warnings,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def value_at(path: Path, field: At) -> tuple[float | None, bool]:
    """Return the value of a metric at a step, `None` for NaN, and whether the run has a point there."""
    import numpy as np

    from runstone.runlog.series import MetricLog  # loads NumPy

    try:
        series = MetricLog(path).series(field.name)
    except (OSError, FormatError, NotFound):
        return None, False
    places = np.flatnonzero(series.step == field.step)
    if not len(places):
        return None, False
    value = float(series.value[places[-1]])
    return (None if value != value else value), True
