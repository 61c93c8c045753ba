"""`runstone models register | copy`: new versions, here and in another workspace."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from runstone.cli._output import clean, say, to_json
from runstone.cli.main import workspace_of, workspace_option
from runstone.cli.models.common import json_option, reason_option, tags_of
from runstone.errors import NotFound
from runstone.models.history import ModelState
from runstone.models.refs import ModelRef
from runstone.models.shapes import version_as_dict
from runstone.workspace import ensure_workspace


@click.command("register")
@click.argument("name", metavar="NAME")
@click.argument("source", metavar="PATH|RUN[:ARTIFACT]")
@click.option(
    "--version", "number", metavar="V", help="A number, or major, minor, patch; default: what the evidence says."
)
@click.option("--pre", metavar="WORDS", help="Of a pre-release, such as rc.1.")
@click.option("--run", "run_ref", metavar="RUN", help="The run that made PATH.")
@click.option("--flavour", help="How it is loaded; default: by what it is.")
@click.option("--tag", "tags", multiple=True, metavar="NAME=VALUE")
@click.option("--notes", metavar="MARKDOWN")
@click.option("--dry-run", is_flag=True, help="Only say which number it would get, and why.")
@reason_option
@json_option
@workspace_option
@click.pass_context
def register_command(
    ctx: click.Context,
    name: str,
    source: str,
    number: str | None,
    pre: str | None,
    run_ref: str | None,
    flavour: str | None,
    tags: Sequence[str],
    notes: str | None,
    dry_run: bool,
    reason: str | None,
    as_json: bool,
) -> None:
    """Register a new version from files, or from what a run has logged as an artifact."""
    from runstone.models import Models, Registration, proposal_for, register, save_artifact, save_model
    from runstone.models.hooks import announcer

    workspace = workspace_of(ctx)
    run = workspace.run(run_ref) if run_ref is not None else None
    if Path(source).exists():
        manifest = save_model(source, workspace.blobs, flavour=flavour, run=run)
    else:
        reference, _, artifact = source.partition(":")
        try:
            run = workspace.run(reference)
        except NotFound:
            raise NotFound(f"there is no file, folder or run {source!r:.120}") from None
        manifest = save_artifact(run, artifact or None, workspace.blobs, flavour=flavour)
    registry = Models(workspace.models.root, run_id=run.id if run else None, after=announcer(workspace.path))
    state = registry.get(name).state() if name in registry else ModelState()
    proposal = proposal_for(manifest, state, workspace.blobs)
    if dry_run:
        say(to_json(proposal.to_json()) if as_json else f"{clean(name)} {proposal.version}")
        _say_reasons(proposal.to_json(), as_json=as_json)
        return
    version = register(
        registry, workspace.blobs, manifest, Registration(name, number, pre, reason, tags_of(tags), notes)
    )
    say(to_json(version_as_dict(version)) if as_json else f"registered {clean(version)}")
    _say_reasons(version.proposal, as_json=as_json)


def _say_reasons(proposal: Any, *, as_json: bool) -> None:
    for reason in () if as_json else proposal.get("reasons", ()):
        say(f"  {reason['level']}: {clean(reason['what'])}")


@click.command("copy")
@click.argument("ref", metavar="NAME[@V]")
@click.option("--to", "target", required=True, type=click.Path(path_type=Path), help="Folder of the other workspace.")
@click.option("--as", "name", metavar="NAME[@V]", help="Name and number there; default: as here.")
@workspace_option
@click.pass_context
def copy_command(ctx: click.Context, ref: str, target: Path, name: str | None) -> None:
    """Register a version in another workspace, under its name and number, with its content."""
    from runstone.models.comparing import copy_version

    workspace = workspace_of(ctx)
    workspace.models.find(ref)  # before a workspace is made for nothing
    there = ensure_workspace(target)
    called = ModelRef.parse(name) if name is not None else None
    number = called.selector if name is not None and called is not None and "@" in name else None
    version = copy_version(workspace, ref, there, name=called.name if called is not None else None, number=number)
    say(f"{clean(version)} is in {clean(there.path)}")
