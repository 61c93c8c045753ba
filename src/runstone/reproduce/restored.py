"""What was made of a run so that it can be done again. Makes nothing itself."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runstone.environments import EnvironmentDiff, as_used
from runstone.reproduce.checkout import Checkout
from runstone.reproduce.packages import Packages
from runstone.reproduce.plan import seeds_of, text_of
from runstone.runinfo import RunInfo

CODE, LOCK, PLAN, README, SCRIPT = "code", "requirements.lock.txt", "reproduce.json", "README.md", "run.sh"
VENV, CONDA, DATA = ".venv", "conda-explicit.txt", "data"


@dataclass(slots=True)
class Restored:
    """A run as it can be done again.

    Attributes:
        run: The run.
        workspace: Folder of the workspace that it lies in.
        folder: What was made.
        checkout: Its code; `None` where none was recorded.
        working_folder: Where the command runs.
        words: The command line behind the interpreter; empty where it cannot be given again.
        program: Which of these words is the name of a program that lies beside the interpreter, such as `lightning`;
            `None` where none is.
        set: Variables to set.
        unset: Variables to remove.
        packages: What was installed.
        interpreter: The Python that the command runs with: this one, or that of the folder's own environment.
        data: Where the run read a dataset, and where that is here, for those that were put here.
        obstacles: Why the command cannot be run as it stands.
        lost: What could not be restored.
        notes: What was done otherwise than then.
        present: The variables of this process, before anything was loaded that sets some.
        now: How the environment of then (left) differs from this machine's (right).
    """

    run: RunInfo
    workspace: Path
    folder: Path
    checkout: Checkout | None = None
    working_folder: Path = field(default_factory=Path)
    words: tuple[str, ...] = ()
    program: int | None = None
    set: dict[str, str] = field(default_factory=dict)
    unset: tuple[str, ...] = ()
    packages: Packages = field(default_factory=Packages)
    interpreter: str = field(default_factory=lambda: sys.executable)
    data: dict[str, Path] = field(default_factory=dict)
    obstacles: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    present: Mapping[str, str] = field(default_factory=dict)
    now: EnvironmentDiff = field(default_factory=lambda: EnvironmentDiff((), ()))

    @property
    def environment(self) -> Mapping[str, Any]:
        """The snapshot of the run."""
        return as_used(self.run.environment or {})

    @property
    def command(self) -> list[str]:
        """The whole command line, with the interpreter."""
        words = list(self.words)
        if self.program is not None:
            words[self.program] = str(Path(self.interpreter).parent / words[self.program])
        return [self.interpreter, *words]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "format": 1,
            "run": {"id": self.run.id, "name": self.run.name, "project": self.run.project},
            "workspace": str(self.workspace),
            "folder": str(self.folder),
            "code": None
            if self.checkout is None
            else {
                "folder": str(self.checkout.folder),
                "commit": text_of(self.environment, "git.commit") or None,
                "source": self.checkout.source,
                "patched": self.checkout.applied,
            },
            "working_folder": str(self.working_folder),
            "interpreter": self.interpreter,
            "command": list(self.words),
            "variables": dict(self.set),
            "unset": list(self.unset),
            "data": {then: str(now) for then, now in self.data.items()},
            "datasets": [
                {"name": link.name, "version": link.version, "hash": link.hash, "role": link.role}
                for link in self.run.inputs
                if link.kind == "dataset"
            ],
            "seeds": seeds_of(self.environment, self.run.flat_params),
            "params": self.run.params,
            "artifacts": [
                {
                    "name": artifact.name,
                    "files": [
                        {"path": entry.path, "hash": entry.hash, "size_bytes": entry.size_bytes}
                        for entry in artifact.files
                    ],
                }
                for artifact in self.run.artifacts
            ],
            "obstacles": self.obstacles,
            "lost": self.lost,
            "notes": self.notes,
            "differs_now": self.now.to_dict(),
        }
