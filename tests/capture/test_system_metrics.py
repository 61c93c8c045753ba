"""System metrics without a GPU: the machine, its control groups, processes, energy, and the thread that samples."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

import runstone
from runstone.capture.context import Context
from runstone.capture.metrics import energy_of, interval_of, start_sampler
from runstone.capture.metrics.collector import Collector
from runstone.capture.metrics.groups import Groups
from runstone.capture.metrics.machine import Machine
from runstone.capture.metrics.place import Place, place_of
from runstone.capture.metrics.processes import Processes
from runstone.capture.metrics.rapl import Rapl
from runstone.capture.metrics.readings import Number, Rates, Readings, Source
from runstone.capture.metrics.sampler import Sampler
from runstone.errors import InvalidValue


def _take(source: Source, at_s: float, given: Mapping[str, Number] | None = None) -> Readings:
    """Return what one source says in a pass of its own; each minute the slow things too."""
    readings = Readings(at_s=at_s, is_slow=at_s % 60 == 0, why={})
    readings.values.update(given or {})
    with readings.attempt(source.name):
        source.read(readings)
    return readings


def _write(root: Path, files: Mapping[str, object]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")


# --- the machine ---------------------------------------------------------------------------------------------------


def test_machine_says_what_it_does(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    first = _take(machine, 0).values
    assert {"memory/machine_percent", "memory/machine_used_bytes", "disk/store_free_bytes", "cpu/load_1m"} <= set(first)
    assert not any(name.endswith("_per_s") or name.startswith("cpu/core") for name in first)  # these take two passes
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    second = _take(machine, 10).values
    assert 0 < second["cpu/machine_percent"] <= second["cpu/busiest_core_percent"] <= 100
    assert second["cpu/core.0/percent"] >= 0
    assert second["cpu/context_switches_per_s"] > 0
    for name, value in second.items():
        assert not name.endswith("percent") or 0 <= value <= 100, name


def test_counter_that_goes_back_is_a_gap() -> None:
    readings = Readings(at_s=0, is_slow=False, why={})
    rates = Rates()
    assert [rates.per_s("x", total, at) for total, at in ((5, 0.0), (25, 10.0), (3, 20.0), (13, 30.0))] == [
        None, 2.0, None, 1.0,
    ]  # fmt: skip
    for value in (float("nan"), float("inf"), -1, None):
        readings.put("x", value)
    assert readings.values == {}


def test_masked_proc_leaves_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    masked = tmp_path / "proc"
    masked.mkdir()
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(masked))
    groups = {"sys/fs/cgroup/memory.max": 1 << 30, "sys/fs/cgroup/memory.current": 1 << 28}
    _write(tmp_path, groups | {"sys/fs/cgroup/memory.stat": "inactive_file 0", "proc/self/cgroup": "0::/"})
    _write(tmp_path, {"proc/self/mountinfo": "30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw"})
    collector = Collector(store=tmp_path, context=Context(environment={}, root=tmp_path))
    for at_s in (0.0, 10.0):
        values: dict[str, Number] = {}
        for portion in collector.collect(at_s):
            values |= portion
    assert values["disk/store_free_bytes"] > 0
    assert values["memory/percent"] == 25.0
    assert not {"cpu/machine_percent", "process/rss_bytes"} & set(values)
    assert {"cpu", "disk", "network", "process/children"} & set(collector.why)


def test_broken_psutil_costs_what_it_would_have_said(python: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "psutil.py").write_text("raise ImportError('cannot open shared object file')\n")
    code = (
        "import sys; sys.path.insert(0, '.')\n"
        "from pathlib import Path\n"
        "from runstone.capture.metrics.collector import Collector\n"
        "collector = Collector(store=Path())\n"
        "print(sum(len(v) for at in (0.0, 10.0) for v in collector.collect(at)) >= 0, collector.why['process'])\n"
    )
    done = python(code)
    assert done.stdout == "True error: ImportError: cannot open shared object file\n", done.stderr


# --- control groups ------------------------------------------------------------------------------------------------

V2 = {
    "proc/self/cgroup": "0::/job",
    "proc/self/mountinfo": "30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate",
}
JOB = "sys/fs/cgroup/job/"


def _groups(root: Path, cores: int = 64) -> Groups:
    return Groups(Context(environment={}, root=root), cores)


def test_version_2_is_told_in_percent_of_its_limits(tmp_path: Path) -> None:
    _write(
        tmp_path,
        V2
        | {
            f"{JOB}cpu.max": "200000 100000",
            f"{JOB}cpu.stat": "usage_usec 1000000\nnr_periods 100\nnr_throttled 10",
            f"{JOB}memory.max": 8 << 30,
            f"{JOB}memory.current": 5 << 30,
            f"{JOB}memory.stat": f"anon {3 << 30}\ninactive_file {1 << 30}",
            f"{JOB}memory.events": "oom 3\noom_kill 2",
        },
    )
    groups = _groups(tmp_path)
    first = _take(groups, 0).values
    assert first == {
        "memory/percent": 50.0, "memory/used_bytes": 4 << 30, "memory/limit_bytes": 8 << 30, "cgroup/oom_kills": 0,
    }  # fmt: skip
    _write(
        tmp_path,
        {
            f"{JOB}cpu.stat": "usage_usec 11000000\nnr_periods 200\nnr_throttled 35",
            f"{JOB}memory.events": "oom 5\noom_kill 3",
        },
    )
    second = _take(groups, 10, {"cpu/machine_percent": 3.0}).values
    assert second["cpu/percent"] == 50.0  # 10 s of CPU in 10 s, of 2 cores
    assert second["cgroup/cpu_throttled_percent"] == 25.0
    assert second["cgroup/oom_kills"] == 1


def test_version_1_is_told_in_percent_of_its_limits(tmp_path: Path) -> None:
    controllers = ("cpu", "cpuacct", "memory")
    mounts = [f"31 30 0:27 / /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{name}" for name in controllers]
    top = "sys/fs/cgroup"
    _write(
        tmp_path,
        {
            "proc/self/cgroup": "\n".join(f"{i}:{name}:/docker/a" for i, name in enumerate(controllers, 2)),
            "proc/self/mountinfo": "\n".join(mounts),
            f"{top}/cpu/docker/a/cpu.cfs_quota_us": 400000,
            f"{top}/cpu/docker/a/cpu.cfs_period_us": 100000,
            f"{top}/cpu/docker/a/cpu.stat": "nr_periods 10\nnr_throttled 0",
            f"{top}/cpuacct/docker/a/cpuacct.usage": 10**9,
            f"{top}/memory/docker/a/memory.limit_in_bytes": 4 << 30,
            f"{top}/memory/docker/a/memory.usage_in_bytes": 2 << 30,
            f"{top}/memory/docker/a/memory.stat": f"inactive_file 1\ntotal_inactive_file {1 << 30}",
            f"{top}/memory/docker/a/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 0",
        },
    )
    groups = _groups(tmp_path)
    assert _take(groups, 0).values["memory/percent"] == 25.0
    _write(tmp_path, {f"{top}/cpuacct/docker/a/cpuacct.usage": 5 * 10**9})
    second = _take(groups, 10).values
    assert second["cpu/percent"] == 10.0
    assert second["cgroup/oom_kills"] == 0


def test_limit_above_the_own_group_is_told_of_the_group_that_it_binds(tmp_path: Path) -> None:
    parent = "sys/fs/cgroup/"
    _write(
        tmp_path,
        V2
        | {
            f"{JOB}memory.max": "max",
            f"{JOB}memory.current": 1,
            f"{parent}memory.max": 4 << 30,
            f"{parent}memory.current": 3 << 30,
            f"{parent}memory.stat": "inactive_file 0",
        },
    )
    assert _take(_groups(tmp_path), 0).values["memory/percent"] == 75.0


def test_machine_is_the_limit_where_there_is_no_other(tmp_path: Path) -> None:
    machine: dict[str, Number] = {
        "cpu/machine_percent": 12.0,
        "memory/machine_percent": 34.0,
        "memory/machine_used_bytes": 34,
        "memory/machine_total_bytes": 100,
    }
    unlimited = {f"{JOB}cpu.max": "max 100000", f"{JOB}memory.max": "max", f"{JOB}memory.current": 7}
    too_much = {f"{JOB}cpu.max": "6400000 100000", f"{JOB}memory.max": 200, f"{JOB}memory.current": 7}
    for files in ({}, V2 | unlimited, V2 | too_much):
        _write(tmp_path, files)
        values = _take(_groups(tmp_path), 0, machine).values
        assert (values["cpu/percent"], values["memory/percent"], values["memory/used_bytes"]) == (12.0, 34.0, 34)
        assert "memory/limit_bytes" not in values


def test_set_of_cpus_is_a_limit(tmp_path: Path) -> None:
    _write(tmp_path, V2 | {f"{JOB}cpuset.cpus.effective": "0-2,8", f"{JOB}cpu.stat": "usage_usec 0"})
    groups = _groups(tmp_path)
    _take(groups, 0)
    _write(tmp_path, {f"{JOB}cpu.stat": "usage_usec 20000000"})
    assert _take(groups, 10, {"cpu/machine_percent": 3.0}).values["cpu/percent"] == 50.0


def test_limit_that_changes_is_noticed_within_a_minute(tmp_path: Path) -> None:
    _write(tmp_path, V2 | {f"{JOB}memory.max": 400, f"{JOB}memory.current": 100, f"{JOB}memory.stat": "x 0"})
    groups = _groups(tmp_path)
    assert _take(groups, 0).values["memory/percent"] == 25.0
    _write(tmp_path, {f"{JOB}memory.max": 200})
    assert [_take(groups, at_s).values["memory/percent"] for at_s in (10, 60)] == [25.0, 50.0]


def test_file_that_is_no_number_costs_its_series(tmp_path: Path) -> None:
    _write(
        tmp_path, V2 | {f"{JOB}memory.max": 400, f"{JOB}memory.current": "lots", f"{JOB}memory.events": "oom_kill 0"}
    )
    readings = _take(_groups(tmp_path), 0)
    assert readings.values == {"cgroup/oom_kills": 0}
    assert readings.why["memory/percent"].startswith("error: ValueError")


@pytest.mark.parametrize("place", [f"{JOB}{{}}.pressure", "proc/pressure/{}"], ids=["own group", "machine"])
def test_pressure_is_the_share_of_time_that_was_waited(tmp_path: Path, place: str) -> None:
    def write(some_us: int, full_us: int) -> None:
        lines = f"some avg10=0.00 avg60=0.00 avg300=0.00 total={some_us}\nfull avg10=0.00 total={full_us}"
        _write(tmp_path, {place.format(resource): lines for resource in ("cpu", "memory", "io")})

    _write(tmp_path, V2)
    write(0, 0)
    groups = _groups(tmp_path)
    assert not any("pressure" in name for name in _take(groups, 0).values)
    write(5_000_000, 1_000_000)
    values = _take(groups, 10).values
    assert {name: value for name, value in values.items() if "pressure" in name} == {
        "pressure/cpu_some_percent": 50.0,
        "pressure/memory_some_percent": 50.0,
        "pressure/memory_full_percent": 10.0,
        "pressure/io_some_percent": 50.0,
        "pressure/io_full_percent": 10.0,
    }


# --- processes -----------------------------------------------------------------------------------------------------

_CHILD = "import subprocess, sys; x = bytearray(30_000_000); print(1, flush=True); sys.stdin.read()"


@pytest.fixture
def child() -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Return a function that starts a child, which says a word when it is up and ends with its input."""
    children: list[subprocess.Popen[str]] = []

    def start(program: str = _CHILD) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", program]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        children.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield start
    for process in children:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("has_lists", [True, False], ids=["lists of children", "no lists of children"])
def test_tree_of_processes_is_followed(child: Callable[..., Any], tmp_path: Path, has_lists: bool) -> None:
    processes = Processes(os.getpid(), root=Path("/") if has_lists else tmp_path)
    before = _take(processes, 0).values
    started = child()
    readings = _take(processes, 60)
    assert readings.values["process/children"] == before["process/children"] + 1
    assert {os.getpid(), started.pid} <= readings.pids
    assert readings.values["process/tree_rss_bytes"] >= readings.values["process/rss_bytes"] + 30_000_000
    assert readings.values["process/cpu_percent"] > 0
    started.kill()
    started.communicate()
    after = _take(processes, 70)
    assert after.values["process/children"] == before["process/children"]
    assert started.pid not in after.pids


def test_grandchildren_belong_to_the_tree(child: Callable[..., Any]) -> None:
    below = "p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True)"
    program = f"import subprocess, sys; {below}; sys.stdin.read(); p.kill(); p.wait()"
    processes = Processes(os.getpid())
    before = _take(processes, 0).values["process/children"]
    started = child(program)
    assert _take(processes, 10).values["process/children"] == before + 2
    started.communicate()


def test_process_says_what_it_uses() -> None:
    values = _take(Processes(os.getpid()), 0).values
    for name in ("rss_bytes", "uss_bytes", "threads", "open_files"):
        assert values[f"process/{name}"] > 0, name
    assert values["process/oom_score"] >= 0


@pytest.mark.parametrize("fault", [psutil.AccessDenied(1), psutil.NoSuchProcess(1), OSError(5, "Input/output error")])
@pytest.mark.parametrize(
    ("method", "series"),
    [
        ("memory_info", {"rss_bytes", "uss_bytes", "tree_rss_bytes"}),
        ("cpu_times", {"cpu_percent"}),
        ("io_counters", {"read_bytes_per_s", "write_bytes_per_s"}),
        ("num_fds", {"open_files"}),
        ("num_threads", {"threads"}),
        ("memory_full_info", {"uss_bytes"}),
    ],
)
def test_fault_of_psutil_costs_its_series_only(
    monkeypatch: pytest.MonkeyPatch, fault: Exception, method: str, series: set[str]
) -> None:
    def fail(_: psutil.Process) -> None:
        raise fault

    processes = Processes(os.getpid())
    _take(processes, 0)
    whole = set(_take(processes, 60).values)
    monkeypatch.setattr(psutil.Process, method, fail)
    assert set(_take(processes, 120).values) == whole - {f"process/{name}" for name in series}


def test_process_that_ends_while_it_is_read_is_left_out(
    child: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = child()
    usual = psutil.Process.memory_info

    def vanish(process: psutil.Process) -> Any:
        if process.pid == started.pid:
            raise psutil.NoSuchProcess(process.pid)
        return usual(process)

    monkeypatch.setattr(psutil.Process, "memory_info", vanish)
    readings = _take(Processes(os.getpid()), 0)
    assert readings.values["process/tree_rss_bytes"] >= readings.values["process/rss_bytes"] > 0
    assert readings.why == {}


# --- energy of the CPU ---------------------------------------------------------------------------------------------


def _zone(root: Path, zone: str, name: str, microjoules: int) -> None:
    folder = f"sys/class/powercap/{zone}"
    _write(root, {f"{folder}/name": name, f"{folder}/energy_uj": microjoules})
    _write(root, {f"{folder}/max_energy_range_uj": 1_000_000_000})


def test_packages_and_their_memory_are_metered(tmp_path: Path) -> None:
    def write(microjoules: int) -> None:
        for zone, name in (
            ("intel-rapl:0", "package-0"),
            ("intel-rapl:1", "package-1"),
            ("intel-rapl:0:0", "core"),
            ("intel-rapl:0:1", "dram"),
            ("intel-rapl:2", "psys"),
        ):
            _zone(tmp_path, zone, name, microjoules)

    rapl = Rapl(tmp_path)
    write(900_000_000)
    assert _take(rapl, 0).values == {"cpu/energy_j": 0.0, "memory/energy_j": 0.0}
    write(950_000_000)
    assert _take(rapl, 10).values == {
        "cpu/energy_j": 100.0, "cpu/power_w": 10.0, "memory/energy_j": 50.0, "memory/power_w": 5.0,
    }  # fmt: skip
    write(10_000_000)  # the counter began again at its range
    assert _take(rapl, 20).values["memory/energy_j"] == 110.0


def test_meters_go_on_where_an_earlier_life_of_the_run_left_them(tmp_path: Path) -> None:
    _zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    rapl = Rapl(tmp_path, {"cpu/energy_j": 700.0})
    assert _take(rapl, 0).values == {"cpu/energy_j": 700.0}
    _zone(tmp_path, "intel-rapl:0", "package-0", 31_000_000)
    assert _take(rapl, 10).values["cpu/energy_j"] == 730.0


def test_meter_that_may_not_be_read_is_absent(tmp_path: Path) -> None:
    _zone(tmp_path, "intel-rapl:0", "package-0", 5)
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").unlink()
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").mkdir()
    readings = _take(Rapl(tmp_path), 0)
    assert readings.values == {}
    assert "cpu/energy_j" in readings.why


# --- a place in a job ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({}, Place(0, None)),
        ({"LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "8", "SLURM_LOCALID": "1"}, Place(3, 8)),
        ({"SLURM_LOCALID": "2"}, Place(2, None)),
        ({"OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, Place(1, 2)),
        ({"LOCAL_RANK": "none"}, Place(0, None)),
    ],
)
def test_place_in_a_job_is_what_its_launcher_says(variables: dict[str, str], place: Place) -> None:
    assert place_of(variables) == place


# --- the thread ----------------------------------------------------------------------------------------------------


class HandClock:
    """A clock that stands still until the test moves it; `advance` returns when the sampler sleeps again."""

    def __init__(self) -> None:
        self._now_s = 1000.0
        self._until_s: float | None = None
        self._is_rung = False
        self._change = threading.Condition()

    def now(self) -> float:
        return self._now_s

    def wait(self, timeout_s: float) -> None:
        with self._change:
            self._until_s = self._now_s + timeout_s
            self._change.notify_all()
            self._change.wait_for(lambda: self._is_rung or self._now_s >= (self._until_s or 0), 30)
            self._is_rung, self._until_s = False, None

    def ring(self) -> None:
        with self._change:
            self._is_rung = True
            self._change.notify_all()

    def advance(self, seconds: float) -> None:
        with self._change:
            self._now_s += seconds
            self._change.notify_all()
            assert self._change.wait_for(lambda: self._until_s is not None and self._until_s > self._now_s, 30)


class Kept:
    """What a sampler logged: names by step."""

    def __init__(self) -> None:
        self.steps: dict[int, dict[str, Number]] = {}
        self.notes: list[str] = []

    def log(self, values: Mapping[str, Number], step: int) -> None:
        self.steps.setdefault(step, {}).update(values)


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def sampler(kept: Kept, clock: HandClock, tmp_path: Path) -> Iterator[Callable[..., Sampler]]:
    """Return a function that starts a sampler of a machine made of files, whose time the test moves."""
    started: list[Sampler] = []

    def make(note: Callable[[str], None]) -> Collector:
        return Collector(store=tmp_path, context=Context(environment={}, root=tmp_path), note=note)

    def start(**given: Any) -> Sampler:
        given = {"log": kept.log, "make": make, "clock": clock, "note": kept.notes.append, "store": tmp_path} | given
        started.append(Sampler(given.pop("log"), **given))
        return started[-1]

    yield start
    for one in started:
        one.stop()


def test_steps_are_seconds_since_the_run_was_created(
    sampler: Callable[..., Sampler], kept: Kept, clock: HandClock
) -> None:
    one = sampler(interval_s=10)
    for seconds in (1.5, 10, 10):
        clock.advance(seconds)
    assert list(kept.steps) == [1, 11, 21]
    assert one.stop()
    other = sampler(interval_s=10, started_at=time.time() - 3600)
    clock.advance(2)
    assert other.stop()
    assert 3600 <= list(kept.steps)[-1] <= 3604


def test_run_of_less_than_a_second_has_no_system_metrics(
    sampler: Callable[..., Sampler], kept: Kept, clock: HandClock
) -> None:
    one = sampler()
    clock.advance(0.9)
    assert one.stop()
    assert kept.steps == {}


def test_last_pass_is_made_at_the_end(sampler: Callable[..., Sampler], kept: Kept, clock: HandClock) -> None:
    one = sampler(interval_s=100)
    clock.advance(1)
    clock.advance(80)
    assert one.stop()
    assert list(kept.steps) == [1, 81]
    assert set(kept.steps[1]) - set(kept.steps[81]) == {"system/process/uss_bytes"}  # due, but it would take time


def test_pass_just_before_the_end_is_the_last_one(
    sampler: Callable[..., Sampler], kept: Kept, clock: HandClock
) -> None:
    one = sampler()
    clock.advance(1)
    clock.advance(0.4)
    assert one.stop()
    assert list(kept.steps) == [1]


def test_names_carry_the_rank_where_it_is_not_the_first(
    sampler: Callable[..., Sampler], kept: Kept, clock: HandClock
) -> None:
    for rank in (0, 3):
        one = sampler(rank=rank)
        clock.advance(1)
        assert one.stop()
    names = {name for values in kept.steps.values() for name in values}
    assert {"system/process/rss_bytes", "system/rank.3/process/rss_bytes"} <= names
    assert all(name.startswith("system/") for name in names)


def test_cost_of_sampling_is_a_series(sampler: Callable[..., Sampler], kept: Kept, clock: HandClock) -> None:
    sampler(own=lambda: {"dropped_points": 7})
    clock.advance(1)
    clock.advance(10)
    first, second = kept.steps.values()
    assert first["system/runstone/dropped_points"] == second["system/runstone/dropped_points"] == 7
    assert "system/runstone/sampler_cpu_ms" not in first  # what a pass costs is known after it
    assert 0 < second["system/runstone/sampler_cpu_ms"] < 5000
    assert 0 < second["system/runstone/sampler_ms"] < 30_000


def test_machine_that_slept_is_not_made_up_for(sampler: Callable[..., Sampler], kept: Kept, clock: HandClock) -> None:
    sampler(interval_s=10)
    clock.advance(1)
    clock.advance(3600)
    clock.advance(1)
    assert list(kept.steps) == [1, 3601]


def test_full_disk_is_tried_again(sampler: Callable[..., Sampler], kept: Kept, clock: HandClock) -> None:
    is_full = True

    def log(values: Mapping[str, Number], step: int) -> None:
        if is_full:
            raise OSError(28, "No space left on device")
        kept.log(values, step)

    sampler(log=log)
    clock.advance(1)
    is_full = False
    clock.advance(10)
    assert list(kept.steps) == [11]
    assert kept.notes == []


def test_sampler_that_fails_ends_alone_and_is_noted(
    sampler: Callable[..., Sampler], kept: Kept, clock: HandClock
) -> None:
    def log(_: Mapping[str, Number], __: int) -> None:
        raise RuntimeError("no such thing")

    one = sampler(log=log)
    clock._now_s += 1
    clock.ring()
    one._thread.join(30)
    assert kept.notes == ["system metrics end early: RuntimeError: no such thing"]
    assert isinstance(one.error, RuntimeError)
    assert one.stop()


def test_what_never_returns_is_left_behind(sampler: Callable[..., Sampler], kept: Kept, clock: HandClock) -> None:
    came, go = threading.Event(), threading.Event()

    def log(values: Mapping[str, Number], step: int) -> None:
        came.set()
        go.wait(30)
        kept.log(values, step)

    one = sampler(log=log)
    clock._now_s += 1
    clock.ring()
    assert came.wait(30)
    began = time.monotonic()
    assert not one.stop(timeout_s=0.05)
    clock._now_s += 3600
    assert one.stop(timeout_s=60), "a second call does nothing"
    assert time.monotonic() - began < 5
    (note,) = kept.notes
    assert "did not return" in note
    go.set()
    one._thread.join(30)
    assert len(kept.steps) <= 1  # what was on its way; nothing new


def test_driver_that_hangs_already_is_not_waited_for(
    sampler: Callable[..., Sampler], kept: Kept, clock: HandClock
) -> None:
    came, go = threading.Event(), threading.Event()

    def log(_: Mapping[str, Number], __: int) -> None:
        came.set()
        go.wait(30)

    one = sampler(log=log)
    clock._now_s += 1
    clock.ring()
    assert came.wait(30)
    clock._now_s += 3600
    began = time.monotonic()
    assert not one.stop(timeout_s=10)
    assert time.monotonic() - began < 5
    go.set()


def test_process_without_a_thread_to_spare_runs_on(monkeypatch: pytest.MonkeyPatch, kept: Kept) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    one = start_sampler(kept.log)
    assert isinstance(one.error, RuntimeError)
    assert one.stop()


def test_forked_child_does_not_sample(python: Callable[..., Any]) -> None:
    code = (
        "import os, threading, time\n"
        "from runstone.capture.metrics import start_sampler\n"
        "pids, came = [], threading.Event()\n"
        "def log(values, step):\n"
        "    pids.append(os.getpid())\n"
        "    if len(pids) > 3: came.set()\n"
        "sampler = start_sampler(log, interval_s=0.5)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    time.sleep(1.2)\n"
        "    began = time.monotonic()\n"
        "    ok = sampler.stop() and threading.active_count() == 1 and not pids and time.monotonic() - began < 0.2\n"
        "    os._exit(0 if ok else 1)\n"
        "assert came.wait(20)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), set(pids) == {os.getpid()}, sampler.stop())\n"
    )
    done = python(code)
    assert done.stdout == "0 True True\n", done.stderr


def test_process_ends_though_nobody_stopped_the_sampler(python: Callable[..., Any]) -> None:
    code = (
        "import threading\n"
        "from runstone.capture.metrics import start_sampler\n"
        "came = threading.Event()\n"
        "sampler = start_sampler(lambda values, step: came.set(), interval_s=0.5)\n"
        "assert came.wait(20)\n"
    )
    done = python(code)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("given", "interval_s"), [(True, 10.0), (False, None), (0.5, 0.5), (60, 60.0)])
def test_interval_is_what_was_asked_for(given: bool | float, interval_s: float | None) -> None:
    assert interval_of(given) == interval_s


@pytest.mark.parametrize("given", [0, 0.1, -1, float("nan"), float("inf"), "often", None])
def test_interval_that_cannot_be_kept_is_refused(given: Any) -> None:
    with pytest.raises(InvalidValue, match="system_metrics is"):
        interval_of(given)


def test_start_loads_nothing_heavy(python: Callable[..., Any]) -> None:
    code = (
        "import sys, time\n"
        "from runstone.capture.metrics import start_sampler\n"
        "sampler = start_sampler(lambda values, step: None)\n"
        "print({'psutil', 'pynvml', 'numpy', 'ctypes', 'dataclasses'} & set(sys.modules), sampler.stop())\n"
    )
    done = python(code)
    assert done.stdout == "set() True\n", done.stderr


# --- in a run ------------------------------------------------------------------------------------------------------


def test_system_metrics_lie_beside_those_of_the_run(
    home: Path, sampler: Callable[..., Sampler], clock: HandClock
) -> None:
    with runstone.start_run(workspace=home, environment=False) as run:
        points = run._log.points
        one = sampler(log=lambda values, step: points.log(values, step), interval_s=10)
        for seconds in (1, 10, 10):
            run.log({"loss": 1.0})
            clock.advance(seconds)
        assert one.stop()
        series = run.read().series("system/process/rss_bytes")
    assert series.step.tolist() == [1, 11, 21]
    assert series.value.dtype == "int64"
    assert run.read().series("loss").step.tolist() == [0, 1, 2]


# --- what a run consumed -------------------------------------------------------------------------------------------


def _log_energy(home: Path, run_id: str, series: Mapping[str, list[float]]) -> runstone.RunInfo:
    with runstone.start_run(workspace=home, run_id=run_id, environment=False) as run:
        for name, joules in series.items():
            for step, value in enumerate(joules):
                run.log({name: value}, step=10 * step)
    return run.read()


def test_energy_is_that_of_all_meters(home: Path) -> None:
    info = _log_energy(
        home,
        "one",
        {
            "system/gpu.0/energy_j": [0.0, 100.0, 300.0],
            "system/gpu.1/energy_j": [0.0, 100.0, 500.0],
            "system/rank.8/gpu.0/energy_j": [0.0, 1000.0],
            "system/cpu/energy_j": [0.0, 40.0],
            "system/rank.8/memory/energy_j": [0.0, 2.0],
            "other/gpu.0/energy_j": [0.0, 1e9],
        },
    )
    energy = energy_of(info)
    assert (energy.gpu_j, energy.cpu_j, energy.gpu_source) == (1800.0, 42.0, "counter")
    assert energy.total_j == 1842.0
    assert energy.kwh == pytest.approx(1842 / 3.6e6)
    assert energy.cost(0.36) == pytest.approx(1842e-7)
    assert energy.carbon_g(360) == pytest.approx(0.1842)


def test_energy_of_a_resumed_run_is_the_sum_of_its_lives(home: Path) -> None:
    _log_energy(home, "one", {"system/gpu.0/energy_j": [0.0, 100.0, 300.0]})
    info = _log_energy(home, "one", {"system/gpu.0/energy_j": [0.0, 50.0]})  # supersedes the points, not the energy
    assert energy_of(info).gpu_j == 350.0


def test_energy_that_was_integrated_says_so(home: Path) -> None:
    info = _log_energy(
        home, "one", {"system/gpu.0/energy_estimate_j": [0.0, 70.0], "system/gpu.1/energy_j": [0.0, 1.0]}
    )
    assert (energy_of(info).gpu_j, energy_of(info).gpu_source) == (71.0, "power")


def test_run_without_meters_has_no_energy(home: Path) -> None:
    energy = energy_of(_log_energy(home, "one", {"loss": [1.0]}))
    assert (energy.gpu_j, energy.cpu_j, energy.gpu_source, energy.total_j) == (None, None, None, None)
    assert (energy.kwh, energy.cost(1.0), energy.carbon_g(1.0)) == (None, None, None)


METERED = {
    "system/gpu.0/energy_j": [0.0, 1000.0, 3000.0],
    "system/rank.8/gpu.0/energy_estimate_j": [0.0, 500.0],
    "system/cpu/energy_j": [0.0, 100.0],
}


def test_table_has_what_runs_consumed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _log_energy(home, "metered", METERED)
    _log_energy(home, "bare", {"loss": [1.0]})
    table = runstone.open_workspace(home).runs(order_by="id")
    assert table.values("energy_j") == [None, 3600.0]
    assert "energy_j" in table.columns
    assert not {"energy_cost", "carbon_g"} & set(table.columns)
    monkeypatch.setenv("RUNSTONE_PRICE_PER_KWH", "0.3")
    monkeypatch.setenv("RUNSTONE_CARBON_G_PER_KWH", "400")
    assert table.to_dicts()[1]["energy_cost"] == pytest.approx(0.0003)
    frame = table.to_pandas()
    assert frame["energy_j"].tolist()[1] == 3600.0
    assert frame["carbon_g"].tolist()[1] == pytest.approx(0.4)
    assert energy_of(table[1]).total_j == 3600.0  # the same from the points


def test_table_without_meters_has_no_such_column(home: Path) -> None:
    _log_energy(home, "bare", {"loss": [1.0]})
    assert not {"energy_j", "energy_cost", "carbon_g"} & set(runstone.open_workspace(home).runs().columns)


def _listed(home: Path, *arguments: str, **variables: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "runstone.cli.main", "runs", "list", "--workspace", str(home), *arguments],
        env=dict(os.environ) | variables,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout


def test_list_shows_energy_where_a_run_has_it(home: Path) -> None:
    _log_energy(home, "bare", {"loss": [1.0]})
    assert "energy" not in _listed(home)
    _log_energy(home, "metered", METERED)
    header, *rows = _listed(home).splitlines()
    assert "energy_j" in header
    assert any("3600" in row for row in rows)
    chosen = _listed(home, "id='metered'", "--columns", "id, energy_cost,energy_j , metrics.'system/cpu/energy_j'.max",
                     "--csv", RUNSTONE_PRICE_PER_KWH="1000")  # fmt: skip
    assert chosen.splitlines()[1] == "metered,1.0,3600.0,100.0"
    assert json.loads(_listed(home, "id='metered'", "--json"))[0]["energy_j"] == 3600.0
    assert _listed(home, "--columns", "energy_j").splitlines()[0].strip() == "energy_j"


def test_gpu_that_two_ranks_report_is_counted_once(home: Path) -> None:
    series = {"system/gpu.0/energy_j": [0.0, 100.0], "system/rank.1/gpu.0/energy_j": [0.0, 99.0]}
    info = _log_energy(home, "one", series)
    assert energy_of(info).gpu_j == 199.0
    for rank in (0, 1):
        snapshot = {"rank": {"rank": rank}, "gpu": {"devices": [{"index": 0, "uuid": "GPU-1"}]}}
        (info.path / f"environment.{rank:032x}.json").write_text(json.dumps(snapshot))
    (info.path / "environment.bad.json").write_text('{"rank": null}')
    assert energy_of(info).gpu_j == 100.0
