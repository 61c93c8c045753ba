"""The helper process that watches one run, apart from the training: it slows nothing, and outlives a kill."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from runstone import settings
from runstone.alerts.rules import Alerting

# The package is found where it was found here, but never before anything else.
_PROGRAM = "import sys; sys.path.append(sys.argv.pop(1)); from runstone.alerts.__main__ import main; main()"


class WatchProcess:
    """A helper process that watches a run until it has ended; `start_watch` makes it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid: int = process.pid
        self._process = process
        # Takes the helper's exit code when it comes: no zombie is left, and nobody has to wait.
        threading.Thread(target=process.wait, name="runstone-watch", daemon=True).start()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the run has ended and its alerts are delivered; return whether that is so."""
        try:
            return self._process.wait(timeout_s) == 0
        except subprocess.TimeoutExpired:
            return False


def start_watch(run_path: Path, alerting: Alerting) -> WatchProcess:
    """Start a helper process that watches a run by rules until it has ended.

    The helper reads the run's files, with low priority and in a session of its own: it neither slows the training nor
    ends with it, so that it can tell of a training that was killed.

    Args:
        run_path: Folder of the run.
        alerting: Rules and targets.

    Raises:
        OSError: no process can be started.
    """
    process = subprocess.Popen(
        [
            *(sys.executable, "-P", "-W", "ignore", "-c", _PROGRAM, str(Path(__file__).absolute().parents[2])),
            *(str(run_path.absolute()),),
        ],
        env={**settings.process_environment(), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    if process.stdin is not None:
        with process.stdin as rules:
            rules.write(alerting.to_json().encode())
    return WatchProcess(process)
