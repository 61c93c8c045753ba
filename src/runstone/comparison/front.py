"""The Pareto front: what is beaten by nothing else in every respect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from runstone.comparison.measure import Measure


@dataclass(frozen=True, slots=True)
class Front:
    """Points under several measures.

    Attributes:
        measures: Two or more.
        points: By run id, or by label of a group, one value a measure; those that lack one are left out.
        best: Keys of the points that no other point beats or equals in all measures and beats in one.
    """

    measures: tuple[Measure, ...]
    points: Mapping[str, tuple[float, ...]]
    best: tuple[str, ...]


def front_of(measures: Sequence[Measure], values: Sequence[Mapping[str, float]]) -> Front:
    """Return the front.

    Args:
        measures: Two or more.
        values: For each measure, values by key.
    """
    keys = [key for key in values[0] if all(np.isfinite(column.get(key, np.nan)) for column in values)]
    points = {key: tuple(column[key] for column in values) for key in keys}
    if not keys:
        return Front(tuple(measures), {}, ())
    signs = np.array([1.0 if measure.is_maximized else -1.0 for measure in measures])
    table = np.array([points[key] for key in keys]) * signs
    best = []
    for place, row in enumerate(table):
        is_beaten = bool(((table >= row).all(axis=1) & (table > row).any(axis=1)).any())
        if not is_beaten:
            best.append(keys[place])
    first = {key: points[key][0] * signs[0] for key in best}
    return Front(tuple(measures), points, tuple(sorted(best, key=lambda key: -first[key])))
