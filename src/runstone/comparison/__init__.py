"""Runs side by side: what differs between them, how they did, which is better and how sure that is."""

from __future__ import annotations

from runstone.comparison.comparison import Comparison, MeasureRow, MetricRow, compare
from runstone.comparison.differences import SECTIONS, Difference, Differences, cell
from runstone.comparison.front import Front
from runstone.comparison.grouping import Grouping, GroupRow, Judging
from runstone.comparison.measure import Measure, checked_goal
from runstone.comparison.members import Member
from runstone.comparison.plots import PLOT_KINDS, Plot, draw_plot

__all__ = [
    "PLOT_KINDS",
    "SECTIONS",
    "Comparison",
    "Difference",
    "Differences",
    "Front",
    "GroupRow",
    "Grouping",
    "Judging",
    "Measure",
    "MeasureRow",
    "Member",
    "MetricRow",
    "Plot",
    "cell",
    "checked_goal",
    "compare",
    "draw_plot",
]
