"""What one number a run is compared by: a metric, which of its values, and whether more is better."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from runstone.comparison.members import Member
from runstone.errors import InvalidValue, MetricNotFound
from runstone.values import Series

Goal = Literal["maximize", "minimize"]
GOALS: tuple[Goal, ...] = ("maximize", "minimize")
STATISTICS = ("last", "min", "max", "mean", "best")
# Parts of names that speak of something of which less is better.
_LOWER = frozenset(
    "loss losses error errors err rmse mse mae mape smape perplexity ppl wer cer eer fid kid nll bpb bpc bce "
    "crossentropy entropy divergence kl regret time times seconds duration latency memory energy cost costs size "
    "distance brier ece emissions carbon".split()
)


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of each run.

    Attributes:
        name: The metric.
        statistic: `last`, `min`, `max`, `mean`; `at`: its value where another metric was best.
        goal: Whether more or less is better.
        at, at_statistic: The other metric, and whether its lowest or its highest value counts.
    """

    name: str
    statistic: str
    goal: Goal
    at: str = ""
    at_statistic: str = ""

    @property
    def is_maximized(self) -> bool:
        """Whether more is better."""
        return self.goal == "maximize"

    @property
    def label(self) -> str:
        """How it is shown, such as `val/acc max` or `val/acc at val/loss min`."""
        if self.statistic == "at":
            return f"{self.name} at {self.at} {self.at_statistic}"
        return f"{self.name} {self.statistic}"


def parse_measure(text: str, known: Collection[str], *, at: str | None = None, goal: Goal | None = None) -> Measure:
    """Return what a text such as `val/acc`, `val/acc.max` or `val/acc.best` means.

    Args:
        text: Name of a metric, as it is or followed by which value counts: `last` (which it is if none is named),
            `min`, `max`, `mean`, `best`. `metrics.` may stand before it.
        known: Metrics that runs have.
        at: Another metric with `min` or `max`, such as `val/loss.min`: the value is the one at that step.
        goal: What is better; default: more for `max`, less for `min`, else what the name speaks of (`loss`, `error`).

    Raises:
        InvalidValue: no run has such a metric, or it cannot be understood.
    """
    name, statistic = _named(text, known)
    if goal is None:
        named: dict[str, Goal] = {"min": "minimize", "max": "maximize"}
        goal = named.get(statistic) or goal_of(name)
    if at is not None:
        if statistic != "last":
            raise InvalidValue(f"{text!r:.120} names which value counts, and so does at={at!r:.120}; use one of them")
        other, at_statistic = _named(at, known)
        if at_statistic == "last":
            at_statistic = "max" if goal_of(other) == "maximize" else "min"
        if at_statistic not in ("best", "min", "max"):
            raise InvalidValue(f"at={at!r:.120} must be where a metric is lowest or highest, such as 'val/loss.min'")
        if at_statistic == "best":
            at_statistic = "max" if goal_of(other) == "maximize" else "min"
        return Measure(name, "at", goal, other, at_statistic)
    if statistic == "best":
        statistic = "max" if goal == "maximize" else "min"
    return Measure(name, statistic, goal)


def checked_goal(goal: str | None) -> Goal | None:
    """Return a goal if it is one.

    Raises:
        InvalidValue: it is another word.
    """
    if goal is not None and goal not in GOALS:
        raise InvalidValue(f"goal is {goal!r:.80}; it must be {' or '.join(GOALS)}")
    return next((one for one in GOALS if one == goal), None)


def _named(text: str, known: Collection[str]) -> tuple[str, str]:
    for candidate in (text, text.removeprefix("metrics.")):
        if candidate in known:
            return candidate, "last"
        name, dot, statistic = candidate.rpartition(".")
        if dot and statistic in STATISTICS and name in known:
            return name, statistic
    import difflib  # only for the message

    near = difflib.get_close_matches(text, known, n=3, cutoff=0.4) or sorted(known)[:8]
    there = f"; there is {', '.join(map(repr, near))}" if near else ""
    raise InvalidValue(f"none of the runs has a metric {text!r:.120}{there}")


def goal_of(name: str) -> Goal:
    """Return whether more or less of a metric is better: more, unless its name says `loss` or the like."""
    words = re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    return "minimize" if _LOWER.intersection(words) else "maximize"


def measured(members: Sequence[Member], measure: Measure) -> dict[str, float]:
    """Return the value of each run, by id; runs that have none are left out. It may be NaN.

    `at` reads the points of the runs; all else is at hand.
    """
    found = {}
    for member in members:
        value = _at(member, measure) if measure.statistic == "at" else _figure(member, measure)
        if value is not None:
            found[member.id] = float(value)
    return found


def _figure(member: Member, measure: Measure) -> float | None:
    summary = member.metrics.get(measure.name)
    return None if summary is None else getattr(summary, measure.statistic)


def _at(member: Member, measure: Measure) -> float | None:
    other = member.metrics.get(measure.at)
    step = None if other is None else getattr(other, f"{measure.at_statistic}_step")
    if step is None or measure.name not in member.metrics:
        return None
    try:
        return value_at(member.info.series(measure.name), step)
    except MetricNotFound:  # the run was changed between two looks
        return None


def value_at(series: Series, step: int) -> float | None:
    """Return the value that stood at a step: of the points up to it, that of the highest step, logged last."""
    reached = np.flatnonzero(series.step <= step)
    if not len(reached):
        return None
    steps = series.step[reached]
    return float(series.value[reached[np.flatnonzero(steps == steps.max())[-1]]])


def finite(values: Iterable[float]) -> list[float]:
    """Return those values that are finite."""
    return [value for value in values if math.isfinite(value)]
