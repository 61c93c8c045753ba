"""`runstone models alias | tag | note | stages`: what versions and models are called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from runstone.cli._output import clean, say
from runstone.cli.main import workspace_option
from runstone.cli.models.common import of_model_or_version, plain_name, ref_of, tags_of, told_hooks
from runstone.errors import InvalidValue


@click.command("alias")
@click.argument("alias", metavar="ALIAS")
@click.argument("ref", metavar="NAME[@V]")
@click.option("--remove", is_flag=True, help="Let it point to nothing.")
@workspace_option
@click.pass_context
def alias_command(ctx: click.Context, alias: str, ref: str, remove: bool) -> None:
    """Let an alias point to a version, in one step, wherever it pointed before."""
    if "@" in alias and "@" not in ref:
        alias, ref = ref, alias  # no alias holds an @, so the order cannot be mistaken
    if remove:
        with told_hooks(ctx, plain_name(ref)) as model:
            model.remove_alias(alias)
        say(f"{clean(alias)} points to nothing")
        return
    name, selector = ref_of(ref)
    with told_hooks(ctx, name) as model:
        version = model.set_alias(alias, selector)
    say(f"{clean(alias)} points to {clean(version)}")


@click.command("tag")
@click.argument("ref", metavar="NAME[@V]")
@click.argument("tags", metavar="[NAME=VALUE]...", nargs=-1)
@click.option("--remove", multiple=True, metavar="NAME", help="Remove this tag.")
@workspace_option
@click.pass_context
def tag_command(ctx: click.Context, ref: str, tags: Sequence[str], remove: Sequence[str]) -> None:
    """Set or remove tags of a model or a version."""
    if not tags and not remove:
        raise click.UsageError("give tags as NAME=VALUE, or --remove NAME")
    name, selector = of_model_or_version(ref)
    given = tags_of(tags)
    with told_hooks(ctx, name) as model:
        if given:
            model.set_tags(given, version=selector)
        if remove:
            model.remove_tags(*remove, version=selector)
        state = model.state()
    found = state.tags if selector is None else state.find(selector).tags
    say(", ".join(f"{clean(key)}={clean(value)}" for key, value in found.items()) or "no tags")


@click.command("note")
@click.argument("ref", metavar="NAME[@V]")
@click.argument("text", metavar="[MARKDOWN]", required=False)
@click.option("-f", "--file", "file", type=click.File("r", encoding="utf-8"), help="Read it from there; - is stdin.")
@click.option("--remove", is_flag=True, help="Remove what stands there.")
@workspace_option
@click.pass_context
def note_command(ctx: click.Context, ref: str, text: str | None, file: Any, remove: bool) -> None:
    """Set the annotation of a model or a version, in place of what stood there."""
    if sum((text is not None, file is not None, remove)) != 1:
        raise click.UsageError("give the text, or --file, or --remove")
    name, selector = of_model_or_version(ref)
    try:
        content = None if remove else text if text is not None else file.read()
    except UnicodeDecodeError:
        raise InvalidValue("the notes are not UTF-8 text") from None
    with told_hooks(ctx, name) as model:
        model.set_notes(content, version=selector)
    say("noted")


@click.command("stages")
@click.argument("name", metavar="NAME")
@click.argument("stages", metavar="[STAGE]...", nargs=-1)
@click.option("--requires-approval/--no-approval", default=None, help="Whether versions are approved before use.")
@workspace_option
@click.pass_context
def stages_command(ctx: click.Context, name: str, stages: Sequence[str], requires_approval: bool | None) -> None:
    """Show or set the stages of a model, the first of which a new version is in."""
    with told_hooks(ctx, plain_name(name)) as model:
        if stages or requires_approval is not None:
            model.define(stages=list(stages) or None, requires_approval=requires_approval)
        state = model.state()
    for stage in state.stages:
        found = [str(version.version) for version in state.in_stage(stage)]
        say(f"{clean(stage)}: {', '.join(found) or '-'}")
    if state.requires_approval:
        say("versions are approved before use")
