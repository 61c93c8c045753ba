"""Waits for what an incident has started, and notes how it ended: `python -m runstone.monitoring RECORD`."""

from __future__ import annotations

import sys
from pathlib import Path

from runstone.monitoring.incidents import run_action

if __name__ == "__main__":
    sys.exit(run_action(Path(sys.argv[1])))
