"""From run folders to records: which folders changed, and what they hold now. Knows files, no SQL."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from runstone.errors import FormatError
from runstone.index.figures import PackedFigures
from runstone.index.records import RunRecord
from runstone.runlog.liveness import boot_id
from runstone.runlog.reader import JournalState, read_journal

if TYPE_CHECKING:
    from runstone.runlog.summary import Summaries

_STEADY_NS = 10_000_000_000
"""A folder is trusted by its time of change once that is this old: what is written into a file that is there
already does not change its folder's time, and the clocks of file systems are coarse."""


@dataclass(frozen=True, slots=True)
class Known:
    """In which state the index saw a run folder.

    Attributes:
        mtime_ns: Time of the folder's last change.
        signature: Hash over its files' names, sizes and times; empty where that tells nothing, since the run lives.
        is_over: Whether each of its writers is certainly gone.
        seen_at: When it was seen so, nanoseconds since the epoch.
    """

    mtime_ns: int
    signature: str = ""
    is_over: bool = False
    seen_at: int = 0

    @property
    def is_settled(self) -> bool:
        """Whether the folder's time alone tells if something changed."""
        return self.is_over and self.seen_at - self.mtime_ns > _STEADY_NS


@dataclass(frozen=True, slots=True)
class Reading:
    """One run folder, read.

    Attributes:
        record: The run; `None` where the folder holds no run (yet).
        known: The state of the folder before it was read.
        trouble: Why it could not be read, else empty.
        progress: How far its points were read, for the next time; `None` where that is of no use.
    """

    folder: str
    record: RunRecord | None
    known: Known
    trouble: str = ""
    progress: bytes | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be done so that the index is as the disk.

    Attributes:
        stale: Folders to read.
        confirmed: Folders that were looked into and found as they were, with the state as of now.
        gone: Folders that are no longer there.
    """

    stale: list[str]
    confirmed: dict[str, Known]
    gone: list[str]

    def __bool__(self) -> bool:
        """Return whether anything is to be done."""
        return bool(self.stale or self.confirmed or self.gone)


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


def changes(workspace: Path, on_disk: Mapping[str, int], known: Mapping[str, Known]) -> Changes:
    """Compare what is on disk with what the index knows.

    A settled run needs no look into its folder. A living one always counts as stale: its points go to mapped
    memory, and its death leaves no trace in any file.
    """
    found = Changes([], {}, [folder for folder in known if folder not in on_disk])
    for folder, mtime_ns in on_disk.items():
        state = known.get(folder)
        if state is None or state.mtime_ns != mtime_ns or not state.signature:
            found.stale.append(folder)
        elif not state.is_settled:
            now = time.time_ns()
            if _signature(workspace / "runs" / folder) != state.signature:
                found.stale.append(folder)
            elif (confirmed := replace(state, seen_at=now)).is_settled:
                found.confirmed[folder] = confirmed
    return found


def read(workspace: Path, folder: str, mtime_ns: int, progress: bytes | None = None) -> Reading:
    """Read one run folder.

    Args:
        workspace: Folder of the workspace.
        folder: The run's, below `runs/`.
        mtime_ns: When the folder changed last.
        progress: How far its points were read before; only what came since is read then.
    """
    path = workspace / "runs" / folder
    seen_at = time.time_ns()
    unsure = Known(mtime_ns, seen_at=seen_at)
    signature = _signature(path)
    try:
        journal = read_journal(path)
        if not journal.writers:
            return Reading(folder, None, unsure)
        lives = any(writer.is_alive for writer in journal.writers) or not journal.status.is_ended
        metrics, progress = _metrics(path, journal, progress, lives=lives)
        record = _record(folder, journal, metrics)
    except FormatError as error:
        return Reading(folder, None, unsure, trouble=str(error))
    except (OSError, ValueError, KeyError, TypeError) as error:  # damage: one folder must not hide the others
        trouble = f"run folder {folder} cannot be read: {type(error).__name__}: {error}"
        return Reading(folder, None, unsure, trouble=trouble)
    if lives:
        return Reading(folder, record, unsure, progress=progress)
    return Reading(folder, record, Known(mtime_ns, signature, _is_over(journal), seen_at))


def _metrics(
    path: Path, journal: JournalState, before: bytes | None, *, lives: bool
) -> tuple[PackedFigures, bytes | None]:
    """Return what the metrics of a run come down to, and how far they were read."""
    from runstone.runlog.progress import Progress  # loads numpy; a query over unchanged runs does without
    from runstone.runlog.series import MetricLog

    progress = Progress.from_bytes(path, before) if before is not None else None
    if progress is None or not progress.advance(journal):
        log = MetricLog(path, journal)
        if not lives:
            return _packed(log.summaries()), None
        progress = Progress(log, journal)
    return _packed(progress.summaries()), progress.to_bytes() if lives else None


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


def _record(folder: str, journal: JournalState, metrics: PackedFigures) -> RunRecord:
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
        dropped=journal.dropped,
        warnings=len(journal.warnings),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
