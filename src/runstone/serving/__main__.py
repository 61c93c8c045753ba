"""One of several processes that serve a model: `python -m runstone.serving`, told what to do on standard input."""

from __future__ import annotations

import json
import sys

from runstone.errors import RunstoneError
from runstone.serving.process import run_worker


def main() -> int:
    """Serve, and return the exit code."""
    try:
        run_worker(json.load(sys.stdin))
    except RunstoneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
