"""The helper process of `start_mirror`: `python -m runstone.tensorboard RUN_FOLDER LOGDIR`."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from pathlib import Path


def main() -> None:
    """Mirror one run until it has ended; what goes wrong is told in a file beside the mirrored runs."""
    run_path, logdir = Path(sys.argv[1]), Path(sys.argv[2])
    with contextlib.suppress(OSError):
        os.nice(10)  # the training comes first
    try:
        from runstone.tensorboard.mirror import mirror_until_ended  # NumPy and tensorboardX: after the priority is low

        mirror_until_ended(run_path, logdir)
    except Exception:
        with contextlib.suppress(OSError):
            logdir.mkdir(parents=True, exist_ok=True)
            (logdir / f"runstone-trouble-{run_path.name}.log").write_text(traceback.format_exc())
        sys.exit(1)


if __name__ == "__main__":
    main()
