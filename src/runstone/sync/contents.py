"""Content that is sent here, by its hash: only what is missing, going on where it was broken off, checked when whole.

Who may not see all projects has to send what they refer to, even where it is here already because of others: else
asking for a hash, or naming one in a run, would tell or give them what others stored. What was sent for a project is
noted, and counts for all who write to that project.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from runstone.blobs import Blobs
from runstone.blobs.objects import is_hash
from runstone.errors import InvalidValue
from runstone.names import check_name, folder_name
from runstone.sync.landing import OtherBytes

MOST_BYTES = 1 << 42
_LOCKS = 64
_KEPT_S = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class Missing:
    """A content that is to be sent, and how many bytes of it are here already."""

    hash: str
    offset: int


class ContentLanding:
    """Takes contents into the store of one workspace.

    Args:
        workspace: Its folder.
        blobs: Its store.
    """

    def __init__(self, workspace: Path, blobs: Blobs) -> None:
        self._root = workspace / "sync"
        self._blobs = blobs
        self._locks = [threading.Lock() for _number in range(_LOCKS)]

    def missing(self, project: str, hashes: Iterable[str], *, sender: str, sees_all: bool) -> list[Missing]:
        """Return which contents are to be sent.

        Args:
            project: For which.
            hashes: What a run of it refers to.
            sender: Name of the user.
            sees_all: Whether they may look at every project.

        Raises:
            InvalidValue: one is no hash.
        """
        found = []
        for content in dict.fromkeys(hashes):
            if not is_hash(content):
                raise InvalidValue(f"{content!r:.80} is no content hash")
            if self._counts_for(project, content, sees_all=sees_all) and self._blobs.keep(content):
                self._note(project, content)
                continue
            found.append(Missing(content, self._size(self._partial(sender, content))))
        return found

    def land(self, project: str, content: str, *, sender: str, offset: int, size: int, data: bytes) -> tuple[int, bool]:
        """Take a part of a content; return how many bytes are here, and whether that is all of it.

        Raises:
            OtherBytes: it does not follow what is here, or all of it is not what its hash says; that is forgotten then.
            InvalidValue: it is no hash, or there are more bytes than were told.
            OSError: the disk refuses.
        """
        if not is_hash(content):
            raise InvalidValue(f"{content!r:.80} is no content hash")
        if not 0 <= offset <= offset + len(data) <= size <= MOST_BYTES:
            raise InvalidValue(f"bytes {offset} to {offset + len(data)} do not lie in a content of {size}")
        partial = self._partial(sender, content)
        with self._lock(partial.name):
            if self._is_noted(project, content) and self._blobs.keep(content):
                return size, True  # a part that came twice
            partial.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                here = os.fstat(fd).st_size
                if offset > here:
                    raise OtherBytes(f"the content {content[:16]}…: {here} bytes are here, not {offset}")
                view = memoryview(data)[here - offset :] if here > offset else memoryview(data)
                while view:
                    written = os.pwrite(fd, view, here)
                    view, here = view[written:], here + written
                if here < size:
                    return here, False
            finally:
                os.close(fd)
            try:
                if _hash_of(partial) != content:
                    raise OtherBytes(f"the bytes that came are not those of the content {content[:16]}…")
                self._blobs.put(partial, content)
                self._blobs.sync()
            finally:
                partial.unlink(missing_ok=True)
            self._note(project, content)
        return size, True

    def is_theirs(self, project_folder: str, content: str) -> bool:
        """Return whether a content was sent for a project, named by its folder."""
        return (self._root / "contents" / project_folder / content[:2] / content).exists()

    def limit(self, run_id: str) -> None:
        """Note that somebody writes to a run who may not see all projects: what it names may not be theirs."""
        place = self._root / "limited"
        place.mkdir(parents=True, exist_ok=True)
        (place / run_id).touch()

    def is_limited(self, run_id: str) -> bool:
        """Return whether somebody wrote to a run who may not see all projects."""
        return (self._root / "limited" / run_id).exists()

    def tidy(self, *, older_than_s: float = _KEPT_S) -> None:
        """Remove parts of contents that nobody completed."""
        for partial in (self._root / "incoming").glob("*.partial"):
            with contextlib.suppress(OSError):
                if time.time() - partial.stat().st_mtime > older_than_s:
                    partial.unlink()

    def _counts_for(self, project: str, content: str, *, sees_all: bool) -> bool:
        return sees_all or self._is_noted(project, content)

    def _is_noted(self, project: str, content: str) -> bool:
        return self.is_theirs(folder_name(check_name(project, "project")), content)

    def _note(self, project: str, content: str) -> None:
        place = self._root / "contents" / folder_name(check_name(project, "project")) / content[:2] / content
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()

    def _partial(self, sender: str, content: str) -> Path:
        # Of each sender its own: nobody learns, or spoils, what another sends.
        whose = hashlib.blake2b(sender.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
        return self._root / "incoming" / f"{whose}.{content}.partial"

    def _size(self, path: Path) -> int:
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return 0

    def _lock(self, name: str) -> threading.Lock:
        return self._locks[hash(name) % _LOCKS]


def _hash_of(path: Path) -> str:
    from blake3 import blake3  # only where content came

    hasher = blake3()
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            hasher.update(data)
    return str(hasher.hexdigest())
