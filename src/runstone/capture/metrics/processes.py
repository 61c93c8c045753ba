"""The processes of the run: this one, and those below it, such as the workers of a data loader."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from runstone.capture.metrics.readings import Rates, Readings

# Measuring the unshared memory of a process walks its page tables and holds off its changes meanwhile.
_LARGEST_FOR_USS = 8 << 30


class Processes:
    """CPU, memory, threads, files and disk traffic of a tree of processes."""

    name = "process"

    def __init__(self, pid: int, *, root: Path = Path("/")) -> None:
        self._root_pid = pid
        self._proc = root / "proc"
        self._known: dict[int, psutil.Process] = {}
        self._cpu_s: dict[int, float] = {}
        self._io: dict[int, tuple[int, int]] = {}
        self._at_s: float | None = None
        self._rates = Rates()

    def read(self, readings: Readings) -> None:
        """Put what the tree uses; a process that vanishes meanwhile is left out."""
        readings.pids.add(self._root_pid)
        own = self._process(self._root_pid)
        with readings.attempt("process/children"):
            children = self._descendants(own, readings)
            self._known = {process.pid: process for process in (own, *children)}
            readings.pids.update(self._known)
            readings.put("process/children", len(children))
        self._read_own(own, readings)
        self._read_tree(readings)

    def close(self) -> None:
        """Nothing is held open."""

    def _process(self, pid: int) -> psutil.Process:
        known = self._known.get(pid)
        return known if known is not None else psutil.Process(pid)

    # --- the tree --------------------------------------------------------------------------------------------------

    def _descendants(self, own: psutil.Process, readings: Readings) -> list[psutil.Process]:
        try:
            pids = self._pids_below(own.pid)
        except OSError:  # not Linux, or a kernel without these lists: psutil looks at every process of the machine
            if readings.is_slow:
                return own.children(recursive=True)
            return [process for pid, process in self._known.items() if pid != own.pid and process.is_running()]
        found = []
        for pid in pids:
            try:
                found.append(self._living(pid))
            except psutil.Error:  # gone since
                continue
        return found

    def _living(self, pid: int) -> psutil.Process:
        known = self._known.get(pid)
        if known is not None and known.is_running():  # the same number may be another process by now
            return known
        return psutil.Process(pid)

    def _pids_below(self, pid: int) -> list[int]:
        found: list[int] = []
        waiting = [pid]
        while waiting:
            tasks = self._proc / str(waiting.pop()) / "task"
            try:
                threads = os.listdir(tasks)  # noqa: PTH208 (hundreds of names, no Path for each)
            except OSError:
                if not found and not waiting:
                    raise
                continue  # a child that has gone since
            for thread in threads:
                try:
                    text = _text(f"{tasks}/{thread}/children")
                except ProcessLookupError:
                    continue
                except FileNotFoundError:
                    if tasks.joinpath(thread).exists():
                        raise  # not a thread that ended, but a kernel that keeps no such list
                    continue
                below = [*map(int, text.split())]
                found += below
                waiting += below
        return found

    # --- what it uses ----------------------------------------------------------------------------------------------

    def _read_own(self, own: psutil.Process, readings: Readings) -> None:
        with readings.attempt("process/rss_bytes"):
            rss_bytes = own.memory_info().rss
            readings.put("process/rss_bytes", rss_bytes)
            if readings.is_slow and rss_bytes <= _LARGEST_FOR_USS:
                with readings.attempt("process/uss_bytes"):
                    readings.put("process/uss_bytes", own.memory_full_info().uss)
        with readings.attempt("process/threads"):
            readings.put("process/threads", own.num_threads())
        with readings.attempt("process/open_files"):
            readings.put("process/open_files", own.num_fds())
        with readings.attempt("process/oom_score"):
            readings.put("process/oom_score", int((self._proc / str(own.pid) / "oom_score").read_text()))

    def _read_tree(self, readings: Readings) -> None:
        rss_bytes = self._over_tree("process/tree_rss_bytes", _rss, readings)
        if rss_bytes:
            readings.put("process/tree_rss_bytes", sum(rss_bytes.values()))
        before_s, self._at_s = self._at_s, readings.at_s
        cpu_s = self._over_tree("process/cpu_percent", _cpu_s, readings)
        io_bytes = self._over_tree("process/io", _io_bytes, readings)
        if before_s is not None and readings.at_s > before_s:
            span_s = readings.at_s - before_s
            # A process that came since the last pass did all that it did in this interval.
            if cpu_s:
                used_s = sum(max(0.0, now - self._cpu_s.get(pid, 0.0)) for pid, now in cpu_s.items())
                readings.put("process/cpu_percent", 100 * used_s / span_s)
            for position, kind in enumerate(("read", "write") if io_bytes else ()):
                moved = sum(
                    max(0, now[position] - self._io.get(pid, (0, 0))[position]) for pid, now in io_bytes.items()
                )
                readings.put(f"process/{kind}_bytes_per_s", moved / span_s)
        self._cpu_s, self._io = cpu_s, io_bytes

    def _over_tree(self, what: str, ask: Callable[[psutil.Process], Any], readings: Readings) -> dict[int, Any]:
        found = {}
        for pid, process in self._known.items():
            try:
                found[pid] = ask(process)
            except psutil.NoSuchProcess:
                continue
            except (psutil.Error, OSError, AttributeError) as error:  # not this user's, or nothing this system has
                readings.miss(what, f"denied: {error}" if isinstance(error, psutil.AccessDenied) else f"error: {error}")
        return found


def _text(path: str) -> bytes:
    """Read a file of `/proc`; a process of many threads has hundreds of these, so without a file object."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(fd, 1 << 16)
        while more := os.read(fd, 1 << 16):
            text += more
        return text
    finally:
        os.close(fd)


def _rss(process: psutil.Process) -> int:
    return process.memory_info().rss


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _io_bytes(process: psutil.Process) -> tuple[int, int]:
    counters = process.io_counters()
    return counters.read_bytes, counters.write_bytes
