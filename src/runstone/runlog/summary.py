"""What metrics come down to, computed as points come, in any number of portions, with the same answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runstone.values import MetricSummary

_COLUMNS = {
    "count": np.int64,
    "nan_count": np.int64,
    "first_step": np.int64,
    "last_step": np.int64,
    "last": np.float64,
    "last_at": np.float64,
    "min": np.float64,
    "min_step": np.int64,
    "max": np.float64,
    "max_step": np.int64,
    "total": np.float64,
    "latest_at": np.float64,
}
_SUMMED_UP = tuple(_COLUMNS)[:-1]
_FEW_GROUPS, _MANY_POINTS = 64, 100
"""Few long stretches are summed one by one, others all together; either way point by point."""
_BLOCK_ROWS = 256


class Figures:
    """Running figures of many metrics, one row each.

    Sums are made in the order of the points, never pairwise, so the mean does not depend on how the points were cut
    into portions.
    """

    __slots__ = tuple(_COLUMNS)

    count: NDArray[np.int64]
    nan_count: NDArray[np.int64]
    first_step: NDArray[np.int64]
    last_step: NDArray[np.int64]
    last: NDArray[np.float64]
    last_at: NDArray[np.float64]
    min: NDArray[np.float64]
    min_step: NDArray[np.int64]
    max: NDArray[np.float64]
    max_step: NDArray[np.int64]
    total: NDArray[np.float64]
    latest_at: NDArray[np.float64]
    """Highest wall time, which is not that of the last point where the clock went back."""

    def __init__(self, rows: int = 0) -> None:
        for name, kind in _COLUMNS.items():
            setattr(self, name, np.zeros(rows, kind))

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.count)

    def grow(self, rows: int) -> None:
        """Have at least so many rows."""
        more = max(0, rows - len(self))
        for name, kind in _COLUMNS.items():
            setattr(self, name, np.concatenate([getattr(self, name), np.zeros(more, kind)]))

    def add(
        self,
        row: NDArray[np.int64] | int,
        step: NDArray[np.int64],
        value: NDArray[Any],
        wall_s: NDArray[np.float64],
    ) -> None:
        """Take in points, those of a metric in the order in which they were logged.

        Args:
            row: Whose each point is, shape `(n,)`; one number where all are of one metric.
            step, value, wall_s: As in `Series`; values that are no floats are taken as such.
        """
        if not len(step):
            return
        value = value.astype(np.float64, copy=False)
        if isinstance(row, int):
            self._add(np.array([row]), np.array([0, len(step)]), step, value, wall_s)
            return
        if (row[1:] < row[:-1]).any():
            order = np.argsort(row.astype(np.uint16) if int(row.max()) < 1 << 16 else row, kind="stable")
            row, step, value, wall_s = row[order], step[order], value[order], wall_s[order]
        bounds = _bounds(row)
        self._add(row[bounds[:-1]], bounds, step, value, wall_s)

    def _add(
        self,
        row: NDArray[np.int64],
        bounds: NDArray[np.int64],
        step: NDArray[np.int64],
        value: NDArray[np.float64],
        wall_s: NDArray[np.float64],
    ) -> None:
        """Take in points that lie metric by metric; `bounds` says where each begins, and where the last ends."""
        starts, sizes = bounds[:-1], np.diff(bounds)
        low, high = np.minimum.reduceat(step, starts), np.maximum.reduceat(step, starts)
        is_new = self.count[row] == 0
        self.first_step[row] = np.where(is_new, low, np.minimum(self.first_step[row], low))
        self.last_step[row] = np.where(is_new, high, np.maximum(self.last_step[row], high))
        latest = np.fmax.reduceat(wall_s, starts)
        self.latest_at[row] = np.where(is_new, latest, np.fmax(self.latest_at[row], latest))
        self.count[row] += sizes
        self.last[row], self.last_at[row] = value[bounds[1:] - 1], wall_s[bounds[1:] - 1]
        is_nan = np.isnan(value)
        if is_nan.any():
            self.nan_count[row] += np.add.reduceat(is_nan.astype(np.int64), starts)
            group = np.repeat(np.arange(len(row)), sizes)[~is_nan]
            if not len(group):
                return
            step, value = step[~is_nan], value[~is_nan]
            bounds = _bounds(group)
            row = row[group[bounds[:-1]]]
        self._add_numbers(row, bounds, step, value)

    def _add_numbers(
        self,
        row: NDArray[np.int64],
        bounds: NDArray[np.int64],
        step: NDArray[np.int64],
        value: NDArray[np.float64],
    ) -> None:
        starts, sizes = bounds[:-1], np.diff(bounds)
        had_none = self.count[row] - self.nan_count[row] == sizes
        lowest = _first_place(value, np.minimum.reduceat(value, starts), bounds)
        highest = _first_place(value, np.maximum.reduceat(value, starts), bounds)
        is_lower = had_none | (value[lowest] < self.min[row])
        is_higher = had_none | (value[highest] > self.max[row])
        self.min[row[is_lower]], self.min_step[row[is_lower]] = value[lowest[is_lower]], step[lowest[is_lower]]
        self.max[row[is_higher]], self.max_step[row[is_higher]] = value[highest[is_higher]], step[highest[is_higher]]
        with np.errstate(all="ignore"):  # ±Inf and overflow are values like any other here
            if len(row) <= _FEW_GROUPS and len(value) >= _MANY_POINTS * len(row):
                for one, start, end in zip(row.tolist(), starts.tolist(), bounds[1:].tolist(), strict=True):
                    self.total[one] = np.cumsum(np.concatenate(([self.total[one]], value[start:end])))[-1]
            else:
                np.add.at(self.total, np.repeat(row, sizes), value)

    def summary(self, row: int, name: str) -> MetricSummary:
        """Return the figures of one metric, which has points, as they stand."""
        return summary_of(name, *(getattr(self, column)[row].item() for column in _SUMMED_UP))


def summary_of(
    name: str,
    count: int,
    nan_count: int,
    first_step: int,
    last_step: int,
    last: float,
    last_at: float,
    lowest: float,
    lowest_step: int,
    highest: float,
    highest_step: int,
    total: float,
) -> MetricSummary:
    """Return one row of `Figures` as a summary."""
    numbers = count - nan_count
    if not numbers:
        return MetricSummary(name, count, nan_count, first_step, last_step, last, *(None,) * 5, last_at)
    extremes = (lowest, lowest_step, highest, highest_step)
    return MetricSummary(name, count, nan_count, first_step, last_step, last, *extremes, total / numbers, last_at)


class Summaries(Mapping[str, MetricSummary]):
    """What each metric comes down to, by name, in alphabetical order; each is made when it is asked for.

    Args:
        rows: Row of each metric that has points, in alphabetical order of the names.
        figures: Their figures.
    """

    def __init__(self, rows: Mapping[str, int], figures: Figures) -> None:
        self._rows = rows
        self.figures = figures
        self._at_hand: tuple[int, list[tuple[Any, ...]]] = (-1, [])

    def __getitem__(self, name: str) -> MetricSummary:
        """Return what one metric comes down to."""
        block, place = divmod(self._rows[name], _BLOCK_ROWS)
        known, values = self._at_hand
        if block != known:  # neighbours are asked for one after the other, and cost less together
            rows = slice(block * _BLOCK_ROWS, (block + 1) * _BLOCK_ROWS)
            values = list(zip(*(getattr(self.figures, column)[rows].tolist() for column in _SUMMED_UP), strict=True))
            self._at_hand = block, values
        return summary_of(name, *values[place])

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the figures as arrays by the names of `MetricSummary`, 0 where a metric without a number has none."""
        rows = np.fromiter(self._rows.values(), np.int64, len(self._rows))
        columns = {column: getattr(self.figures, column)[rows] for column in _SUMMED_UP}
        numbers = columns["count"] - columns["nan_count"]
        with np.errstate(all="ignore"):
            columns["mean"] = np.where(numbers > 0, columns.pop("total") / np.maximum(numbers, 1), 0.0)
        return columns

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self._rows)

    def __len__(self) -> int:
        """Return the number of metrics."""
        return len(self._rows)

    def __contains__(self, name: object) -> bool:
        """Return whether the metric has points."""
        return name in self._rows

    def __repr__(self) -> str:
        """Show it as the dict that it stands for."""
        return repr(dict(self))


def _bounds(row: NDArray[Any]) -> NDArray[np.int64]:
    """Return where each stretch of equal numbers begins, and where the last ends."""
    return np.concatenate([[0], np.flatnonzero(row[1:] != row[:-1]) + 1, [len(row)]])


def _first_place(value: NDArray[np.float64], wanted: NDArray[np.float64], bounds: NDArray[np.int64]) -> NDArray[Any]:
    """Return, for each stretch, the first place of the wanted value, which is in it."""
    if len(wanted) == 1:
        return np.array([np.argmax(value == wanted[0])])
    places = np.flatnonzero(value == np.repeat(wanted, np.diff(bounds)))
    return places[np.searchsorted(places, bounds[:-1])]
