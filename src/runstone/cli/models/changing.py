"""`runstone models promote | rollback | approve | reject | withdraw`: what may be used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runstone.cli._output import clean, say, to_json
from runstone.cli.main import workspace_of, workspace_option
from runstone.cli.models.common import (
    REFERENCE,
    needed_reason_option,
    plain_name,
    reason_option,
    ref_of,
    told_hooks,
)

if TYPE_CHECKING:
    from runstone.models.promotion import Promotion


@click.command("promote")
@click.argument("ref", metavar=REFERENCE)
@click.argument("stage", metavar="STAGE")
@click.option(
    "--gates",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the gates; default: gates.yaml in the workspace, if it is there.",
)
@click.option("--keep-others", is_flag=True, help="Leave those that are in the stage there, too.")
@click.option("--dry-run", is_flag=True, help="Only ask the gates; change and record nothing.")
@click.option("--format", "form", type=click.Choice(["text", "markdown", "json"]), default="text", show_default=True)
@reason_option
@workspace_option
@click.pass_context
def promote_command(
    ctx: click.Context,
    ref: str,
    stage: str,
    gates: Path | None,
    keep_others: bool,
    dry_run: bool,
    form: str,
    reason: str | None,
) -> None:
    """Move a version into a stage, if all gates hold. What they found, also a refusal, is kept in the history.

    Exit code 1 where it is refused.
    """
    from runstone.models.promotion import promote

    name, _selector = ref_of(ref)
    with told_hooks(ctx, name):
        found = promote(
            workspace_of(ctx), ref, stage, gates=gates, reason=reason, keeps_others=keep_others, is_dry=dry_run
        )
    if form == "json":
        say(to_json(found.to_dict()))
    elif form == "markdown":
        say(found.to_markdown(), newline=False)
    else:
        _say_promotion(found)
    if not found.is_allowed:
        ctx.exit(1)


def _say_promotion(found: Promotion) -> None:
    for check in found.checks:
        mark = click.style("passed", fg="green") if check.is_passed else click.style("FAILED", fg="red", bold=True)
        say(f"{mark}  {clean(check.gate)}: {clean(check.detail)}")
    say(clean(found.headline))
    if found.replaced:
        say(f"it replaces {', '.join(found.replaced)}")


@click.command("rollback")
@click.argument("name", metavar="NAME")
@click.argument("stage", metavar="STAGE")
@needed_reason_option
@workspace_option
@click.pass_context
def rollback_command(ctx: click.Context, name: str, stage: str, reason: str) -> None:
    """Bring back the version that was in a stage before the one that is there now."""
    with told_hooks(ctx, plain_name(name)) as model:
        version = model.roll_back(stage, reason=reason)
    say(f"{clean(version)} is in {clean(stage)} again")


@click.command("approve")
@click.argument("ref", metavar=REFERENCE)
@reason_option
@workspace_option
@click.pass_context
def approve_command(ctx: click.Context, ref: str, reason: str | None) -> None:
    """Approve a version."""
    _judge(ctx, ref, "approved", reason)


@click.command("reject")
@click.argument("ref", metavar=REFERENCE)
@needed_reason_option
@workspace_option
@click.pass_context
def reject_command(ctx: click.Context, ref: str, reason: str) -> None:
    """Reject a version: it cannot be promoted any more."""
    _judge(ctx, ref, "rejected", reason)


def _judge(ctx: click.Context, ref: str, word: Any, reason: str | None) -> None:
    name, selector = ref_of(ref)
    with told_hooks(ctx, name) as model:
        version = model.judge(selector, word, reason=reason)
    say(f"{clean(version)} is {word} by {clean(version.approval.by)}")


@click.command("withdraw")
@click.argument("ref", metavar=REFERENCE)
@needed_reason_option
@click.option("--force", is_flag=True, help="Also where an alias or a stage points to it.")
@workspace_option
@click.pass_context
def withdraw_command(ctx: click.Context, ref: str, reason: str, force: bool) -> None:
    """Take a version out of use. Its number is never given again."""
    name, selector = ref_of(ref)
    with told_hooks(ctx, name) as model:
        version = model.find(selector)
        model.withdraw(str(version.version), reason=reason, is_forced=force)
    say(f"{clean(version)} is withdrawn")
