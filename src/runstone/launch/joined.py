"""Whether the launched program records into the run by itself, and what. Reads names only."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from runstone.names import SYSTEM
from runstone.runlog import format as fmt
from runstone.runlog.reader import journal_files


class Joined:
    """The writers of a run that are not the launcher's.

    Args:
        run_path: Folder of the run.
        own: The launcher's writers; may grow.
    """

    def __init__(self, run_path: Path, own: set[str]) -> None:
        self._run_path = run_path
        self._own = own
        self._looked_at: set[str] = {path.name for path in journal_files(run_path)}
        self._writers: set[str] = set()

    def look(self) -> bool:
        """Return whether a process of the program has joined the run since this was made."""
        for path in journal_files(self._run_path):
            writer = path.name[len("journal.") : -len(".jsonl")]
            if path.name in self._looked_at or writer in self._own:
                continue
            role = _role(path)
            if role is not None:
                self._looked_at.add(path.name)
            if role == "main":
                self._writers.add(writer)
        return bool(self._writers)

    def logs_metrics(self) -> bool:
        """Return whether it logs metrics of its own."""
        return any(not name.startswith(SYSTEM) for name in self._names())

    def logs_system_metrics(self) -> bool:
        """Return whether it samples the machine."""
        return any(name.startswith(SYSTEM) for name in self._names())

    def _names(self) -> list[str]:
        names: list[str] = []
        for entry in os.listdir(self._run_path):  # noqa: PTH208 - names are all that is needed
            if entry.endswith(".keys") and entry.removesuffix(".keys") not in self._own:
                with contextlib.suppress(OSError):
                    names += fmt.unpack_keys((self._run_path / entry).read_bytes()).names
        return names


def _role(journal: Path) -> str | None:
    """Return the role of a writer, `None` where it has not said it yet."""
    try:
        with journal.open("rb") as file:
            line = file.readline()
        return str(json.loads(line).get("role", "main")) if line.endswith(b"\n") else None
    except (OSError, ValueError, AttributeError):
        return None
