"""`sweep run` and `sweep resume`: work on a sweep."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.text import Text

from runstone import RunstoneError, Workspace, ensure_workspace, open_workspace
from runstone_sweeps.cli._shared import INTERRUPTED, budget_options, find_sweep, make_console, workspace_option
from runstone_sweeps.cli.control import unpause

if TYPE_CHECKING:
    from runstone_sweeps.record import SweepRecord
    from runstone_sweeps.spec import SweepSpec
    from runstone_sweeps.store import SweepFolder


@click.command("run")
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("words", nargs=-1, metavar="[NAME=VALUE]...")
@budget_options
@click.option("--metric", help="The metric, where CONFIG is a script.")
@click.option("--goal", type=click.Choice(["minimize", "maximize"]), help="Its goal; may be guessed from its name.")
@click.option("--new", "is_new", is_flag=True, help="Begin a new sweep, even if one of this config is unfinished.")
@workspace_option
def run_command(
    config: Path,
    words: tuple[str, ...],
    trials: int | None,
    parallel: int | None,
    timeout: float | None,
    metric: str | None,
    goal: str | None,
    is_new: bool,
    workspace_path: str | None,
) -> None:
    """Run the sweep that CONFIG describes, or go on with it. Words change what it says.

    CONFIG may be a script instead, with its space in words: sweep run train.py lr='interval(1e-4, 0.1)' --metric loss
    """
    from runstone_sweeps.coordinator.session import Budget, open_sweep

    has_budget = trials is not None or timeout is not None
    spec = Budget(trials, parallel, timeout).apply(_read(config, words, metric, goal, has_budget=has_budget))
    workspace = ensure_workspace(workspace_path)
    folder, is_resumed = open_sweep(workspace, spec, is_new=is_new)
    console = make_console()
    for note in spec.notes:
        console.print(Text(note, style="dim"))
    if is_resumed:
        ended = folder.read().ended
        console.print(Text(f"going on with sweep {folder.id}: {ended} trials have ended (--new begins a new one)"))
    _work(console, workspace, folder, spec)


@click.command("resume")
@click.argument("sweep")
@budget_options
@workspace_option
def resume_command(
    sweep: str, trials: int | None, parallel: int | None, timeout: float | None, workspace_path: str | None
) -> None:
    """Go on with SWEEP (id, begin or end of an id, or name) where it ended, or after a pause."""
    from runstone_sweeps.coordinator.session import Budget, stored_spec
    from runstone_sweeps.store.requests import is_python

    workspace = open_workspace(workspace_path)
    folder = find_sweep(workspace, sweep)
    if folder.is_running:
        if trials is not None or parallel is not None or timeout is not None:
            raise RunstoneError(f"sweep {folder.id} is running; `sweep edit` changes its budget")
        unpause(folder)
        return
    record = folder.read()
    if is_python(record):
        raise RunstoneError(f"sweep {record.name} tries a Python function; run the program that began it again")
    _work(make_console(), workspace, folder, stored_spec(folder, Budget(trials, parallel, timeout)))


def _read(config: Path, words: tuple[str, ...], metric: str | None, goal: str | None, *, has_budget: bool) -> SweepSpec:
    """Return the spec of a config file, or of a script whose space is on the command line."""
    from runstone_sweeps.config import config_from_script, is_script, load_spec, parse_spec

    if not is_script(config):
        if metric is not None or goal is not None:
            raise click.UsageError("--metric and --goal go with a script; a config names its metric itself")
        return load_spec(config, overrides=words, has_budget=has_budget)
    raw = config_from_script(config, words, metric=metric, goal=goal)
    return parse_spec(raw, folder=config.parent.absolute(), file_name=config.name, has_budget=has_budget)


def _work(console: Console, workspace: Workspace, folder: SweepFolder, spec: SweepSpec) -> None:
    """Run one session and show its result."""
    from runstone_sweeps.coordinator.session import run_session
    from runstone_sweeps.terminal.views import LineView, LiveView

    views: list[LineView | LiveView] = []

    def make_view(folder: SweepFolder, record: SweepRecord, spec: SweepSpec) -> LineView | LiveView:
        kind = LiveView if console.is_terminal else LineView
        views.append(kind(console, folder, record, spec))
        return views[-1]

    try:
        ended = run_session(workspace, folder, spec, make_view)
    finally:
        for view in views:
            view.close()
    _summarize(console, folder, spec, ended.reason)
    if ended.reason == "stopped":
        sys.exit(INTERRUPTED)
    if ended.reason == "failing" or (ended.record.ended and ended.record.best is None):
        sys.exit(1)


def _summarize(console: Console, folder: SweepFolder, spec: SweepSpec, reason: str) -> None:
    from runstone_sweeps.report.writing import write_report
    from runstone_sweeps.results.text import counts_text, duration
    from runstone_sweeps.terminal.lines import leaderboard, print_line
    from runstone_sweeps.terminal.panel import failure_lines

    record = folder.read()
    console.print()
    if record.best is not None:
        console.print(leaderboard(record, limit=min(10, len(record.ranked())), hidden=spec.space.constants))
        console.print()
    for line in failure_lines(record):
        print_line(console, line)
    print_line(console, Text(f"{counts_text(record)}, in {duration(record.active_s)}"))
    print_line(console, Text(f"report: {write_report(folder, record, spec)}"))
    match reason:
        case "failing":
            first = Text("stopped early: the first trials all failed in the same way; ", style="bold red")
            first.append(f"what they printed is in the console.*.log files of {_run_folder(folder, record)}")
            print_line(console, first)
        case "stopped":
            print_line(console, Text(f"stopped; `sweep resume {folder.id}` goes on", style="bold"))
        case "timeout" if record.counts:
            print_line(console, Text(f"time is up; `sweep resume {folder.id} --timeout …` goes on"))
        case _ if reason in _WORDS:
            print_line(console, Text(_WORDS[reason]))


_WORDS = {
    "budget": "the budget is spent; with a larger one in the config, `sweep run` goes on",
    "target": "the target is reached",
    "converged": "no better result is to be expected",
    "exhausted": "every point has been tried",
}


def _run_folder(folder: SweepFolder, record: SweepRecord) -> str:
    workspace = Workspace(folder.path.parent.parent)
    first = next(trial for trial in record.trials.values() if trial.state == "failed")
    return str(workspace.find_run_folder(first.run_id) or workspace.path)
