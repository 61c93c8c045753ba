"""A copy of an SQLite database that others write to meanwhile: as it stands after a transaction, never within one."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path


def copy_database(source: Path, target: Path) -> None:
    """Copy a database into a new file.

    Raises:
        OSError: it cannot be read, or the disk is full.
    """
    try:
        with (
            contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as there,
            contextlib.closing(sqlite3.connect(target)) as here,
        ):
            there.backup(here)
    except sqlite3.Error as error:
        raise OSError(f"{source} cannot be copied: {error}") from None
