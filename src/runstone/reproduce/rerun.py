"""Runs a restored command, as the user asked, and stores how the new run compares with the old one."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from runstone import settings
from runstone.environments import EnvironmentDiff, diff_environments, recorded_patch
from runstone.errors import InvalidValue, NotFound
from runstone.names import new_run_id
from runstone.reproduce.judge import DEFAULT_TOLERANCE, Judgement, judge
from runstone.reproduce.restored import VENV, Restored
from runstone.runinfo import RunInfo
from runstone.runlog.reader import read_journal
from runstone.values import Failure, Status
from runstone.workspace import LaunchedRun, Workspace, ensure_workspace

VERDICT, RUN_ID = "verdict.json", "RUNSTONE_RUN_ID"
_OWN_ID = re.compile(r"[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of doing a run again.

    Attributes:
        run: The new run; `None` where the command recorded nothing.
        workspace: Where the new run lies.
        exit_code: Of the command; below 0 the signal that ended it.
        verdict: Of the judgement, or `failed`.
        reason: Why it failed, in words; empty where it did not.
        judgement: Metric by metric; `None` where there was nothing to judge.
        differs: How the environment of then (left) differs from the one it ran in (right); `None` if not recorded.
    """

    run: RunInfo | None
    workspace: Path
    exit_code: int
    verdict: str
    judgement: Judgement | None
    differs: EnvironmentDiff | None
    reason: str = ""

    @property
    def is_reproduced(self) -> bool:
        """Whether every metric is equal, or within noise."""
        return self.verdict in ("equal", "within noise")

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "exit_code": self.exit_code,
            "run": None if self.run is None else {"id": self.run.id, "name": self.run.name},
            "workspace": str(self.workspace.resolve()),
            "judgement": None if self.judgement is None else self.judgement.to_dict(),
            "differs": None if self.differs is None else self.differs.to_dict(),
        }


def check_can_run(restored: Restored) -> None:
    """Raise where the command cannot be run as it was recorded.

    Raises:
        NotFound: it cannot; the message says why.
    """
    if restored.obstacles or not restored.words:
        reasons = "; ".join(restored.obstacles) or "no command was recorded"
        raise NotFound(f"run {restored.run.name!r} cannot be run again: {reasons}. {restored.folder} has what there is")


def rerun(
    restored: Restored,
    workspace: Workspace,
    *,
    tolerance: float = DEFAULT_TOLERANCE,
    output: IO[bytes] | int | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Run the command in its folder, as a new run of the workspace under the old one, and judge how it came out.

    Args:
        restored: What `restore` made; after `install`, it runs with the packages of then, else with those of now.
        workspace: The workspace of the old run; the new one is recorded there, with the old as its parent, the tag
            `reproduces`, and the verdict in the tag `reproduction`. A run whose id the program itself chose would
            go on with the old run: it is recorded in a workspace inside the folder.
        tolerance: See `judge`.
        output: Where the standard output of the commands goes; default: this process's.
        tell: Called with a line for each thing that is begun.

    Raises:
        NotFound: the command cannot be run as it was recorded.
        InvalidValue: the tolerance is no number from 0.
    """
    if not tolerance >= 0:
        raise InvalidValue(f"the tolerance is {tolerance}; it must be 0 or more")
    check_can_run(restored)
    _check_program(restored)
    attempt = _Attempt(restored, workspace)
    tell("running the command")
    with attempt:
        code = _call(restored.command, restored.working_folder, attempt.variables, output)
        attempt.note_end(code)
    found = attempt.run()
    outcome = _judged(restored, workspace, attempt.workspace, found, code, tolerance)
    (restored.folder / VERDICT).write_text(json.dumps(outcome.to_dict(), indent=2, default=str) + "\n")
    if outcome.run is not None:
        attempt.workspace.set_tags(outcome.run.id, {"reproduces": restored.run.id, "reproduction": outcome.verdict})
    return outcome


def _check_program(restored: Restored) -> None:
    """Raise where the command is a program that came with a package, and is not installed."""
    if restored.program is None or Path(restored.command[restored.program + 1]).is_file():
        return
    name, folder = restored.words[restored.program], Path(restored.interpreter).parent
    raise NotFound(
        f"run {restored.run.name!r} was started by {name}, which is not in {folder}; --install makes an environment "
        "with the packages of then"
    )


def _judged(
    restored: Restored, home: Workspace, place: Workspace, run: RunInfo | None, code: int, tolerance: float
) -> Outcome:
    if run is None:
        return Outcome(None, place.path, code, "failed", None, None, _recorded_nothing(code))
    differs = None
    if run.environment is not None:
        differs = diff_environments(
            restored.environment,
            run.environment,
            left_patch=recorded_patch(restored.run),
            right_patch=recorded_patch(run),
        )
    judgement = judge(restored.run, run, workspace=home, tolerance=tolerance)
    # A run that was meant to fail, and failed alike, is reproduced.
    is_failed = run.status is not Status.FINISHED and run.status is not restored.run.status
    if is_failed:
        said = f": {run.failure.type}: {run.failure.message}" if run.failure is not None else ""
        reason = f"the new run ended {run.status}, the old one {restored.run.status}; the command {_ended(code)}{said}"
        return Outcome(run, place.path, code, "failed", judgement, differs, reason)
    return Outcome(run, place.path, code, judgement.verdict, judgement, differs)


def _recorded_nothing(code: int) -> str:
    if code == 0:
        return "the command ended well and started no run here: does the script name a workspace of its own?"
    return f"the command {_ended(code)} before it started a run"


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with {code}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"


class _Attempt:
    """The new run, held open as its launcher while the command runs."""

    def __init__(self, restored: Restored, workspace: Workspace) -> None:
        old = restored.run
        writers = read_journal(old.path).writers
        is_free = bool(_OWN_ID.fullmatch(old.id)) or any(writer.role == "launcher" for writer in writers)
        self.workspace = workspace if is_free else ensure_workspace(restored.folder / settings.WORKSPACE_FOLDER)
        self._restored = restored
        self._launched: LaunchedRun | None = None
        self.variables = {
            name: value
            for name, value in restored.present.items()
            if name not in restored.unset and name not in settings.VARIABLES
        }
        kept = restored.present
        self.variables |= restored.set
        self.variables |= {name: kept[name] for name in ("RUNSTONE_ON_ERROR", "RUNSTONE_LOG") if name in kept}
        self._enter_environment()
        self.variables["RUNSTONE_WORKSPACE"] = str(self.workspace.path)
        self.variables["RUNSTONE_PROJECT"] = old.project
        if is_free:
            self._launched = self._launch(old)
            self.variables["RUNSTONE_RUN_ID"] = self._launched.id

    def _enter_environment(self) -> None:
        """Let programs that the command starts come from the folder's own environment, where there is one."""
        venv = self._restored.folder / VENV
        if Path(self._restored.interpreter).is_relative_to(venv):
            self.variables["VIRTUAL_ENV"] = str(venv)
            self.variables["PATH"] = os.pathsep.join(filter(None, [f"{venv}/bin", self.variables.get("PATH")]))

    def _launch(self, old: RunInfo) -> LaunchedRun:
        created = {
            "run_id": new_run_id(),
            "project": old.project,
            "name": f"{old.name} again"[:1000],
            "group": None,
            "notes": None,
            "parent": old.id,
        }
        launched = LaunchedRun(self.workspace, self.workspace.open_new_run(created, role="launcher"))
        launched.set_tags({"reproduces": old.id})
        return launched

    def __enter__(self) -> _Attempt:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if self._launched is None:
            return
        if error is not None and not self._has_joined(self._launched.path):
            self._launched.end(Status.FAILED, failure=Failure(type(error).__name__, str(error), ""))
        else:
            self._launched.close()

    def note_end(self, code: int) -> None:
        """Say how it ended, for a command that recorded nothing."""
        if self._launched is None or self._has_joined(self._launched.path):
            return
        self._launched.end(Status.FAILED, failure=Failure("NothingRecorded", _recorded_nothing(code), ""))
        self._launched = None

    def run(self) -> RunInfo | None:
        """Return the run that the command recorded, if it did."""
        if RUN_ID in self.variables:
            folder = self.workspace.find_run_folder(self.variables[RUN_ID])
            return RunInfo(folder) if folder is not None and self._has_joined(folder) else None
        found = sorted(self.workspace.run_folders(), key=lambda folder: folder.name != self._restored.run.id)
        return RunInfo(found[0]) if found else None

    @staticmethod
    def _has_joined(folder: Path) -> bool:
        return any(writer.role == "main" for writer in read_journal(folder).writers)


def _call(words: list[str], folder: Path, variables: dict[str, str], output: IO[bytes] | int | None) -> int:
    process = subprocess.Popen(words, cwd=folder, env=variables, stdin=subprocess.DEVNULL, stdout=output)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # it went to the command too, which ends its run in order
            try:
                return process.wait(30)
            except (KeyboardInterrupt, subprocess.TimeoutExpired):
                process.kill()
