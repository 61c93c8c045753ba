"""Runs that are sent here: all is checked before it is written, and what is here is never changed, only added to.

A client may send the same again, in any order and from several processes: the files are the same afterwards. What it
sends reads as any run does.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from runstone.errors import AlreadyExists, FormatError, InvalidValue, RunNotFound
from runstone.names import check_name, check_run_id, folder_name
from runstone.runlog import format as fmt
from runstone.runlog.blocks import BLOCKS, write_blocks
from runstone.runlog.changes import announce
from runstone.runlog.liveness import write_copied_status
from runstone.runlog.portions import SLOT
from runstone.runlog.reader import read_journal
from runstone.runlog.seal import alone
from runstone.runlog.sealed import SealedMetrics, sync_folder
from runstone.runlog.tail import SEALED
from runstone.runlog.writer import clear_stop, stop_word
from runstone.runlog.zoom import LEVELS, write_levels
from runstone.sync.kinds import CONSOLE_END_BYTES, Kind, is_private, kind_of, names_in, seq_of, writer_of
from runstone.sync.wholes import mark_whole, unmark
from runstone.sync.wire import Parcel, Piece, WriterReport

_MOST_FILES = 20_000
_LOCKS = 256
_ROLES = frozenset({"main", "child", "launcher", "edit"})
_READ_BYTES = 1 << 20
_TABLES_KEPT = 2_000
# One after the other, each waits for a commit of the file system; together, many share one.
_SYNCED_AT_ONCE = 16
_FILLED = (Kind.SIDE, Kind.SLOTS)


class OtherBytes(AlreadyExists):
    """Something else stands where bytes are to be written, or there is a gap before it; nothing was written."""


@dataclass(frozen=True, slots=True)
class FileState:
    """Of one file: how many bytes are here, and what they hash to (BLAKE3)."""

    size: int
    hash: str


@dataclass(frozen=True, slots=True)
class Landed:
    """What came of a parcel: the size of each file that it touched, and what the run is asked for (`stop`, `prune`)."""

    sizes: dict[str, int]
    stop: str | None


@dataclass(slots=True)
class _Known:
    """What is known of the names of one writer's metrics: ids, and up to where the file was read."""

    ids: set[int] = field(default_factory=set)
    end: int = 0


class Landing:
    """Takes runs into one workspace.

    Args:
        workspace: Its folder.
        clock: Seconds since the epoch.
    """

    def __init__(self, workspace: Path, clock: Callable[[], float] = time.time) -> None:
        self._runs = workspace / "runs"
        self._clock = clock
        self._locks = [threading.Lock() for _number in range(_LOCKS)]
        self._known: OrderedDict[tuple[str, str], _Known] = OrderedDict()
        self._known_lock = threading.Lock()

    def open(self, run_id: str, project: str) -> tuple[Path, bool]:
        """Return the folder of a run, and whether it was made now: `keep` brings it to the disk.

        Raises:
            InvalidName: the id or the project is not legal.
            AlreadyExists: a run of another project has this id.
        """
        check_run_id(run_id)
        target = self._runs / folder_name(check_name(project, "project")) / run_id
        with self._lock(run_id):
            for standing in self._runs.glob(f"*/{run_id}"):
                if standing != target or standing.is_symlink():
                    raise AlreadyExists(f"a run of another project has the id {run_id!r}")
                return target, False
            target.mkdir(parents=True)
        return target, True

    def keep(self, folders: Iterable[Path]) -> None:
        """Bring folders that were made to the disk, before somebody is told of them.

        Raises:
            OSError: the disk refuses.
        """
        for parent in {folder.parent for folder in folders}:
            sync_folder(parent)

    def land(self, folder: Path, parcel: Parcel) -> Landed:
        """Write a parcel; nothing of it is written where a piece cannot be.

        Raises:
            OtherBytes: a piece says something else than what is here, or does not follow it.
            InvalidValue, InvalidName: it is not what a run's file holds.
            FormatError: a newer version wrote it.
            RunNotFound: the run is gone.
            OSError: the disk refuses; what was written is as whole as before.
        """
        with self._lock(folder.name), _opened(folder) as directory:
            check = _Check(folder, directory, self._names_of)
            for piece in parcel.pieces:
                check.piece(piece)
            for report in parcel.writers:
                check.report(report)
            self._begin_attempt(folder, check)
            if parcel.pieces:
                unmark(folder)
            sizes = {piece.file: _write(folder, directory, piece) for piece in parcel.pieces}
            for name in parcel.gone:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=directory)
            has_changed = any(kind_of(piece.file) in (Kind.JOURNAL, Kind.WHOLE) for piece in parcel.pieces)
            for report in parcel.writers:
                has_changed |= self._note(folder, directory, report)
        if has_changed:
            announce(folder)
        return Landed(sizes, stop_word(folder))

    def state(self, folder: Path) -> dict[str, FileState]:
        """Return what is here of a run that a client may have sent."""
        return {name: _state_of(folder / name) for name in names_in(folder)}

    def finish(self, folders: Iterable[Path]) -> dict[Path, dict[str, FileState]]:
        """Bring runs to the disk and return what is here of each: the client forgets them then.

        Args:
            folders: Of the runs; those that are gone are left out.

        Raises:
            OSError: the disk refuses.
        """
        found = {}
        for folder in folders:
            with self._lock(folder.name):
                if folder.is_dir():
                    found[folder] = self.state(folder)
        _sync_all(found)  # after they were read: what is told is on the disk
        for folder in found:
            announce(folder)
        return found

    def note_whole(self, folder: Path) -> None:
        """Note that the client compared a run, and has seen that all of it is here.

        Raises:
            OSError: the disk refuses.
        """
        with self._lock(folder.name):
            mark_whole(folder)

    def sealed_writers(self, folder: Path) -> set[str]:
        """Return the writers whose metric logs were put into one file here: they need not be sent."""
        return _sealed_writers(folder)

    def _names_of(self, folder: Path, writer: str) -> _Known:
        """Return which ids of metrics a writer has given, as far as its file is here."""
        with self._known_lock:
            known = self._known.pop((folder.name, writer), None) or _Known()
            self._known[(folder.name, writer)] = known
            while len(self._known) > _TABLES_KEPT:
                self._known.popitem(last=False)
        path = folder / f"{writer}.keys"
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < known.end:
                known.ids, known.end = set(), 0  # a run of this id was removed, and came again
            file.seek(known.end)
            keys = fmt.unpack_keys(file.read())
            known.ids.update(keys.ids)
            known.end += keys.end
        return known

    def _begin_attempt(self, folder: Path, check: _Check) -> None:
        """Take back the stop word where a new attempt begins: what the one before was asked is not asked of it."""
        if not check.new_attempts or not any(kind_of(name) is Kind.JOURNAL for name in names_in(folder)):
            return
        before = [writer.attempt for writer in read_journal(folder).writers if writer.role in ("main", "launcher")]
        if max(check.new_attempts) > max(before, default=0):
            clear_stop(folder)

    def _note(self, folder: Path, directory: int, report: WriterReport) -> bool:
        """Write the status of a writer; return whether it changed otherwise than by a heartbeat."""
        name = f"{report.writer}.status"
        try:
            before = (folder / name).read_bytes()[fmt.STATUS_END_OFFSET :]
        except FileNotFoundError:
            before = b""
        write_copied_status(
            directory,
            name,
            beat=self._clock() - report.age_s,
            is_alive=report.is_alive,
            dropped=report.dropped,
            word=report.word,
            is_spilled=report.is_spilled,
        )
        return before != (folder / name).read_bytes()[fmt.STATUS_END_OFFSET :]

    def _lock(self, run_id: str) -> threading.Lock:
        return self._locks[hash(run_id) % _LOCKS]


class _Check:
    """Looks at the pieces of a parcel, in their order, as if those before were written."""

    def __init__(self, folder: Path, directory: int, names_of: Callable[[Path, str], _Known]) -> None:
        self._folder = folder
        self._directory = directory
        self._names_of = names_of
        self._there = set(names_in(folder))
        self._sizes: dict[str, int] = {}
        self._fresh_names: dict[str, set[int]] = {}
        self._headers: dict[str, fmt.SegmentHeader] = {}
        self._sealed: set[str] | None = None
        self.new_attempts: list[int] = []

    def piece(self, piece: Piece) -> None:
        """Check one piece; raises as `Landing.land` does."""
        kind = kind_of(piece.file)
        if piece.file not in self._there and len(self._there) >= _MOST_FILES:
            raise InvalidValue(f"a run has at most {_MOST_FILES:,} files")
        size = self._size(piece.file)
        if kind is Kind.WHOLE:
            self._whole(piece)
            return
        if piece.offset > size:
            told = f"{piece.file}: a piece at {piece.offset} lies behind the end of what is here, {size}"
            raise OtherBytes(told)
        writer = writer_of(piece.file)
        if kind is Kind.JOURNAL:
            self._journal(piece, writer or "")
        else:
            self._known_writer(writer)
        if kind is Kind.SLOTS:
            self._slots(piece, writer or "")
        elif kind is Kind.KEYS:
            self._keys(piece, writer or "")
        if kind in (Kind.SLOTS, Kind.KEYS, Kind.SIDE) and writer in self._sealed_here():
            raise OtherBytes(f"{piece.file}: the metrics of this writer are sealed here")
        self._same(piece, kind, size)
        self._there.add(piece.file)
        end = piece.offset + len(piece.data)
        self._sizes[piece.file] = piece.end if piece.end is not None else max(size, end)

    def report(self, report: WriterReport) -> None:
        """Check what is said of a writer."""
        self._known_writer(report.writer)

    def _known_writer(self, writer: str | None) -> None:
        if writer is not None and f"journal.{writer}.jsonl" not in self._there:
            raise InvalidValue(f"the writer {writer} has no journal: send that first")

    def _size(self, name: str) -> int:
        if name not in self._sizes:
            try:
                self._sizes[name] = os.stat(name, dir_fd=self._directory, follow_symlinks=False).st_size
            except FileNotFoundError:
                self._sizes[name] = 0
        return self._sizes[name]

    def _same(self, piece: Piece, kind: Kind | None, size: int) -> None:
        """Refuse other bytes than those that are here; free slots and gaps may be filled."""
        standing = _read(self._directory, piece.file, piece.offset, min(len(piece.data), size - piece.offset))
        if standing == piece.data[: len(standing)]:
            return
        if kind is Kind.CONSOLE and piece.offset >= size - CONSOLE_END_BYTES:
            return
        if kind in _FILLED and _fits(standing, piece.data[: len(standing)], piece.offset, kind):
            return
        raise OtherBytes(f"{piece.file}: what is sent for byte {piece.offset} is not what is here")

    def _journal(self, piece: Piece, writer: str) -> None:
        if piece.offset == 0:
            first = fmt.decode_events(piece.data[: piece.data.find(b"\n") + 1])
            if not first or first[0]["event"] != "writer" or first[0].get("writer") != writer:
                raise InvalidValue(f"{piece.file} does not begin by saying whose it is")
            version, role, attempt = first[0].get("format"), first[0].get("role"), first[0].get("attempt")
            if type(version) is not int or version > fmt.FORMAT:
                raise FormatError(
                    f"{piece.file} has format {version!r:.20}; this server knows {fmt.FORMAT}: upgrade it"
                )
            if role not in _ROLES or type(attempt) is not int or not 0 <= attempt < 1 << 31:
                raise InvalidValue(f"{piece.file} is of a writer that none can be")
            if role in ("main", "launcher") and piece.file not in self._there:
                self.new_attempts.append(attempt)
        for event in fmt.decode_events(self._rest_of_line(piece) + piece.data):
            if event["event"] == "created":
                self._created(event)

    def _rest_of_line(self, piece: Piece) -> bytes:
        """Return what is here of the line in which a piece begins."""
        found, at = b"", piece.offset
        while at > 0 and b"\n" not in found:
            start = max(0, at - _READ_BYTES)
            found, at = _read(self._directory, piece.file, start, at - start) + found, start
        return found[found.rfind(b"\n") + 1 :]

    def _created(self, event: dict[str, Any]) -> None:
        project = event.get("project")
        if event.get("run_id") != self._folder.name:
            raise InvalidValue(f"a journal of run {self._folder.name} tells of another run")
        if not isinstance(project, str) or folder_name(check_name(project, "project")) != self._folder.parent.name:
            raise InvalidValue(f"a journal of run {self._folder.name} tells of another project")

    def _slots(self, piece: Piece, writer: str) -> None:
        header = self._header(piece, writer)
        start = fmt.HEADER_BYTES if piece.offset == 0 else 0
        if piece.offset and (piece.offset < fmt.HEADER_BYTES or (piece.offset - fmt.HEADER_BYTES) % fmt.SLOT_BYTES):
            raise InvalidValue(f"{piece.file}: a piece begins inside of a slot")
        if (len(piece.data) - start) % fmt.SLOT_BYTES:
            raise InvalidValue(f"{piece.file}: slots have {fmt.SLOT_BYTES} bytes")
        if piece.offset + len(piece.data) > fmt.HEADER_BYTES + header.slots * fmt.SLOT_BYTES:
            raise InvalidValue(f"{piece.file} has {header.slots} slots, and no more")
        slots = np.frombuffer(piece.data, SLOT, (len(piece.data) - start) // fmt.SLOT_BYTES, start)
        used = slots["commit"] == header.salt
        if not (used | (slots["commit"] == 0)).all():
            raise InvalidValue(f"{piece.file}: a slot is torn")
        ids = set(np.unique(slots["key"][used]).tolist())
        unknown = ids - self._names_of(self._folder, writer).ids - self._fresh_names.get(writer, set())
        if unknown:
            raise InvalidValue(f"{piece.file}: the metric {min(unknown)} has no name")

    def _header(self, piece: Piece, writer: str) -> fmt.SegmentHeader:
        if piece.offset and piece.file in self._headers:
            return self._headers[piece.file]
        data = piece.data if piece.offset == 0 else _read(self._directory, piece.file, 0, fmt.HEADER_BYTES)
        header = fmt.unpack_header(data[: fmt.HEADER_BYTES]) if len(data) >= fmt.HEADER_BYTES else None
        if header is None or not header.salt or not 0 < header.slots <= fmt.MOST_SLOTS:
            raise InvalidValue(f"{piece.file} does not begin as a metric log does")
        if header.writer.hex() != writer or header.seq != seq_of(piece.file):
            raise InvalidValue(f"{piece.file} is the log of another writer, or another part of it")
        self._headers[piece.file] = header
        return header

    def _keys(self, piece: Piece, writer: str) -> None:
        keys = fmt.unpack_keys(piece.data)
        if keys.end != len(piece.data):
            raise InvalidValue(f"{piece.file} does not hold whole names")
        for key, kind, name in zip(keys.ids, keys.kinds, keys.names, strict=True):
            if not 0 < key < 1 << 31 or kind >= fmt.TYPES:
                raise InvalidValue(f"{piece.file}: a metric of a type that this server does not know")
            check_name(name, "metric")
        self._fresh_names.setdefault(writer, set()).update(keys.ids)

    def _whole(self, piece: Piece) -> None:
        writer = writer_of(piece.file)
        self._known_writer(writer)
        if piece.offset:
            return  # the part of it that is here already is looked at when it is written
        if piece.file == SEALED and _sealed_writers(self._folder) and not self._is_here(piece):
            told = "the metrics of this run are sealed here; fetch the run before it is sealed again"
            raise OtherBytes(f"{piece.file}: {told}")

    def _is_here(self, piece: Piece) -> bool:
        return _state_of(self._folder / piece.file).hash == piece.hash

    def _sealed_here(self) -> set[str]:
        if self._sealed is None:
            self._sealed = _sealed_writers(self._folder) if SEALED in self._there else set()
        return self._sealed


def _write(folder: Path, directory: int, piece: Piece) -> int:
    """Write a piece that was checked; return the size of the file."""
    mode = 0o600 if is_private(piece.file) else 0o644
    if kind_of(piece.file) is Kind.WHOLE:
        return _write_whole(folder, directory, piece, mode)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(piece.file, flags, mode, dir_fd=directory)
    try:
        size = os.fstat(fd).st_size
        if kind_of(piece.file) in _FILLED:
            _fill(fd, piece)
        else:
            _write_all(fd, piece.data, piece.offset)
        end = piece.offset + len(piece.data)
        if piece.end is not None and piece.end < size:
            os.ftruncate(fd, piece.end)
            return piece.end
        return max(size, end)
    finally:
        os.close(fd)


def _fits(standing: bytes, data: bytes, offset: int, kind: Kind) -> bool:
    """Return whether bytes only fill what is free here, or are free where something is here."""
    if kind is Kind.SLOTS:
        start = max(0, fmt.HEADER_BYTES - offset)
        if standing[:start] != data[:start] or len(standing[start:]) % fmt.SLOT_BYTES:
            return False
        before = np.frombuffer(standing[start:], np.uint8).reshape(-1, fmt.SLOT_BYTES)
        now = np.frombuffer(data[start:], np.uint8).reshape(-1, fmt.SLOT_BYTES)
        is_same = (before == now).all(axis=1)
        return bool((is_same | ~before.any(axis=1) | ~now.any(axis=1)).all())
    one, other = np.frombuffer(standing, np.uint8), np.frombuffer(data, np.uint8)
    return not ((one != other) & (one != 0) & (other != 0)).any()


def _fill(fd: int, piece: Piece) -> None:
    """Write what is not here yet: a late copy of the same must not free what is filled here."""
    standing = os.pread(fd, len(piece.data), piece.offset)
    if standing == piece.data[: len(standing)]:
        _write_all(fd, piece.data[len(standing) :], piece.offset + len(standing))
        return
    now = np.frombuffer(bytearray(piece.data), np.uint8)
    now[: len(standing)] |= np.frombuffer(standing, np.uint8)
    _write_all(fd, now.tobytes(), piece.offset)


def _write_whole(folder: Path, directory: int, piece: Piece, mode: int) -> int:
    """Write a part of a file that takes its place when all of it is there, and is what it was said to be."""
    if _state_of(folder / piece.file).hash == piece.hash:
        return piece.end or 0
    partial = f"{piece.file}.{(piece.hash or '')[:32]}.partial"
    fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=directory)
    try:
        size = os.fstat(fd).st_size
        if piece.offset > size:
            raise OtherBytes(f"{piece.file}: a piece at {piece.offset} lies behind the end of what is here, {size}")
        _write_all(fd, piece.data, piece.offset)
        size = max(size, piece.offset + len(piece.data))
        if size < (piece.end or 0):
            return size
        os.fdatasync(fd)
    finally:
        os.close(fd)
    try:
        if _state_of(folder / partial).hash != piece.hash:
            raise OtherBytes(f"{piece.file}: what came is not what it was said to be")
        if piece.file == SEALED:
            _take_sealed(folder, partial)
        else:
            os.replace(partial, piece.file, src_dir_fd=directory, dst_dir_fd=directory)
    except (InvalidValue, FormatError, AlreadyExists):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial, dir_fd=directory)
        raise
    return size


def _take_sealed(folder: Path, partial: str) -> None:
    """Let sealed metrics take their place; the logs that are in them go."""
    trial = folder / f".{os.urandom(8).hex()}.sealed.partial"
    trial.mkdir()
    try:
        (folder / partial).rename(trial / SEALED)
        try:
            writers = SealedMetrics(trial).writers
        finally:
            (trial / SEALED).rename(folder / partial)
    finally:
        trial.rmdir()
    unknown = [one for one in writers if not (folder / f"journal.{one}.jsonl").exists()]
    if unknown:
        raise InvalidValue(f"{SEALED} has points of the writer {unknown[0][:40]!r}, which has no journal")
    with alone(folder) as is_alone:
        if not is_alone:
            raise OtherBytes("the run is being sealed here; try again")
        (folder / partial).replace(folder / SEALED)
        for derived in (LEVELS, BLOCKS):
            (folder / derived).unlink(missing_ok=True)
        write_levels(folder)
        write_blocks(folder)
        for name in names_in(folder):
            if kind_of(name) in (Kind.SLOTS, Kind.KEYS, Kind.SIDE) and writer_of(name) in writers:
                (folder / name).unlink(missing_ok=True)


def _sealed_writers(folder: Path) -> set[str]:
    try:
        return set(SealedMetrics(folder).writers)
    except (FileNotFoundError, FormatError):
        return set()


def _state_of(path: Path) -> FileState:
    hasher, size = blake3(), 0
    with (
        contextlib.suppress(OSError),
        os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file,
    ):
        while data := file.read(_READ_BYTES):
            hasher.update(data)
            size += len(data)
    return FileState(size, hasher.hexdigest())


def _sync_all(folders: Iterable[Path]) -> None:
    """Bring all files of some folders, and their names, to the disk."""
    paths = [str(path) for folder in folders for path in (*folder.iterdir(), folder)]
    if paths:
        with ThreadPoolExecutor(min(_SYNCED_AT_ONCE, len(paths)), "runstone-sync") as pool:
            list(pool.map(_sync, paths))


def _sync(path: str) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # sealed meanwhile, by who brings to the disk what takes its place
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems refuse it for folders
            raise
    finally:
        os.close(fd)


def _read(directory: int, name: str, offset: int, size: int) -> bytes:
    if size <= 0:
        return b""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return b""
    try:
        return os.pread(fd, size, offset)
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise RunNotFound(f"there is no run {folder.name!r}") from None
    try:
        yield fd
    finally:
        os.close(fd)
