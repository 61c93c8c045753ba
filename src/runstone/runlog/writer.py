"""The files of one writer process in one run folder. Knows bytes and files, not what a run means.

One keeper thread a writer does what the training thread must not: it prepares segments, beats the heart and syncs
each second. It starts with the first file that needs it and ends with `close`.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runstone._version import __version__
from runstone.runlog import format as fmt
from runstone.runlog.filesystem import Backend, choose_backend, reserve
from runstone.runlog.liveness import StatusFile, boot_id
from runstone.runlog.points import ClosedPoints, Points, open_points, write_whole

_SYNC_S = 1.0
_CONTROL = "control"


class RunLog:
    """Journal, status, control and metric log of one writer.

    After a fork the child's `RunLog` becomes a new writer with files of its own, made when the child first records
    something; the parent's files are never touched by the child.

    Args:
        path: Folder of the run; it exists.
        role: `main`, `launcher` or `edit`; a fork of any of them is a `child`.
        attempt: Number of the attempt, from 1.
        rank: Rank in a distributed job.
        backend: How to write the metric log; default by file system.
        clock: Seconds since the epoch.

    Raises:
        OSError: the files cannot be made.
    """

    def __init__(
        self,
        path: Path,
        *,
        role: str = "main",
        attempt: int = 1,
        rank: int = 0,
        backend: Backend | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self.role = role
        self.attempt = attempt
        self.rank = rank
        self.backend: Backend = backend or choose_backend(path)
        self._clock = clock
        self._directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.control = _open_control(self._directory, self.backend)
        self._start_writer()
        self._open_files()
        _live.add(self)

    # --- a writer's life -------------------------------------------------------------------------------------------

    def _start_writer(self) -> None:
        self.writer = os.urandom(16)
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._keeper: threading.Thread | None = None
        self._status: StatusFile | None = None
        self._journal: int | None = None
        self._is_closed = False
        self._needs_files = True
        self.points: Points = open_points(
            self.backend,
            self._directory,
            self.writer,
            clock=self._clock,
            wake=self._wake.set,
            before_first=self._open_files,
        )

    def _open_files(self) -> None:
        """Make the status file and the journal: the lock is held before the journal says that the writer exists."""
        with self._lock:
            if not self._needs_files:
                return
            self._needs_files = False
            name = self.writer.hex()
            if self.role != "edit":
                self._status = StatusFile(self._directory, f"{name}.status")
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
            self._journal = os.open(f"journal.{name}.jsonl", flags, 0o644, dir_fd=self._directory)
            self.write(
                "writer",
                format=fmt.FORMAT,
                writer=name,
                role=self.role,
                attempt=self.attempt,
                rank=self.rank,
                pid=os.getpid(),
                host=os.uname().nodename,
                boot_id=boot_id(),
                runstone=__version__,
            )
            if self.role != "edit":
                self._keeper = threading.Thread(target=self._keep, name="runstone-keeper", daemon=True)
                self._keeper.start()

    @property
    def is_silent(self) -> bool:
        """Whether this writer has made no file yet: a forked child that recorded nothing."""
        return self._needs_files

    def _keep(self) -> None:
        next_sync = time.monotonic() + _SYNC_S
        while not self._is_closed:
            self._wake.wait(max(0.0, next_sync - time.monotonic()))
            self._wake.clear()
            if self._is_closed:
                return
            self.points.tend()
            if time.monotonic() < next_sync:
                continue
            next_sync = time.monotonic() + _SYNC_S
            with contextlib.suppress(OSError):  # the folder may be gone for a while; points are counted where they fail
                self.beat()
                self.points.sync()
                if self._journal is not None:
                    os.fdatasync(self._journal)

    def beat(self) -> None:
        """Refresh the heartbeat, and the stop word where it cannot be mapped."""
        if self._status is not None:
            self._status.beat(self.points.dropped)
        if not isinstance(self.control, mmap.mmap):
            _reread_control(self._directory, self.control)

    def write(self, event: str, **fields: Any) -> None:
        """Append one event to the journal.

        Raises:
            OSError: the disk refuses. The event is not in the file, not even in part.
        """
        line = fmt.encode_event({"event": event, "at": self._clock(), **fields})
        with self._lock:
            if self._needs_files:
                self._open_files()
            if self._journal is None:
                raise OSError(9, "the journal is closed")
            write_whole(self._journal, line)

    def close(self) -> None:
        """Let go of the files. A writer that never wrote in a forked child leaves nothing behind."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        self._wake.set()
        if self._keeper is not None and self._keeper is not threading.current_thread():
            self._keeper.join(timeout=5.0)
        self.points.close()  # outside the lock: a log call that makes a file holds its own first
        with self._lock:
            if self._journal is not None:
                os.close(self._journal)
                self._journal = None
            if self._status is not None:
                self._status.end(self.points.dropped)
                self._status = None
            self.points = ClosedPoints(self.points.dropped)
            os.close(self._directory)
        _live.discard(self)

    def _become_child(self) -> None:
        """Run in a forked child, with one thread and locks in any state: let go, start over as a new writer."""
        if self._is_closed:
            return
        self.points.abandon()
        if self._status is not None:
            self._status.abandon()
        if self._journal is not None:
            os.close(self._journal)
        self.role = "child"
        self._start_writer()


def request_stop(run_path: Path, word: int) -> None:
    """Set the stop word of a run; it only grows.

    Raises:
        OSError: the folder is gone or may not be written.
    """
    fd = os.open(run_path / _CONTROL, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    try:
        if os.fstat(fd).st_size < fmt.CONTROL_BYTES:
            reserve(fd, fmt.CONTROL_BYTES)
        standing = os.pread(fd, 1, 0) or b"\0"
        if word > standing[0]:
            os.pwrite(fd, bytes([word]), 0)
    finally:
        os.close(fd)


def _open_control(directory: int, backend: Backend) -> mmap.mmap | bytearray:
    """Map the control file; where that is not possible, a stand-in that the keeper refreshes."""
    try:
        fd = os.open(_CONTROL, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644, dir_fd=directory)
    except OSError:
        return bytearray(1)
    try:
        if os.fstat(fd).st_size < fmt.CONTROL_BYTES:
            reserve(fd, fmt.CONTROL_BYTES)
        if backend == "mmap":
            return mmap.mmap(fd, fmt.CONTROL_BYTES)
    except (OSError, ValueError):
        return bytearray(1)
    finally:
        os.close(fd)
    control = bytearray(1)
    _reread_control(directory, control)
    return control


def _reread_control(directory: int, control: bytearray) -> None:
    with contextlib.suppress(OSError):
        fd = os.open(_CONTROL, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
        try:
            control[0] = (os.pread(fd, 1, 0) or b"\0")[0]
        finally:
            os.close(fd)


# The open writers of this process, for the fork hook; no one else uses it.
_live: weakref.WeakSet[RunLog] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for log in list(_live):
        log._become_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
