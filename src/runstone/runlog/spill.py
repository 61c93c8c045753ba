"""What the folder of a run refuses, kept for it on another file system, and brought home when it takes files again.

`$XDG_STATE_HOME/runstone/spill/<run id>/` holds files of each writer that had to: segments under the names and numbers
that they have in the run; `<writer>-<n>.keys` and `<writer>-<n>.frames`, what its key file and its side file lack; and
`<writer>.lock`, held while it lives. To bring a file home may be done twice, so a kill at any moment does no harm.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

from runstone import settings
from runstone.runlog import format as fmt
from runstone.runlog.beside import write_whole
from runstone.runlog.filesystem import RETRY_S, choose_backend
from runstone.runlog.liveness import clear_spilled

_REFUSALS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE})
_FRAME_AT = struct.Struct("<Q")
_LOOKS = 10
_COMMIT = fmt.SLOT_BYTES // 4 - 1
_ORDER = {"keys": 0, "frames": 1, "wal": 2}
"""Names and texts come home before the slots that need them."""


def is_refusal(error: OSError) -> bool:
    """Return whether a file system takes nothing now: it is full, read-only, or in trouble."""
    return error.errno in _REFUSALS


class _Waiting:
    """A file that waits to be brought home: slots that were taken in it, bytes that it holds, looks at its holes."""

    __slots__ = ("looks", "name", "size_bytes", "slots")  # no dataclass: to load those takes longer than all of this

    def __init__(self, name: str, slots: int, size_bytes: int) -> None:
        self.name, self.slots, self.size_bytes = name, slots, size_bytes
        self.looks = 0


class Spill:
    """What one writer keeps elsewhere.

    Args:
        home: Open descriptor of the run's folder.
        writer: The writer's name, 32 hex digits.
        find_folder: Returns where to keep it, `None` for nowhere; called when it is needed.
        limit_bytes: The most to keep there.
        is_mapped: Whether segments there are to be mapped: the file system must allow it.
        lock: The one lock of the writer, re-entrant; default: one of its own.
    """

    def __init__(
        self,
        home: int,
        writer: str,
        find_folder: Callable[[], Path | None] = lambda: None,
        limit_bytes: int = 0,
        *,
        is_mapped: bool = False,
        lock: AbstractContextManager[Any] | None = None,
    ) -> None:
        self.lock = lock if lock is not None else threading.RLock()
        """The one lock of the writer: all that makes its files takes this one. An object that dies, or a signal, may
        log from within any of it: with two locks, two threads could come to wait for each other."""
        self.folder: Path | None = None
        self.refusal: OSError | None = None
        """By which the run's folder refused at last."""
        self.came_home: list[tuple[str, int]] = []
        """Segments that were brought home, and how many of their slots were taken."""
        self._home = home
        self._writer = writer
        self._find_folder = find_folder
        self._limit_bytes = limit_bytes
        self._is_mapped = is_mapped
        self._carrying = threading.Lock()
        self._directory: int | None = None
        self._writer_lock: int | None = None
        self._used_bytes = 0
        self._beside: dict[str, tuple[int, _Waiting]] = {}
        self._beside_made = 0
        self._waiting: deque[_Waiting] = deque()
        self._retry_at = 0.0
        self._lost = 0

    @property
    def is_used(self) -> bool:
        """Whether anything lies there."""
        return self._used_bytes > 0

    # --- keeping ---------------------------------------------------------------------------------------------------

    def book(self, size_bytes: int) -> int:
        """Take so many bytes of what may be kept, and return the folder's descriptor.

        Raises:
            OSError: there is no such folder, or not so much room in it.
        """
        with self.lock:
            if self._used_bytes + size_bytes > self._limit_bytes:
                raise OSError(errno.ENOSPC, "No space left for what the run's folder refuses")
            directory = self._open()
            self._used_bytes += size_bytes
            return directory

    def release(self, size_bytes: int) -> None:
        """Give bytes back that were booked."""
        with self.lock:
            self._used_bytes -= size_bytes

    def put(self, kind: Literal["keys", "frames"], record: bytes, refusal: OSError) -> None:
        """Keep a record of the key file or the side file.

        Raises:
            OSError: `refusal`, by which the run's folder refused it, where it cannot be kept here either.
        """
        if not is_refusal(refusal):
            raise refusal
        try:
            with self.lock:
                directory = self.book(len(record))
                try:
                    fd, waiting = self._beside.get(kind) or self._open_beside(kind, directory)
                    write_whole(fd, record)
                except BaseException:
                    self.release(len(record))
                    raise
                waiting.size_bytes += len(record)
                self.refusal = refusal
        except OSError:
            raise refusal from None

    def put_frame(self, offset: int, frame: bytes, refusal: OSError) -> None:
        """Keep a frame of the side file that belongs at an offset; raises as `put` does."""
        self.put("frames", _FRAME_AT.pack(offset) + frame, refusal)

    def add_segment(self, name: str, slots: int, size_bytes: int) -> None:
        """Take over a segment in which nothing is begun any more.

        Args:
            name: Its name.
            slots: How many of its slots were taken, from the first.
            size_bytes: What was booked for it.
        """
        self._waiting.append(_Waiting(name, slots, size_bytes))

    def _open(self) -> int:
        if self._directory is not None and os.fstat(self._directory).st_nlink:
            return self._directory
        if time.monotonic() < self._retry_at:
            raise OSError(errno.ENOSPC, "No space left for what the run's folder refuses")
        self._retry_at = time.monotonic() + RETRY_S
        self.folder = self._find_folder()
        if self.folder is None:
            raise OSError(errno.ENOSPC, "No space left for what the run's folder refuses")
        standing = next(path for path in (self.folder, *self.folder.parents) if path.exists())
        is_same_disk = standing.stat().st_dev == os.fstat(self._home).st_dev
        if is_same_disk or (self._is_mapped and choose_backend(standing) != "mmap"):
            self._limit_bytes = 0
            raise OSError(errno.ENOSPC, "No space left for what the run's folder refuses")
        self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._let_go()
        directory = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._writer_lock = _lock(directory, self._writer)
        except BaseException:
            os.close(directory)
            raise
        self._directory = directory
        return directory

    def _open_beside(self, kind: str, directory: int) -> tuple[int, _Waiting]:
        name = f"{self._writer}-{self._beside_made:08d}.{kind}"
        self._beside_made += 1
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=directory)
        self._beside[kind] = fd, _Waiting(name, 0, 0)
        return self._beside[kind]

    def sync(self) -> None:
        """Bring names and texts to the disk; segments are synced by who writes them."""
        with self.lock:
            copies = [os.dup(fd) for fd, _waiting in self._beside.values()]
        for fd in copies:
            with contextlib.suppress(OSError):
                os.fdatasync(fd)
            os.close(fd)

    # --- bringing home ---------------------------------------------------------------------------------------------

    def carry_home(self, *, is_last_call: bool = False) -> None:
        """Bring into the run's folder what is complete.

        Args:
            is_last_call: Also segments in which a thread seems to be in the middle of a store.

        Raises:
            OSError: the run's folder refuses still, or again. What is not there is kept here.
        """
        if self._directory is None or not self._carrying.acquire(blocking=False):
            return
        try:
            self._carry_home(self._directory, is_last_call)
        finally:
            self._carrying.release()

    def _carry_home(self, directory: int, is_last_call: bool) -> None:
        with self.lock:
            beside, self._beside = list(self._beside.values()), {}
        for fd, waiting in beside:
            os.close(fd)
            self._waiting.appendleft(waiting)
        while self._waiting:
            waiting = self._waiting[0]
            waiting.looks += 1
            try:
                data = _read(directory, waiting.name)
            except FileNotFoundError:
                self._lost += waiting.slots
            else:
                if waiting.name.endswith(".wal"):
                    if not is_last_call and waiting.looks < _LOOKS and _has_holes(data, waiting.slots):
                        break
                    _bring_segment(self._home, waiting.name, data, waiting.slots)
                    self.came_home.append((waiting.name, waiting.slots))
                else:
                    _bring_beside(self._home, waiting.name, data)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(waiting.name, dir_fd=directory)
            self._waiting.popleft()
            self.release(waiting.size_bytes)
        with self.lock:
            if not self._used_bytes:
                self._leave()

    def take_lost(self) -> int:
        """Return how many points were lost here since the last call: somebody deleted them, or their run."""
        lost, self._lost = self._lost, 0
        return lost

    def close(self) -> None:
        """Bring home what can be. What stays, `recover_spill` finds later."""
        if self._directory is not None:
            with contextlib.suppress(OSError):
                self.carry_home(is_last_call=True)
            if not os.fstat(self._home).st_nlink:  # the run was deleted: nobody will come for it
                self._discard()
        self.abandon()

    def _discard(self) -> None:
        while self._waiting:
            waiting = self._waiting.popleft()
            self._lost += waiting.slots
            with contextlib.suppress(OSError):
                os.unlink(waiting.name, dir_fd=self._directory)
        self._used_bytes = 0
        self._leave()

    def _leave(self) -> None:
        if self._directory is not None:
            _leave_folder(self._directory, self._writer, self.folder)
        self._let_go()
        self._retry_at = 0.0

    def abandon(self) -> None:
        """Let go of the files, in a forked child without the lock."""
        for fd, _waiting in self._beside.values():
            with contextlib.suppress(OSError):
                os.close(fd)
        self._beside = {}
        self._let_go()

    def _let_go(self) -> None:
        for fd in (self._writer_lock, self._directory):
            if fd is not None:
                with contextlib.suppress(OSError):
                    os.close(fd)
        self._writer_lock = self._directory = None


def recover_spill(run_path: Path) -> bool:
    """Bring home what the dead writers of a run kept elsewhere on this host.

    Args:
        run_path: Folder of the run.

    Returns:
        Whether nothing is left elsewhere; `False` where the run's folder has no room, or the writer lives.
    """
    spill = settings.spill_folder()
    if spill is None:
        return True
    folder = spill / run_path.name
    try:
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        names = os.listdir(directory)  # noqa: PTH208 (an open folder)
        # runs of several workspaces may have one id: those writers are this run's that have a journal here
        writers = {name[:32] for name in names if (run_path / f"journal.{name[:32]}.jsonl").exists()}
        sealed = _sealed_writers(run_path) if writers else frozenset()  # what came to their logs would not be seen
        left = [
            writer
            for writer in sorted(writers)
            if writer in sealed or not _recover_writer(directory, folder, run_path, writer)
        ]
        return not left
    finally:
        os.close(directory)


def _sealed_writers(run_path: Path) -> Collection[str]:
    from runstone.runlog.sealed import SealedMetrics  # Arrow, only for sealed runs
    from runstone.runlog.tail import SEALED

    return SealedMetrics(run_path).writers if (run_path / SEALED).exists() else ()


def _recover_writer(directory: int, folder: Path, run_path: Path, writer: str) -> bool:
    try:
        lock = _lock(directory, writer)
    except OSError:
        return False
    try:
        home = os.open(run_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _cut_torn_name(home, writer)
            names = [name for name in os.listdir(directory) if name.startswith(f"{writer}-")]
            for name in sorted(names, key=lambda name: (_ORDER.get(name.rpartition(".")[2], 3), name)):
                data = _read(directory, name)
                if name.endswith(".wal"):
                    _bring_segment(home, name, data, None)
                else:
                    _bring_beside(home, name, data)
                os.unlink(name, dir_fd=directory)
            clear_spilled(home, f"{writer}.status")
        finally:
            os.close(home)
        _leave_folder(directory, writer, folder)
        return True
    except OSError:
        return False
    finally:
        os.close(lock)


# --- files -----------------------------------------------------------------------------------------------------------


def _lock(directory: int, writer: str) -> int:
    """Return the descriptor of a writer's lock, held; raises `OSError` where another process holds it."""
    fd = os.open(f"{writer}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _leave_folder(directory: int, writer: str, folder: Path | None) -> None:
    with contextlib.suppress(OSError):
        os.unlink(f"{writer}.lock", dir_fd=directory)
    if folder is not None:
        with contextlib.suppress(OSError):  # other writers have files there
            folder.rmdir()


def _read(directory: int, name: str) -> bytes:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    with os.fdopen(fd, "rb") as file:
        return file.read()


def _has_holes(data: bytes, slots: int) -> bool:
    """Return whether a slot of the first `slots` is still empty: a thread may be about to store it."""
    slots = min(slots, (len(data) - fmt.HEADER_BYTES) // fmt.SLOT_BYTES)
    words = memoryview(data)[fmt.HEADER_BYTES : fmt.HEADER_BYTES + slots * fmt.SLOT_BYTES].cast("I")
    return 0 in words[_COMMIT :: fmt.SLOT_BYTES // 4]


def _bring_segment(home: int, name: str, data: bytes, slots: int | None) -> None:
    """Put a segment into the run's folder, as long as its slots are used, whole or not at all."""
    if slots is None:
        slots = max(0, -((fmt.HEADER_BYTES - len(data.rstrip(b"\0"))) // fmt.SLOT_BYTES))
    if not slots or fmt.unpack_header(data) is None:
        return
    data = data[: fmt.HEADER_BYTES + slots * fmt.SLOT_BYTES]
    partial = f"{name}.partial"
    try:
        fd = os.open(partial, os.O_CREAT | os.O_TRUNC | os.O_RDWR | os.O_CLOEXEC, 0o644, dir_fd=home)
        with os.fdopen(fd, "r+b", buffering=0) as file:
            write_whole(fd, data)
            os.fsync(fd)
            file.seek(0)
            if file.read() != data:
                raise OSError(errno.EIO, "the file does not hold what was written to it")
        os.rename(partial, name, src_dir_fd=home, dst_dir_fd=home)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial, dir_fd=home)
        raise
    os.fsync(home)


def _bring_beside(home: int, name: str, data: bytes) -> None:
    """Add records to the key file or the side file of a run; a torn one at the end was never used."""
    writer = name.partition("-")[0]
    if name.endswith(".keys"):
        fd = os.open(f"{writer}.keys", os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o644, dir_fd=home)
    else:  # not O_APPEND: with it, Linux would not write at the offset that it is given
        fd = os.open(f"{writer}.blob", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=home)
    try:
        if name.endswith(".keys"):
            write_whole(fd, data[: _whole_bytes(data)])
        else:
            for offset, frame in _frames(data):
                if os.pwrite(fd, frame, offset) != len(frame):
                    raise OSError(errno.ENOSPC, "No space left on device")
        os.fsync(fd)
    finally:
        os.close(fd)
    os.fsync(home)


def _frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the whole frames of a file of them, each with its place in the side file."""
    view, begin = memoryview(data), 0
    while begin + _FRAME_AT.size < len(data):
        (offset,) = _FRAME_AT.unpack_from(data, begin)
        begin += _FRAME_AT.size
        end = begin + fmt.side_length(data[begin : begin + 8])
        if end == begin or end > len(data):
            return
        yield offset, bytes(view[begin:end])
        begin = end


def _whole_bytes(data: bytes) -> int:
    """Return where the last whole record of a key file ends."""
    end = 0
    while length := fmt.side_length(data[end : end + 8]):
        if end + length > len(data):
            break
        end += length
    return end


def _cut_torn_name(home: int, writer: str) -> None:
    """Cut off the name in whose writing a process died, so that others can follow it."""
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(f"{writer}.keys", os.O_RDWR | os.O_CLOEXEC, dir_fd=home)
        with os.fdopen(fd, "r+b") as file:
            file.truncate(_whole_bytes(file.read()))
