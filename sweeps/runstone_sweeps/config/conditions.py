"""Reads `when` of the parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runstone_sweeps.config.mistakes import Count, Mistakes, nearest, quote, show
from runstone_sweeps.space import Choice, Clause, Condition, Constant, Drawn, Parameter, Real, Space, Whole
from runstone_sweeps.space.scalars import is_number

# Counting a space and finding its branches takes time that grows with this.
_MAX_CASES = 100_000
_MAX_CONDITIONS = 500


@dataclass(frozen=True, slots=True)
class Wish:
    """A `when` as it was written.

    Attributes:
        name: The parameter that has it, or that is in a folder that has it.
        folder: The folders around the place where it was written; names are looked for in them, the inner first.
        raw: The `when` itself.
        path: Where it is in the config.
    """

    name: str
    folder: tuple[str, ...]
    raw: Any
    path: tuple[str | int, ...]

    def of(self, name: str) -> Wish:
        """Return the same for another parameter."""
        return dataclasses.replace(self, name=name)


def read_conditions(
    parameters: Mapping[str, Parameter], wishes: list[Wish], mistakes: Mistakes
) -> dict[str, Condition]:
    """Return the condition of each parameter that has one; none at all where one of them is wrong."""
    before = Count(mistakes)
    clauses: dict[str, list[Clause]] = {}
    for wish in wishes:
        clauses.setdefault(wish.name, []).extend(_read_when(wish, parameters, before))
    if before.count:
        return {}
    conditions = {name: Condition(tuple(found)) for name, found in clauses.items() if found}
    if len(conditions) > _MAX_CONDITIONS:
        before.add(("parameters",), f"{len(conditions):,} parameters have conditions; at most {_MAX_CONDITIONS} may")
        return {}
    if cycle := _find_cycle(conditions):
        first = next(wish for wish in wishes if wish.name == cycle[0])
        if len(cycle) == 1:
            before.add(first.path, f"{cycle[0]} depends on itself")
        else:
            before.add(first.path, f"goes round in a circle: {' needs '.join((*cycle, cycle[0]))}")
        return {}
    cases = Space(tuple(parameters.values()), conditions).cases
    if cases > _MAX_CASES:
        before.add(("parameters",), f"the conditions make {cases:,} cases; at most {_MAX_CASES:,} are kept apart")
        return {}
    return conditions


def _read_when(wish: Wish, parameters: Mapping[str, Parameter], mistakes: Count) -> list[Clause]:
    if not isinstance(wish.raw, dict) or not wish.raw:
        mistakes.add(wish.path, f"must be a mapping such as {{optimizer: sgd}}, got {show(wish.raw)}")
        return []
    found = []
    for key, wanted in wish.raw.items():
        here = (*wish.path, key)
        parent = _resolve(str(key), wish.folder, parameters)
        if parent is None:
            mistakes.add(here, f"there is no such parameter{nearest(str(key), parameters)}")
        elif clause := _read_clause(parent, wanted, here, mistakes):
            found.append(clause)
    return found


def _resolve(name: str, folder: tuple[str, ...], parameters: Mapping[str, Parameter]) -> Parameter | None:
    for depth in range(len(folder), -1, -1):
        full = ".".join((*folder[:depth], name))
        if full in parameters:
            return parameters[full]
    return None


def _read_clause(parent: Parameter, wanted: Any, path: tuple[str | int, ...], mistakes: Count) -> Clause | None:
    if isinstance(wanted, dict) and wanted.keys() <= {"min", "max"} and wanted:
        return _read_bounds(parent, wanted, path, mistakes)
    values = wanted if isinstance(wanted, list) else [wanted]
    if not values:
        mistakes.add(path, "is an empty list, which nothing meets")
        return None
    for value in values:
        if not parent.holds(value):
            known = [str(known) for known in parent.values] if isinstance(parent, (Choice, Constant)) else []
            near = nearest(str(value), known) if known else ""
            mistakes.add(path, f"{parent.name} is never {quote(value)}{near}")
            return None
    return Clause(parent.name, tuple(values))


def _read_bounds(
    parent: Parameter, wanted: dict[str, Any], path: tuple[str | int, ...], mistakes: Count
) -> Clause | None:
    for key, number in wanted.items():
        if not is_number(number):
            mistakes.add((*path, key), f"must be a number, got {show(number)}")
            return None
    low, high = wanted.get("min"), wanted.get("max")
    if low is not None and high is not None and low > high:
        mistakes.add((*path, "min"), f"{low} is above max {high}")
        return None
    clause = Clause(parent.name, None, low, high)
    if isinstance(parent, (Choice, Constant)):
        can_be = any(clause.is_met(value) for value in parent.values)
    else:
        least, most = _ends(parent)
        can_be = (low is None or low <= most) and (high is None or high >= least)
    if not can_be:
        mistakes.add(path, f"is never so: {parent.name} has no value with {clause}")
        return None
    return clause


def _ends(parameter: Real | Whole | Drawn) -> tuple[float, float]:
    return parameter.bounds if isinstance(parameter, Drawn) else (parameter.low, parameter.high)


def _find_cycle(conditions: Mapping[str, Condition]) -> tuple[str, ...]:
    """Return parameters of which each depends on the next and the last on the first, if there are such."""
    done: set[str] = set()

    def walk(name: str, line: tuple[str, ...]) -> tuple[str, ...]:
        if name in line:
            return line[line.index(name) :]
        if name in done or name not in conditions:
            return ()
        for parent in conditions[name].parents:
            if found := walk(parent, (*line, name)):
                return found
        done.add(name)
        return ()

    for name in conditions:
        if found := walk(name, ()):
            return found
    return ()
