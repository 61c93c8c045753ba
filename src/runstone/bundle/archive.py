"""A zip file that is the same for the same content, and that is not trusted when it is read. Knows no runs.

No member expands more than a hundredfold: what would is stored as it is. So a reader knows by the size of the file how
much can come out of it, and refuses whatever promises more.
"""

from __future__ import annotations

import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

from runstone.blobs.source import CHUNK_BYTES, hasher_for
from runstone.errors import FormatError, InvalidValue

MOST_RATIO = 100
_LEVEL = 6
_MOST_MEMBERS = 250_000
_MOST_DIRECTORY_BYTES = 96 << 20
_DATE = (1980, 1, 1, 0, 0, 0)
_SMALL_BYTES = 4096
_LARGE_BYTES = 1 << 30
_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64 = struct.Struct("<4sLQL")


class ArchiveWriter:
    """Writes members in the order in which they are given.

    Args:
        file: Where to, seekable.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._zip = zipfile.ZipFile(file, "w", allowZip64=True, strict_timestamps=False)
        self._count = 0

    def add(self, name: str, source: BinaryIO, size: int, *, compress: bool, expected: str | None = None) -> str:
        """Add a member and return what its bytes hash to.

        Args:
            name: In the archive.
            source: Its bytes, to their end; rewound where they are to be compressed.
            size: How many there are.
            compress: Whether it is worth trying.
            expected: What they must hash to.

        Raises:
            FormatError: they hash to something else, or are not so many.
            InvalidValue: there are too many members for one archive.
        """
        self._count += 1
        if self._count > _MOST_MEMBERS - 1:
            raise InvalidValue(f"a bundle holds at most {_MOST_MEMBERS:,} files; make several of fewer runs")
        info = zipfile.ZipInfo(name, _DATE)
        info.create_system = 3
        info.external_attr = (stat.S_IFREG | 0o644) << 16
        info.file_size = size
        info.compress_type = zipfile.ZIP_STORED
        if compress and size > 64 and _shrinks(source, size):
            info.compress_type = zipfile.ZIP_DEFLATED
            info._compresslevel = _LEVEL  # type: ignore[attr-defined]  # before 3.13 there is no public name for it
        hasher, done = hasher_for(size), 0
        with self._zip.open(info, "w", force_zip64=size > _LARGE_BYTES) as member:
            while chunk := source.read(CHUNK_BYTES):
                hasher.update(chunk)
                done += len(chunk)
                member.write(chunk)
        found = str(hasher.hexdigest())
        if done != size or (expected is not None and found != expected):
            raise FormatError(f"{name} is damaged: its {done:,} bytes hash to {found[:16]}…; it cannot be bundled")
        return found

    def close(self) -> None:
        """Write what ends it."""
        self._zip.close()


def _shrinks(source: BinaryIO, size: int) -> bool:
    """Return whether compressing pays, but not so much that a reader would not trust it."""
    packer, packed = zlib.compressobj(_LEVEL, zlib.DEFLATED, -15), 0
    while chunk := source.read(CHUNK_BYTES):
        packed += len(packer.compress(chunk))
    packed += len(packer.flush())
    source.seek(0)
    return packed < size * 0.95 and (size <= _SMALL_BYTES or size <= packed * MOST_RATIO)


class ArchiveReader:
    """Reads members, none of which is believed.

    Args:
        file: The archive, seekable.
        where: What it is called, for messages.

    Raises:
        FormatError: it is no zip file, or one that could do harm.
    """

    def __init__(self, file: IO[bytes], where: str) -> None:
        self._where = where
        self._size = file.seek(0, 2)
        _check_directory(file, self._size, where)
        try:
            self._zip = zipfile.ZipFile(file)
            self._members = self._checked()
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error) as error:
            raise FormatError(f"{where} is no bundle: {error}") from None

    def _checked(self) -> dict[str, zipfile.ZipInfo]:
        members: dict[str, zipfile.ZipInfo] = {}
        packed = 0
        for info in self._zip.infolist():
            name = info.orig_filename
            kind = stat.S_IFMT(info.external_attr >> 16) if info.create_system == 3 else 0
            wrong = ""
            if name in members:
                wrong = "is there twice"
            elif kind not in (0, stat.S_IFREG) or name.endswith("/"):
                wrong = "is no regular file"
            elif info.flag_bits & 0x1:
                wrong = "is encrypted"
            elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                wrong = "is compressed in a way that bundles are not"
            elif info.file_size > _SMALL_BYTES and info.file_size > info.compress_size * MOST_RATIO:
                wrong = f"would expand more than {MOST_RATIO} times"
            if wrong:
                raise FormatError(f"{self._where} is refused: {name!r:.200} {wrong}")
            packed += info.compress_size
            members[name] = info
        if packed > self._size:
            raise FormatError(f"{self._where} is refused: its members overlap")
        if len(members) > _MOST_MEMBERS:
            raise FormatError(f"{self._where} is refused: it has {len(members):,} members")
        return members

    @property
    def names(self) -> set[str]:
        """Names of all members."""
        return set(self._members)

    def size(self, name: str) -> int:
        """Return how many bytes a member claims to have.

        Raises:
            FormatError: there is no such member.
        """
        if name not in self._members:
            raise FormatError(f"{self._where} lacks {name!r:.200}")
        return self._members[name].file_size

    def read(self, name: str, *, most: int) -> bytes:
        """Return a small member.

        Raises:
            FormatError: it is not there, damaged, or larger than `most`.
        """
        if self.size(name) > most:
            raise FormatError(f"{self._where} is refused: {name} has {self.size(name):,} bytes")
        return b"".join(self._chunks(name))

    def extract(self, name: str, target: Path, *, content_hash: str, size: int, mode: int = 0o644) -> None:
        """Write a member to a new file; it stays there only if it is what was promised.

        Raises:
            FormatError: it is not there, damaged, or other bytes than were promised.
            OSError: the disk is full.
        """
        if self.size(name) != size:
            raise FormatError(f"{self._where} is damaged: {name} has {self.size(name):,} bytes, not {size:,}")
        hasher = hasher_for(size)
        try:
            with target.open("xb") as file:
                target.chmod(mode)
                for chunk in self._chunks(name):
                    hasher.update(chunk)
                    file.write(chunk)
            if hasher.hexdigest() != content_hash:
                raise FormatError(f"{self._where} is damaged: {name} is not what its manifest promises")
        except FormatError:
            target.unlink()
            raise

    def verify(self, name: str, *, content_hash: str, size: int) -> None:
        """Read a member and compare it with what was promised.

        Raises:
            FormatError: it is not there, damaged, or other bytes than were promised.
        """
        hasher = hasher_for(size)
        for chunk in self._chunks(name):
            hasher.update(chunk)
        if hasher.hexdigest() != content_hash:
            raise FormatError(f"{self._where} is damaged: {name} is not what its manifest promises")

    def _chunks(self, name: str) -> Iterator[bytes]:
        left = self.size(name)
        try:
            with self._zip.open(self._members[name]) as member:
                while chunk := member.read(min(CHUNK_BYTES, left + 1)):
                    left -= len(chunk)
                    if left < 0:
                        raise FormatError(f"{self._where} is refused: {name} has more bytes than it says")
                    yield chunk
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise FormatError(f"{self._where} is damaged: {name}: {error}") from None
        if left:
            raise FormatError(f"{self._where} is damaged: {name} ends {left:,} bytes too early")


def _check_directory(file: IO[bytes], size: int, where: str) -> None:
    """Look at the end of a zip file before its directory is parsed: that may claim anything."""
    begin = max(0, size - 65_536 - _END.size)
    file.seek(begin)
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or at + _END.size > len(tail):
        raise FormatError(f"{where} is no bundle: it is no zip file, or it was cut off")
    directory = _END.unpack_from(tail, at)[5]
    end = begin + at
    if tail[max(0, at - _LOCATOR_64.size) : at].startswith(b"PK\6\7"):
        told = _LOCATOR_64.unpack_from(tail, at - _LOCATOR_64.size)[2]
        before = end - _LOCATOR_64.size - _END_64.size
        for place in (told, before):  # readers differ in where they look
            file.seek(max(0, min(place, size)))
            record = file.read(_END_64.size)
            if len(record) == _END_64.size and record.startswith(b"PK\6\6"):
                directory = max(directory, _END_64.unpack(record)[8])
        end = max(0, before)
    if directory > _MOST_DIRECTORY_BYTES:
        raise FormatError(f"{where} is refused: its directory claims {directory:,} bytes")
    file.seek(max(0, end - directory))
    members = file.read(directory).count(b"PK\1\2")
    if members > _MOST_MEMBERS:
        raise FormatError(f"{where} is refused: it has {members:,} members, more than {_MOST_MEMBERS:,}")
    file.seek(0)


def check_space(folder: Path, size: int) -> None:
    """Check that a disk has room.

    Raises:
        OSError: it has not.
    """
    free = shutil.disk_usage(folder).free
    if size > free:
        raise OSError(28, f"{size:,} bytes are needed and {free:,} are free", str(folder))
