"""One shortened trial for real, in a workspace that is thrown away: does it start, log the metric, and fit?"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from runstone import MetricTail, Series, ensure_workspace
from runstone_sweeps.environment import process_environment
from runstone_sweeps.executors.slots import GpuSlots
from runstone_sweeps.record.usage import Usage
from runstone_sweeps.space import nest
from runstone_sweeps.spec import SweepSpec
from runstone_sweeps.spec.command import build_command, uses_json_file

_POLL_S = 0.1
# How long a trial that was asked to stop may take for it, and how long one that was sent SIGTERM.
_STOP_S = 10.0
_TERM_S = 3.0
_CONSOLE_LINES = 15
_GPU_MEMORY = re.compile(r"system/(?:rank\.\d+/)?gpu\.\d+/memory_used_bytes")


@dataclass(slots=True)
class Logged:
    """What one metric got: how many points, the first and last step, and the last value."""

    count: int = 0
    first_step: int | None = None
    last_step: int | None = None
    last_value: float | None = None


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """How a shortened trial went.

    Attributes:
        argv: The words that started it.
        code: Exit code; below 0: the signal that killed it.
        is_cut: Whether it was stopped because its time was up.
        seconds: How long it ran.
        cpu_s: CPU time of its processes.
        max_rss_bytes: The largest resident memory of all its processes at once, as far as it was seen.
        gpu_bytes: The most memory that was in use on one of its GPUs, by whomever; 0 where its run did not record it.
        logged: What it logged, by metric; those of the system are left out.
        console: The last lines that it printed.
    """

    argv: tuple[str, ...]
    code: int
    is_cut: bool
    seconds: float
    cpu_s: float
    max_rss_bytes: int
    gpu_bytes: int
    logged: Mapping[str, Logged]
    console: tuple[str, ...]

    def usage(self, spec: SweepSpec) -> Usage:
        """Return what this trial used; its energy is not measured."""
        return Usage(self.seconds * spec.resources.gpus, self.cpu_s, self.seconds, 0.0, self.max_rss_bytes)


def rehearse(spec: SweepSpec, point: Mapping[str, Any], *, limit_s: float) -> Rehearsal:
    """Run one trial of a sweep for at most `limit_s` seconds, and the time that it takes to stop.

    Nothing stays but what the script itself writes elsewhere.

    Args:
        spec: The sweep.
        point: The params of the trial, with dotted names.
        limit_s: Seconds after which it is asked to stop, and ended if it does not.

    Raises:
        OSError: it cannot be started.
        NoGpus: there are fewer GPUs than it takes.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="runstone-dry-run-")))
        gpus: dict[str, str] = {}
        if spec.resources.gpus:
            slots = GpuSlots(spec.resources, process_environment())
            stack.callback(slots.close)
            gpus = slots.take(0)
        return _rehearse(spec, point, limit_s, folder, gpus)


def _rehearse(
    spec: SweepSpec, point: Mapping[str, Any], limit_s: float, folder: Path, gpus: Mapping[str, str]
) -> Rehearsal:
    workspace = ensure_workspace(folder / ".runstone")
    project = spec.project or "default"
    run = workspace.create_run(project=project, name=f"{spec.name}-dry-run", params=nest(point))
    params = json.dumps(nest(point), ensure_ascii=False)
    json_file = None
    if uses_json_file(spec.command):
        json_file = folder / "params.json"
        json_file.write_text(params, encoding="utf-8")
    environment = process_environment()
    argv = build_command(
        point,
        script=spec.script,
        command=spec.command,
        function=spec.function,
        metric=spec.metrics[0].name,
        environment=environment,
        json_file=json_file,
    )
    environment |= {
        **gpus,
        **spec.env,
        "RUNSTONE_WORKSPACE": str(workspace.path),
        "RUNSTONE_PROJECT": project,
        "RUNSTONE_GROUP": "dry-run",
        "RUNSTONE_RUN_ID": run.id,
        "RUNSTONE_TRIAL": params,
        "RUNSTONE_SEED": "0",
        "RUNSTONE_DISABLED": "0",
    }
    console = folder / "console.log"
    seen = _Seen()
    tail = workspace.follow(run.id)
    try:
        with console.open("wb") as output:
            process = subprocess.Popen(
                argv,
                cwd=spec.working_dir,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        watched = _Watched(process)
        try:
            is_cut = watched.until(limit_s, lambda: seen.take(tail))
            if is_cut:
                run.request_stop("stop")
                watched.end()
        finally:
            watched.kill()
        seen.take(tail)
    finally:
        run.close()
    lines = console.read_text(encoding="utf-8", errors="replace").splitlines()
    return Rehearsal(
        tuple(argv),
        watched.code,
        is_cut,
        watched.seconds,
        watched.cpu_s,
        watched.max_rss_bytes,
        seen.gpu_bytes,
        seen.logged,
        tuple(lines[-_CONSOLE_LINES:]),
    )


class _Seen:
    """What a run has logged so far."""

    def __init__(self) -> None:
        self.logged: dict[str, Logged] = {}
        self.gpu_bytes = 0

    def take(self, tail: MetricTail) -> None:
        """Take in what is new."""
        for name, series in tail.poll().items():
            if _GPU_MEMORY.fullmatch(name):
                self.gpu_bytes = max(self.gpu_bytes, *map(int, series.value))
            elif not name.startswith("system/"):
                self._add(self.logged.setdefault(name, Logged()), series)

    def _add(self, metric: Logged, series: Series) -> None:
        if not len(series):
            return
        metric.count += len(series)
        metric.last_value = float(series.value[-1])
        steps = [int(step) for step in series.step if step >= 0]
        if steps:
            metric.first_step = steps[0] if metric.first_step is None else metric.first_step
            metric.last_step = steps[-1]


class _Watched:
    """A process with all that it started: its time, its memory, and its end."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._started_s = time.monotonic()
        self.code = 0
        self.seconds = 0.0
        self.cpu_s = 0.0
        self.max_rss_bytes = 0
        self._has_ended = False
        self._children: set[psutil.Process] = set()

    def until(self, limit_s: float, each_time: Callable[[], None]) -> bool:
        """Wait for its end, at most so many seconds; tell whether it still runs then."""
        while not self._reap():
            if time.monotonic() - self._started_s >= limit_s:
                return True
            self._measure()
            each_time()
            time.sleep(_POLL_S)
        return False

    def end(self) -> None:
        """Wait for a process that was asked to stop; end it if it does not."""
        for wait_s, then in ((_STOP_S, signal.SIGTERM), (_TERM_S, signal.SIGKILL)):
            limit_s = time.monotonic() + wait_s
            while time.monotonic() < limit_s:
                if self._reap():
                    return
                self._measure()
                time.sleep(_POLL_S)
            self._signal(then)

    def kill(self) -> None:
        """Kill what is left of it and of what it started, also outside of its process group."""
        self._signal(signal.SIGKILL)
        for child in self._children:
            with contextlib.suppress(psutil.Error):
                child.kill()
        while not self._reap():
            time.sleep(_POLL_S / 10)

    def _signal(self, sent: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, sent)

    def _reap(self) -> bool:
        """Take the exit code, once it has one."""
        if self._has_ended:
            return True
        pid, status, used = os.wait4(self._process.pid, os.WNOHANG)
        if pid == 0:
            return False
        self._has_ended = True
        self.code = self._process.returncode = os.waitstatus_to_exitcode(status)
        self.seconds = time.monotonic() - self._started_s
        self.cpu_s = used.ru_utime + used.ru_stime
        self.max_rss_bytes = max(self.max_rss_bytes, used.ru_maxrss * 1024)
        return True

    def _measure(self) -> None:
        try:
            parent = psutil.Process(self._process.pid)
            children = parent.children(recursive=True)
        except psutil.Error:
            return
        self._children.update(children)
        total = 0
        for process in (parent, *children):
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
        self.max_rss_bytes = max(self.max_rss_bytes, total)
