"""Checks on how the run was set up: devices, threads, workers, code, seeds, and what could not be recorded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from runstone.doctor.case import Case, NoData, Samples, called
from runstone.doctor.findings import Evidence, Finding, Severity

_GPU_FRAMEWORKS = ("torch", "jax", "tensorflow")
_LEAST_SAMPLES = 8
_SOURCE = frozenset(".py .pyx .ipynb .sh .yaml .yml .toml .cfg .ini .json .c .cc .cpp .cu .h .hpp .rs .jl .r".split())


def check_devices(case: Case) -> Iterator[Finding]:
    """A GPU that is there, and a training that runs on the CPU."""
    case.need_gpus()
    loaded = [name for name in _GPU_FRAMEWORKS if isinstance(case.env(f"frameworks.{name}"), dict)]
    if not loaded:
        raise NoData("no framework that could use a GPU was loaded when the environment was read")
    if case.used_gpus():
        return
    named = _device_names(case)
    if case.env("gpu.visible") == []:
        hidden = case.env("env.CUDA_VISIBLE_DEVICES")
        yield Finding(
            kind="cpu_fallback",
            severity=Severity.NOTE,
            title="All GPUs were hidden from the run",
            explanation=f"The machine has {named}; CUDA_VISIBLE_DEVICES={hidden!r} hides all.",
            action="Unset CUDA_VISIBLE_DEVICES if the run was meant to use a GPU.",
            evidence=case.whole_run(),
        )
        return
    torch = case.env("frameworks.torch")
    if loaded == ["torch"] and torch.get("cuda") is None and torch.get("hip") is None:
        yield Finding(
            kind="cpu_fallback",
            severity=Severity.WARNING,
            title="Trained on the CPU although a GPU is there",
            explanation=f"The machine has {named}, but torch {torch.get('version')} was built without CUDA.",
            action="Install a build of torch with CUDA: pytorch.org has the command for this driver.",
            evidence=case.whole_run("process/cpu_percent"),
        )
        return
    idle: list[Samples] = []
    for gpu in case.gpus:
        util = case.of_gpu(gpu, "util_percent")
        if util is None or len(util) < _LEAST_SAMPLES:
            return
        idle.append(util)
    if idle:
        most = max(float(util.value.max()) for util in idle)
        yield Finding(
            kind="cpu_fallback",
            severity=Severity.WARNING,
            title="Trained on the CPU although a GPU is there",
            explanation=(
                f"{called(case.gpus)} ({named}) never went above {most:.0f} % utilisation in {len(idle[0])} samples; "
                f"{' and '.join(loaded)} was loaded."
            ),
            action=(
                'Move model and batches to the GPU (.to("cuda"), accelerator="gpu"); torch.cuda.is_available() tells '
                "whether it can be used."
            ),
            evidence=idle[0].evidence(*idle[1:], case.series("process/cpu_percent")),
        )


def _device_names(case: Case) -> str:
    devices = case.env("gpu.devices")
    names = [str(device.get("name")) for device in devices if isinstance(device, dict)] if devices else []
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names)) or "a GPU"


def check_workers(case: Case) -> Iterator[Finding]:
    """Data-loader workers against cores."""
    found = [
        (name, value)
        for name, value in case.params("num_workers", "dataloader_num_workers")
        if isinstance(value, int) and not isinstance(value, bool)
    ]
    if not found or case.cores is None:
        raise NoData("the number of workers, or of cores, was not recorded")
    name, workers = max(found, key=lambda pair: pair[1])
    total = workers * case.local_processes
    if total <= case.cores:
        return
    each = f" in each of {case.local_processes} processes" if case.local_processes > 1 else ""
    load = case.series("cpu/percent")
    settled = load.settled() if load is not None else None
    is_busy = settled is not None and len(settled) >= _LEAST_SAMPLES and settled.median >= 85
    beside = f"; the CPU was at {settled.median:.0f} % in the median" if settled is not None and len(settled) else ""
    yield Finding(
        kind="too_many_workers",
        severity=Severity.WARNING if is_busy else Severity.NOTE,
        title="More data-loader workers than cores",
        explanation=f"{name}={workers}{each} is {total} workers on {case.cores:g} cores{beside}.",
        action=f"Use at most {max(1, int(case.cores // case.local_processes) - 1)}: the training needs a core too.",
        evidence=settled.evidence() if settled is not None and len(settled) else case.whole_run(),
    )


def check_threads(case: Case) -> Iterator[Finding]:
    """Threads of linear algebra against cores."""
    threads: dict[str, float] = {}
    for field in ("torch", "tensorflow"):
        value = case.number(f"frameworks.{field}.threads")
        if value:
            threads[field] = value
    pools = case.env("blas.libraries")
    for pool in pools if isinstance(pools, list) else ():
        if isinstance(pool, dict) and isinstance(pool.get("threads"), int):
            threads[str(pool.get("library") or pool.get("api"))] = pool["threads"]
    if not threads or case.cores is None:
        raise NoData("the number of threads, or of cores, was not recorded")
    name, most = max(threads.items(), key=lambda pair: pair[1])
    total = most * case.local_processes
    if total <= 1.5 * case.cores:
        return
    each = f" in each of {case.local_processes} processes" if case.local_processes > 1 else ""
    limit, throttled = case.number("cgroup.cpu_limit"), case.series("cgroup/cpu_throttled_percent")
    why = ""
    if limit and case.cores == limit:
        why = f", to which the container is limited (the machine has {case.number('cpu.logical_cores') or 0:.0f})"
    beside = f"; its threads were stopped in {throttled.median:.0f} % of periods" if throttled is not None else ""
    yield Finding(
        kind="too_many_threads",
        severity=Severity.WARNING,
        title="More compute threads than cores",
        explanation=f"{name} used {most:.0f} threads{each} on {case.cores:g} cores{why}{beside}.",
        action=(
            f"Set OMP_NUM_THREADS={max(1, int(case.cores // case.local_processes))} before Python starts: threads that "
            "take turns on a core are slower than fewer that do not."
        ),
        evidence=case.whole_run("cgroup/cpu_throttled_percent", "cpu/percent"),
    )


# --- code and seeds -------------------------------------------------------------------------------------------------
def check_code(case: Case) -> Iterator[Finding]:
    """Whether the code of the run can be had again."""
    if not case.environment:
        raise NoData("no environment was recorded")
    git = case.env("git")
    if not isinstance(git, dict):
        reason = str((case.env("why") or {}).get("git") or "not recorded").removeprefix("absent: ")
        yield Finding(
            kind="code_unversioned",
            severity=Severity.NOTE,
            title="The code was not recorded",
            explanation=f"No commit: {reason}.",
            action="Keep the code in git: then the commit and what was changed on top of it are kept with each run.",
            evidence=case.whole_run(),
        )
        return
    yield from _changes(case, git)
    yield from _editable(case, str(git.get("root") or ""))


def _changes(case: Case, git: dict[str, Any]) -> Iterator[Finding]:
    if not git.get("is_dirty"):
        return
    changed, diff = [str(path) for path in git.get("changed") or ()], git.get("diff")
    lost = []
    if not isinstance(diff, dict):
        lost.append("no patch of them was kept")
    else:
        omitted = [str(path) for path in diff.get("omitted") or ()]
        # Data and outputs that lie around untracked are no part of the code.
        omitted = [path for path in omitted if path in changed or PurePosixPath(path).suffix.lower() in _SOURCE]
        if omitted:
            lost.append(f"not kept: {', '.join(omitted[:4])}" + (", …" if len(omitted) > 4 else ""))
        if diff.get("is_truncated"):
            lost.append("the patch was cut at its largest size")
        if diff.get("redacted_lines"):
            lost.append(f"{diff['redacted_lines']} lines that looked like secrets were redacted")
    untracked = len(git.get("untracked") or ())
    counts = f"{len(changed)} changed and {untracked} untracked files on top of {str(git.get('commit'))[:12]}"
    if lost:
        yield Finding(
            kind="code_not_kept",
            severity=Severity.WARNING,
            title="Uncommitted changes were not kept whole",
            explanation=f"{counts}; {'; '.join(lost)}.",
            action="Commit before you start a run that counts.",
            evidence=case.whole_run(),
        )
    else:
        yield Finding(
            kind="code_uncommitted",
            severity=Severity.NOTE,
            title="The code had uncommitted changes",
            explanation=f"{counts}; a patch of them is kept.",
            action="`runstone reproduce` applies the patch; a commit says more to others.",
            evidence=case.whole_run(),
        )


def _editable(case: Case, root: str) -> Iterator[Finding]:
    installed = case.env("packages.installed")
    outside = [
        f"{package.get('name')} ({str(package.get('url')).removeprefix('file://')})"
        for package in (installed if isinstance(installed, list) else ())
        if isinstance(package, dict)
        and package.get("is_editable")
        and package.get("name") != "runstone"  # it decides no numbers
        and not _is_inside(str(package.get("url")), root)
    ]
    if outside:
        yield Finding(
            kind="packages_unpinned",
            severity=Severity.NOTE,
            title="Packages were installed in place from other folders",
            explanation=f"{', '.join(outside[:4])}{', …' if len(outside) > 4 else ''}: no version tells their code.",
            action="Install what a run depends on from a release or a commit: pip install git+https://…@COMMIT.",
            evidence=case.whole_run(),
        )


def _is_inside(url: str, root: str) -> bool:
    path = url.removeprefix("file://").rstrip("/")
    return bool(root) and (path == root or path.startswith(f"{root}/"))


def check_determinism(case: Case) -> Iterator[Finding]:
    """A seed, without the flags that make it count on a GPU."""
    case.need_gpus()
    torch = case.env("frameworks.torch")
    if not isinstance(torch, dict) or torch.get("cuda") is None:
        raise NoData("torch with CUDA was not loaded when the environment was read")
    if not case.env("gpu.visible"):
        raise NoData("no GPU was visible")
    seeds = [f"{name}={value}" for name, value in case.info.flat_params.items() if _is_seed(name) and value is not None]
    if case.env("env.PL_GLOBAL_SEED") is not None:
        seeds.append(f"PL_GLOBAL_SEED={case.env('env.PL_GLOBAL_SEED')}")
    if not seeds:
        raise NoData("no seed was recorded")
    if torch.get("is_deterministic"):
        return
    is_partial = torch.get("cudnn_is_deterministic") is True and not torch.get("cudnn_is_benchmarking")
    flags = [
        "deterministic algorithms off",
        "cuDNN deterministic" if torch.get("cudnn_is_deterministic") else "cuDNN not deterministic",
        "cuDNN benchmark on" if torch.get("cudnn_is_benchmarking") else "",
    ]
    yield Finding(
        kind="not_deterministic",
        severity=Severity.NOTE,
        title="A seed was set, but the GPU may still round differently each time",
        explanation=f"{', '.join(seeds[:3])}; when the environment was read: {', '.join(filter(None, flags))}.",
        action=(
            "If runs must repeat bit for bit: torch.use_deterministic_algorithms(True), CUBLAS_WORKSPACE_CONFIG=:4096:8"
            + ("" if is_partial else " and torch.backends.cudnn.benchmark = False")
            + "; it costs some speed. Else compare runs over several seeds."
        ),
        evidence=case.whole_run(),
    )


def _is_seed(name: str) -> bool:
    last = re.split(r"[./]", name.lower())[-1]
    return "seed" in re.split(r"[^a-z]+", last) or last == "random_state"


# --- recording ------------------------------------------------------------------------------------------------------
def check_recording(case: Case) -> Iterator[Finding]:
    """What could not be recorded."""
    damage = case.info.damage
    dropped, warnings = case.info.dropped, case.info.warnings[len(damage) :]
    if damage:
        yield Finding(
            kind="files_damaged",
            severity=Severity.WARNING,
            title=f"{len(damage):,} {'file' if len(damage) == 1 else 'files'} of the run cannot be read, or not whole",
            explanation="; ".join(f"{one.file} {one.reason}: {one.cost}" for one in damage[:3])
            + (" …" if len(damage) > 3 else "."),
            action="Put what is named back from a backup or another copy of the run; see to the disk of the workspace.",
            evidence=case.whole_run(),
        )
    if dropped:
        yield Finding(
            kind="points_dropped",
            severity=Severity.WARNING,
            title=f"{dropped:,} {'point was' if dropped == 1 else 'points were'} not recorded",
            explanation="They could not be written"
            + (
                f": {'; '.join(str(warning) for warning in warnings[:2])}."
                if warnings
                else "; the disk was full or failed."
            ),
            action="Curves of this run have gaps. See to the disk of the workspace before the next run.",
            evidence=_dropping(case),
        )
    elif warnings:
        yield Finding(
            kind="recording_trouble",
            severity=Severity.NOTE,
            title="Something could not be recorded",
            explanation="; ".join(str(warning) for warning in warnings[:3]) + (" …" if len(warnings) > 3 else ""),
            action="Each of these was left out of the run; all metrics that were acknowledged are there.",
            evidence=case.whole_run(),
        )


def _dropping(case: Case) -> Evidence:
    counted = case.series("runstone/dropped_points")
    window = counted.chosen(counted.value > 0) if counted is not None else None
    return window.evidence() if window is not None and len(window) else case.whole_run()
