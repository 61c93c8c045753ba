"""All checks, and what comes of them together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from runstone.doctor import clocks, machine, setup, training
from runstone.doctor.case import Case, NoData
from runstone.doctor.findings import Finding, Severity
from runstone.runinfo import RunInfo

_WORST_FIRST = (Severity.CRITICAL, Severity.WARNING, Severity.NOTE)
# What a check looks at, in words, and the check; of findings that matter alike, the earlier ones come first.
_CHECKS: dict[str, Callable[[Case], Iterator[Finding]]] = {
    "NaN and Inf": training.check_numbers,
    "runaway losses": training.check_divergence,
    "memory": machine.check_memory,
    "GPU errors": machine.check_gpu_errors,
    "training on the CPU": setup.check_devices,
    "waiting for data": machine.check_input,
    "throttled clocks": clocks.check_throttling,
    "other programs on the GPU": machine.check_neighbours,
    "CPU limit": machine.check_cpu_limit,
    "compute threads": setup.check_threads,
    "data-loader workers": setup.check_workers,
    "disks": machine.check_disk,
    "recording": setup.check_recording,
    "idle GPUs": machine.check_idle_gpus,
    "determinism": setup.check_determinism,
    "code": setup.check_code,
}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What all checks say of a run.

    Attributes:
        findings: The worst first.
        checked: What was looked at.
        not_checked: What could not be looked at, and why.
    """

    findings: tuple[Finding, ...]
    checked: tuple[str, ...]
    not_checked: dict[str, str]

    @property
    def is_healthy(self) -> bool:
        """Whether there is nothing beyond notes."""
        return all(finding.severity is Severity.NOTE for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "is_healthy": self.is_healthy,
            "findings": [finding.to_dict() for finding in self.findings],
            "checked": list(self.checked),
            "not_checked": self.not_checked,
        }


def diagnose(info: RunInfo) -> Diagnosis:
    """Look at a run, ended or not, with all checks."""
    case = Case(info)
    findings: list[Finding] = []
    checked, not_checked = [], {}
    for name, check in _CHECKS.items():
        try:
            findings += check(case)
        except NoData as missing:
            not_checked[name] = str(missing)
        else:
            checked.append(name)
    findings.sort(key=lambda finding: _WORST_FIRST.index(finding.severity))  # stable: else in the order of the checks
    return Diagnosis(tuple(findings), tuple(checked), not_checked)


def examine(info: RunInfo) -> list[Finding]:
    """Return what is wrong with a run, the worst first; nothing where nothing shows it.

    Args:
        info: The run, as `Workspace.run` returns it; it may still be running.
    """
    return list(diagnose(info).findings)


def top_findings(info: RunInfo, *, most: int = 3) -> list[Finding]:
    """Return the few findings worth a line at the end of a run: no notes. Reads the run's files only."""
    return [finding for finding in examine(info) if finding.severity is not Severity.NOTE][:most]
