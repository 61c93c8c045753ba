"""What was wrong with a run, as a practitioner would say it: findings, each with the evidence that shows it.

A check that lacks what it needs says so instead of guessing; what nothing shows is not found. Reads a run, writes
nothing, and starts nothing.
"""

from __future__ import annotations

from runstone.doctor.checks import Diagnosis, diagnose, examine, top_findings
from runstone.doctor.findings import Evidence, Finding, Severity

__all__ = ["Diagnosis", "Evidence", "Finding", "Severity", "diagnose", "examine", "top_findings"]
