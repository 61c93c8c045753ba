"""Keeps what a run prints in its folder: text in files of bounded size, and when it was written beside it.

`console.<writer>.log` takes the first 8 MiB. What comes after goes to `console.<writer>.0001.log` and so on, 4 MiB
each, of which the last three stay: of a program that prints without end its beginning and its end are kept. Each has
a `.times` file: a header that tells where in the whole text it begins, then a record for each stretch of lines.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runstone.console.lines import Lines

MAGIC = b"\x89RSC\r\n\x1a\n"
HEADER = struct.Struct("<8sIIQ")
"""Magic, format 1, number of the part, bytes of the whole text before it."""
STRETCH = struct.Struct("<QdII")
"""Where it begins in its part, seconds since the epoch, stream (1: output, 2: errors, 3: both), 0."""

_SETTLED_S = 2.0
_SAME_S = 0.1
_MOST_WAITING_BYTES = 1 << 18
_TAIL_LINES, _TAIL_BYTES = 60, 8192


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of what a run prints is kept: bytes of the first part, of each later one, and how many of those."""

    first_bytes: int = 8 << 20
    part_bytes: int = 4 << 20
    parts: int = 3


class ConsoleStore:
    """The console of one writer of a run. May be fed by several threads.

    Nothing here raises: what the disk refuses is lost, and told by `trouble`.

    Args:
        run_path: Folder of the run.
        writer: Whose console it is, as it stands in names of files.
        bounds: How much is kept.
        clock: Seconds since the epoch.
    """

    def __init__(
        self, run_path: Path, writer: str, *, bounds: Bounds | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.trouble: OSError | None = None
        """What the disk said when it refused, if it did."""
        self._stem = run_path / f"console.{writer}"
        self._bounds = bounds or Bounds()
        self._clock = clock
        self._lock = threading.Lock()
        self._lines = Lines(self._take)
        self._tails: dict[int, deque[bytes]] = {}
        self._ready: list[bytes] = []
        self._ready_bytes = 0
        self._stretches: list[bytes] = []
        self._last = (0, float("-inf"))
        self._number = 0
        self._before = 0
        self._kept_parts: deque[int] = deque()
        self._text: int | None = None
        self._times: int | None = None
        self._size = 0
        self._is_changed = False
        self._is_closed = False

    def feed(self, stream: int, data: bytes) -> None:
        """Take what a stream wrote; it is on the disk after the next `flush`."""
        with self._lock:
            if self._is_closed:
                return
            self._lines.feed(stream, data, self._clock())
            self._is_changed = True
            if self._ready_bytes > _MOST_WAITING_BYTES:
                self._write()

    def flush(self) -> None:
        """Write what there is, the line that is being written included. To be called several times a second."""
        with self._lock:
            if self._is_changed and not self._is_closed:
                self._lines.settle(self._clock() - _SETTLED_S)
                self._write()

    def close(self) -> None:
        """Write all, and let go of the files."""
        with self._lock:
            if self._is_closed:
                return
            self._lines.close()
            self._write()
            self._is_closed = True
            for fd in (self._text, self._times):
                if fd is not None:
                    with contextlib.suppress(OSError):
                        os.close(fd)

    def tail(self, stream: int) -> str:
        """Return the last lines that a stream wrote, 8 KiB at most; without those that may still change."""
        with self._lock:
            data = b"".join(self._tails.get(stream, ()))
        return data[-_TAIL_BYTES:].decode("utf-8", "replace")

    # --- what is final ---------------------------------------------------------------------------------------------

    def _take(self, stream: int, data: bytes, at: float) -> None:
        tail = self._tails.setdefault(stream, deque(maxlen=_TAIL_LINES))
        tail.append(data[-_TAIL_BYTES:])
        limit = self._bounds.part_bytes if self._number else self._bounds.first_bytes
        if self._size + self._ready_bytes >= limit:
            self._write(with_pending=False)
            self._begin_part()
        last_stream, last_at = self._last
        if stream != last_stream or at - last_at >= _SAME_S:
            self._stretches.append(STRETCH.pack(self._size + self._ready_bytes, at, stream, 0))
            self._last = (stream, at)
        self._ready.append(data)
        self._ready_bytes += len(data)

    def _begin_part(self) -> None:
        """Go on in another file, and remove the oldest but the first where there are too many."""
        for fd in (self._text, self._times):
            if fd is not None:
                with contextlib.suppress(OSError):
                    os.close(fd)
        self._text = self._times = None
        if self._number:
            self._kept_parts.append(self._number)
        self._before += self._size
        while len(self._kept_parts) >= self._bounds.parts:
            for name in self._names(self._kept_parts.popleft()):
                with contextlib.suppress(OSError):
                    name.unlink()
        self._number += 1
        self._size = 0
        self._last = (0, float("-inf"))

    def _names(self, number: int) -> tuple[Path, Path]:
        stem = f"{self._stem}.{number:04d}" if number else str(self._stem)
        return Path(f"{stem}.log"), Path(f"{stem}.times")

    def _write(self, *, with_pending: bool = True) -> None:
        ready = b"".join(self._ready)
        pending = self._lines.pending() if with_pending else b""
        try:
            if self._text is None:
                self._open()
            assert self._text is not None and self._times is not None  # noqa: S101, PT018 - for the type checker
            # What may still change lies behind what is final, and is written over.
            _write_at(self._text, ready + pending, self._size)
            os.ftruncate(self._text, self._size + len(ready) + len(pending))
            if self._stretches:
                os.write(self._times, b"".join(self._stretches))
            self._size += len(ready)
        except OSError as error:
            self.trouble = self.trouble or error
        self._ready, self._stretches = [], []
        self._ready_bytes = 0
        self._is_changed = False

    def _open(self) -> None:
        text, times = self._names(self._number)
        flags = os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC
        # For the owner only, as the environment is: nobody looks for secrets in what a program prints.
        self._text = os.open(text, flags, 0o600)
        self._times = os.open(times, flags | os.O_APPEND, 0o600)
        os.write(self._times, HEADER.pack(MAGIC, 1, self._number, self._before))


def _write_at(fd: int, data: bytes, place: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, place)
        view, place = view[written:], place + written
