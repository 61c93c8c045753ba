"""`sweep stop`: what is asked of a sweep that runs elsewhere."""

from __future__ import annotations

import click

from runstone import open_workspace
from runstone_sweeps.cli._shared import find_sweep, workspace_option


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
