"""The helper process of `ensure_sender`: `python -m runstone.sync SPOOL`."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path


def main() -> None:
    """Send the runs of one spool until the server has them."""
    spool = Path(sys.argv[1])
    with contextlib.suppress(OSError):
        os.nice(10)  # the training comes first
    from runstone.sync.client import Unreachable
    from runstone.sync.sending import send_all  # NumPy: after the priority is low
    from runstone.sync.spool import Spool

    with contextlib.suppress(Unreachable):
        send_all(Spool(spool))


if __name__ == "__main__":
    main()
