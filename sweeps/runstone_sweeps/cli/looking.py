"""`sweep list`, `show`, `best`, `watch`: what a sweep has found, and how it comes along."""

from __future__ import annotations

import json
import shlex
import time
from datetime import datetime
from typing import TYPE_CHECKING

import click
from rich.live import Live
from rich.table import Table
from rich.text import Text

from runstone import open_workspace
from runstone_sweeps.cli._shared import find_sweep, find_trial, make_console, status_of, workspace_option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from runstone_sweeps.store import SweepFolder

_LOOK_S = 0.5


@click.command("list")
@workspace_option
def list_command(workspace_path: str | None) -> None:
    """List the sweeps of the workspace, the newest first."""
    from runstone_sweeps.results.text import clean, counts_text, number
    from runstone_sweeps.store import Sweeps

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("sweep", "name", "status", "trials", "best", "begun"):
        table.add_column(column)
    folders = list(Sweeps(open_workspace(workspace_path)))
    for folder in folders:
        record = folder.read()
        begun = datetime.fromtimestamp(record.created.get("at", 0)).astimezone()
        best = record.best
        table.add_row(
            folder.id,
            Text(clean(record.name)),
            status_of(folder, record),
            counts_text(record),
            "" if best is None else f"{number(best.value)} (trial {best.number})",
            f"{begun:%Y-%m-%d %H:%M}",
        )
    if folders:
        make_console().print(table)
    else:
        click.echo("no sweeps yet; `sweep run CONFIG` makes one")


@click.command("show")
@click.argument("sweep")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Rows at most.")
@workspace_option
def show_command(sweep: str, limit: int, workspace_path: str | None) -> None:
    """Show the trials of SWEEP, ranked, and which parameters matter."""
    from runstone_sweeps.results.standings import goals_text, legend
    from runstone_sweeps.results.text import clean, counts_text, duration
    from runstone_sweeps.store import recorded_spec
    from runstone_sweeps.terminal.lines import leaderboard, print_line
    from runstone_sweeps.terminal.panel import failure_lines

    folder = find_sweep(open_workspace(workspace_path), sweep)
    record = folder.read()
    spec = recorded_spec(record, is_for_reading=True)
    console = make_console()
    line = Text(f"sweep {clean(record.name)}", style="bold")
    line.append(f"  {folder.id}  {status_of(folder, record)}", style="dim")
    print_line(console, line)
    about = f"{goals_text(spec)}; {counts_text(record)}, in {duration(record.active_s)}"
    print_line(console, Text(about))
    if record.unknown:
        print_line(console, Text(f"{record.unknown} events could not be read", style="yellow"))
    if not record.trials:
        return
    console.print()
    console.print(leaderboard(record, limit=limit, hidden=spec.space.constants))
    if len(record.trials) > limit:
        print_line(console, Text(f"… and {len(record.trials) - limit} more (--limit)", style="dim"))
    for mark in legend(record):
        print_line(console, Text(mark, style="dim"))
    console.print()
    for failure in failure_lines(record):
        print_line(console, failure)
    from runstone_sweeps.study import find_importances  # imports Optuna

    for index, metric in enumerate(spec.metrics):
        found = find_importances(spec, record, metric=index)
        _print_importances(console, found, metric.name if len(spec.metrics) > 1 else "")


@click.command("best")
@click.argument("sweep")
@click.option("--json", "format_", flag_value="json", help="The params alone, as JSON.")
@click.option("--yaml", "format_", flag_value="yaml", help="The params alone, as YAML.")
@click.option("--command", "format_", flag_value="command", help="A line for a shell that runs it again.")
@click.option("--config", "format_", flag_value="config", help="A config with which `sweep run` runs it once.")
@click.option("--trial", type=click.IntRange(0), help="Another trial than the best one.")
@workspace_option
def best_command(sweep: str, format_: str | None, trial: int | None, workspace_path: str | None) -> None:
    """Show the best trial of SWEEP; of several metrics, the best by the first one."""
    import yaml

    from runstone_sweeps.results import export
    from runstone_sweeps.results.standings import metric_names, values_text
    from runstone_sweeps.results.text import clean, value_text
    from runstone_sweeps.space import nest
    from runstone_sweeps.store import recorded_spec

    folder = find_sweep(open_workspace(workspace_path), sweep)
    record = folder.read()
    best = find_trial(record, trial)
    match format_:
        case "json":
            click.echo(json.dumps(nest(best.params), indent=2, ensure_ascii=False))
        case "yaml":
            click.echo(yaml.safe_dump(nest(best.params), sort_keys=False, allow_unicode=True), nl=False)
        case "command":
            spec = recorded_spec(record, is_for_reading=True)
            click.echo(export.best_command(spec, record, best, folder=folder.path))
        case "config":
            spec = recorded_spec(record, is_for_reading=True)
            config = export.best_config(spec, record, best)
            click.echo(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), nl=False)
        case _:
            names = metric_names(record)
            results = ", ".join(
                f"{clean(n)} {v}" for n, v in zip(names, values_text(best, len(names)), strict=False) if v
            )
            click.echo(f"trial {best.number}: {results}, run {best.run_id}")
            for name, value in best.params.items():
                click.echo(f"  {clean(name)}: {value_text(value)}")
            if len(names) > 1:
                numbers = ", ".join(str(other.number) for other in record.front())
                click.echo(f"on the Pareto front: trial {numbers}")


@click.command("watch")
@click.argument("sweep")
@workspace_option
def watch_command(sweep: str, workspace_path: str | None) -> None:
    """Follow SWEEP, which runs in another process, until it ends. Ctrl-C ends the looking, not the sweep."""
    folder = find_sweep(open_workspace(workspace_path), sweep)
    try:
        watch(folder, make_console())
    except KeyboardInterrupt:
        click.echo(f"sweep {shlex.quote(folder.id)} goes on")


def watch(folder: SweepFolder, console: Console) -> None:
    """Show a sweep as it comes along: a picture in a terminal, and a line for each event elsewhere."""
    from runstone_sweeps.store import recorded_spec
    from runstone_sweeps.store.followed import RecordFollower
    from runstone_sweeps.terminal.lines import event_line, headline, print_line
    from runstone_sweeps.terminal.panel import Panel, rows_of

    follower = RecordFollower(folder.path)
    follower.poll()
    spec = recorded_spec(follower.record, is_for_reading=True)
    print_line(console, headline(folder, follower.record, spec))
    panel = Panel(follower.record, spec)
    live = Live(console=console, auto_refresh=False) if console.is_terminal else None
    if live is not None:
        live.start()
    try:
        while True:
            is_running = folder.is_running
            for event in follower.poll():
                panel.on_event(event, follower.record)
                line = event_line(event, follower.record)
                if line is not None and live is None:
                    print_line(console, line)
            if live is not None:
                record = follower.record
                width, height = console.size
                rows = rows_of(record) if is_running else []
                live.update(panel.draw(record, rows, width=width, height=height), refresh=True)
            if not is_running:
                break
            time.sleep(_LOOK_S)
    finally:
        if live is not None:
            live.stop()
    print_line(console, Text(f"sweep {folder.id}: {status_of(folder, follower.record)}"))


def _print_importances(console: Console, found: Mapping[str, float], metric: str) -> None:
    from runstone_sweeps.results.text import clean
    from runstone_sweeps.terminal.lines import print_line

    if not found:
        return
    of = f" for {clean(metric)}" if metric else ""
    print_line(console, Text(f"which parameters matter{of} (share of the variation, PED-ANOVA)", style="bold"))
    width = max(map(len, found))
    for name, share in found.items():
        print_line(console, Text(f"  {clean(name):{width}}  {share:5.1%}  {'█' * round(share * 30)}"))
