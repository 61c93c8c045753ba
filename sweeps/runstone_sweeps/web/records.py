"""The records of the sweeps that were asked for last, kept so that only what is new is read."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

from runstone import Workspace
from runstone_sweeps.store import SweepFolder, SweepNotFound, Sweeps
from runstone_sweeps.store.followed import Followed
from runstone_sweeps.web.tables import summary

_ID = re.compile(r"[0-9a-f]{32}")
# Records of so many sweeps stay in memory, those asked for last.
_KEPT = 16


class Records:
    """The records that were asked for last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Path, Followed] = OrderedDict()
        self._summaries: dict[Path, tuple[object, dict[str, Any]]] = {}
        self._lock = threading.Lock()

    def of(self, workspace: Workspace, sweep_id: str) -> Followed:
        """Return a sweep by its id.

        Raises:
            SweepNotFound: there is none.
        """
        folder = SweepFolder(workspace.path / "sweeps" / sweep_id) if _ID.fullmatch(sweep_id) else None
        if folder is None or not any(folder.path.glob("journal.*.jsonl")):
            raise SweepNotFound(f"there is no sweep with the id {sweep_id!r:.80}")
        with self._lock:
            found = self._kept.setdefault(folder.path, Followed(folder))
            self._kept.move_to_end(folder.path)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return found

    def summaries(self, workspace: Workspace) -> list[dict[str, Any]]:
        """Return each sweep in a few words, the newest first; one whose files did not change is not read again."""
        found = []
        for folder in Sweeps(workspace):
            files = sorted((path.name, path.stat().st_size) for path in folder.path.glob("journal.*.jsonl"))
            stand = files, folder.is_running
            known = self._summaries.get(folder.path)
            if known is None or known[0] != stand:
                with self.of(workspace, folder.id) as sweep:
                    known = self._summaries[folder.path] = stand, summary(sweep)
            found.append(known[1])
        return found
