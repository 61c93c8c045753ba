"""Every point of a finite space once, in an order that is drawn."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from runstone_sweeps.space import Space


class Grid:
    """Hands out the points of a finite space. Keeps no state beyond what was tried."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space = space
        self._seed = seed
        self._parameters = space.parameters
        self._points = list(space.points()) if space.has_conditions else None
        self._size = space.size or 0
        self._order: Any = None
        self._next = 0
        self._tried: set[str] = set()

    def note(self, params: Mapping[str, Any]) -> None:
        """Take note that a point is tried."""
        self._tried.add(_key(params))

    def next(self, wanted: Mapping[str, Any], is_taken: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any]:
        """Return a point that is neither tried nor taken; once there is none, any point.

        Args:
            wanted: Values that it must have.
            is_taken: Whether a point is of no use.
        """
        if self._order is None:
            self._order = np.random.RandomState(self._seed).permutation(self._size)
        while self._next < self._size and _key(self._point(self._next)) in self._tried:
            self._next += 1
        for place in range(self._next, self._size):
            point = self._point(place)
            if wanted.items() <= point.items() and _key(point) not in self._tried and not is_taken(point):
                return point
        fitting = (self._point((len(self._tried) + place) % self._size) for place in range(self._size))
        return next((point for point in fitting if wanted.items() <= point.items()), self._point(0))

    def _point(self, place: int) -> dict[str, Any]:
        index = int(self._order[place])
        if self._points is not None:
            return self._points[index]
        point = {}
        for parameter in reversed(self._parameters):
            values = parameter.values
            index, digit = divmod(index, len(values))
            point[parameter.name] = values[digit]
        return {parameter.name: point[parameter.name] for parameter in self._parameters}


def _key(params: Mapping[str, Any]) -> str:
    # 3 and 3.0 are the same point; JSON writes them apart.
    plain = {n: float(v) if isinstance(v, int) and not isinstance(v, bool) else v for n, v in params.items()}
    return json.dumps(plain, sort_keys=True)
