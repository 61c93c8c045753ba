"""What further trials can be expected to gain, by how the last ones went."""

from __future__ import annotations

import math
from collections.abc import Sequence


def expected_gain(losses: Sequence[float], *, best: float, trials: int = 1) -> float:
    """Return by how much further trials are expected to fall below the best loss so far.

    The newer half tells how the search does now. By how much its very best fall below the next best is taken to be
    exponential, as the tails of many distributions come to be; towards an optimum the tail is shorter, so that the
    true gain is rather smaller.

    Args:
        losses: Results, the oldest first; smaller is better.
        best: The best loss, which may be another one than theirs.
        trials: How many further trials.

    Returns:
        The gain in units of the losses; infinite below 3 of them.

    Source: Pickands, "Statistical Inference Using Extreme Order Statistics", Annals of Statistics 3(1), 1975.
    """
    if len(losses) < 3:
        return math.inf
    window = sorted(losses[-max(10, len(losses) // 2) :])
    count = max(2, min(len(window) // 4, 2 + round(math.sqrt(len(window)) / 2)))
    threshold = window[count]
    scale = sum(threshold - loss for loss in window[:count]) / count
    if not 0 < scale < math.inf:
        return 0.0
    return trials * count / len(window) * scale * math.exp(-(threshold - best) / scale)
