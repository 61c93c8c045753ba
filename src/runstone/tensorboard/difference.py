"""Which points are new: the one rule by which mirroring and importing never write a point twice. Knows arrays only."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def is_new(step: ArrayLike, value: ArrayLike, *, standing: tuple[ArrayLike, ArrayLike]) -> NDArray[np.bool_]:
    """Return for each point whether it is not among `standing`, repeated points counted.

    A point is its step and its value to the bit; where equal ones are there more often than they stand, the last of
    them are new. Wall times are not compared: a sealed run keeps them to the millisecond.

    Args:
        step, value: Of the points of one metric, each of shape `(n,)`, in the order in which they were logged.
        standing: Step and value of the points that are there already, of any number.
    """
    ours, theirs = _keys(step, value), _keys(*standing)
    keys = np.concatenate([theirs, ours])
    order = np.lexsort(keys.T)  # stable: of equal points those that stand come first
    ordered = keys[order]
    begins = np.ones(len(keys), np.bool_)
    begins[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    group = np.cumsum(begins) - 1
    is_ours = order >= len(theirs)
    standing_in = np.bincount(group[~is_ours], minlength=int(begins.sum()))
    place = np.arange(len(keys)) - np.flatnonzero(begins)[group]
    result = np.empty(len(ours), np.bool_)
    # of our points in a group, as many stand already as there are standing ones
    result[order[is_ours] - len(theirs)] = (place - standing_in[group] >= standing_in[group])[is_ours]
    return result


def _keys(step: ArrayLike, value: ArrayLike) -> NDArray[np.int64]:
    values = np.array(value, np.float64)
    values[np.isnan(values)] = np.nan  # one NaN is as good as another
    return np.stack([np.asarray(step, np.int64), values.view(np.int64)], 1)
