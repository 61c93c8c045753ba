"""What a sweep that runs elsewhere has come to: follows its record, and reads each line of it once."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from runstone import FormatError
from runstone_sweeps.record import SweepRecord
from runstone_sweeps.record.journal import FORMAT, Event, decode
from runstone_sweeps.spec import SweepSpec
from runstone_sweeps.store.sweeps import SweepFolder, recorded_spec


class RecordFollower:
    """Reads the record of a sweep as it grows. Takes no lock and holds no file open.

    Attributes:
        record: What the events that were read come down to; a new object after one came behind later ones.

    Args:
        folder: The sweep's files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._offsets: dict[Path, int] = {}
        self.record = SweepRecord()

    def poll(self) -> list[Event]:
        """Take in what was written since the last time, and return these events in order.

        Where one of them comes before those that were read earlier, all are read and returned again.

        Raises:
            FormatError: a newer version wrote the record.
        """
        new = self._read_new()
        if new and new[0]["seq"] < self.record.next_seq:
            self.record, self._offsets = SweepRecord(), {}
            new = self._read_new()
        for event in new:
            self.record.apply(event)
        return new

    def _read_new(self) -> list[Event]:
        found = [event for path in self._folder.glob("journal.*.jsonl") for event in self._read(path)]
        return sorted(found, key=lambda event: int(event["seq"]))

    def _read(self, path: Path) -> list[Event]:
        """Return the events of the lines that are whole; one that is not yet is read again the next time."""
        offset = self._offsets.get(path, 0)
        with path.open("rb") as file:
            if file.seek(0, 2) <= offset:
                return []
            file.seek(offset)
            *lines, rest = file.read().split(b"\n")
        offset += sum(len(line) + 1 for line in lines)
        if rest and decode(rest) is not None:  # only the newline is missing, and may stay so
            lines.append(rest)
            offset += len(rest)
        self._offsets[path] = offset
        events = []
        for event in filter(None, map(decode, lines)):
            if event.get("event") != "writer":
                events.append(event)
            elif event.get("format", 0) > FORMAT:
                raise FormatError(f"{path} has format {event['format']}; this version reads up to {FORMAT}")
        return events


class Followed:
    """A sweep whose record is read on where it was left. As a context manager it holds the record still.

    Attributes:
        folder: Its files.
    """

    def __init__(self, folder: SweepFolder) -> None:
        self.folder = folder
        self._follower = RecordFollower(folder.path)
        self._lock = threading.Lock()
        self._spec: tuple[object, SweepSpec] | None = None

    def __enter__(self) -> Self:
        """Take in what is new."""
        self._lock.acquire()
        try:
            self._follower.poll()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let others have it."""
        self._lock.release()

    @property
    def record(self) -> SweepRecord:
        """What its events have come to."""
        return self._follower.record

    @property
    def spec(self) -> SweepSpec:
        """Its config as it was last edited."""
        if self._spec is None or self._spec[0] is not self.record.config:
            self._spec = self.record.config, recorded_spec(self.record, is_for_reading=True)
        return self._spec[1]
