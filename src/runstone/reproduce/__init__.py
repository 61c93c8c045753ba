"""Does a run again: its code, packages, command and variables in a folder; runs it there and says how it compares.

Nothing of a recording is trusted with more than it says: recorded names never become paths outside the new folder, git
runs none of a repository's own programs, no shell reads recorded text, and only `rerun` starts what was recorded.
"""

from __future__ import annotations

from runstone.reproduce.folder import Restored, restore
from runstone.reproduce.judge import Judgement, MetricJudgement, judge
from runstone.reproduce.rerun import Outcome, rerun

__all__ = ["Judgement", "MetricJudgement", "Outcome", "Restored", "judge", "rerun", "restore"]
