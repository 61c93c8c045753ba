"""`runstone models deployed | undeployed | incidents`: what becomes of versions where they work."""

from __future__ import annotations

import dataclasses

import click
from rich.text import Text

from runstone.cli._output import cell, clean, say, show, table, to_json
from runstone.cli.main import workspace_of, workspace_option
from runstone.cli.models.common import (
    REFERENCE,
    json_option,
    of_model_or_version,
    plain_name,
    reason_option,
    ref_of,
    told_hooks,
)
from runstone.models.telling import moment


@click.command("deployed")
@click.argument("ref", metavar=REFERENCE)
@click.argument("target", metavar="TARGET")
@click.option("--url", metavar="URL", help="Where it answers.")
@click.option("--replicas", type=click.IntRange(min=0), metavar="N", help="How many of it.")
@click.option("--keep-others", is_flag=True, help="Other versions stay there, too.")
@reason_option
@workspace_option
@click.pass_context
def deployed_command(
    ctx: click.Context,
    ref: str,
    target: str,
    url: str | None,
    replicas: int | None,
    keep_others: bool,
    reason: str | None,
) -> None:
    """Record that a version was deployed to TARGET, the place as the team calls it.

    What was there before is not any more. It records what happened: nothing is started, and no gate is asked.
    """
    name, selector = ref_of(ref)
    with told_hooks(ctx, name) as model:
        found = model.record_deployment(
            selector, target, url=url, replicas=replicas, reason=reason, keeps_others=keep_others
        )
    say(f"{clean(name)}@{found.version} is at {clean(target)}")


@click.command("undeployed")
@click.argument("ref", metavar="NAME[@V]")
@click.argument("target", metavar="TARGET")
@reason_option
@workspace_option
@click.pass_context
def undeployed_command(ctx: click.Context, ref: str, target: str, reason: str | None) -> None:
    """Record that a model, or one version of it, is not at TARGET any more."""
    name, selector = of_model_or_version(ref)
    with told_hooks(ctx, name) as model:
        ended = model.end_deployment(target, version=selector, reason=reason)
    say(f"{', '.join(f'{clean(name)}@{one.version}' for one in ended)} is not at {clean(target)} any more")


@click.command("incidents")
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--all", "is_all", is_flag=True, help="Closed ones, too.")
@json_option
@workspace_option
@click.pass_context
def incidents_command(ctx: click.Context, name: str | None, is_all: bool, as_json: bool) -> None:
    """List what was found to be wrong with versions in use."""
    registry = workspace_of(ctx).models
    states = [model.state() for model in ([registry.get(plain_name(name))] if name is not None else registry)]
    found = [one for state in states for one in state.incidents.values() if is_all or one.is_open]
    if as_json:
        say(to_json([dataclasses.asdict(one) for one in found]))
        return
    if not found:
        say("no incidents" if is_all else "no open incidents")
        return
    rows = [
        (
            cell(one),
            Text(one.version),
            cell(one.kind),
            Text(moment(one.opened_at)),
            cell(one.summary),
            cell(None if one.closed_at is None else f"{moment(one.closed_at)}: {one.resolution}"),
        )
        for one in found
    ]
    show(table(["incident", "version", "kind", "opened", ("what", "fold"), ("closed", "fold")], rows))
