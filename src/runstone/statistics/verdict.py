"""Which of several groups is better, said only where the values bear it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from runstone.statistics.correction import Correction, correct
from runstone.statistics.gaps import Difference, Test, difference
from runstone.statistics.planning import more_needed

Word = Literal["better", "equal", "open", "none"]
_LEAST_PAIRS = 3
# Partners must be most of the values: what has none would be lost.
_PAIRED_SHARE = 0.75
# With more groups, and no baseline, only the best is compared with each; p-values are corrected for all pairs.
_MOST_COMPARED_ALL = 30


@dataclass(frozen=True, slots=True)
class Group:
    """Values under one label.

    Attributes:
        label: What it is called.
        values: Finite numbers.
        partners: What each value shares with one of another group, such as its seed; `None` where that is not known.
    """

    label: str
    values: tuple[float, ...]
    partners: tuple[Hashable, ...] | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What can be said of two groups.

    Attributes:
        winner, loser: Labels; the winner's mean is better, whether or not that can be relied on.
        word: `better`: the winner is, with the confidence asked for; `equal`: they differ by less than the margin;
            `open`: not settled; `none`: nothing can be said, see `reason`.
        effect: How much better the mean of the winner is, 0 or more.
        low, high: Bounds of the effect, `None` where there are none; below 0 the loser would be the better one.
        p, corrected_p: How likely such a difference is by chance, if the true one is 0 (the margin, where there is
            one), alone and among all comparisons; or `None`.
        size, size_low, size_high: The effect in standard deviations (Hedges' g); or `None`.
        wins: Share of pairs of values in which the winner's is better; ties count half.
        more: How many more values of each would settle it with a probability of 80 %, if the difference is as large as
            it looks; 0: it is settled; `None`: more than 10,000, or nobody can tell.
        is_paired: Whether values were compared partner by partner.
        count, other_count: Values of the winner and of the loser that were compared.
        reason: Why nothing can be said; empty otherwise.
    """

    winner: str
    loser: str
    word: Word
    effect: float
    low: float | None
    high: float | None
    p: float | None
    corrected_p: float | None
    size: float | None
    size_low: float | None
    size_high: float | None
    wins: float
    more: int | None
    is_paired: bool
    count: int
    other_count: int
    reason: str = ""


def judge(
    groups: Sequence[Group],
    *,
    is_maximized: bool,
    baseline: str | None = None,
    confidence: float = 0.95,
    margin: float = 0.0,
    test: Test = "t",
    correction: Correction = "holm",
    most: int | None = None,
) -> list[Verdict]:
    """Compare groups two by two, the best mean first.

    Args:
        groups: With one value or more each, and labels of their own.
        is_maximized: Whether a higher value is better.
        baseline: Label of the group that all others are compared with; default: each with each. p-values are corrected
            for all these comparisons, also where `most` leaves some out: which ones are shown was chosen by looking.
        confidence: What a verdict is to have.
        margin: What a difference must exceed to matter. Above 0, groups can also be found `equal`.
        test: See `difference`.
        correction: See `correct`.
        most: At most so many verdicts: those of the best groups.

    Raises:
        InvalidConfig: SciPy is not installed.
    """
    sign = 1.0 if is_maximized else -1.0
    turned = [Group(group.label, tuple(sign * value for value in group.values), group.partners) for group in groups]
    ranked = sorted(turned, key=lambda group: -float(np.mean(group.values)))
    made = len(ranked) * (len(ranked) - 1) // 2
    if baseline is not None:
        made = len(ranked) - 1
        place = next(place for place, group in enumerate(ranked) if group.label == baseline)
        base = ranked[place]
        pairs = [(group, base) for group in ranked[:place]] + [(base, group) for group in ranked[place + 1 :]]
    else:
        first = ranked if len(ranked) <= _MOST_COMPARED_ALL else ranked[:1]
        pairs = [(left, right) for place, left in enumerate(first) for right in ranked[place + 1 :]]
    found = [_compare(left, right, confidence, margin, test) for left, right in pairs]
    made -= sum(one.p is None for one, _sd in found)
    known = [place for place, (one, _sd) in enumerate(found) if one.p is not None]
    p_values = correct([float(found[place][0].p or 0.0) for place in known], correction, comparisons=made)
    corrected = dict(zip(known, p_values, strict=True))
    alpha = 1 - confidence
    alpha_each = alpha if correction == "none" else alpha / max(1, made)
    return [
        _verdict(*pair, *found[place], corrected.get(place), margin, alpha, alpha_each)
        for place, pair in enumerate(pairs[:most])
    ]


def _compare(
    left: Group, right: Group, confidence: float, margin: float, test: Test
) -> tuple[Difference, float | None]:
    """Return how much better the first group is, and the standard deviation of the gaps of partners where paired."""
    ours, theirs = left.values, right.values
    partners = _partners(left, right)
    # Where those with partners say the opposite of all, all are compared.
    is_paired = partners is not None and float(np.subtract(*partners).mean()) >= 0
    if partners is not None and is_paired:
        ours, theirs = partners
    found = difference(ours, theirs, is_paired=is_paired, confidence=confidence, test=test)
    if margin > 0 and found.p is not None:
        beyond = difference([value - margin for value in ours], theirs, is_paired=is_paired, test=test)
        found = replace(found, p=beyond.p if found.effect > margin else 1.0)
    return found, float(np.subtract(ours, theirs).std(ddof=1)) if is_paired else None


def _partners(left: Group, right: Group) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return the values that have partners, in the same order; `None` where they are not compared so."""
    if left.partners is None or right.partners is None:
        return None
    one: Mapping[Hashable, float] = dict(zip(left.partners, left.values, strict=True))
    other: Mapping[Hashable, float] = dict(zip(right.partners, right.values, strict=True))
    if len(one) < len(left.values) or len(other) < len(right.values):
        return None  # a seed that occurs twice has no one partner
    shared = [key for key in one if key in other]
    if len(shared) < max(_LEAST_PAIRS, math.ceil(_PAIRED_SHARE * max(len(one), len(other)))):
        return None
    return tuple(one[key] for key in shared), tuple(other[key] for key in shared)


def _verdict(
    left: Group,
    right: Group,
    found: Difference,
    sd_of_pairs: float | None,
    corrected_p: float | None,
    margin: float,
    alpha: float,
    alpha_each: float,
) -> Verdict:
    interval, size = found.interval, found.size
    verdict = Verdict(
        winner=left.label,
        loser=right.label,
        word="open",
        effect=found.effect,
        low=None if interval is None else interval.low,
        high=None if interval is None else interval.high,
        p=found.p,
        corrected_p=corrected_p,
        size=None if size is None else size.value,
        size_low=None if size is None else size.low,
        size_high=None if size is None else size.high,
        wins=found.higher,
        more=None,
        is_paired=found.is_paired,
        count=found.count,
        other_count=found.other_count,
    )
    if interval is None or corrected_p is None:
        few = [group.label for group in (left, right) if len(group.values) < 2]
        lack = f"{' and '.join(few)} {'has' if len(few) == 1 else 'have'} one value"
        return replace(verdict, word="none", reason=f"{lack}: nobody knows how much the next would differ")
    if corrected_p < alpha:
        return replace(verdict, word="better", more=0)
    if -margin < interval.low and interval.high < margin:
        return replace(verdict, word="equal", more=0)
    more = more_needed(
        max(0.0, found.effect - margin),
        float(np.std(left.values, ddof=1)),
        float(np.std(right.values, ddof=1)),
        found.count,
        found.other_count,
        alpha=alpha_each,
        sd_of_pairs=sd_of_pairs,
    )
    # What is open takes one more at least, though it may have what it should take.
    return replace(verdict, more=None if more is None else max(1, more))
