"""Bytes by content: each content lies once under its BLAKE3 hash. Knows no names, no versions, no runs."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from runstone import settings
from runstone.blobs.remote import Remote
from runstone.blobs.store import Blobs

__all__ = ["Blobs", "open_blobs"]


def open_blobs(workspace: Path) -> Blobs:
    """Return the store of a workspace: its folder `blobs`, and the remote store that it names, if it does.

    Raises:
        InvalidConfig: its settings do not parse.
    """
    url = settings.blob_store(workspace)
    return Blobs(workspace / "blobs", remote=_remote_at(url) if url is not None else None)


@lru_cache(maxsize=16)
def _remote_at(url: str) -> Remote:
    """Return one handle for all who use a store in this process: it knows what was asked already."""
    return Remote(url)
