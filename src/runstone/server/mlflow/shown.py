"""Runs as the bytes that clients of MLflow get, kept as long as the index says the same of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import fields
from operator import attrgetter
from typing import Any

from runstone.index.records import RunRecord
from runstone.server.jsons import dumps

MOST_KEPT = 20_000
_SAID = attrgetter(*(one.name for one in fields(RunRecord) if one.name != "metrics"))


class ShownRuns:
    """What was made of runs last. Threads may share it.

    Args:
        most: Keep at most so many.
    """

    def __init__(self, most: int = MOST_KEPT) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[Any, bytes, bytes]] = {}

    def bytes_of(self, record: RunRecord, make: Callable[[RunRecord], dict[str, Any]]) -> bytes:
        """Return a run as JSON.

        Args:
            record: What the index says of it.
            make: Makes what is shown; called where the index says something else than the last time.
        """
        said, figures = _SAID(record), record.metrics.data
        kept = self._kept.get(record.id)
        if kept is not None and kept[1] == figures and kept[0] == said:
            return kept[2]
        made = dumps(make(record))
        with self._lock:
            self._kept[record.id] = (said, figures, made)
            while len(self._kept) > self._most:
                del self._kept[next(iter(self._kept))]
        return made
