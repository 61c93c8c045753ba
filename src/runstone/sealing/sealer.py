"""Which runs of a workspace may be sealed without anybody asking for it, and sealing them one after the other.

Only where it is certain that no writer of a log comes back: it said that it ended, or its lock is free on the very
kernel that it ran on. Of a run that was sent here, only when its sender said that all of it is here. Short runs stay as
they are: their logs are read in a moment.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from runstone.errors import RunstoneError
from runstone.runlog import format as fmt
from runstone.runlog.liveness import boot_id, is_alive, read_status
from runstone.runlog.reader import JournalState, read_journal
from runstone.status import Status
from runstone.sync.process import is_spool
from runstone.sync.wholes import is_whole

if TYPE_CHECKING:
    from runstone.runlog.seal import Sealing

LEAST_BYTES = 1 << 20
"""Of the metric logs of a run: about 30,000 points."""
LOOK_S = 60.0
_AGAIN_S = 3_600.0


class Sealer:
    """Seals the runs of one workspace.

    Args:
        workspace: Its folder.
        settle_s: Seconds that nothing of a run must have changed for.
        clock: Seconds since the epoch.
    """

    def __init__(self, workspace: Path, *, settle_s: float, clock: Callable[[], float] = time.time) -> None:
        self._workspace = workspace
        self._settle_s = settle_s
        self._clock = clock
        self._seen: dict[str, tuple[int, float]] = {}
        self.sealed: list[Sealing] = []

    @property
    def may_write(self) -> bool:
        """Whether runs here are sealed at all: not where nothing may be written, nor where they wait to be sent."""
        return os.access(self._workspace, os.W_OK) and not is_spool(self._workspace)

    def look(self) -> float:
        """Seal what may be sealed; return after how many seconds to look again: a hundredth of the time is spent."""
        began = time.process_time()
        for folder in sorted((self._workspace / "runs").glob("*/*")):
            with contextlib.suppress(OSError, RunstoneError):  # damaged, or no room: `runstone seal` says why
                self._seal(folder)
        return max(LOOK_S, 100.0 * (time.process_time() - began))

    def _seal(self, folder: Path) -> None:
        """Seal one run where it may be; a folder that has not changed since is left alone for a time."""
        changed, now = folder.stat().st_mtime_ns, self._clock()
        seen, until = self._seen.get(folder.name, (0, 0.0))
        if (seen == changed and now < until) or folder.is_symlink():
            return
        logs = {path: path.stat() for path in folder.glob("*.wal")}
        if not logs:
            self._seen[folder.name] = changed, math.inf
            return
        journal = read_journal(folder)
        if journal.status is Status.RUNNING:
            return
        newest = max(path.stat().st_mtime for path in folder.iterdir())
        if now - max(newest, journal.ended_at or 0.0) < self._settle_s:
            return
        self._seen[folder.name] = changed, now + _AGAIN_S
        writers = writers_for_good(folder, journal)
        if sum(found.st_size for path, found in logs.items() if path.stem.split("-")[0] in writers) < LEAST_BYTES:
            return
        from runstone.runlog.seal import seal  # Arrow, only where there is something to seal

        done = seal(folder, writers=writers)
        if done is not None:
            self.sealed.append(done)
            self._seen[folder.name] = folder.stat().st_mtime_ns, math.inf


def writers_for_good(folder: Path, journal: JournalState) -> set[str]:
    """Return the writers of a run that nobody will ever hear of again; none where one of them may still write."""
    known = {writer.writer: writer for writer in journal.writers}
    found = set()
    for path in folder.glob("*.status"):
        writer, head = known.get(path.stem), read_status(path)
        if writer is None or head is None or head.is_spilled:
            return set()
        if head.is_copied:
            is_gone = head.state == fmt.STATE_ENDED and is_whole(folder)
        else:
            # On another kernel a lock says nothing, and who is silent may only be suspended.
            is_here = writer.boot_id == boot_id() != ""
            is_gone = head.state == fmt.STATE_ENDED or (is_here and not is_alive(path, writer.boot_id))
        if not is_gone:
            return set()
        found.add(path.stem)
    return found
