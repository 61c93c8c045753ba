"""What the tests of whole sweeps share: small scripts, and a coordinator that runs as users start it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

import runstone
from runstone_sweeps.config import load_spec
from runstone_sweeps.coordinator.session import Budget, run_session, stored_spec
from runstone_sweeps.coordinator.work import RunningTrial, Watcher
from runstone_sweeps.record import SweepRecord
from runstone_sweeps.record.journal import Event, read_events
from runstone_sweeps.store import SweepFolder, Sweeps

# Loss falls with each step towards what x gives; `slow` and `steps` say how long it takes. After its first step a trial
# waits for the file `until`, if it is given one: what a test does to it while it runs cannot come too late.
SCRIPT = """\
import argparse, os, time
import runstone
parser = argparse.ArgumentParser()
parser.add_argument("--x", type=float, required=True)
parser.add_argument("--steps", type=int, default=3)
parser.add_argument("--slow", type=float, default=0.0)
parser.add_argument("--until")
options = parser.parse_args()
with runstone.start_run(environment=False) as run:
    for step in range(options.steps):
        run.log({"loss": options.x**2 + 1 / (step + 1), "step_": step}, step=step)
        time.sleep(options.slow)
        while options.until and not os.path.exists(options.until) and not run.should_stop:
            time.sleep(0.01)
        if run.should_stop:
            break
"""
CONFIG = """\
name: {name}
script: {script}
metric: {{name: loss, goal: minimize}}
trials: {trials}
parallel: {parallel}
seed: 5
sampler: random
parameters:
  x: {{min: -1.0, max: 1.0}}
"""


class Silent:
    """Watches, and keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.endings: list[str] = []

    def on_event(self, event: Event, record: SweepRecord) -> None: ...

    def on_ending(self, reason: str, running: int, grace_s: float) -> None:
        self.endings.append(reason)

    def on_note(self, note: str) -> None:
        self.notes.append(note)

    def on_tick(self, record: SweepRecord, running: Sequence[RunningTrial]) -> None: ...


class Place:
    """A folder with a script and configs, and the sweeps that were run in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.home = path / ".runstone"
        self.script("train.py", SCRIPT)
        self._started: list[subprocess.Popen[str]] = []

    def script(self, name: str, text: str) -> Path:
        path = self.path / name
        path.write_text(text)
        return path

    def config(
        self, more: str = "", *, name: str = "toy", script: str = "train.py", trials: int = 4, parallel: int = 2
    ) -> Path:
        """Write a config; `more` holds further keys and, indented, further parameters."""
        text = CONFIG.format(name=name, script=script, trials=trials, parallel=parallel)
        path = self.path / f"{name}.yaml"
        path.write_text(text + more)
        return path

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        """Start `sweep WORDS` in a process group of its own."""
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "runstone_sweeps.cli", *map(str, words)],
            cwd=self.path,
            env={**os.environ, "RUNSTONE_WORKSPACE": str(self.home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def sweep(self, *words: str | Path, code: int = 0) -> str:
        """Run `sweep WORDS` to its end and return what it printed."""
        process = self.start(*words)
        out, err = process.communicate(timeout=180)
        assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
        assert "Traceback" not in out + err
        return out + err

    def run_here(
        self, config: Path, *, folder: SweepFolder | None = None, watcher: Watcher | None = None, **budget: int
    ) -> str:
        """Run a sweep in this process, or go on with one, and return why it ended."""
        spec = Budget(**budget).apply(load_spec(config, has_budget=True))
        workspace = runstone.ensure_workspace(self.home)
        folder = folder or Sweeps(workspace).create(spec, seed=spec.seed or 0)
        return run_session(workspace, folder, spec, lambda *_: watcher or Silent()).reason

    def resume_here(self, folder: SweepFolder | None = None, *, watcher: Watcher | None = None, **budget: int) -> str:
        """Go on with a sweep in this process as `sweep resume` does."""
        folder = folder or self.folder
        workspace = runstone.open_workspace(self.home)
        spec = stored_spec(folder, Budget(**budget))
        return run_session(workspace, folder, spec, lambda *_: watcher or Silent()).reason

    @property
    def folders(self) -> list[SweepFolder]:
        """The sweeps, oldest first."""
        return [SweepFolder(path) for path in sorted((self.home / "sweeps").glob("*")) if path.is_dir()]

    @property
    def folder(self) -> SweepFolder:
        """The only sweep."""
        (folder,) = self.folders
        return folder

    @property
    def record(self) -> SweepRecord:
        """What the only sweep's record says."""
        return self.folder.read()

    @property
    def events(self) -> list[Event]:
        """The events of the only sweep."""
        return read_events(self.folder.path)[0]

    def go(self) -> None:
        """Let trials that wait for the file `go` go on."""
        (self.path / "go").touch()

    def until(self, is_so: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
        """Wait until something is so."""
        limit = time.monotonic() + 120  # a busy machine takes its time
        while not is_so():
            assert time.monotonic() < limit
            assert process is None or process.poll() is None, process.communicate()
            time.sleep(0.01)

    def until_opened(self, process: subprocess.Popen[str]) -> None:
        """Wait until a coordinator that was just started writes the record, or has ended."""
        self.until(lambda: any(e["pid"] == process.pid for e in self.events_of("opened")) or process.poll() is not None)

    def events_of(self, kind: str) -> list[Event]:
        """Return the events of one kind so far; none where there is no sweep yet."""
        if not (self.home / "sweeps").is_dir() or not self.folders:
            return []
        return [event for event in self.events if event["event"] == kind]

    def living(self) -> list[int]:
        """Return the processes of trials that live."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("RUNSTONE_WORKSPACE") != str(self.home):
                    continue
                if "RUNSTONE_RUN_ID" in process.environ() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
            except (psutil.Error, OSError):
                continue
        return found

    def close(self) -> None:
        """End what a failed test left running."""
        for process in self._started:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
            process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Return a folder to run sweeps in."""
    place = Place(tmp_path)
    yield place
    place.close()


@pytest.fixture(scope="session")
def fakenvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that holds a `libnvidia-ml.so.1` whose GPUs a file describes."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    source = Path(__file__).parents[1] / "fakenvml" / "fakenvml.c"
    folder = tmp_path_factory.mktemp("fakenvml")
    flags = ["-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1"]
    subprocess.run([compiler, *flags, "-o", str(folder / "libnvidia-ml.so.1"), str(source)], check=True)
    return folder
