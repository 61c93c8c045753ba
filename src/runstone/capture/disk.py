"""The file systems that a run depends on: where it is written, temporary files, shared memory."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from runstone.capture.context import Context
from runstone.capture.facts import Facts


def read_disk(facts: Facts, context: Context) -> None:
    """Kind, size and free space. A file system that has died hangs here, and costs this section only."""
    _read_place(facts.part("tmp"), _temporary(context), context)
    _read_place(facts.part("shm"), Path("/dev/shm"), context)  # noqa: S108 - likewise
    if context.store is None:
        facts.miss("store", "absent: this snapshot belongs to no run")
        return
    store = facts.part("store")
    store.read("log_backend", lambda: context.log_backend, if_none="it was not told")
    _read_place(store, context.store, context)


def disk_key(context: Context) -> list[Any]:
    """Return the file systems that are described."""
    places = [str(_temporary(context)), "/dev/shm", *([str(context.store)] if context.store is not None else [])]  # noqa: S108
    return [places[:2], [_device(place) for place in places], context.log_backend]


def renew_disk(values: dict[str, Any], context: Context) -> None:
    """Set what is free, and which run is described."""
    if context.store is not None:
        values["store"]["path"] = str(context.store)
    places = {"tmp": _temporary(context), "shm": Path("/dev/shm"), "store": context.store}  # noqa: S108
    for name, place in places.items():
        if place is not None and values[name].get("free_bytes") is not None:
            values[name]["free_bytes"] = _bytes(place)[1]


def _temporary(context: Context) -> Path:
    return Path(context.environment.get("TMPDIR") or "/tmp")  # noqa: S108 - looked at, not written to


def _device(place: str) -> int | None:
    try:
        return Path(place).stat().st_dev
    except OSError:
        return None


def _read_place(facts: Facts, place: Path, context: Context) -> None:
    facts.put("path", str(place))
    facts.read("type", lambda: file_system(place, context))
    facts.read("total_bytes", lambda: _bytes(place)[0])
    facts.read("free_bytes", lambda: _bytes(place)[1])


def _bytes(place: Path) -> tuple[int, int]:
    """Return size and what this user may still write."""
    state = os.statvfs(place)
    return state.f_blocks * state.f_frsize, state.f_bavail * state.f_frsize


def file_system(place: Path, context: Context) -> str | None:
    """Return the type of the file system, such as `ext4` or `nfs4`: that of the longest mount point above."""
    real = place.resolve(strict=True)
    best, kind = -1, None
    for line in context.text("proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        point = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), before.split()[4]))
        # Of several mounts on one place the last hides the others.
        if len(point.parts) >= best and real.is_relative_to(point):
            best, kind = len(point.parts), after.split()[0]
    return kind
