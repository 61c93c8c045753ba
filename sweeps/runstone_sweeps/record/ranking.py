"""Which of several results is better, also by several metrics at once. Knows only numbers."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TypeVar

from runstone_sweeps.spec.options import Aggregate

T = TypeVar("T")


def aggregate(values: Sequence[float], how: Aggregate, goal: str) -> float:
    """Return what several results of one point come to.

    Args:
        values: At least one.
        how: By which rule; `worst` and `best` look at the goal.
        goal: `minimize` or `maximize`.
    """
    if how == "mean":
        return statistics.fmean(values)
    if how == "median":
        return statistics.median(values)
    return max(values) if (goal == "maximize") == (how == "best") else min(values)


def first_key(values: Sequence[float], goals: Sequence[str]) -> tuple[float, ...]:
    """Return values such that smaller is better; as tuples they are ordered by the first metric."""
    return tuple(-value if goal == "maximize" else value for value, goal in zip(values, goals, strict=False))


def is_dominated(key: Sequence[float], other: Sequence[float]) -> bool:
    """Tell whether `other` is at least as good by every metric and better by one."""
    return all(b <= a for a, b in zip(key, other, strict=True)) and tuple(key) != tuple(other)


def fronts(keyed: Sequence[tuple[tuple[float, ...], T]]) -> list[list[T]]:
    """Return results in fronts: the first is dominated by none, each further one only by those before.

    Args:
        keyed: `first_key` and result, ordered by the key.

    Source: Zhang et al., "An Efficient Approach to Nondominated Sorting for Evolutionary Multiobjective Optimization",
    IEEE Transactions on Evolutionary Computation 19(2), 2015 (the sequential search).
    """
    found: list[list[tuple[tuple[float, ...], T]]] = []
    for key, result in keyed:
        for front in found:
            # The newest members are the likeliest to dominate: they are next to it in order.
            if not any(is_dominated(key, other) for other, _ in reversed(front)):
                front.append((key, result))
                break
        else:
            found.append([(key, result)])
    return [[result for _, result in front] for front in found]
