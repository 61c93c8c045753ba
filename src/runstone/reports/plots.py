"""A plot as a block of a report asks for it."""

from __future__ import annotations

from runstone.comparison.measure import Goal, checked_goal
from runstone.comparison.plots import PLOT_KINDS, Plot
from runstone.reports.options import Options

PLOT_KEYS = frozenset("kind metric metrics x y by smoothing log goal at confidence baseline bins".split())
_MOST_BINS = 500


def goal_in(options: Options) -> Goal | None:
    """Return the goal that options name."""
    return checked_goal(options.text("goal") or None)


def plot_of(options: Options) -> Plot:
    """Return what the options of a block ask for."""
    logs = options.texts("log")
    return Plot(
        kind=options.word("kind", PLOT_KINDS, "curves"),
        metrics=tuple(options.texts("metrics", "metric")),
        x=options.text("x"),
        y=options.text("y"),
        by=tuple(options.texts("by")),
        smoothing=options.number("smoothing", 0.0),
        is_log_x="x" in logs,
        is_log_y="y" in logs,
        goal=goal_in(options),
        at=options.text("at") or None,
        baseline=options.text("baseline") or None,
        confidence=options.number("confidence", 0.95),
        bins=options.count("bins", 0, _MOST_BINS),
        title=options.text("title"),
    )
