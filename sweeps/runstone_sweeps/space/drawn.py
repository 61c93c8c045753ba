"""A parameter that is drawn from a distribution. A sampler, which knows no such thing, sees the quantile."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

from runstone_sweeps.space.scalars import Scalar, exact, is_number

Law = Literal["uniform", "log_uniform", "normal", "log_normal", "beta"]
# A quantile of 0 or 1 would be infinite.
_EDGE = 2.0**-30


@dataclass(frozen=True, slots=True)
class Drawn:
    """A number from a distribution; a sampler searches over its quantile.

    Attributes:
        name: Path of the parameter with dots.
        law: Which distribution.
        first, second: Mean and standard deviation (`normal`, and of the logarithm: `log_normal`), `a` and `b` of
            `beta`; bounds of `uniform` and `log_uniform`.
        low, high: Where it is cut off; `None`: not at all.
        step: Values are rounded to its multiples; `None`: any float.
        is_whole: Whether the values are whole numbers.
    """

    name: str
    law: Law
    first: float
    second: float
    low: float | None = None
    high: float | None = None
    step: float | None = None
    is_whole: bool = False

    is_quantile = True

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest value before rounding, which may be infinite."""
        lowest, highest = {
            "uniform": (self.first, self.second),
            "log_uniform": (self.first, self.second),
            "normal": (-math.inf, math.inf),
            "log_normal": (0.0, math.inf),
            "beta": (0.0, 1.0),
        }[self.law]
        low = lowest if self.low is None else max(lowest, self.low)
        return low, highest if self.high is None else min(highest, self.high)

    @property
    def size(self) -> int | None:
        """How many values there are; `None` where there is no step, or no bound."""
        if self.step is None or not all(map(math.isfinite, self.bounds)):
            return None
        return self._last - self._first + 1

    @property
    def values(self) -> tuple[float, ...]:
        """Every value of a bounded distribution in steps."""
        return tuple(self._multiple(count) for count in range(self._first, self._last + 1))

    @property
    def share_kept(self) -> float:
        """How much of the distribution is not cut off."""
        low, high = self.bounds
        return self._below(high) - self._below(low)

    @property
    def _first(self) -> int:
        return round(exact(self.bounds[0]) / exact(self.step or 1))

    @property
    def _last(self) -> int:
        return round(exact(self.bounds[1]) / exact(self.step or 1))

    def holds(self, value: Any) -> bool:
        """Tell whether a value is one of those that this parameter can have."""
        if not is_number(value):
            return False
        low, high = self.bounds
        if self.step is None:
            return bool(low <= value <= high)
        count = exact(value) / exact(self.step)
        if count.denominator != 1:
            return False
        return (low == -math.inf or count >= self._first) and (high == math.inf or count <= self._last)

    def to_label(self, value: float) -> Scalar:
        """Return the quantile of a value; where values are rounded, the middle of the share that becomes this one."""
        low, high = self.bounds
        half = 0.0 if self.step is None else self.step / 2
        ends = [self._share(min(max(end, low), high)) for end in (value - half, value + half)]
        return min(max(sum(ends) / 2, 0.0), 1.0)

    def from_label(self, seen: Any) -> float:
        """Return the value at a quantile in [0, 1]."""
        low, high = self.bounds
        share = min(max(float(seen), _EDGE), 1 - _EDGE)
        least, most = self._below(low), self._below(high)
        value = min(max(self._at(least + share * (most - least)), low), high)
        if self.step is None:
            return value
        # Exactly, so that what is within the bounds is so after rounding, as `holds` counts.
        return self._multiple(round(exact(value) / exact(self.step)))

    def _multiple(self, count: int) -> float:
        value = count * exact(self.step or 1)
        return int(value) if self.is_whole else float(value)

    def _share(self, value: float) -> float:
        """Return the part of what is not cut off that lies below a value."""
        least, most = (self._below(end) for end in self.bounds)
        return (self._below(value) - least) / (most - least) if most > least else 0.5

    def _below(self, value: float) -> float:
        """Return the distribution function."""
        if self.law in ("log_normal", "log_uniform"):
            value = math.log(value) if value > 0 else -math.inf
        if math.isinf(value):
            return float(value > 0)
        match self.law:
            case "uniform":
                return (value - self.first) / (self.second - self.first)
            case "log_uniform":
                return (value - math.log(self.first)) / (math.log(self.second) - math.log(self.first))
            case "beta":
                return float(_special().betainc(self.first, self.second, value))
        return NormalDist(self.first, self.second).cdf(value)

    def _at(self, share: float) -> float:
        """Return the inverse of the distribution function."""
        share = min(max(share, _EDGE), 1 - _EDGE)
        match self.law:
            case "uniform":
                return self.first + share * (self.second - self.first)
            case "log_uniform":
                return math.exp(math.log(self.first) + share * (math.log(self.second) - math.log(self.first)))
            case "beta":
                return float(_special().betaincinv(self.first, self.second, share))
        value = NormalDist(self.first, self.second).inv_cdf(share)
        return math.exp(value) if self.law == "log_normal" else value


@functools.cache
def _special() -> Any:
    from scipy import special  # slow, only for beta

    return special
