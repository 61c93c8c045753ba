"""The helper process of `start_watch`: `python -m runstone.alerts RUN_FOLDER`, rules as JSON on its standard input."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path


def main() -> None:
    """Watch one run until it has ended."""
    run_path, raw = Path(sys.argv[1]), json.load(sys.stdin)
    with contextlib.suppress(OSError):
        os.nice(10)  # the training comes first
    from runstone.alerts.rules import parse_alerting
    from runstone.alerts.watcher import watch_until_ended  # NumPy: after the priority is low
    from runstone.errors import RunNotFound

    with contextlib.suppress(RunNotFound):
        watch_until_ended(run_path, parse_alerting(raw))


if __name__ == "__main__":
    main()
