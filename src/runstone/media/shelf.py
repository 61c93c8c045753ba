"""Where media of a run go: bytes to the blobs, within limits; what is left out is counted."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from typing import Any

from runstone.blobs import Blobs
from runstone.errors import InvalidValue
from runstone.media.medium import Medium


class NoRoom(InvalidValue):
    """A medium beyond the limits of the run: told apart, so that it is warned of beside what else was unfit."""


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """How much media one process adds to a run; what is beyond is left out, told once, and counted.

    Attributes:
        bytes_each: Size of one medium.
        bytes_in_all: Of all of them.
        count_per_name: How many under one name.
        rows_per_table: Rows of a table; further ones are cut off.
    """

    bytes_each: int = 256 << 20
    bytes_in_all: int = 20 << 30
    count_per_name: int = 10_000
    rows_per_table: int = 1_000_000


class Shelf:
    """Stores the media of one writer of a run.

    Args:
        blobs: Where bytes go; `None` where nothing is recorded.
        writer: Whose media it counts.
        limits: How much of them there may be.
    """

    def __init__(self, blobs: Blobs | None, writer: bytes, limits: MediaLimits) -> None:
        self.writer = writer
        self.limits = limits
        self._blobs = blobs
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()
        self._bytes = 0

    @property
    def left_out(self) -> dict[str, int]:
        """How many media were not recorded, by name."""
        with self._lock:
            return dict(self._left_out)

    def leave_out(self, name: str) -> None:
        """Count a medium that is not recorded."""
        with self._lock:
            self._left_out[name] += 1

    def has_room(self, name: str) -> bool:
        """Return whether one more of this name may come; asked before it is made."""
        with self._lock:
            return self._counts[name] < self.limits.count_per_name and self._bytes < self.limits.bytes_in_all

    def put(self, name: str, medium: Medium) -> dict[str, Any]:
        """Store the bytes of a medium and return its record.

        Raises:
            InvalidValue: it is too large.
            OSError: the disk refuses.
        """
        record: dict[str, Any] = {"kind": medium.kind}
        if medium.content is not None and self._blobs is not None:
            size = len(medium.content) if isinstance(medium.content, bytes) else medium.content.stat().st_size
            if size > self.limits.bytes_each:
                raise NoRoom(
                    f"{medium.kind} {name!r:.80} has {size} bytes, at most {self.limits.bytes_each} are kept; "
                    "raise media_limits, or log it as an artifact"
                )
            if isinstance(medium.content, bytes):
                entry = self._blobs.put_bytes(medium.content, "")
            else:
                entry = self._blobs.put(medium.content, "")
            record |= {"hash": entry.hash, "size": entry.size_bytes, "name": medium.form}
        with self._lock:
            self._counts[name] += 1
            self._bytes += int(record.get("size", 0))
        return record | medium.metadata
