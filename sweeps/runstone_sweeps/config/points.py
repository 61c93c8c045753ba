"""Reads `points`: what is tried first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runstone_sweeps.config.mistakes import Mistakes, nearest, show
from runstone_sweeps.space import Space


def read_points(raw: Any, space: Space, mistakes: Mistakes) -> tuple[Mapping[str, Any], ...]:
    """Return the points that are tried first, with dotted names."""
    if raw is None:
        return ()
    if not isinstance(raw, list):
        mistakes.add(("points",), f"must be a list of points such as `- {{lr: 0.1}}`, got {show(raw)}")
        return ()
    points = []
    for index, point in enumerate(raw):
        here = ("points", index)
        if not isinstance(point, dict) or not point:
            mistakes.add(here, f"must be a mapping from parameters to values, got {show(point)}")
            continue
        points.append(_flatten(point, {parameter.name for parameter in space}))
        _check_point(points[-1], space, here, mistakes)
    return tuple(points)


def _flatten(nested: Mapping[Any, Any], names: set[str], folder: str = "") -> dict[str, Any]:
    """Return dotted names for a point that may be nested; a mapping that is a parameter's value stays whole."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        name = f"{folder}{key}"
        if isinstance(value, dict) and name not in names:
            flat.update(_flatten(value, names, f"{name}."))
        else:
            flat[name] = value
    return flat


def _check_point(point: Mapping[str, Any], space: Space, path: tuple[str | int, ...], mistakes: Mistakes) -> None:
    parameters = {parameter.name: parameter for parameter in space}
    constants = space.constants
    for name, value in point.items():
        if name not in parameters:
            mistakes.add((*path, name), f"is not a parameter{nearest(name, parameters)}")
            continue
        if not parameters[name].holds(value):
            mistakes.add((*path, name), f"{show(value)} is not in the space")
        condition = space.condition(name)
        known = {**constants, **point}
        if condition and all(p in known for p in condition.parents) and not space.is_active(name, known):
            mistakes.add((*path, name), f"is not there in this point: it needs {condition}")
