"""What CI asks: how a change did against the branch that it goes to, and whether it is good enough."""

from __future__ import annotations

from runstone.ci.comment import comment_body
from runstone.ci.gate import RunGate, check_run
from runstone.ci.report import ChangeReport, MetricChange, report
from runstone.ci.sides import Side, find_side

__all__ = [
    "ChangeReport",
    "MetricChange",
    "RunGate",
    "Side",
    "check_run",
    "comment_body",
    "find_side",
    "report",
]
