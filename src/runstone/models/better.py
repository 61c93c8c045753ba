"""Whether the runs of one side are better than those of another: one verdict, for versions and for runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runstone.errors import InvalidConfig


@dataclass(frozen=True, slots=True)
class Check:
    """What became of one gate: whether it holds, and what it saw."""

    gate: str
    is_passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Side:
    """What is compared.

    Attributes:
        name: As people name it: a version, a run.
        run: Its run, in words.
        values: Of the metric, one for each seed; empty: the run has no such metric.
    """

    name: str
    run: str
    values: Sequence[float]


def better_words(options: Mapping[str, Any], other: str) -> str:
    """Return what a gate `better_than` asks, in words.

    Args:
        options: Of the gate.
        other: What it is compared with, as the gate has it.
    """
    margin = float(options.get("margin", 0.0))
    by = f" by {margin:.12g}" if margin else ""
    return f"{options['metric']} is better than that of {other}{by}{_sure(options)}"


def _sure(options: Mapping[str, Any]) -> str:
    confidence = options.get("confidence")
    return f" with {confidence:.0%} confidence" if confidence else ""


def check_better(gate: str, options: Mapping[str, Any], ours: Side, theirs: Side) -> Check:
    """Compare the means of two sides; with `confidence`, what they differ by at least.

    Args:
        gate: What is asked, in words.
        options: `metric`, `goal`, and perhaps `margin` and `confidence`.
        ours: What must be better.
        theirs: Than this.

    Raises:
        InvalidConfig: `confidence` is asked for, and SciPy is not installed.
    """
    metric, margin, confidence = options["metric"], float(options.get("margin", 0.0)), options.get("confidence")
    sign = 1.0 if options["goal"] == "maximize" else -1.0
    for side in (ours, theirs):
        if not side.values:
            return Check(gate, False, f"{side.run} has no metric {metric!r}")
        if not all(map(math.isfinite, side.values)):
            return Check(gate, False, f"{metric} of {side.name} is not always a finite number")
    own, other = ([sign * value for value in side.values] for side in (ours, theirs))
    gain = math.fsum(own) / len(own) - math.fsum(other) / len(other)
    seen = f"{gain:+.6g} against {theirs.name} ({len(own)} and {len(other)} seeds)"
    if confidence is None:
        return Check(gate, gain > 0 if margin == 0 else gain >= margin, seen)
    if min(len(own), len(other)) < 2:
        return Check(gate, False, f"{seen}; it takes at least two seeds of both to be sure of it")
    bound = _bound(own, other, confidence)
    is_better = bound > 0 if margin == 0 else bound >= margin
    return Check(gate, is_better, f"{seen}, and at least {bound:+.6g}{_sure(options)}")


def _bound(ours: Sequence[float], theirs: Sequence[float], confidence: float) -> float:
    try:
        from runstone.statistics import gain_bound  # NumPy and SciPy, only where confidence is asked for
    except ImportError:
        raise InvalidConfig("confidence in a gate takes SciPy: pip install 'runstone[models]'") from None
    return gain_bound(ours, theirs, confidence)
