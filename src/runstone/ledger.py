"""Append-only folders of events, one file each, with a hash chain: what a registry's history is made of.

Every event is a file `00000001.json`, `00000002.json`, … that appears whole or not at all and is never changed. Its
number is taken by an exclusive create, so of several writers that want the same one, on any host, one gets it and
the others look again at what was written before they take the next. No lock is needed for that, so nothing is ever
left locked, and `kill -9` at any point leaves a history that holds.

Each event carries its own hash and that of the event before it: a byte that is changed later, or an event that is
taken out, is found and named by `verify`. That the newest events were cut off, nobody can see from what is left; for
that, keep `Ledger.head` elsewhere and compare.
"""

from __future__ import annotations

import contextlib
import errno
import getpass
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runstone.errors import AlreadyExists, FormatError, RunstoneError

FORMAT = 1
_NUMBER = re.compile(r"(\d{8,})\.json")
_MARK = b',"hash":"'
# How long a reader waits for an event whose file is there but not whole, where files cannot be linked.
_PATIENCE_S = 2.0
# As many writers at once have to fail in a row before one gives up: each failure is another writer's success.
_TRIES = 10_000


class LedgerDamaged(FormatError):
    """An event of a ledger is not what was written."""


@dataclass(frozen=True, slots=True)
class LedgerEvent:
    """One event.

    Attributes:
        seq: Its number, counted from 1 without gaps.
        kind: What happened, such as `registered`.
        at: Seconds since the Unix epoch, UTC, by the clock of the writer; never before that of the event before it.
        by: Who wrote it: `user`, `host`, and `run` where a run did.
        fields: What else it says.
        hash: BLAKE3 of all of it, which the next event repeats.
    """

    seq: int
    kind: str
    at: float
    by: Mapping[str, str]
    fields: Mapping[str, Any]
    hash: str


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that `verify` found: the file, and what is wrong with it."""

    path: Path
    what: str


class Ledger:
    """The events of one folder.

    Keeps what it has read, so that asking again costs only what is new.

    Args:
        folder: Where they lie; made with the first event.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._events: list[LedgerEvent] = []

    @property
    def exists(self) -> bool:
        """Whether there is an event."""
        return bool(self._events) or self.path(1).exists()

    def events(self) -> Sequence[LedgerEvent]:
        """Return all events, in order.

        Raises:
            LedgerDamaged: one is not what was written, or does not follow from the one before it.
            FormatError: a newer version wrote one.
        """
        while (event := self._read_next()) is not None:
            self._events.append(event)
        return self._events

    @property
    def head(self) -> str:
        """The hash of the newest event, which stands for the whole history; empty where there is none."""
        events = self.events()
        return events[-1].hash if events else ""

    def append(
        self,
        kind: str,
        fields: Mapping[str, Any] | Callable[[Sequence[LedgerEvent]], Mapping[str, Any]],
        *,
        run_id: str | None = None,
        at: float | None = None,
    ) -> LedgerEvent:
        """Write the next event.

        Args:
            kind: What happened.
            fields: What it says, as JSON; or a function that gets all events so far, raises where the new one is not
                allowed after them, and returns what it says. It is called again whenever another writer was faster,
                so what it decided always held for the history that the event follows.
            run_id: The run that wrote it, if one did.
            at: When it happened, where that is not now (for what is brought in from elsewhere).

        Raises:
            LedgerDamaged: the history is damaged; nothing is added to it then.
            OSError: it could not be written; nothing is there then.
        """
        by = {"user": user_name(), "host": socket.gethostname(), **({"run": run_id} if run_id else {})}
        for attempt in range(_TRIES):
            before = self.events()
            said = fields(before) if callable(fields) else fields
            last = before[-1] if before else None
            seq = last.seq + 1 if last else 1
            # Clocks of several hosts differ; the order of the numbers is the order of the history.
            moment = max(time.time() if at is None else at, last.at if last else 0.0)
            event, data = _written(seq, kind, moment, by, said, last.hash if last else None)
            if self._create(self.path(seq), data):
                self._events.append(event)
                return event
            time.sleep(min(0.05, 0.0005 * (attempt + 1)) * (os.urandom(1)[0] / 255))
        raise RunstoneError(f"{self.folder}: {_TRIES} others wrote first, one after the other; try again")

    def path(self, seq: int) -> Path:
        """Return where an event lies, or would."""
        return self.folder / f"{seq:08d}.json"

    def take(self, data: bytes) -> bool:
        """Add the next event as it stands in another copy of this history; return whether it was not here.

        Args:
            data: The bytes of its file.

        Raises:
            LedgerDamaged: it is not what was written.
            FormatError: a newer version wrote it.
            AlreadyExists: this history went on otherwise, or events between are missing.
        """
        try:
            told = json.loads(data)["seq"]
            seq = int(told)
        except (ValueError, KeyError, TypeError, RecursionError):
            raise LedgerDamaged("this is no event of a history") from None
        event, previous = _parsed(data, seq)
        before = self.events()
        if 0 < seq <= len(before):
            if before[seq - 1].hash != event.hash:
                raise AlreadyExists(f"the history has another event {seq}: it went on here and there, each for itself")
            return False
        if seq != len(before) + 1 or previous != (before[-1].hash if before else None):
            raise AlreadyExists(f"event {seq} does not follow the {len(before)} that are here: it went on otherwise")
        if not self._create(self.path(seq), data):
            return self.take(data)  # another came first: the same, or another one
        return True

    def verify(self) -> list[Damage]:
        """Read every event from its file again and return what is wrong; empty where the history holds."""
        damages = []
        before: LedgerEvent | None = None
        numbers = self._numbers()
        for seq in range(1, max(numbers, default=0) + 1):
            path = self.path(seq)
            if seq not in numbers:
                damages.append(Damage(path, "the event is missing"))
                before = None
                continue
            try:
                event, previous = _parsed(path.read_bytes(), seq)
            except (LedgerDamaged, FormatError, OSError) as error:
                damages.append(Damage(path, str(error)))
                before = None
                continue
            if seq == 1 and previous is not None:
                damages.append(Damage(path, "it names an event before it, and is the first"))
            elif before is not None and previous != before.hash:
                damages.append(Damage(path, f"it follows another event than {self.path(seq - 1).name}"))
            elif before is not None and event.at < before.at:
                damages.append(Damage(path, f"it is older than {self.path(seq - 1).name}"))
            before = event
        return damages

    # --- files -----------------------------------------------------------------------------------------------------

    def _numbers(self) -> set[int]:
        try:
            names = [entry.name for entry in os.scandir(self.folder)]
        except FileNotFoundError:
            return set()
        return {int(match[1]) for name in names if (match := _NUMBER.fullmatch(name))}

    def _read_next(self) -> LedgerEvent | None:
        last = self._events[-1] if self._events else None
        seq = last.seq + 1 if last else 1
        path = self.path(seq)
        limit: float | None = None
        while True:
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                if not self.path(seq + 1).exists():
                    return None
                if path.exists():  # both came between the two looks
                    continue
                raise LedgerDamaged(f"{path} is missing, and later events are there") from None
            try:
                event, previous = _parsed(data, seq)
            except LedgerDamaged as error:
                # Where files cannot be linked, its writer may be between creating and writing it.
                limit = limit or time.monotonic() + _PATIENCE_S
                if data.endswith(b"\n") or time.monotonic() > limit:
                    raise LedgerDamaged(f"{path}: {error}") from None
                time.sleep(0.005)
                continue
            if previous != (last.hash if last else None):
                raise LedgerDamaged(f"{path}: it does not follow the event before it; one of the two was changed")
            return event

    def _create(self, path: Path, data: bytes) -> bool:
        """Make the file with all its content, or return `False` where it is there already."""
        if path.exists():  # before anything is written for nothing
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f".{os.urandom(12).hex()}.partial"
        try:
            with partial.open("xb", buffering=0) as file:
                _write_all(file.fileno(), data)
                os.fsync(file.fileno())
            try:
                os.link(partial, path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                    raise
                if not _create_in_place(path, data):
                    return False
        finally:
            with contextlib.suppress(FileNotFoundError):
                partial.unlink()
        _sync_folder(self.folder)
        return True


def ledgers(root: Path) -> Iterator[Path]:
    """Yield the folder of the events of every ledger under `root`, such as `models/<name>/events`, in order."""
    with contextlib.suppress(FileNotFoundError):
        for entry in sorted(os.scandir(root), key=lambda entry: entry.name):
            events = Path(entry.path, "events")
            # also where the first event is gone: then it is damaged, and must not be passed over
            if entry.is_dir(follow_symlinks=False) and any(events.glob("*.json")):
                yield events


def _written(
    seq: int, kind: str, at: float, by: Mapping[str, str], fields: Mapping[str, Any], previous: str | None
) -> tuple[LedgerEvent, bytes]:
    from blake3 import blake3  # a compiled module, only where a history is read or written

    content = {"format": FORMAT, "seq": seq, "event": kind, "at": at, "by": by, "previous": previous, **fields}
    if len(content) != 6 + len(fields):
        raise AssertionError(f"an event cannot have fields of these names: {sorted(fields)}")
    body = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()[:-1]
    content_hash = blake3(body).hexdigest()
    # as a reader will see it
    event, _ = _parsed(data := body + _MARK + content_hash.encode() + b'"}\n', seq)
    return event, data


def _parsed(data: bytes, seq: int) -> tuple[LedgerEvent, str | None]:
    """Return the event of a file and the hash that it says comes before it."""
    from blake3 import blake3

    body, mark, rest = data.rpartition(_MARK)
    if not mark or len(rest) != 67 or not rest.endswith(b'"}\n'):
        raise LedgerDamaged("it is not whole: its hash is missing")
    if blake3(body).hexdigest().encode() != rest[:64]:
        raise LedgerDamaged("it was changed: its content does not have the hash that it names")
    try:
        content = json.loads(body + b"}")
        if content["format"] > FORMAT:
            raise FormatError(f"it has format {content['format']}; this version reads {FORMAT}: update runstone")
        fixed = {key: content.pop(key) for key in ("format", "seq", "event", "at", "by", "previous")}
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerDamaged(f"it is not an event: {error}") from None
    if fixed["seq"] != seq:
        raise LedgerDamaged(f"it is event {fixed['seq']} under the number {seq}")
    event = LedgerEvent(
        seq=seq,
        kind=fixed["event"],
        at=float(fixed["at"]),
        by=fixed["by"],
        fields=content,
        hash=rest[:64].decode(),
    )
    return event, fixed["previous"]


def _create_in_place(path: Path, data: bytes) -> bool:
    """Do the same where the file system has no links; a reader may see a part of it for a moment."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        return False
    try:
        _write_all(fd, data)
        os.fsync(fd)
    except OSError:
        with contextlib.suppress(OSError):  # nobody followed it: a reader waits for its last byte
            path.unlink()
        raise
    finally:
        os.close(fd)
    return True


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system can
        fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


_acting: ContextVar[str | None] = ContextVar("runstone_acting", default=None)
"""On whose behalf this thread changes things; a server has one user of the system and many of its own."""


@contextlib.contextmanager
def acting_as(name: str) -> Iterator[None]:
    """Write events in the name of somebody else than who runs this, until the block ends."""
    token = _acting.set(name)
    try:
        yield
    finally:
        _acting.reset(token)


def user_name() -> str:
    """Return who runs this, or on whose behalf, as events name them."""
    acting = _acting.get()
    if acting is not None:
        return acting
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user without an entry
        return str(os.getuid())
