"""Which points are new, against a count of each."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from runstone.tensorboard.difference import is_new

POINTS = st.lists(st.tuples(st.integers(-2, 2), st.sampled_from([0.0, -0.0, 1.5, float("inf")])))


def columns(points: list[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [point[0] for point in points], [point[1] for point in points]


def key(point: tuple[int, float]) -> tuple[int, str]:
    return point[0], repr(point[1])


@given(POINTS, POINTS)
def test_a_point_is_new_as_often_as_it_is_there_more_often(
    points: list[tuple[int, float]], standing: list[tuple[int, float]]
) -> None:
    mask = is_new(*columns(points), standing=columns(standing))
    expected = Counter(map(key, points)) - Counter(map(key, standing))
    assert Counter(key(point) for point, new in zip(points, mask, strict=True) if new) == expected


def test_of_equal_points_the_last_are_new() -> None:
    mask = is_new([1, 2, 1, 1], [0.5] * 4, standing=([1, 1], [0.5, 0.5]))
    assert mask.tolist() == [False, True, False, True]


def test_every_nan_is_the_same() -> None:
    mask = is_new([1, 1], [float("nan")] * 2, standing=([1], [-float("nan")]))
    assert mask.tolist() == [False, True]
