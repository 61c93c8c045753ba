"""The helper process that sends what runs write, apart from the training: it slows nothing, and outlives a kill."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from runstone import settings
from runstone.sync.spool import MARK, Spool

# The package is found where it was found here, but never before anything else.
_PROGRAM = "import sys; sys.path.append(sys.argv.pop(1)); from runstone.sync.__main__ import main; main()"


def is_spool(workspace: Path) -> bool:
    """Return whether runs in a workspace go to a server."""
    return (workspace / MARK).is_file()


def ensure_sender(workspace: Path) -> subprocess.Popen[bytes] | None:
    """Start the process that sends the runs of a spool, unless one does; return it where it was started.

    Call it when the files of a run are there: a sender that is about to end looks once more then.

    Raises:
        OSError: no process can be started.
    """
    if Spool(workspace).is_sent:
        return None
    process = subprocess.Popen(
        [
            *(sys.executable, "-P", "-W", "ignore", "-c", _PROGRAM, str(Path(__file__).absolute().parents[2])),
            str(workspace.absolute()),
        ],
        env={**settings.process_environment(), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    # Takes its exit code when it comes: no zombie is left, and nobody has to wait.
    threading.Thread(target=process.wait, name="runstone-sync", daemon=True).start()
    return process
