"""What Optuna sees of a parameter, and what a trial's parameters are to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from runstone_sweeps.space import Choice, Constant, Drawn, Real, Scalar, Searched, Space, Whole
from runstone_sweeps.space.scalars import exact


def distribution(parameter: Searched, *, sampler: str) -> BaseDistribution:
    """Return the distribution of one parameter for a sampler.

    Values of unequal shares stay words for samplers that model them; only a sequence that fills the space evenly
    needs their quantile.
    """
    match parameter:
        case Choice():
            if parameter.is_quantile and sampler == "qmc":
                return FloatDistribution(0.0, 1.0)
            return CategoricalDistribution(parameter.labels)
        case Drawn():
            if sampler == "brute_force":
                return CategoricalDistribution([parameter.to_label(value) for value in parameter.values])
            return FloatDistribution(0.0, 1.0)
        case Real():
            return FloatDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)
        case Whole():
            return IntDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)


class Sight:
    """Turns points of a space into what a sampler sees, and back.

    Attributes:
        order: All parameters, each after those that its condition looks at.
        distributions: Distribution of each searched parameter, by its name.
        groups: Names of the searched parameters that exist under the same condition, parents first; the parameters
            of a group are drawn together.
    """

    def __init__(self, space: Space, sampler: str) -> None:
        self.space = space
        self.order = space.order
        self.distributions = {p.name: distribution(p, sampler=sampler) for p in space.searched}
        self._searched = {parameter.name: parameter for parameter in space.searched}
        self.groups: list[tuple[str, ...]] = []
        conditions: list[Any] = []
        for parameter in self.order:
            if isinstance(parameter, Constant):
                continue
            condition = space.condition(parameter.name)
            if condition not in conditions:
                conditions.append(condition)
                self.groups.append(())
            place = conditions.index(condition)
            self.groups[place] += (parameter.name,)
        self._names = [name for group in self.groups for name in group]

    @property
    def probabilities(self) -> dict[str, Sequence[float]]:
        """Probability of each value, by the name of the parameter, where they are given."""
        return {p.name: p.probabilities for p in self.space.searched if isinstance(p, Choice) and p.probabilities}

    def seen(self, params: Mapping[str, Any]) -> dict[str, Scalar] | None:
        """Return what a sampler sees of a trial's parameters; `None`: they are not in the space.

        Constants do not count, nor does what the space does not know: a sweep that is edited, or extended by
        another one, often changes these.
        """
        point: dict[str, Any] = {}
        conditions = self.space.conditions
        for parameter in self.order:
            name = parameter.name
            if name in conditions and not self.space.is_active(name, point):
                continue
            if isinstance(parameter, Constant):
                point[name] = parameter.value
            elif name in params and parameter.holds(params[name]):
                point[name] = params[name]
            else:
                return None
        # In the order in which they are drawn: a sampler that tries all points takes that for the space's.
        return {name: self.label(name, point[name]) for name in self._names if name in point}

    def holds(self, name: str, value: Any) -> bool:
        """Tell whether a value is one of those that the searched parameter can have."""
        return self._searched[name].holds(value)

    def label(self, name: str, value: Any) -> Scalar:
        """Return what a sampler sees of a value that the parameter can have."""
        return self._searched[name].to_label(value)

    def value(self, name: str, seen: Any) -> Any:
        """Return the value that a sampler means."""
        parameter = self._searched[name]
        value = parameter.from_label(seen.item() if hasattr(seen, "item") else seen)
        if isinstance(parameter, Real) and parameter.step is not None:
            # A sampler adds steps up in binary; the value is the decimal that was meant.
            low, step = exact(parameter.low), exact(parameter.step)
            return float(low + round((value - parameter.low) / parameter.step) * step)
        return value
