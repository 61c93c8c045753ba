"""Which runs that were sent here their sender has compared, and found whole: they may be put in order here."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def is_whole(run_path: Path) -> bool:
    """Return whether all of a run is here, as its sender said since bytes of it came last."""
    return _mark(run_path).exists()


def mark_whole(run_path: Path) -> None:
    """Note that all of a run is here.

    Raises:
        OSError: the disk refuses.
    """
    mark = _mark(run_path)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()


def unmark(run_path: Path) -> None:
    """Note that more of a run comes."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_mark(run_path))  # noqa: PTH108 (with each parcel)


def _mark(run_path: Path) -> Path:
    return run_path.parents[2] / "sync" / "whole" / run_path.name
