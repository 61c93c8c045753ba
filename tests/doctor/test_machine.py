"""What the machine did: each finding on a run that shows it, and none on one that nearly does."""

from __future__ import annotations

import math

import pytest

from runstone.doctor import Severity, diagnose
from tests.doctor.patients import GIB, Patient, kinds, only


def wave(number: int) -> float:
    """Return something between -1 and 1 that looks like noise."""
    return math.sin(number * 12.9898) * math.cos(number * 4.1414)


def test_a_healthy_run_has_no_findings(patient: Patient) -> None:
    found = diagnose(patient())
    assert found.findings == ()
    assert found.is_healthy
    assert {"waiting for data", "memory", "throttled clocks", "other programs on the GPU"} <= set(found.checked)


def test_a_run_without_series_and_snapshot_says_what_could_not_be_looked_at(patient: Patient) -> None:
    found = diagnose(patient(is_bare=True, metrics={"loss": [1.0, 0.5]}))
    assert found.findings == ()
    assert found.not_checked["memory"] == "memory was not recorded"
    assert "waiting for data" in found.not_checked
    assert "NaN and Inf" in found.checked


# --- waiting for data -----------------------------------------------------------------------------------------------
def test_a_gpu_that_waits_for_a_saturated_cpu_is_input_bound(patient: Patient) -> None:
    info = patient(
        system={"gpu.0/util_percent": lambda n: 31 + 8 * wave(n), "cpu/percent": 96, "process/children": 16},
        params={"data": {"num_workers": 16}},
    )
    found = only(info, "input_bound")
    assert found.severity is Severity.WARNING
    assert found.title == "GPU 0 waited for data"
    assert "GPU 0 at 31 % utilisation" in found.explanation
    assert "the CPU was at 96 % of 16 cores" in found.explanation
    assert "data.num_workers=16, 16 child processes ran" in found.action
    assert found.evidence.series == ("system/gpu.0/util_percent", "system/cpu/percent")
    assert found.evidence.first_s is not None
    assert found.evidence.first_s >= 60
    assert found.evidence.last_s == 1190


def test_a_gpu_that_waits_for_a_disk_is_input_bound(patient: Patient) -> None:
    found = only(patient(system={"gpu.0/util_percent": 22, "cpu/iowait_percent": 31}), "input_bound")
    assert "31 % of CPU time waited for a disk" in found.explanation
    assert "local disk" in found.action


def test_a_gpu_that_waits_for_one_python_process_is_input_bound(patient: Patient) -> None:
    info = patient(
        system={"gpu.0/util_percent": 40, "cpu/percent": 7, "process/cpu_percent": 101, "cpu/busiest_core_percent": 99},
        params={"num_workers": 0},
    )
    found = only(info, "input_bound")
    assert "one core was at 99 %" in found.explanation
    assert "num_workers=0" in found.action


def test_a_busy_cpu_beside_a_busy_gpu_is_fine(patient: Patient) -> None:
    assert kinds(patient(system={"cpu/percent": 97, "cpu/busiest_core_percent": 100})) == []


def test_a_slow_start_is_not_waiting(patient: Patient) -> None:
    info = patient(
        system={"gpu.0/util_percent": lambda n: 0 if n < 6 else 95, "cpu/percent": lambda n: 99 if n < 6 else 30}
    )
    assert kinds(info) == []


def test_a_gpu_that_idles_while_nothing_else_is_busy_is_a_note(patient: Patient) -> None:
    found = only(patient(system={"gpu.0/util_percent": 12}), "gpu_underused")
    assert found.severity is Severity.NOTE


def test_a_few_samples_prove_nothing(patient: Patient) -> None:
    assert kinds(patient(system={"gpu.0/util_percent": 20, "cpu/percent": 99}, samples=5)) == []


def test_gpus_that_do_nothing_beside_one_that_works_are_told(patient: Patient) -> None:
    info = patient(system={f"gpu.{n}/util_percent": 0 for n in (1, 2, 3)})
    found = only(info, "idle_gpu")
    assert found.title == "GPUs 1, 2, 3 did nothing"
    assert "1 of 4 visible GPUs worked" in found.explanation


# --- clocks ---------------------------------------------------------------------------------------------------------
def test_a_hot_gpu_is_told_with_temperature_and_clocks(patient: Patient) -> None:
    info = patient(
        system={
            "gpu.0/throttle/thermal": lambda n: int(n >= 60),
            "gpu.0/temperature_c": lambda n: 90 if n >= 60 else 70,
            "gpu.0/sm_clock_mhz": lambda n: 1200 if n >= 60 else 1950,
            "gpu.0/throttle/hw_slowdown": lambda n: int(n >= 60),
        }
    )
    found = only(info, "throttled_thermal")
    assert found.explanation == (
        "Heat held its clocks back in 50% of 120 samples at 90 °C in the median; SM clock 1200 MHz then, 1950 MHz "
        "otherwise, 1980 MHz at most."
    )
    assert (found.evidence.first_step, found.evidence.last_step) == (600, 1190)


def test_a_single_hot_sample_is_not_told(patient: Patient) -> None:
    assert kinds(patient(system={"gpu.0/throttle/thermal": lambda n: int(n == 50)})) == []


def test_full_load_at_the_power_limit_is_fine(patient: Patient) -> None:
    assert kinds(patient(system={"gpu.0/throttle/power": 1, "gpu.0/sm_clock_mhz": 1830})) == []


def test_a_lowered_power_limit_is_told(patient: Patient) -> None:
    devices = [
        {"index": 0, "name": "H100", "max_clock_sm_mhz": 1980, "power_limit_w": 350.0, "power_limit_default_w": 700.0}
    ]
    info = patient(system={"gpu.0/throttle/power": 1, "gpu.0/sm_clock_mhz": 1300}, environment={"gpu.devices": devices})
    found = only(info, "throttled_power")
    assert found.severity is Severity.WARNING
    assert "limit 350 W, by default 700 W" in found.explanation
    assert "nvidia-smi -i 0 -pl 700" in found.action


def test_a_hardware_slowdown_without_heat_is_the_power_supply(patient: Patient) -> None:
    found = only(patient(system={"gpu.0/throttle/power_brake": lambda n: int(n % 4 == 0)}), "throttled_hardware")
    assert found.explanation.startswith("The power supply asked it to slow down in 25% of 120 samples")
    assert found.evidence.first_step == 0


def test_full_load_that_costs_clock_is_a_note(patient: Patient) -> None:
    info = patient(system={"gpu.0/throttle/power": lambda n: int(n >= 60), "gpu.0/sm_clock_mhz": 1500})
    found = only(info, "throttled_power")
    assert found.severity is Severity.NOTE
    assert found.explanation.startswith("At the limit of 700 W in 50% of 120 samples; SM clock 1500 MHz then")
    assert "what full load looks like" in found.action
    assert diagnose(info).is_healthy
    assert (found.evidence.first_step, found.evidence.last_step) == (600, 1190)


def test_the_driver_s_own_counters_tell_what_samples_miss(patient: Patient) -> None:
    # Bursts of a second, each 10 s, which no sample sees.
    info = patient(
        system={"gpu.0/throttled_ms/thermal": lambda n: 1000.0 * max(0, n - 50), "gpu.0/temperature_c": 86},
    )
    found = only(info, "throttled_thermal")
    assert found.explanation.startswith("Heat held its clocks back for 69 s, 6% of the time at 86 °C in the median")
    assert found.evidence.series[0] == "system/gpu.0/throttled_ms/thermal"
    assert (found.evidence.first_step, found.evidence.last_step) == (510, 1190)


def test_counters_that_hardly_moved_outweigh_unlucky_samples(patient: Patient) -> None:
    info = patient(
        system={
            "gpu.0/throttled_ms/thermal": lambda n: 2.0 * n,
            "gpu.0/throttle/thermal": lambda n: int(n % 10 == 0),
            "gpu.0/throttled_ms/hw_thermal": 0,
        }
    )
    assert kinds(info) == []


def test_counters_go_on_over_the_lives_of_a_run(patient: Patient) -> None:
    info = patient(system={"gpu.0/throttled_ms/power_brake": lambda n: 500.0 * (n % 60)})
    assert "for 59 s, 5% of the time" in only(info, "throttled_hardware").explanation


# --- memory ---------------------------------------------------------------------------------------------------------
def test_memory_that_grows_is_told_with_the_time_that_is_left(patient: Patient) -> None:
    # 100 MiB each 10 s from 20 GiB; 128 GiB are full after about 3 h.
    info = patient(system={"process/tree_rss_bytes": lambda n: 20 * GIB + n * 100 * 2**20 + 3e7 * wave(n)})
    found = only(info, "memory_growth")
    assert found.severity is Severity.WARNING
    assert "35.2 GiB an hour lately" in found.explanation
    assert "main memory of 128.0 GiB is full in 2.7 h" in found.explanation
    assert found.evidence.series == ("system/process/tree_rss_bytes",)


def test_memory_near_its_limit_and_growing_is_critical(patient: Patient) -> None:
    info = patient(
        system={"process/tree_rss_bytes": lambda n: 20 * GIB + n * 100 * 2**20},
        environment={"cgroup.memory_limit_bytes": 32 * GIB},
    )
    assert only(info, "memory_growth").severity is Severity.CRITICAL


@pytest.mark.parametrize(
    "shape",
    [
        lambda n: 40 * GIB * min(1.0, 0.2 + n / 50),  # fills a cache, then stays
        lambda n: 20 * GIB + 5 * GIB * wave(n),  # up and down
        lambda n: 20 * GIB if n < 100 else 45 * GIB,  # one jump
        lambda n: 20 * GIB + n * 2**16,  # a little
        lambda n: 60 * GIB - n * 100 * 2**20,  # down
    ],
)
def test_memory_that_settles_or_wavers_is_fine(patient: Patient, shape: object) -> None:
    assert kinds(patient(system={"process/tree_rss_bytes": shape, "gpu.0/memory_used_bytes": shape})) == []  # type: ignore[dict-item]


def test_gpu_memory_that_grows_is_told_apart(patient: Patient) -> None:
    info = patient(system={"gpu.0/memory_used_bytes": lambda n: 10 * GIB + n * 256 * 2**20})
    found = only(info, "gpu_memory_growth")
    assert found.title == "Memory of GPU 0 grows without end"
    assert "its memory of 80.0 GiB" in found.explanation


def test_full_memory_and_kills_are_told(patient: Patient) -> None:
    info = patient(
        system={"memory/percent": lambda n: 97 if n > 90 else 60, "cgroup/oom_kills": lambda n: 2 * int(n > 100)}
    )
    assert kinds(info) == ["oom_kill", "memory_full"]
    kill = diagnose(info).findings[0]
    assert kill.severity is Severity.CRITICAL
    assert "2 kills" in kill.explanation
    assert kill.evidence.first_step == 1010


# --- others ---------------------------------------------------------------------------------------------------------
def test_other_programs_on_the_gpu_are_told(patient: Patient) -> None:
    info = patient(system={"gpu.0/other_processes": lambda n: int(n > 60) if n % 6 == 0 else None})
    found = only(info, "gpu_shared")
    assert "held about 1.0 GiB" in found.explanation
    assert found.evidence.first_step == 660


def test_the_other_ranks_of_a_job_are_not_other_programs(patient: Patient) -> None:
    info = patient(system={"gpu.0/other_processes": 1}, environment={"rank.world_size": 2})
    assert kinds(info) == []


def test_an_error_of_the_driver_is_critical(patient: Patient) -> None:
    found = only(patient(system={"gpu.0/xid": lambda n: 79 if n == 70 else None}), "gpu_error")
    assert found.title == "GPU 0 reported an error: XID 79"
    assert found.severity is Severity.CRITICAL
    assert "12 min after the start" in found.explanation


def test_a_row_that_could_not_be_remapped_is_critical(patient: Patient) -> None:
    found = only(
        patient(system={"gpu.0/row_remap_failed": lambda n: int(n >= 66) if n % 6 == 0 else None}), "gpu_error"
    )
    assert found.title == "GPU 0 reported an error: failed row remapping"
    assert found.severity is Severity.CRITICAL
    assert "The driver told it 11 min after the start" in found.explanation
    assert (found.evidence.first_step, found.evidence.last_step) == (660, 1140)
    assert kinds(patient(system={"gpu.0/row_remap_failed": 0})) == []


def test_memory_errors_of_the_run_are_told_and_older_ones_are_not(patient: Patient) -> None:
    assert only(patient(system={"gpu.0/ecc_uncorrected_errors": lambda n: 3 + int(n > 60)}), "gpu_error")
    assert kinds(patient(system={"gpu.0/ecc_uncorrected_errors": 3})) == []


def test_a_cpu_limit_that_bites_is_told(patient: Patient) -> None:
    info = patient(system={"cgroup/cpu_throttled_percent": 64}, environment={"cgroup.cpu_limit": 8.0})
    found = only(info, "cpu_limit")
    assert "64 % of the scheduler's periods" in found.explanation
    assert "limit of 8 cores" in found.explanation


def test_a_cpu_limit_that_hardly_bites_is_fine(patient: Patient) -> None:
    assert kinds(patient(system={"cgroup/cpu_throttled_percent": 3}, environment={"cgroup.cpu_limit": 8.0})) == []


def test_a_disk_that_is_full_or_stalls_is_told(patient: Patient) -> None:
    info = patient(system={"disk/store_free_bytes": lambda n: 2 * GIB - n * 2**24, "pressure/io_full_percent": 35})
    assert kinds(info) == ["disk_full", "disk_stalls"]


def test_findings_of_another_rank_name_it(patient: Patient) -> None:
    info = patient(
        system={"rank.3/gpu.0/throttle/thermal": 1, "rank.3/gpu.0/util_percent": 90}, environment={"rank.world_size": 8}
    )
    assert "throttled_thermal" in kinds(info)
    assert any(finding.title.startswith("GPU 0 of rank 3") for finding in diagnose(info).findings)
