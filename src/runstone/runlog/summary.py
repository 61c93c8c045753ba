"""What a metric comes down to, computed point by point, in any number of portions, with the same answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runstone.values import MetricSummary


@dataclass(slots=True)
class MetricAccumulator:
    """Running figures of one metric.

    Sums are made in the order of the points (`cumsum`), never pairwise, so the mean does not depend on how the
    points were cut into portions.
    """

    name: str
    count: int = 0
    nan_count: int = 0
    first_step: int = 0
    last_step: int = 0
    last: float = math.nan
    last_at: float = 0.0
    min: float | None = None
    min_step: int | None = None
    max: float | None = None
    max_step: int | None = None
    total: float = 0.0

    def add(self, step: NDArray[np.int64], value: NDArray[Any], wall_s: NDArray[np.float64]) -> None:
        """Take in points, in the order in which they were logged."""
        if not len(step):
            return
        low, high = int(step.min()), int(step.max())
        self.first_step = min(self.first_step, low) if self.count else low
        self.last_step = max(self.last_step, high) if self.count else high
        self.count += len(step)
        floats = value.astype(np.float64, copy=False)
        self.last, self.last_at = float(floats[-1]), float(wall_s[-1])
        is_number = ~np.isnan(floats)
        numbers = floats[is_number]
        self.nan_count += len(floats) - len(numbers)
        if not len(numbers):
            return
        steps = step[is_number]
        at = int(numbers.argmin())
        if self.min is None or numbers[at] < self.min:
            self.min, self.min_step = float(numbers[at]), int(steps[at])
        at = int(numbers.argmax())
        if self.max is None or numbers[at] > self.max:
            self.max, self.max_step = float(numbers[at]), int(steps[at])
        with np.errstate(all="ignore"):  # ±Inf and overflow are values like any other here
            self.total = float(np.cumsum(np.concatenate(([self.total], numbers)))[-1])

    def summary(self) -> MetricSummary:
        """Return the figures as they stand."""
        numbers = self.count - self.nan_count
        return MetricSummary(
            name=self.name,
            count=self.count,
            nan_count=self.nan_count,
            first_step=self.first_step,
            last_step=self.last_step,
            last=self.last,
            min=self.min,
            min_step=self.min_step,
            max=self.max,
            max_step=self.max_step,
            mean=self.total / numbers if numbers else None,
            last_at=self.last_at,
        )
