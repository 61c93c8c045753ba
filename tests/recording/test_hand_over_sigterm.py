"""SIGTERM left to a framework and taken back, in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import runstone

SCRIPT = """
import os, signal, sys
from concurrent.futures import ThreadPoolExecutor
import runstone
run = runstone.start_run(workspace="ws", environment=False)
ours = signal.getsignal(signal.SIGTERM)
take_back = runstone.hand_over_sigterm()
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
if "twice" in sys.argv:
    runstone.hand_over_sigterm()()  # there is nothing left to hand over, nor to take back
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
if "theirs" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    take_back()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    raise SystemExit
if "kept" in sys.argv:
    os.kill(os.getpid(), signal.SIGTERM)
take_back()
assert signal.getsignal(signal.SIGTERM) is ours is not signal.SIG_DFL
with ThreadPoolExecutor() as pool:  # only the main thread may: does nothing
    pool.submit(lambda: runstone.hand_over_sigterm()()).result()
assert signal.getsignal(signal.SIGTERM) is ours
os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.parametrize(
    ("word", "code", "status"),
    [
        ("back", -signal.SIGTERM, "stopped"),
        ("twice", -signal.SIGTERM, "stopped"),
        ("kept", -signal.SIGTERM, "crashed"),  # what a framework that does not handle it would get
        ("theirs", 0, "finished"),
    ],
)
def test_sigterm_is_a_frameworks_until_it_is_taken_back(word: str, code: int, status: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RUNSTONE_WORKSPACE"}
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, word], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == code, result.stderr
    (folder,) = (tmp_path / "ws" / "runs").glob("*/*")
    assert runstone.RunInfo(folder).status == status
