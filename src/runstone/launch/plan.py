"""What is to be launched, and how, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from runstone.launch.command import Command
from runstone.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Plan:
    """One command that becomes a run.

    Attributes:
        command: What is run.
        workspace: Where the run goes.
        project: Group of runs that it belongs to.
        name: Any text; default two words and a number.
        group: Runs that belong together inside the project.
        tags: Short texts to find the run by.
        params: Known before the command says anything.
        takes_environment: Whether a snapshot of the machine, the packages and the code is taken.
        keeps_console: Whether what it prints goes through us; else it has our own outputs.
        interval_s: Seconds between system metrics; `None`: none.
        event_files: TensorBoard files: `auto`: those that the command writes; those below a folder; `None`: none.
        grace_s: How long the command may go on after SIGTERM, where it is asked to stop.
        on_error: `raise`: a run that cannot be recorded is not started.
    """

    command: Command
    workspace: Workspace
    project: str = "default"
    name: str | None = None
    group: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    takes_environment: bool = True
    keeps_console: bool = True
    interval_s: float | None = 10.0
    event_files: Path | Literal["auto"] | None = "auto"
    grace_s: float = 30.0
    on_error: Literal["warn", "raise"] = "warn"
