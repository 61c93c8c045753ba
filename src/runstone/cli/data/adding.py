"""`runstone data add | import | update`: new versions."""

from __future__ import annotations

from collections.abc import Sequence

import click

from runstone.cli._output import clean, say
from runstone.cli.data.common import ensured, json_option, pairs, tell
from runstone.cli.main import workspace_of, workspace_option
from runstone.datasets import add, update


@click.command("add")
@click.argument("path")
@click.option("--name", help="Of the dataset. Default: the last part of PATH.")
@click.option("--no-store", is_flag=True, help="Keep only hashes; the data stays where it is, and only there.")
@click.option("--no-profile", is_flag=True, help="Do not read tables for the profile of their columns.")
@click.option("--query", help="What made the data, such as SQL; kept with the version.")
@click.option("--notes", help="Annotation of the version, Markdown.")
@click.option("--tag", "tags", multiple=True, metavar="NAME=VALUE", help="A tag of the version; may be repeated.")
@json_option
@workspace_option
@click.pass_context
def add_command(
    ctx: click.Context,
    path: str,
    name: str | None,
    no_store: bool,
    no_profile: bool,
    query: str | None,
    notes: str | None,
    tags: Sequence[str],
    as_json: bool,
) -> None:
    """Add a file, a folder or what lies at a URL as a version.

    Data that was not changed is the version that is there already.
    """
    version = add(
        ensured(ctx).datasets,
        path,
        name=name,
        store=not no_store,
        profile=not no_profile,
        query=query,
        notes=notes,
        tags=pairs(tags),
    )
    tell(version, as_json)


@click.command("import")
@click.argument("url")
@click.option("--name", help="Of the dataset. Default: the last part of URL.")
@click.option("--no-download", is_flag=True, help="Only pin it by what its store says; fetch nothing.")
@json_option
@workspace_option
@click.pass_context
def import_command(ctx: click.Context, url: str, name: str | None, no_download: bool, as_json: bool) -> None:
    """Fetch data from a URL or path as a version that knows its source; `update` looks there again."""
    tell(add(ensured(ctx).datasets, url, name=name, store=not no_download), as_json)


@click.command("update")
@click.argument("name")
@json_option
@workspace_option
@click.pass_context
def update_command(ctx: click.Context, name: str, as_json: bool) -> None:
    """Look at the source of the newest version again, and add a version where it changed."""
    datasets = workspace_of(ctx).datasets
    before = datasets.get(name).find()
    version = update(datasets, name)
    if not as_json and version == before:
        say(f"{clean(version)} is up to date with {clean(version.source_text)}")
        return
    tell(version, as_json)
