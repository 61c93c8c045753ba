"""Files and folders become artifacts: what is in them, under which names, stored by content."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runstone.blobs import Blobs
from runstone.errors import NotFound
from runstone.names import check_name
from runstone.values import Artifact


def store_artifact(blobs: Blobs, path: Path, name: str | None, metadata: Any) -> Artifact:
    """Store a file or folder and return the artifact.

    Args:
        blobs: Where the bytes go.
        path: The file or folder.
        name: Name of the artifact; default: the last part of the path.
        metadata: A JSON object.

    Raises:
        NotFound: there is nothing at `path`.
        InvalidName: the name cannot be kept.
        InvalidValue: something in it is no regular file, or changes while it is read.
        OSError: it cannot be read, or the disk is full.
    """
    path = path.expanduser().absolute()
    name = check_name(name if name is not None else path.name, "artifact")
    is_folder = path.is_dir()
    if not is_folder and not path.exists():
        raise NotFound(f"there is no file or folder {path} to log as an artifact")
    if is_folder:
        files = tuple(blobs.put(file, _inside(file, path)) for file in _walk(path))
    else:
        files = (blobs.put(path, _inside(path, path.parent)),)
    return Artifact(name=name, is_folder=is_folder, files=files, logged_at=datetime.now(UTC), metadata=metadata)


def _walk(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:  # a folder that cannot be listed must not be left out in silence
        raise error

    for root, folders, names in os.walk(folder, onerror=fail):
        folders.sort()
        for name in sorted(names):
            yield Path(root, name)


def _inside(file: Path, folder: Path) -> str:
    # a name that is no text (any bytes are legal in a file name) is kept readable rather than lost
    return os.fsencode(file.relative_to(folder)).decode("utf-8", "backslashreplace")
