"""Whether a classifier can tell the rows of a batch from those of the reference: shifts that no column shows alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runstone.errors import InvalidConfig
from runstone.monitoring.profile import Floats, Profile

LEAST_ROWS = 50
_MOST_ROWS = 2_000
_FOLDS = 5
_SEED = 20_264


@dataclass(frozen=True, slots=True)
class DomainTest:
    """How well rows of the batch can be told from those of the reference.

    Attributes:
        auc: Area under the ROC curve over rows that the classifier had not seen: 0.5 it cannot, 1 it always can.
        low, high: Its interval with 95 % confidence.
        p: How likely so high an area is where both are alike.
        rows: How many rows of both together it was tried with.
    """

    auc: float
    low: float
    high: float
    p: float
    rows: int


def tell_apart(before: Profile, after: Profile, features: Sequence[str]) -> DomainTest | None:
    """Train a classifier to tell two profiles' samples apart, in five folds.

    Args:
        before, after: The reference and the batch.
        features: What it sees: columns of both.

    Returns:
        `None` where one has fewer than fifty rows in its sample, or there is nothing to see.

    Raises:
        InvalidConfig: scikit-learn is not installed.

    Source: Lopez-Paz and Oquab, "Revisiting Classifier Two-Sample Tests", ICLR 2017.
    """
    names = [name for name in features if name in before.sample and name in after.sample]
    counts = [len(profile.sample[names[0]]) if names else 0 for profile in (before, after)]
    if min(counts) < LEAST_ROWS:
        return None
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier  # an extra
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise InvalidConfig("monitoring takes scikit-learn: pip install 'runstone[monitoring]'") from None
    table = np.column_stack([_numbers(before.sample[name], after.sample[name]) for name in names])
    draw = np.random.default_rng(_SEED)
    chosen = [draw.permutation(count)[:_MOST_ROWS] for count in counts]
    rows = np.concatenate([chosen[0], chosen[1] + counts[0]])
    is_new = np.repeat([False, True], [len(chosen[0]), len(chosen[1])])
    # Both are shuffled, so that every fifth of each is a fold; each row is judged by what has not seen it.
    folds = np.concatenate([np.arange(len(one)) % _FOLDS for one in chosen])
    areas, spread = [], 0.0
    with threadpool_limits(1):  # such small fits are slower with more
        for fold in range(_FOLDS):
            seen = folds != fold
            # Without weights of the classes, which the area does not depend on: they make binning slow.
            model = HistGradientBoostingClassifier(
                max_iter=40, max_leaf_nodes=8, learning_rate=0.15, min_samples_leaf=10, max_bins=63,
                early_stopping=False, random_state=0,
            )  # fmt: skip
            model.fit(table[rows[seen]], is_new[seen])
            said = model.decision_function(table[rows[~seen]])
            area, variance = _area(said, is_new[~seen])
            areas.append(area)
            spread += variance
    auc = math.fsum(areas) / _FOLDS
    # The folds are not independent: each pair of rows counts twice, the one as seen and the other as new, and the other
    # way round. So the variance of the mean is up to twice that of independent folds (without a shift 1.5 to 1.8 times
    # were measured), and the plain one takes three of a hundred batches for shifted that are not.
    error = math.sqrt(2 * spread) / _FOLDS
    p = 0.5 * math.erfc((auc - 0.5) / error / math.sqrt(2)) if error else 1.0
    half = 1.96 * _error_of(auc, len(chosen[0]), len(chosen[1]))
    return DomainTest(auc, max(0.0, auc - half), min(1.0, auc + half), p, len(rows))


def _numbers(before: Sequence[Any], after: Sequence[Any]) -> Floats:
    """Return a column of both as numbers: categories by how frequent they are, nothing as NaN."""
    values = [*before, *after]
    if any(isinstance(value, str) for value in values):
        counts: dict[Any, int] = {}
        for value in values:
            counts[value] = counts.get(value, 0) + 1
        ranked = sorted((value for value in counts if value is not None), key=lambda value: (-counts[value], value))
        order: Mapping[Any, float] = {value: float(place) for place, value in enumerate(ranked)}
        return np.array([order.get(value, math.nan) for value in values])
    return np.array([math.nan if value is None else float(value) for value in values])


def _area(scores: Floats, is_new: Any) -> tuple[float, float]:
    """Return the area under the ROC curve and its variance where scores say nothing, with ties."""
    ups, downs = scores[is_new], np.sort(scores[~is_new])
    below = np.searchsorted(downs, ups, side="left") + np.searchsorted(downs, ups, side="right")
    area = float(below.mean() / 2 / len(downs))
    total = len(scores)
    _values, counts = np.unique(scores, return_counts=True)
    tied = float((counts.astype(np.float64) ** 3 - counts).sum() / (total * (total - 1)))
    return area, (total + 1 - tied) / (12 * len(ups) * len(downs))


def _error_of(auc: float, first: int, second: int) -> float:
    """Return the standard error of an area.

    Source: Hanley and McNeil, "The Meaning and Use of the Area under a ROC Curve", Radiology 143(1), 1982.
    """
    one, other = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (first - 1) * (one - auc**2) + (second - 1) * (other - auc**2)
    return math.sqrt(max(0.0, variance) / (first * second))
