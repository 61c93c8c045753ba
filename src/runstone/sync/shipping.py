"""What is to be sent of one run: each byte once, in an order in which a reader there never sees what is not complete.

Names and texts go before the points that need them, points before the journal that may tell of the end, and that
before the word that its writer is gone. Files are read the other way round.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from runstone.blobs import Blobs
from runstone.errors import NotFound
from runstone.gc.holders import run_holder
from runstone.runlog import format as fmt
from runstone.runlog.liveness import is_alive, read_status
from runstone.runlog.reader import read_journal
from runstone.runlog.writer import request_stop, stop_word
from runstone.sync.client import Client, Refused
from runstone.sync.growing import Growing
from runstone.sync.kinds import Kind, kind_of, names_in, writer_of, writers_in
from runstone.sync.wire import PARCEL_BYTES, Parcel, Piece, WriterReport

BEAT_S = 5.0
_WORDS = {"stop": fmt.WORD_STOP, "prune": fmt.WORD_PRUNE}
_MOST_CONFLICTS = 5
_HASHES_AT_ONCE = 1_000
_CONTENT_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A parcel that is to be sent.

    Attributes:
        parcel: It.
        is_all: Whether all that is there was sent with it.
    """

    parcel: Parcel
    is_all: bool


class RunShipper:
    """Knows what a server has of one run, and what it is to be sent next.

    Args:
    Args:
        folder: Of the run.
        blobs: Where the content lies that it refers to.
        client: To the server.
        foreign: Writers whose files came from there.
        was_opened: Whether the server has had the run before: it is not made there once more.
        takes_words: Whether a stop word that the run gets there is brought here.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        folder: Path,
        blobs: Blobs,
        client: Client,
        *,
        foreign: frozenset[str] = frozenset(),
        was_opened: bool = False,
        takes_words: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder = folder
        self.project = ""
        self.is_open = False
        self.sent_bytes = 0
        self.content_bytes = 0
        self.content_count = 0
        self._blobs = blobs
        self._client = client
        self._foreign = foreign
        self._was_opened = was_opened
        self._takes_words = takes_words
        self._clock = clock
        self._growing: dict[str, Growing] = {}
        self._whole: dict[str, _WholeFile] = {}
        self._sealed: frozenset[str] = frozenset()
        self._boots: dict[str, str] = {}
        self._reported: dict[str, WriterReport] = {}
        self._beat_at = -1e18
        self._conflicts = 0
        self._consoles: set[str] = set()
        self._contents: _Contents | None = None
        self._referred_at: tuple[Any, ...] = ()

    @property
    def run_id(self) -> str:
        """The run."""
        return self.folder.name

    @property
    def is_living(self) -> bool:
        """Whether somebody on this host writes to it."""
        return any(self._is_alive(writer) for writer in self._writers())

    def hello(self) -> dict[str, Any] | None:
        """Return what the server is told of the run first, `None` where nobody has said yet what run it is.

        Raises:
            FormatError: a newer version wrote it.
        """
        if not self.project:
            self.project = read_journal(self.folder).project
        if not self.project:
            return None
        return {"run_id": self.run_id, "project": self.project, "was_here": self._was_opened}

    def opened(self, state: dict[str, Any]) -> None:
        """Take in what the server has of the run."""
        self._was_opened = self.is_open = True
        self._growing.clear()
        self._whole.clear()
        self._reported.clear()
        self._take_state(state)

    def next(self, *, beat_s: float = BEAT_S, most: int = PARCEL_BYTES) -> Outgoing | None:
        """Return what is to be sent next of a run that is open, `None` where there is nothing.

        Args:
            beat_s: After so many seconds a sign of life is to be sent, where nothing else is.
            most: Bytes of it, about.

        Raises:
            FormatError, OSError: its files cannot be read.
        """
        # Before the files: whoever is gone now has written all of them.
        reports = self._reports()
        parcel, is_all = self._collect(most, is_last=not any(one.is_alive for one in reports))
        told = [one for one in reports if one.is_alive or is_all]
        is_due = self._clock() - self._beat_at >= beat_s and any(one.is_alive for one in reports)
        has_news = any(self._reported.get(one.writer) != one for one in told)
        known = [one for one in told if self._is_known(one.writer, parcel)]
        if not parcel.pieces and not parcel.gone and not ((is_due or has_news) and known):
            return None
        return Outgoing(Parcel(parcel.pieces, known if is_due or has_news else (), parcel.gone), is_all)

    def took(self, parcel: Parcel, answer: dict[str, Any]) -> None:
        """Take in that the server has a parcel."""
        self.sent_bytes += parcel.size_bytes
        for piece in parcel.pieces:
            if piece.file in self._growing:
                self._growing[piece.file].took(piece)
            else:
                self._whole[piece.file].took(piece)
        if parcel.writers:
            self._beat_at = self._clock()
            self._reported.update({one.writer: one for one in parcel.writers})
        self._consoles -= set(parcel.gone)
        self._take_word(answer.get("stop"))

    def looks_again(self, error: Refused) -> bool:
        """Return whether a parcel that the server refused is to be made anew, from what it has by then."""
        self.is_open = False
        if error.status != 409 or self._conflicts >= _MOST_CONFLICTS:
            return False
        self._conflicts += 1  # something came there otherwise: look what is there
        return True

    def step_content(self) -> bool:
        """Send the next part of a content that the run refers to; return whether there was one."""
        stamp = tuple(_identity(self.folder / name) for name in names_in(self.folder) if _may_refer(name))
        if stamp != self._referred_at:
            held = run_holder(self.folder, [])
            wanted = sorted(one for one in (held.hashes if held is not None else ()) if one in self._blobs)
            self._contents = _Contents(self._client, self._blobs, self.project, wanted)
            self._referred_at = stamp
        if self._contents is None or not self._contents.step():
            return False
        self.content_bytes += self._contents.last_bytes
        self.content_count += self._contents.last_count
        return True

    @property
    def is_at_home(self) -> bool:
        """Whether nothing of the run lies elsewhere on this host: else that comes home before the run is whole."""
        return not any(one.is_spilled for one in self._reports())

    def is_same(self, state: dict[str, Any]) -> bool:
        """Return whether the server has everything; what it has otherwise is sent again.

        Args:
            state: What it has, on its disk.

        Raises:
            Refused: it has other bytes, time and again.
        """
        there = state["files"]
        self._sealed = frozenset(state["sealed"])
        is_same = True
        for name in self._names():
            told = there.get(name, {"size": 0, "hash": ""})
            if kind_of(name) is Kind.WHOLE:
                if _hash_of(self.folder / name) != told["hash"]:
                    self._whole.pop(name, None)
                    is_same = False
                continue
            growing = self._growing.setdefault(name, Growing(self.folder / name, kind_of(name) or Kind.WHOLE))
            end = growing.end()
            if not end and name not in there:
                continue
            if growing.prefix(end) != (end, told["hash"]) or end != told["size"]:
                self._growing[name] = Growing(self.folder / name, kind_of(name) or Kind.WHOLE)
                is_same = False
        if not is_same:
            self._conflicts += 1
            if self._conflicts > _MOST_CONFLICTS:
                raise Refused("the server has other bytes of this run than this machine", 409)
        return is_same

    # --- what there is to send ---------------------------------------------------------------------------------------

    def _collect(self, most: int, *, is_last: bool) -> tuple[Parcel, bool]:
        """Return the next parcel, and whether all that was there is in it, or was sent."""
        names = self._names()
        of = {kind: [name for name in names if kind_of(name) is kind] for kind in Kind}
        first: list[Piece] = []
        journals: list[Piece] = []
        is_all = True
        for name in of[Kind.JOURNAL]:
            growing = self._of(name, Kind.JOURNAL)
            is_new = not growing.sent
            piece, more = growing.next(most // 2)
            if piece is None:
                continue
            if is_new and (opening := _opening(piece)) != piece:
                first.append(opening)  # the rest of it waits until what it tells of is there
                is_all = False
            elif is_new:
                first.append(piece)
            else:
                journals.append(piece)
            is_all = is_all and not more
        known = {*(name for name in of[Kind.JOURNAL] if self._growing[name].sent), *(one.file for one in first)}
        room = most - sum(len(piece.data) for piece in first)

        def take(kinds: tuple[Kind, ...], room: int) -> tuple[list[Piece], bool]:
            found: list[Piece] = []
            has_more = False
            for kind in kinds:
                for name in of[kind]:
                    writer = writer_of(name)
                    if writer is not None and f"journal.{writer}.jsonl" not in known:
                        has_more = True
                        continue
                    left = room - sum(len(one.data) for one in found)
                    if left <= fmt.HEADER_BYTES:
                        has_more = True
                        break
                    piece, more = self._of(name, kind).next(left, is_last=is_last)
                    found += [piece] if piece is not None else []
                    has_more = has_more or more
            return found, has_more

        slots, more_slots = take((Kind.SLOTS,), room // 2)
        beside, more_beside = take((Kind.KEYS, Kind.SIDE), room // 2)
        if more_beside:
            slots, more_slots = [], True  # their names and texts first
        rest, more_rest = take((Kind.CONSOLE,), room // 8)
        whole = []
        for name in of[Kind.WHOLE]:
            if writer_of(name) is None or f"journal.{writer_of(name)}.jsonl" in known:
                piece = self._whole.setdefault(name, _WholeFile(self.folder / name)).next()
                whole += [piece] if piece is not None else []
        is_all = is_all and not (more_slots or more_beside or more_rest or whole)
        gone = sorted(self._consoles - set(of[Kind.CONSOLE]))
        self._consoles |= set(of[Kind.CONSOLE])
        if more_slots or more_beside:
            journals = []
            is_all = False
        return Parcel([*first, *beside, *slots, *rest, *whole[:1], *journals], (), gone), is_all

    def _names(self) -> list[str]:
        names = [name for name in names_in(self.folder) if writer_of(name) not in self._foreign]
        if not self._sealed:
            return names
        metrics = (Kind.SLOTS, Kind.KEYS, Kind.SIDE)
        return [name for name in names if kind_of(name) not in metrics or writer_of(name) not in self._sealed]

    def _of(self, name: str, kind: Kind) -> Growing:
        if name not in self._growing:
            self._growing[name] = Growing(self.folder / name, kind)
        return self._growing[name]

    def _take_state(self, state: dict[str, Any]) -> None:
        self._sealed = frozenset(state["sealed"])
        there = state["files"]
        for name in self._names():
            kind, told = kind_of(name), there.get(name)
            if kind is Kind.WHOLE or kind is None:
                self._whole[name] = _WholeFile(self.folder / name, there=told["hash"] if told else "")
            elif told:
                self._of(name, kind).resume(told["size"], told["hash"], lambda growing, size: growing.prefix(size)[1])

    def _take_word(self, word: str | None) -> None:
        if not self._takes_words or word not in _WORDS or stop_word(self.folder) == word:
            return
        living = [writer for writer in self._writers() if self._is_alive(writer)]
        # One that the server does not know yet may be of a new attempt, and the word for the one before.
        if living and all(self._is_known(writer, Parcel()) for writer in living):
            request_stop(self.folder, _WORDS[word])

    # --- who writes --------------------------------------------------------------------------------------------------

    def _writers(self) -> list[str]:
        return [writer for writer in writers_in(self.folder) if writer not in self._foreign]

    def _is_alive(self, writer: str) -> bool:
        if writer not in self._boots:
            with contextlib.suppress(OSError, ValueError), (self.folder / f"journal.{writer}.jsonl").open("rb") as file:
                self._boots[writer] = str(json.loads(file.readline(1 << 16)).get("boot_id", ""))
        return is_alive(self.folder / f"{writer}.status", self._boots.get(writer, ""), self._clock())

    def _reports(self) -> list[WriterReport]:
        found = []
        for writer in self._writers():
            alive = self._is_alive(writer)
            status = read_status(self.folder / f"{writer}.status")
            if status is None:
                found.append(WriterReport(writer, alive))
                continue
            before = self._reported.get(writer)
            # Of one that is gone, once: when it was seen last, by the clocks of this host.
            age = 0.0 if alive else before.age_s if before and not before.is_alive else self._clock() - status.beat
            age = min(max(0.0, round(age, 3)), 1e8)
            found.append(WriterReport(writer, alive, age, status.dropped, status.word, status.is_spilled))
        return found

    def _is_known(self, writer: str, parcel: Parcel) -> bool:
        name = f"journal.{writer}.jsonl"
        growing = self._growing.get(name)
        return bool(growing and growing.sent) or any(piece.file == name for piece in parcel.pieces)


class _WholeFile:
    """A file that was renamed into its place and may be replaced."""

    def __init__(self, path: Path, *, there: str = "") -> None:
        self._path = path
        self._there = there
        self._identity: tuple[int, int, int] = (0, 0, 0)
        self._hash = ""
        self._size = 0
        self._offset = 0

    def next(self) -> Piece | None:
        """Return the next piece of it; `None` where the other side has all of it."""
        identity = _identity(self._path)
        if identity == (0, 0, 0):
            return None
        if identity != self._identity:
            self._hash, self._size = _hash_of(self._path), identity[2]
            self._offset = 0
            self._identity = identity
        if self._hash == self._there:
            return None
        with contextlib.suppress(OSError), self._path.open("rb") as file:
            file.seek(self._offset)
            return Piece(self._path.name, self._offset, file.read(PARCEL_BYTES // 2), self._size, self._hash)
        return None

    def took(self, piece: Piece) -> None:
        """Note that the other side has a piece."""
        self._offset = piece.offset + len(piece.data)
        if self._offset >= self._size:
            self._there = self._hash
            self._offset = 0


class _Contents:
    """Contents that the other side may lack, one after the other."""

    def __init__(self, client: Client, blobs: Blobs, project: str, hashes: list[str]) -> None:
        self._client = client
        self._blobs = blobs
        self._project = project
        self._unasked = hashes
        self._missing: list[tuple[str, int]] = []
        self._conflicts = 0
        self.last_bytes = self.last_count = 0

    def step(self) -> bool:
        """Send one part; return whether there was one."""
        self.last_bytes = self.last_count = 0
        while not self._missing and self._unasked:
            some = self._unasked[:_HASHES_AT_ONCE]
            answer = self._client.post("/api/sync/contents", {"project": self._project, "hashes": some})
            self._unasked = self._unasked[_HASHES_AT_ONCE:]
            self._missing = [(one["hash"], one["offset"]) for one in answer["missing"]]
        if not self._missing:
            return False
        content, offset = self._missing[0]
        try:
            size = self._blobs.size(content)
            with self._blobs.open(content) as file:
                file.seek(offset)
                data = file.read(_CONTENT_BYTES)
        except (NotFound, OSError):
            self._missing.pop(0)
            return True
        try:
            answer = self._client.post(
                f"/api/sync/contents/{content}", data, project=self._project, offset=offset, size=size
            )
        except Refused as error:
            if error.status != 409 or self._conflicts >= _MOST_CONFLICTS:
                raise
            self._conflicts += 1
            self._missing[0] = content, 0  # what was there of it went
            return True
        self.last_bytes = len(data)
        self.last_count = int(answer["is_complete"])
        if answer["is_complete"]:
            self._missing.pop(0)
        else:
            self._missing[0] = content, answer["size"]
        return True


def _opening(piece: Piece) -> Piece:
    """Return the beginning of a journal: whose it is, and what the run is."""
    end = piece.data.find(b"\n") + 1
    second = piece.data.find(b"\n", end) + 1
    if second and b'"event":"created"' in piece.data[end:second]:
        end = second
    return piece if end in (0, len(piece.data)) else Piece(piece.file, piece.offset, piece.data[:end])


def _may_refer(name: str) -> bool:
    return kind_of(name) in (Kind.JOURNAL, Kind.SIDE) or name.endswith(".parquet")


def _identity(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return found.st_ino, found.st_mtime_ns, found.st_size


def _hash_of(path: Path) -> str:
    hasher = blake3()
    with contextlib.suppress(OSError), path.open("rb") as file:
        while data := file.read(1 << 20):
            hasher.update(data)
    return str(hasher.hexdigest())


def print_of(folder: Path) -> list[list[Any]]:
    """Return what tells whether the files of a run changed: their names, sizes and times."""
    found = []
    for name in names_in(folder):
        with contextlib.suppress(OSError):
            status = os.stat(folder / name)  # noqa: PTH116 (many)
            found.append([name, status.st_size, status.st_mtime_ns])
    return found
