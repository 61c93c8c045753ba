"""Corrections of p-values for many comparisons at once. Whoever looks at twenty finds one below 0.05 by chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Correction = Literal["holm", "bh", "none"]
CORRECTIONS: tuple[Correction, ...] = ("holm", "bh", "none")


def correct(p_values: Sequence[float], method: Correction = "holm", *, comparisons: int | None = None) -> list[float]:
    """Return the corrected p-values, in the same order, each at most 1.

    Args:
        p_values: Of all comparisons that were made.
        method: `holm`: no false finding at all with the confidence; `bh`: only so large a share of the findings is
            false (Benjamini and Hochberg); `none`: as they are.
        comparisons: How many were made in all, where some have no p-value; default: as many as are given.

    Source: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scand. J. Statist. 6, 1979.
    Source: Benjamini and Hochberg, "Controlling the False Discovery Rate", J. R. Statist. Soc. B 57(1), 1995.
    """
    count = max(comparisons or 0, len(p_values))
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    found = list(p_values)
    if method == "holm":
        highest = 0.0
        for rank, place in enumerate(order):
            highest = max(highest, min(1.0, (count - rank) * p_values[place]))
            found[place] = highest
    elif method == "bh":
        lowest = 1.0
        for rank in range(len(order), 0, -1):
            place = order[rank - 1]
            lowest = min(lowest, p_values[place] * count / rank)
            found[place] = lowest
    return found
