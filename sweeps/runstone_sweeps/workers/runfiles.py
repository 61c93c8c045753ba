"""The files of a run, as `docs/format.md` promises them: which names there are, whose each is, how it is written."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import struct
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

HEADER_BYTES, SLOT_BYTES = 4096, 32
STATUS_BYTES = 64
"""As much of a status file as says anything; the rest, up to 4096, is zero."""
_STATUS_FILE_BYTES = 4096
_STATE = struct.Struct("<I")
_STATE_AT, _OPEN, _ENDED = 32, 1, 2
_FLOCK = struct.Struct("@hhqqi4x")  # struct flock: l_type, l_whence, l_start, l_len, l_pid
_WRITER = "(?P<writer>[0-9a-f]{32})"
RUN_FOLDER = re.compile(r"[a-z0-9_~-]{1,96}/[a-z0-9_-]{1,64}")
"""Where a run lies below `runs/`."""
HASH = re.compile("[0-9a-f]{64}")


class Kind(Enum):
    """How a file is written, in the order in which files must arrive for a reader never to see what is not there yet.

    Names and side files before the slots that point to them, slots before the end in the journal, and the word that a
    writer has ended after all. They are read the other way round.
    """

    WHOLE = 0  # written beside and renamed
    CONSOLE = 1  # appended; what a program shows of its progress is written over at the end
    APPENDED = 2
    SIDE = 3  # frames, each at an offset; one may be there before the one in front of it
    SLOTS = 4  # slots, likewise
    JOURNAL = 5
    STATUS = 6  # in place


_KINDS = (
    (Kind.JOURNAL, re.compile(rf"journal\.{_WRITER}\.jsonl")),
    (Kind.STATUS, re.compile(rf"{_WRITER}\.status")),
    (Kind.SLOTS, re.compile(rf"{_WRITER}-[0-9]{{8}}\.wal")),
    (Kind.APPENDED, re.compile(rf"{_WRITER}\.keys")),
    (Kind.SIDE, re.compile(rf"{_WRITER}\.blob")),
    (Kind.CONSOLE, re.compile(rf"console\.{_WRITER}(?:\.[0-9]{{4,8}})?\.(?:log|times)")),
    (Kind.APPENDED, re.compile(r"console\.(?P<attempt>[0-9]{1,9})\.log")),
    (Kind.WHOLE, re.compile(rf"environment\.{_WRITER}\.json")),
    (Kind.WHOLE, re.compile(rf"code\.{_WRITER}\.patch")),
    (Kind.WHOLE, re.compile(r"metrics\.parquet")),
)
# What a run needs of its earlier attempts to go on.
SEEDED = frozenset({Kind.JOURNAL, Kind.STATUS, Kind.SLOTS, Kind.SIDE})


def kind_of(name: str) -> Kind | None:
    """Return how a file of a run is written; `None` where no run has a file of this name that is worth sending."""
    return next((kind for kind, pattern in _KINDS if pattern.fullmatch(name)), None)


def writer_of(name: str) -> str | None:
    """Return whose a file is, `None` where it is nobody's in particular."""
    for _kind, pattern in _KINDS:
        if match := pattern.fullmatch(name):
            return match.groupdict().get("writer")
    return None


def attempt_of(name: str) -> int | None:
    """Return of which attempt a file is the console, `None` where it is something else."""
    for _kind, pattern in _KINDS:
        if match := pattern.fullmatch(name):
            attempt = match.groupdict().get("attempt")
            return int(attempt) if attempt is not None else None
    return None


def names_in(folder: Path) -> list[str]:
    """Return the names of a run's files that are worth sending, none where it is not there."""
    try:
        names = os.listdir(folder)  # noqa: PTH208  # names are all that is needed
    except OSError:
        return []
    return sorted(name for name in names if kind_of(name) is not None)


def earlier_writers(folder: Path, attempt: int) -> set[str]:
    """Return the writers of a run whose files a new attempt must leave alone: launchers, edits, earlier attempts."""
    found = set()
    for name in names_in(folder):
        writer = writer_of(name)
        if kind_of(name) is not Kind.JOURNAL or writer is None:
            continue
        told = _first_line(folder / name)
        # One whose first line is not there yet has only just begun: it is of this attempt.
        if told and (told.get("role") in ("launcher", "edit") or told.get("attempt") != attempt):
            found.add(writer)
    return found


def _first_line(path: Path) -> dict[str, object]:
    with contextlib.suppress(OSError, ValueError), path.open("rb") as file:
        told = json.loads(file.readline(1 << 16))
        return told if isinstance(told, dict) else {}
    return {}


def close_writers(folder: Path, attempt: int) -> None:
    """Note that the writers of an attempt are gone: their host has no lock here that would tell, only a heartbeat."""
    earlier = earlier_writers(folder, attempt)
    for name in names_in(folder):
        if kind_of(name) is not Kind.STATUS or writer_of(name) in earlier:
            continue
        with contextlib.suppress(OSError):
            fd = os.open(folder / name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                state = os.pread(fd, _STATE.size, _STATE_AT)
                if len(state) == _STATE.size and _STATE.unpack(state)[0] == _OPEN:
                    os.pwrite(fd, _STATE.pack(_ENDED), _STATE_AT)
            finally:
                os.close(fd)


def pad_status(fd: int) -> None:
    """Bring a status file to its length."""
    if os.fstat(fd).st_size < _STATUS_FILE_BYTES:
        os.ftruncate(fd, _STATUS_FILE_BYTES)


def lock_status(fd: int) -> None:
    """Take the lock that a living writer has on its status file, as long as the file is open.

    Raises:
        OSError: another process has it, or the file system knows no locks.
    """
    if sys.platform == "linux":
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    else:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def seeds(folder: Path) -> Iterator[tuple[str, int, bytes]]:
    """Yield name, offset and bytes of what a new attempt on another host needs of a run, zeros at the end left out."""
    for name in names_in(folder):
        kind = kind_of(name)
        if kind not in SEEDED and not name.endswith((".keys", ".parquet")):
            continue
        with contextlib.suppress(OSError), (folder / name).open("rb") as file:
            offset = 0
            while data := file.read(1 << 18):
                kept = data.rstrip(b"\0") if kind is Kind.SLOTS else data
                if kept or not offset:
                    yield name, offset, kept
                offset += len(data)
