"""The segment files of one writer: made in the folder of its run or, while that takes nothing, in the spill.

Knows no point, and not how one is stored.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import time
from typing import NamedTuple

from runstone.runlog import format as fmt
from runstone.runlog.beside import write_whole
from runstone.runlog.filesystem import RETRY_S, reserve
from runstone.runlog.spill import Spill, is_refusal

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class SegmentFile(NamedTuple):
    """One open file, its header written."""

    fd: int
    name: str
    slots: int
    salt: int
    is_spilled: bool

    @property
    def size_bytes(self) -> int:
        """How long it is when it is full."""
        return fmt.HEADER_BYTES + self.slots * fmt.SLOT_BYTES


class SegmentFiles:
    """Makes them, and lets go of them.

    Args:
        directory: Open descriptor of the run's folder.
        writer: 16 bytes that name the files.
        spill: Where they go instead.
        is_reserved: Whether every byte of a file is to exist from the first.
    """

    def __init__(self, directory: int, writer: bytes, spill: Spill, *, is_reserved: bool) -> None:
        self.made = 0
        self.retry_at = 0.0
        """When the disk is asked again, on the monotonic clock."""
        self.is_away = False
        """Whether new files are made in the spill: the run's folder takes none."""
        self._directory = directory
        self._writer = writer
        self._spill = spill
        self._is_reserved = is_reserved
        self._seq = itertools.count()
        self._home_at = 0.0
        self._full: list[tuple[str, int]] = []

    def make(self, slots: int, least: int) -> SegmentFile:
        """Make the next file, smaller where the disk is nearly full, and elsewhere where it is full.

        Args:
            slots: How many it should have.
            least: How many it must have.

        Raises:
            OSError: there is no room anywhere, or was none a moment ago.
        """
        if time.monotonic() < self.retry_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        try:
            return self._make_largest(slots, least, is_spilled=self.is_away)
        except OSError as error:
            return self.make_elsewhere(slots, least, error, is_spilled=not self.is_away)

    def make_elsewhere(self, slots: int, least: int, refusal: OSError, *, is_spilled: bool) -> SegmentFile:
        """Make the next file in the spill, or back in the run's folder.

        Raises:
            OSError: `refusal`, by which the other place refused, where there is no room here either.
        """
        if time.monotonic() < self.retry_at:
            raise refusal
        if not is_spilled or is_refusal(refusal):
            with contextlib.suppress(OSError):
                file = self._make_largest(slots, least, is_spilled=is_spilled)
                self.is_away = is_spilled
                if is_spilled:
                    self._spill.refusal = refusal
                return file
        self.retry_at = time.monotonic() + RETRY_S
        raise refusal

    def _make_largest(self, slots: int, least: int, *, is_spilled: bool) -> SegmentFile:
        while True:
            try:
                return self._make(slots, is_spilled=is_spilled)
            except OSError as error:
                if error.errno not in _NO_SPACE or slots // 2 < least:
                    raise
                slots //= 2

    def _make(self, slots: int, *, is_spilled: bool) -> SegmentFile:
        seq, salt = next(self._seq), int.from_bytes(os.urandom(4)) or 1
        name = f"{self._writer.hex()}-{seq:08d}.wal"
        header = fmt.SegmentHeader(slots, salt, self._writer, seq, os.getpid(), time.time(), time.monotonic())
        size = fmt.HEADER_BYTES + slots * fmt.SLOT_BYTES
        directory = self._spill.book(size) if is_spilled else self._directory
        try:
            flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | (0 if self._is_reserved else os.O_APPEND)
            fd = os.open(name, flags, 0o600 if is_spilled else 0o644, dir_fd=directory)
            try:
                if self._is_reserved:
                    reserve(fd, size)
                    os.pwrite(fd, fmt.pack_header(header), 0)
                else:
                    write_whole(fd, fmt.pack_header(header).ljust(fmt.HEADER_BYTES, b"\0"))
            except BaseException:
                os.close(fd)
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=directory)
                raise
        except BaseException:
            if is_spilled:
                self._spill.release(size)
            raise
        self.made += 1
        return SegmentFile(fd, name, slots, salt, is_spilled)

    def come_home(self, slots: int, least: int, *, is_out: bool) -> SegmentFile | None:
        """Bring home what lies in the spill, if the run's folder takes files again. For the keeper.

        Args:
            slots, least: As in `make`.
            is_out: Whether the writer has a file in use there.

        Returns:
            A file in the run's folder for the writer to go on in; `None` where it is there, or may not be yet.
        """
        if not self._spill.is_used or time.monotonic() < self._home_at:
            return None
        try:
            self._spill.carry_home()
            if is_out:
                file = self._make_largest(slots, least, is_spilled=False)
                self.is_away = False
                return file
        except OSError:
            self._home_at = time.monotonic() + RETRY_S
        return None

    def let_go(self, file: SegmentFile, slots: int, *, is_synced: bool = True) -> None:
        """Close a file.

        Args:
            file: One in which nothing is begun any more.
            slots: How many of its slots were taken, from the first.
            is_synced: Bring it to the disk before.
        """
        if is_synced:
            with contextlib.suppress(OSError):
                os.fdatasync(file.fd)
        os.close(file.fd)
        if file.is_spilled:
            self._spill.add_segment(file.name, slots, file.size_bytes)
        else:
            self._full.append((file.name, slots))

    def count_deleted(self) -> int:
        """Return how many points lay in files that were let go, and that somebody deleted from the run's folder."""
        lost = 0
        for name, slots in (*self._full, *self._spill.came_home):
            try:
                os.stat(name, dir_fd=self._directory)
            except FileNotFoundError:
                lost += slots
        return lost

    def remove(self, file: SegmentFile) -> None:
        """Close and remove a file of the run's folder that holds no point."""
        os.close(file.fd)
        with contextlib.suppress(OSError):
            os.unlink(file.name, dir_fd=self._directory)
