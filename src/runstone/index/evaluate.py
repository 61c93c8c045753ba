"""Conditions and orders over columns: which runs, and in which order. Knows arrays, no SQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runstone.index.cells import BOOL, NUMBER, Cells, Mask
from runstone.index.columns import Below, Columns, Source
from runstone.index.conditions import (
    All,
    AnyOf,
    Attribute,
    Compare,
    Condition,
    Contains,
    Environment,
    Field,
    Glob,
    HasValue,
    Like,
    Not,
    OneOf,
    Order,
    Param,
)
from runstone.index.patterns import glob, like

Slots = NDArray[np.int64]


class Evaluation:
    """One question to columns.

    Args:
        columns: As of now.
        connection: To the tables that the columns are of.
        now: Seconds since the epoch, the end of runs that go on.
    """

    def __init__(self, columns: Columns, connection: sqlite3.Connection, now: float) -> None:
        self._columns = columns
        self._connection = connection
        self._now = now

    def cells(self, source: Source) -> Cells:
        """Return the values of a field over all runs."""
        return self._columns.cells(self._connection, source, self._now)

    # --- conditions -------------------------------------------------------------------------------------------------

    def holds(self, condition: Condition) -> Mask:
        """Return for each place whether the condition holds; of places of runs that are gone it says nothing."""
        match condition:
            case All(conditions):
                found = np.ones(len(self._columns), np.bool_)
                for inner in conditions:
                    found &= self.holds(inner)
                return found
            case AnyOf(conditions):
                found = np.zeros(len(self._columns), np.bool_)
                for inner in conditions:
                    found |= self.holds(inner)
                return found
            case Not(inner):
                return ~self.holds(inner)
            case HasValue(field, or_below):
                found = self._having(field, lambda cells: np.ones(len(cells), np.bool_))
                if or_below and isinstance(field, Param | Environment):
                    found[self.cells(Below(field)).slots] = True
                return found
            case Compare(field, comparison, value):
                return self._having(field, lambda cells: cells.compared(comparison, value))
            case OneOf(field, values):
                return self._having(field, lambda cells: cells.is_among(values))
            case Like(field, pattern, ignore_case):
                matches = like(pattern, ignore_case=ignore_case)
                return self._having(field, lambda cells: cells.tested(matches))
            case Glob(field, pattern):
                matches = glob(pattern)
                return self._having(field, lambda cells: cells.tested(matches))
            case Contains(field, text):
                return self._having(field, lambda cells: cells.tested(lambda value: text in value))

    def _having(self, field: Field, test: Callable[[Cells], Mask]) -> Mask:
        cells = self.cells(field)
        found = np.zeros(len(self._columns), np.bool_)
        found[cells.slots[test(cells)]] = True
        return found

    def chosen(self, condition: Condition, *, deleted: bool | None, archived: bool | None) -> Slots:
        """Return the places of the runs for which a condition holds.

        Args:
            condition: What must hold.
            deleted: Whether they must be deleted, or must not; `None`: no matter.
            archived: The same of archived ones.
        """
        columns = self._columns
        found = columns.is_there & self.holds(condition)
        if deleted is not None:
            found &= columns.is_deleted == deleted
        if archived is not None:
            found &= columns.is_archived == archived
        return np.flatnonzero(found)

    # --- orders -----------------------------------------------------------------------------------------------------

    def ordered(self, slots: Slots, orders: Sequence[Order], end: int | None = None) -> Slots:
        """Return places in the order asked for, then newest first. What is missing, or NaN, comes last either way.

        Numbers come before text before bools. Of several values of a run, the least one counts.

        Args:
            slots: The places.
            orders: What to sort by.
            end: Only so many, from the first on, are needed; default: all.
        """
        keys: list[NDArray[Any]] = []
        for order in orders:
            kinds, ranks, _places = self.cells(order.field).by_run(len(self._columns))
            keys += [kinds[slots], -ranks[slots] if order.descending else ranks[slots]]
        keys.append(-self._columns.started_at[slots])
        if end is not None and end < len(slots):
            first = _candidates(keys[0], keys[1] if orders else None, end)
            slots, keys = slots[first], [key[first] for key in keys]
        found = np.lexsort(keys[::-1])
        is_tied = np.ones(max(0, len(found) - 1), np.bool_)
        for key in keys:
            is_tied &= key[found[1:]] == key[found[:-1]]
        if is_tied.any():
            found = found[np.lexsort((-self._id_ranks(slots)[found], _groups(is_tied)))]
        return slots[found]

    def _id_ranks(self, slots: Slots) -> NDArray[np.float64]:
        _kinds, ranks, _places = self.cells(Attribute("id")).by_run(len(self._columns))
        return ranks[slots]

    # --- groups -----------------------------------------------------------------------------------------------------

    def grouped(self, slots: Slots, fields: Sequence[Field]) -> tuple[NDArray[np.int64], list[tuple[object, ...]]]:
        """Return the number of the group of each place, and the values that each group shares, `None` for none.

        Of several values of a run, the least one counts.
        """
        parts, tables = [], []
        for field in fields:
            cells = self.cells(field)
            kinds, ranks, places = cells.by_run(len(self._columns))
            parts += [kinds[slots].astype(np.float64), ranks[slots]]
            tables.append((cells, places))
        _unique, first, group = np.unique(np.stack(parts, axis=1), axis=0, return_index=True, return_inverse=True)
        keys = []
        for slot in slots[first].tolist():
            keys.append(tuple(cells.value(int(at[slot])) if at[slot] >= 0 else None for cells, at in tables))
        return group.reshape(-1), keys

    def numbers(self, slots: Slots, field: Field) -> NDArray[np.float64]:
        """Return the number under a field at each place, NaN where there is none."""
        cells = self.cells(field)
        kinds, _ranks, places = cells.by_run(len(self._columns))
        is_number = (kinds == NUMBER) | (kinds == BOOL)
        values = np.where(is_number & (places >= 0), cells.numbers[places] if len(cells) else 0.0, np.nan)
        return np.asarray(values[slots], np.float64)


def _groups(is_tied: Mask) -> NDArray[np.int64]:
    """Return numbers that are equal for neighbours that are tied, and grow."""
    return np.concatenate([[0], np.cumsum(~is_tied)]).astype(np.int64)


def _candidates(major: NDArray[Any], minor: NDArray[Any] | None, count: int) -> Slots:
    """Return which rows may be among the first ones by the keys, those that equal the last one included.

    Args:
        major: Sorts first. Without `minor` it is the only key that is looked at.
        minor: Sorts those of equal `major`.
        count: How many are wanted; less than there are, and at least none.
    """
    if not count:
        return np.empty(0, np.int64)
    last = np.partition(major, count - 1)[count - 1]
    if minor is None:
        return np.flatnonzero(major <= last)
    is_last = major == last
    before = major < last
    left = count - int(before.sum())
    threshold = np.partition(minor[is_last], left - 1)[left - 1]
    return np.flatnonzero(before | (is_last & (minor <= threshold)))
