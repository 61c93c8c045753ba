"""`runstone gc`, `runstone verify` and `runstone blobs`: the content of a workspace, collected, checked, sent."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from runstone.cli._output import cell, clean, counted, say, short_id, show, size, table, to_json
from runstone.cli.main import workspace_of, workspace_option
from runstone.gc import Checked, Collected, CollectedElsewhere, HeldBytes, check, collect, collect_elsewhere
from runstone.gc.collection import GRACE_S
from runstone.settings import bytes_of

_UNITS = {"s": 1, "min": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}
_MOST_ROWS = 40


class Duration(click.ParamType[float]):
    """A duration such as `30d`, `12h`, `90min`, `0s`, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds."""
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]+)?) ?(s|min|h|d|w)", str(value).strip())
        if found is None:
            self.fail(f"{value!r} is no duration such as 30d, 12h, 90min or 0s", param, ctx)
        return float(found[1]) * _UNITS[found[2]]


class Size(click.ParamType[int]):
    """A size such as `20G`, `500M` or `1T`, in bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes."""
        found = value if isinstance(value, int) else bytes_of(str(value))
        if found is None:
            self.fail(f"{value!r} is no size such as 20G, 500M or 1T", param, ctx)
        return found


@click.command("gc")
@click.option("--dry-run", is_flag=True, help="Say who holds what and what would be freed; remove nothing.")
@click.option("--purge-deleted", is_flag=True, help="Remove deleted runs for good; without it they can be restored.")
@click.option("--older-than", type=Duration(), help="With --purge-deleted: runs deleted at least so long ago.")
@click.option(
    "--grace",
    type=Duration(),
    default=GRACE_S,
    show_default=False,
    help="Content that was stored or used so lately stays. Default: 1d.",
)
@click.option("--remote", "is_remote", is_flag=True, help="Collect in the store elsewhere, not here.")
@click.option(
    "--with",
    "others",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="WORKSPACE",
    help="With --remote: another workspace that uses the store; may be repeated.",
)
@click.option(
    "--forget", multiple=True, metavar="ID", help="With --remote: a workspace that used the store and is gone."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@workspace_option
@click.pass_context
def gc_command(
    ctx: click.Context,
    dry_run: bool,
    purge_deleted: bool,
    older_than: float | None,
    grace: float,
    is_remote: bool,
    others: Sequence[Path],
    forget: Sequence[str],
    as_json: bool,
) -> None:
    """Free the space of content that nothing refers to any more, and say who holds the rest.

    Content stays as long as a run (a deleted one too, until --purge-deleted), a version of a dataset or model, or an
    unfinished import refers to it. Runs and processes may store meanwhile. A store elsewhere is left as it is, but with
    --remote; that refuses where another workspace uses the store and is not named.
    """
    if older_than is not None and not purge_deleted:
        raise click.UsageError("--older-than says which deleted runs go; give --purge-deleted too")
    if (others or forget) and not is_remote:
        raise click.UsageError("--with and --forget go with --remote")
    if is_remote and purge_deleted:
        raise click.UsageError("--purge-deleted removes runs here; run `runstone gc --purge-deleted` first")
    workspace = workspace_of(ctx)
    if is_remote:
        there = collect_elsewhere(
            workspace.path, others=others, forget=forget, dry_run=dry_run, grace_s=grace, now=time.time()
        )
        say(to_json(dataclasses.asdict(there))) if as_json else _print_elsewhere(there)
        return
    found = collect(
        workspace.path,
        dry_run=dry_run,
        grace_s=grace,
        purge_deleted=purge_deleted,
        older_than_s=older_than or 0.0,
    )
    if as_json:
        say(to_json(_as_dict(found)))
        return
    _print(found)


def _print_elsewhere(found: CollectedElsewhere) -> None:
    say(f"{clean(found.store)} is used by {', '.join(clean(user) for user in found.users)}")
    say(f"{counted(found.count, 'file')}, of which {found.held_count:,} are referred to")
    if found.recent_count:
        say(f"kept: {counted(found.recent_count, 'file')} that came lately")
    word = "would free" if found.is_dry else "freed"
    broken = f", {counted(found.broken_count, 'broken upload')}" if found.broken_count else ""
    say(f"{word} {size(found.freed_bytes)}: {counted(found.freed_count, 'unused file')}{broken}")


def _print(found: Collected) -> None:
    holding = [held for held in found.held if held.size_bytes]
    if holding:
        rows = [
            (
                Text(held.holder.kind),
                cell(held.holder.name),
                Text(short_id(held.holder.id) if held.holder.kind == "run" else "-"),
                Text("deleted" if held.holder.is_deleted else "running" if held.holder.is_alive else ""),
                Text(size(held.size_bytes)),
                Text(size(held.own_bytes)),
            )
            for held in holding[:_MOST_ROWS]
        ]
        show(table(["held by", "name", "id", "", ("holds", "right"), ("alone", "right")], rows))
        if len(holding) > _MOST_ROWS:
            say(f"and {len(holding) - _MOST_ROWS:,} more; --json lists all")
        say()
    say(f"content: {size(found.store_bytes)}, of which {size(found.held_bytes)} are referred to")
    if found.recent_count:
        say(f"kept: {counted(found.recent_count, 'file')}, {size(found.recent_bytes)}, which nothing refers to yet")
    word = "would free" if found.is_dry else "freed"
    parts = [
        (found.freed_count, found.freed_bytes, "unused file"),
        (found.partial_count, found.partial_bytes, "unfinished file"),
        (found.cache_count, found.cache_bytes, "cached file"),
        (len(found.purged), sum(freed for _run, freed in found.purged), "deleted run"),
    ]
    told = [f"{counted(count, what)} ({size(freed)})" for count, freed, what in parts if count]
    say(f"{word} {size(found.all_freed_bytes)}" + (f": {', '.join(told)}" if told else ""))


def _as_dict(found: Collected) -> dict[str, Any]:
    return {
        "dry_run": found.is_dry,
        "held": [_held_as_dict(held) for held in found.held],
        "store_bytes": found.store_bytes,
        "held_bytes": found.held_bytes,
        "recent": {"count": found.recent_count, "bytes": found.recent_bytes},
        "unused": {"count": found.freed_count, "bytes": found.freed_bytes},
        "unfinished": {"count": found.partial_count, "bytes": found.partial_bytes},
        "cached": {"count": found.cache_count, "bytes": found.cache_bytes},
        "purged": [{"run": run, "bytes": freed} for run, freed in found.purged],
        "freed_bytes": found.all_freed_bytes,
    }


def _held_as_dict(held: HeldBytes) -> dict[str, Any]:
    holder = held.holder
    return {
        "kind": holder.kind,
        "name": holder.name,
        "id": holder.id,
        "deleted": holder.is_deleted,
        "running": holder.is_alive,
        "bytes": held.size_bytes,
        "own_bytes": held.own_bytes,
    }


@click.command("verify")
@click.option("--blobs", "only_blobs", is_flag=True, help="Only the content: no histories, no files of runs.")
@click.option("--remote", "is_remote", is_flag=True, help="Read what lies only in the store elsewhere, too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@workspace_option
@click.pass_context
def verify_command(ctx: click.Context, only_blobs: bool, is_remote: bool, as_json: bool) -> None:
    """Read content, histories and files of runs again; name what is not as it was written, and who refers to it.

    What lies only in the store elsewhere is read with --remote: all of it is fetched, and nothing of it stays here.
    Exit code 1 where something is found.
    """
    found = check(workspace_of(ctx).path, histories=not only_blobs, remote=is_remote)
    if as_json:
        say(to_json(_checked_as_dict(found)))
    else:
        for line in _problems(found):
            say(line)
    if found.problems:
        ctx.exit(1)


def _problems(found: Checked) -> Iterable[str]:
    for problem in found.problems:
        yield f"{problem.what}: {clean(problem.path)}{': ' if problem.path else ''}{clean(problem.reason)}"
        if problem.what == "run":
            yield from (f"    of {clean(run)}: put the file back from a backup or a copy" for run in problem.holders)
        elif problem.what != "history":
            yield from (f"    held by {clean(holder)}" for holder in problem.holders or ("nobody",))
    parts = [f"{counted(found.count, 'file')} of content ({size(found.size_bytes)})"]
    if found.there_count:
        parts.append(f"{counted(found.there_count, 'file')} of {clean(found.store)} ({size(found.there_bytes)})")
    if found.histories:
        parts.append(counted(found.histories, "history", "histories"))
    if found.runs:
        parts.append(counted(found.runs, "run"))
    checked = " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
    yield f"checked {checked}: {counted(len(found.problems), 'problem') if found.problems else 'all as written'}"
    if found.unread_count:
        only = f"{counted(found.unread_count, 'file')} of content that {'lies' if found.unread_count == 1 else 'lie'}"
        yield f"not read: {only} only in {clean(found.store)}; --remote reads them there"


def _checked_as_dict(found: Checked) -> dict[str, Any]:
    return {
        "files": found.count,
        "bytes": found.size_bytes,
        "histories": found.histories,
        "runs": found.runs,
        "remote": {
            "store": found.store or None,
            "files": found.there_count,
            "bytes": found.there_bytes,
            "not_read": found.unread_count,
        },
        "problems": [
            {"what": one.what, "path": one.path, "reason": one.reason, "holders": list(one.holders)}
            for one in found.problems
        ],
    }


@click.group("blobs")
def blobs_group() -> None:
    """Send the content of a workspace to its remote store, and make room here."""


@blobs_group.command("push", short_help="Send all content that the remote store lacks.")
@click.option("--check", "is_checked", is_flag=True, help="Read back and hash what was sent.")
@workspace_option
@click.pass_context
def push_command(ctx: click.Context, is_checked: bool) -> None:
    """Send all content that the remote store lacks (RUNSTONE_BLOBS, or `blobs` in settings.json). Goes on where a
    push was broken off.
    """
    blobs = workspace_of(ctx).blobs
    moved = blobs.push(check=is_checked)
    say(
        f"sent {counted(moved.count, 'file')} ({size(moved.size_bytes)}) to {clean(blobs.remote)}; "
        f"{moved.there_already:,} lay there already"
    )


@blobs_group.command("trim", short_help="Remove content here that lies in the remote store too.")
@click.option(
    "--to",
    "keep_bytes",
    type=Size(),
    default=0,
    help="Until so much is here, such as 20G; without it, all that may go.",
)
@workspace_option
@click.pass_context
def trim_command(ctx: click.Context, keep_bytes: int) -> None:
    """Remove content here that lies in the remote store too, the longest unused first; it comes back when it is read.

    What was stored or read within the last hour stays, and files below 256 KiB. `runstone serve --blobs-cache` does it
    by itself.
    """
    blobs = workspace_of(ctx).blobs
    count, freed = blobs.trim(keep_bytes)
    say(f"removed {counted(count, 'file')} here ({size(freed)}), which {clean(blobs.remote or '')} has")
