"""Points as arrays, apart by the writer that logged them, and how several portions become one series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runstone.runlog import format as fmt
from runstone.values import Series

SLOT = np.dtype([("step", "<i8"), ("wall", "<f8"), ("value", "<f8"), ("key", "<u4"), ("commit", "<u4")])
Slots = NDArray[np.void]


@dataclass(slots=True)
class Portion:
    """Points of one metric of one writer, in the order of the slots. Values are all of one kind.

    Attributes:
        writer: Who logged them.
        kind: A key type of `runlog.format`.
        slots: Shape `(n,)`, of `SLOT`; integers and bools lie in `value` as 64-bit integers.
        payloads: Shape `(n,)`, of `str`, for what lies beside the slots: texts, and records as JSON; else `None`.
    """

    writer: str
    kind: int
    slots: Slots
    payloads: NDArray[np.object_] | None = None

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.slots)

    def select(self, rows: Any) -> Portion:
        """Return some of the points: a slice, a mask or indices."""
        payloads = self.payloads[rows] if self.payloads is not None else None
        return Portion(self.writer, self.kind, self.slots[rows], payloads)

    @property
    def family(self) -> int:
        """What its kind is told apart by: numbers of all types are one series, texts and records are others."""
        return self.kind if self.kind in fmt.BESIDE else fmt.TYPE_FLOAT

    def values(self) -> NDArray[Any]:
        """Return the values in the type in which they were logged."""
        if self.payloads is not None:
            return self.payloads
        if self.kind == fmt.TYPE_FLOAT:
            return self.slots["value"]
        integers = self.slots["value"].view("<i8")
        return integers != 0 if self.kind == fmt.TYPE_BOOL else integers


def portion_of(writer: str, slots: Slots, parts: list[tuple[int, NDArray[np.intp]]]) -> Portion:
    """Return the numbers of one metric, which has several keys where it was logged as several types.

    Args:
        writer: Who logged them.
        slots: All points of the writer at hand.
        parts: Kind and rows of each key of the metric.
    """
    kinds = {kind for kind, _rows in parts}
    if len(kinds) == 1:
        rows = parts[0][1] if len(parts) == 1 else np.sort(np.concatenate([rows for _kind, rows in parts]))
        return Portion(writer, kinds.pop(), slots[rows])
    floats = slots.copy()
    for kind, rows in parts:
        if kind != fmt.TYPE_FLOAT:
            floats["value"][rows] = slots["value"].view("<i8")[rows].astype(np.float64)
    return Portion(writer, fmt.TYPE_FLOAT, floats[np.sort(np.concatenate([rows for _kind, rows in parts]))])


def first_step(portions: list[Portion]) -> int | None:
    """Return the first step that an attempt logged in a metric: of several writers' first steps the lowest."""
    first: dict[tuple[str, int], int] = {}
    for portion in portions:
        if len(portion):
            first.setdefault((portion.writer, portion.family), int(portion.slots["step"][0]))
    return min(first.values(), default=None)


def join(name: str, portions: list[Portion]) -> Series:
    """Return portions of one family as one series: in slot order within a writer, merged by time over writers."""
    portions = [portion for portion in portions if len(portion)]
    if not portions:
        empty = np.empty(0, SLOT)
        return Series(name, empty["step"], empty["value"], empty["wall"])
    steps = np.concatenate([portion.slots["step"] for portion in portions])
    walls = np.concatenate([portion.slots["wall"] for portion in portions])
    values: NDArray[Any]
    if len({portion.kind for portion in portions}) == 1:
        values = np.concatenate([portion.values() for portion in portions])
    else:
        values = np.concatenate([portion.values().astype(np.float64) for portion in portions])
    if len(portions) > 1:
        order = np.argsort(_times_that_only_grow(portions), kind="stable")
        steps, values, walls = steps[order], values[order], walls[order]
    return Series(name, np.ascontiguousarray(steps), np.ascontiguousarray(values), np.ascontiguousarray(walls))


def _times_that_only_grow(portions: list[Portion]) -> NDArray[np.float64]:
    """Return wall times to merge by: a clock that steps back must not reorder one writer's points."""
    last: dict[str, float] = {}
    parts = []
    for portion in portions:
        start = last.get(portion.writer, -np.inf)
        times = np.fmax.accumulate(np.concatenate(([start], portion.slots["wall"])))[1:]
        last[portion.writer] = float(times[-1])
        parts.append(times)
    return np.concatenate(parts)
