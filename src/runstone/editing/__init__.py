"""Changing what is said of runs, one or many; putting them away, hiding them, removing them for good."""

from __future__ import annotations

from runstone.editing.changes import KEEP, Change, Edited, Edits, Kept
from runstone.editing.editor import choose, edit
from runstone.editing.purging import Purge, PurgedRun, RefusedRun, purge_runs

__all__ = [
    "KEEP",
    "Change",
    "Edited",
    "Edits",
    "Kept",
    "Purge",
    "PurgedRun",
    "RefusedRun",
    "choose",
    "edit",
    "purge_runs",
]
