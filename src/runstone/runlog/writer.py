"""The files of one writer process in one run folder. Knows bytes and files, not what a run means.

One keeper thread a writer does what the training thread must not: it prepares segments, beats the heart and syncs
each second. It starts with the first file that needs it and ends with `close`. Launchers have no points, and one
process may launch a hundred runs a second: theirs share one keeper.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from runstone import settings
from runstone._version import __version__
from runstone.runlog import format as fmt
from runstone.runlog.beside import write_whole
from runstone.runlog.changes import announce
from runstone.runlog.filesystem import Backend, choose_backend, reserve
from runstone.runlog.liveness import StatusFile, boot_id
from runstone.runlog.points import ClosedPoints, Points, open_points
from runstone.runlog.spill import Spill, recover_spill

# The promise is that a power cut takes at most a second; syncing itself takes some of it.
_SYNC_S = 0.75
_GPU_POLL_S = 0.05
_JOIN_S = 1.0
_FOLDERS_ABOVE = 4  # project, `runs`, workspace, and where that lies
_TICK_NS = 100_000_000
_CONTROL = "control"


class _Bell:
    """Wakes the keeper. Unlike `threading.Event`, it may be rung by a signal handler that interrupts a ring."""

    def __init__(self) -> None:
        self._is_silent = threading.Lock()
        self._is_silent.acquire()

    def ring(self) -> None:
        with contextlib.suppress(RuntimeError):  # it rings already
            self._is_silent.release()

    def wait(self, timeout_s: float) -> None:
        self._is_silent.acquire(timeout=max(0.0, timeout_s))


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
        created: Fields of the `created` event, for the writer that makes the run.
        is_lazy: Make no file before the first event or point.

    Raises:
        OSError: the files cannot be made; none is left.
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
        created: Mapping[str, Any] | None = None,
        is_lazy: bool = False,
    ) -> None:
        self.path = path
        self.tell: Callable[[str, str], None] = self._note
        """Told, as kind and message, what the user should know; in the keeper's thread."""
        self.role = role
        self.attempt = attempt
        self.rank = rank
        self.backend: Backend = backend or choose_backend(path)
        self._clock = clock
        self._spill_bytes = settings.spill_bytes()
        if role == "main" and created is None and not is_lazy:
            recover_spill(path)
        self._directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.control: mmap.mmap | bytearray = bytearray(1)
        self._start_writer()
        try:
            if not is_lazy:
                self._open_files(created)
        except BaseException:
            os.close(self._directory)
            raise
        self.control = _open_control(self._directory, self.backend)
        _live.add(self)

    # --- a writer's life -------------------------------------------------------------------------------------------

    def _start_writer(self) -> None:
        self.writer = os.urandom(16)
        self._lock = threading.RLock()
        self._bell = _Bell()
        self._keeper: threading.Thread | None = None
        self._being_cared_for = threading.Lock()
        self._status: StatusFile | None = None
        self._journal: int | None = None
        self._is_closed = False
        self._needs_files = True
        self._is_storage_in_trouble = False
        self._is_deleted = False
        self._is_spill_told = False
        self._synced_at = 0
        self._spill = Spill(
            self._directory,
            self.writer.hex(),
            self._find_spill_folder,
            self._spill_bytes,
            is_mapped=self.backend == "mmap",
            lock=self._lock,
        )
        self.points: Points = open_points(
            self.backend,
            self._directory,
            self.writer,
            clock=self._clock,
            wake=self._bell.ring,
            before_first=self._open_files,
            spill=self._spill,
        )

    def _find_spill_folder(self) -> Path | None:
        folder = settings.spill_folder()
        return folder / self.path.name if folder is not None else None

    def _open_files(self, created: Mapping[str, Any] | None = None) -> None:
        """Make the status file and the journal: the lock is held before the journal says that the writer exists."""
        with self._lock:
            if not self._needs_files:
                return
            name = self.writer.hex()
            events: list[dict[str, Any]] = [
                {
                    "event": "writer",
                    "at": self._clock(),
                    "format": fmt.FORMAT,
                    "writer": name,
                    "role": self.role,
                    "attempt": self.attempt,
                    "rank": self.rank,
                    "pid": os.getpid(),
                    "host": os.uname().nodename,
                    "boot_id": boot_id(),
                    "runstone": __version__,
                }
            ]
            if created is not None:
                events.append({"event": "created", "at": self._clock(), **created})
            self._make_files(f"{name}.status", f"journal.{name}.jsonl", b"".join(map(fmt.encode_event, events)))
            self._needs_files = False
            if self.role != "edit":
                announce(self.path)
            if self.role == "launcher":
                _watch_over(self)
            elif self.role != "edit":
                self._keeper = threading.Thread(target=self._keep, name="runstone-keeper", daemon=True)
                try:
                    self._keeper.start()
                except RuntimeError:  # no thread to be had: points are safe without, segments come when needed
                    self._keeper = None

    def _make_files(self, status: str, journal: str, first_lines: bytes) -> None:
        try:
            if self.role != "edit":
                self._status = StatusFile(self._directory, status)
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
            self._journal = os.open(journal, flags, 0o644, dir_fd=self._directory)
            write_whole(self._journal, first_lines)
        except BaseException:  # half a writer would be a crashed one to every reader
            self._abandon_files()
            for name in (status, journal):
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=self._directory)
            raise

    def _abandon_files(self) -> None:
        if self._status is not None:
            self._status.abandon()
        if self._journal is not None:
            with contextlib.suppress(OSError):
                os.close(self._journal)
        self._status = self._journal = None

    @property
    def is_silent(self) -> bool:
        """Whether this writer has made no file yet: a forked child that recorded nothing."""
        return self._needs_files

    def _keep(self) -> None:
        next_sync = time.monotonic() + _SYNC_S
        while not self._is_closed:
            wait_s = next_sync - time.monotonic()
            self._bell.wait(min(wait_s, _GPU_POLL_S) if self.points.waiting() else wait_s)
            if self._is_closed:
                return
            self._attend(self.points.tend)
            if time.monotonic() < next_sync:
                continue
            next_sync = time.monotonic() + _SYNC_S
            self.care()

    def care_if_open(self) -> None:
        """Do that unless the log is closed, which waits meanwhile."""
        with self._being_cared_for:
            if not self._is_closed:
                self.care()

    def care(self) -> None:
        """Beat the heart and bring all to the disk: what the keeper does each second."""
        for duty in (self.beat, self.points.sync, self._sync_journal, self._sync_folder, self._tell_of_spill):
            self._attend(duty)

    def _attend(self, duty: Callable[[], None]) -> None:
        """Do one of the keeper's duties: what goes wrong in it ends neither the others nor the keeper."""
        try:
            duty()
        except Exception as error:  # points are counted where they fail; this is about what stands already
            if not self._is_closed:
                self._tell_of(error)

    def _sync_journal(self) -> None:
        journal = self._journal
        if journal is not None:
            os.fdatasync(journal)
            self._is_deleted = os.fstat(journal).st_nlink == 0

    def _sync_folder(self) -> None:
        """Bring the names of new files to the disk: a file whose name a power cut takes is lost with all that is in it.

        The first time also those of the folders above, which may be as new.
        """
        changed_at = os.fstat(self._directory).st_mtime_ns
        if changed_at == self._synced_at:
            return
        os.fsync(self._directory)
        if not self._synced_at:
            for folder in self.path.parents[:_FOLDERS_ABOVE]:
                with contextlib.suppress(OSError):  # the workspace was moved, or that folder is not ours
                    _sync_path(folder)
        # clocks of file systems are coarse: what comes in the same tick must not be taken for synced
        self._synced_at = changed_at if time.time_ns() - changed_at > _TICK_NS else 1

    def _tell_of_spill(self, *, is_last_call: bool = False) -> None:
        """Say, once, that points go elsewhere; that they are back; and at the end, that they are not."""
        spill = self._spill
        was_told, self._is_spill_told = self._is_spill_told, spill.is_used
        if spill.is_used and is_last_call:
            self.tell(
                "spill-left",
                f"its folder takes nothing ({spill.refusal}), to the end; points lie in {spill.folder}: make room, "
                f"then `runstone seal {self.path.name}` on this host brings them back",
            )
        elif spill.is_used and not was_told:
            self.tell(
                "spill",
                f"its folder takes nothing now ({spill.refusal}); points go to {spill.folder}, at most "
                f"{self._spill_bytes >> 20} MiB, and come back by themselves when there is room: make some",
            )
        elif was_told and not spill.is_used:
            self._note("spill-back", f"its folder takes files again: what lay in {spill.folder} is back")

    def _note(self, kind: str, message: str) -> None:
        with contextlib.suppress(OSError):
            self.write("warning", kind=kind, message=message)

    def _tell_of(self, error: Exception) -> None:
        """Note in the run, once, that the storage below it is in trouble."""
        if self._is_storage_in_trouble:
            return
        self._is_storage_in_trouble = True
        told = error if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        self._note("storage", f"the storage below the run is in trouble: {told}")

    def beat(self) -> None:
        """Refresh the heartbeat, and the stop word where it cannot be mapped."""
        if self._status is not None:
            self._status.beat(self.points.dropped, is_spilled=self._spill.is_used)
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
            if self._is_deleted:
                raise OSError(errno.ENOENT, "the files of the run were deleted")
            if self._journal is None:
                raise OSError(errno.EBADF, "the journal is closed")
            write_whole(self._journal, line)

    def close(self, word: str = "") -> None:
        """Let go of the files. A writer that made none yet leaves nothing behind.

        Args:
            word: How the run ended, for a reader whose journal lacks the `end` event; empty where it was not ended.
        """
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        self._bell.ring()
        if self._being_cared_for.acquire(timeout=_JOIN_S):  # by the keeper of all launchers, if at all
            self._being_cared_for.release()
        if self._keeper is not None and self._keeper is not threading.current_thread():
            # a second is plenty, except on a disk that hangs, or for a signal handler that stands in its way
            self._keeper.join(timeout=_JOIN_S)
        self.points.close()  # outside the lock: a log call that makes a file holds its own first
        self._tell_of_spill(is_last_call=True)
        with self._lock:
            if self._journal is not None:
                os.close(self._journal)
                self._journal = None
                if self.role == "edit":  # what it says stands from now on; the others' runs are followed as they live
                    announce(self.path)
            if self._status is not None:
                self._status.end(self.points.dropped, word, is_spilled=self._spill.is_used)
                self._status = None
            self.points = ClosedPoints(self.points.dropped)
            os.close(self._directory)
        _live.discard(self)
        _launchers.pop(id(self), None)

    def _become_child(self) -> None:
        """Run in a forked child, with one thread and locks in any state: let go, start over as a new writer."""
        self._abandon_files()  # also of a log that another thread was closing: its lock must not live on here
        if self._is_closed:
            return
        self.points.abandon()
        self.role = "child"
        self._start_writer()


def _sync_path(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def request_stop(run_path: Path, word: int) -> None:
    """Set the stop word of a run; within an attempt it only grows.

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


def stop_word(run_path: Path) -> str | None:
    """Return what a run was asked for, `stop` or `prune`; `None` where nothing was asked."""
    try:
        fd = os.open(run_path / _CONTROL, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return {fmt.WORD_STOP: "stop", fmt.WORD_PRUNE: "prune"}.get((os.pread(fd, 1, 0) or b"\0")[0])
    finally:
        os.close(fd)


def clear_stop(run_path: Path) -> None:
    """Take back the stop word, before a new attempt: what its predecessor was asked is not asked of it.

    Raises:
        OSError: the folder is gone or may not be written.
    """
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(run_path / _CONTROL, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(fd, bytes([fmt.WORD_GO]), 0)
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


class _CommonKeeper:
    """Cares for all launchers of this process, each second, as long as there are some."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Make sure that the thread runs."""
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            self._thread = threading.Thread(target=self._keep, name="runstone-launchers", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # no thread to be had, as for any other writer
                self._thread = None

    def _keep(self) -> None:
        while True:
            time.sleep(_SYNC_S)
            for log in _open_launchers():
                log.care_if_open()
            with self._lock:
                if not _open_launchers():
                    self._thread = None
                    return


def _open_launchers() -> list[RunLog]:
    """Return the open logs of launchers."""
    found = [reference() for reference in list(_launchers.values())]
    return [log for log in found if log is not None and not log._is_closed]


def _watch_over(log: RunLog) -> None:
    _launchers[id(log)] = weakref.ref(log)
    _common_keeper.start()


# By identity, and no `WeakSet`: another thread may add one while the keeper looks.
_launchers: dict[int, weakref.ref[RunLog]] = {}
_common_keeper = _CommonKeeper()

# The open writers of this process, for the fork hook; no one else uses it.
_live: weakref.WeakSet[RunLog] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    global _common_keeper  # its lock may be held by a thread that is not here
    _common_keeper = _CommonKeeper()
    _launchers.clear()
    for log in list(_live):
        log._become_child()


# Before: what is the same in all forks, and takes the kernel 0.2 ms, is asked for once.
os.register_at_fork(before=boot_id, after_in_child=_after_fork_in_child)
