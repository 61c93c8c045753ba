"""What a run printed, read from its folder while it is written or after. Writes nothing."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runstone.console.store import HEADER, MAGIC, STRETCH

_NAME = re.compile(r"console\.(?P<writer>[0-9a-f]+)(?:\.(?P<part>\d{4,}))?\.log")


@dataclass(frozen=True, slots=True)
class ConsoleLine:
    """One line of what a run printed.

    Attributes:
        text: Without its newline; bytes that are no UTF-8 are replaced. May hold colours, as escape sequences.
        at: Seconds since the epoch; `None` where it was not noted.
        stream: 1: standard output. 2: standard error. 3: both, which were one. 0: not known.
    """

    text: str
    at: float | None
    stream: int


@dataclass(frozen=True, slots=True)
class _Part:
    """One file, with what is noted of its lines beside it."""

    path: Path
    before: int
    starts: list[int]
    times: list[float]
    streams: list[int]


def console_files(run_path: Path) -> list[Path]:
    """Return the files that hold what a run printed, in the order in which they were begun."""
    found = []
    for path in run_path.glob("console.*.log"):
        match = _NAME.fullmatch(path.name)
        if match is not None:
            found.append((_begun(run_path, match["writer"]), match["writer"], int(match["part"] or 0), path))
    return [path for *_key, path in sorted(found)]


def console_lines(run_path: Path) -> Iterator[ConsoleLine]:
    """Yield the lines that a run printed, those of earlier attempts first. What was left out is told in a line."""
    end = 0
    for path in console_files(run_path):
        part, data = _read_times(path), _read(path)
        if part.before > end:
            yield ConsoleLine(f"[… {part.before - end:,} bytes were left out …]", None, 0)
        end = part.before + len(data)
        yield from _lines_of(part, data)


def console_text(run_path: Path) -> str:
    """Return what a run printed, as text."""
    return "".join(f"{line.text}\n" for line in console_lines(run_path))


class ConsoleTail:
    """Follows what a run prints, in whole lines.

    Args:
        run_path: Folder of the run.
    """

    def __init__(self, run_path: Path) -> None:
        self._run_path = run_path
        self._read: dict[Path, int] = {}

    def poll(self, *, is_ended: bool = False) -> list[ConsoleLine]:
        """Return the lines that came since the last call.

        Args:
            is_ended: Take a last line without a newline too.
        """
        lines: list[ConsoleLine] = []
        for path in console_files(self._run_path):
            start = self._read.get(path, 0)
            data = _read(path)[start:]
            end = len(data) if is_ended else data.rfind(b"\n") + 1
            if end > 0:
                self._read[path] = start + end
                lines += _lines_of(_read_times(path), data[:end], start)
        return lines


def _begun(run_path: Path, writer: str) -> float:
    """Return when a console was begun: its first file is the only one that is never removed."""
    first = run_path / f"console.{writer}.log"
    times = _read_times(first).times
    if times:
        return times[0]
    try:
        return first.stat().st_mtime
    except OSError:
        return 0.0


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it was the oldest part, and made room
        return b""


def _read_times(path: Path) -> _Part:
    data = _read(path.with_suffix(".times"))
    before = 0
    rows: list[tuple[int, float, int, int]] = []
    if len(data) >= HEADER.size:
        magic, version, _number, before = HEADER.unpack_from(data)
        if magic == MAGIC and version == 1:
            whole = HEADER.size + (len(data) - HEADER.size) // STRETCH.size * STRETCH.size
            rows = list(STRETCH.iter_unpack(data[HEADER.size : whole]))
    return _Part(path, before, [r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows])


def _lines_of(part: _Part, data: bytes, start: int = 0) -> Iterator[ConsoleLine]:
    place = start
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    for line in lines:
        index = bisect.bisect_right(part.starts, place) - 1
        at, stream = (part.times[index], part.streams[index]) if index >= 0 else (None, 0)
        yield ConsoleLine(line.decode("utf-8", "replace"), at, stream)
        place += len(line) + 1
