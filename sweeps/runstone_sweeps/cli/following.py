"""`sweep status` and `sweep logs`: how a sweep comes along, and what a trial prints."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.text import Text

from runstone import NotFound, Workspace, open_workspace
from runstone_sweeps.cli._shared import find_sweep, make_console, status_of, workspace_option

if TYPE_CHECKING:
    from runstone_sweeps.record import RunRecord, SweepRecord, TrialRecord
    from runstone_sweeps.store import SweepFolder

_LOOK_S = 0.2
_NO_LIMIT = 100_000


@click.command("status")
@click.argument("sweep")
@workspace_option
def status_command(sweep: str, workspace_path: str | None) -> None:
    """Show how SWEEP comes along: what runs, the best so far, what is used of its budget, and when it ends."""
    from runstone_sweeps.results.text import clean
    from runstone_sweeps.store import recorded_spec
    from runstone_sweeps.terminal.lines import print_line
    from runstone_sweeps.terminal.panel import Panel, rows_of

    folder = find_sweep(open_workspace(workspace_path), sweep)
    record = folder.read()
    console = make_console()
    line = Text(f"sweep {clean(record.name)}", style="bold")
    line.append(f"  {folder.id}  {status_of(folder, record)}", style="dim")
    print_line(console, line)
    rows = rows_of(record) if folder.is_running else []
    panel = Panel(record, recorded_spec(record, is_for_reading=True))
    console.print(panel.draw(record, rows, width=console.width, height=_NO_LIMIT))


@click.command("logs")
@click.argument("sweep")
@click.argument("trial", type=click.IntRange(0))
@click.option("-f", "--follow", "is_followed", is_flag=True, help="Go on until the trial has ended.")
@click.option("--attempt", type=click.IntRange(1), help="Which start of the trial; default the last.")
@click.option("--replicate", type=click.IntRange(0), default=0, show_default=True, help="Which of its runs.")
@workspace_option
def logs_command(
    sweep: str, trial: int, is_followed: bool, attempt: int | None, replicate: int, workspace_path: str | None
) -> None:
    """Show what TRIAL of SWEEP printed."""
    workspace = open_workspace(workspace_path)
    folder = find_sweep(workspace, sweep)
    record = folder.read()
    run = _run_of(record, trial, replicate)
    path = _console_of(workspace, run, attempt)
    while path is None and is_followed and not _has_ended(folder, trial, replicate):
        time.sleep(_LOOK_S)
        path = _console_of(workspace, run, attempt)
    if path is None:
        which = f"attempt {attempt} of trial {trial}" if attempt else f"trial {trial}"
        raise NotFound(f"{which} has printed nothing: it is {record.trials[trial].state}")
    with path.open("rb") as file:
        is_last = False
        while True:
            data = file.read()
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            if not is_followed or (is_last and not data):
                return
            # What is printed between the look and the end is read in one more round.
            is_last = _has_ended(folder, trial, replicate)
            if not data and not is_last:
                time.sleep(_LOOK_S)


def _run_of(record: SweepRecord, number: int, replicate: int) -> RunRecord:
    trial: TrialRecord | None = record.trials.get(number)
    if trial is None:
        raise NotFound(f"sweep {record.name} has no trial {number}; it has {len(record.trials)}, counted from 0")
    if replicate >= len(trial.runs):
        raise NotFound(f"trial {number} has no run {replicate}; it has {len(trial.runs)}, counted from 0")
    return trial.runs[replicate]


def _console_of(workspace: Workspace, run: RunRecord, attempt: int | None) -> Path | None:
    """Return the file of what an attempt of a run printed, if there is one."""
    folder = workspace.find_run_folder(run.run_id)
    if folder is None:
        return None
    files = {int(path.name.split(".")[1]): path for path in folder.glob("console.*.log")}
    return files.get(attempt) if attempt is not None else files[max(files)] if files else None


def _has_ended(folder: SweepFolder, number: int, replicate: int) -> bool:
    """Return whether nothing more comes from a trial: it has ended, or nobody runs the sweep."""
    trial = folder.read().trials[number]
    return trial.state.is_ended or trial.runs[replicate].state.is_ended or not folder.is_running
