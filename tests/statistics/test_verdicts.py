"""A verdict is given where the values bear it, and no oftener than it says; where they do not, it says what would."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from runstone.errors import InvalidConfig
from runstone.statistics import Group, Verdict, difference, judge, more_needed, power, summarize

pytest.importorskip("scipy")
IS_SOAK = os.environ.get("RUNSTONE_SOAK") == "1"
TRIES = 20_000 if IS_SOAK else 600
Array = NDArray[np.float64]
Law = Callable[[np.random.Generator, int], Array]


def limit(share: float, tries: int) -> float:
    """How often something of this probability may happen: four standard deviations."""
    return share + 4 * math.sqrt(share * (1 - share) / tries)


def normal(draw: np.random.Generator, count: int) -> Array:
    return draw.normal(0, 1, count)


def skewed(draw: np.random.Generator, count: int) -> Array:
    return np.exp(draw.normal(0, 0.5, count))


def wide(draw: np.random.Generator, count: int) -> Array:
    return draw.normal(0, 4, count)


@pytest.mark.soak
@pytest.mark.parametrize("counts", [(3, 3), (5, 5), (10, 4)])
@pytest.mark.parametrize("laws", [(normal, normal), (normal, wide), (skewed, skewed)], ids=["same", "wider", "skewed"])
def test_equal_groups_are_seldom_told_apart(counts: tuple[int, int], laws: tuple[Law, Law]) -> None:
    """With few skewed values in groups of unlike size the error is known to be somewhat above what is said."""
    draw = np.random.default_rng(17)
    found = sum((difference(laws[0](draw, counts[0]), laws[1](draw, counts[1])).p or 1.0) < 0.05 for _ in range(TRIES))
    allowed = 0.06 if laws[0] is normal else 0.08
    assert found / TRIES <= limit(allowed, TRIES)


@pytest.mark.soak
def test_equal_partners_are_seldom_told_apart() -> None:
    draw = np.random.default_rng(18)
    found = 0
    for _ in range(TRIES):
        common = draw.normal(0, 3, 5)
        one, other = common + draw.normal(0, 1, 5), common + draw.normal(0, 1, 5)
        found += (difference(one, other, is_paired=True).p or 1.0) < 0.05
    assert found / TRIES == pytest.approx(0.05, abs=limit(0.05, TRIES) - 0.05)


@pytest.mark.soak
def test_the_permutation_test_errs_no_oftener_than_it_says() -> None:
    draw = np.random.default_rng(19)
    tries = TRIES // 4
    found = sum(
        (difference(skewed(draw, 6), skewed(draw, 6), test="permutation").p or 1.0) < 0.05 for _ in range(tries)
    )
    assert found / tries <= limit(0.05, tries)


@pytest.mark.soak
@pytest.mark.parametrize("correction", ["holm", "none"])
def test_among_many_equal_groups_none_is_called_better(correction: str) -> None:
    draw = np.random.default_rng(20)
    tries = TRIES // 4
    found = 0
    for _ in range(tries):
        groups = [Group(str(place), tuple(draw.normal(0, 1, 5))) for place in range(6)]
        verdicts = judge(groups, is_maximized=True, correction="holm" if correction == "holm" else "none")
        found += any(verdict.word == "better" for verdict in verdicts)
    if correction == "holm":
        assert found / tries <= limit(0.05, tries)
    else:  # the test can fail: without a correction somebody is called better every third time
        assert found / tries > 0.2


@pytest.mark.soak
def test_the_interval_of_a_mean_holds_it_as_often_as_it_says() -> None:
    draw = np.random.default_rng(21)
    for count in (3, 9, 10, 30):
        tries = TRIES if count < 10 else TRIES // 3
        held = 0
        for _ in range(tries):
            interval = summarize(draw.normal(5, 2, count)).interval
            assert interval is not None
            held += interval.low <= 5 <= interval.high
        assert held / tries >= 0.945 - (limit(0.05, tries) - 0.05)


def test_a_known_effect_is_found_and_bounded() -> None:
    draw = np.random.default_rng(22)
    (verdict,) = judge(
        [Group("old", tuple(draw.normal(0.90, 0.01, 12))), Group("new", tuple(draw.normal(0.93, 0.01, 12)))],
        is_maximized=True,
    )
    assert (verdict.winner, verdict.loser, verdict.word, verdict.more) == ("new", "old", "better", 0)
    assert verdict.low is not None
    assert verdict.high is not None
    assert verdict.low < 0.03 < verdict.high
    assert verdict.low > 0
    assert verdict.wins > 0.95


def test_less_is_better_where_a_metric_is_minimized() -> None:
    (verdict,) = judge([Group("a", (1.0, 1.1, 0.9)), Group("b", (0.1, 0.2, 0.15))], is_maximized=False)
    assert (verdict.winner, verdict.word) == ("b", "better")
    assert verdict.effect == pytest.approx(0.85)


def test_one_value_gives_no_verdict() -> None:
    (verdict,) = judge([Group("a", (1.0,)), Group("b", (0.1, 0.2, 0.15))], is_maximized=True)
    assert (verdict.word, verdict.p, verdict.low, verdict.more) == ("none", None, None, None)
    assert verdict.reason == "a has one value: nobody knows how much the next would differ"
    (verdict,) = judge([Group("a", (1.0,)), Group("b", (0.1,))], is_maximized=True)
    assert verdict.reason == "a and b have one value: nobody knows how much the next would differ"
    summary = summarize([1.0])
    assert (summary.sd, summary.interval) == (None, None)


def test_two_seeds_apart_by_chance_are_not_called_better() -> None:
    (verdict,) = judge([Group("a", (0.91, 0.93)), Group("b", (0.90, 0.91))], is_maximized=True)
    assert verdict.word == "open"
    assert verdict.more is not None
    assert verdict.more >= 1


def test_values_that_never_vary_are_compared_by_arrangement() -> None:
    (few,) = judge([Group("a", (1.0, 1.0)), Group("b", (0.0, 0.0))], is_maximized=True)
    assert (few.word, few.p) == ("open", pytest.approx(2 / 6))
    (many,) = judge([Group("a", (1.0,) * 5), Group("b", (0.0,) * 5)], is_maximized=True)
    assert (many.word, many.p, many.size) == ("better", pytest.approx(2 / 252), None)
    (same,) = judge([Group("a", (1.0,) * 5), Group("b", (1.0,) * 5)], is_maximized=True)
    assert (same.word, same.effect, same.p) == ("open", 0.0, 1.0)
    (rounded,) = judge([Group("a", (0.1 + 0.2, 0.3)), Group("b", (0.3, 0.1 + 0.2))], is_maximized=True)
    assert rounded.word == "open"


def test_partners_settle_what_the_seed_would_blur() -> None:
    draw = np.random.default_rng(23)
    common = draw.normal(0, 1, 8)
    one, other = tuple(common + 0.1 + draw.normal(0, 0.02, 8)), tuple(common)
    seeds = tuple(range(8))
    (apart,) = judge([Group("a", one), Group("b", other)], is_maximized=True)
    (paired,) = judge([Group("a", one, seeds), Group("b", other[::-1], seeds[::-1])], is_maximized=True)
    assert (apart.word, apart.is_paired) == ("open", False)
    assert (paired.word, paired.is_paired, paired.count) == ("better", True, 8)


@pytest.mark.parametrize(
    ("seeds", "others", "is_paired"),
    [
        ((1, 2, 3, 4), (1, 2, 3, 4), True),
        ((1, 2, 3, 4), (1, 2, 3, 9), True),  # one has no partner: most have
        ((1, 2, 3, 4), (1, 2, 8, 9), False),
        ((1, 1, 2, 3), (1, 2, 3, 4), False),  # which of both is the partner?
    ],
)
def test_partners_are_compared_where_most_values_have_one(
    seeds: tuple[int, ...], others: tuple[int, ...], is_paired: bool
) -> None:
    one, other = (0.5, 0.6, 0.7, 0.9), (0.1, 0.3, 0.2, 0.4)
    (verdict,) = judge([Group("a", one, seeds), Group("b", other, others)], is_maximized=True)
    assert verdict.is_paired is is_paired


def test_a_margin_asks_for_more_and_finds_equals() -> None:
    draw = np.random.default_rng(24)
    groups = [Group("a", tuple(draw.normal(0.5, 0.01, 20))), Group("b", tuple(draw.normal(0.48, 0.01, 20)))]

    def word(margin: float) -> Verdict:
        (verdict,) = judge(groups, is_maximized=True, margin=margin)
        return verdict

    assert word(0.0).word == "better"
    assert word(0.005).word == "better"
    assert word(0.02).word == "open"
    assert word(0.05).word == "equal"
    assert word(0.05).p == 1.0


def test_a_baseline_is_compared_with_each_and_corrected_for_those_alone() -> None:
    draw = np.random.default_rng(25)
    groups = [Group(name, tuple(draw.normal(mean, 1, 8))) for name, mean in (("a", 0), ("b", 1), ("c", 2), ("d", 3))]
    with_all, with_base = (judge(groups, is_maximized=True, baseline=base) for base in (None, "b"))
    assert len(with_all) == 6
    assert len(with_base) == 3
    assert all("b" in (verdict.winner, verdict.loser) for verdict in with_base)
    worst = max(verdict.corrected_p or 0 for verdict in with_base)
    assert worst <= max(verdict.corrected_p or 0 for verdict in with_all if "b" in (verdict.winner, verdict.loser))


def test_among_very_many_groups_the_best_is_compared_and_p_is_corrected_for_all_pairs() -> None:
    draw = np.random.default_rng(26)
    groups = [Group(str(place), tuple(draw.normal(0, 1, 4))) for place in range(60)]
    verdicts = judge(groups, is_maximized=True)
    assert len(verdicts) == 59
    assert len({verdict.winner for verdict in verdicts}) == 1
    lowest = min(verdicts, key=lambda verdict: verdict.p or 1)
    assert lowest.corrected_p == pytest.approx(min(1.0, (lowest.p or 1) * 60 * 59 / 2))
    assert len(judge(groups, is_maximized=True, most=5)) == 5


# --- how many more ----------------------------------------------------------------------------------------------------


def test_the_power_of_a_test_is_the_published_one() -> None:
    assert power(0.5, 1, 1, 64, 64, alpha=0.05) == pytest.approx(0.8015, abs=5e-4)  # Cohen, 1988, table 2.3
    assert power(0.8, 1, 1, 26, 26, alpha=0.05) == pytest.approx(0.8075, abs=5e-4)
    assert power(0.0, 1, 1, 10, 10, alpha=0.05) == pytest.approx(0.05)
    assert power(50.0, 1, 1, 5, 5, alpha=0.05) == 1.0
    assert more_needed(0.5, 1, 1, 2, 2) == 62
    assert more_needed(0.5, 1, 1, 2, 2, sd_of_pairs=1.0) == 32  # 34 pairs
    assert more_needed(0.5, 1, 1, 64, 64) == 0
    assert more_needed(0.0, 1, 1, 5, 5) is None
    assert more_needed(1e-6, 1, 1, 5, 5) is None


@pytest.mark.soak
@pytest.mark.parametrize("is_paired", [False, True])
def test_so_many_more_settle_it_as_often_as_promised(is_paired: bool) -> None:
    more = more_needed(0.9, 1.0, 2.0, 3, 3, sd_of_pairs=1.5 if is_paired else None)
    assert more is not None
    draw = np.random.default_rng(27)
    tries, count = TRIES // 2, 3 + more
    found = 0
    for _ in range(tries):
        if is_paired:
            other = draw.normal(0, 2, count)
            one = other + draw.normal(0.9, 1.5, count)
        else:
            one, other = draw.normal(0.9, 1.0, count), draw.normal(0.0, 2.0, count)
        found += (difference(one, other, is_paired=is_paired).p or 1.0) < 0.05
    assert found / tries == pytest.approx(0.8, abs=4 * math.sqrt(0.16 / tries) + 0.01)


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_what_is_no_number_is_refused() -> None:
    for values in ([], [1.0, math.nan], [math.inf]):
        with pytest.raises(ValueError, match="finite"):
            summarize(values)
    with pytest.raises(ValueError, match="partner"):
        difference([1.0, 2.0], [1.0], is_paired=True)


def test_without_scipy_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(InvalidConfig, match=r"runstone\[compare\]"):
        difference([1.0, 2.0], [3.0, 4.0])
