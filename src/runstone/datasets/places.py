"""Where derived files of datasets lie in a workspace."""

from __future__ import annotations

import os
from pathlib import Path

from runstone.blobs.statcache import StatCache
from runstone.datasets.manifest import shown_path
from runstone.names import folder_name


def cache_for(workspace: Path, path: Path) -> StatCache:
    """Return what the files at a path hashed to before."""
    return StatCache(workspace / "cache" / "stat" / folder_name(shown_path(os.path.realpath(path))))


def scratch(workspace: Path) -> Path:
    """Return a folder for files that are being written."""
    return workspace / "cache" / "incoming"
