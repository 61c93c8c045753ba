"""Processes of trials: how they start, how their ends are told, and that none outlives the sweep."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from runstone_sweeps.processes.trials import Ended, Started, SupervisorLost, TrialProcesses, kill_leftover, start_time

LIMIT_S = 120.0
NEWS: list[Started | Ended] = []


@pytest.fixture
def processes() -> Iterator[TrialProcesses]:
    NEWS.clear()
    with TrialProcesses() as started:
        yield started


def start(
    processes: TrialProcesses, tmp_path: Path, code: str, *, number: int = 0, python: str = sys.executable
) -> int:
    """Start Python code as a trial and return its pid."""
    argv = [python, "-I", "-S", "-c", code]
    console = tmp_path / "console.log"
    processes.start(number, argv, env={"A": "b", "PATH": "/usr/bin:/bin"}, cwd=tmp_path, console=console)
    (started,) = wait_for(processes, Started)
    assert isinstance(started, Started)
    return started.pid


def wait_for(processes: TrialProcesses, kind: type) -> list[Started | Ended]:
    """Return the next piece of news of a kind; others that come with it are kept for the next call."""
    limit = time.monotonic() + LIMIT_S
    while not any(isinstance(news, kind) for news in NEWS):
        assert time.monotonic() < limit, f"no {kind.__name__} within {LIMIT_S} s"
        NEWS.extend(processes.poll(0.05))
    found = next(news for news in NEWS if isinstance(news, kind))
    NEWS.remove(found)
    return [found]


def until(is_so: Callable[[], bool]) -> None:
    limit = time.monotonic() + LIMIT_S
    while not is_so():
        assert time.monotonic() < limit
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_trial_gets_its_folder_environment_and_console_and_no_terminal(
    processes: TrialProcesses, tmp_path: Path
) -> None:
    told = "[os.getcwd(), dict(os.environ), sys.stdin.read(), os.getsid(0) == os.getpid()]"
    code = f"import os, sys, json; print(json.dumps({told}))"
    start(processes, tmp_path, code)
    assert wait_for(processes, Ended) == [Ended(0, 0)]
    cwd, env, stdin, is_leader = json.loads((tmp_path / "console.log").read_text())
    assert (cwd, stdin, is_leader) == (str(tmp_path), "", True)
    assert env["A"] == "b"


@pytest.mark.parametrize(
    ("code", "told"),
    [("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", -9), ("import os; os._exit(0)", 0)],
)
def test_the_end_of_a_trial_is_told_with_its_code(
    processes: TrialProcesses, tmp_path: Path, code: str, told: int
) -> None:
    start(processes, tmp_path, code)
    assert wait_for(processes, Ended) == [Ended(0, told)]


def test_a_program_that_is_not_there_ends_with_127_and_says_so(processes: TrialProcesses, tmp_path: Path) -> None:
    start(processes, tmp_path, "", python="no-such-program")
    assert wait_for(processes, Ended) == [Ended(0, 127)]
    assert "cannot start no-such-program" in (tmp_path / "console.log").read_text()


def test_a_trial_inherits_no_open_file(processes: TrialProcesses, tmp_path: Path) -> None:
    start(processes, tmp_path, "import os; print(sorted(os.listdir('/dev/fd')))")
    wait_for(processes, Ended)
    # the fourth is the listing's own
    assert (tmp_path / "console.log").read_text().strip() == "['0', '1', '2', '3']"


def test_a_signal_reaches_every_process_of_a_trial(processes: TrialProcesses, tmp_path: Path) -> None:
    code = "import os,time; print(os.fork(), flush=True); time.sleep(60)"
    start(processes, tmp_path, code)
    console = tmp_path / "console.log"
    until(lambda: console.exists() and console.read_text().count("\n") == 2)
    processes.send_signal(0, signal.SIGTERM)
    assert wait_for(processes, Ended) == [Ended(0, -15)]
    pid = max(map(int, (tmp_path / "console.log").read_text().split()))
    assert is_gone(pid)


def test_what_a_trial_leaves_behind_is_ended_before_its_end_is_told(processes: TrialProcesses, tmp_path: Path) -> None:
    code = "import os,time; pid=os.fork(); print(pid, flush=True) if pid else time.sleep(60)"
    start(processes, tmp_path, code)
    assert wait_for(processes, Ended) == [Ended(0, 0)]
    assert is_gone(int((tmp_path / "console.log").read_text()))


def test_closing_kills_what_fled_into_a_session_of_its_own(tmp_path: Path) -> None:
    code = "import os,time; pid=os.fork(); print(pid, flush=True) if pid else (os.setsid(), time.sleep(60))"
    NEWS.clear()
    with TrialProcesses() as processes:
        start(processes, tmp_path, code)
        wait_for(processes, Ended)
        pid = int((tmp_path / "console.log").read_text())
        assert not is_gone(pid)
    assert is_gone(pid)


@pytest.mark.parametrize("victim", ["coordinator", "supervisor"])
def test_no_process_outlives_a_killed_coordinator_or_supervisor(tmp_path: Path, victim: str) -> None:
    trial = "import os,time; os.fork(); print(os.getpid(), flush=True); time.sleep(60)"
    code = f"""
import sys, time
from pathlib import Path
from runstone_sweeps.processes.trials import TrialProcesses
processes = TrialProcesses()
processes.start(0, [sys.executable, "-c", {trial!r}], env={{}}, cwd=Path("."), console=Path("pids"))
print(processes._popen.pid, flush=True)
time.sleep(60)
"""
    coordinator = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert coordinator.stdout is not None
    supervisor = int(coordinator.stdout.readline())
    pids = tmp_path / "pids"
    until(lambda: pids.exists() and pids.read_text().count("\n") == 2)
    os.kill(coordinator.pid if victim == "coordinator" else supervisor, signal.SIGKILL)
    leader = min(map(int, pids.read_text().split()))
    until(lambda: is_gone(leader))
    coordinator.kill()
    coordinator.wait()
    coordinator.stdout.close()
    if victim == "coordinator":
        until(lambda: all(is_gone(int(pid)) for pid in pids.read_text().split()))
        until(lambda: is_gone(supervisor))
    else:
        for pid in map(int, pids.read_text().split()):  # the grandchild of a killed supervisor has no one left
            if not is_gone(pid):
                os.kill(pid, signal.SIGKILL)


def test_the_loss_of_the_supervisor_is_told(processes: TrialProcesses) -> None:
    assert processes._popen is not None
    processes._popen.kill()
    processes._popen.wait()
    with pytest.raises(SupervisorLost):
        processes.poll(LIMIT_S)


def test_a_leftover_is_killed_only_if_it_is_the_same_process() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    started = start_time(process.pid)
    assert started is not None
    assert not kill_leftover(process.pid, started - 1)
    assert process.poll() is None
    assert kill_leftover(process.pid, started)
    assert is_gone(process.pid)
    process.wait()
