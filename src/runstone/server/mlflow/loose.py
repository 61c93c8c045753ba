"""Files that belong to no run of a client's, below a path that it chose itself: a run of their own keeps them."""

from __future__ import annotations

import time
from pathlib import Path

from runstone.errors import InvalidName
from runstone.server.mlflow.lines import Lines
from runstone.server.mlflow.values import HOLDER
from runstone.server.mlflow.writers import Writers
from runstone.status import Status
from runstone.workspace import Workspace

_PROJECT, _NAME = "default", "files of MLflow's clients"


class Loose:
    """The run that keeps such files, so that they are artifacts like others: stored once, backed up, sent as they lie.

    Args:
        folder: Where it is kept which run it is.
        workspace: Where the run is.
        writers: Make it.
    """

    def __init__(self, folder: Path, workspace: Workspace, writers: Writers) -> None:
        self._lines = Lines(folder / "files.jsonl")
        self._workspace = workspace
        self._writers = writers
        self._run_id = ""

    def find(self) -> Path | None:
        """Return its folder; `None` where there is none yet, or it is gone."""
        for told in self._lines.news():
            self._run_id = str(told.get("run", self._run_id))
        try:
            return self._workspace.find_run_folder(self._run_id) if self._run_id else None
        except InvalidName:  # damage
            return None

    def make(self) -> Path:
        """Return its folder; it is made where there is none.

        Raises:
            OSError: the disk refuses.
        """
        with self._lines.alone():
            found = self.find()
            if found is not None:
                return found
            tags = {HOLDER: "1"}
            made = self._writers.create(project=_PROJECT, name=_NAME, parent=None, started_s=time.time(), tags=tags)
            with self._writers.writing(made) as writer:
                writer.end(Status.FINISHED, None)
            self._lines.add({"run": made.name})
            return made
