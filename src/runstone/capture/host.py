"""The machine: operating system, processor, memory, and the limits that it sets on a process."""

from __future__ import annotations

import os
import platform
import re
import resource
import sys
from pathlib import Path
from typing import Any

import psutil

from runstone.capture.context import Context
from runstone.capture.facts import Facts, absent


def read_os(facts: Facts, context: Context) -> None:
    """Names and versions of kernel and distribution, and since when it runs."""
    kernel = os.uname()
    facts.put("name", kernel.sysname)
    facts.put("release", kernel.release)
    facts.put("build", kernel.version)
    facts.put("machine", kernel.machine)
    facts.read("distribution", lambda: _distribution(context))
    facts.read("libc", _libc)
    facts.read("boot_id", lambda: context.text("proc/sys/kernel/random/boot_id"))
    facts.read("uptime_s", lambda: float(context.text("proc/uptime").split()[0]))


def renew_os(values: dict[str, Any], context: Context) -> None:
    """Set how long the machine has been up."""
    values["uptime_s"] = float(context.text("proc/uptime").split()[0])


def _distribution(context: Context) -> str | None:
    if sys.platform == "darwin":
        return f"macOS {platform.mac_ver()[0]}"
    stated = re.search(r'^PRETTY_NAME="?([^"\n]*)', context.text("etc/os-release"), re.MULTILINE)
    return stated[1] if stated else None


def _libc() -> str:
    try:
        version = os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):
        version = None
    if not version:
        raise absent("not the GNU C library")
    return version


def read_cpu(facts: Facts, context: Context) -> None:
    """Model, counts, what of them this process may use, and how they are laid out."""
    described = _Description(context)
    facts.read("model", lambda: described("model name", "Model", "Processor") or platform.processor() or None)
    facts.read("vendor", lambda: described("vendor_id", "CPU implementer"))
    facts.read("flags", lambda: (described("flags", "Features") or "").split() or None)
    facts.read("physical_cores", lambda: psutil.cpu_count(logical=False), if_none="the system does not tell")
    facts.read("logical_cores", os.cpu_count)
    facts.read("usable_cores", lambda: len(_affinity()))
    facts.read("affinity", lambda: _ranges(sorted(_affinity())))
    facts.read("max_mhz", lambda: _max_mhz(context))
    facts.read("mhz", lambda: _mhz(described("cpu MHz")), if_none="/proc/cpuinfo does not tell")
    facts.read("has_smt", lambda: context.text("sys/devices/system/cpu/smt/active") == "1")
    facts.read("numa_nodes", lambda: _numa_nodes(context.root / "sys/devices/system/node"))


def cpu_key(_: Context) -> list[int]:
    """Return the processors that this process may use."""
    return sorted(_affinity()) if hasattr(os, "sched_getaffinity") else []


class _Description:
    """Looks up fields of the first processor in /proc/cpuinfo; each lookup reports its own failure."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._fields: dict[str, str] | None = None

    def __call__(self, *names: str) -> str | None:
        if self._fields is None:
            pairs = (line.partition(":") for line in self._context.text("proc/cpuinfo").splitlines())
            fields: dict[str, str] = {}
            for name, colon, value in pairs:
                if colon:
                    fields.setdefault(name.strip(), value.strip())
            if not fields:
                raise absent("/proc/cpuinfo is empty")
            self._fields = fields
        return next((self._fields[name] for name in names if self._fields.get(name)), None)


def _affinity() -> set[int]:
    if not hasattr(os, "sched_getaffinity"):
        raise absent("this system has no CPU affinity")
    return os.sched_getaffinity(0)


def _ranges(numbers: list[int]) -> str:
    """Write numbers as the kernel does, such as `0-3,8`."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return ",".join("-".join(map(str, part)) for part in parts)


def _max_mhz(context: Context) -> float:
    return int(context.text("sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")) / 1000


def _mhz(stated: str | None) -> float | None:
    return float(stated) if stated is not None else None


def _numa_nodes(folder: Path) -> dict[str, str]:
    """Return the CPUs of each node."""
    nodes = sorted(folder.glob("node[0-9]*"), key=lambda node: int(node.name[4:]))
    if not nodes:
        raise absent("the kernel shows no NUMA nodes")
    return {node.name[4:]: (node / "cpulist").read_text().strip() for node in nodes}


def read_memory(facts: Facts, context: Context) -> None:
    """Main memory, swap and huge pages."""
    if sys.platform == "linux":
        # Not psutil: where a container masks a line it warns, in the middle of the user's training.
        facts.read("total_bytes", lambda: _meminfo(context, "MemTotal"))
        facts.read("available_bytes", lambda: _meminfo(context, "MemAvailable"))
        facts.read("swap_bytes", lambda: _meminfo(context, "SwapTotal"))
        facts.read("huge_page_bytes", lambda: _meminfo(context, "Hugepagesize"))
        facts.read("huge_pages", lambda: _meminfo(context, "HugePages_Total"))
        facts.read("transparent_huge_pages", lambda: _chosen(context))
    else:
        facts.read("total_bytes", lambda: psutil.virtual_memory().total)
        facts.read("available_bytes", lambda: psutil.virtual_memory().available)
        facts.read("swap_bytes", lambda: psutil.swap_memory().total)


def renew_memory(values: dict[str, Any], context: Context) -> None:
    """Set what is free."""
    values["available_bytes"] = _meminfo(context, "MemAvailable")


def _meminfo(context: Context, name: str) -> int:
    _, found, after = f"\n{context.text('proc/meminfo')}".partition(f"\n{name}:")
    words = after.partition("\n")[0].split()
    if not found or not words or not words[0].isdecimal():
        raise absent(f"/proc/meminfo has no {name}")
    return int(words[0]) * (1024 if words[1:2] == ["kB"] else 1)


def _chosen(context: Context) -> str | None:
    marked = re.search(r"\[(\w+)\]", context.text("sys/kernel/mm/transparent_hugepage/enabled"))
    return marked[1] if marked else None


def read_limits(facts: Facts, _: Context) -> None:
    """What the system lets one process have."""
    facts.read("open_files", lambda: _limit(resource.RLIMIT_NOFILE))
    facts.read("processes", lambda: _limit(resource.RLIMIT_NPROC))
    facts.read("core_bytes", lambda: _limit(resource.RLIMIT_CORE))
    facts.read("locked_memory_bytes", lambda: _limit(resource.RLIMIT_MEMLOCK))
    facts.read("address_space_bytes", lambda: _limit(resource.RLIMIT_AS))


def _limit(kind: int) -> int:
    soft, _ = resource.getrlimit(kind)
    if soft == resource.RLIM_INFINITY:
        raise absent("unlimited")
    return soft
