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

    def tell(trouble: str) -> None:
        with contextlib.suppress(OSError):
            logdir.mkdir(parents=True, exist_ok=True)
            with (logdir / f"runstone-trouble-{run_path.name}.log").open("a", errors="replace") as file:
                file.write(f"{trouble}\n")

    with contextlib.suppress(OSError):
        os.nice(10)  # the training comes first
    try:
        from runstone.tensorboard.mirror import mirror_until_ended  # NumPy and tensorboardX: after the priority is low

        mirror_until_ended(run_path, logdir, tell=tell)
    except Exception:
        tell(traceback.format_exc())
        sys.exit(1)


if __name__ == "__main__":
    main()
