"""The record of a sweep on disk: append-only JSON lines with a checksum each. Knows no meaning of an event.

A file has one writer. A writer that could not finish a line never continues its file: it goes on in a
new one. Events carry a sequence number that orders them over all files of a sweep.
"""

from __future__ import annotations

import errno
import json
import math
import os
import threading
import time
import uuid
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runstone import FormatError, RunstoneError

FORMAT = 1
# An event that comes so many times later than a sync is due comes alone.
_ALONE = 3.0
_CHECKSUM_LENGTH = len(',"crc":"00000000"}')

Event = dict[str, Any]


class RecordNotWritten(RunstoneError, OSError):
    """The record of a sweep takes no more events: the disk is full, or gone."""


class Journal:
    """Appends events to the record of one sweep. Whoever holds the sweep's lock may have one.

    Every event that `append` returned for survives the death of the process. With `is_durable` it survives
    that of the machine: at once where it comes alone; where such events come one after the other, from the end of the
    next `sync` that is due on, which a thread does meanwhile.

    Args:
        folder: The sweep's files.
        next_seq: Number of the next event.
        sync_every_s: Seconds between two writes to the disk itself, where events come faster; 0: each at once.
    """

    def __init__(self, folder: Path, *, next_seq: int = 0, sync_every_s: float = 0.0) -> None:
        self._folder = folder
        self._next_seq = next_seq
        self._fd = -1
        self._sync_every_s = sync_every_s
        self._synced_s = -math.inf
        self._has_unsynced = False
        self._syncing: threading.Thread | None = None
        self._sync_error: OSError | None = None

    def append(self, event: Event, *, is_durable: bool = False) -> Event:
        """Write one event and return it with its sequence number.

        Raises:
            RecordNotWritten: it could not be written; the sweep must not go on as if it had been.
        """
        event = {**event, "seq": self._next_seq}
        try:
            self._write(event)
            self._next_seq += 1
        except OSError as error:
            raise self._not_written(error) from error
        self._has_unsynced |= is_durable
        self.sync()
        return event

    def sync(self) -> None:
        """Bring durable events to the disk, if there are some and the last time was long enough ago.

        Raises:
            RecordNotWritten: the disk does not take them.
        """
        try:
            self._raise_of_thread()
            waited_s = time.monotonic() - self._synced_s
            if not self._has_unsynced or self._syncing is not None or waited_s < self._sync_every_s:
                return
            if waited_s >= _ALONE * self._sync_every_s:
                self._sync_now()
            else:
                self._has_unsynced = False
                self._syncing = threading.Thread(
                    target=self._sync_beside, args=(self._fd,), name="runstone-sweep-sync", daemon=True
                )
                self._syncing.start()
        except OSError as error:
            raise self._not_written(error) from error

    def close(self) -> None:
        """Close the file; what was to be durable is."""
        if self._fd >= 0:
            try:
                self._raise_of_thread(waits=True)
                if self._has_unsynced:
                    self._sync_now()
            finally:
                fd, self._fd = self._fd, -1
                os.close(fd)

    def _raise_of_thread(self, *, waits: bool = False) -> None:
        """Take note of the end of the thread that syncs, and of its trouble."""
        if self._syncing is not None and (waits or not self._syncing.is_alive()):
            self._syncing.join()
            self._syncing = None
        if self._sync_error is not None:
            error, self._sync_error = self._sync_error, None
            raise error

    def _sync_beside(self, fd: int) -> None:
        try:
            os.fsync(fd)
        except OSError as error:  # the next `sync` raises it
            self._sync_error = error
        # The time of its end: a slow disk must not be kept busy by nothing else.
        self._synced_s = time.monotonic()

    def _not_written(self, error: OSError) -> RecordNotWritten:
        why = error.strerror or str(error)
        return RecordNotWritten(
            f"the record of the sweep in {self._folder} takes no more events: {why}; its trials are stopped. "
            f"Make room, then `sweep resume {self._folder.name}` goes on"
        )

    def _sync_now(self) -> None:
        self._has_unsynced = False
        os.fsync(self._fd)
        self._synced_s = time.monotonic()

    def _write(self, event: Event) -> None:
        if self._fd < 0:
            self._open()
        line = encode(event)
        written = -1
        try:
            written = os.write(self._fd, line)
        finally:
            if written != len(line):
                # A disk that is full again takes the rest of no line: start a new file next time.
                self.close()
        if written != len(line):
            raise OSError(errno.ENOSPC, "the disk took only a part of it", str(self._folder))

    def _open(self) -> None:
        writer = uuid.uuid4().hex
        path = self._folder / f"journal.{writer}.jsonl"
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
        os.write(self._fd, encode({"event": "writer", "format": FORMAT, "writer": writer, "seq": self._next_seq}))


def json_number(value: float) -> float | str:
    """Return a float as an event keeps it: what JSON lacks is text."""
    return value if math.isfinite(value) else str(value)


def encode(event: Mapping[str, Any]) -> bytes:
    """Return an event as one line that ends with a checksum of all before it."""
    body = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")[:-1]
    return body + b',"crc":"%08x"}\n' % zlib.crc32(body)


def decode(line: bytes) -> Event | None:
    """Return the event of a line without its newline, or `None` where the line is not whole."""
    body = line[:-_CHECKSUM_LENGTH]
    if line[-_CHECKSUM_LENGTH:] != b',"crc":"%08x"}' % zlib.crc32(body):
        return None
    try:
        event = json.loads(body.decode("utf-8", "surrogatepass") + "}")
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("seq"), int) else None


def read_events(folder: Path) -> tuple[list[Event], int]:
    """Return all events of a sweep in order, and how many lines were damaged.

    A torn last line of a file is dropped and not counted: its writer died before it could say that the
    event is recorded.

    Raises:
        FormatError: a newer version wrote the record.
    """
    events: list[Event] = []
    damaged = 0
    for path in folder.glob("journal.*.jsonl"):
        for event in _lines(path):
            if event is None:
                damaged += 1
            elif event.get("event") == "writer":
                if event.get("format", 0) > FORMAT:
                    raise FormatError(f"{path} has format {event['format']}; this version reads up to {FORMAT}")
            else:
                events.append(event)
    events.sort(key=lambda event: event["seq"])
    return events, damaged


def _lines(path: Path) -> Iterator[Event | None]:
    *whole, torn = path.read_bytes().split(b"\n")
    for line in whole:
        yield decode(line)
    # The newline may be all that is missing; the checksum knows.
    if torn and (event := decode(torn)) is not None:
        yield event
