"""Checks on what the machine did: GPUs but their clocks, CPU, memory, disks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from runstone.doctor.case import Case, Gpu, NoData, Samples, called, growth_per_s, longest
from runstone.doctor.findings import Finding, Severity
from runstone.doctor.words import bytes_text, time_text

# So many samples are needed before a share of them means anything.
_LEAST_SAMPLES = 8
# A GPU below this in the median waits for something; one below the lower mark is hardly used.
_WAITING_UTIL, _IDLE_UTIL = 60.0, 30.0
_BUSY_CPU, _BUSY_CORE, _SLOW_DISK = 85.0, 90.0, 15.0
_MIB, _GIB = 1 << 20, 1 << 30


def check_input(case: Case) -> Iterator[Finding]:
    """GPUs that wait for data."""
    waiting: dict[Gpu, Samples] = {}
    for gpu in _with_util(case):
        util = _settled(case.of_gpu(gpu, "util_percent"))
        if util is not None and util.median < _WAITING_UTIL:
            waiting[gpu] = util
    if not waiting:
        return
    util = next(iter(waiting.values()))
    shown = " and ".join(f"{samples.median:.0f} %" for samples in list(waiting.values())[:1])
    low = f"{called(waiting)} at {shown} utilisation in the median over {time_text(util.span_s)}"
    busy = _what_is_busy(case, util)
    if busy is not None:
        why, samples, cause = busy
        yield Finding(
            kind="input_bound",
            severity=Severity.WARNING,
            title=f"{called(waiting)} waited for data",
            explanation=f"{low}, while {why}.",
            action=cause + _workers_hint(case),
            evidence=util.evidence(samples),
        )
    elif util.median < _IDLE_UTIL:
        yield Finding(
            kind="gpu_underused",
            severity=Severity.NOTE,
            title=f"{called(waiting)} was hardly used" if len(waiting) == 1 else f"{called(waiting)} were hardly used",
            explanation=f"{low}; neither CPU nor disk was at its limit meanwhile.",
            action=(
                "Try a larger batch, look for synchronisation in the loop (.item(), .cpu(), printing each step), and "
                "profile a few steps; a small model may simply not fill this GPU." + _workers_hint(case)
            ),
            evidence=util.evidence(),
        )


def _with_util(case: Case) -> list[Gpu]:
    case.need_gpus()
    gpus = case.used_gpus()
    if not gpus:
        raise NoData("no GPU did anything, or its utilisation was not recorded")
    return gpus


def _settled(samples: Samples | None) -> Samples | None:
    settled = samples.settled() if samples is not None else None
    return settled if settled is not None and len(settled) >= _LEAST_SAMPLES else None


def _what_is_busy(case: Case, util: Samples) -> tuple[str, Samples, str] | None:
    """Return what was at its limit while the GPU waited: in words, the series, and what to do."""
    low = util.at_s[util.value < _WAITING_UTIL]

    def meanwhile(field: str) -> tuple[Samples, float] | None:
        samples = case.series(field)
        return (samples, float(np.median(samples.at(low)))) if samples is not None and len(low) else None

    for field, name in (("cpu/iowait_percent", "of CPU time waited for a disk"), ("pressure/io_full_percent", "")):
        found = meanwhile(field)
        if found is not None and found[1] >= _SLOW_DISK:
            words = name or "of the time everything waited for a disk"
            return (
                f"{found[1]:.0f} % {words}",
                found[0],
                "The data comes too slowly from storage: copy it to a local disk, pack small files into large ones, or "
                "cache it in memory.",
            )
    found = meanwhile("cpu/percent")
    if found is not None and found[1] >= _BUSY_CPU:
        cores = f" of {case.cores:g} cores" if case.cores else ""
        return (
            f"the CPU was at {found[1]:.0f} %{cores}",
            found[0],
            "Preparing the data takes all CPU there is: decode and augment less per step, augment on the GPU, store "
            "the data prepared, or ask for more cores.",
        )
    own, core = meanwhile("process/cpu_percent"), meanwhile("cpu/busiest_core_percent")
    many = case.cores is None or case.cores >= 2
    if many and own is not None and core is not None and 70 <= own[1] <= 130 and core[1] >= _BUSY_CORE:
        return (
            f"one core was at {core[1]:.0f} % and the run used {own[1] / 100:.1f} cores in all",
            core[0],
            "One Python process prepares the data or launches the kernels: give the data loader workers, and try "
            "torch.compile or larger batches if it already has them.",
        )
    return None


def _workers_hint(case: Case) -> str:
    for name, value in case.params("num_workers", "dataloader_num_workers", "n_workers", "workers"):
        if isinstance(value, int) and not isinstance(value, bool):
            children = case.series("process/children")
            beside = f", {children.median:.0f} child processes ran" if children is not None else ""
            return f" It ran with {name}={value}{beside}; {case.cores:g} cores were there." if case.cores else ""
    return ""


def check_idle_gpus(case: Case) -> Iterator[Finding]:
    """GPUs beside those that worked."""
    used = _with_util(case)
    unused = {
        gpu: util
        for gpu in case.gpus
        if gpu not in used
        and (util := case.of_gpu(gpu, "util_percent")) is not None
        and len(util) >= _LEAST_SAMPLES
        and util.value.max() <= 1
    }
    if unused:
        util = next(iter(unused.values()))
        yield Finding(
            kind="idle_gpu",
            severity=Severity.NOTE,
            title=f"{called(unused)} did nothing",
            explanation=(
                f"{len(used)} of {len(used) + len(unused)} visible GPUs worked; the others stayed at "
                f"{util.value.max():.0f} % for {time_text(util.span_s)}."
            ),
            action="Use them (devices=, torchrun --nproc-per-node), or ask for fewer; CUDA_VISIBLE_DEVICES hides them.",
            evidence=util.evidence(),
        )


# --- memory ---------------------------------------------------------------------------------------------------------
def check_memory(case: Case) -> Iterator[Finding]:
    """Memory that grows towards its limit, is full, or made the kernel kill."""
    kills = case.series("cgroup/oom_kills")
    if kills is not None and kills.value.max() > 0:
        window = kills.chosen(kills.value > 0)
        yield Finding(
            kind="oom_kill",
            severity=Severity.CRITICAL,
            title="The kernel killed processes for want of memory",
            explanation=f"{kills.value.max():.0f} kills in the run's control group, the first {_when(window)}.",
            action="Use fewer data-loader workers, or ask for more memory; a killed worker loses its batches.",
            evidence=window.evidence(case.series("memory/percent")),
        )
    has_looked = False
    for rank in case.ranks("process/tree_rss_bytes"):
        used, limit = case.series("process/tree_rss_bytes", rank), _memory_limit(case)
        if used is not None and limit:
            has_looked = True
            of = f" of rank {rank}" if rank else ""
            yield from _growth(used, limit, "memory_growth", f"Memory{of}", "main memory", _LEAK_ADVICE)
    for gpu in case.gpus:
        used, share = case.of_gpu(gpu, "memory_used_bytes"), case.of_gpu(gpu, "memory_percent")
        limit = case.device(gpu, "memory_bytes")
        if not limit and used is not None and share is not None and share.value[-1] > 0:
            limit = 100 * float(used.value[-1]) / float(share.value[-1])
        if used is not None and limit:
            has_looked = True
            yield from _growth(
                used, limit, "gpu_memory_growth", f"Memory of {called([gpu])}", "its memory", _GPU_ADVICE
            )
    share = case.series("memory/percent")
    if share is not None and len(share) >= 3:
        has_looked = True
        full = longest(share, lambda value: value >= 95)
        if len(full) >= 3:
            yield Finding(
                kind="memory_full",
                severity=Severity.WARNING,
                title="Memory was nearly full",
                explanation=f"{full.value.max():.0f} % of what there is, above 95 % for {time_text(full.span_s)}.",
                action="Use fewer data-loader workers or a smaller prefetch, or ask for more memory.",
                evidence=full.evidence(case.series("memory/limit_bytes")),
            )
    if not has_looked and kills is None:
        raise NoData("memory was not recorded")


_LEAK_ADVICE = (
    "Something is kept that should be let go: look for lists that collect tensors or losses (append(loss) without "
    ".item() keeps the whole graph), caches without bound, and Python lists in datasets with forked workers."
)
_GPU_ADVICE = (
    "Something on the GPU is kept from step to step: losses or outputs that are collected without .detach(), a graph "
    "that is retained, or inputs that get longer; torch.cuda.memory_snapshot() shows who holds it."
)


def _memory_limit(case: Case) -> float | None:
    known = [case.number("cgroup.memory_limit_bytes"), case.number("memory.total_bytes")]
    for field in ("memory/limit_bytes", "memory/machine_total_bytes"):
        samples = case.series(field)
        known.append(float(samples.value[-1]) if samples is not None else None)
    found = [value for value in known if value]
    return min(found) if found else None


def _growth(used: Samples, limit: float, kind: str, what: str, of: str, advice: str) -> Iterator[Finding]:
    settled = used.settled()
    if len(settled) < 2 * _LEAST_SAMPLES:
        return
    slope, rising = growth_per_s(settled)
    late = settled.chosen(settled.at_s >= settled.at_s[0] + settled.span_s / 2)
    late_slope, late_rising = growth_per_s(late)
    grown = slope * settled.span_s
    is_steady = rising >= 0.75 and late_rising >= 0.7 and late_slope >= slope / 3
    if not is_steady or grown < max(0.02 * limit, 0.1 * float(settled.value[0]), 64 * _MIB):
        return
    last = float(settled.value[-1])
    left_s = max(0.0, limit - last) / late_slope
    is_close = left_s < 3600 or last > 0.9 * limit
    yield Finding(
        kind=kind,
        severity=Severity.CRITICAL if is_close else Severity.WARNING,
        title=f"{what} grows without end",
        explanation=(
            f"From {bytes_text(float(settled.value[0]))} to {bytes_text(last)} in {time_text(settled.span_s)}, "
            f"{bytes_text(late_slope * 3600)} an hour lately; at this pace {of} of {bytes_text(limit)} is full in "
            f"{time_text(left_s)}."
        ),
        action=advice,
        evidence=settled.evidence(),
    )


# --- who else, disks, errors ----------------------------------------------------------------------------------------
def check_neighbours(case: Case) -> Iterator[Finding]:
    """Other programs on the run's GPUs."""
    case.need_gpus()
    if case.local_processes > 1:
        raise NoData("the job has several processes, which cannot be told from other programs")
    found = [(gpu, others) for gpu in case.gpus if (others := case.of_gpu(gpu, "other_processes")) is not None]
    if not found:
        raise NoData("the processes on the GPUs were not recorded")
    for gpu, others in found:
        window = others.chosen(others.value > 0)
        share = len(window) / len(others)
        if len(window) < 2 or share < 0.2:
            continue
        used, own = case.of_gpu(gpu, "memory_used_bytes"), case.of_gpu(gpu, "own_memory_bytes")
        taken = ""
        if used is not None and own is not None:
            theirs = float(np.median(used.at(window.at_s) - own.at(window.at_s)))
            taken = f" and held about {bytes_text(theirs)}" if theirs > 0 else ""
        count = int(window.value.max())
        yield Finding(
            kind="gpu_shared",
            severity=Severity.WARNING,
            title=f"{called([gpu])} was shared with other programs",
            explanation=(
                f"{count} other process{'es' if count > 1 else ''} computed on it in {share:.0%} of "
                f"{len(others)} samples{taken}; times of this run cannot be compared with those of others."
            ),
            action="Find them with nvidia-smi, end what was left behind, or choose another GPU.",
            evidence=window.evidence(used),
        )


_TOLD_ERRORS = {
    "xid": "XID",
    "row_remap_failed": "failed row remapping",
    "ecc_uncorrected_errors": "memory errors that could not be corrected",
}


def check_gpu_errors(case: Case) -> Iterator[Finding]:
    """Errors that the driver told."""
    case.need_gpus()
    if not case.gpus:
        raise NoData("nothing of the GPUs was recorded")
    for gpu in case.gpus:
        for field, what in _TOLD_ERRORS.items():
            told = case.of_gpu(gpu, field)
            # Memory errors are counted since the driver was loaded: those from before the run are not its own.
            before = float(told.value[0]) if told is not None and field == "ecc_uncorrected_errors" else 0.0
            window = told.chosen(told.value > before) if told is not None else None
            if window is not None and len(window):
                number = f" {window.value[0]:.0f}" if field == "xid" else ""
                yield Finding(
                    kind="gpu_error",
                    severity=Severity.CRITICAL,
                    title=f"{called([gpu])} reported an error: {what}{number}",
                    explanation=f"The driver told it {_when(window)}, {len(window)} times in all.",
                    action=(
                        "NVIDIA's list of XIDs says what it means: 13, 31 and 43 are often a fault of the program, "
                        "48, 63, 64, 74, 79, 94 and 95 of the hardware. If it comes again, take the GPU out of use."
                    ),
                    evidence=window.evidence(),
                )


def check_cpu_limit(case: Case) -> Iterator[Finding]:
    """A container's CPU limit that held the run back."""
    throttled = _settled(case.series("cgroup/cpu_throttled_percent"))
    if throttled is None:
        raise NoData("no CPU limit is set, or its throttling was not recorded")
    if throttled.median >= 20:
        limit = case.number("cgroup.cpu_limit")
        yield Finding(
            kind="cpu_limit",
            severity=Severity.WARNING,
            title="The container's CPU limit slowed the run down",
            explanation=(
                f"In {throttled.median:.0f} % of the scheduler's periods, in the median, all threads were stopped: the "
                f"limit{f' of {limit:g} cores' if limit else ''} was used up."
            ),
            action="Run fewer threads and workers than the limit has cores, or ask for more cores.",
            evidence=throttled.evidence(case.series("cpu/percent")),
        )


def check_disk(case: Case) -> Iterator[Finding]:
    """A disk that fills up, or that everything waits for."""
    free, share = case.series("disk/store_free_bytes"), case.series("disk/store_percent")
    stalled = _settled(case.series("pressure/io_full_percent"))
    if free is None and stalled is None:
        raise NoData("disks were not recorded")
    if free is not None:
        last, used = float(free.value[-1]), float(share.value[-1]) if share is not None else 0.0
        if last < _GIB or used > 98:
            yield Finding(
                kind="disk_full",
                severity=Severity.WARNING,
                title="The disk of the runs is nearly full",
                explanation=f"{bytes_text(last)} were free at the end{f', {used:.0f} % used' if used else ''}.",
                action="Make room: old checkpoints, `runstone seal` for ended runs. What cannot be written is lost.",
                evidence=free.evidence(share),
            )
    if stalled is not None and stalled.median >= 20:
        yield Finding(
            kind="disk_stalls",
            severity=Severity.WARNING,
            title="Everything waited for a disk",
            explanation=f"{stalled.median:.0f} % of the time, in the median, no task could go on for want of a disk.",
            action="Read data from a local disk, in large files; write checkpoints less often or in the background.",
            evidence=stalled.evidence(),
        )


def _when(window: Samples) -> str:
    return f"{time_text(float(window.at_s[0]))} after the start"
