"""How much memory the processes of a trial hold. Standard library only; Linux, elsewhere nothing is known."""

from __future__ import annotations

import os
from collections.abc import Iterable

from runstone_sweeps.processes.linux import children_of

_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def processes_of(leader: int, adopted: Iterable[int]) -> list[int]:
    """Return a trial's processes: the first, those below it, and those of its group that others adopted."""
    found = [leader]
    for pid in adopted:
        try:
            if pid != leader and os.getpgid(pid) == leader:
                found.append(pid)
        except ProcessLookupError:
            continue
    for pid in found:  # grows as it goes
        found.extend(child for child in children_of(pid) if child not in found)
    return found


def exceeds(pids: Iterable[int], limit_bytes: int) -> bool:
    """Tell whether processes hold more resident memory than allowed, pages that several share counted once.

    The cheap sum, which counts them several times, comes first; where it is within the limit, the other is too.
    """
    pids = list(pids)
    if sum(map(_resident, pids)) <= limit_bytes:
        return False
    return sum(map(_proportional, pids)) > limit_bytes


def _resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:  # noqa: PTH123  # no pathlib here: each import costs a start
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _proportional(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:  # noqa: PTH123  # as above
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return _resident(pid)
