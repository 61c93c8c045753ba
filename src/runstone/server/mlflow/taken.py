"""Which paths of a place are files and which folders, so that no file comes to lie where a folder is."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from pathlib import PurePosixPath

from runstone.server.mlflow.errors import invalid

_MOST_PLACES = 64


class Taken:
    """The paths of some places, as they were read and as files came since. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[Hashable, _Paths] = OrderedDict()

    def take(self, place: Hashable, path: str, read: Callable[[], Iterable[str]]) -> None:
        """Note that a file comes to lie at a path.

        Args:
            place: In which.
            path: Of the file.
            read: Returns the paths of the files that lie there; called when they are not known, and before a refusal,
                since others may have removed some.

        Raises:
            MlflowError: there is a folder, or a folder of it is a file.
        """
        with self._lock:
            known = self._known.get(place)
            if known is None or known.is_in_the_way_of(path):
                known = self._known[place] = _Paths(read())
            if known.is_in_the_way_of(path):
                raise invalid(f"'{path:.200}' is a file where a folder should be, or the other way round")
            known.add(path)
            self._known.move_to_end(place)
            if len(self._known) > _MOST_PLACES:
                self._known.popitem(last=False)

    def forget(self, place: Hashable) -> None:
        """Read the paths of a place anew at its next file: some were removed."""
        with self._lock:
            self._known.pop(place, None)


class _Paths:
    """Files, and the folders above them."""

    def __init__(self, files: Iterable[str]) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = set()
        for file in files:
            self.add(file)

    def add(self, path: str) -> None:
        self._files.add(path)
        self._folders.update(_folders(path))

    def is_in_the_way_of(self, path: str) -> bool:
        return path in self._folders or not self._files.isdisjoint(_folders(path))


def _folders(path: str) -> list[str]:
    return [str(folder) for folder in PurePosixPath(path).parents][:-1]
