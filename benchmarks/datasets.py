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
from pathlib import Path

from blake3 import blake3

from benchmarks.measure import show
from runstone.datasets import DatasetVersion, add
from runstone.workspace import ensure_workspace


def main(*, quick: bool = False) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        _tree(Path(folder), count=200 if quick else 10_000, size=100_000)


def _tree(folder: Path, *, count: int, size: int) -> None:
    tree = folder / "tree"
    for number in range(count):
        path = tree / f"{number % 100:02}" / f"{number:05}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
    os.sync()
    workspace = ensure_workspace(folder / ".runstone")
    time.sleep(0.05)  # files that were just written are not remembered

    def added() -> DatasetVersion:
        return add(workspace.datasets, tree)

    def by_reference() -> DatasetVersion:
        other = ensure_workspace(folder / "other" / ".runstone")  # one that has not seen the files
        return add(other.datasets, tree, store=False)

    def command() -> None:
        place = ["--workspace", str(workspace.path)]
        subprocess.run(
            [sys.executable, "-m", "runstone.cli.main", "data", "add", str(tree), *place], check=True, **_QUIET
        )

    first: dict[str, Callable[[], object]] = {
        "read and hash once": lambda: _read_and_hash(tree),
        "read, hash, write a copy, sync": lambda: _copy(tree, folder / "copy"),
        "data add --no-store": by_reference,
        "data add": added,
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
        first["dvc add, as a command"] = again["dvc add, unchanged, as a command"] = lambda: subprocess.run(
            [dvc, "add", "-q", "tree"], cwd=home, check=True, **_QUIET
        )
    taken = {name: _seconds(subject) for name, subject in first.items()}
    show(f"{count} new files of {size:,} bytes", taken, floor="read and hash once", unit_s=1.0, unit="s")
    taken = {name: min(_seconds(subject) for _ in range(3)) for name, subject in again.items()}
    show(f"{count} unchanged files", taken, floor="os.walk and stat", unit_s=1.0, unit="s")


_QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def _read_and_hash(tree: Path) -> None:
    for root, _folders, names in os.walk(tree):
        for name in names:
            blake3(Path(root, name).read_bytes()).hexdigest()


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
