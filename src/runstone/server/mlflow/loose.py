"""Files that belong to no run of a client's, below a path that it chose itself: a run of their own keeps them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from runstone.errors import InvalidName
from runstone.server.mlflow.errors import invalid
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
        self._lock = threading.Lock()
        self._paths: tuple[set[str], set[str]] | None = None

    def find(self) -> Path | None:
        """Return its folder; `None` where there is none yet, or it is gone."""
        for told in self._lines.news():
            self._run_id = str(told.get("run", self._run_id))
        try:
            return self._workspace.find_run_folder(self._run_id) if self._run_id else None
        except InvalidName:  # damage
            return None

    def take(self, path: str, read: Callable[[], Iterable[str]]) -> None:
        """Note that a file comes to lie at a path.

        Args:
            path: Of the file.
            read: Returns the paths of the files that lie there; called the first time.

        Raises:
            MlflowError: there is a folder, or a folder of it is a file.
        """
        with self._lock:
            if self._paths is None:
                files = set(read())
                self._paths = (files, {folder for file in files for folder in _folders(file)})
            files, folders = self._paths
            if path in folders or any(folder in files for folder in _folders(path)):
                raise invalid(f"'{path:.200}' is a file where a folder should be, or the other way round")
            files.add(path)
            folders.update(_folders(path))

    def forget(self) -> None:
        """Look anew at the next file: some were removed."""
        with self._lock:
            self._paths = None

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


def _folders(path: str) -> list[str]:
    """Return the folders above a file."""
    return [str(folder) for folder in PurePosixPath(path).parents][:-1]
