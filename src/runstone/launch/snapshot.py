"""The environment of a launched program: taken beside it, by a process that is like it.

A helper of the program's own interpreter, with its environment and working folder, takes the snapshot, and tells of the
program's process instead of its own. For programs that are not Python, this interpreter does, and leaves out Python.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runstone.capture import redact
from runstone.launch.command import Command

# The package is found where it was found here, but never before anything else.
_PROGRAM = (
    "import sys; sys.path[:] = [p for p in sys.path if p]; sys.path.append(sys.argv.pop(1)); "
    "from runstone.launch.snapshot import main; main()"
)
_OF_PYTHON = ("python", "packages", "frameworks", "blas", "notebook")
_OF_LOADED = ("frameworks", "blas")


class Snapshot:
    """A snapshot on its way into a run's folder.

    Args:
        command: What was started.
        pid: Its process.
        run_path: Folder of the run.
        writer: Whose snapshot it is.
        environment: The program's environment.
    """

    def __init__(self, command: Command, pid: int, run_path: Path, writer: str, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._told = {
            "run_path": str(run_path),
            "writer": writer,
            "argv": list(command.given),
            "pid": pid,
            "ppid": os.getpid(),
            **_entry(command),
        }
        interpreters: list[Sequence[str]] = []
        if command.is_python:
            interpreters.append(_without_warnings(command.python))
        interpreters.append([sys.executable])
        self._interpreters = interpreters
        self._has_python = command.is_python
        self._thread = threading.Thread(target=self._take, name="runstone-environment", daemon=True)
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Wait until it is written, at most so long; return whether it is."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _take(self) -> None:
        root = str(Path(__file__).absolute().parents[2])
        for place, interpreter in enumerate(self._interpreters):
            told = {**self._told, "is_python": self._has_python and place == 0}
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                done = subprocess.run(
                    [*interpreter, "-c", _PROGRAM, root, json.dumps(told)],
                    env=dict(self._environment),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                    timeout=20,
                    check=False,
                )
                if done.returncode == 0:
                    return


def _entry(command: Command) -> dict[str, Any]:
    """Return what kind of program it is, and what is run."""
    if not command.is_python:
        return {"kind": "program", "entry": command.given[0]}
    target = command.given[len(command.python)]
    if target == "-c":
        return {"kind": "command", "entry": None}
    if target == "-m":
        return {"kind": "module", "entry": command.given[len(command.python) + 1]}
    return {"kind": "script", "entry": str(Path(target).absolute())}


def _without_warnings(python: Sequence[str]) -> list[str]:
    """Return an interpreter and its options without `-W`: our own imports must not fail by it."""
    kept: list[str] = []
    skips = False
    for word in python:
        if skips:
            skips = False
        elif word.startswith("-W"):
            skips = word == "-W"
        else:
            kept.append(word)
    return kept


def main() -> None:
    """Take the snapshot that the command line describes: the helper process."""
    told = json.loads(sys.argv[1])
    with contextlib.suppress(OSError):
        os.nice(10)
    sys.orig_argv = told["argv"]
    if told["kind"] == "script":  # whose code it is, is looked up by it
        sys.modules["__main__"].__file__ = told["entry"]
    from runstone.capture.collect import collect  # after the priority is low

    run_path, writer = Path(told["run_path"]), str(told["writer"])

    def keep_patch(patch: bytes) -> str:
        name = f"code.{writer}.patch"
        _write(run_path / name, patch)
        return name

    snapshot = collect(writer=writer, store=run_path, keep_patch=keep_patch)
    _describe_program(snapshot, told)
    _write(run_path / f"environment.{writer}.json", json.dumps(snapshot, ensure_ascii=False).encode())


def _describe_program(snapshot: dict[str, Any], told: Mapping[str, Any]) -> None:
    """Put the program's process in place of the helper's, and leave out what only the program's own could tell."""
    why = snapshot["why"]
    process = snapshot["process"]
    process.update(
        pid=told["pid"],
        ppid=told["ppid"],
        kind=told["kind"],
        entry=redact.text(told["entry"]) if told["entry"] is not None else None,
        started_at=_started_at(told["pid"]),
    )
    for name in ("entry", "started_at"):
        why.pop(f"process.{name}", None)
        if process[name] is None:
            why[f"process.{name}"] = "absent: there is no script" if name == "entry" else "absent: it has ended"
    missing = dict.fromkeys(_OF_LOADED, "absent: the snapshot was taken beside the program, not in it")
    if not told["is_python"]:
        missing = dict.fromkeys(_OF_PYTHON, "absent: the program is not Python, or a Python without runstone")
    for section, reason in missing.items():
        for path in [path for path in why if path == section or path.startswith(f"{section}.")]:
            del why[path]
        snapshot[section], why[section] = None, reason


def _started_at(pid: int) -> float | None:
    import psutil  # the collectors have loaded it

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def _write(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    with open(partial, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
