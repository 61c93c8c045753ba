"""Limits of control groups, in trees made of files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from runstone.capture.cgroup import read_cgroup
from runstone.capture.context import Context
from runstone.capture.facts import Section

V2_MOUNT = "30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate"
UNLIMITED = "absent: unlimited"
Tree = Callable[..., Section]


def _v1_mount(controller: str, root: str = "/") -> str:
    return f"31 30 0:27 {root} /sys/fs/cgroup/{controller} rw - cgroup cgroup rw,{controller}"


@pytest.fixture
def tree(tmp_path: Path, section_of: Callable[..., Section]) -> Tree:
    """Return a function that reads the limits in a tree of files."""

    def read(groups: str, mounts: list[str], files: Mapping[str, object]) -> Section:
        proc = {"proc/self/cgroup": groups, "proc/self/mountinfo": "\n".join(mounts)}
        for name, content in {**proc, **{f"sys/fs/cgroup/{name}": text for name, text in files.items()}}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}\n")
        return section_of(read_cgroup, Context(environment={}, root=tmp_path))

    return read


def _values(section: Section) -> dict[str, Any]:
    assert section.values is not None
    return section.values


def test_version_2_states_its_limits(tree: Tree) -> None:
    section = tree(
        "0::/job",
        [V2_MOUNT],
        {
            "job/cpu.max": "50000 100000",
            "job/memory.max": 8 << 30,
            "job/memory.high": 7 << 30,
            "job/memory.swap.max": 0,
            "job/pids.max": 4096,
            "job/cpuset.cpus.effective": "0-3,8",
        },
    )
    assert _values(section) == {
        "version": 2,
        "path": "/job",
        "cpu_limit": 0.5,
        "cpuset": "0-3,8",
        "memory_limit_bytes": 8 << 30,
        "memory_high_bytes": 7 << 30,
        "swap_limit_bytes": 0,
        "pids_limit": 4096,
    }
    assert section.why == {}


def test_no_limit_is_null_and_says_unlimited(tree: Tree) -> None:
    section = tree("0::/job", [V2_MOUNT], {"job/cpu.max": "max 100000", "job/memory.max": "max", "job/pids.max": "max"})
    for field in ("cpu_limit", "memory_limit_bytes", "pids_limit"):
        assert _values(section)[field] is None
        assert section.why[f"section.{field}"] == UNLIMITED
    assert "the controller is off" in section.why["section.memory_high_bytes"]


def test_smallest_limit_on_the_way_up_counts(tree: Tree) -> None:
    section = tree(
        "0::/slice/job/step",
        [V2_MOUNT],
        {
            "slice/cpu.max": "800000 100000",
            "slice/memory.max": 4 << 30,
            "slice/job/cpu.max": "250000 100000",
            "slice/job/memory.max": "max",
            "slice/job/step/cpu.max": "max 100000",
            "slice/job/step/memory.max": 16 << 30,
        },
    )
    assert _values(section)["cpu_limit"] == 2.5
    assert _values(section)["memory_limit_bytes"] == 4 << 30


def test_version_1_states_its_limits(tree: Tree) -> None:
    section = tree(
        "4:memory:/docker/abc\n3:cpuset:/docker/abc\n2:cpu:/docker/abc\n1:pids:/docker/abc",
        [_v1_mount(name) for name in ("memory", "cpuset", "cpu", "pids")],
        {
            "cpu/docker/abc/cpu.cfs_quota_us": 150000,
            "cpu/docker/abc/cpu.cfs_period_us": 100000,
            "cpu/docker/cpu.cfs_quota_us": -1,
            "cpu/docker/cpu.cfs_period_us": 100000,
            "memory/docker/abc/memory.limit_in_bytes": 6 << 30,
            "memory/docker/abc/memory.memsw.limit_in_bytes": 8 << 30,
            "memory/docker/abc/memory.soft_limit_in_bytes": 9223372036854771712,
            "cpuset/docker/abc/cpuset.cpus": "0-1",
            "pids/docker/abc/pids.max": "max",
        },
    )
    assert _values(section) == {
        "version": 1,
        "path": "/docker/abc",
        "cpu_limit": 1.5,
        "cpuset": "0-1",
        "memory_limit_bytes": 6 << 30,
        "memory_high_bytes": None,
        "swap_limit_bytes": 2 << 30,
        "pids_limit": None,
    }
    assert section.why == {"section.memory_high_bytes": UNLIMITED, "section.pids_limit": UNLIMITED}


def test_version_1_without_quota_is_unlimited(tree: Tree) -> None:
    section = tree("2:cpu,cpuacct:/", [_v1_mount("cpu")], {"cpu/cpu.cfs_quota_us": -1, "cpu/cpu.cfs_period_us": 100000})
    assert section.why["section.cpu_limit"] == UNLIMITED
    assert "no memory controller" in section.why["section.memory_limit_bytes"]


def test_both_versions_at_once_are_read_where_they_are(tree: Tree) -> None:
    section = tree(
        "2:cpu:/a\n0::/b",
        [_v1_mount("cpu"), V2_MOUNT.replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified ")],
        {
            "cpu/a/cpu.cfs_quota_us": 100000,
            "cpu/a/cpu.cfs_period_us": 100000,
            "unified/b/memory.max": 1 << 30,
        },
    )
    assert _values(section)["cpu_limit"] == 1.0
    assert _values(section)["memory_limit_bytes"] == 1 << 30
    assert _values(section)["version"] == 2


@pytest.mark.parametrize(
    ("group", "mount"),
    [
        ("/docker/abc", _v1_mount("memory", "/docker/abc")),  # the group itself is mounted
        ("/", _v1_mount("memory", "/")),  # a namespace of its own
        ("/../../x", _v1_mount("memory", "/")),  # moved out of its namespace
        ("/not/there", _v1_mount("memory", "/")),
    ],
)
def test_group_of_a_container_is_what_is_mounted(tree: Tree, group: str, mount: str) -> None:
    section = tree(f"4:memory:{group}", [mount], {"memory/memory.limit_in_bytes": 2 << 30})
    assert _values(section)["memory_limit_bytes"] == 2 << 30


def test_limit_that_changes_is_read_anew(tree: Tree) -> None:
    for limit in (2 << 30, 1 << 30):
        section = tree("0::/", [V2_MOUNT], {"memory.max": limit})
        assert _values(section)["memory_limit_bytes"] == limit


def test_machine_without_control_groups_says_so(tree: Tree) -> None:
    section = tree("", ["25 1 8:1 / / rw - ext4 /dev/vda rw"], {})
    assert section.values is None
    assert section.why == {"section": "absent: no control group is mounted"}


def test_limit_that_is_no_number_costs_its_field(tree: Tree) -> None:
    section = tree("0::/", [V2_MOUNT], {"memory.max": "lots", "pids.max": 7})
    assert section.why["section.memory_limit_bytes"].startswith("error: ValueError")
    assert _values(section)["pids_limit"] == 7
