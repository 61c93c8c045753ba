"""After training: whether what a model sees is still what it was made with, and what is done when it is not.

A version keeps the profile of its data. `check` compares a batch with it and gives a verdict with reasons; a bad one
opens an incident on the version, and starts what `monitoring.yaml` says; the incident closes when a version that was
trained for it comes into use. Statistics come from SciPy and scikit-learn, which the extra `monitoring` installs.
"""

from __future__ import annotations

from runstone.monitoring.batches import Batch
from runstone.monitoring.configfile import Watching, read_watching
from runstone.monitoring.front import Outcome, check, compare
from runstone.monitoring.incidents import actions_of
from runstone.monitoring.profile import Column, Performance, Profile
from runstone.monitoring.profiling import profile_rows
from runstone.monitoring.records import Check, checks_of, read_batch, read_report
from runstone.monitoring.reference import NoProfile, Reference, profile_of, set_profile
from runstone.monitoring.report import LEVELS, FeatureReport, Reason, Report, Thresholds
from runstone.monitoring.standing import Standing, standings
from runstone.monitoring.watching import FolderWatch

__all__ = [
    "LEVELS",
    "Batch",
    "Check",
    "Column",
    "FeatureReport",
    "FolderWatch",
    "NoProfile",
    "Outcome",
    "Performance",
    "Profile",
    "Reason",
    "Reference",
    "Report",
    "Standing",
    "Thresholds",
    "Watching",
    "actions_of",
    "check",
    "checks_of",
    "compare",
    "profile_of",
    "profile_rows",
    "read_batch",
    "read_report",
    "read_watching",
    "set_profile",
    "standings",
]
