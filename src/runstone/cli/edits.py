"""`runstone runs rename`, `tag`, `note`, `pin`, `archive`, `delete`, `purge`, …: changing runs, one or many."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from runstone.cli._output import cell, clean, counted, say, short_id, size, to_json
from runstone.cli.main import workspace_of, workspace_option
from runstone.editing import Change, Edited, Purge

Command = TypeVar("Command", bound=Callable[..., Any])


class _Chosen:
    """Which runs a command line means, and how it wants to be told."""

    def __init__(
        self, ctx: click.Context, runs: Sequence[str], filter: str | None, *, dry_run: bool, as_json: bool
    ) -> None:
        if filter is None and not runs:
            raise click.UsageError("name runs, or choose them by --filter")
        if filter is not None and runs:
            raise click.UsageError("name runs or choose them by --filter, not both")
        self.workspace = workspace_of(ctx)
        self.dry_run = dry_run
        self.as_json = as_json
        # All are looked up before anything is done: a typo must not leave half of it done.
        self.runs: str | list[str] = filter if filter is not None else self._ids_of(runs)

    def _ids_of(self, runs: Sequence[str]) -> list[str]:
        return [self.workspace.run(one).id for one in runs]


def _choosing(name: str, short_help: str) -> Callable[[Callable[..., None]], click.Command]:
    """Make a command of a function that takes the context, the runs that were chosen, and options of its own."""

    def decorate(function: Callable[..., None]) -> click.Command:
        @click.pass_context
        def called(
            ctx: click.Context, /, runs: Sequence[str], filter: str | None, dry_run: bool, as_json: bool, **options: Any
        ) -> None:
            function(ctx, _Chosen(ctx, runs, filter, dry_run=dry_run, as_json=as_json), **options)

        called.__doc__ = function.__doc__
        options = [
            click.argument("runs", metavar="[RUN]...", nargs=-1),
            click.option("-f", "--filter", metavar="FILTER", help="The runs that this filter describes."),
            click.option("--dry-run", is_flag=True, help="Change nothing, and list what would change."),
            click.option("--json", "as_json", is_flag=True, help="What changed, and what takes it back, as JSON."),
            workspace_option,
        ]
        for option in (*reversed(options), *reversed(getattr(function, "__click_params__", ()))):
            if isinstance(option, click.Parameter):
                called.__click_params__ = [*getattr(called, "__click_params__", ()), option]  # type: ignore[attr-defined]
            else:
                called = option(called)
        return click.command(name, short_help=short_help)(called)

    return decorate


def _told(chosen: _Chosen, edited: Edited, unchanged: str) -> None:
    """Say what changed, run by run."""
    if chosen.as_json:
        told = [
            {name: getattr(change, name) for name in ("run_id", "name", "project", "field", "before", "after")}
            for change in edited.changes
        ]
        say(to_json({"is_dry": edited.is_dry, "runs": edited.run_ids, "changes": told, "undo": edited.undo()}))
        return
    for change in edited.changes:
        say(f"{'would change ' if edited.is_dry else ''}{_called(change)}: {_said(change)}")
    rest = len(edited.run_ids) - len(edited.changed_ids)
    if not edited.run_ids:
        say("no run matches", stderr=True)
    elif rest:
        say(f"{counted(rest, 'run')} {unchanged}")


def _called(change: Change) -> str:
    return f"{clean(change.name)} ({short_id(change.run_id)}) of {clean(change.project)}"


def _said(change: Change) -> str:
    if change.field == "tags":
        return ", ".join(
            f"tag {clean(key)} {_value(change.before[key])} -> {_value(text)}" for key, text in change.after.items()
        )
    return f"{change.field} {_value(change.before)} -> {_value(change.after)}"


def _value(value: Any) -> str:
    if isinstance(value, str):
        return clean(repr(value if len(value) <= 60 else f"{value[:59]}…"))
    return cell(value).plain


def _text_or_none(text: str | None, *, clear: bool, option: str) -> str | None:
    if clear == (text is not None):
        raise click.UsageError(f"give {option} or --clear")
    return text


# --- saying something of runs -----------------------------------------------------------------------------------------


@_choosing("rename", "Give runs another name.")
@click.option("--to", "name", required=True, metavar="NAME", help="The name.")
def rename_command(_ctx: click.Context, chosen: _Chosen, name: str) -> None:
    """Give runs another name. Their ids stay."""
    _told(chosen, chosen.workspace.edit(chosen.runs, name=name, dry_run=chosen.dry_run), "had this name already")


@_choosing("tag", "Set tags of runs.")
@click.option("-t", "--tag", "tags", required=True, multiple=True, metavar="NAME=VALUE", help="A tag; may be repeated.")
def tag_command(_ctx: click.Context, chosen: _Chosen, tags: Sequence[str]) -> None:
    """Set tags of runs. A tag without `=VALUE` has the empty text."""
    pairs = [tag.partition("=") for tag in tags]
    wanted = {name: value for name, _equals, value in pairs}
    _told(chosen, chosen.workspace.edit(chosen.runs, set_tags=wanted, dry_run=chosen.dry_run), "had these tags already")


@_choosing("untag", "Remove tags of runs.")
@click.option("-t", "--tag", "tags", required=True, multiple=True, metavar="NAME", help="A tag; may be repeated.")
def untag_command(_ctx: click.Context, chosen: _Chosen, tags: Sequence[str]) -> None:
    """Remove tags of runs."""
    _told(chosen, chosen.workspace.edit(chosen.runs, remove_tags=tags, dry_run=chosen.dry_run), "had no such tag")


@_choosing("note", "Put another text into the notes of runs.")
@click.option("-m", "--text", metavar="TEXT", help="The notes.")
@click.option("--clear", is_flag=True, help="No notes.")
def note_command(_ctx: click.Context, chosen: _Chosen, text: str | None, clear: bool) -> None:
    """Put another text into the notes of runs. `\\n` is not a new line: quote a real one."""
    notes = _text_or_none(text, clear=clear, option="--text")
    _told(chosen, chosen.workspace.edit(chosen.runs, notes=notes, dry_run=chosen.dry_run), "had these notes already")


@_choosing("group", "Put runs into a group.")
@click.option("--to", "name", metavar="NAME", help="The group.")
@click.option("--clear", is_flag=True, help="No group.")
def group_command(_ctx: click.Context, chosen: _Chosen, name: str | None, clear: bool) -> None:
    """Put runs into a group of their project, or take them out of theirs."""
    group = _text_or_none(name, clear=clear, option="--to")
    _told(chosen, chosen.workspace.edit(chosen.runs, group=group, dry_run=chosen.dry_run), "were in it already")


# --- marking and putting away -----------------------------------------------------------------------------------------


@_choosing("pin", "Mark runs, to find them again: pinned = true.")
def pin_command(_ctx: click.Context, chosen: _Chosen) -> None:
    """Mark runs, to find them again: `runstone runs list "pinned = true"`."""
    _told(chosen, chosen.workspace.edit(chosen.runs, pinned=True, dry_run=chosen.dry_run), "were pinned already")


@_choosing("unpin", "Take the mark of runs away.")
def unpin_command(_ctx: click.Context, chosen: _Chosen) -> None:
    """Take the mark of runs away."""
    _told(chosen, chosen.workspace.edit(chosen.runs, pinned=False, dry_run=chosen.dry_run), "were not pinned")


@_choosing("archive", "Put runs away: lists show them only where asked for.")
def archive_command(_ctx: click.Context, chosen: _Chosen) -> None:
    """Put runs away: lists show them only with --archived, or where a filter says `archived = true`."""
    _told(chosen, chosen.workspace.edit(chosen.runs, archived=True, dry_run=chosen.dry_run), "were archived already")


@_choosing("unarchive", "Show archived runs in lists again.")
def unarchive_command(_ctx: click.Context, chosen: _Chosen) -> None:
    """Show archived runs in lists again."""
    _told(chosen, chosen.workspace.edit(chosen.runs, archived=False, dry_run=chosen.dry_run), "were not archived")


# --- removing ---------------------------------------------------------------------------------------------------------


@_choosing("delete", "Hide runs; restore brings them back.")
def delete_command(_ctx: click.Context, chosen: _Chosen) -> None:
    """Hide runs from lists. Their files stay, and `runstone runs restore` brings them back."""
    edited = chosen.workspace.edit(chosen.runs, deleted=True, dry_run=chosen.dry_run)
    if chosen.as_json or chosen.dry_run:
        _told(chosen, edited, "are deleted already")
        return
    for change in edited.changes:
        is_running = not chosen.workspace.run(change.run_id).status.is_ended
        note = "; it is still running" if is_running else ""
        say(f"deleted {_called(change)}{note}; `runstone runs restore {short_id(change.run_id)}` brings it back")
    _say_rest(chosen, edited, "is deleted already")


@_choosing("restore", "Show deleted runs in lists again.")
def restore_command(_ctx: click.Context, chosen: _Chosen) -> None:
    """Show deleted runs in lists again. A filter looks among the deleted ones."""
    edited = chosen.workspace.edit(chosen.runs, deleted=False, dry_run=chosen.dry_run)
    if chosen.as_json or chosen.dry_run:
        _told(chosen, edited, "are not deleted")
        return
    for change in edited.changes:
        say(f"restored {_called(change)}")
    _say_rest(chosen, edited, "is not deleted")


def _say_rest(chosen: _Chosen, edited: Edited, what: str) -> None:
    for run_id in edited.run_ids:
        if run_id not in edited.changed_ids:
            info = chosen.workspace.run(run_id)
            say(f"{clean(info.name)} ({short_id(info.id)}) of {clean(info.project)} {what}")
    if not edited.run_ids:
        say("no run matches", stderr=True)


@_choosing("purge", "Remove deleted runs for good.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def purge_command(ctx: click.Context, chosen: _Chosen, yes: bool) -> None:
    """Remove deleted runs for good, with the bytes that this frees. A filter looks among the deleted ones.

    A run stays where something writes to it, or a registered version of a model or dataset was made by it. Content that
    nobody refers to any more goes with `runstone gc`.
    """
    planned = chosen.workspace.purge(chosen.runs, dry_run=True)
    if chosen.dry_run or not planned.gone:
        _purged(chosen, planned)
        ctx.exit(1 if planned.refused and not planned.gone else 0)
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("nobody can be asked here: give --yes to remove them for good")
        what = f"{counted(len(planned.gone), 'run')} of {size(planned.freed_bytes)}"
        click.confirm(f"remove {what} for good?", abort=True, err=True)
    # Those that were shown, not those that a filter finds by now.
    run_ids = [run.run_id for run in planned.gone] + [run.run_id for run in planned.refused]
    done = chosen.workspace.purge(run_ids)
    _purged(chosen, done)
    ctx.exit(1 if done.refused else 0)


def _purged(chosen: _Chosen, purge: Purge) -> None:
    if chosen.as_json:
        gone = [{"run_id": one.run_id, "name": one.name, "size_bytes": one.size_bytes} for one in purge.gone]
        refused = [{"run_id": one.run_id, "name": one.name, "reason": one.reason} for one in purge.refused]
        say(
            to_json(
                {
                    "is_dry": purge.is_dry,
                    "gone": gone,
                    "refused": refused,
                    "freed_bytes": purge.freed_bytes,
                    "content_bytes": purge.content_bytes,
                }
            )
        )
        return
    would = "would remove" if purge.is_dry else "removed"
    for run in purge.gone:
        say(f"{would} {clean(run.name)} ({short_id(run.run_id)}) of {clean(run.project)}: {size(run.size_bytes)}")
    for kept in purge.refused:
        say(
            f"kept {clean(kept.name)} ({short_id(kept.run_id)}) of {clean(kept.project)}: {clean(kept.reason)}",
            stderr=True,
        )
    for trouble in purge.troubles:
        say(f"warning: {clean(trouble)}", stderr=True)
    if purge.gone:
        freed = f"{'would free' if purge.is_dry else 'freed'} {size(purge.freed_bytes)}"
        left = f"; {size(purge.content_bytes)} of content is nobody's then: `runstone gc` frees it"
        say(freed + (left if purge.content_bytes else ""))
    elif not purge.refused:
        say("no deleted run matches", stderr=True)


COMMANDS = (
    rename_command,
    tag_command,
    untag_command,
    note_command,
    group_command,
    pin_command,
    unpin_command,
    archive_command,
    unarchive_command,
    delete_command,
    restore_command,
    purge_command,
)
