"""The files of a run, by the way they are written: it decides what may still change of what was sent."""

from __future__ import annotations

import os
import re
from enum import Enum
from pathlib import Path

_WRITER = "(?P<writer>[0-9a-f]{32})"


class Kind(Enum):
    """How a file is written."""

    JOURNAL = "journal"  # whole lines are appended
    KEYS = "keys"  # whole records are appended
    SIDE = "side"  # frames, each at its offset; one may be there before the one in front of it
    SLOTS = "slots"  # likewise, behind a header
    CONSOLE = "console"  # appended; its end is written over while a program shows its progress
    WHOLE = "whole"  # written beside and renamed


_KINDS = (
    (Kind.JOURNAL, re.compile(rf"journal\.{_WRITER}\.jsonl")),
    (Kind.SLOTS, re.compile(rf"{_WRITER}-(?P<seq>[0-9]{{8}})\.wal")),
    (Kind.KEYS, re.compile(rf"{_WRITER}\.keys")),
    (Kind.SIDE, re.compile(rf"{_WRITER}\.blob")),
    (Kind.CONSOLE, re.compile(rf"console\.{_WRITER}(?:\.[0-9]{{4,8}})?\.(?:log|times)")),
    (Kind.CONSOLE, re.compile(r"console\.[0-9]{1,9}\.log")),
    (Kind.WHOLE, re.compile(rf"environment\.{_WRITER}\.json")),
    (Kind.WHOLE, re.compile(rf"code\.{_WRITER}\.patch")),
    (Kind.WHOLE, re.compile(r"metrics\.parquet")),
)
_STATUS = re.compile(rf"{_WRITER}\.status")
CONSOLE_END_BYTES = 1 << 16
"""As much of the end of a console may be written over."""


def kind_of(name: str) -> Kind | None:
    """Return how a file of a run is written; `None` where no run has a file of this name that is sent."""
    return next((kind for kind, pattern in _KINDS if pattern.fullmatch(name)), None)


def writer_of(name: str) -> str | None:
    """Return whose a file is, `None` where it is nobody's in particular."""
    for _kind, pattern in (*_KINDS, (None, _STATUS)):
        if match := pattern.fullmatch(name):
            return match.groupdict().get("writer")
    return None


def seq_of(name: str) -> int:
    """Return the number of a segment of a metric log."""
    match = _KINDS[1][1].fullmatch(name)
    return int(match["seq"]) if match else -1


def is_private(name: str) -> bool:
    """Return whether only its owner may read a file."""
    return name.startswith(("environment.", "code.", "console."))


def names_in(folder: Path) -> list[str]:
    """Return the names of a run's files that are sent, in order; none where it is not there."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 (names are all that is needed)
    except OSError:
        return []
    return sorted(name for name in names if kind_of(name) is not None)


def writers_in(folder: Path) -> list[str]:
    """Return the writers of a run that have a status file, in order."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 (names are all that is needed)
    except OSError:
        return []
    return sorted(name.removesuffix(".status") for name in names if _STATUS.fullmatch(name))
