"""Whether the writer of a file still lives: its lock, its heartbeat.

On one host the lock decides at once, however the writer died. Elsewhere (a run on NFS, a copied run) the
heartbeat does, within `HEARTBEAT_LIMIT_S`.

Linux has open file description locks: they belong to the open file, so a reader in the same process can neither
take nor drop the writer's lock by accident, as POSIX record locks would. A forked child shares the open file; the
fork hook of the run log closes it there, else a surviving child would keep a dead run alive.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import sys
import time
from functools import cache
from pathlib import Path
from typing import NamedTuple

from runstone.runlog import format as fmt

_CLOCKS_DIFFER_S = 86_400.0
_FLOCK = struct.Struct("@hhqqi4x")  # struct flock: l_type, l_whence, l_start, l_len, l_pid


@cache
def boot_id() -> str:
    """Return what names this boot of this kernel, the empty string where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class StatusFile:
    """The status file of one writer: holds the lock, carries the heartbeat."""

    def __init__(self, directory: int, name: str) -> None:
        self._fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o644, dir_fd=directory)
        with contextlib.suppress(OSError):  # file systems without locks: the heartbeat is left
            _lock(self._fd)
        with contextlib.suppress(OSError):  # a full disk: the lock is what matters
            head = fmt.STATUS_HEAD.pack(fmt.STATUS_MAGIC, fmt.FORMAT, time.time(), time.monotonic(), fmt.STATE_OPEN, 0)
            os.pwrite(self._fd, head.ljust(fmt.CONTROL_BYTES, b"\0"), 0)

    def beat(self, dropped: int, *, is_spilled: bool = False) -> None:
        """Say that the writer lives, how many points it could not write, and whether some lie elsewhere."""
        os.pwrite(self._fd, fmt.STATUS_BEAT.pack(time.time(), time.monotonic()), fmt.STATUS_BEAT_OFFSET)
        os.pwrite(self._fd, fmt.STATUS_END.pack(fmt.STATE_OPEN, dropped), fmt.STATUS_END_OFFSET)
        os.pwrite(self._fd, fmt.STATUS_SPILLED.pack(is_spilled), fmt.STATUS_SPILLED_OFFSET)

    def end(self, dropped: int, word: str = "", *, is_spilled: bool = False) -> None:
        """Say that the writer ended, how its run did (one of `END_WORDS`), and let go of the lock."""
        with contextlib.suppress(OSError):
            self.beat(dropped, is_spilled=is_spilled)
            os.pwrite(self._fd, fmt.STATUS_WORD.pack(fmt.END_WORDS.index(word)), fmt.STATUS_WORD_OFFSET)
            os.pwrite(self._fd, fmt.STATUS_END.pack(fmt.STATE_ENDED, dropped), fmt.STATUS_END_OFFSET)
        os.close(self._fd)

    def abandon(self) -> None:
        """Close the inherited file in a forked child; the parent keeps the lock."""
        with contextlib.suppress(OSError):
            os.close(self._fd)


def clear_spilled(directory: int, name: str) -> None:
    """Note in the status file of a dead writer that none of its points lie elsewhere any more."""
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)
        try:
            os.pwrite(fd, fmt.STATUS_SPILLED.pack(0), fmt.STATUS_SPILLED_OFFSET)
        finally:
            os.close(fd)


def write_copied_status(
    directory: int,
    name: str,
    *,
    beat: float,
    is_alive: bool,
    dropped: int = 0,
    word: str = "",
    is_spilled: bool = False,
) -> None:
    """Write the status file of a writer on another host, as far as that host tells: its heartbeat alone decides here.

    Args:
        directory: Of the run.
        name: Of the file.
        beat: When the writer lived last, by the clock of this host.
        is_alive: Whether it goes on.
        dropped, word, is_spilled: As the writer's own file says.
    """
    state = fmt.STATE_OPEN if is_alive else fmt.STATE_ENDED
    told = bytearray(fmt.STATUS_COPIED_OFFSET + fmt.STATUS_COPIED.size)
    fmt.STATUS_HEAD.pack_into(told, 0, fmt.STATUS_MAGIC, fmt.FORMAT, beat, 0.0, state, dropped)
    fmt.STATUS_WORD.pack_into(told, fmt.STATUS_WORD_OFFSET, fmt.END_WORDS.index(word))
    fmt.STATUS_SPILLED.pack_into(told, fmt.STATUS_SPILLED_OFFSET, is_spilled)
    fmt.STATUS_COPIED.pack_into(told, fmt.STATUS_COPIED_OFFSET, 1)
    fd = os.open(name, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644, dir_fd=directory)
    try:
        os.pwrite(fd, told if os.fstat(fd).st_size else told.ljust(fmt.CONTROL_BYTES, b"\0"), 0)
    finally:
        os.close(fd)


def _is_copied(fd: int) -> bool:
    told = os.pread(fd, fmt.STATUS_COPIED.size, fmt.STATUS_COPIED_OFFSET)
    return len(told) == fmt.STATUS_COPIED.size and bool(fmt.STATUS_COPIED.unpack(told)[0])


def _lock(fd: int) -> None:
    if sys.platform == "linux":
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    else:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_locked(fd: int) -> bool:
    if sys.platform == "linux":
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def is_alive(status_path: Path, writer_boot_id: str, now: float | None = None) -> bool:
    """Return whether the writer of a status file still lives.

    Args:
        status_path: Its `<writer>.status`.
        writer_boot_id: The boot on which it started, as its journal says.
        now: Seconds since the epoch, for comparing heartbeats; default: the clock.
    """
    try:
        fd = os.open(status_path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        head = _unpack(os.pread(fd, fmt.STATUS_HEAD.size, 0))
        if head is not None and head.state == fmt.STATE_ENDED:
            return False
        # Of a run that is sent here from this very host, the writer's lock is on the file that it came from.
        if writer_boot_id and writer_boot_id == boot_id() and not _is_copied(fd):
            with contextlib.suppress(OSError):
                return _is_locked(fd)
        if head is None:
            return False
        # clocks of two hosts differ; one that is a day ahead is wrong, and says nothing
        return -_CLOCKS_DIFFER_S < (now if now is not None else time.time()) - head.beat < fmt.HEARTBEAT_LIMIT_S
    finally:
        os.close(fd)


class StatusHead(NamedTuple):
    """What a status file says."""

    beat: float
    state: int
    dropped: int
    word: str
    is_spilled: bool
    is_copied: bool


def read_status(status_path: Path) -> StatusHead | None:
    """Return what a status file says, `None` where it is not there or damaged."""
    try:
        with status_path.open("rb") as file:
            return _unpack(file.read(fmt.STATUS_COPIED_OFFSET + fmt.STATUS_COPIED.size))
    except OSError:
        return None


def _unpack(data: bytes) -> StatusHead | None:
    if len(data) < fmt.STATUS_HEAD.size:
        return None
    magic, _format, beat, _mono, state, dropped = fmt.STATUS_HEAD.unpack_from(data)
    if magic != fmt.STATUS_MAGIC:
        return None
    word = is_spilled = is_copied = 0
    if len(data) >= fmt.STATUS_SPILLED_OFFSET + fmt.STATUS_SPILLED.size:
        (word,) = fmt.STATUS_WORD.unpack_from(data, fmt.STATUS_WORD_OFFSET)
        (is_spilled,) = fmt.STATUS_SPILLED.unpack_from(data, fmt.STATUS_SPILLED_OFFSET)
    if len(data) >= fmt.STATUS_COPIED_OFFSET + fmt.STATUS_COPIED.size:
        (is_copied,) = fmt.STATUS_COPIED.unpack_from(data, fmt.STATUS_COPIED_OFFSET)
    told = fmt.END_WORDS[word] if word < len(fmt.END_WORDS) else ""
    return StatusHead(beat, state, dropped, told, bool(is_spilled), bool(is_copied))
