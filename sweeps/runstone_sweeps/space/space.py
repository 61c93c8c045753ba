"""The space that a sweep searches, as a value. Knows neither files nor Optuna."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from runstone_sweeps.space.conditions import Clause, Condition
from runstone_sweeps.space.drawn import Drawn
from runstone_sweeps.space.parameters import Choice, Constant, Parameter, Real, Searched, Whole
from runstone_sweeps.space.scalars import is_number, is_same

# Above this, the values of a parent are counted as those of a continuous range are: not at all.
_MAX_LISTED = 100_000


@dataclass(frozen=True, slots=True)
class Space:
    """All parameters of a sweep.

    A point of the space is a dict from dotted name to value; `nest` turns it into what a trial gets. A point lacks
    the parameters whose condition is not met in it: they are not active.

    Attributes:
        parameters: In the order in which they were written.
        conditions: When a parameter is active, by its name; those that are not named always are. No parameter
            depends on itself, not even through others.
    """

    parameters: tuple[Parameter, ...]
    conditions: Mapping[str, Condition] = field(default_factory=dict)

    @property
    def searched(self) -> tuple[Searched, ...]:
        """The parameters that vary."""
        return tuple(p for p in self.parameters if not isinstance(p, Constant))

    @property
    def constants(self) -> dict[str, Any]:
        """Name and value of the parameters that do not vary."""
        return {p.name: p.value for p in self.parameters if isinstance(p, Constant)}

    @property
    def has_conditions(self) -> bool:
        """Whether some points lack some parameters."""
        return bool(self.conditions)

    @property
    def order(self) -> tuple[Parameter, ...]:
        """All parameters, each after those that its condition looks at."""
        by_name = {parameter.name: parameter for parameter in self.parameters}
        ordered: dict[str, Parameter] = {}

        def visit(parameter: Parameter) -> None:
            if parameter.name in ordered:
                return
            for parent in self._parents(parameter.name):
                visit(by_name[parent])
            ordered[parameter.name] = parameter

        for parameter in self.parameters:
            visit(parameter)
        return tuple(ordered.values())

    @property
    def size(self) -> int | None:
        """How many distinct points the space has; `None` where a parameter that can be active has no step."""
        sizes = [self._count(group) for group in self._groups()]
        return math.prod(size for size in sizes if size is not None) if None not in sizes else None

    @property
    def cases(self) -> int:
        """How many combinations of values conditions tell apart, in the group of parameters that has most."""
        return max((math.prod(map(len, self._kinds_of(group).values())) for group in self._groups()), default=1)

    def __iter__(self) -> Iterator[Parameter]:
        """Iterate over the parameters in the order in which they were written."""
        return iter(self.parameters)

    def condition(self, name: str) -> Condition | None:
        """Return when a parameter is active; `None`: always."""
        return self.conditions.get(name)

    def is_active(self, name: str, point: Mapping[str, Any]) -> bool:
        """Tell whether a point has a parameter, by what the point says of those that its condition looks at.

        Args:
            name: The parameter.
            point: Possibly a part of a point; what it lacks does not meet a condition.
        """
        condition = self.conditions.get(name)
        if condition is None:
            return True
        return all(
            clause.parameter in point
            and clause.is_met(point[clause.parameter])
            and self.is_active(clause.parameter, point)
            for clause in condition.clauses
        )

    def active(self, point: Mapping[str, Any]) -> tuple[Parameter, ...]:
        """Return the parameters that a point has, in the order in which they were written."""
        return tuple(parameter for parameter in self.parameters if self.is_active(parameter.name, point))

    def contains(self, point: Mapping[str, Any]) -> bool:
        """Tell whether a dict is a point: exactly the active parameters, each with a value that it can have."""
        active = self.active(point)
        return point.keys() == {p.name for p in active} and all(p.holds(point[p.name]) for p in active)

    def branches(self) -> tuple[dict[str, Any], ...]:
        """Return the parts into which conditions divide the space, each as the values that mark it.

        A `Choice` that a condition looks at makes a branch of each of its values, together with the values of
        the choices on which it depends itself. A choice that depends on a number makes none. Branches of choices
        that are independent of each other are not combined: a point lies in one branch of each.
        """
        by_name = {parameter.name: parameter for parameter in self.parameters}
        parents = {parent for condition in self.conditions.values() for parent in condition.parents}
        found: list[dict[str, Any]] = []
        for parameter in self.order:
            line = [by_name[name] for name in self._ancestors(parameter.name)] + [parameter]
            choices = [p for p in line if isinstance(p, Choice)]
            if parameter.name not in parents or not all(isinstance(p, (Choice, Constant)) for p in line):
                continue
            if not isinstance(parameter, Choice):
                continue
            fixed = {p.name: p.value for p in line if isinstance(p, Constant)}
            for values in itertools.product(*(p.values for p in choices)):
                branch = {p.name: value for p, value in zip(choices, values, strict=True)}
                point = {**fixed, **branch}
                if all(self.is_active(name, point) for name in point):
                    found.append(branch)
        # A branch that is divided further is left to its parts.
        return tuple(branch for branch in found if not any(_is_part(branch, other) for other in found))

    def points(self) -> Iterator[dict[str, Any]]:
        """Yield every point once, in the order of the values; the last parameter varies fastest.

        Raises:
            ValueError: `size` is `None`.
        """
        if self.size is None:
            raise ValueError("a space with a continuous range has no list of points")
        names = [parameter.name for parameter in self.parameters]
        order = self.order

        def extend(point: dict[str, Any], depth: int) -> Iterator[dict[str, Any]]:
            if depth == len(order):
                yield {name: point[name] for name in names if name in point}
                return
            parameter = order[depth]
            if not self.is_active(parameter.name, point):
                yield from extend(point, depth + 1)
                return
            for value in parameter.values:
                yield from extend({**point, parameter.name: value}, depth + 1)

        return extend({}, 0)

    def _parents(self, name: str) -> tuple[str, ...]:
        condition = self.conditions.get(name)
        return () if condition is None else condition.parents

    def _ancestors(self, name: str) -> list[str]:
        """Return all on which a parameter depends, the first ones first, each once."""
        found: dict[str, None] = {}
        for parent in self._parents(name):
            found.update(dict.fromkeys([*self._ancestors(parent), parent]))
        return list(found)

    def _groups(self) -> list[list[Parameter]]:
        """Return the parameters in groups that do not depend on each other, parents first in each."""
        group_of = {parameter.name: {parameter.name} for parameter in self.parameters}
        for name in self.conditions:
            for parent in self._parents(name):
                joined = group_of[name] | group_of[parent]
                for member in joined:
                    group_of[member] = joined
        groups: dict[int, list[Parameter]] = {}
        for parameter in self.order:
            groups.setdefault(id(group_of[parameter.name]), []).append(parameter)
        return list(groups.values())

    def _kinds_of(self, group: list[Parameter]) -> dict[str, list[tuple[Any, int | None]]]:
        clauses: dict[str, list[Clause]] = {parameter.name: [] for parameter in group}
        for parameter in group:
            condition = self.conditions.get(parameter.name)
            for clause in condition.clauses if condition else ():
                clauses[clause.parameter].append(clause)
        return {parameter.name: _kinds(parameter, clauses[parameter.name]) for parameter in group}

    def _count(self, group: list[Parameter]) -> int | None:
        """Return how many distinct points the parameters of one group make."""
        kinds = self._kinds_of(group)

        def count(point: dict[str, Any], depth: int) -> int | None:
            if depth == len(group):
                return 1
            name = group[depth].name
            if not self.is_active(name, point):
                return count(point, depth + 1)
            total = 0
            for value, number in kinds[name]:
                below = count({**point, name: value}, depth + 1)
                if number is None or below is None:
                    return None
                total += number * below
            return total

        return count({}, 0)


def _kinds(parameter: Parameter, clauses: list[Clause]) -> list[tuple[Any, int | None]]:
    """Return one value of each kind that the clauses tell apart, and how many there are; `None`: without number."""
    if not clauses:
        return [(None, parameter.size)]
    size = parameter.size
    if size is not None and size <= _MAX_LISTED:
        kinds: dict[tuple[bool, ...], tuple[Any, int]] = {}
        for value in parameter.values:
            kind = tuple(clause.is_met(value) for clause in clauses)
            first, number = kinds.get(kind, (value, 0))
            kinds[kind] = first, number + 1
        return list(kinds.values())
    seen = {tuple(clause.is_met(value) for clause in clauses): value for value in _landmarks(parameter, clauses)}
    return [(value, None) for value in seen.values()]


def _landmarks(parameter: Parameter, clauses: list[Clause]) -> list[Any]:
    """Return values of a range such that each combination of clauses that can be met is met by one of them."""
    ends = [end for clause in clauses for end in (clause.low, clause.high, *(clause.values or ())) if is_number(end)]
    if isinstance(parameter, (Real, Whole)):
        ends += [parameter.low, parameter.high]
    elif isinstance(parameter, Drawn):
        ends += [end for end in parameter.bounds if math.isfinite(end)]
    ends = sorted(set(ends)) or [0.0]
    between = [(low + high) / 2 for low, high in itertools.pairwise(ends)]
    found = [*ends, *between, ends[0] - 1, ends[-1] + 1]
    if isinstance(parameter, Whole):
        found = [math.floor(value) for value in found] + [math.ceil(value) for value in found]
    return [value for value in found if parameter.holds(value)]


def _is_part(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether a branch says less than another and nothing else."""
    return len(one) < len(other) and all(name in other and is_same(one[name], other[name]) for name in one)


def nest(point: Mapping[str, Any]) -> dict[str, Any]:
    """Return `{"optimizer": {"lr": 0.1}}` for `{"optimizer.lr": 0.1}`."""
    nested: dict[str, Any] = {}
    for name, value in point.items():
        *folders, last = name.split(".")
        inner = nested
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[last] = value
    return nested
