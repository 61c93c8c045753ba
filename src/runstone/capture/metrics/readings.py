"""What one pass over the sources finds, and the arithmetic of counters that the sources share."""

from __future__ import annotations

import math
from types import TracebackType
from typing import Protocol, Self

from runstone.capture.facts import explain

Number = float | int


class Readings:
    """The values of one pass by series name, without the leading `system/`.

    Attributes:
        at_s: When the pass began, on the monotonic clock.
        is_slow: Whether what is read once a minute only is due: costly, or hardly changing.
        values: What was found. A series that the machine cannot say is absent, never zero.
        why: The first reason for each thing that is missing; kept over all passes.
        pids: The processes of the run's tree on this host.
        doing: What is being read, for the case that it never answers.
    """

    __slots__ = ("at_s", "doing", "is_slow", "pids", "values", "why")

    def __init__(self, *, at_s: float, is_slow: bool, why: dict[str, str]) -> None:
        self.at_s = at_s
        self.is_slow = is_slow
        self.values: dict[str, Number] = {}
        self.why = why
        self.pids: set[int] = set()
        self.doing = ""

    def put(self, name: str, value: Number | None, *, least: float = 0.0, most: float = math.inf) -> None:
        """Keep a value. `None`, NaN, and what lies outside `least` to `most` is a gap: it cannot be true."""
        if value is None:
            return
        if least <= value <= most and value != math.inf:
            self.values[name] = value
        else:
            self.miss(name, f"error: {value} cannot be true")

    def miss(self, what: str, reason: str) -> None:
        """Keep the reason why something is missing; the first one stands."""
        self.why.setdefault(what, reason)

    def attempt(self, what: str) -> _Attempt:
        """Return a context in which any failure costs only what stands in it."""
        return _Attempt(self, what)


class _Attempt:
    __slots__ = ("_readings", "_what")

    def __init__(self, readings: Readings, what: str) -> None:
        self._readings = readings
        self._what = what

    def __enter__(self) -> Self:
        self._readings.doing = self._what
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> bool:
        if isinstance(error, Exception):
            self._readings.miss(self._what, explain(error))
            return True
        return False


class Source(Protocol):
    """One kind of thing that is sampled. Keeps what it needs from pass to pass."""

    name: str

    def read(self, readings: Readings) -> None:
        """Put what there is; may raise, which costs what this source had still to say."""

    def close(self) -> None:
        """Let go of what is held open."""


class Rates:
    """Turns counters into rates. A counter that went back was reset: a gap, and counting begins anew."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, Number]] = {}

    def per_s(self, name: str, total: Number, at_s: float) -> float | None:
        """Return the growth a second since the last call with this name; `None` at the first."""
        before = self._last.get(name)
        self._last[name] = (at_s, total)
        if before is None or at_s <= before[0] or total < before[1]:
            return None
        return (total - before[1]) / (at_s - before[0])
