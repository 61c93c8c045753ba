"""Files that come in parts: kept until all are there, then put together. What nobody goes on with is swept away.

A part is a file under its number: its bytes, and behind them their hash, so that one rename puts both in place and the
last that came stands. All that is known of an upload lies in its folder, so any server of the workspace takes a part.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runstone.blobs.partial import Partial, dead_partials
from runstone.server.mlflow.errors import MlflowError, invalid, missing
from runstone.server.mlflow.tickets import is_good, make_ticket

MOST_PARTS = 10_000
MOST_PART_BYTES = 5 << 30
MOST_OPEN = 256
"""Of one user at once."""
RESTS_S = 86_400.0
"""Seconds without a new part after which an upload is swept away."""
LASTS_S = 7 * 86_400
"""Seconds after which it is, whatever comes; its tickets are good until then."""
_SWEPT_EACH_S = 600.0
_GRACE_S = 600.0
"""How old what a server left is at least before it is removed: not every file system tells that its writer is gone."""
_WAITS_S = 100.0
_RECORD, _BUSY, _SWEPT, _DONE = "upload.json", "busy", "swept", ".done"
_HASH_BYTES = 32
_COPIED_AT_ONCE = 8 << 20
_ID = re.compile(r"[0-9a-f]{48}")


@dataclass(frozen=True, slots=True)
class Told:
    """What is known of an upload from its beginning.

    Attributes:
        user: Who began it; nobody else goes on with it.
        target: The path of the proxy at which the file is going to lie.
        count: How many parts it has.
        key: Makes its tickets.
        made_s: When it was begun, in seconds since the epoch.
    """

    user: str
    target: str
    count: int
    key: str
    made_s: float


class Upload:
    """An upload that is open.

    Args:
        folder: Of its parts.
        told: What is known of it.
    """

    def __init__(self, folder: Path, told: Told) -> None:
        self.folder = folder
        self.told = told

    @property
    def id(self) -> str:
        """Its id, which nobody can guess."""
        return self.folder.name

    def ticket(self, number: int) -> str:
        """Return what lets somebody send one part."""
        told = self.told
        return make_ticket(bytes.fromhex(told.key), int(told.made_s) + LASTS_S, self.id, number, told.user)

    def takes(self, number: int, ticket: str) -> bool:
        """Return whether a ticket is that of a part of it."""
        is_part = 1 <= number <= self.told.count
        return is_good(ticket, bytes.fromhex(self.told.key), time.time(), self.id, number, self.told.user) and is_part

    def most_bytes(self, most: int) -> int:
        """Return how large a part may be where the whole may have so many bytes."""
        return min(MOST_PART_BYTES, most // max(1, self.told.count - 1))

    def part(self, number: int) -> Part:
        """Return a part to write.

        Raises:
            MlflowError: the upload has ended meanwhile.
        """
        try:
            return Part(self.folder, number)
        except FileNotFoundError:
            raise gone(self.id) from None

    @contextlib.contextmanager
    def assembled(self, etags: Sequence[str], most: int) -> Iterator[Partial]:
        """Yield one file with all parts, which vanishes when the block ends.

        Args:
            etags: Of the parts, the first part first.
            most: Bytes that it may have.

        Raises:
            MlflowError: a part is missing, another one came since, or they are too large together.
            OSError: the disk refuses.
        """
        sizes = [self._size(number, etag) for number, etag in enumerate(etags, 1)]
        if sum(sizes) > most:
            raise invalid(f"The parts have {sum(sizes):,} bytes together; {most:,} are possible")
        with Partial(self.folder.parent) as whole:
            for number, (size, etag) in enumerate(zip(sizes, etags, strict=True), 1):
                with self._opened(number) as fd:
                    if _read_hash(fd, size) != etag:
                        raise _another(number)
                    _copy(fd, whole, size)
            yield whole

    def _size(self, number: int, etag: str) -> int:
        with self._opened(number) as fd:
            size = os.fstat(fd).st_size - _HASH_BYTES
            if _read_hash(fd, size) != etag:
                raise _another(number)
            return size

    @contextlib.contextmanager
    def _opened(self, number: int) -> Iterator[int]:
        try:
            fd = os.open(self.folder / str(number), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise invalid(f"Part {number} was not uploaded") from None
        try:
            yield fd
        finally:
            os.close(fd)


class Part:
    """A part on its way in. It vanishes when it is closed, unless it was placed.

    Args:
        folder: Of its upload.
        number: Which one, from 1.

    Raises:
        FileNotFoundError: the upload has ended.
    """

    def __init__(self, folder: Path, number: int) -> None:
        from blake3 import blake3  # only where parts come

        self._place = folder / str(number)
        self._hasher = blake3()
        self._file = Partial(folder)

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._hasher.update(data)
        self._file.write(data)

    def place(self) -> str:
        """Let it take its place; return its hash, by which it is named in the end.

        Raises:
            MlflowError: the upload has ended meanwhile.
            OSError: the disk refuses.
        """
        self._file.write(self._hasher.digest())
        try:
            self._file.place(self._place, 0o600)
        except FileNotFoundError:
            raise gone(self._place.parent.name) from None
        return str(self._hasher.hexdigest())

    def close(self) -> None:
        """Leave nothing behind that took no place."""
        self._file.close()


class Uploads:
    """The uploads of a workspace.

    Args:
        folder: Where they are kept; made with the first.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def folder(self) -> Path:
        """Return the folder in which files are written that come; what is left there by others is swept away.

        Raises:
            OSError: the disk refuses.
        """
        self.sweep()
        return self._folder

    def begin(self, user: str, target: str, count: int) -> Upload:
        """Return a new upload.

        Raises:
            MlflowError: the user has too many that are open.
            OSError: the disk refuses.
        """
        folder = self.folder()
        whose = _whose(user)
        if sum(name.startswith(whose) and not name.endswith(_DONE) for name in _names(folder)) >= MOST_OPEN:
            problem = f"{user} has {MOST_OPEN} multipart uploads that are open; complete or abort some"
            raise MlflowError("REQUEST_LIMIT_EXCEEDED", problem)
        told = Told(user, target, count, secrets.token_hex(32), time.time())
        own = folder / (whose + secrets.token_hex(16))
        own.mkdir(mode=0o700)
        _write_json(own / _RECORD, asdict(told))
        return Upload(own, told)

    def find(self, upload_id: str) -> Upload | None:
        """Return an upload that is open; `None` where there is none of this id."""
        folder = self._folder / upload_id
        told = _read_told(folder) if _ID.fullmatch(upload_id) else None
        if told is None or time.time() > told.made_s + LASTS_S:
            return None
        return Upload(folder, told)

    def get(self, upload_id: str, user: str, target: str) -> Upload:
        """Return an open upload of somebody to a path.

        Raises:
            MlflowError: there is none.
        """
        found = self.find(upload_id)
        if found is None or (found.told.user, found.told.target) != (user, target):
            raise gone(upload_id)
        return found

    @contextlib.contextmanager
    def alone(self, upload_id: str) -> Iterator[None]:
        """Keep others from ending an upload meanwhile; where one does, wait until they have.

        Raises:
            MlflowError: that takes long; there can be none of this id.
        """
        if not _ID.fullmatch(upload_id):
            raise gone(upload_id)
        try:
            fd = os.open(self._folder / upload_id / _BUSY, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            yield  # it has ended
            return
        try:
            until = time.monotonic() + _WAITS_S
            while not _is_locked(fd):
                if time.monotonic() > until:
                    told = "The parts of this upload are being put together; ask again"
                    raise MlflowError("TEMPORARILY_UNAVAILABLE", told)
                time.sleep(0.05)
            yield
        finally:
            os.close(fd)

    def is_done(self, upload_id: str, user: str, target: str, etags: Sequence[str]) -> bool:
        """Return whether an upload was completed with just these parts: its answer may not have reached who asked."""
        return bool(_read_json(self._folder / (upload_id + _DONE)) == _done(user, target, etags))

    def end(self, upload: Upload, etags: Sequence[str] | None) -> None:
        """Remove an upload; where it was completed, note with which parts.

        Raises:
            OSError: the disk refuses.
        """
        if etags is not None:
            told = upload.told
            _write_json(self._folder / (upload.id + _DONE), _done(told.user, told.target, etags))
        _remove(upload.folder)

    def sweep(self, *, now: float | None = None) -> None:
        """Remove what is left of servers that were killed and uploads that nobody goes on with; not more than needed.

        Args:
            now: Seconds since the epoch; given, it is done whenever it was done last.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        mark = self._folder / _SWEPT
        if now is None:
            now = time.time()
            with contextlib.suppress(FileNotFoundError):
                if 0 <= now - mark.stat().st_mtime < _SWEPT_EACH_S:
                    return
        mark.touch()
        for path, _size in dead_partials(self._folder, now=now, grace_s=_GRACE_S):
            path.unlink(missing_ok=True)
        for name in _names(self._folder):
            with contextlib.suppress(FileNotFoundError):
                self._sweep_one(self._folder / name, now)

    def _sweep_one(self, path: Path, now: float) -> None:
        rests_s = now - path.stat().st_mtime
        if path.name.endswith(_DONE):
            if rests_s > RESTS_S:
                path.unlink(missing_ok=True)
            return
        if not _ID.fullmatch(path.name):
            return
        told = _read_told(path)
        if rests_s <= RESTS_S and (told is None or now - told.made_s <= LASTS_S):
            for left, _size in dead_partials(path, now=now, grace_s=_GRACE_S):
                left.unlink(missing_ok=True)
            return
        fd = os.open(path / _BUSY, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if _is_locked(fd):
                _remove(path)
        finally:
            os.close(fd)


def gone(upload_id: str) -> MlflowError:
    """Return the error of an upload that is not open."""
    return missing(f"There is no multipart upload {upload_id!r:.80}: it was completed, aborted, or left for too long")


def _another(number: int) -> MlflowError:
    return invalid(f"The ETag of part {number} is not that of the part that was uploaded last")


def _read_hash(fd: int, size: int) -> str:
    return os.pread(fd, _HASH_BYTES, max(0, size)).hex()


def _copy(fd: int, whole: Partial, size: int) -> None:
    """Append the first bytes of a file to another; file systems that can share them do."""
    copied = 0
    with contextlib.suppress(OSError):  # not every file system can; what it copied stays
        while copied < size and (count := os.copy_file_range(fd, whole.fd, size - copied, copied)):
            copied += count
    while copied < size:
        data = os.pread(fd, min(_COPIED_AT_ONCE, size - copied), copied)
        if not data:
            raise OSError(f"a part ended at {copied} of {size} bytes")
        whole.write(data)
        copied += len(data)


def _done(user: str, target: str, etags: Sequence[str]) -> dict[str, str]:
    return {"user": user, "target": target, "parts": hashlib.sha256(" ".join(etags).encode()).hexdigest()}


def _whose(user: str) -> str:
    return hashlib.blake2b(user.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 (names are all that is needed)
    except FileNotFoundError:
        return []


def _write_json(path: Path, told: dict[str, Any]) -> None:
    with Partial(path.parent) as partial:
        partial.write(json.dumps(told).encode())
        partial.place(path, 0o600)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def _read_told(folder: Path) -> Told | None:
    """Return what is known of an upload; `None` where it has ended, or is damaged."""
    try:
        found = Told(**_read_json(folder / _RECORD))
        bytes.fromhex(found.key)
        return found if found.made_s >= 0 and found.count > 0 else None
    except (TypeError, ValueError):
        return None


def _is_locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _remove(folder: Path) -> None:
    # its record first: from then on it takes no parts
    with contextlib.suppress(FileNotFoundError):
        (folder / _RECORD).unlink()
    shutil.rmtree(folder, ignore_errors=True)
