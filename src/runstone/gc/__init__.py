"""Collecting garbage: who holds which content, what nobody holds any more, removing that; and checking what is held."""

from __future__ import annotations

from runstone.gc.checking import Checked, Problem, check
from runstone.gc.collection import Collected, HeldBytes, collect
from runstone.gc.holders import Holder, find_holders

__all__ = ["Checked", "Collected", "HeldBytes", "Holder", "Problem", "check", "collect", "find_holders"]
