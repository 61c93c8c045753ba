"""Removing deleted runs for good. Until then they can be restored.

A run goes in three steps, each of which may be the last: its folder is moved to `trash/`, looked at once more (it may
have been restored, or gone on, meanwhile), marked, and removed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from runstone.runlog.changes import announce
from runstone.runlog.reader import journal_files, read_events, read_journal

_MARK = ".purged"


def purgeable(folder: Path, *, before: float) -> bool:
    """Return whether a run may go: it was deleted by then (seconds since the epoch), and nobody writes to it."""
    if not journal_files(folder):
        return False
    journal = read_journal(folder)
    if not journal.is_deleted or any(writer.is_alive for writer in journal.writers):
        return False
    deleted_at = max((event["at"] for _writer, event in read_events(folder) if event.get("event") == "deleted"))
    return bool(deleted_at <= before)


def purge(workspace: Path, folder: Path, *, before: float) -> int | None:
    """Remove a deleted run and return how many bytes that freed, `None` where it was restored meanwhile.

    Args:
        workspace: Folder of the workspace.
        folder: Of the run.
        before: As `purgeable` takes it.

    Raises:
        OSError: it cannot be moved or removed.
    """
    place = workspace / "trash" / folder.parent.name / folder.name
    place.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(place)
    if not purgeable(place, before=before):
        _put_back(workspace, place)
        return None
    marked = place.with_name(place.name + _MARK)
    place.rename(marked)
    announce(folder)
    return _remove(marked)


def left_over(workspace: Path) -> list[Path]:
    """Return what a purge that was broken off left in the trash."""
    trash = workspace / "trash"
    return sorted(path for path in trash.glob("*/*") if path.is_dir()) if trash.is_dir() else []


def take_up(workspace: Path, place: Path) -> int:
    """Bring a purge that was broken off to its end, or the run back; return how many bytes that freed."""
    if place.name.endswith(_MARK):
        return _remove(place)
    _put_back(workspace, place)
    return 0


def size_of(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(path.lstat().st_size for path in _files(folder))


def is_marked(place: Path) -> bool:
    """Return whether what lies in the trash is to be removed, not put back."""
    return place.name.endswith(_MARK)


def _put_back(workspace: Path, place: Path) -> None:
    home = workspace / "runs" / place.parent.name / place.name
    home.parent.mkdir(parents=True, exist_ok=True)
    place.rename(home)
    announce(home)


def _remove(place: Path) -> int:
    size = size_of(place)
    shutil.rmtree(place)
    return size


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_symlink() or path.is_file())
