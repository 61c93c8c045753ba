"""How a sweep is steered from elsewhere: stopped, resumed, given more trials."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import Any

from runstone import RunstoneError, Workspace
from runstone_sweeps.environment import process_environment
from runstone_sweeps.store import SweepFolder
from runstone_sweeps.store.requests import ask, is_python
from runstone_sweeps.web.tables import cut

# How long a sweep has to begin, or to say why it does not.
_BEGIN_S = 20.0


def stop(folder: SweepFolder) -> dict[str, Any]:
    """Stop a sweep as one Ctrl-C would."""
    is_running = folder.is_running
    if is_running:
        folder.request_stop()
    return {"id": folder.id, "is_asked": is_running}


def add_trials(folder: SweepFolder, count: int) -> dict[str, Any]:
    """Give a sweep a larger budget of trials.

    Raises:
        RequestRefused: trials are not what limits it, or there is no further point.
    """
    is_done = ask(folder, "more", trials=count)
    return {"id": folder.id, "is_done": is_done, "trials_expected": folder.read().trials_expected}


def resume(workspace: Workspace, folder: SweepFolder) -> dict[str, Any]:
    """Lift the pause of a sweep, or go on with one that does not run, in a process that outlives this one.

    Raises:
        RunstoneError: it did not begin; the message is what it printed last.
    """
    record = folder.read()
    if folder.is_running:
        return {"id": folder.id, "is_done": not record.is_paused or ask(folder, "unpause")}
    if is_python(record):
        raise RunstoneError(f"sweep {record.name} tries a Python function; run the program that began it again")
    before = record.sessions
    log = folder.path / "resume.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "runstone_sweeps.cli", "resume", folder.id, "--workspace", str(workspace.path)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=process_environment(),
            start_new_session=True,
        )
    limit = time.monotonic() + _BEGIN_S
    while time.monotonic() < limit and process.poll() is None and folder.read().sessions == before:
        time.sleep(0.1)
    code = process.poll()
    if code is None:  # it leaves no zombie where this process lives on
        threading.Thread(target=process.wait, daemon=True).start()
    elif code and folder.read().sessions == before:
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        raise RunstoneError(f"sweep {record.name} did not begin: {cut(lines[-1]) if lines else f'exit code {code}'}")
    return {"id": folder.id, "is_done": True}
