"""The helper process that sends what runs write."""

from __future__ import annotations

from pathlib import Path

from runstone.helper import HelperProcess, start_helper
from runstone.sync.spool import MARK, Spool


def is_spool(workspace: Path) -> bool:
    """Return whether runs in a workspace go to a server."""
    return (workspace / MARK).is_file()


def ensure_sender(workspace: Path) -> HelperProcess | None:
    """Start the process that sends the runs of a spool, unless one does; return it where it was started.

    Call it when the files of a run are there: a sender that is about to end looks once more then.

    Raises:
        OSError: no process can be started.
    """
    if Spool(workspace).is_sent:
        return None
    return start_helper("runstone.sync", str(workspace.absolute()), name="runstone-sync", cwd="/")
