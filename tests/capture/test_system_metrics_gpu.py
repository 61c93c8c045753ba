"""GPUs while a run goes on: the real pynvml, reading a driver that is not there and whose state changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runstone
from runstone.capture.metrics import energy_in, energy_of

_PROGRAM = """
import json, os, sys
from pathlib import Path
sys.argv[1:] and exec(sys.argv[1])
from runstone.capture.metrics.collector import Collector
notes = []
collector = Collector(store=Path("."), note=notes.append)
print(os.getpid(), flush=True)
for line in sys.stdin:
    values = {}
    for portion in collector.collect(float(line)):
        values |= portion
    print(json.dumps({"values": values, "why": collector.why, "notes": notes}), flush=True)
collector.close()
"""
_GARBAGE = 0xFFFFFFFF
_POLICIES = ("power", "thermal", "sync_boost", "board_limit", "low_utilization", "reliability")


class Machine:
    """A process that samples the fake GPUs on demand, at times that the test chooses."""

    def __init__(self, folder: Path, library: Path, environment: Mapping[str, str], before: str) -> None:
        self._config = folder / "nvml.conf"
        self.change({})
        fake = {"FAKENVML": str(self._config), "LD_LIBRARY_PATH": str(library)}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", _PROGRAM, *([before] if before else [])],
            cwd=folder,
            env=dict(os.environ) | fake | dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.pid = int(self._process.stdout.readline())
        self.why: dict[str, str] = {}
        self.notes: list[str] = []

    def change(self, state: Mapping[str, object]) -> None:
        """Let the driver be in this state from now on; by a rename, so that no reader sees half of it."""
        new = self._config.with_suffix(".new")
        new.write_text("".join(f"{key} {value}\n" for key, value in state.items()))
        new.replace(self._config)

    def take(self, at_s: float, state: Mapping[str, object] | None = None) -> dict[str, Any]:
        """Return the GPU series of a pass."""
        if state is not None:
            self.change(state)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{at_s}\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        self.why, self.notes = answer["why"], answer["notes"]
        self.all = answer["values"]
        return {name: value for name, value in answer["values"].items() if name.startswith("gpu")}

    def end(self) -> int:
        """End the process and return its exit code."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        return self._process.wait(30)


@pytest.fixture
def machine(fakenvml: Path, tmp_path: Path) -> Iterator[Callable[..., Machine]]:
    """Return a function that starts a process which samples; `before` runs in it first."""
    started: list[Machine] = []

    def start(*, environment: Mapping[str, str] | None = None, before: str = "", library: Path = fakenvml) -> Machine:
        started.append(Machine(tmp_path, library, environment or {}, before))
        return started[-1]

    yield start
    assert [one.end() for one in started] == [0] * len(started)


def _of(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key.removeprefix(f"{name}/"): value for key, value in values.items() if key.startswith(f"{name}/")}


# --- what is read --------------------------------------------------------------------------------------------------


def test_gpu_says_everything_that_it_knows(machine: Callable[..., Machine]) -> None:
    gpus = machine()
    state = {"count": 1, "gpu0.throttle": 0x24, "gpu0.energy_mj": 1_000_000, "gpu0.ecc_corrected": 3}
    assert _of(gpus.take(0, state), "gpu.0") == {
        "util_percent": 87,
        "memory_util_percent": 41,
        "memory_used_bytes": 3 << 30,
        "memory_percent": 3.75,
        "memory_reserved_bytes": 0,
        "temperature_c": 64,
        "memory_temperature_c": 71,
        "power_w": 250.0,
        "power_limit_w": 700.0,
        "power_percent": pytest.approx(250 / 7),
        "energy_j": 0.0,
        "sm_clock_mhz": 1980,
        "memory_clock_mhz": 2619,
        "throttle/power": 1,
        "throttle/thermal": 1,
        "throttle/hw_slowdown": 0,
        "throttle/hw_thermal": 0,
        "throttle/power_brake": 0,
        "throttle/sync_boost": 0,
        "throttled_ms/power": 0.0,
        "throttled_ms/thermal": 0.0,
        "throttled_ms/sync_boost": 0.0,
        "throttled_ms/board_limit": 0.0,
        "throttled_ms/low_utilization": 0.0,
        "throttled_ms/reliability": 0.0,
        "throttled_ms/hw_thermal": 0.0,
        "throttled_ms/power_brake": 0.0,
        "performance_state": 0,
        "encoder_percent": 0,
        "decoder_percent": 0,
        "fan_percent": 30,
        "ecc_corrected_errors": 3,
        "ecc_uncorrected_errors": 0,
        "remapped_rows_corrected": 0,
        "remapped_rows_uncorrected": 0,
        "row_remap_pending": 0,
        "row_remap_failed": 0,
        "retired_pages": 0,
        "pcie_generation": 5,
        "pcie_width": 16,
        "processes": 0,
        "other_processes": 0,
    }
    later = _of(gpus.take(10, state | {"gpu0.energy_mj": 3_500_000}), "gpu.0")
    assert later["energy_j"] == 2500.0
    activity = {name: value for name, value in later.items() if "active" in name or "occupancy" in name}
    assert activity == {
        "sm_active_percent": 2.0,
        "sm_occupancy_percent": 3.0,
        "tensor_active_percent": 5.0,
        "dram_active_percent": 10.0,
        "fp64_active_percent": 11.0,
        "fp32_active_percent": 12.0,
        "fp16_active_percent": 13.0,
    }
    assert later["pcie_tx_bytes_per_s"] == 20 * 2**20
    assert later["nvlink_rx_bytes_per_s"] == 60 * 2**20
    assert gpus.notes == []


def test_what_is_costly_is_read_once_a_minute(machine: Callable[..., Machine]) -> None:
    gpus = machine()
    state = {"count": 1, "gpu0.fan": 40, "gpu0.retired_single": 2, "gpu0.remapped_uncorrected": 1, "gpu0.procs": "1:5"}
    slow = {"fan_percent", "retired_pages", "remapped_rows_uncorrected", "processes", "pcie_width", "power_limit_w"}
    for at_s in range(0, 130, 10):
        assert (slow <= set(_of(gpus.take(at_s, state), "gpu.0"))) == (at_s % 60 == 0), at_s
    values = _of(gpus.take(180), "gpu.0")
    assert (values["fan_percent"], values["retired_pages"], values["remapped_rows_uncorrected"]) == (40, 2, 1)


def test_eight_gpus_have_series_of_their_own(machine: Callable[..., Machine]) -> None:
    gpus = machine()
    values = gpus.take(0, {"count": 8, **{f"gpu{index}.util": 10 * index for index in range(8)}})
    assert [values[f"gpu.{index}/util_percent"] for index in range(8)] == [10 * index for index in range(8)]
    assert len({name.partition("/")[2] for name in values}) * 8 == len(values)


def test_gpu_without_activity_counters_measures_its_links_otherwise(machine: Callable[..., Machine]) -> None:
    gpus = machine()
    state = {"count": 1, "gpu0.gpm": 0, "gpu0.nvlinks": 4, "gpu0.pcie_tx_kbs": 7, "gpu0.nvlink_tx_kib": 1000}
    first = _of(gpus.take(0, state), "gpu.0")
    assert (first["pcie_tx_bytes_per_s"], first["pcie_rx_bytes_per_s"]) == (7000.0, 1_000_000.0)
    later = _of(gpus.take(10, state | {"gpu0.nvlink_tx_kib": 2000}), "gpu.0")
    assert (later["nvlink_tx_bytes_per_s"], later["nvlink_rx_bytes_per_s"]) == (102_400.0, 0.0)
    assert "pcie_tx_bytes_per_s" not in later
    assert "sm_active_percent" not in later


def test_activity_that_this_user_may_not_read_leaves_the_rest(machine: Callable[..., Machine]) -> None:
    gpus = machine()
    first = _of(gpus.take(0, {"count": 1, "err.nvmlGpmSampleGet": 4}), "gpu.0")
    assert gpus.why["gpu.0/gpm"].startswith("denied: Insufficient Permissions")
    assert "pcie_tx_bytes_per_s" in first
    assert "sm_active_percent" not in _of(gpus.take(10), "gpu.0")


def test_activity_that_cannot_be_true_is_a_gap(machine: Callable[..., Machine]) -> None:
    gpus = machine()
    state = {"count": 1, "gpu0.gpm.5": "nan", "gpu0.gpm.2": 4e9, "gpu0.gpm.3": "none", "gpu0.gpm.10": 100.4}
    gpus.take(0, state)
    values = _of(gpus.take(10), "gpu.0")
    assert not {"tensor_active_percent", "sm_active_percent", "sm_occupancy_percent"} & set(values)
    assert values["dram_active_percent"] == 100.0


def test_gpu_without_links_has_no_such_series(machine: Callable[..., Machine]) -> None:
    gpus = machine()
    for at_s in (0, 10):
        assert "gpu.0/nvlink_tx_bytes_per_s" not in gpus.take(at_s, {"count": 1, "gpu0.gpm": 0})


def test_error_of_the_driver_is_a_point_where_it_happened(machine: Callable[..., Machine]) -> None:
    gpus = machine()
    assert "gpu.1/xid" not in gpus.take(0, {"count": 2})
    values = gpus.take(10, {"count": 2, "gpu1.xid": 31, "gpu1.xid_seq": 2})
    assert values["gpu.1/xid"] == 31
    assert "gpu.0/xid" not in values
    assert "gpu.1/xid" not in gpus.take(20)


_LIVES = """
import time, runstone
from runstone.runinfo import RunInfo
NAME = "system/gpu.0/energy_j"
def samples():
    info = RunInfo(run.path)
    return len(info.series(NAME, attempt="all")) if NAME in info.metrics else 0
run = runstone.start_run(workspace="ws", run_id="r", environment=False, system_metrics=0.5)
for life in range(2):
    wanted, end = samples() + 3, time.monotonic() + 20
    while samples() < wanted:
        assert time.monotonic() < end
        time.sleep(0.05)
    run.finish()
    if life == 0:
        run.reopen()
"""


def test_energy_goes_on_over_stages_and_attempts_of_a_run(fakenvml: Path, tmp_path: Path) -> None:
    (tmp_path / "nvml.conf").write_text("count 1\ngpu0.power_mw 300000\n")
    fake = {"FAKENVML": str(tmp_path / "nvml.conf"), "LD_LIBRARY_PATH": str(fakenvml)}
    for _ in range(2):
        subprocess.run(
            [sys.executable, "-c", _LIVES], cwd=tmp_path, env=dict(os.environ) | fake, check=True, timeout=60
        )
    info = runstone.open_workspace(tmp_path / "ws").run("r")
    assert [attempt.number for attempt in info.attempts] == [1, 2]
    series = info.series("system/gpu.0/energy_j", attempt="all")
    joules = series.value[np.argsort(series.wall_s, kind="stable")]
    assert len(joules) >= 12
    assert (np.diff(joules) >= 0).all()  # no life begins at 0 again
    assert joules[-1] > 600  # four lives of two samples' distance at 300 W
    assert energy_in(info.metrics) == energy_of(info)


# --- time held back ------------------------------------------------------------------------------------------------


def test_time_that_clocks_were_held_back_counts_from_the_first_sample(machine: Callable[..., Machine]) -> None:
    gpus = machine()
    before = {"count": 1, "gpu0.violation.0": 7_000_000_000, "gpu0.violation.1": 5, "gpu0.hw_thermal_ns": 9_000_000}
    gpus.take(0, before)
    values = _of(gpus.take(10, before | {"gpu0.violation.0": 9_500_000_000, "gpu0.hw_thermal_ns": 10_500_000}), "gpu.0")
    assert {name: value for name, value in values.items() if value and name.startswith("throttled_ms/")} == {
        "throttled_ms/power": 2500.0,
        "throttled_ms/hw_thermal": 1.5,
    }


def test_time_held_back_is_asked_for_in_one_call_where_the_driver_can(machine: Callable[..., Machine]) -> None:
    state = {"count": 1, "gpu0.violation_fields": 1, "err.nvmlDeviceGetViolationStatus": 999}
    gpus = machine()
    gpus.take(0, state | {"gpu0.violation.0": 1_000_000_000})
    values = gpus.take(10, state | {"gpu0.violation.0": 3_000_000_000})
    assert values["gpu.0/throttled_ms/power"] == 2000.0
    assert values["gpu.0/throttled_ms/reliability"] == 0.0


def test_time_held_back_that_is_longer_than_the_time_is_a_gap(machine: Callable[..., Machine]) -> None:
    gpus = machine()
    gpus.take(0, {"count": 1})
    assert "gpu.0/throttled_ms/power" not in gpus.take(10, {"count": 1, "gpu0.violation.0": 60_000_000_000})
    assert gpus.take(20, {"count": 1, "gpu0.violation.0": 4_000_000_000})["gpu.0/throttled_ms/power"] == 4000.0


def test_time_held_back_goes_on_where_the_counter_began_anew(machine: Callable[..., Machine]) -> None:
    gpus = machine()
    for at_s, counter_ns in ((0, 5_000_000_000), (10, 6_000_000_000), (20, 0)):
        gpus.take(at_s, {"count": 1, "gpu0.violation.4": counter_ns})
    values = gpus.take(30, {"count": 1, "gpu0.violation.4": 500_000_000})
    assert values["gpu.0/throttled_ms/low_utilization"] == 1500.0


def test_reasons_that_a_driver_does_not_count_are_absent(machine: Callable[..., Machine]) -> None:
    gpus = machine()
    state = {"count": 1, "err.nvmlDeviceGetViolationStatus": 3, "gpu0.slowdown_counters": 0}
    for at_s in (0, 10):
        values = _of(gpus.take(at_s, state), "gpu.0")
        assert not [name for name in values if name.startswith("throttled_ms/")]
        assert values["throttle/power"] == 0
        assert values["memory_temperature_c"] == 71
    assert gpus.why["gpu.0/throttled_ms/power"] == "absent: Not Supported (NVML 3)"


# --- processes -----------------------------------------------------------------------------------------------------


def test_processes_are_told_apart(machine: Callable[..., Machine]) -> None:
    gpus = machine()
    values = _of(gpus.take(0, {"count": 1, "gpu0.procs": f"{gpus.pid}:{5 << 30},1:{2 << 30}"}), "gpu.0")
    assert (values["processes"], values["other_processes"], values["own_memory_bytes"]) == (2, 1, 5 << 30)


def test_process_ids_of_another_namespace_are_not_guessed_at(machine: Callable[..., Machine]) -> None:
    gpus = machine()
    values = _of(gpus.take(0, {"count": 1, "gpu0.procs": f"4194301:{5 << 30},4194302:{2 << 30}"}), "gpu.0")
    assert values["processes"] == 2
    assert "other_processes" not in values
    assert "own_memory_bytes" not in values
    assert "container" in gpus.why["gpu.0/own_memory_bytes"]


def test_memory_of_a_process_that_is_not_told_is_absent(machine: Callable[..., Machine]) -> None:
    gpus = machine()
    values = _of(gpus.take(0, {"count": 1, "gpu0.procs": f"{gpus.pid}:-1"}), "gpu.0")
    assert values["processes"] == 1
    assert "own_memory_bytes" not in values


# --- energy --------------------------------------------------------------------------------------------------------


def test_energy_counts_from_the_first_sample(machine: Callable[..., Machine]) -> None:
    gpus = machine()
    energies = [
        gpus.take(at_s, {"count": 1, "gpu0.energy_mj": counter_mj})["gpu.0/energy_j"]
        for at_s, counter_mj in ((0, 9_000_000), (10, 9_500_000), (20, 12_000_000))
    ]
    assert energies == [0.0, 500.0, 3000.0]


def test_energy_goes_on_where_the_counter_began_anew(machine: Callable[..., Machine]) -> None:
    gpus = machine()
    for at_s, counter_mj in ((0, 9_000_000), (10, 9_500_000), (20, 100_000)):
        gpus.take(at_s, {"count": 1, "gpu0.energy_mj": counter_mj})
    assert gpus.take(30, {"count": 1, "gpu0.energy_mj": 300_000})["gpu.0/energy_j"] == 700.0


def test_energy_that_no_gpu_could_use_is_a_gap(machine: Callable[..., Machine]) -> None:
    gpus = machine()
    gpus.take(0, {"count": 1, "gpu0.energy_mj": 1_000_000})
    assert "gpu.0/energy_j" not in gpus.take(10, {"count": 1, "gpu0.energy_mj": 10**15})
    assert gpus.take(20, {"count": 1, "gpu0.energy_mj": 3_000_000})["gpu.0/energy_j"] == 2000.0


def test_energy_without_a_counter_is_estimated_and_named_so(machine: Callable[..., Machine]) -> None:
    gpus = machine()
    state = {"count": 1, "err.nvmlDeviceGetTotalEnergyConsumption": 3}
    energies = [
        gpus.take(at_s, state | {"gpu0.power_mw": milliwatts})["gpu.0/energy_estimate_j"]
        for at_s, milliwatts in ((0, 100_000), (10, 100_000), (20, 300_000))
    ]
    assert energies == [0.0, 1000.0, 3000.0]
    values = gpus.take(30, state | {"gpu0.power_mw": _GARBAGE})
    assert "gpu.0/energy_estimate_j" not in values
    assert "gpu.0/energy_j" not in values


# --- faults --------------------------------------------------------------------------------------------------------


def test_machine_without_a_driver_has_no_gpu_series(machine: Callable[..., Machine], tmp_path: Path) -> None:
    gpus = machine(library=tmp_path)
    values = gpus.take(0)
    if "no NVIDIA driver" not in gpus.why.get("gpu", ""):
        pytest.skip("this machine has an NVIDIA driver")
    assert values == {}
    assert gpus.notes == []
    assert "process/rss_bytes" in gpus.all


@pytest.mark.parametrize(
    ("code", "reason"),
    [(4, "denied: "), (9, "absent: "), (18, "error: "), (999, "error: ")],
    ids=["no permission", "driver not loaded", "version mismatch", "unknown"],
)
def test_library_that_does_not_start_is_noted_once_and_tried_again(
    machine: Callable[..., Machine], code: int, reason: str
) -> None:
    gpus = machine()
    assert gpus.take(0, {"count": 1, "init": code}) == {}
    assert "process/rss_bytes" in gpus.all
    assert gpus.take(10) == {}
    assert gpus.why["gpu"].startswith(reason)
    (note,) = gpus.notes
    assert f"(NVML {code})" in note
    assert gpus.take(20, {"count": 1}) == {}  # its turn is at 30
    assert gpus.take(30)["gpu.0/util_percent"] == 87


@pytest.mark.parametrize(
    ("function", "series"),
    [
        ("nvmlDeviceGetUtilizationRates", {"util_percent", "memory_util_percent"}),
        ("nvmlDeviceGetPowerUsage", {"power_w", "power_percent"}),
        ("nvmlDeviceGetEnforcedPowerLimit", {"power_limit_w", "power_percent"}),
        ("nvmlDeviceGetClockInfo", {"sm_clock_mhz", "memory_clock_mhz"}),
        ("nvmlDeviceGetPerformanceState", {"performance_state"}),
        (
            "nvmlDeviceGetFieldValues",
            {"memory_temperature_c", "throttled_ms/hw_thermal", "throttled_ms/power_brake"},
        ),
        ("nvmlDeviceGetViolationStatus", {f"throttled_ms/{policy}" for policy in _POLICIES}),
        ("nvmlDeviceGetFanSpeed", {"fan_percent"}),
        ("nvmlDeviceGetEncoderUtilization", {"encoder_percent"}),
        ("nvmlDeviceGetTotalEccErrors", {"ecc_corrected_errors", "ecc_uncorrected_errors"}),
        ("nvmlDeviceGetRetiredPages", {"retired_pages"}),
        ("nvmlDeviceGetCurrPcieLinkGeneration", {"pcie_generation", "pcie_width"}),
        ("nvmlDeviceGetComputeRunningProcesses_v3", {"processes", "other_processes"}),
    ],
)
@pytest.mark.parametrize("code", [3, 4, 999])
def test_function_that_fails_costs_its_series_only(
    machine: Callable[..., Machine], whole: set[str], function: str, series: set[str], code: int
) -> None:
    gpus = machine()
    values = gpus.take(0, {"count": 2, f"gpu0.err.{function}": code})
    assert set(_of(values, "gpu.0")) == whole - series
    assert set(_of(values, "gpu.1")) == whole
    # What failed for a moment is asked again; what the GPU cannot, or this user may not, is not.
    assert (set(_of(gpus.take(60, {"count": 2}), "gpu.0")) >= whole) == (code == 999)
    assert gpus.notes == []


@pytest.fixture(scope="module")
def whole(fakenvml: Path, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Return the names of all series that a GPU has at the first pass."""
    one = Machine(tmp_path_factory.mktemp("whole"), fakenvml, {}, "")
    names = set(_of(one.take(0, {"count": 1}), "gpu.0"))
    one.end()
    return names


def test_reading_that_failed_once_is_a_gap(machine: Callable[..., Machine]) -> None:
    gpus = machine()
    states = ({"count": 1}, {"count": 1, "err.nvmlDeviceGetUtilizationRates": 999}, {"count": 1})
    has_it = ["gpu.0/util_percent" in gpus.take(10 * turn, state) for turn, state in enumerate(states)]
    assert has_it == [True, False, True]


@pytest.mark.parametrize(
    ("field", "series"),
    [
        ("util", "util_percent"),
        ("mem_util", "memory_util_percent"),
        ("temp", "temperature_c"),
        ("mem_temp", "memory_temperature_c"),
        ("power_mw", "power_w"),
        ("power_limit_mw", "power_percent"),
        ("clock1", "sm_clock_mhz"),
        ("throttle", "throttle/power"),
        ("pstate", "performance_state"),
        ("fan", "fan_percent"),
        ("encoder", "encoder_percent"),
        ("ecc_corrected", "ecc_corrected_errors"),
        ("pcie_gen", "pcie_generation"),
    ],
)
def test_number_that_stands_for_none_is_a_gap(
    machine: Callable[..., Machine], whole: set[str], field: str, series: str
) -> None:
    values = machine().take(0, {"count": 1, f"gpu0.{field}": _GARBAGE})
    missing = whole - set(_of(values, "gpu.0"))
    assert series in missing
    assert len(missing) <= 6  # the reasons for throttling are one number


@pytest.mark.parametrize(
    "state",
    [
        {"gpu0.mem_total": 0xFFFFFFFFFFFFFFFF},
        {"gpu0.mem_used": 0xFFFFFFFFFFFFFFFF},
        {"gpu0.mem_total": 0},
        {"gpu0.mem_used": 90 << 30},
        {"gpu0.energy_mj": 0xFFFFFFFFFFFFFFFF},
        {"gpu0.util": 101},
        {"gpu0.pstate": 32},
    ],
)
def test_no_series_holds_what_cannot_be_true(machine: Callable[..., Machine], state: dict[str, int]) -> None:
    gpus = machine()
    values = gpus.take(0, {"count": 1, **state})
    assert all(value < 1 << 40 for value in values.values())
    assert values.get("gpu.0/memory_percent", 0) <= 100
    assert values.get("gpu.0/util_percent", 0) <= 100
    assert values.get("gpu.0/performance_state", 0) <= 15


def test_gpu_without_the_memory_sensor_has_no_such_series(machine: Callable[..., Machine]) -> None:
    assert "gpu.0/memory_temperature_c" not in machine().take(0, {"count": 1, "gpu0.mem_temp": 0})


def test_driver_that_knows_the_older_calls_only_is_asked_by_them(machine: Callable[..., Machine]) -> None:
    gpus = machine()
    newer = ("TemperatureV", "MemoryInfo_v2", "CurrentClocksEventReasons")
    values = gpus.take(0, {"count": 1, **{f"err.nvmlDeviceGet{name}": 13 for name in newer}})
    assert (values["gpu.0/temperature_c"], values["gpu.0/memory_used_bytes"]) == (64, 3 << 30)
    assert values["gpu.0/throttle/power"] == 0
    assert "gpu.0/memory_reserved_bytes" not in values


def test_older_bindings_are_enough(machine: Callable[..., Machine]) -> None:
    lacking = (
        "nvmlDeviceGetTemperatureV", "nvmlDeviceGetCurrentClocksEventReasons", "nvmlMemory_v2",
        "nvmlGpmQueryDeviceSupport", "nvmlDeviceGetTotalEnergyConsumption", "nvmlEventSetWait",
    )  # fmt: skip
    gpus = machine(before="import pynvml\n" + "\n".join(f"del pynvml.{name}" for name in lacking))
    gpus.take(0, {"count": 1})
    values = _of(gpus.take(10), "gpu.0")
    assert (values["temperature_c"], values["throttle/power"], values["memory_used_bytes"]) == (64, 0, 3 << 30)
    assert values["energy_estimate_j"] == 2500.0


# --- a GPU that is lost --------------------------------------------------------------------------------------------


def test_lost_gpu_is_a_gap_until_it_is_back(machine: Callable[..., Machine]) -> None:
    gpus = machine()
    state = {"count": 2, "gpu1.energy_mj": 1_000_000}
    gpus.take(0, state)
    gpus.take(10, state | {"gpu1.energy_mj": 2_000_000})
    for at_s in (20, 30, 40):
        values = gpus.take(at_s, {"count": 2, "gpu1.lost": 1})
        assert _of(values, "gpu.1") == {}, at_s
        assert _of(values, "gpu.0")["util_percent"] == 87, at_s
    (note,) = gpus.notes
    assert "gpu.1" in note
    assert "GPU is lost (NVML 15)" in note
    found = [
        at_s
        for at_s in range(50, 80, 10)
        if "gpu.1/util_percent" in gpus.take(at_s, state | {"gpu1.energy_mj": 6_000_000})
    ]
    assert found == [50, 60, 70]
    assert gpus.take(80)["gpu.1/energy_j"] == 5000.0  # what it used meanwhile was counted by itself
    assert len(gpus.notes) == 1


def test_gpu_that_stays_lost_is_asked_less_and_less(machine: Callable[..., Machine]) -> None:
    gpus = machine()
    gpus.take(0, {"count": 1})
    gpus.take(10, {"count": 1, "gpu0.lost": 1})
    for at_s in (20, 40, 80, 160, 320):  # each attempt in vain doubles the time to the next
        gpus.take(at_s)
    assert gpus.take(610, {"count": 1}) == {}
    assert gpus.take(620)["gpu.0/util_percent"] == 87


def test_gpu_that_was_lost_before_the_run_is_found_when_it_comes(machine: Callable[..., Machine]) -> None:
    gpus = machine()
    assert _of(gpus.take(0, {"count": 2, "gpu0.lost": 1}), "gpu.0") == {}
    values = gpus.take(10, {"count": 2})
    assert {name.partition("/")[0] for name in values} == {"gpu.0", "gpu.1"}


def test_gpu_keeps_its_number_where_one_before_it_vanished(machine: Callable[..., Machine]) -> None:
    gpus = machine()
    gpus.take(0, {"count": 2, "gpu1.util": 55})
    gpus.take(10, {"count": 2, "gpu0.lost": 1, "gpu1.util": 55})
    values = gpus.take(20, {"count": 1, "gpu0.uuid": "GPU-fake-1", "gpu0.util": 55})
    assert values["gpu.1/util_percent"] == 55
    assert _of(values, "gpu.0") == {}


def test_driver_that_goes_away_and_returns(machine: Callable[..., Machine]) -> None:
    gpus = machine()
    gpus.take(0, {"count": 2})
    assert gpus.take(10, {"count": 2, "err.nvmlDeviceGetUtilizationRates": 9}) == {}
    assert gpus.take(20, {"count": 2, "init": 9}) == {}
    assert {name.partition("/")[0] for name in gpus.take(40, {"count": 2})} == {"gpu.0", "gpu.1"}


# --- a driver that hangs -------------------------------------------------------------------------------------------

_HANGING = """
import threading, time
from runstone.capture.metrics import start_sampler
kept, notes, came = [], [], threading.Event()
def log(values, step):
    kept.append(values)
    if "system/process/rss_bytes" in values:
        came.set()
sampler = start_sampler(log, interval_s=0.5, note=notes.append)
assert came.wait(20)
began = time.monotonic()
steps = 0
while time.monotonic() < began + 0.3:
    steps += 1  # training goes on
is_gone = sampler.stop(timeout_s=0.2)
print(is_gone, round(time.monotonic() - began, 1), steps > 1000)
print(*notes)
print(*sorted({name for values in kept for name in values if "gpu" in name}))
"""


@pytest.mark.parametrize("function", ["nvmlInit", "nvmlDeviceGetPowerUsage"])
def test_driver_that_hangs_holds_up_neither_training_nor_the_end(
    fakenvml: Path, tmp_path: Path, python: Callable[..., Any], function: str
) -> None:
    (tmp_path / "nvml.conf").write_text(f"count 1\ndelay_us.{function} 40000000\n")
    began = time.monotonic()
    done = python(_HANGING, environment={"FAKENVML": str(tmp_path / "nvml.conf"), "LD_LIBRARY_PATH": str(fakenvml)})
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 15, "the process has waited for the driver when it ended"
    ending, note, series = done.stdout.splitlines()
    is_gone, took_s, went_on = ending.split()
    assert (is_gone, went_on) == ("False", "True")
    assert float(took_s) < 1.5
    assert note.startswith("system metrics end early: reading gpu")
    assert "did not return" in note
    assert series == ""


# --- which GPUs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "numbers"),
    [
        ({}, {0, 1, 2, 3}),
        ({"CUDA_VISIBLE_DEVICES": "2,0"}, {0, 2}),
        ({"CUDA_VISIBLE_DEVICES": "GPU-fake-3"}, {3}),
        ({"CUDA_VISIBLE_DEVICES": ""}, set()),
        ({"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "4"}, {0, 1, 2, 3}),
        ({"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}, set()),
        ({"LOCAL_RANK": "3"}, set()),
        ({"LOCAL_RANK": "3", "CUDA_VISIBLE_DEVICES": "3"}, {3}),
        ({"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "CUDA_VISIBLE_DEVICES": "2,3"}, set()),
        ({"SLURM_LOCALID": "1", "SLURM_NTASKS_PER_NODE": "4", "CUDA_VISIBLE_DEVICES": "2,3"}, {2, 3}),
    ],
)
def test_gpus_are_those_that_the_process_can_see_and_no_other_reports(
    machine: Callable[..., Machine], variables: dict[str, str], numbers: set[int]
) -> None:
    gpus = machine(environment=variables)
    values = gpus.take(0, {"count": 4})
    assert {int(name.partition("/")[0].removeprefix("gpu.")) for name in values} == numbers


def test_ranks_beside_the_first_of_a_host_report_themselves_only(machine: Callable[..., Machine]) -> None:
    gpus = machine(environment={"LOCAL_RANK": "1"})
    gpus.take(0, {"count": 4})
    assert {name.partition("/")[0] for name in gpus.all} == {"process"}


def test_unlike_gpus_whose_order_is_unknown_are_all_reported(machine: Callable[..., Machine]) -> None:
    gpus = machine(environment={"CUDA_VISIBLE_DEVICES": "0"})
    values = gpus.take(0, {"count": 2, "gpu0.name": "NVIDIA Fake T4"})
    assert {name.partition("/")[0] for name in values} == {"gpu.0", "gpu.1"}


# --- divided GPUs --------------------------------------------------------------------------------------------------


def test_divided_gpu_reports_memory_and_activity_of_its_instances(machine: Callable[..., Machine]) -> None:
    gpus = machine()
    state = {"count": 1, "gpu0.mig_count": 3, "gpu0.mig1.free": 1, "err.nvmlDeviceGetUtilizationRates": 3}
    gpus.take(0, state)
    values = _of(gpus.take(10), "gpu.0")
    for part in ("mig.0", "mig.2"):
        assert values[f"{part}/memory_used_bytes"] == 3 << 30
        assert values[f"{part}/memory_percent"] == pytest.approx(30.0)
        assert values[f"{part}/sm_active_percent"] == 2.0
    assert not any(name.startswith("mig.1/") for name in values)
    assert "util_percent" not in values
    assert values["power_w"] == 250.0


def test_instance_that_is_visible_is_the_only_one_reported(machine: Callable[..., Machine]) -> None:
    gpus = machine(environment={"CUDA_VISIBLE_DEVICES": "MIG-fake-1-1"})
    values = gpus.take(0, {"count": 2, "gpu1.mig_count": 2})
    assert {name.partition("/")[0] for name in values} == {"gpu.1"}
    assert {name.split("/")[1] for name in values if "mig." in name} == {"mig.1"}


def test_instance_without_activity_counters_reports_its_memory(machine: Callable[..., Machine]) -> None:
    gpus = machine()
    gpus.take(0, {"count": 1, "gpu0.mig_count": 1, "err.nvmlDeviceGetGpuInstanceId": 4})
    values = _of(gpus.take(10), "gpu.0")
    assert "mig.0/memory_used_bytes" in values
    assert "mig.0/sm_active_percent" not in values
