"""The space as a value: conditions, sizes, points, and what a sampler sees."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runstone_sweeps.space import Choice, Clause, Condition, Constant, Drawn, Parameter, Real, Space, Whole


def when(**wanted: Any) -> Condition:
    """Return a condition: a tuple is a range, anything else a value or a list of values."""
    clauses = []
    for name, value in wanted.items():
        if isinstance(value, tuple):
            clauses.append(Clause(name, None, *value))
        else:
            clauses.append(Clause(name, tuple(value) if isinstance(value, list) else (value,)))
    return Condition(tuple(clauses))


TREE = Space(
    (
        Choice("momentum", (0.5, 0.9)),
        Choice("optimizer", ("adam", "sgd", "rmsprop")),
        Whole("layers", 1, 4),
        Choice("nesterov", (True, False)),
        Constant("warm", 3),
    ),
    {
        "momentum": when(optimizer=["sgd", "rmsprop"]),
        "nesterov": when(momentum=0.9, layers=(2, 3)),
        "warm": when(optimizer="adam"),
    },
)


def enumerated(space: Space) -> list[dict[str, Any]]:
    """Return every distinct point by brute force: all combinations, without what is not active."""
    found: dict[str, dict[str, Any]] = {}
    names = [parameter.name for parameter in space]
    for values in itertools.product(*(parameter.values for parameter in space)):
        whole = dict(zip(names, values, strict=True))
        point = {name: value for name, value in whole.items() if space.is_active(name, whole)}
        found[repr(point)] = point
    return list(found.values())


def test_a_point_lacks_what_is_not_active() -> None:
    assert TREE.is_active("momentum", {"optimizer": "sgd"})
    assert not TREE.is_active("momentum", {"optimizer": "adam"})
    assert not TREE.is_active("momentum", {})
    chain = {"optimizer": "adam", "momentum": 0.9, "layers": 2}
    assert not TREE.is_active("nesterov", chain), "momentum is there, but is not active itself"
    assert [p.name for p in TREE.active({"optimizer": "adam", "layers": 1})] == ["optimizer", "layers", "warm"]


def test_parents_come_first_in_the_order_and_the_rest_as_written() -> None:
    assert [p.name for p in TREE.order] == ["optimizer", "momentum", "layers", "nesterov", "warm"]


def test_the_size_of_a_conditional_space_counts_each_distinct_point_once() -> None:
    points = list(TREE.points())
    # adam: 4 layers; sgd and rmsprop: 2 momenta, of which 0.9 with 2 of 4 layers has 2 kinds of nesterov
    assert TREE.size == 4 + 2 * (4 + 2 + 2 * 2) == len(points)
    assert sorted(map(repr, points)) == sorted(map(repr, enumerated(TREE)))
    assert all(TREE.contains(point) for point in points)


def test_contains_wants_exactly_the_active_parameters() -> None:
    assert TREE.contains({"optimizer": "adam", "layers": 1, "warm": 3})
    assert not TREE.contains({"optimizer": "adam", "layers": 1})
    assert not TREE.contains({"optimizer": "adam", "layers": 1, "warm": 3, "momentum": 0.5})
    assert not TREE.contains({"optimizer": "adam", "layers": 5, "warm": 3})
    assert not Space((Choice("x", (1, 2)),)).contains({"x": True})


def test_branches_are_the_values_of_categorical_parents() -> None:
    assert TREE.branches() == (
        {"optimizer": "adam"},
        {"optimizer": "sgd", "momentum": 0.5},
        {"optimizer": "sgd", "momentum": 0.9},
        {"optimizer": "rmsprop", "momentum": 0.5},
        {"optimizer": "rmsprop", "momentum": 0.9},
    )
    assert Space((Choice("x", (1, 2)),)).branches() == ()


def test_a_continuous_parent_divides_the_space_but_has_no_size() -> None:
    space = Space((Real("x", 0.0, 1.0), Whole("y", 1, 3)), {"y": when(x=(0.5, None))})
    assert space.size is None
    with pytest.raises(ValueError, match="continuous"):
        list(space.points())
    never = Space((Choice("x", (1, 2)), Real("y", 0.0, 1.0)), {"y": when(x=3)})
    assert never.size == 2, "y is never active, so that it does not make the space continuous"


def test_a_huge_conditional_space_is_counted_and_not_listed() -> None:
    many = tuple(Whole(f"w{i}", 1, 1000) for i in range(40))
    space = Space((Choice("on", (True, False)), *many), {p.name: when(on=True) for p in many})
    assert space.size == 1000**40 + 1


def values_of(draw: st.DrawFn, name: str) -> Parameter:
    kind = draw(st.sampled_from(["choice", "whole", "real", "constant"]))
    if kind == "choice":
        return Choice(name, tuple(draw(st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True))))
    if kind == "whole":
        low = draw(st.integers(0, 5))
        return Whole(name, low, low + draw(st.integers(0, 3)))
    if kind == "real":
        return Real(name, 0.0, 0.5 * draw(st.integers(0, 3)), step=0.5)
    return Constant(name, draw(st.integers(0, 3)))


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    """Draw a finite space whose parameters depend on earlier ones."""
    parameters: list[Parameter] = []
    conditions: dict[str, Condition] = {}
    for index in range(draw(st.integers(1, 5))):
        parameter = values_of(draw, f"p{index}")
        clauses = []
        for parent in draw(st.lists(st.sampled_from(parameters), max_size=2)) if parameters else []:
            if draw(st.booleans()):
                clauses.append(Clause(parent.name, (draw(st.sampled_from(parent.values)),)))
            else:
                low = draw(st.integers(0, 6))
                clauses.append(Clause(parent.name, None, low, low + draw(st.integers(0, 4))))
        if clauses:
            conditions[parameter.name] = Condition(tuple(clauses))
        parameters.append(parameter)
    return Space(tuple(draw(st.permutations(parameters))), conditions)


@given(space=spaces())
@settings(max_examples=200, deadline=None)
def test_size_points_and_brute_force_agree(space: Space) -> None:
    points = list(space.points())
    assert space.size == len(points)
    assert sorted(map(repr, points)) == sorted(map(repr, enumerated(space)))
    for point in points:
        assert space.contains(point)
        seen = [p for p in space.searched if p.name in point]
        assert [p.from_label(p.to_label(point[p.name])) for p in seen] == [point[p.name] for p in seen]
        for branch in space.branches():
            assert set(branch) <= {p.name for p in space}


@pytest.mark.parametrize(
    ("drawn", "middle"),
    [
        (Drawn("x", "normal", 3.0, 2.0), 3.0),
        (Drawn("x", "log_normal", 0.0, 1.0), 1.0),
        (Drawn("x", "beta", 2.0, 2.0), 0.5),
        (Drawn("x", "uniform", 2.0, 4.0), 3.0),
        (Drawn("x", "log_uniform", 1.0, 100.0), 10.0),
        (Drawn("x", "normal", 0.0, 1.0, low=0.0, high=2.0), None),
        (Drawn("x", "normal", 10.0, 3.0, step=2.0, is_whole=True), 10),
        (Drawn("x", "beta", 0.5, 0.5, step=0.25), 0.5),
        (Drawn("x", "log_uniform", 1.0, 1000.0, step=10.0), None),
    ],
)
def test_a_drawn_value_is_found_by_its_quantile_and_back(drawn: Drawn, middle: float | None) -> None:
    if middle is not None:
        assert drawn.from_label(0.5) == pytest.approx(middle)
    values = [drawn.from_label(share / 50) for share in range(51)]
    assert values == sorted(values)
    for value in values:
        assert drawn.holds(value)
        assert math.isfinite(value)
        share = drawn.to_label(value)
        assert isinstance(share, float)
        assert 0.0 <= share <= 1.0
        assert drawn.from_label(share) == pytest.approx(value, rel=1e-6, abs=1e-9)
    if drawn.is_whole:
        assert all(isinstance(value, int) for value in values)
    if drawn.size is not None:
        assert set(values) <= set(drawn.values)


def test_a_rounded_value_stands_in_the_middle_of_its_share() -> None:
    drawn = Drawn("x", "uniform", 0.0, 10.0, step=10.0)
    assert [drawn.to_label(value) for value in (0.0, 10.0)] == [0.25, 0.75]
    # 0.35 / 0.1 is below 3.5 as floats, and 3.5 as decimals
    edge = Drawn("x", "uniform", 0.35, 0.65, step=0.1)
    assert edge.from_label(0.0) == 0.4
    assert edge.holds(edge.from_label(0.0))


def test_quantiles_follow_the_distribution() -> None:
    drawn = Drawn("x", "normal", 0.0, 1.0, low=-1.0)
    inside = [drawn.from_label((i + 0.5) / 1000) for i in range(1000)]
    # of a normal distribution cut at -1, 0.5 of 0.8413 lies above 0
    assert sum(value > 0 for value in inside) / 1000 == pytest.approx(0.5 / 0.8413, abs=0.005)


def test_probabilities_are_shares_of_the_quantile() -> None:
    choice = Choice("x", ("a", "b", [1]), (0.7, 0.2, 0.1))
    shares = [choice.from_label((i + 0.5) / 100) for i in range(100)]
    assert [shares.count(value) for value in choice.values] == [70, 20, 10]
    assert [choice.from_label(choice.to_label(value)) for value in choice.values] == ["a", "b", [1]]
    assert choice.from_label(1.0) == [1]
    assert choice.is_quantile
    assert not Choice("x", (1, 2)).is_quantile
