"""The helper process of a server: `python -m runstone.sealing WORKSPACE MINUTES PID`. It ends with the server."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path

_PARENT_EVERY_S = 1.0


def main() -> None:
    """Seal what has ended, and look again from time to time, as long as the process lives that started this one."""
    parent = int(sys.argv[3])  # told: it may be gone by now
    with contextlib.suppress(OSError):
        os.nice(10)  # whoever trains, and whoever looks, comes first
    from runstone.sealing.sealer import Sealer  # Arrow: after the priority is low

    sealer = Sealer(Path(sys.argv[1]), settle_s=60.0 * float(sys.argv[2]))
    while sealer.may_write and os.getppid() == parent:
        look_at = time.monotonic() + sealer.look()
        while time.monotonic() < look_at and os.getppid() == parent:
            time.sleep(_PARENT_EVERY_S)


if __name__ == "__main__":
    main()
