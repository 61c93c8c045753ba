"""`runstone data checkout | push | pull | copy | verify`: content, out of the workspace and into it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runstone.cli._output import clean, counted, say, size, to_json
from runstone.cli.data.common import ensured, json_option
from runstone.cli.main import workspace_of, workspace_option
from runstone.datasets import Dataset, DatasetRef, DatasetVersion
from runstone.datasets.checkout import check_out
from runstone.datasets.manifest import shown_path
from runstone.datasets.urls import is_url
from runstone.datasets.verifying import verify

if TYPE_CHECKING:
    from runstone.datasets.exchange import Moved


@click.command("checkout")
@click.argument("version", metavar="NAME@V")
@click.argument("target", required=False, type=click.Path(path_type=Path))
@click.option("--link", is_flag=True, help="Read-only hard links, where bytes cannot be shared otherwise.")
@click.option("--force", is_flag=True, help="Write over files that were changed.")
@click.option("--exact", is_flag=True, help="Remove files that only other versions have; they can be had again.")
@json_option
@workspace_option
@click.pass_context
def checkout_command(
    ctx: click.Context, version: str, target: Path | None, link: bool, force: bool, exact: bool, as_json: bool
) -> None:
    """Write a version to TARGET, byte for byte. Default: the name of its file or folder, here.

    Files that were changed and are in no stored version are not written over without --force.
    """
    workspace = workspace_of(ctx)
    datasets = workspace.datasets
    found = datasets.find(version)
    known = datasets.get(found.name).stored_files()
    place = target if target is not None else _place_of(found)
    done = check_out(found, workspace.blobs, place, link=link, force=force, exact=exact, known=known)
    if as_json:
        say(to_json({"version": str(found), **{key: getattr(done, key) for key in done.__slots__ if key != "path"}}))
        return
    linked = f", {done.linked:,} of them linked" if done.linked else ""
    removed = f", removed {counted(done.removed, 'file')}" if done.removed else ""
    wrote = f"wrote {counted(done.written, 'file')}{linked} to {clean(done.path)}"
    say(f"{clean(found)}: {wrote}, {done.unchanged:,} unchanged{removed}")
    if done.others:
        say(f"{counted(done.others, 'file')} of other versions are still there; --exact removes them")


@click.command("push")
@click.argument("names", metavar="[NAME[@V]...]", nargs=-1)
@click.option("--to", "place", help="Folder or URL. Default: the remote store of the workspace.")
@click.option("--check", is_flag=True, help="Read back and hash what was sent.")
@json_option
@workspace_option
@click.pass_context
def push_command(ctx: click.Context, names: Sequence[str], place: str | None, check: bool, as_json: bool) -> None:
    """Send datasets, all or those named, to a folder or URL. Goes on where a push was broken off."""
    from runstone.datasets.exchange import elsewhere_of, push  # fsspec, only here

    workspace = workspace_of(ctx)
    there = elsewhere_of(workspace.path, place)
    _tell_moved("sent", push(workspace.datasets, names, there, check=check), as_json)


@click.command("pull")
@click.argument("names", metavar="[NAME[@V]...]", nargs=-1)
@click.option("--from", "place", help="Folder or URL. Default: the remote store of the workspace.")
@click.option("--as", "into", metavar="OTHER", help="Add its versions to this dataset, with new numbers.")
@json_option
@workspace_option
@click.pass_context
def pull_command(ctx: click.Context, names: Sequence[str], place: str | None, into: str | None, as_json: bool) -> None:
    """Fetch datasets, all or those named, from a folder or URL. Goes on where a pull was broken off.

    Where versions were added both here and there, --as keeps theirs under another name, or adds them to yours.
    """
    from runstone.datasets.exchange import elsewhere_of, pull  # fsspec, only here

    workspace = ensured(ctx)
    _tell_moved("fetched", pull(workspace.datasets, names, elsewhere_of(workspace.path, place), into=into), as_json)


@click.command("copy")
@click.argument("source", metavar="NAME[@V]")
@click.argument("target", metavar="OTHER")
@json_option
@workspace_option
@click.pass_context
def copy_command(ctx: click.Context, source: str, target: str, as_json: bool) -> None:
    """Add the versions of a dataset, or one of them, to another dataset. No content is written again."""
    from runstone.datasets.copying import copy_dataset

    ref = DatasetRef.parse(source)
    selector = ref.selector if "@" in source else None
    found = copy_dataset(workspace_of(ctx).datasets, ref.name, target, selector=selector)
    if as_json:
        say(to_json([{"before": str(one.before), "now": str(one.now), "new": one.is_new} for one in found]))
        return
    for one in found:
        say(f"{clean(one.before)} is {clean(one.now)}{'' if one.is_new else ', which was there'}")


@click.command("verify")
@click.argument("names", metavar="[NAME[@V]...]", nargs=-1)
@json_option
@workspace_option
@click.pass_context
def verify_command(ctx: click.Context, names: Sequence[str], as_json: bool) -> None:
    """Read histories and content again, and name what is not as it was recorded.

    Exit code 1 where something is found.
    """
    workspace = workspace_of(ctx)
    datasets = workspace.datasets
    chosen: Iterable[tuple[Dataset, str | None]] = [(dataset, None) for dataset in datasets]
    if names:
        refs = [(DatasetRef.parse(name), "@" in name) for name in names]
        chosen = [(datasets.get(ref.name), ref.selector if is_one else None) for ref, is_one in refs]
    problems = [one for dataset, selector in chosen for one in verify(dataset, workspace.blobs, selector=selector)]
    if as_json:
        say(to_json([{"of": one.of, "file": one.file, "what": one.what} for one in problems]))
    else:
        for one in problems:
            say(f"{clean(one.of)}: {clean(one.file)}: {clean(one.what)}")
        say(counted(len(problems), "problem") if problems else "all as recorded")
    if problems:
        ctx.exit(1)


def _tell_moved(word: str, moved: Iterable[Moved], as_json: bool) -> None:
    told = []
    for one in moved:
        told.append({key: getattr(one, key) for key in one.__slots__})
        if not as_json:
            news = f"{counted(one.count, 'file')} ({size(one.size_bytes)}) and {counted(one.events, 'event')}"
            say(f"{clean(one.name)}: {word} {news}; {one.there_already:,} files were there already")
            if one.by_reference:
                say(
                    f"    {counted(one.by_reference, 'version')} by reference: only hashes, their content is not stored"
                )
    if as_json:
        say(to_json(told))
    elif not told:
        say("there is no dataset")


def _place_of(version: DatasetVersion) -> Path:
    source = version.source.get("path") or version.source.get("url")
    name = Path(str(source)).name if source is not None and not is_url(version.name) else version.name
    if version.manifest.form == "file":
        name = shown_path(version.manifest.files[0].path)
    return Path(name.replace("/", "_") or "data")
