"""Values, and why some are missing: the form that every section of a snapshot has.

A field is a JSON value, or null with a reason. Reasons lie in one flat map from the dotted path to
`"<kind>: <detail>"`; a reason at a path stands for everything below it that has no value.

| kind | meaning |
|---|---|
| `absent` | the machine has no such thing, or there is nothing to say (`absent: unlimited`) |
| `denied` | it exists, and this process may not read it |
| `error` | reading it failed, or what it answered cannot be true |
| `timeout` | it did not answer in time and was given up |
| `redacted` | it is known and was left out |
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from runstone.values import JSON

Kind = Literal["absent", "denied", "error", "timeout", "redacted"]
_LONGEST_DETAIL = 300


class Missing(Exception):
    """Raised by a source that has no value and knows why."""

    def __init__(self, kind: Kind, detail: str) -> None:
        super().__init__(f"{kind}: {detail[:_LONGEST_DETAIL]}")


def absent(detail: str) -> Missing:
    """Return the exception that says there is no such thing."""
    return Missing("absent", detail)


def explain(error: Exception) -> str:
    """Return the reason that stands for a failed read, such as `"denied: /sys/x: Permission denied"`."""
    if isinstance(error, Missing):
        return str(error)
    # psutil is not imported for this: it may be what failed.
    kind: Kind = "error"
    name = type(error).__name__
    if isinstance(error, FileNotFoundError | NotADirectoryError | ModuleNotFoundError) or name == "NoSuchProcess":
        kind = "absent"
    elif isinstance(error, PermissionError) or name == "AccessDenied":
        kind = "denied"
    elif isinstance(error, TimeoutError):
        kind = "timeout"
    if isinstance(error, OSError) and error.strerror:
        detail = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    elif isinstance(error, TimeoutError):
        detail = str(error)
    else:
        detail = f"{name}: {error}"
    return f"{kind}: {detail[:_LONGEST_DETAIL]}"


@dataclass(frozen=True, slots=True)
class Section:
    """One section of a snapshot as it was when its collector ended or was given up."""

    name: str
    values: dict[str, Any] | None
    why: dict[str, str]
    is_complete: bool = True


class Facts:
    """One section while it is being collected. Each read is on its own: a failure costs one field.

    A collector that hangs is left behind with its thread; `close` takes what there is, and whatever
    it writes later goes nowhere.
    """

    def __init__(self, path: str, *, within: Facts | None = None) -> None:
        self.path = path
        self._values: dict[str, Any] = {}
        self._top: Facts = within._top if within else self
        self._lock: threading.Lock = within._lock if within else threading.Lock()
        self._why: dict[str, str] = within._why if within else {}
        self._reading: str | None = None
        self._is_closed = False

    def read(self, field: str, source: Callable[[], JSON], *, if_none: str = "nothing was reported") -> JSON:
        """Store and return what `source` answers; if it fails, or answers `None`, store null and the reason."""
        self._top._reading = f"{self.path}.{field}"
        try:
            value = source()
            if value is None:
                raise absent(if_none)
        except Exception as error:
            value = None
            self.miss(field, explain(error))
        else:
            self.put(field, value)
        self._top._reading = None
        return value

    def put(self, field: str, value: JSON) -> None:
        """Store a value that is known without reading."""
        with self._lock:
            if not self._top._is_closed:
                self._values[field] = value

    def miss(self, field: str, reason: str) -> None:
        """Store null and its reason."""
        with self._lock:
            if not self._top._is_closed:
                self._values[field] = None
                self._why[f"{self.path}.{field}"] = reason

    def seen(self, field: str) -> Any:
        """Return a copy of what has been stored under `field`."""
        with self._lock:
            return copy.deepcopy(self._values.get(field))

    def part(self, field: str) -> Facts:
        """Return the facts of an object inside this one."""
        inner = Facts(f"{self.path}.{field}", within=self)
        self.put(field, inner._values)
        return inner

    def item(self, field: str) -> Facts:
        """Return the facts of a further object in the list `field`; its path ends in the number, from 0."""
        with self._lock:
            entries = self._values.setdefault(field, [])
            inner = Facts(f"{self.path}.{field}.{len(entries)}", within=self)
            if not self._top._is_closed:
                entries.append(inner._values)
        return inner

    def fail(self, reason: str) -> None:
        """Say why everything that is not here is missing."""
        with self._lock:
            if not self._top._is_closed:
                self._why[self.path] = reason

    def close(self, *, timeout_reason: str | None = None) -> Section:
        """Return the section as it stands, and take nothing more. `timeout_reason`: it has not ended."""
        with self._lock:
            self._is_closed = True
            values = copy.deepcopy(self._values)
            why = dict(self._why)
        if timeout_reason is not None:
            why[self.path] = timeout_reason + (f" while reading {self._reading}" if self._reading else "")
        return Section(self.path, values or None, why, is_complete=timeout_reason is None)
