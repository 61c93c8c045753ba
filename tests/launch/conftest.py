"""Real programs, run by the real command, in a folder of their own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runstone.runinfo import RunInfo
from runstone.workspace import Workspace

# `-P`: as for the installed command, nothing of the working folder is in its way.
RUN = (sys.executable, "-P", "-m", "runstone.cli.main", "run", "--no-environment")
RUN_WHOLE = RUN[:-1]


@dataclass
class Done:
    """What came of a command: its output, its exit code, and its run."""

    code: int
    out: bytes
    err: bytes
    home: Path

    @property
    def runs(self) -> list[RunInfo]:
        if not (self.home / "FORMAT").exists():
            return []
        return [RunInfo(path) for path in sorted(Workspace(self.home).run_folders())]

    @property
    def run(self) -> RunInfo:
        (found,) = self.runs
        return found


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., str]:
    """Write a file and return its name."""

    def write(text: str, name: str = "train.py") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return name

    return write


@pytest.fixture
def launched(home: Path) -> Callable[..., Done]:
    """Run a command by `runstone run` until it ends; only where `whole` with its environment, which takes a while."""

    def launch(*words: str, whole: bool = False, **options: Any) -> Done:
        options = {"stdin": subprocess.DEVNULL, "timeout": 60, **options}
        done = subprocess.run([*(RUN_WHOLE if whole else RUN), *words], capture_output=True, **options)  # type: ignore[call-overload]
        return Done(done.returncode, done.stdout, done.stderr, home)

    return launch


@pytest.fixture
def plain() -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Run a command without `runstone run`."""

    def run(*words: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        options = {"stdin": subprocess.DEVNULL, "timeout": 60, **options}
        return subprocess.run(words, capture_output=True, **options)  # type: ignore[call-overload, no-any-return]

    return run
