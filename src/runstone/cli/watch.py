"""`runstone watch`: the curves of runs in the terminal, while they go on."""

from __future__ import annotations

from collections.abc import Sequence

import click

from runstone.cli._output import clean, is_terminal, say
from runstone.cli.main import workspace_of, workspace_option
from runstone.workspace import Workspace


@click.command("watch")
@click.argument("run", metavar="RUN")
@click.argument("metrics", metavar="[METRIC]...", nargs=-1)
@click.option("--with", "others", multiple=True, metavar="RUN", help="Another run to draw with it; may be repeated.")
@click.option("--once", is_flag=True, help="Draw once and end; also where there is no terminal.")
@click.option("--log", "is_log", is_flag=True, help="With --once: draw logarithms.")
@workspace_option
@click.pass_context
def watch_command(
    ctx: click.Context, run: str, metrics: Sequence[str], others: Sequence[str], once: bool, is_log: bool
) -> None:
    """Show the curves of RUN in the terminal, while it goes on: all its metrics by turns, or up to four METRICs.

    Keys: n next metric, l logarithm, s smoother, t time or steps, y metrics of the system, q quit.
    """
    workspace = workspace_of(ctx)
    run_ids = list(dict.fromkeys(workspace.run(one).id for one in (run, *others)))
    if once or not is_terminal():
        _draw_once(workspace, run_ids, metrics, is_log=is_log)
        return
    from runstone.terminal import run_terminal  # textual, an extra, only here

    run_terminal(workspace, runs=run_ids, metrics=metrics)


def _draw_once(workspace: Workspace, run_ids: Sequence[str], metrics: Sequence[str], *, is_log: bool) -> None:
    from runstone.terminal.printing import print_curves  # an extra, only here

    drawn = print_curves(workspace, run_ids, metrics, is_log=is_log, say=say)
    if not drawn:
        names = ", ".join(clean(name) for name in metrics)
        say(f"nothing to draw: no numbers were logged{f' under {names}' if names else ''}", stderr=True)
