"""What a check finds, as a value."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """How much a finding matters."""

    CRITICAL = "critical"
    """The result is worthless, or the run died of it, or will."""
    WARNING = "warning"
    """It cost time or accuracy, or makes the run hard to repeat."""
    NOTE = "note"
    """Worth knowing."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where to look.

    Attributes:
        series: Metrics that show it; empty where the environment or the journal does: then the window is the whole run.
        first_step, last_step: The window, in steps of the first of them; system metrics count seconds since the start.
        first_s, last_s: The same window in seconds since the run started.
    """

    series: tuple[str, ...] = ()
    first_step: int | None = None
    last_step: int | None = None
    first_s: float | None = None
    last_s: float | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        kind: A word for programs, such as `input_bound`; docs/doctor.md lists them.
        title: One line.
        explanation: What shows it, with the numbers.
        action: What to do.
    """

    kind: str
    severity: Severity
    title: str
    explanation: str
    action: str
    evidence: Evidence

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)
