"""How a run was set up: devices, threads, workers, code, seeds, and what could not be recorded."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
from typing import Any

import pytest

import runstone
from runstone.doctor import Severity, examine, top_findings
from runstone.runinfo import RunInfo
from tests.doctor.patients import Patient, kinds, only

NEVER_USED = {"gpu.0/util_percent": 0, "gpu.0/own_memory_bytes": 0}


def test_a_gpu_that_is_never_used_is_told(patient: Patient) -> None:
    found = only(patient(system=NEVER_USED), "cpu_fallback")
    assert found.severity is Severity.WARNING
    assert "1 x NVIDIA H100" in found.explanation
    assert found.evidence.series[0] == "system/gpu.0/util_percent"


@pytest.mark.parametrize(
    "machine",
    [
        {"gpu.0/util_percent": 3},  # a small model: the process has memory on the GPU
        {"gpu.0/util_percent": 0, "gpu.0/own_memory_bytes": None, "gpu.0/memory_used_bytes": lambda n: (1 + n) << 28},
    ],
)
def test_a_gpu_that_is_used_a_little_is_not_taken_for_the_cpu(patient: Patient, machine: dict[str, Any]) -> None:
    assert "cpu_fallback" not in kinds(patient(system=machine))


def test_a_gpu_too_little_used_to_show_is_not_taken_for_the_cpu(patient: Patient) -> None:
    quiet = NEVER_USED | {"process/cpu_percent": 6}
    info = patient(system=quiet, environment={"frameworks.torch.is_cuda_initialized": True})
    assert "cpu_fallback" not in kinds(info)
    info = patient(system=quiet, environment={"frameworks.torch.is_cuda_initialized": False})
    assert "cpu_fallback" in kinds(info)


def test_a_gpu_of_which_only_a_context_was_opened_is_told(patient: Patient) -> None:
    info = patient(
        system={"gpu.0/util_percent": 0, "gpu.0/own_memory_bytes": 500 << 20, "gpu.0/memory_used_bytes": 900 << 20}
    )
    assert only(info, "cpu_fallback").severity is Severity.WARNING


def test_torch_without_cuda_beside_a_gpu_is_told(patient: Patient) -> None:
    info = patient(system=NEVER_USED, environment={"frameworks.torch.cuda": None})
    assert "was built without CUDA" in only(info, "cpu_fallback").explanation


def test_hidden_gpus_are_a_note(patient: Patient) -> None:
    info = patient(
        system={"gpu.0/util_percent": None},
        environment={"gpu.visible": [], "env.CUDA_VISIBLE_DEVICES": ""},
    )
    assert only(info, "cpu_fallback").severity is Severity.NOTE


def test_a_gpu_that_no_framework_asks_for_is_fine(patient: Patient) -> None:
    assert kinds(patient(system=NEVER_USED, environment={"frameworks.torch": None})) == []


def test_more_workers_than_cores_are_told(patient: Patient) -> None:
    info = patient(system={"cpu/percent": 99}, params={"loader": {"num_workers": 32}})
    found = only(info, "too_many_workers")
    assert found.severity is Severity.WARNING
    assert "loader.num_workers=32 is 32 workers on 16 cores; the CPU was at 99 %" in found.explanation
    assert "at most 15" in found.action


def test_workers_of_all_processes_of_a_host_count(patient: Patient) -> None:
    info = patient(params={"num_workers": 8}, environment={"rank.world_size": 4, "frameworks.torch.threads": 4})
    assert "8 in each of 4 processes is 32 workers on 16 cores" in only(info, "too_many_workers").explanation


def test_as_many_workers_as_cores_are_fine(patient: Patient) -> None:
    assert kinds(patient(params={"num_workers": 16})) == []


def test_threads_beyond_a_containers_limit_are_told(patient: Patient) -> None:
    info = patient(environment={"cgroup.cpu_limit": 4.0, "frameworks.torch.threads": 16})
    found = only(info, "too_many_threads")
    assert found.explanation == (
        "torch used 16 threads on 4 cores, to which the container is limited (the machine has 16)."
    )
    assert "OMP_NUM_THREADS=4" in found.action


def test_processes_of_a_slurm_job_are_counted_by_host(patient: Patient) -> None:
    # As Slurm's variables are kept: text.
    many = {"rank.world_size": 16, "frameworks.torch.threads": 4}
    assert kinds(patient(environment=many)) == ["too_many_threads"]
    assert kinds(patient(environment={**many, "scheduler.slurm.nodes": "4"})) == []


def test_what_was_imported_after_the_start_counts(patient: Patient) -> None:
    later = {"frameworks": {"torch": {"version": "2.9.0", "cuda": None, "hip": None}}, "why": {}}
    info = patient(
        system=NEVER_USED,
        environment={
            "frameworks": {"torch": None},
            "why": {"frameworks.torch": "absent: not imported"},
            "later": later,
        },
    )
    assert "was built without CUDA" in only(info, "cpu_fallback").explanation


def test_threads_of_several_processes_count_together(patient: Patient) -> None:
    info = patient(environment={"rank.world_size": 4, "frameworks.torch.threads": 16})
    assert "16 threads in each of 4 processes on 16 cores" in only(info, "too_many_threads").explanation


def test_uncommitted_changes_with_a_patch_are_a_note(patient: Patient) -> None:
    info = patient(
        environment={
            "git.is_dirty": True,
            "git.changed": ["a.py"],
            "git.untracked": ["out.npz"],
            "git.diff": {"is_truncated": False, "redacted_lines": 0, "omitted": ["out.npz"]},
        }
    )
    assert only(info, "code_uncommitted").severity is Severity.NOTE


@pytest.mark.parametrize(
    ("diff", "words"),
    [
        (None, "no patch of them was kept"),
        ({"omitted": ["big.py"]}, "not kept: big.py"),
        ({"is_truncated": True}, "the patch was cut"),
        ({"redacted_lines": 2}, "2 lines that looked like secrets"),
    ],
)
def test_changes_that_were_not_kept_whole_are_a_warning(patient: Patient, diff: object, words: str) -> None:
    info = patient(environment={"git.is_dirty": True, "git.changed": ["big.py"], "git.diff": diff})
    found = only(info, "code_not_kept")
    assert found.severity is Severity.WARNING
    assert words in found.explanation


def test_code_outside_git_is_a_note(patient: Patient) -> None:
    info = patient(environment={"git": None, "why": {"git": "absent: not a git repository"}})
    assert "not a git repository" in only(info, "code_unversioned").explanation


def test_packages_in_place_from_elsewhere_are_a_note(patient: Patient) -> None:
    installed = [
        {"name": "own", "version": "0", "url": "file:///home/u/p", "is_editable": True},
        {"name": "lib", "version": "0", "url": "file:///home/u/lib", "is_editable": True},
    ]
    found = only(patient(environment={"packages.installed": installed}), "packages_unpinned")
    assert found.explanation.startswith("lib (/home/u/lib):")


def test_a_seed_without_determinism_is_a_note(patient: Patient) -> None:
    off = {"frameworks.torch.is_deterministic": False, "frameworks.torch.cudnn_is_benchmarking": True}
    found = only(patient(environment=off, params={"seed": 7}), "not_deterministic")
    assert "seed=7" in found.explanation
    assert "cuDNN benchmark on" in found.explanation
    assert kinds(patient(environment=off)) == []  # no seed: nobody asked for it
    assert kinds(patient(environment={**off, "gpu.visible": []}, params={"seed": 7})) != ["not_deterministic"]


def log_many(run: runstone.Run) -> None:
    for step in range(40_000):
        run.log({"loss": 1.0}, step=step)


def test_points_that_were_dropped_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNSTONE_SPILL", "off")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a file system here")
    try:
        run = runstone.start_run(workspace=disk / "w", environment=False, on_error="warn")
        with (disk / "filler").open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        with pytest.warns(runstone.TrackingWarning):
            log_many(run)
        (disk / "filler").unlink()
        run.finish()
        found = only(RunInfo(run.path), "points_dropped")
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
    assert found.severity is Severity.WARNING
    assert found.title.endswith(" points were not recorded")


def test_what_else_could_not_be_recorded_is_a_note(home: Path) -> None:
    with runstone.start_run(workspace=home, environment=False, on_error="warn") as run:
        run.log({"loss": 1.0})
        with pytest.warns(runstone.TrackingWarning):
            run.log({"loss": object()})
    assert only(RunInfo(run.path), "recording_trouble").severity is Severity.NOTE


def test_the_worst_comes_first_and_notes_stay_out_of_the_few(patient: Patient) -> None:
    info = patient(
        system={"gpu.0/throttle/thermal": 1},
        environment={"git": None, "frameworks.torch.is_deterministic": False},
        params={"seed": 1},
        metrics={"loss": [1.0, float("nan")]},
    )
    assert [finding.severity for finding in examine(info)] == ["critical", "warning", "note", "note"]
    assert [finding.kind for finding in top_findings(info)] == ["first_nan", "throttled_thermal"]
