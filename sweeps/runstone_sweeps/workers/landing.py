"""Writes what a worker sends into the folder of a run, where it is followed like that of a local trial.

What comes from outside is a name out of a short list, an offset and bytes; a name is never a path.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from runstone import Workspace
from runstone_sweeps.workers.link import LinkBroken
from runstone_sweeps.workers.runfiles import (
    HASH,
    STATUS_BYTES,
    Kind,
    attempt_of,
    close_writers,
    earlier_writers,
    kind_of,
    lock_status,
    names_in,
    pad_status,
    writer_of,
)
from runstone_sweeps.workers.shipping import file_sum

_PRIVATE = ("environment.", "code.", "console.")


class Landing:
    """The folder of one run that a trial elsewhere writes.

    Args:
        folder: Of the run; it exists.
        attempt: Of the trial: it may write nothing that belongs to another one, or to who launched it.
    """

    def __init__(self, folder: Path, attempt: int) -> None:
        self.folder = folder
        self._attempt = attempt
        self._earlier = earlier_writers(folder, attempt)
        self._directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._changed: set[str] = set()
        self._status: dict[str, int] = {}

    def write(self, name: str, offset: int, data: bytes, end: int | None) -> None:
        """Write a piece of a file.

        Args:
            name: Of the file.
            offset: Where the bytes belong; not behind the end of what is there.
            end: Where the file ends, if that is to be made so.

        Raises:
            LinkBroken: no trial sends this.
            OSError: the disk refuses.
        """
        kind = self._checked(name)
        if kind is Kind.WHOLE:
            self._write_whole(name, offset, data, end)
            return
        if kind is Kind.STATUS:
            self._write_status(name, offset, data)
            return
        mode = 0o600 if name.startswith("console.") and writer_of(name) else 0o644
        fd = self._open(name, os.O_RDWR | os.O_CREAT, mode)
        try:
            if offset > os.fstat(fd).st_size:
                raise LinkBroken(f"a piece of {name} lies behind its end")
            _write_all(fd, data, offset)
            if end is not None and kind is Kind.CONSOLE and end <= os.fstat(fd).st_size:
                os.ftruncate(fd, end)
        finally:
            os.close(fd)
        self._changed.add(name)

    def remove(self, name: str) -> None:
        """Remove a file that the trial removed: its points lie in another one by now.

        Raises:
            LinkBroken: no trial removes this.
        """
        if self._checked(name) in (Kind.JOURNAL, Kind.STATUS, Kind.WHOLE):
            raise LinkBroken(f"{name!r:.60} is not a file that a trial removes")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._directory)
        self._changed.discard(name)

    def sums(self) -> dict[str, tuple[int, int]]:
        """Return size and CRC-32 of each file that the trial has sent."""
        return {
            name: file_sum(self.folder / name)
            for name in names_in(self.folder)
            if kind_of(name) is not Kind.STATUS and self._is_its_own(name)
        }

    def sync(self) -> None:
        """Bring what came to the disk: the worker forgets it then."""
        for name in self._changed:
            with contextlib.suppress(OSError):
                fd = self._open(name, os.O_RDONLY, 0)
                try:
                    os.fdatasync(fd)
                finally:
                    os.close(fd)
        self._changed.clear()
        with contextlib.suppress(OSError):
            os.fsync(self._directory)

    def hold(self) -> None:
        """Hold the locks that the trial's writers hold on their host, for readers on this one: they live."""
        for name in names_in(self.folder):
            if kind_of(name) is Kind.STATUS and self._is_its_own(name):
                self._hold(name)

    def finish(self) -> None:
        """Note that no process of the trial is left."""
        self._let_go()
        close_writers(self.folder, self._attempt)

    def close(self) -> None:
        """Let go of the folder."""
        self._let_go()
        with contextlib.suppress(OSError):
            os.close(self._directory)

    def _write_status(self, name: str, offset: int, data: bytes) -> None:
        if offset or len(data) > STATUS_BYTES:
            raise LinkBroken(f"{name} is not written like this")
        fd = self._hold(name)
        pad_status(fd)
        _write_all(fd, data, 0)

    def _hold(self, name: str) -> int:
        fd = self._status.get(name)
        if fd is None:
            fd = self._status[name] = self._open(name, os.O_RDWR | os.O_CREAT, 0o644)
            with contextlib.suppress(OSError):  # a file system without locks: the heartbeat is left
                lock_status(fd)
        return fd

    def _let_go(self) -> None:
        for fd in self._status.values():
            os.close(fd)
        self._status.clear()

    def _is_its_own(self, name: str) -> bool:
        attempt = attempt_of(name)
        return writer_of(name) not in self._earlier and (attempt is None or attempt == self._attempt)

    def _checked(self, name: str) -> Kind:
        kind = kind_of(name)
        if kind is None or not self._is_its_own(name):
            raise LinkBroken(f"{name!r:.60} is not a file that this trial may write")
        return kind

    def _open(self, name: str, flags: int, mode: int) -> int:
        # Never through a link, and nowhere but in this folder.
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=self._directory)

    def _write_whole(self, name: str, offset: int, data: bytes, end: int | None) -> None:
        partial = f"{name}.partial"
        mode = 0o600 if name.startswith(_PRIVATE) else 0o644
        flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if offset == 0 else 0)
        fd = self._open(partial, flags, mode)
        try:
            if offset != os.fstat(fd).st_size:
                raise LinkBroken(f"a piece of {name} does not follow the one before")
            _write_all(fd, data, offset)
            if end is None:
                return
            os.fdatasync(fd)
        finally:
            os.close(fd)
        os.replace(partial, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)


class BlobLanding:
    """Takes the files that trials elsewhere stored by their content into the coordinator's workspace.

    Args:
        workspace: Of the coordinator.
        folder: For what is not complete yet; made with the first.
    """

    def __init__(self, workspace: Workspace, folder: Path) -> None:
        self._workspace = workspace
        self._folder = folder

    def has(self, content_hash: str) -> bool:
        """Return whether a content is here; raises `LinkBroken` where this is no hash."""
        if not HASH.fullmatch(content_hash):
            raise LinkBroken(f"{content_hash!r:.80} is not a content hash")
        return (self._workspace.path / "blobs" / content_hash[:2] / content_hash).is_file()

    def write(self, sender: str, content_hash: str, offset: int, size: int, data: bytes) -> bool:
        """Take a part of a content; return whether it is complete, and here.

        Args:
            sender: Who sends it: several may send the same.

        Raises:
            LinkBroken: it is not the content that it is said to be, or not the next part.
            OSError: the disk refuses.
        """
        if self.has(content_hash):
            return True
        partial = self._folder / f"{sender}.{content_hash}.partial"
        self._folder.mkdir(exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_TRUNC if offset == 0 else 0)
        fd = os.open(partial, flags, 0o600)
        try:
            if offset != os.fstat(fd).st_size or offset + len(data) > size:
                raise LinkBroken("a part of a content does not follow the one before")
            _write_all(fd, data, offset)
        finally:
            os.close(fd)
        if offset + len(data) < size:
            return False
        try:
            entry = self._workspace.blobs.put(partial, content_hash)
            if entry.hash != content_hash:
                raise LinkBroken("a content is not what its hash says")
        finally:
            partial.unlink()
        return True

    def tidy(self, *, older_than_s: float = 86_400.0) -> None:
        """Remove parts of contents that nobody completed."""
        for partial in self._folder.glob("*.partial"):
            with contextlib.suppress(OSError):
                if time.time() - partial.stat().st_mtime > older_than_s:
                    partial.unlink()


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
