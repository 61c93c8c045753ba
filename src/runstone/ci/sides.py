"""The runs of a branch, a commit, a filter, or one run: what stands on one side of a comparison."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runstone.errors import InvalidValue, RunNotFound
from runstone.runinfo import RunInfo
from runstone.workspace import Workspace

_KINDS = ("run", "branch", "commit", "filter")
_COMMITS = 500
_MOST_RUNS = 200
_COMMIT = re.compile(r"[0-9a-f]{7,64}")


@dataclass(frozen=True, slots=True)
class Side:
    """Runs on one side.

    Attributes:
        label: What was asked for, such as `main`.
        runs: Finished ones, newest first; those of a branch are of one commit, its newest that has any.
        commit: Of that commit, where they were found by one.
    """

    label: str
    runs: tuple[RunInfo, ...]
    commit: str | None = None


def find_side(
    workspace: Workspace, text: str, *, among: str = "", checkout: Path | None = None, without: Sequence[str] = ()
) -> Side:
    """Return the runs that a text means.

    Args:
        workspace: Where the runs lie.
        text: A run (id, part of it, name), a branch, a commit, or a filter. What it is may stand before it:
            `branch:main`, `run:…`, `commit:…`, `filter:…`; else the first of these that there is.
        among: A filter that all runs must fit.
        checkout: A git checkout, whose history says which commits a branch has: CI records no branch, since it checks
            out a commit. Default: only what runs recorded.
        without: Ids of runs that are not meant.

    Raises:
        RunNotFound: there is none.
        InvalidFilter: it is a filter, and does not parse.
    """
    kind, colon, rest = text.partition(":")
    kinds = (kind,) if colon and kind in _KINDS else _KINDS
    name = rest if colon and kind in _KINDS else text
    for one in kinds:
        if one == "filter" and len(kinds) > 1 and not re.search(r"[=<>~]|\bin\b|\bhas\b", name):
            continue  # a branch without runs is no filter that does not parse
        found = _LOOK[one](_Search(workspace, among, checkout, frozenset(without)), name)
        if found is not None:
            return found
    looked = " or ".join(kinds)
    raise RunNotFound(
        f"there is no finished run for {text!r:.120} (as {looked}{f', among {among!r:.120}' if among else ''}); "
        "runs know branch and commit where their environment was recorded in a git checkout"
    )


@dataclass(frozen=True, slots=True)
class _Search:
    workspace: Workspace
    among: str
    checkout: Path | None
    without: frozenset[str]

    def runs(self, condition: str) -> list[RunInfo]:
        parts = ["status = 'finished'", f"({condition})", *([f"({self.among})"] if self.among else [])]
        table = self.workspace.runs(" and ".join(parts), limit=_MOST_RUNS)
        return [run for run in table if run.id not in self.without]

    def run(self, name: str) -> Side | None:
        try:
            run = self.workspace.run(name)
        except RunNotFound:
            return None
        return Side(run.name, (run,), commit_of(run))

    def branch(self, name: str) -> Side | None:
        recorded = self.runs(f"environment.git.branch = {quoted(name)}")
        commits = _commits(self.checkout, name)
        if commits:
            # What is in the history, too, was recorded without a branch; what is not was rebased away, or is newer.
            for begin in range(0, len(commits), 50):
                listed = ", ".join(map(quoted, commits[begin : begin + 50]))
                found = self.runs(f"environment.git.commit in ({listed})")
                for commit in commits[begin : begin + 50]:
                    if here := [run for run in found if commit_of(run) == commit]:
                        return Side(name, tuple(here), commit)
        return _newest(name, recorded)

    def commit(self, name: str) -> Side | None:
        if not _COMMIT.fullmatch(name):
            return None
        found = self.runs(f"environment.git.commit >= {quoted(name)} and environment.git.commit < {quoted(name + 'g')}")
        return _newest(name, found)

    def filter(self, condition: str) -> Side | None:
        found = self.runs(condition)
        return Side(condition, tuple(found)) if found else None


_LOOK = {"run": _Search.run, "branch": _Search.branch, "commit": _Search.commit, "filter": _Search.filter}


def _newest(label: str, runs: Sequence[RunInfo]) -> Side | None:
    """Return the runs of the commit of the newest."""
    if not runs:
        return None
    commit = commit_of(runs[0])
    return Side(label, tuple(run for run in runs if commit_of(run) == commit), commit)


def commit_of(run: RunInfo) -> str | None:
    """Return the commit that a run recorded."""
    git = (run.environment or {}).get("git")
    commit = git.get("commit") if isinstance(git, dict) else None
    return str(commit) if commit else None


def head_commit(checkout: Path) -> str:
    """Return the commit that is checked out.

    Raises:
        InvalidValue: that is no git checkout.
    """
    found = _git(checkout, "rev-parse", "HEAD")
    if not found:
        raise InvalidValue(f"{checkout} is no git checkout; say with --head which runs are meant")
    return found[0]


def _commits(checkout: Path | None, branch: str) -> list[str]:
    if checkout is None:
        return []
    for name in (f"refs/remotes/origin/{branch}", f"refs/heads/{branch}"):
        if found := _git(checkout, "rev-list", f"--max-count={_COMMITS}", name, "--"):
            return found
    return []


def _git(checkout: Path, *words: str) -> list[str]:
    program = shutil.which("git")
    if program is None:
        return []
    done = subprocess.run(
        [program, *words], cwd=checkout, capture_output=True, text=True, errors="replace", timeout=60, check=False
    )
    return done.stdout.split() if done.returncode == 0 else []


def quoted(text: str) -> str:
    """Return text as a filter has it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
