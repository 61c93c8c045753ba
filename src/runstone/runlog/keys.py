"""Names and types of one writer's keys, as its file grows. Reads each byte once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runstone.runlog import format as fmt

UNKNOWN = 255


class KeyTable:
    """What the keys of one writer mean, by their number.

    Args:
        path: The file; it need not be there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._end = 0
        self.names: list[str] = []
        """By the number of the key; empty for one that is not known."""
        self.kinds: NDArray[np.uint8] = np.empty(0, np.uint8)
        """Type by the number of the key, `UNKNOWN` for one that is not known."""

    def __len__(self) -> int:
        """Return one more than the highest number."""
        return len(self.names)

    def knows(self, keys: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """Return which of these keys have a name; the file is read on where one of them is new."""
        found = self._look_up(keys)
        if not found.all():
            self._read_on()
            found = self._look_up(keys)
        return found

    def _look_up(self, keys: NDArray[np.uint32]) -> NDArray[np.bool_]:
        if len(keys) and int(keys.max()) < len(self.kinds):
            return np.asarray(self.kinds[keys] != UNKNOWN)
        found = np.asarray(keys < len(self.kinds))
        found[found] = self.kinds[keys[found]] != UNKNOWN
        return found

    def _read_on(self) -> None:
        try:
            with self._path.open("rb") as file:
                file.seek(self._end)
                new = fmt.unpack_keys(file.read())
        except OSError:
            return
        self._end += new.end
        ids, kinds = np.array(new.ids, np.int64), np.array(new.kinds, np.uint8)
        # Ids count from 1 and a record has some bytes, so one beyond these is damage; a later version has other types.
        is_legal = (ids <= self._end) & (kinds < fmt.TYPES)
        size = max(len(self.names), int(ids[is_legal].max(initial=-1)) + 1)
        self.names.extend([""] * (size - len(self.names)))
        self.kinds = np.concatenate([self.kinds, np.full(size - len(self.kinds), UNKNOWN, np.uint8)])
        self.kinds[ids[is_legal]] = kinds[is_legal]
        for place in np.flatnonzero(is_legal).tolist():
            self.names[new.ids[place]] = new.names[place]
