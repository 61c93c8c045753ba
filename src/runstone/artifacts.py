"""Files and folders become artifacts: what is in them, under which names, stored by content."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runstone.blobs import Blobs
from runstone.errors import InvalidName, NotFound, RunstoneError, TrackingWarning
from runstone.names import check_name
from runstone.values import Artifact, FileEntry


def store_artifact(blobs: Blobs, path: Path, name: str | None, metadata: Any) -> Artifact:
    """Store a file or folder and return the artifact.

    Args:
        blobs: Where the bytes go.
        path: The file or folder.
        name: Name of the artifact; default: the last part of the path.
        metadata: A JSON object.

    Raises:
        NotFound: there is nothing at `path`.
        InvalidName: the name cannot be kept, or two names in the folder cannot be told apart.
        InvalidValue: something in it is no regular file, or changes while it is read.
        OSError: it cannot be read, or the disk is full.
    """
    path = path.expanduser().absolute()
    name = check_name(name if name is not None else path.name, "artifact")
    is_folder = path.is_dir()
    if not is_folder and not path.exists():
        raise NotFound(f"there is no file or folder {path} to log as an artifact")
    files = tuple(blobs.put_all(named_files(path) if is_folder else [(path, _inside(path, path.parent))]))
    if blobs.remote is not None:
        _send(blobs, name, files)
    return Artifact(name=name, is_folder=is_folder, files=files, logged_at=datetime.now(UTC), metadata=metadata)


def named_files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield the files in a folder with their names."""
    escaped: dict[str, Path] = {}
    for file in _walk(folder):
        name = _inside(file, folder)
        if "\\" in name and escaped.setdefault(name, file) != file:
            raise InvalidName(
                f"{folder} holds two files that would both be called {name!r}: bytes that are no text are written "
                "so; rename one"
            )
        yield file, name


def _send(blobs: Blobs, name: str, files: Sequence[FileEntry]) -> None:
    """Send the content to the remote store. Where that fails the artifact stands all the same, in the workspace."""
    try:
        blobs.push(entry.hash for entry in files)
    except (OSError, RunstoneError) as error:
        warnings.warn(
            f"the content of artifact {name!r} is in the workspace, but not yet in {blobs.remote}: {error}. "
            "`runstone blobs push` sends it",
            TrackingWarning,
            stacklevel=4,
        )


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
