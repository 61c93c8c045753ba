"""`sweep stop`, `pause`, `add`, `rerun`, `edit`: what is asked of a sweep, whether it runs or rests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runstone import open_workspace
from runstone_sweeps.cli._shared import find_sweep, workspace_option

if TYPE_CHECKING:
    from runstone_sweeps.store import SweepFolder


@click.command("stop")
@click.argument("sweep")
@workspace_option
def stop_command(sweep: str, workspace_path: str | None) -> None:
    """Stop SWEEP as one Ctrl-C would: its trials are asked to stop, and it can be resumed."""
    folder = find_sweep(open_workspace(workspace_path), sweep)
    if not folder.is_running:
        click.echo(f"sweep {folder.id} is not running")
        return
    folder.request_stop()
    click.echo(f"sweep {folder.id} is asked to stop; `sweep resume {folder.id}` goes on with it")


@click.command("pause")
@click.argument("sweep")
@workspace_option
def pause_command(sweep: str, workspace_path: str | None) -> None:
    """Start no more trials of SWEEP; those that run go on to their end. `sweep resume` lifts it."""
    folder = find_sweep(open_workspace(workspace_path), sweep)
    if not folder.is_running:
        click.echo(f"sweep {folder.id} is not running")
        return
    _ask(folder, "pause")
    click.echo(f"sweep {folder.id} is paused: no more trials start until `sweep resume {folder.id}`")


@click.command("add")
@click.argument("sweep")
@click.argument("words", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--trials", type=click.IntRange(1), help="So many trials more than its budget.")
@workspace_option
def add_command(sweep: str, words: tuple[str, ...], trials: int | None, workspace_path: str | None) -> None:
    """Have SWEEP try the point that the words name next; the sampler fills in what they do not name.

    It is tried also where the budget of trials is spent.
    """
    from runstone_sweeps.store.requests import parse_assignments

    if not words and trials is None:
        raise click.UsageError("name a point, such as lr=0.1, or how many --trials more")
    point = parse_assignments(words)
    folder = find_sweep(open_workspace(workspace_path), sweep)
    if words:
        _ask(folder, "add", points=[point])
        click.echo(f"the point is tried next{_when(folder)}")
    if trials is not None:
        _ask(folder, "more", trials=trials)
        click.echo(f"{trials} more trial{'s are' if trials > 1 else ' is'} run{_when(folder)}")


@click.command("rerun")
@click.argument("sweep")
@click.argument("trials", nargs=-1, type=click.IntRange(0))
@click.option("--failed", "is_failed", is_flag=True, help="All trials that failed.")
@workspace_option
def rerun_command(sweep: str, trials: tuple[int, ...], is_failed: bool, workspace_path: str | None) -> None:
    """Run TRIALS of SWEEP again, with the same params and seed; what comes of it replaces what they came to."""
    folder = find_sweep(open_workspace(workspace_path), sweep)
    _ask(folder, "rerun", numbers=list(trials), is_failed=is_failed)
    click.echo(f"they are run again{_when(folder)}")


@click.command("edit")
@click.argument("sweep")
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("words", nargs=-1, metavar="[NAME=VALUE]...")
@workspace_option
def edit_command(sweep: str, config: Path, words: tuple[str, ...], workspace_path: str | None) -> None:
    """Go on with SWEEP by another CONFIG: another space, sampler, budget, script. What it has found is kept.

    Trials outside of the new space stay in the record, and the sampler is not told of them. The metrics must be the
    same.
    """
    from runstone_sweeps.config import load_spec

    folder = find_sweep(open_workspace(workspace_path), sweep)
    spec = load_spec(config, overrides=words, has_budget=True)
    _ask(folder, "edit", config=dict(spec.raw), config_folder=str(spec.folder))
    click.echo(f"sweep {folder.id} goes on by {config.name}{_when(folder)}")


def unpause(folder: SweepFolder) -> None:
    """Have a running sweep start trials again."""
    if not folder.read().is_paused:
        click.echo(f"sweep {folder.id} is running")
        return
    _ask(folder, "unpause")
    click.echo(f"sweep {folder.id} goes on")


def _ask(folder: SweepFolder, action: str, **fields: Any) -> None:
    """Have something done, and say so where it has to wait.

    Raises:
        RequestRefused: it cannot be done.
    """
    from runstone_sweeps.store.requests import ask

    if not ask(folder, action, **fields):
        click.echo(f"sweep {folder.id} is busy and does it when it comes to it", err=True)


def _when(folder: SweepFolder) -> str:
    return "" if folder.is_running else f" when the sweep goes on: `sweep resume {folder.id}`"
