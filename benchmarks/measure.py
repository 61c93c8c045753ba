"""How things are timed: in turn, best of many, with the machine named. A floor is the least that could do the job."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Row:
    """One measured thing: its best time, and how many times the floor that is."""

    name: str
    best_s: float
    floor: str | None = None


def best_of(subjects: Mapping[str, Callable[[int], object]], *, calls: int, rounds: int) -> dict[str, float]:
    """Return the best seconds a call of each subject, taken in turn, so that a slow moment of the machine hits all."""
    best = dict.fromkeys(subjects, float("inf"))
    for _ in range(rounds):
        for name, subject in subjects.items():
            start = time.perf_counter()
            subject(calls)
            best[name] = min(best[name], (time.perf_counter() - start) / calls)
    return best


def best_of_processes(programs: Mapping[str, Sequence[str]], *, rounds: int) -> dict[str, float]:
    """Return the best wall seconds of whole processes of this interpreter, measured in turn."""
    best = dict.fromkeys(programs, float("inf"))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(rounds + 1):  # the first makes the byte code and warms the page cache
        for name, arguments in programs.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, env=environment, stdout=subprocess.DEVNULL)
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def machine() -> str:
    """Return what the figures were measured on, in one line."""
    try:
        text = Path("/proc/cpuinfo").read_text()
        model = next(line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{python}, {os.cpu_count()} × {model}, {platform.platform()}"


def versions(*packages: str) -> str:
    """Return the installed versions of packages, in one line."""
    found = []
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} -")
    return ", ".join(found)


def show(title: str, best: Mapping[str, float], *, floor: str, unit_s: float, unit: str) -> None:
    """Print a table: best time, ratio to the floor."""
    width = max(len(name) for name in best)
    print(f"\n{title}")
    for name, seconds in best.items():
        ratio = f"{seconds / best[floor]:8.2f} × floor" if name != floor else "           floor"
        print(f"  {name:<{width}}  {seconds / unit_s:10.3f} {unit}  {ratio}")
