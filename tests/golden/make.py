"""Writes the golden workspace of this version's format: `python tests/golden/make.py FOLDER`.

Run it once for a release that changes a format, commit the folder, and never change a committed one.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
from pathlib import Path

import runstone
from runstone.runlog.seal import seal


def make(home: Path) -> None:
    """Write runs of each kind: plain, resumed, failed, crashed, sealed, deleted."""
    with runstone.start_run(
        workspace=home,
        project="golden ✓/../x",
        name="plain, with 'quotes' and emoji 🎯",
        run_id="plain",
        params={"lr": 0.1, "nested": {"layers": [64, 32], "gap": math.nan}, "$odd": {"$float": "text"}},
        tags={"kind": "plain", "with space": "ü"},
        group="g",
        notes="Two\nlines.",
        environment=False,
    ) as run:
        for step in range(5):
            run.log({"loss": 1 / (step + 1), "epoch": step, "is_best": step == 4, "a/b c": math.inf}, step=step)
        run.log({"loss": math.nan, "big": 2**53 + 1}, step=-3)
        run.log({"phase": "warm-up"}, step=0)
        run.log_histogram("weights", [0.0, 0.5, 1.0, math.nan], bins=2, step=1)
        run.log_text("sample", "long " * 20_000, step=2)
        file = home.parent / "artifact.txt"
        file.write_text("content\n")
        run.log_artifact(file, name="notes", metadata={"kind": "text"})
        file.unlink()
    for first in (0, 3):
        with runstone.start_run(workspace=home, project="p", run_id="resumed", environment=False) as run:
            if first:
                run.rewind(first)
            for step in range(first, first + 5):
                run.log({"loss": float(step + 10 * first)}, step=step)
    run = runstone.start_run(workspace=home, project="p", run_id="failed", environment=False)
    run.log({"loss": 1.0})
    run.fail(ValueError("bad input"))  # not raised: a traceback would name the folders of whoever ran this
    run.finish()
    pid = os.fork()
    if pid == 0:
        run = runstone.start_run(workspace=home, project="p", run_id="crashed", environment=False)
        run.log({"loss": 2.0}, step=7)
        os._exit(9)
    os.waitpid(pid, 0)
    with runstone.start_run(workspace=home, project="p", run_id="sealed", environment=False) as run:
        for step in range(100):
            run.log({"loss": step / 3, "n": step}, step=step)
    seal(run.path)
    with runstone.start_run(workspace=home, project="p", run_id="deleted", environment=False) as run:
        run.log({"loss": 3.0})
    runstone.Workspace(home).delete("deleted")


def main() -> None:
    home = Path(sys.argv[1]).absolute()
    if home.exists():
        shutil.rmtree(home)
    make(home)
    # Reserved slots are zeros; what is kept in version control ends with the last point.
    for path in home.rglob("*.wal"):
        data = path.read_bytes().rstrip(b"\0")
        path.write_bytes(data + bytes(-len(data) % 32))
    for path in home.glob("index.sqlite*"):
        path.unlink()
    (home / ".gitignore").unlink()


if __name__ == "__main__":
    main()
