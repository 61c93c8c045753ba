"""Does a run again: its code, packages, command and variables in a folder; runs it there and says how it compares.

Nothing of a recording is trusted with more than it says: recorded names never become paths outside the new folder, git
runs none of a repository's own programs, no shell reads recorded text, and only `rerun` starts what was recorded.
`install` runs pip, and pip what packages bring.
"""

from __future__ import annotations

from runstone.reproduce.folder import restore
from runstone.reproduce.install import install
from runstone.reproduce.judge import Judgement, MetricJudgement, judge
from runstone.reproduce.rerun import Outcome, rerun
from runstone.reproduce.restored import Restored

__all__ = ["Judgement", "MetricJudgement", "Outcome", "Restored", "install", "judge", "rerun", "restore"]
