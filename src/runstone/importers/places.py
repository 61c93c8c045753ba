"""Files of a store that somebody else wrote: none outside of it is read, and no archive can fill the disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from runstone.errors import FormatError, InvalidValue
from runstone.importers.items import Content

_MOST_MEMBERS = 100_000
_MOST_BYTES = 64 << 30
_MOST_RATIO = 1_000
_RATIO_FROM = 1 << 20
_CHUNK = 1 << 20
_UNIX = 3
OUTSIDE = "file outside of the store"
GONE = "file that is not there"
LINK = "link to elsewhere"
# What the standard library gives on an archive that is not as it says.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error)


@dataclass(frozen=True, slots=True)
class StoreFile:
    """A file below one of the folders that the user named. It is looked at again when it is opened."""

    path: Path
    roots: tuple[str, ...]

    @contextlib.contextmanager
    def opened(self) -> Iterator[Path]:
        """Give a path to the file that was opened and checked, whatever has come in its place since.

        Raises:
            OSError: it cannot be read.
            InvalidValue: it is no regular file, or lies outside.
        """
        if not stat.S_ISREG(self.path.stat().st_mode):
            raise InvalidValue(f"{self.path} is no regular file")
        # Not blocking: a FIFO that comes in its place would wait for ever.
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            handle = Path(f"/proc/self/fd/{fd}")
            real = str(handle.readlink()) if handle.exists() else os.path.realpath(self.path)
            if not _is_below(real, self.roots):
                raise InvalidValue(f"{self.path} leads out of the store, to {real}")
            yield handle if handle.exists() else Path(real)
        finally:
            os.close(fd)


class Place:
    """The folders from which files of a store may be taken.

    Args:
        roots: The folders; links in their own paths are followed, those inside only as far as they stay inside.
    """

    def __init__(self, *roots: Path) -> None:
        self._roots = tuple(os.path.realpath(root) for root in roots)

    def trouble(self, path: Path) -> str | None:
        """Return why a file cannot be taken: one of `OUTSIDE`, `GONE`; `None`: it can."""
        try:
            real = os.path.realpath(path)
            if not _is_below(real, self._roots):
                return OUTSIDE
            return None if stat.S_ISREG(os.stat(real).st_mode) else GONE  # noqa: PTH116 (a text is at hand)
        except (OSError, ValueError):
            return GONE

    def holds(self, path: Path) -> bool:
        """Return whether a file or folder, links followed, lies inside."""
        return _is_below(os.path.realpath(path), self._roots)

    def file(self, path: Path) -> StoreFile:
        """Return a file, to be read later."""
        return StoreFile(path, self._roots)

    def read(self, path: Path, most_bytes: int = 256 << 20) -> bytes | None:
        """Return the bytes of a file; `None` where it is not there, too large or outside."""
        if self.trouble(path) is not None:
            return None
        try:
            with self.file(path).opened() as opened:
                if opened.stat().st_size > most_bytes:
                    return None
                with opened.open("rb") as file:
                    data = file.read(most_bytes + 1)
        except (OSError, InvalidValue):
            return None
        return data if len(data) <= most_bytes else None

    def walk(self, folder: Path, not_carried: Counter[str]) -> Iterator[tuple[str, StoreFile]]:
        """Yield path inside `folder` and file of all that is below it, sorted; links that lead out are counted."""
        if not _is_below(os.path.realpath(folder), self._roots):
            not_carried[OUTSIDE] += 1
            return
        for root, folders, names in os.walk(folder):
            folders.sort()
            for name in [*folders]:
                if os.path.islink(os.path.join(root, name)):  # noqa: PTH114, PTH118 (os.walk gives texts)
                    not_carried[LINK] += 1
            for name in sorted(names):
                path = Path(root, name)
                found = self.trouble(path)
                if found is not None:
                    not_carried[LINK if path.is_symlink() else found] += 1
                    continue
                yield os.fsencode(path.relative_to(folder)).decode("utf-8", "backslashreplace"), self.file(path)


def inner_path(text: object) -> str | None:
    """Return a relative path that stays inside, `None` for any other."""
    if (
        not isinstance(text, str)
        or not text
        or "\0" in text
        or "\\" in text
        or text.startswith("/")
        or len(text) > 4096
    ):
        return None
    parts = PurePosixPath(text).parts
    return "/".join(parts) if parts and ".." not in parts else None


def _is_below(real: str, roots: Iterable[str]) -> bool:
    return any(real == root or real.startswith(root.rstrip("/") + "/") for root in roots)


class Archive:
    """A zip file from anybody.

    Args:
        path: The file.
        scratch: Where members are unpacked for as long as they are needed.

    Raises:
        FormatError: it is none, is encrypted, or would unpack to more than makes sense.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path, scratch: Path) -> None:
        self.path = path
        self._scratch = scratch
        self.refused: Counter[str] = Counter()
        """Members that are no plain files with a path inside."""
        try:
            self._zip = zipfile.ZipFile(path)
            members = self._zip.infolist()
        except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, struct.error) as error:
            raise FormatError(f"{path} is no whole zip file: {error}") from None
        if len(members) > _MOST_MEMBERS:
            self._zip.close()
            raise FormatError(f"{path} has {len(members):,} members, at most {_MOST_MEMBERS:,} are read")
        if sum(member.file_size for member in members) > _MOST_BYTES:
            self._zip.close()
            raise FormatError(f"{path} would unpack to more than {_MOST_BYTES >> 30} GiB")
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in members:
            if member.is_dir():
                continue
            name = inner_path(member.filename)
            if name is None or not _is_plain(member):
                self.refused["archive member that is no plain file inside it"] += 1
            elif member.file_size > _RATIO_FROM and member.file_size > _MOST_RATIO * max(1, member.compress_size):
                self.refused["archive member that unpacks to over 1000 times its size"] += 1
            else:
                self._members[name] = member

    def close(self) -> None:
        """Let go of the file."""
        self._zip.close()

    @property
    def names(self) -> list[str]:
        """Paths of the files inside."""
        return sorted(self._members)

    def __contains__(self, name: str) -> bool:
        """Return whether there is such a file."""
        return name in self._members

    def size(self, name: str) -> int:
        """Return the size that a member says it has."""
        return self._members[name].file_size

    def member(self, name: str) -> Content:
        """Return a file, to be read later."""
        return _Member(self, name)

    def read(self, name: str, most_bytes: int = 256 << 20) -> bytes | None:
        """Return the bytes of a file, `None` where it is not there, damaged or too large."""
        if name not in self._members or self._members[name].file_size > most_bytes:
            return None
        try:
            with self._zip.open(self._members[name]) as file:
                data = file.read(most_bytes + 1)
        except (*_DAMAGE, OSError):
            return None
        return data if len(data) <= most_bytes else None

    @contextlib.contextmanager
    def unpacked(self, name: str) -> Iterator[Path]:
        """Give a temporary file with the content of a member.

        Raises:
            InvalidValue: it is damaged, or larger than it says.
            OSError: the disk is full.
        """
        target = self._scratch / f"{os.urandom(8).hex()}.member"
        told = self._members[name].file_size
        try:
            with target.open("xb") as out:
                try:
                    with self._zip.open(self._members[name]) as file:
                        while chunk := file.read(_CHUNK):
                            out.write(chunk)
                            if out.tell() > told:
                                raise InvalidValue(f"{name} in {self.path} is larger than it says")
                except _DAMAGE as error:
                    raise InvalidValue(f"{name} in {self.path} is damaged: {error}") from None
            yield target
        finally:
            target.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Member:
    archive: Archive
    name: str

    def opened(self) -> contextlib.AbstractContextManager[Path]:
        """As `StoreFile.opened`."""
        return self.archive.unpacked(self.name)


@dataclass(frozen=True, slots=True)
class Bytes:
    """A small content that is in memory."""

    data: bytes
    scratch: Path

    @contextlib.contextmanager
    def opened(self) -> Iterator[Path]:
        """As `StoreFile.opened`."""
        target = self.scratch / f"{os.urandom(8).hex()}.member"
        try:
            target.write_bytes(self.data)
            yield target
        finally:
            target.unlink(missing_ok=True)


def _is_plain(member: zipfile.ZipInfo) -> bool:
    if member.flag_bits & 1:  # encrypted
        return False
    mode = member.external_attr >> 16 if member.create_system == _UNIX else 0
    return stat.S_IFMT(mode) in (0, stat.S_IFREG)


def clear(folder: Path) -> None:
    """Remove a folder of temporary files."""
    shutil.rmtree(folder, ignore_errors=True)
