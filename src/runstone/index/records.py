"""What the index keeps of a run: enough for a table of runs, without its files. Knows JSON, no SQL."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, cast

from runstone.index.figures import PackedFigures
from runstone.status import Status
from runstone.values import JSON

LEFT_OUT = ("devices", "installed")
"""Keys of a snapshot that a reader need not write, as are numbers of lists."""
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_KEY = re.compile(r"(?:[^\\.]|\\.)*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run as tables show it.

    Attributes:
        folder: Its folder below `runs/`, POSIX.
        failure: Type and message of the exception it failed with, such as `"ValueError: bad shape"`.
        params: Nested, as they were given.
        started_at, ended_at: Seconds since the epoch, UTC.
        attempts: How many.
        dropped: Points that could not be written.
        warnings: How many things could not be recorded.
    """

    id: str
    folder: str
    project: str
    name: str
    status: Status
    started_at: float
    metrics: PackedFigures
    ended_at: float | None = None
    group: str | None = None
    notes: str | None = None
    parent: str | None = None
    failure: str | None = None
    params: dict[str, JSON] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    attempts: int = 1
    is_deleted: bool = False
    is_pinned: bool = False
    is_archived: bool = False
    dropped: int = 0
    warnings: int = 0

    def duration_s(self, now: float) -> float:
        """Return how long it took, or has taken by `now` (seconds since the epoch)."""
        return max(0.0, (self.ended_at if self.ended_at is not None else now) - self.started_at)

    def to_json(self) -> str:
        """Return everything but the metrics as JSON text in ASCII; NaN and ±Inf as Python's `json` writes them."""
        content: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__ if name != "metrics"}
        return json.dumps(content, separators=(",", ":"))

    @classmethod
    def from_stored(cls, text: str, figures: bytes) -> RunRecord:
        """Return what `to_json` wrote, with the bytes of its metrics' figures.

        Raises:
            ValueError, TypeError, LookupError: it is damaged.
        """
        content = json.loads(text)
        content["status"] = Status(content["status"])
        return cls(**content, metrics=PackedFigures(figures))


def list_text(value: JSON) -> str:
    """Return a list, or an object, as the JSON text under which it is shown and found."""
    return json.dumps(value, ensure_ascii=False)


def escaped(key: str) -> str:
    """Return one key of a param as `flatten_params` writes it."""
    return key.replace("\\", "\\\\").replace(".", "\\.")


def unescaped(path: str) -> str:
    """Return a name of `flatten_params` as a reader writes it; two params may share it."""
    return _ESCAPED.sub(r"\1", path)


def split_path(path: str) -> list[str]:
    """Return the keys of a name of `flatten_params`."""
    keys, position = [], 0
    while position <= len(path):
        match = cast(re.Match[str], _KEY.match(path, position))  # it matches the empty text, too
        keys.append(unescaped(match[0]))
        position = match.end() + 1
    return keys


def short_name(path: str) -> str:
    """Return a path of the environment without what a reader may leave out, and without escapes."""
    return ".".join(key for key in loose_keys(path) if not may_leave_out(key))


def may_leave_out(key: str) -> bool:
    """Return whether a reader may leave out a key of the environment."""
    return key in LEFT_OUT or (key.isascii() and key.isdigit())


def loose_keys(path: str) -> list[str]:
    """Return the keys of a path, cut at each dot: a package's name may hold some, and is written with them."""
    return unescaped(path).split(".")
