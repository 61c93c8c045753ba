"""What the user allows to be captured, and what every collector is handed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class Privacy:
    """What of a snapshot may leave this process.

    Secrets are redacted and addresses left out whatever is chosen here.

    Attributes:
        identity: User and host name as they are, as a hash that tells equal from different, or not at all.
        keep_code: Whether uncommitted changes and small untracked text files are kept as a patch.
        keep_serials: Whether serial numbers of GPUs are kept.
        keep_cells: Whether the source of executed notebook cells is kept.
    """

    identity: Literal["plain", "hashed", "off"] = "plain"
    keep_code: bool = True
    keep_serials: bool = False
    keep_cells: bool = False


def no_pause() -> None:
    """Go on at once."""


@dataclass(frozen=True, slots=True)
class Context:
    """Everything that a collector may depend on besides the machine itself.

    Attributes:
        environment: Environment variables.
        root: Where `/proc`, `/sys`, `/etc` and `/run` are looked for.
        store: Folder that the run is written to, if any.
        log_backend: `mmap` or `append`, if known.
        pause: Called between small steps, so that the program's own threads come first.
        keep_patch: Stores the patch and returns the name of its file; `None`: it is measured, not kept.
        ranks: Place in a distributed job, by the fields of the section `rank`, where it is known better than from the
            environment.
        timeout_s: What is left for subprocesses of one collector.
    """

    environment: Mapping[str, str]
    privacy: Privacy = field(default_factory=Privacy)
    root: Path = Path("/")
    store: Path | None = None
    log_backend: str | None = None
    pause: Callable[[], None] = no_pause
    keep_patch: Callable[[bytes], str] | None = None
    ranks: Mapping[str, int] | None = None
    timeout_s: float = 5.0

    @property
    def home(self) -> str | None:
        """The user's home folder, if the environment names one."""
        return self.environment.get("HOME") or None

    def text(self, path: str) -> str:
        """Return the content of a small file under `root`, such as `"proc/self/cgroup"`.

        Raises:
            OSError: it is not there, or may not be read.
        """
        with open(os.path.join(self.root, path), "rb") as file:  # noqa: PTH118, PTH123  # pathlib takes as long as the system
            return file.read(1 << 20).decode(errors="replace").strip("\0\n ")
