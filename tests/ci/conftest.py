"""A git checkout with runs of two branches, made by a program that was started in it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

TRAIN = """
import sys
import runstone

base = float(sys.argv[1])
for seed in range(int(sys.argv[2])):
    with runstone.start_run(project="credit", params={"c": base, "seed": seed}, tags={"team": "a|b"}) as run:
        for step in range(6):
            run.log({"val/auc": base - 0.3 / (step + 1) + seed * 1e-3, "train/loss": 1 / (step + 1)}, step=step)
"""


@dataclass(frozen=True)
class Repository:
    """A checkout and the workspace that its runs go to."""

    place: Path
    home: Path

    def git(self, *words: str) -> str:
        who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b.c", "GIT_COMMITTER_NAME": "a"}
        done = subprocess.run(
            ["git", *words],
            cwd=self.place,
            env={**os.environ, **who, "GIT_COMMITTER_EMAIL": "a@b.c"},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def commit(self, text: str) -> None:
        (self.place / "notes.txt").write_text(text)
        self.git("add", ".")
        self.git("commit", "-qm", text)

    def train(self, base: float, seeds: int) -> None:
        subprocess.run(
            [sys.executable, "train.py", str(base), str(seeds)],
            cwd=self.place,
            env={**os.environ, "RUNSTONE_WORKSPACE": str(self.home), "RUNSTONE_SYSTEM_METRICS": "0"},
            check=True,
            timeout=240,
        )


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """`main` with three seeds, `better` with three seeds of a better model; `better` is checked out, detached."""
    root = tmp_path_factory.mktemp("ci")
    found = Repository(root / "checkout", root / ".runstone")
    found.place.mkdir()
    found.git("init", "-qb", "main")
    (found.place / "train.py").write_text(TRAIN)
    found.commit("first")
    found.train(0.8, 3)
    found.git("checkout", "-qb", "better")
    found.commit("second")
    found.git("checkout", "-q", "--detach")
    found.train(0.9, 3)
    return found
