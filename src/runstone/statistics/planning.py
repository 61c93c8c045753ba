"""How many more values would settle a question, if the difference is what it looks like."""

from __future__ import annotations

import math

from runstone.statistics.gaps import welch
from runstone.statistics.student import shifted_share, t_quantile

MOST = 10_000
"""More than so many values of each group are not asked for."""


def power(
    effect: float,
    sd: float,
    other_sd: float,
    count: int,
    other_count: int,
    *,
    alpha: float,
    sd_of_pairs: float | None = None,
) -> float:
    """Return how likely a two-sided test finds a difference.

    Args:
        effect: The difference of the means.
        sd, other_sd: Standard deviations of the groups.
        count, other_count: How many values each has, 2 or more.
        alpha: Below which p the difference counts as found.
        sd_of_pairs: Standard deviation of the differences of partners, for a paired test of `count` pairs.

    Source: Cohen, "Statistical Power Analysis for the Behavioral Sciences", 2nd edition, 1988.
    """
    if sd_of_pairs is not None:
        spread, freedom = sd_of_pairs / math.sqrt(count), float(count - 1)
    else:
        spread, freedom = welch(sd**2, count, other_sd**2, other_count)
    if spread == 0:
        return 1.0 if effect else 0.0
    bound, shift = t_quantile(1 - alpha / 2, freedom), abs(effect) / spread
    if shift > bound + 30:
        return 1.0
    return 1 - shifted_share(bound, freedom, shift) + shifted_share(-bound, freedom, shift)


def more_needed(
    effect: float,
    sd: float,
    other_sd: float,
    count: int,
    other_count: int,
    *,
    alpha: float = 0.05,
    wanted: float = 0.8,
    sd_of_pairs: float | None = None,
) -> int | None:
    """Return how many more values of each group make a test find the difference with the probability `wanted`.

    Args:
        effect, sd, other_sd, count, other_count, alpha, sd_of_pairs: As in `power`.
        wanted: How likely it is to be found.

    Returns:
        0 where there are enough; `None` where more than `MOST` would be needed.
    """

    def suffices(more: int) -> bool:
        found = power(effect, sd, other_sd, count + more, other_count + more, alpha=alpha, sd_of_pairs=sd_of_pairs)
        return found >= wanted

    if effect == 0 or not suffices(MOST):
        return None
    low, high = -1, 0  # `low` does not suffice, `high` may
    while not suffices(high):
        low, high = high, max(1, 2 * high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high
