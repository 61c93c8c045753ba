"""Draws one point: parents first, each group of parameters from the trials that have it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, _get_single_value
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from runstone_sweeps.space import Choice, Constant, Real, Space, Whole
from runstone_sweeps.spec.algorithms import SAMPLERS, Algorithm
from runstone_sweeps.study.distributions import Sight
from runstone_sweeps.study.samplers import forget_fits
from runstone_sweeps.study.shown import Shown


@dataclass(frozen=True, slots=True)
class Point:
    """A point that was drawn.

    Attributes:
        params: Dotted name and value of every active parameter, constants included, in the order of the config.
        is_proposed: Whether every value is the sampler's own.
    """

    params: dict[str, Any]
    is_proposed: bool


def draw(
    sampler: BaseSampler,
    algorithm: Algorithm,
    sight: Sight,
    shown: Shown,
    trial: FrozenTrial,
    wanted: Mapping[str, Any],
) -> Point:
    """Ask a sampler for a point.

    Args:
        sampler: What proposes.
        algorithm: Its name and options.
        sight: The space.
        shown: The trials that it sees.
        trial: The trial that the point is for.
        wanted: Values that the point must have, by dotted name; those of parameters that turn out not to be active
            are left out.
    """
    space = sight.space
    point = {p.name: wanted.get(p.name, p.value) for p in sight.order if isinstance(p, Constant)}
    is_proposed = True
    trial = copy.copy(trial)
    for group in sight.groups:
        if not space.is_active(group[0], point):
            continue
        is_branch = space.condition(group[0]) is not None
        # What is good in a branch is told by comparing the trials of that branch.
        shown.only(_has(group[0]) if is_branch else None)
        together = _together(algorithm, sight, group, is_branch=is_branch, is_single=len(shown.directions) == 1)
        is_needed = any(name not in wanted for name in together) or SAMPLERS[algorithm.name].notes_each_trial
        proposed: Mapping[str, Any] = {}
        if is_needed and not (is_branch and not together):
            forget_fits(sampler)
            proposed = sampler.sample_relative(shown, trial, together)
        for name in group:
            known = sight.distributions[name]
            if name in wanted:
                point[name] = wanted[name]
                is_proposed = False
            elif known.single():
                point[name] = sight.value(name, _get_single_value(known))
            elif name in proposed and known._contains(known.to_internal_repr(proposed[name])):
                point[name] = sight.value(name, proposed[name])
            else:
                point[name] = sight.value(name, sampler.sample_independent(shown, trial, name, known))
            if sight.holds(name, point[name]):
                trial.params = {**trial.params, name: sight.label(name, point[name])}
                trial.distributions = {**trial.distributions, name: known}
    shown.only(None)
    return Point({p.name: point[p.name] for p in space.active(point)}, is_proposed)


def with_parents(space: Space, wanted: Mapping[str, Any], choose: Callable[[int], int]) -> dict[str, Any]:
    """Return wanted values together with such values of other parameters that make the wanted ones active.

    Args:
        space: The space.
        wanted: Values by dotted name.
        choose: Returns one of so many, where several would do.
    """
    by_name = {parameter.name: parameter for parameter in space.parameters}
    found = dict(wanted)
    open_names = list(wanted)
    while open_names:
        condition = space.condition(open_names.pop())
        for clause in condition.clauses if condition else ():
            parent = by_name[clause.parameter]
            if parent.name in found or isinstance(parent, Constant):
                continue
            candidates = [clause.low, clause.high, *(clause.values or ())]
            if isinstance(parent, (Choice, Whole)) and (parent.size or 0) <= 1000:
                candidates = list(parent.values)
            elif isinstance(parent, Real):
                candidates += [parent.low, parent.high]
            fitting = [value for value in candidates if parent.holds(value) and clause.is_met(value)]
            if fitting:
                found[parent.name] = fitting[choose(len(fitting))]
                open_names.append(parent.name)
    return found


def _has(name: str) -> Callable[[FrozenTrial], bool]:
    return lambda trial: name in trial.params


def _together(
    algorithm: Algorithm, sight: Sight, group: tuple[str, ...], *, is_branch: bool, is_single: bool
) -> dict[str, BaseDistribution]:
    """Return which parameters of a group the sampler is to draw together."""
    known, options = SAMPLERS[algorithm.name], algorithm.options
    if algorithm.name == "tpe":
        is_grouped = options.get("group")
        # As Optuna 5: one by one where there are several metrics, unless told otherwise.
        is_joint = options.get("multivariate", is_single or bool(is_grouped))
        if not is_joint or (is_branch and is_grouped is False):
            return {}
    if known.joint == "nothing" or (is_branch and not known.models_branches):
        return {}
    found = {name: sight.distributions[name] for name in sorted(group)}
    found = {name: known for name, known in found.items() if not known.single()}
    if known.joint == "numbers":
        found = {n: known for n, known in found.items() if not isinstance(known, CategoricalDistribution)}
    return found
