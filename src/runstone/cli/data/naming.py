"""`runstone data tag | alias | revoke`: what is said of versions."""

from __future__ import annotations

from collections.abc import Sequence

import click

from runstone.cli._output import clean, say
from runstone.cli.data.common import exact, pairs
from runstone.cli.main import workspace_of, workspace_option
from runstone.datasets import DatasetRef


@click.command("revoke", short_help="The same as `runstone revoke dataset:NAME@V`.")
@click.argument("version", metavar="NAME@V")
@click.option("--reason", metavar="TEXT", help="Why it must not be used any more; kept in the history.")
@click.option("--undo", is_flag=True, help="Take the revocation back.")
@workspace_option
@click.pass_context
def revoke_command(ctx: click.Context, version: str, reason: str | None, undo: bool) -> None:
    """Say that a version must not be used any more. Its content stays.

    The same as `runstone revoke dataset:NAME@V`, which knows more options.
    """
    from runstone.cli.lineage import revoke_command as revoke

    ctx.invoke(revoke, ref=f"dataset:{exact(version)}", reason=reason, undo=undo)


@click.command("tag")
@click.argument("version", metavar="NAME[@V]")
@click.argument("tags", metavar="NAME=VALUE...", nargs=-1)
@click.option("--remove", multiple=True, metavar="NAME", help="Remove a tag; may be repeated.")
@click.option("--notes", help="Set the annotation, Markdown.")
@workspace_option
@click.pass_context
def tag_command(
    ctx: click.Context, version: str, tags: Sequence[str], remove: Sequence[str], notes: str | None
) -> None:
    """Set and remove tags, and the annotation, of a dataset or of one version."""
    if not (tags or remove or notes is not None):
        raise click.UsageError("give NAME=VALUE, --remove NAME or --notes TEXT")
    ref = DatasetRef.parse(version)
    dataset = workspace_of(ctx).datasets.get(ref.name)
    number = dataset.find(ref.selector).version if "@" in version else None
    if tags:
        dataset.set_tags(pairs(tags), version=number)
    if remove:
        dataset.remove_tags(*remove, version=number)
    if notes is not None:
        dataset.set_notes(notes or None, version=number)
    said = dataset.find(number).recorded.tags if number is not None else dataset.state().tags
    say(f"{clean(version)}: {', '.join(f'{clean(key)}={clean(value)}' for key, value in said.items()) or 'no tags'}")


@click.command("alias")
@click.argument("alias", metavar="ALIAS")
@click.argument("version", metavar="NAME[@V]")
@click.option("--remove", is_flag=True, help="Let it point to nothing.")
@workspace_option
@click.pass_context
def alias_command(ctx: click.Context, version: str, alias: str, remove: bool) -> None:
    """Let an alias point to a version, in one step, wherever it pointed before."""
    if "@" in alias and "@" not in version:
        alias, version = version, alias  # no alias holds an @, so the order cannot be mistaken
    ref = DatasetRef.parse(version)
    dataset = workspace_of(ctx).datasets.get(ref.name)
    if remove:
        dataset.remove_alias(alias)
        say(f"{clean(ref.name)}@{clean(alias)} is gone")
        return
    found = dataset.set_alias(alias, ref.selector)
    say(f"{clean(ref.name)}@{clean(alias)} is {clean(found)}")
