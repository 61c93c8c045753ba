"""What questions about a workspace have read, at hand for the next one, with no file open between them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from runstone.query.pages import OpenIndex


class StandingIndex:
    """The index of a workspace for whoever asks now and then. Nothing to close; threads may share it.

    Every question opens the index, takes in what changed on disk and closes it again. What stays are the columns that
    it has read: the next question reads only what changed in them. Closed files have nothing that a fork could share,
    so that a child process can ask as well.

    Args:
        workspace_path: Folder of the workspace.
    """

    def __init__(self, workspace_path: Path) -> None:
        self._workspace_path = workspace_path
        self._standing: tuple[int, str | None, OpenIndex] | None = None
        self._of_parents: list[OpenIndex] = []

    def __reduce__(self) -> tuple[Callable[..., StandingIndex], tuple[Path]]:
        """Travel to other processes as the place alone."""
        return StandingIndex, (self._workspace_path,)

    def opened(self) -> OpenIndex:
        """Return the index to ask now.

        Raises:
            InvalidConfig: `RUNSTONE_INDEX` names a database that cannot be used.
        """
        from runstone.index.opening import database_of  # loads SQLite

        process, database, standing = os.getpid(), database_of(None), self._standing
        if standing is not None and standing[:2] == (process, database):
            return standing[2]
        if standing is not None and standing[0] != process:
            # A thread of the parent may have been in the midst of a question: its lock is never let go of here, and
            # what it had open is not ours to close.
            self._of_parents.append(standing[2])
        index = OpenIndex(self._workspace_path, database=database, stays_open=False)
        self._standing = process, database, index
        return index
