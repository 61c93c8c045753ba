"""`runstone models hooks`: who is told of what happens in the registry."""

from __future__ import annotations

import click
from rich.text import Text

from runstone.cli._output import cell, clean, say, show, table
from runstone.cli.main import Suggesting, workspace_of, workspace_option
from runstone.errors import NotFound


@click.group("hooks", cls=Suggesting)
def hooks_group() -> None:
    """Commands and webhooks that are told what happens in the registry (`hooks.yaml` in the workspace)."""


@hooks_group.command("list")
@workspace_option
@click.pass_context
def hooks_list_command(ctx: click.Context) -> None:
    """List the hooks, and what they have not taken yet."""
    from runstone.models.hookfile import read_hooks
    from runstone.models.hooks import pending

    workspace = workspace_of(ctx)
    hooks = read_hooks(workspace.path)
    if not hooks:
        say(f"no hooks; write {clean(workspace.path / 'hooks.yaml')}")
        return
    waiting = [one for model in workspace.models for one in pending(workspace.path, model, hooks)]
    rows = [
        (
            cell(hook.name),
            cell(", ".join(hook.on)),
            cell(f"{hook.model}{f' in {hook.stage}' if hook.stage else ''}"),
            cell(hook.target),
            Text(str(sum(one.hook.name == hook.name for one in waiting))),
        )
        for hook in hooks
    ]
    show(table(["name", ("on", "fold"), ("model", "fold"), ("goes to", "fold"), ("waiting", "right")], rows))


@hooks_group.command("run")
@click.option("--budget", type=click.FloatRange(min=0), default=60.0, show_default=True, help="Seconds.")
@workspace_option
@click.pass_context
def hooks_run_command(ctx: click.Context, budget: float) -> None:
    """Tell hooks now of all that they have not taken yet. Exit code 1 where one does not take it."""
    from runstone.models.hooks import deliver

    workspace = workspace_of(ctx)
    found = deliver(workspace.path, workspace.models, budget_s=budget, is_forced=True)
    for one in found:
        say(f"{clean(one.hook)}: {one.word} of {clean(one.model)}: {one.state} ({clean(one.detail)})")
    if not found:
        say("nothing is waiting")
    if any(one.state != "delivered" for one in found):
        ctx.exit(1)


@hooks_group.command("test")
@click.argument("name", metavar="HOOK")
@click.option("--model", default="test", show_default=True, help="Name of the model in the event.")
@workspace_option
@click.pass_context
def hooks_test_command(ctx: click.Context, name: str, model: str) -> None:
    """Send a hook an event `test`, which stands in no history. Exit code 1 where it is not taken."""
    from runstone.models.hookfile import read_hooks
    from runstone.models.hooks import try_out

    workspace = workspace_of(ctx)
    hooks = {hook.name: hook for hook in read_hooks(workspace.path)}
    if name not in hooks:
        raise NotFound(f"there is no hook {name!r:.80}; there is {', '.join(hooks) or 'none'}")
    sent = try_out(workspace.path, hooks[name], model)
    say(f"{'taken' if sent.is_delivered else 'not taken'}: {clean(sent.detail)}")
    if sent.output:
        say(clean(sent.output, lines=True))
    if not sent.is_delivered:
        ctx.exit(1)
