"""`runstone backup` and `runstone restore`: a whole workspace, copied elsewhere while runs write, and back."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.text import Text

from runstone import settings
from runstone.cli._output import clean, counted, moment_text, say, show, size, table, to_json
from runstone.cli.main import workspace_of, workspace_option

if TYPE_CHECKING:
    from runstone.backup import Place

_snapshot_option = click.option(
    "--at", "snapshot", metavar="NAME", help="A snapshot, or how its name begins (20261123)."
)


@click.command("backup")
@click.argument("dest", metavar="DEST")
@click.option("--check", is_flag=True, help="Make none: read the newest again and compare every byte.")
@click.option("--list", "as_list", is_flag=True, help="Make none: list the snapshots.")
@click.option("--keep", type=click.IntRange(min=1), metavar="N", help="Remove all but the newest N snapshots.")
@_snapshot_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@workspace_option
@click.pass_context
def backup_command(
    ctx: click.Context,
    dest: str,
    check: bool,
    as_list: bool,
    keep: int | None,
    snapshot: str | None,
    as_json: bool,
) -> None:
    """Copy the whole workspace into DEST, a folder or a URL, while runs write. Only what is new is sent.

    Each backup is a snapshot of its own, which `runstone restore` brings back. Give each workspace a DEST of its own.
    A backup that was broken off leaves those before it as they were; the next one goes on.

    \b
    runstone backup /mnt/disk/runstone
    runstone backup s3://bucket/runstone --keep 30
    runstone backup /mnt/disk/runstone --check
    """
    from runstone.backup import list_snapshots, make_backup, open_place  # only here

    place = open_place(dest)
    if check and as_list:
        raise click.UsageError("--check and --list exclude each other")
    if snapshot is not None and not check:
        raise click.UsageError("--at is of --check, and of `runstone restore`")
    if check:
        _check(ctx, place, snapshot, as_json=as_json)
        return
    if as_list:
        _list(place, list_snapshots(place), as_json=as_json)
        return
    made = make_backup(workspace_of(ctx).path, place, keep=keep)
    if as_json:
        told = ("sent", "sent_bytes", "there_already", "unchanged", "removed", "removed_bytes", "troubles")
        say(to_json({"snapshot": made.snapshot.name, **{name: getattr(made, name) for name in told}}))
    else:
        say(f"snapshot {made.snapshot.name}: {_held(made.snapshot.runs, made.snapshot.size_bytes)}")
        say(f"sent {counted(made.sent, 'file')}, {size(made.sent_bytes)}; the rest was there already")
        if made.removed:
            say(f"removed {counted(made.removed, 'file')} that no snapshot needs, {size(made.removed_bytes)}")
        for trouble in made.troubles:
            say(f"warning: {clean(trouble)}", stderr=True)
    ctx.exit(1 if made.troubles else 0)


@click.command("restore")
@click.argument("src", metavar="SRC")
@click.option("--check", is_flag=True, help="Restore nothing: read it and compare every byte with its hash.")
@_snapshot_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@workspace_option
@click.pass_context
def restore_command(ctx: click.Context, src: str, check: bool, snapshot: str | None, as_json: bool) -> None:
    """Make a workspace of a backup in SRC: where --workspace says, else .runstone in this folder.

    The folder must not be there. A restore that was broken off goes on when it is started again.
    """
    from runstone.backup import open_place, restore_backup  # only here

    place = open_place(src)
    if check:
        _check(ctx, place, snapshot, as_json=as_json)
        return
    given: Path | None = ctx.find_root().obj
    target = given if given is not None else settings.workspace_path() or Path.cwd() / settings.WORKSPACE_FOLDER
    target = settings.expanded(target).absolute()
    done = restore_backup(place, target, snapshot=snapshot)
    if as_json:
        told = {"snapshot": done.snapshot.name, "workspace": str(target), "runs": done.snapshot.runs}
        say(to_json({**told, "fetched": done.fetched, "fetched_bytes": done.fetched_bytes}))
        return
    say(f"restored {done.snapshot.name} into {clean(target)}: {_held(done.snapshot.runs, done.snapshot.size_bytes)}")


def _check(ctx: click.Context, place: Place, snapshot: str | None, *, as_json: bool) -> None:
    from runstone.backup import check_backup  # only here

    found = check_backup(place, snapshot=snapshot)
    if as_json:
        say(
            to_json(
                {
                    "snapshot": found.snapshot.name,
                    "files": found.files,
                    "size_bytes": found.size_bytes,
                    "problems": found.problems,
                }
            )
        )
    else:
        for problem in found.problems:
            say(clean(problem), stderr=True)
        word = f"{counted(len(found.problems), 'problem')}" if found.problems else "all as it was written"
        say(f"{found.snapshot.name}: {counted(found.files, 'file')}, {size(found.size_bytes)} read; {word}")
    ctx.exit(1 if found.problems else 0)


def _list(place: Place, names: list[str], *, as_json: bool) -> None:
    from runstone.backup import find_snapshot  # only here

    found = [find_snapshot(place, name) for name in names]
    if as_json:
        told = ("name", "at", "source", "runs", "size_bytes")
        say(to_json([{name: getattr(one, name) for name in told} for one in found]))
    elif not found:
        say(f"no backup in {clean(place)}", stderr=True)
    else:
        rows = [
            (
                Text(one.name),
                Text(moment_text(datetime.fromtimestamp(one.at, UTC))),
                Text(clean(one.source)),
                Text(f"{one.runs:,}"),
                Text(size(one.size_bytes)),
            )
            for one in found
        ]
        show(table(["name", "made", ("of", "fold"), ("runs", "right"), ("size", "right")], rows))


def _held(runs: int, size_bytes: int) -> str:
    return f"{counted(runs, 'run')}, {size(size_bytes)}"
