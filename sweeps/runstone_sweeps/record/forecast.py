"""How a sweep comes along: how long the rest will take, and what further trials still gain."""

from __future__ import annotations

from dataclasses import dataclass

# Over how many of the last trials the pace and the gain are taken.
_LAST = 20


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is expected of the rest of a sweep.

    Attributes:
        left_s: Seconds at work until it ends; `None` where nothing tells.
        trials_per_hour: Trials that ended per hour at work, of late; `None` before the second one.
        gain_per_hour: By how much the best result of the first metric became better per hour at work, over the last
            20 trials; `None` where fewer have ended since the first result.
    """

    left_s: float | None
    trials_per_hour: float | None
    gain_per_hour: float | None


class Progress:
    """When trials ended, and how good the best one was by then."""

    def __init__(self) -> None:
        self._ends: list[tuple[float, float | None]] = []

    def add(self, active_s: float, best: float | None) -> None:
        """Take in that a trial ended, at so many seconds of work."""
        self._ends.append((active_s, best))

    def forecast(self, left: int | None, active_s: float, *, is_maximized: bool, timeout_s: float | None) -> Forecast:
        """Return what is to be expected.

        Args:
            left: Trials that are left; `None`: no number is set.
            active_s: Seconds at work by now.
            is_maximized: Whether higher is better.
            timeout_s: Seconds at work that the sweep may take.
        """
        last = self._ends[-_LAST - 1 :]
        passed_s = active_s - last[0][0] if last else 0.0
        # The first end of all stands at the end of a trial's duration, not of none: it counts from the beginning.
        count = len(last) - 1
        if len(last) == len(self._ends) and last:
            passed_s, count = active_s, len(last)
        per_hour = count / passed_s * 3600 if count and passed_s > 0 else None
        left_s = left / per_hour * 3600 if left is not None and per_hour else None
        if timeout_s is not None:
            until_s = max(0.0, timeout_s - active_s)
            left_s = until_s if left_s is None else min(left_s, until_s)
        return Forecast(left_s, per_hour, self._gain_per_hour(active_s, is_maximized=is_maximized))

    def _gain_per_hour(self, active_s: float, *, is_maximized: bool) -> float | None:
        if len(self._ends) <= _LAST:
            return None
        at_s, before = self._ends[-_LAST - 1]
        now = self._ends[-1][1]
        if before is None or now is None or active_s <= at_s:
            return None
        gain = now - before if is_maximized else before - now
        return gain / (active_s - at_s) * 3600
