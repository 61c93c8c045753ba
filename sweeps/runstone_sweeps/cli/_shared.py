"""What the commands of `sweep` share: options, and which sweep is meant."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console

from runstone import NotFound, Workspace

if TYPE_CHECKING:
    from runstone_sweeps.record import SweepRecord, TrialRecord
    from runstone_sweeps.store import SweepFolder

F = TypeVar("F", bound=Callable[..., Any])
INTERRUPTED = 130


class DurationType(click.ParamType[float]):
    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds."""
        from runstone_sweeps.config import parse_duration

        try:
            seconds = float(str(parse_duration(value)))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if seconds <= 0:
            self.fail(f"is {value}; it must be above 0", param, ctx)
        return seconds


def workspace_option(command: F) -> F:
    return click.option(
        "--workspace",
        "workspace_path",
        metavar="FOLDER",
        help="The workspace; default RUNSTONE_WORKSPACE, or the nearest .runstone here or above.",
    )(command)


def budget_options(command: F) -> F:
    command = click.option("--trials", type=click.IntRange(1), help="Trials in all.")(command)
    command = click.option("--parallel", type=click.IntRange(1, 1024), help="Trials at once.")(command)
    return click.option("--timeout", type=DurationType(), help="Time at work in all, such as 90s, 10m, 1h30m.")(command)


def find_sweep(workspace: Workspace, reference: str) -> SweepFolder:
    """Return the sweep that an id, a part of one or a name means."""
    from runstone_sweeps.store import Sweeps

    return Sweeps(workspace).find(reference)


def status_of(folder: SweepFolder, record: SweepRecord) -> str:
    """Return where a sweep stands, in a word or two."""
    from runstone_sweeps.store import status_of

    return status_of(folder, record)


def make_console() -> Console:
    console = Console(highlight=False, markup=False, emoji=False)
    # A pipe has no width: let no table be cut to 80 columns.
    return console if console.is_terminal else Console(highlight=False, markup=False, emoji=False, width=200)


def find_trial(record: SweepRecord, number: int | None) -> TrialRecord:
    """Return a trial by its number, or the best one.

    Raises:
        NotFound: there is no such trial, or none is complete and keeps the constraints.
    """
    if number is not None and number not in record.trials:
        raise NotFound(f"sweep {record.name} has no trial {number}; it has {len(record.trials)}, counted from 0")
    found = record.best if number is None else record.trials[number]
    if found is None:
        broken = any(not one.is_feasible for one in record.trials.values())
        why = "each complete trial breaks a constraint" if broken else "no trial is complete yet"
        raise NotFound(f"sweep {record.name} has no best trial: {why}")
    return found
