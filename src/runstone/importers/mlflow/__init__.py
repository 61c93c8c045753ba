"""Stores of MLflow: folders and SQLite databases. Both come down to the same runs and models, told by `common`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from runstone.errors import FormatError
from runstone.importers.items import FoundModel, FoundRun, Reading
from runstone.importers.mlflow import database, folder
from runstone.importers.mlflow.common import Artifacts

__all__ = ["is_store", "read"]


def is_store(path: Path) -> bool:
    """Return whether a path is an `mlruns` folder, a database of MLflow, or a folder with either in it."""
    return bool(folder.find(path) or database.find(path))


def read(reading: Reading) -> Iterator[FoundRun | FoundModel]:
    """Yield runs, then registered models. Where a folder has both a database and `mlruns`, the database counts.

    Raises:
        FormatError: it is neither.
        OSError: it cannot be read.
    """
    path = reading.path
    root = path.parent if path.is_file() else path
    store = database.find(path)
    if store is not None:
        yield from database.read(store, Artifacts(root, reading.also_from), reading.not_carried)
        return
    mlruns = folder.find(path)
    if mlruns is None:
        raise FormatError(f"{path} is neither an mlruns folder nor a SQLite database of MLflow, and holds neither")
    yield from folder.read(mlruns, Artifacts(mlruns.parent, reading.also_from, mlruns), reading.not_carried)
