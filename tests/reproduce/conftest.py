"""A small project in git, and runs of its script."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from runstone import Workspace
from runstone.reproduce import Restored, restore
from runstone.runinfo import RunInfo

SCRIPT = """
import os, random, sys
import runstone
import helper

def main():
    seed = int(sys.argv[1])
    random.seed(seed)
    chance = random.SystemRandom() if "--noisy" in sys.argv else random
    with runstone.start_run(name=f"s{seed}", params={"seed": seed, "lr": helper.LR}) as run:
        for step in range(20):
            run.log({"loss": 1 / (step + 1) + 0.05 * chance.random(), "step_time": random.SystemRandom().random()})
        run.log({"lr": helper.LR})
        run.set_tags(data=os.environ.get("PL_GLOBAL_SEED", "unset"))

main()
"""


class Project:
    """A repository with a script, and the workspace that its runs go to."""

    def __init__(self, root: Path, home: Path) -> None:
        self.root = root
        self.home = home
        root.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")
        self.write("train.py", SCRIPT)
        self.write("helper.py", "LR = 0.1\n")
        self.commit()

    def git(self, *arguments: str) -> str:
        """Run git in it."""
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", *identity, *arguments], cwd=self.root, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def write(self, name: str, text: str) -> None:
        """Write a file of it."""
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)

    def commit(self) -> str:
        """Commit all there is, and return the commit."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message=x")
        return self.git("rev-parse", "HEAD")

    def run(self, *arguments: str, environment: Mapping[str, str] | None = None, cwd: Path | None = None) -> RunInfo:
        """Run Python with arguments, and return the run that it recorded last."""
        before = set(self.runs())
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=cwd or self.root,
            env=dict(os.environ) | {"RUNSTONE_WORKSPACE": str(self.home)} | dict(environment or {}),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        new = set(self.runs()) - before
        assert len(new) == 1
        return RunInfo(new.pop())

    def runs(self) -> list[Path]:
        """Return the folders of all runs."""
        return list(Workspace(self.home).run_folders()) if self.home.exists() else []

    def restore(self, run: RunInfo, name: str = "again", **options: object) -> Restored:
        """Restore a run into a folder beside the project."""
        return restore(run, self.root.parent / name, workspace=self.home, **options)  # type: ignore[arg-type]


def edit(run: RunInfo, **changes: Any) -> RunInfo:
    """Change the snapshot of a run, at dotted paths written with `__`."""
    file = next(run.path.glob("environment.*.json"))
    snapshot = json.loads(file.read_text())
    for path, value in changes.items():
        *outer, last = path.split("__")
        place = snapshot
        for name in outer:
            place = place[name]
        place[last] = value
    file.write_text(json.dumps(snapshot))
    return RunInfo(run.path)


def command_line(*arguments: str, cwd: Path, environment: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """Run `runstone` as a user does; return its exit code, output and messages."""
    done = subprocess.run(
        [sys.executable, "-m", "runstone.cli.main", *arguments],
        cwd=cwd,
        env=dict(os.environ) | dict(environment or {}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def project(tmp_path: Path, home: Path) -> Project:
    """Return a project with one commit."""
    return Project(tmp_path / "project", home)


@pytest.fixture
def interpreter() -> Callable[[Path], subprocess.CompletedProcess[str]]:
    """Return a function that runs a shell script with this interpreter."""

    def run(script: Path) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHON": sys.executable}
        return subprocess.run([str(script)], env=environment, capture_output=True, text=True, timeout=60, check=False)

    return run
