"""Collecting garbage: who holds which content, what nobody holds any more, removing that; and checking what is held."""

from __future__ import annotations

from runstone.gc.checking import Checked, Problem, check
from runstone.gc.collection import Collected, HeldBytes, collect
from runstone.gc.elsewhere import CollectedElsewhere, StoreIsShared, collect_elsewhere
from runstone.gc.holders import Holder, find_holders

__all__ = [
    "Checked",
    "Collected",
    "CollectedElsewhere",
    "HeldBytes",
    "Holder",
    "Problem",
    "StoreIsShared",
    "check",
    "collect",
    "collect_elsewhere",
    "find_holders",
]
