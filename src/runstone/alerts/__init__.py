"""Alerts on runs: rules that a helper process watches a run by, and whom it tells. Training takes no part in it."""

from __future__ import annotations

from runstone.alerts.process import start_watch
from runstone.alerts.rules import EMPTY, FILE, Alerting, Rule, Target, parse_alerting, read_alerting
from runstone.alerts.watcher import RunWatch, watch_until_ended

__all__ = [
    "EMPTY",
    "FILE",
    "Alerting",
    "Rule",
    "RunWatch",
    "Target",
    "parse_alerting",
    "read_alerting",
    "start_watch",
    "watch_until_ended",
]
