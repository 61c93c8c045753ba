"""Statistics of few, noisy values: what groups come down to, which is better, how sure that is. Knows no runs.

Figures come from NumPy; Student's distribution from SciPy, which the extra `compare` installs.
"""

from __future__ import annotations

from runstone.statistics.correction import CORRECTIONS, Correction, correct
from runstone.statistics.gaps import TESTS, Difference, EffectSize, Test, difference, gain_bound
from runstone.statistics.planning import more_needed, power
from runstone.statistics.sample import Interval, Summary, bca_interval, summarize
from runstone.statistics.verdict import Group, Verdict, judge

__all__ = [
    "CORRECTIONS",
    "TESTS",
    "Correction",
    "Difference",
    "EffectSize",
    "Group",
    "Interval",
    "Summary",
    "Test",
    "Verdict",
    "bca_interval",
    "correct",
    "difference",
    "gain_bound",
    "judge",
    "more_needed",
    "power",
    "summarize",
]
