"""The helper process that watches one run."""

from __future__ import annotations

from pathlib import Path

from runstone.alerts.rules import Alerting
from runstone.helper import HelperProcess, start_helper


def start_watch(run_path: Path, alerting: Alerting) -> HelperProcess:
    """Start a helper process that watches a run by rules until it has ended.

    The helper reads the run's files, with low priority and in a session of its own: it neither slows the training nor
    ends with it, so that it can tell of a training that was killed.

    Args:
        run_path: Folder of the run.
        alerting: Rules and targets.

    Raises:
        OSError: no process can be started.
    """
    told = alerting.to_json().encode()
    return start_helper("runstone.alerts", str(run_path.absolute()), name="runstone-watch", told=told)
