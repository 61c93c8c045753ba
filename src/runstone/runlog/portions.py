"""Points as arrays, apart by the writer that logged them, and how several portions become one series."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runstone.runlog import format as fmt
from runstone.values import Series

# The value as bits: a copy through a float register may change a signalling NaN.
SLOT = np.dtype([("step", "<i8"), ("wall", "<f8"), ("value", "<i8"), ("key", "<u4"), ("commit", "<u4")])
Slots = NDArray[np.void]


@dataclass(slots=True)
class Portion:
    """Points of one metric of one writer, in the order of the slots. Values are all of one kind.

    Attributes:
        writer: Who logged them.
        kind: A key type of `runlog.format`.
        step: int64, shape `(n,)`.
        wall_s: float64, shape `(n,)`.
        bits: int64, shape `(n,)`: integers as they are, floats bit by bit.
        payloads: Shape `(n,)`, of `str`, for what lies beside the slots: texts, and records as JSON; else `None`.
    """

    writer: str
    kind: int
    step: NDArray[np.int64]
    wall_s: NDArray[np.float64]
    bits: NDArray[np.int64]
    payloads: NDArray[np.object_] | None = None

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.step)

    def select(self, rows: Any) -> Portion:
        """Return some of the points: a slice, a mask or indices."""
        payloads = self.payloads[rows] if self.payloads is not None else None
        return Portion(self.writer, self.kind, self.step[rows], self.wall_s[rows], self.bits[rows], payloads)

    @property
    def family(self) -> int:
        """What its kind is told apart by: see `family_of`."""
        return family_of(self.kind)

    def values(self) -> NDArray[Any]:
        """Return the values in the type in which they were logged."""
        if self.payloads is not None:
            return self.payloads
        if self.kind == fmt.TYPE_FLOAT:
            return self.bits.view(np.float64)
        return self.bits != 0 if self.kind == fmt.TYPE_BOOL else self.bits


def family_of(kind: int) -> int:
    """Return what kinds are told apart by: numbers of all types are one series, texts and records are others."""
    return kind if kind in fmt.BESIDE else fmt.TYPE_FLOAT


def as_floats(bits: NDArray[np.int64], is_integer: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return numbers of several types as floats, bit by bit.

    Args:
        bits: What the slots hold.
        is_integer: Which of them are integers or bools.
    """
    return np.where(is_integer, bits.astype(np.float64).view(np.int64), bits) if is_integer.any() else bits


def common_kind(kinds: set[int]) -> int:
    """Return the kind under which numbers of these kinds are one portion: their own, or floats."""
    return kinds.copy().pop() if len(kinds) == 1 else fmt.TYPE_FLOAT


def join(name: str, portions: list[Portion], attempt_of: Callable[[str], int] = lambda _writer: 1) -> Series:
    """Return portions of one family as one series.

    Points lie in slot order within a writer; writers of an attempt are merged by time, and attempts come one after
    the other, whatever the clocks of their hosts say. A single portion gives its arrays away, unless they may not be
    written to.

    Args:
        name: Of the metric.
        portions: Its points.
        attempt_of: Returns the attempt to which a writer belongs.
    """
    portions = sorted((portion for portion in portions if len(portion)), key=lambda one: attempt_of(one.writer))
    if not portions:
        return Series(name, np.empty(0, np.int64), np.empty(0, np.float64), np.empty(0, np.float64))
    if len(portions) == 1:
        only = portions[0]
        return Series(name, _writeable(only.step), _writeable(only.values()), _writeable(only.wall_s))
    steps = np.concatenate([portion.step for portion in portions])
    walls = np.concatenate([portion.wall_s for portion in portions])
    values: NDArray[Any]
    if len({portion.kind for portion in portions}) == 1:
        values = np.concatenate([portion.values() for portion in portions])
    else:
        values = np.concatenate([portion.values().astype(np.float64) for portion in portions])
    orders, before = [], 0
    for _attempt, group in itertools.groupby(portions, key=lambda one: attempt_of(one.writer)):
        times = _times_that_only_grow(list(group))
        orders.append(np.argsort(times, kind="stable") + before)
        before += len(times)
    order = np.concatenate(orders)
    return Series(name, steps[order], values[order], walls[order])


def _writeable(column: NDArray[Any]) -> NDArray[Any]:
    return column if column.flags.writeable else column.copy()


def _times_that_only_grow(portions: list[Portion]) -> NDArray[np.float64]:
    """Return wall times to merge by: a clock that steps back must not reorder one writer's points."""
    last: dict[str, float] = {}
    parts = []
    for portion in portions:
        start = last.get(portion.writer, -np.inf)
        times = np.fmax.accumulate(np.concatenate(([start], portion.wall_s)))[1:]
        last[portion.writer] = float(times[-1])
        parts.append(times)
    return np.concatenate(parts)
