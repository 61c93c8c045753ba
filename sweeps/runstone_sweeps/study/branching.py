"""Sees to it that no branch of a space with conditions is given up before it is known.

Left to itself a sampler settles in the branch that looks best after a handful of trials. But a branch with more to
tune needs more trials to show what it can do. So each gets a few trials at once, and from then on every second
trial goes to the branch where a trial can be expected to gain most: where results still spread far, rather than
where many are equally good.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping
from typing import Any

from runstone_sweeps.space import Space
from runstone_sweeps.study.gain import expected_gain

EVERY = 2


class Branches:
    """Counts the trials and keeps the results of each branch."""

    def __init__(self, space: Space, *, least: int, trials: int | None) -> None:
        """Begin without trials.

        Args:
            space: The space.
            least: Trials that each branch gets at once, as far as half of the budget goes; 0: none.
            trials: The budget.
        """
        self._marks = space.branches() if least else ()
        self._least = least
        if trials is not None and self._marks:
            self._least = min(least, trials // (2 * len(self._marks)))
        self._asked = [0] * len(self._marks)
        self._losses: list[list[tuple[int, float]]] = [[] for _ in self._marks]

    def note_asked(self, params: Mapping[str, Any]) -> None:
        """Take note that a point is tried."""
        for place in self._places(params):
            self._asked[place] += 1

    def note_result(self, number: int, params: Mapping[str, Any], loss: float) -> None:
        """Take note of what came of a point; smaller is better."""
        if math.isfinite(loss):
            for place in self._places(params):
                bisect.insort(self._losses[place], (number, loss))

    def steer(self, number: int, wanted: Mapping[str, Any], *, is_learning: bool) -> dict[str, Any]:
        """Return what marks the branch in which a trial is to be; empty: that is left to the sampler.

        Args:
            number: Number of the trial.
            wanted: Values that are given; no branch is chosen against them.
            is_learning: Whether the sampler would prefer some branches by itself, so that it may have to be kept
                from it.
        """
        open_places = [place for place, mark in enumerate(self._marks) if not mark.keys() & wanted.keys()]
        found: dict[str, Any] = {}
        for place in sorted(open_places, key=lambda place: (self._asked[place], place)):
            mark = self._marks[place]
            # Several branches at once, where they do not exclude each other.
            if self._asked[place] < self._least and all(found.get(n, v) == v for n, v in mark.items()):
                found.update(mark)
        if found or not open_places or not is_learning or number % EVERY:
            return found
        known = [loss for losses in self._losses for _, loss in losses]
        if not known:
            return {}
        best = min(known)
        gains = {place: self._gain(place, best) for place in open_places}
        most = max(open_places, key=lambda place: (gains[place], -place))
        return dict(self._marks[most]) if gains[most] > 0 else {}

    def _gain(self, place: int, best: float) -> float:
        losses = [loss for _, loss in self._losses[place]]
        if len(losses) < 3 and self._asked[place] >= 2 * max(self._least, 3):
            return 0.0  # its trials fail or are pruned
        return expected_gain(losses, best=best)

    def _places(self, params: Mapping[str, Any]) -> list[int]:
        """Return the branches in which a point lies."""
        return [
            place
            for place, mark in enumerate(self._marks)
            if all(name in params and params[name] == value for name, value in mark.items())
        ]
