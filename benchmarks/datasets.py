"""What adding a folder of many files costs, first and unchanged, beside the floors, and beside DVC if it is here.

`RUNSTONE_BENCHMARK_DVC` names the `dvc` to measure; it need not be in the same environment.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from blake3 import blake3

from benchmarks.measure import show
from runstone.datasets import DatasetVersion, add
from runstone.workspace import ensure_workspace


def main(*, quick: bool = False) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        _tree(Path(folder), count=200 if quick else 10_000, size=100_000, rounds=1 if quick else 3)


def _tree(folder: Path, *, count: int, size: int, rounds: int) -> None:
    tree, scratch = folder / "tree", folder / "scratch"
    for number in range(count):
        path = tree / f"{number % 100:02}" / f"{number:05}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
    os.sync()
    workspace = ensure_workspace(folder / ".runstone")
    time.sleep(0.05)  # files that were just written are not remembered

    def added() -> DatasetVersion:
        return add(workspace.datasets, tree)

    def anew(*, store: bool) -> DatasetVersion:
        other = ensure_workspace(scratch / ".runstone")  # one that has not seen the files
        return add(other.datasets, tree, store=store)

    def command() -> None:
        place = ["--workspace", str(workspace.path)]
        subprocess.run(
            [sys.executable, "-m", "runstone.cli.main", "data", "add", str(tree), *place], check=True, **_QUIET
        )

    first: dict[str, Callable[[], object]] = {
        "read and hash once": lambda: _read_and_hash(tree),
        "write as many bytes into one file, sync": lambda: _write(scratch / "one", count * size),
        "read, hash, write a copy, sync": lambda: _copy(tree, scratch / "copy"),
        "data add --no-store": lambda: anew(store=False),
        "data add": lambda: anew(store=True),
    }
    again: dict[str, Callable[[], object]] = {
        "os.walk and stat": lambda: _walk(tree),
        "data add, unchanged": added,
        "data add, unchanged, as a command": command,
    }
    dvc = os.environ.get("RUNSTONE_BENCHMARK_DVC") or shutil.which("dvc")
    if dvc is not None:
        home = folder / "dvc"
        home.mkdir()
        shutil.copytree(tree, home / "tree")
        subprocess.run([dvc, "init", "--no-scm", "-q"], cwd=home, check=True, **_QUIET)
        dvc_add = partial(subprocess.run, [dvc, "add", "-q", "tree"], cwd=home, check=True, **_QUIET)
        again["dvc add, unchanged, as a command"] = dvc_add
    taken = {name: float("inf") for name in first}
    for name, subject in list(first.items()) * rounds:
        scratch.mkdir()
        os.sync()
        taken[name] = min(taken[name], _seconds(subject))
        shutil.rmtree(scratch)
    added()
    if dvc is not None:
        taken["dvc add, as a command, once"] = _seconds(dvc_add)
    show(
        f"{count} new files of {size:,} bytes, best of {rounds} in turn",
        taken,
        floor="read and hash once",
        unit_s=1.0,
        unit="s",
    )
    taken = {name: min(_seconds(subject) for _ in range(3)) for name, subject in again.items()}
    show(f"{count} unchanged files", taken, floor="os.walk and stat", unit_s=1.0, unit="s")


_QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def _read_and_hash(tree: Path) -> None:
    for root, _folders, names in os.walk(tree):
        for name in names:
            blake3(Path(root, name).read_bytes()).hexdigest()


def _write(target: Path, size: int) -> None:
    """Write bytes as fast as the disk takes them: what no store can be faster than that keeps a copy."""
    data = os.urandom(1 << 20)
    with target.open("wb", buffering=0) as file:
        for _ in range(size >> 20):
            file.write(data)
        os.fsync(file.fileno())


def _copy(tree: Path, target: Path) -> None:
    for root, _folders, names in os.walk(tree):
        place = target / Path(root).relative_to(tree)
        place.mkdir(parents=True)
        for name in names:
            data = Path(root, name).read_bytes()
            blake3(data).hexdigest()
            (place / name).write_bytes(data)
    os.sync()


def _walk(tree: Path) -> int:
    # as bare as it gets: no objects for paths
    return sum(
        os.stat(os.path.join(root, name)).st_size  # noqa: PTH116, PTH118
        for root, _folders, names in os.walk(tree)
        for name in names
    )


def _seconds(subject: Callable[[], object]) -> float:
    begin = time.perf_counter()
    subject()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
