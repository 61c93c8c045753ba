"""Bytes by content: each content lies once under its BLAKE3 hash. Knows no names, no versions, no runs."""

from __future__ import annotations

from pathlib import Path

from runstone import settings
from runstone.blobs.store import Blobs

__all__ = ["Blobs", "open_blobs"]


def open_blobs(workspace: Path) -> Blobs:
    """Return the store of a workspace: its folder `blobs`, and the remote store that it names, if it does.

    Raises:
        InvalidConfig: its settings do not parse.
    """
    return Blobs(workspace / "blobs", remote=settings.blob_store(workspace))
