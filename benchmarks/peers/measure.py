"""Runs the jobs of `driver.py`, one process at a time, the trackers taken in turn, and keeps the best of the rounds."""

from __future__ import annotations

import json
import mmap
import random
import shutil
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers.driver import ACKNOWLEDGED
from benchmarks.peers.environments import HERE, process_environment
from benchmarks.peers.trackers import TRACKERS

HIGHER_IS_BETTER = ("points_a_second",)
VERSIONS = "import importlib.metadata as m, sys; print(*(f'{n} {m.version(n)}' for n in sys.argv[1:]), sep=', ')"


@dataclass(slots=True)
class Subject:
    """One tracker in its environment, and what has been found out about it, with what went wrong on the way."""

    name: str
    python: str
    peer: str | None = None
    figures: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def keep_best(self, figures: dict[str, float]) -> None:
        """Take what is better than before."""
        for name, value in figures.items():
            better = max if name in HIGHER_IS_BETTER else min
            self.figures[name] = better(self.figures.get(name, value), value)


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to look."""

    rounds: int = 5
    steps_ratio: float = 1.0
    series_length: int = 20_000
    kills: int = 3
    seconds_to_kill: float = 4.0
    seconds_to_settle: float = 2.0
    job_timeout_s: float = 300.0


QUICK = Effort(1, 0.01, 200, 1, 0.3, 0.1, 120.0)
RATES = (20, 200)
PRICES = ("tight_cpu_s", "tight_wall_s", "cold_cpu_s", "cold_wall_s", "points_a_second", "empty_run_s")


class JobFailed(Exception):
    """A process of a tracker did not do its job; the message is the last line that it wrote."""


def installed_versions(subject: Subject, packages: tuple[str, ...]) -> str:
    """Return names and versions of packages of a subject's environment."""
    command = [subject.python, "-c", VERSIONS, *packages]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def measure_prices(subject: Subject, effort: Effort) -> None:
    """Calls, a whole run, an empty run."""
    steps = max(20, int(TRACKERS[subject.name].steps * effort.steps_ratio))
    with _scratch() as folder:
        _try_job(subject, folder, "price", steps, effort, PRICES)


def measure_size(subject: Subject, effort: Effort) -> None:
    """Bytes on disk of as many points for all."""
    with _scratch() as folder:
        _try_job(subject, folder, "store", effort.series_length // 5, effort, ("bytes_a_point",))


def measure_import(subject: Subject) -> None:
    """A process that imports the tracker, less one that does nothing."""
    module, seconds = TRACKERS[subject.name].module, {}
    with _scratch() as folder:
        for program in ("pass", f"import {module}"):
            start = time.perf_counter()
            command = [subject.python, "-c", program]
            subprocess.run(command, check=True, env=process_environment(subject.peer, folder), capture_output=True)
            seconds[program] = time.perf_counter() - start
    subject.keep_best({"pass_s": seconds["pass"], "import_and_pass_s": seconds[f"import {module}"]})
    subject.figures["import_s"] = subject.figures["import_and_pass_s"] - subject.figures["pass_s"]


def measure_reading(subject: Subject, effort: Effort) -> None:
    """Write a series once, read it back several times."""
    with _scratch() as folder:
        try:
            _job(subject, folder, "fill", effort.series_length, effort.job_timeout_s)
            result = _job(subject, folder, "read", max(1, effort.rounds - 2), effort.job_timeout_s)
        except JobFailed as failure:
            subject.reasons["read_s"] = str(failure)
            return
    if result["found"] != effort.series_length:
        subject.reasons["read_s"] = f"the reader found {result['found']:.0f} of {effort.series_length} points"
        return
    subject.keep_best({"read_s": result["read_s"]})


def measure_kills(subject: Subject, rate_hz: int, effort: Effort) -> None:
    """Kill the process that logs, and only it, at a random moment; add up what was acknowledged and is not there."""
    key = f"lost_at_{rate_hz}_hz"
    with _scratch() as folder:
        try:
            acknowledged = _be_killed(subject, folder, rate_hz, effort)
            found = int(_job(subject, folder, "read", 1, effort.job_timeout_s)["found"])
        except JobFailed as failure:
            subject.reasons[key] = str(failure)
            return
    figures = subject.figures
    figures[f"acknowledged_at_{rate_hz}_hz"] = figures.get(f"acknowledged_at_{rate_hz}_hz", 0) + acknowledged
    figures[key] = figures.get(key, 0) + max(0, acknowledged - found)


def _be_killed(subject: Subject, folder: Path, rate_hz: int, effort: Effort) -> int:
    """Return how many calls had returned when the process was killed."""
    work = folder / "work"
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            _command(subject, "kill", rate_hz),
            cwd=work,
            env=process_environment(subject.peer, folder),
            stdout=output,
            stderr=output,
        )
        try:
            _wait_for_first_call(process, work / ACKNOWLEDGED, folder / "output", effort.job_timeout_s)
            time.sleep(effort.seconds_to_kill * random.uniform(0.75, 1.25))
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    acknowledged = _acknowledged(work / ACKNOWLEDGED)
    _wait_until_settled(work, effort.seconds_to_settle)
    return acknowledged


def _wait_for_first_call(process: subprocess.Popen[bytes], count: Path, output: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while _acknowledged(count) == 0:
        if process.poll() is not None or time.monotonic() > deadline:
            raise JobFailed(_last_line(output.read_text(errors="replace")))
        time.sleep(0.01)


def _acknowledged(count: Path) -> int:
    try:
        with count.open("rb") as file, mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ) as memory:
            return int(struct.unpack_from("<q", memory)[0])
    except (FileNotFoundError, ValueError):  # not yet there, or still empty
        return 0


def _wait_until_settled(folder: Path, quiet_s: float) -> None:
    """Helpers of a tracker live on when its process is killed: let them write to the end."""
    deadline, state, since = time.monotonic() + 10 * quiet_s, None, time.monotonic()
    while time.monotonic() < min(deadline, since + quiet_s):
        now = sorted((str(path), _size_and_time(path)) for path in folder.rglob("*"))
        if now != state:
            state, since = now, time.monotonic()
        time.sleep(0.05)


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return (0, 0)
    return (status.st_size, status.st_mtime_ns)


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder that is the home of the process, with a folder `work` in which it logs.

    The driver is copied there too, so that no tracker finds a git repository around the program and keeps its diff.
    """
    folder = Path(tempfile.mkdtemp(prefix="runstone-peers-"))
    (folder / "work").mkdir()
    shutil.copytree(HERE.parent, folder / "benchmarks", ignore=shutil.ignore_patterns(".venv-*", "__pycache__"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # a helper that lives on may still write


def _try_job(subject: Subject, folder: Path, job: str, amount: int, effort: Effort, keys: tuple[str, ...]) -> None:
    try:
        subject.keep_best(_job(subject, folder, job, amount, effort.job_timeout_s))
    except JobFailed as failure:
        for key in keys:
            subject.reasons[key] = str(failure)


def _job(subject: Subject, folder: Path, job: str, amount: int, timeout_s: float) -> dict[str, float]:
    try:
        done = subprocess.run(
            _command(subject, job, amount),
            cwd=folder / "work",
            env=process_environment(subject.peer, folder),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        raise JobFailed(f"not done after {timeout_s:.0f} s") from None
    if done.returncode != 0:
        raise JobFailed(_last_line(done.stderr))
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _command(subject: Subject, job: str, amount: int) -> list[str]:
    return [subject.python, "-m", "benchmarks.peers.driver", job, subject.name, str(amount)]


def _last_line(text: str) -> str:
    return next((line.strip()[:200] for line in reversed(text.splitlines()) if line.strip()), "it said nothing")
