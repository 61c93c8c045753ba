"""Smoothing of whole series, before anything is left out of them: so a value is the same at every zoom. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from runstone.errors import InvalidValue

Kind = Literal["none", "ema", "mean", "gauss"]
Floats = NDArray[np.float64]

_LANE = 64
_SPACING_POINTS = 1 << 16
_SIGMAS = 4.0
_FFT_ROWS = 1 << 16
_MOST_POINTS = 1_000_000


@dataclass(frozen=True, slots=True)
class Smoothing:
    """How a series is smoothed.

    Attributes:
        kind: `ema`: a mean in which a point counts less the farther it lies behind; `mean`: of the points around;
            `gauss`: of the points around, those nearby more.
        amount: `ema`: how much the point before counts at the usual distance, 0 to below 1; `mean`: points, odd ones
            are centred; `gauss`: standard deviation in points.

    Raises:
        InvalidValue: the amount is none for this kind.
    """

    kind: Kind = "none"
    amount: float = 0.0

    def __post_init__(self) -> None:
        most = 1.0 if self.kind == "ema" else _MOST_POINTS
        if self.kind != "none" and not 0 <= self.amount < most:
            raise InvalidValue(f"smoothing {self.kind!r} takes an amount from 0 to below {most:g}, got {self.amount!r}")

    @property
    def is_none(self) -> bool:
        """Whether nothing is smoothed."""
        return self.kind == "none" or self.amount == 0

    @property
    def looks_ahead(self) -> int:
        """How many points behind a point change its smoothed value."""
        if self.is_none or self.kind == "ema":
            return 0
        return int(np.ceil(self.amount / 2 if self.kind == "mean" else self.amount * _SIGMAS)) + 1


NO_SMOOTHING = Smoothing()


def usual_spacing(x: NDArray[Any]) -> float:
    """Return the usual distance between two points: the median over the first ones that lie apart."""
    gaps = np.diff(x[:_SPACING_POINTS].astype(np.float64))
    gaps = gaps[gaps > 0]
    return float(np.median(gaps)) if len(gaps) else 1.0


@dataclass(slots=True)
class Carry:
    """Where an `ema` stands after its last point: what the next points go on from."""

    total: float = 0.0
    weight: float = 0.0
    place: float = np.nan


def ema(x: NDArray[Any], value: Floats, amount: float, spacing: float, carry: Carry | None = None) -> Floats:
    """Return the time-weighted exponential mean: a point `d` behind counts `amount ** (d / spacing)` times as much.

    It is divided by the sum of the weights, so it begins at the first value (no pull towards zero). NaN and ±Inf are
    left out; the curve goes on through them. Where `x` goes back, the distance counts as none.

    Args:
        x, value: Shape `(n,)`.
        amount: From 0 to below 1.
        spacing: The distance over which a weight falls to `amount`.
        carry: Where the points before these left off; changed to where these do.
    """
    carry = carry if carry is not None else Carry()
    if not len(value):
        return np.empty(0)
    place = x.astype(np.float64)
    gaps = np.diff(place, prepend=carry.place if np.isfinite(carry.place) else place[0])
    with np.errstate(all="ignore"):
        factor = np.power(amount, np.maximum(gaps, 0.0) / spacing)
    finite = np.isfinite(value)
    total = _recurrence(factor, np.where(finite, value, 0.0), carry.total)
    weight = _recurrence(factor, finite.astype(np.float64), carry.weight)
    carry.total, carry.weight, carry.place = float(total[-1]), float(weight[-1]), float(place[-1])
    with np.errstate(all="ignore"):
        return np.where(weight > 0, total / weight, np.nan)


def _recurrence(factor: Floats, given: Floats, before: float) -> Floats:
    """Return `s` with `s[i] = factor[i] * s[i - 1] + given[i]`, where `s[-1]` is `before`.

    Lanes of points go side by side, one step of all of them at a time; then what each lane begins with is added. So
    there is no division, and nothing that overflows.
    """
    count = len(given)
    if count <= 4 * _LANE:
        out = np.empty(count)
        state = before
        for row, (a, b) in enumerate(zip(factor.tolist(), given.tolist(), strict=True)):
            state = a * state + b
            out[row] = state
        return out
    lanes = -(-count // _LANE)
    padding = lanes * _LANE - count
    a = np.concatenate([factor, np.ones(padding)]).reshape(lanes, _LANE).T.copy()
    s = np.concatenate([given, np.zeros(padding)]).reshape(lanes, _LANE).T.copy()
    for row in range(1, _LANE):
        s[row] += a[row] * s[row - 1]
        a[row] *= a[row - 1]
    ends = _recurrence(a[-1], s[-1], before)
    s += a * np.concatenate([[before], ends[:-1]])
    return s.T.reshape(-1)[:count]


def running_mean(value: Floats, points: float) -> Floats:
    """Return the mean of the finite values among `points` around each point, fewer at the ends."""
    width = max(1, round(points))
    left, right = (width - 1) // 2, width // 2
    finite = np.isfinite(value)
    middle = float(value[finite].mean()) if finite.any() else 0.0  # sums of small numbers lose less
    total = np.concatenate([[0.0], np.cumsum(np.where(finite, value - middle, 0.0))])
    count = np.concatenate([[0], np.cumsum(finite)])
    rows = np.arange(len(value))
    low, high = np.maximum(rows - left, 0), np.minimum(rows + right + 1, len(value))
    number = count[high] - count[low]
    with np.errstate(all="ignore"):
        return np.where(number > 0, (total[high] - total[low]) / np.maximum(number, 1) + middle, np.nan)


def gaussian(value: Floats, sigma: float) -> Floats:
    """Return the mean around each point, weighted by a bell curve of `sigma` points; cut off at four of them."""
    radius = max(1, int(np.ceil(_SIGMAS * sigma)))
    radius = min(radius, max(1, len(value)))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    finite = np.isfinite(value)
    middle = float(value[finite].mean()) if finite.any() else 0.0
    total = _convolved(np.where(finite, value - middle, 0.0), kernel)
    weight = _convolved(finite.astype(np.float64), kernel)
    with np.errstate(all="ignore"):
        return np.where(weight > 1e-9, total / np.maximum(weight, 1e-9) + middle, np.nan)


def _convolved(value: Floats, kernel: Floats) -> Floats:
    """Return `np.convolve(value, kernel, "same")` for a kernel of odd length, piece by piece through the FFT."""
    radius = len(kernel) // 2
    if len(kernel) < 64 or len(value) < 2 * len(kernel):
        return np.convolve(value, kernel)[radius : radius + len(value)]
    size = max(_FFT_ROWS, 1 << (4 * len(kernel) - 1).bit_length())
    step = size - len(kernel) + 1
    spectrum = np.fft.rfft(kernel, size)
    out = np.zeros(len(value) + len(kernel) - 1)
    for start in range(0, len(value), step):
        piece = value[start : start + step]
        part = np.fft.irfft(np.fft.rfft(piece, size) * spectrum, size)[: len(piece) + len(kernel) - 1]
        out[start : start + len(part)] += part
    return out[radius : radius + len(value)]
