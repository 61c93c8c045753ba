"""Copies of a whole workspace elsewhere, made while runs write, each a state of its own; and getting one back."""

from __future__ import annotations

from runstone.backup.checking import Check, check_backup
from runstone.backup.making import Backup, make_backup
from runstone.backup.places import Place, open_place
from runstone.backup.restoring import Restored, restore_backup
from runstone.backup.snapshot import Snapshot, find_snapshot, list_snapshots

__all__ = [
    "Backup",
    "Check",
    "Place",
    "Restored",
    "Snapshot",
    "check_backup",
    "find_snapshot",
    "list_snapshots",
    "make_backup",
    "open_place",
    "restore_backup",
]
