"""What a running trial has logged of the metrics that decide on it, kept as it comes: its end reads no log again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from runstone import Series


class Result(Protocol):
    """What the points of one metric come down to, as `MetricSummary` has it."""

    @property
    def last(self) -> float:
        """The value that was logged last."""

    @property
    def min(self) -> float | None:
        """The lowest value; `None` where none is a number."""

    @property
    def max(self) -> float | None:
        """The highest value; `None` where none is a number."""


@dataclass(frozen=True, slots=True)
class Heard:
    """The same as a `Result`, of the points heard so far."""

    last: float
    min: float | None = None
    max: float | None = None

    def and_then(self, series: Series) -> Heard:
        """Return what it comes down to with further points, at least one."""
        more = heard_of(series)
        lows = [low for low in (self.min, more.min) if low is not None]
        highs = [high for high in (self.max, more.max) if high is not None]
        return Heard(more.last, min(lows, default=None), max(highs, default=None))


def heard_of(series: Series) -> Heard:
    """Return what points come down to, at least one."""
    values = series.value.astype(np.float64, copy=False)
    last, numbers = float(values[-1]), values[~np.isnan(values)]
    return Heard(last, float(numbers.min()), float(numbers.max())) if len(numbers) else Heard(last)
