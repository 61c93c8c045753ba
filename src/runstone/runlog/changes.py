"""Which run folders changed lately, told by those who write them. Knows names of folders, not what is in them.

`changes/<day>.<machine>` in the workspace has a line for each time that a writer opened a run, or edited one. All
processes of a machine append to one file: a line is one `write` with `O_APPEND`, which keeps them apart. It is a hint
that saves readers a look at every folder (decision 10): a line that is lost costs a delay, never an answer.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from runstone.runlog.liveness import boot_id

FOLDER = "changes"
_RUN = re.compile(r"[^/\0\n]{1,255}/[^/\0\n]{1,255}")
_NAME = re.compile(r"\d{4}-\d{2}-\d{2}\.[0-9a-f]{16}")
_KEPT_S = 2 * 86_400.0
"""Readers that look less often compare all folders anyway."""


def announce(run_path: Path) -> None:
    """Say that a run folder has changed, after the change. Never raises.

    Args:
        run_path: Folder of the run; nothing is said where it does not lie in a workspace.
    """
    if len(run_path.parents) < 3 or run_path.parents[1].name != "runs":
        return
    workspace = run_path.parents[2]
    line = f"\n{run_path.parent.name}/{run_path.name}\n".encode("utf-8", "surrogateescape")
    with contextlib.suppress(OSError):
        path = workspace / FOLDER / f"{datetime.now(UTC):%Y-%m-%d}.{_machine()}"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            fd = os.open(path, flags, 0o644)
        except FileNotFoundError:
            if not (workspace / "FORMAT").is_file():
                return
            path.parent.mkdir(exist_ok=True)
            fd = os.open(path, flags, 0o644)
        try:
            os.write(fd, line)  # begins with a newline, too: a torn line of a process that died takes no other with it
        finally:
            os.close(fd)


def news(workspace: Path, offsets: Mapping[str, int]) -> tuple[set[str], dict[str, int], bool]:
    """Return what was announced since the last look.

    Args:
        workspace: Its folder.
        offsets: Bytes of each file that were read then.

    Returns:
        Run folders as `<project folder>/<run id>`; the bytes of each file that are read now; and whether the files go
        on from where they stood then, so that nothing can have been missed.
    """
    found: set[str] = set()
    read: dict[str, int] = {}
    goes_on = True
    try:
        with os.scandir(workspace / FOLDER) as entries:
            names = sorted(entry.name for entry in entries if _NAME.fullmatch(entry.name))
    except OSError:
        return found, read, not offsets
    for name in names:
        before = offsets.get(name, 0)
        try:
            with (workspace / FOLDER / name).open("rb") as file:  # opening it asks a server for its size
                size = os.fstat(file.fileno()).st_size
                goes_on = goes_on and size >= before
                file.seek(before if size >= before else 0)
                data = file.read()
        except OSError:
            goes_on = False
            continue
        end = data.rfind(b"\n") + 1
        read[name] = file_end = (before if size >= before else 0) + end
        if file_end != before:
            lines = data[:end].decode("utf-8", "surrogateescape").split("\n")
            found.update(line for line in lines if _RUN.fullmatch(line))
    return found, read, goes_on and set(offsets) <= set(read)


def forget_old(workspace: Path) -> None:
    """Remove files to which nobody has written for two days."""
    with contextlib.suppress(OSError), os.scandir(workspace / FOLDER) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name) and time.time() - entry.stat().st_mtime > _KEPT_S:
                Path(entry.path).unlink()


def _machine() -> str:
    told = f"{os.uname().nodename}\0{boot_id()}".encode("utf-8", "surrogateescape")
    return hashlib.blake2b(told, digest_size=8).hexdigest()
