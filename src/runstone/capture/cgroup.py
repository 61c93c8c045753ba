"""Limits that control groups set on this process, in versions 1 and 2 and both at once.

A limit counts wherever it stands between the process's group and the root that this process can see, so the
smallest wins. Source: Linux kernel documentation, "Control Group v2" and "Control Groups version 1".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from runstone.capture.context import Context
from runstone.capture.facts import Facts, absent

# Version 1 says "no limit" with the largest multiple of a page below 2**63.
_UNLIMITED_BYTES = 1 << 60


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted tree of groups.

    Attributes:
        version: 1 or 2.
        path: The group of this process, as `/proc/self/cgroup` names it.
        folders: From that of this process up to the mount.
    """

    version: int
    path: str
    folders: tuple[Path, ...]


def read_cgroup(facts: Facts, context: Context) -> None:
    """Version, path, and the limits of CPU, memory, swap and processes."""
    hierarchies = find_hierarchies(context)
    if not hierarchies:
        raise absent("no control group is mounted")

    def of(controller: str) -> Hierarchy:
        found = hierarchies.get(controller) or hierarchies.get("")
        if found is None:
            raise absent(f"no {controller} controller is mounted")
        return found

    facts.read("version", lambda: of("memory").version)
    facts.read("path", lambda: of("memory").path)
    facts.read("cpu_limit", lambda: _cpu_limit(of("cpu")))
    facts.read("cpuset", lambda: cpus_of(of("cpuset")))
    facts.read("memory_limit_bytes", lambda: _limit(of("memory"), "memory.limit_in_bytes", "memory.max"))
    facts.read("memory_high_bytes", lambda: _limit(of("memory"), "memory.soft_limit_in_bytes", "memory.high"))
    facts.read("swap_limit_bytes", lambda: _swap_limit(of("memory")))
    facts.read("pids_limit", lambda: _limit(of("pids"), "pids.max", "pids.max"))


def find_hierarchies(context: Context) -> dict[str, Hierarchy]:
    """Return the hierarchies by controller; version 2, which has all the rest, under the empty name."""
    mounts: dict[str, tuple[str, str]] = {}
    for line in context.text("proc/self/mountinfo").splitlines():
        before, dash, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if not dash or len(fields) < 5 or len(kind) < 3:
            continue
        place = (_unescaped(fields[3]), _unescaped(fields[4]))
        if kind[0] == "cgroup2":
            mounts.setdefault("", place)
        elif kind[0] == "cgroup":
            for option in kind[2].split(","):
                mounts.setdefault(option, place)
    found = {}
    for line in context.text("proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(","):
            if controller in mounts and (controller or number == "0"):
                folders = tuple(_folders(context.root, *mounts[controller], path))
                found[controller] = Hierarchy(1 if controller else 2, path, folders)
    return found


def _folders(root: Path, mount_root: str, mount_point: str, path: str) -> Iterator[Path]:
    top = root / mount_point.lstrip("/")
    try:
        relative = PurePosixPath(path).relative_to(mount_root)
    except ValueError:  # a bind mount of another group, or a namespace: what is mounted is what can be seen
        relative = PurePosixPath()
    if ".." in relative.parts:
        relative = PurePosixPath()
    folder = top / relative
    if not folder.is_dir():
        folder = top
    while folder != top:
        yield folder
        folder = folder.parent
    yield top


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _smallest(hierarchy: Hierarchy, file: str, parse: Callable[[str], float | None]) -> float:
    """Return the smallest limit that `file` states on the way up; `parse` gives `None` where it states none."""
    limits, seen = [], False
    for folder in hierarchy.folders:
        try:
            text = (folder / file).read_text().strip()
        except FileNotFoundError:
            continue
        seen = True
        limit = parse(text)
        if limit is not None:
            limits.append(limit)
    if not seen:
        raise absent(f"{file} is not there: the controller is off for this group")
    if not limits:
        raise absent("unlimited")
    return min(limits)


def parse_amount(text: str) -> int | None:
    """Return the number in a file of a limit, in either version; `None` where there is no limit."""
    if text == "max":
        return None
    value = int(text)
    return value if 0 <= value < _UNLIMITED_BYTES else None


def _limit(hierarchy: Hierarchy, file_v1: str, file_v2: str) -> int:
    return int(_smallest(hierarchy, file_v1 if hierarchy.version == 1 else file_v2, parse_amount))


def _cpu_limit(hierarchy: Hierarchy) -> float:
    """Cores: quota over period."""
    if hierarchy.version == 2:
        return _smallest(hierarchy, "cpu.max", parse_quota)
    limits = []
    for folder in hierarchy.folders:
        try:
            quota = int((folder / "cpu.cfs_quota_us").read_text())
            period = int((folder / "cpu.cfs_period_us").read_text())
        except FileNotFoundError:
            continue
        limits.append(quota / period if quota > 0 and period > 0 else None)
    if not limits:
        raise absent("cpu.cfs_quota_us is not there: the controller is off for this group")
    set_limits = [limit for limit in limits if limit is not None]
    if not set_limits:
        raise absent("unlimited")
    return min(set_limits)


def parse_quota(text: str) -> float | None:
    """Return the cores that `cpu.max` of version 2 grants; `None` where there is no limit."""
    quota, _, period = text.partition(" ")
    return None if quota == "max" else int(quota) / int(period or 100_000)


def cpus_of(hierarchy: Hierarchy) -> str:
    """Return the CPUs that the group may use, such as `0-3,8`.

    Raises:
        Missing: no file tells.
    """
    names = (
        ("cpuset.effective_cpus", "cpuset.cpus") if hierarchy.version == 1 else ("cpuset.cpus.effective", "cpuset.cpus")
    )
    for folder in hierarchy.folders:
        for name in names:
            try:
                text = (folder / name).read_text().strip()
            except FileNotFoundError:
                continue
            if text:
                return text
    raise absent("no cpuset is set")


def _swap_limit(hierarchy: Hierarchy) -> int:
    if hierarchy.version == 2:
        return _limit(hierarchy, "", "memory.swap.max")
    both = _limit(hierarchy, "memory.memsw.limit_in_bytes", "")
    return max(0, both - _limit(hierarchy, "memory.limit_in_bytes", ""))
