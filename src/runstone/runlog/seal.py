"""Sealing: the metric logs of an ended run become one compact, checksummed file. Loses nothing, can be done again.

The points of writers that are gone are written to a new file, brought to the disk, and put in place by a rename; only
then their logs are removed. A kill at any moment leaves the logs, the sealed file, or both, and readers take each point
once. A run that is resumed later has logs beside the sealed file until it is sealed again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from runstone.runlog.blocks import BLOCKS, write_blocks
from runstone.runlog.changes import announce
from runstone.runlog.liveness import is_alive, read_status
from runstone.runlog.reader import JournalState, read_journal
from runstone.runlog.sealed import new_file, parts_of, sync_folder, write_sealed
from runstone.runlog.series import MetricLog
from runstone.runlog.spill import recover_spill
from runstone.runlog.tail import SEALED
from runstone.runlog.zoom import LEVELS, write_levels

_LOCK = "seal.lock"


@dataclass(frozen=True, slots=True)
class Sealing:
    """What sealing did: points in the file, bytes of logs before, bytes of the sealed files now."""

    points: int
    bytes_before: int
    bytes_after: int


def seal(run_path: Path, *, writers: Collection[str] | None = None) -> Sealing | None:
    """Seal the metric logs of a run.

    Args:
        run_path: Folder of the run.
        writers: Only the logs of these; default: of all that are gone.

    Returns:
        What was done; `None` where there was nothing to do: no whole log of a writer that is gone (damaged ones stay as
        they are), or another process seals; or where points of the run lie elsewhere on this host and find no room here
        yet.

    Raises:
        FormatError: files of the run are damaged or of a newer version.
        OSError: the disk is full; everything is as it was then.
    """
    with alone(run_path) as is_alone:
        if not is_alone:
            return None
        for name in (SEALED, LEVELS, BLOCKS):
            for left in run_path.glob(f"{name}.*.partial"):  # of a sealing that was killed; others' are at work
                left.unlink(missing_ok=True)
        if not recover_spill(run_path):
            return None
        journal = read_journal(run_path)
        logs = _logs_of_the_gone(run_path, journal, writers)
        if not logs:
            return None
        log = MetricLog(run_path, journal)
        for damage in log.damage():  # what is damaged may be put back, or read by a better reader: it stays
            logs.pop(damage.writer, None)
        if not logs:
            return None
        already = log.sealed.writers if log.sealed is not None else set()
        sealed = sorted(already | set(logs))
        before = sum(path.stat().st_size for paths in logs.values() for path in paths)

        with new_file(run_path / SEALED) as path:
            points = write_sealed(path, parts_of(log, sealed), sealed)
        for derived in (LEVELS, BLOCKS):
            (run_path / derived).unlink(missing_ok=True)
        write_levels(run_path)
        write_blocks(run_path)
        for paths in logs.values():
            for path in paths:
                path.unlink(missing_ok=True)
        sync_folder(run_path)
        announce(run_path)
        after = sum(p.stat().st_size for p in (run_path / name for name in (SEALED, LEVELS, BLOCKS)) if p.exists())
        return Sealing(points, before, after)


def log_writer(path: Path) -> str:
    """Return the writer to whose metric log a file belongs; empty for other files."""
    return path.stem.partition("-")[0] if path.suffix in (".wal", ".keys", ".blob") else ""


@contextlib.contextmanager
def alone(run_path: Path) -> Iterator[bool]:
    """Say whether this process alone puts the metric logs of a run in order; the lock goes with the process."""
    fd = os.open(run_path / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
        (run_path / _LOCK).unlink(missing_ok=True)
    finally:
        os.close(fd)


def _logs_of_the_gone(run_path: Path, journal: JournalState, writers: Collection[str] | None) -> dict[str, list[Path]]:
    """Return the files of metric logs whose writers are gone, by writer; of some writers, or of all."""
    boots = {writer.writer: writer.boot_id for writer in journal.writers}
    gone = {
        writer
        for writer in {log_writer(path) for path in run_path.iterdir()}
        if writer
        and (writers is None or writer in writers)
        and not is_alive(run_path / f"{writer}.status", boots.get(writer, ""))
        and not _is_spilled(run_path / f"{writer}.status")
    }
    logs: dict[str, list[Path]] = {}
    for path in sorted(run_path.iterdir()):  # once more: a writer that went meanwhile removed a segment not used
        if log_writer(path) in gone:
            logs.setdefault(log_writer(path), []).append(path)
    return logs


def _is_spilled(status: Path) -> bool:
    """Return whether points of a writer still lie elsewhere: sealed without them, they could not be added."""
    head = read_status(status)
    return head is not None and head.is_spilled
