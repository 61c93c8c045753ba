"""Files of a run that are not as they were written: which, what that costs, and what to do. Reads; mends nothing.

What a kill can leave is no damage: a torn last line, a file that was made and not begun, a slot not stored.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runstone.runlog import format as fmt

if TYPE_CHECKING:
    from runstone.runlog.tail import WriterTail

_HEAD_BYTES = 128
_SECTOR_SLOTS = 512 // fmt.SLOT_BYTES
"""So many slots beside each other that are empty were not left by threads that were killed: a disk lost them."""


@dataclass(frozen=True, slots=True)
class Damage:
    """One file of a run that cannot be read, or not all of it.

    Attributes:
        file: Its name in the run's folder.
        reason: What is wrong with it.
        cost: What of the run is therefore not known.
        writer: Whose metric log it is of, which is not sealed then; empty where it is of none.
        is_whole: Whether nothing of a journal is known, not even what content it refers to.
    """

    file: str
    reason: str
    cost: str
    writer: str = ""
    is_whole: bool = False

    def __str__(self) -> str:
        """Say it, and what to do now."""
        return (
            f"{self.file} {self.reason}: {self.cost}. All else is read. Put the file back from a backup or another "
            "copy of the run, if there is one"
        )


def journal_damage(
    file: str, *, size: int, events: int, unread: int, torn: int, is_begun: bool, trouble: str
) -> Damage | None:
    """Return what is wrong with a journal.

    Args:
        file: Its name.
        size: Bytes in it.
        events: Lines that were understood.
        unread: Whole lines that were not.
        torn: Bytes behind the last newline; 0 where the writer lives and may be writing them.
        is_begun: Whether it says first whose it is.
        trouble: Why the file system does not give it, else empty.
    """
    what = "what it told (such as name, params, tags, artifacts, and how the run ended) is not known"
    if trouble:
        return Damage(file, f"cannot be read ({trouble})", what, is_whole=True)
    if not size:
        return Damage(file, "is empty", what, is_whole=True)
    if not events:
        return Damage(file, "holds no line of a journal", what, is_whole=True)
    lost = [] if not unread else [f"{unread:,} of its {events + unread:,} lines cannot be read"]
    if torn:
        lost.append(f"its last line is cut off ({torn:,} bytes)")
    if not is_begun and not lost:
        lost = ["its first line is missing"]
    return Damage(file, f"is damaged: {' and '.join(lost)}", "what they told is not known") if lost else None


def missing_journal(file: str) -> Damage:
    """Return that a journal is not there, though its writer left other files."""
    return Damage(
        file, "is not there", "what it told (such as name, params, tags, artifacts) is not known", is_whole=True
    )


def log_damage(run_path: Path, segments: Mapping[str, list[int]], living: Collection[str]) -> list[Damage]:
    """Return the segments of metric logs that do not say what they are, and are therefore not read.

    Args:
        run_path: Folder of the run.
        segments: Those that are looked at: their numbers by writer, ascending, as `segments_on_disk` returns them.
        living: Writers that live: their last segments may be in the making.
    """
    found = []
    for writer, numbers in segments.items():
        for seq in numbers:
            is_last = seq == numbers[-1]
            damage = _segment_damage(run_path, writer, seq, is_last=is_last, is_alive=writer in living)
            if damage is not None:
                found.append(damage)
    return found


def _segment_damage(run_path: Path, writer: str, seq: int, *, is_last: bool, is_alive: bool) -> Damage | None:
    file = f"{writer}-{seq:08d}.wal"
    cost = "the points in it are not known"
    try:
        fd = os.open(run_path / file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # sealed meanwhile
        return None
    except OSError as error:
        return Damage(file, f"cannot be read ({error.strerror})", cost, writer=writer)
    try:
        head, size = os.pread(fd, _HEAD_BYTES, 0), os.fstat(fd).st_size
        if fmt.unpack_header(head) is not None:
            if size >= fmt.HEADER_BYTES:
                return None
            return Damage(file, f"is cut off after {size:,} bytes", cost, writer=writer)
        if any(head):
            return Damage(file, "has a damaged header", cost, writer=writer)
        if is_last and (is_alive or not _is_used(run_path, writer, fd, size)):
            return None  # in the making, or its writer was killed in that
    except OSError as error:
        return Damage(file, f"cannot be read ({error.strerror})", cost, writer=writer)
    finally:
        os.close(fd)
    reason = "has an empty header" if size else "is empty"
    return Damage(file, reason, cost, writer=writer)


def _is_used(run_path: Path, writer: str, fd: int, size: int) -> bool:
    """Return whether a segment without a header had points: some are in it, or its writer had named metrics."""
    if any(os.pread(fd, fmt.FIRST_SLOTS * fmt.SLOT_BYTES, fmt.HEADER_BYTES)):
        return True
    try:
        return not size and (run_path / f"{writer}.keys").stat().st_size > 0
    except OSError:
        return False


def slot_damage(tails: Mapping[str, WriterTail], living: Collection[str]) -> Iterator[Damage]:
    """Yield what is wrong with points of metric logs that were read.

    Args:
        tails: What read them, by writer.
        living: Writers that live: they may still fill what is empty.
    """
    for writer, tail in sorted(tails.items()):
        for seq, position in sorted(tail.segments.items()):
            lost = position.torn + (0 if writer in living else _in_long_rows(position.holes))
            if lost:
                file = f"{writer}-{seq:08d}.wal"
                yield Damage(file, f"is damaged in {_points(lost)}", "they are not known", writer=writer)
        if tail.unnamed:
            cost = f"{_points(tail.unnamed)} are of metrics whose names are not known"
            yield Damage(f"{writer}.keys", "is damaged or cut off", cost, writer=writer)


def _points(count: int) -> str:
    return f"{count:,} point" if count == 1 else f"{count:,} points"


def _in_long_rows(places: list[int]) -> int:
    """Return how many of some ascending places lie in rows of a sector and more."""
    count = length = 0
    before: int | None = None
    for place in [*sorted(places), None]:
        if place is not None and before is not None and place == before + 1:
            length += 1
        else:
            count += length if length >= _SECTOR_SLOTS else 0
            length = 1
        before = place
    return count
