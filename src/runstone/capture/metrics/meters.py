"""Counters of a GPU as they add up over a run. They outlive the loss of the GPU and of the driver."""

from __future__ import annotations

MOST_WATTS = 20_000.0
# A counter and the clock of this process are not read at the same moment.
_CLOCKS_DIFFER_S = 1.0


class Energy:
    """Joules of one GPU since the run's first pass.

    Args:
        joules: What earlier lives of the run counted.
    """

    def __init__(self, joules: float) -> None:
        self.joules = joules
        self._last_mj: int | None = None
        self._last_at_s = 0.0
        self._last_w: tuple[float, float] | None = None

    def count(self, counter_mj: int, at_s: float) -> float | None:
        """Take the value of the GPU's counter; return joules, or `None` where it cannot be true."""
        before_mj, before_s = self._last_mj, self._last_at_s
        grown_mj = counter_mj - before_mj if before_mj is not None else 0
        if grown_mj / 1000 > MOST_WATTS * max(1.0, at_s - before_s):
            return None
        self._last_mj, self._last_at_s = counter_mj, at_s
        self.joules += max(0, grown_mj) / 1000  # the driver was loaded anew where it went back
        return self.joules

    def integrate(self, watts: float | None, at_s: float) -> float | None:
        """Take a power reading where there is no counter; return joules, the mean of two readings over their time."""
        before, self._last_w = self._last_w, (watts, at_s) if watts is not None else None
        if watts is None:
            return None
        if before is not None:
            self.joules += (before[0] + watts) / 2 * (at_s - before[1])
        return self.joules


class HeldBack:
    """Milliseconds for which one GPU's clocks were held back since the first pass, by reason."""

    def __init__(self) -> None:
        self._total_ms: dict[str, float] = {}
        self._last: dict[str, tuple[int, float]] = {}

    def count(self, reason: str, counter_ns: int, at_s: float) -> float | None:
        """Take the driver's counter for a reason; return milliseconds, or `None` where it cannot be true."""
        before_ns, before_s = self._last.get(reason, (counter_ns, at_s))
        grown_ms = max(0, counter_ns - before_ns) / 1e6
        if grown_ms > 1000 * (at_s - before_s + _CLOCKS_DIFFER_S):
            return None
        self._last[reason] = (counter_ns, at_s)
        self._total_ms[reason] = self._total_ms.get(reason, 0.0) + grown_ms
        return self._total_ms[reason]
