"""`runstone sync`, `push`, `pull`, `login`, `logout`: workspaces on a server, and moving things between workspaces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from runstone.cli._output import ago, cell, clean, counted, say, short_id, show, size, table, to_json
from runstone.cli.main import Suggesting, workspace_option
from runstone.errors import InvalidValue
from runstone.settings import is_url
from runstone.workspace import Workspace, ensure_workspace, open_workspace

if TYPE_CHECKING:
    from runstone.sync.moving import Choice, Moving
    from runstone.sync.spool import Spool

_STYLE = {"new": "green", "grown": "cyan", "unchanged": "dim", "different": "red"}


@click.group("sync", cls=Suggesting, invoke_without_command=True)
@click.option("--watch", is_flag=True, help="Go on for ever, for machines on which a helper is not wanted.")
@click.option("--again", is_flag=True, help="Try once more what a server refused, or has removed.")
@click.option(
    "--patience", type=click.FloatRange(0), default=30.0, metavar="SECONDS", help="Without a server. Default: 30."
)
@click.pass_context
def sync_group(ctx: click.Context, watch: bool, again: bool, patience: float) -> None:
    """Send what is left on this machine of runs for a server (RUNSTONE_WORKSPACE=https://…).

    A helper does that while a run goes on and until the server has it; this is for what it left: when the server was
    away for a day, or the machine was switched off.
    """
    if ctx.invoked_subcommand is not None:
        return
    from runstone.sync.client import Unreachable
    from runstone.sync.sending import Sender, send_all
    from runstone.sync.spool import spools

    found = spools()
    if not found:
        say("no run was ever written here for a server")
        return
    problems = 0
    for spool in found:
        if again:
            for folder in spool.runs():
                for kind in ("refused", "opened"):
                    spool.forget(kind, folder.name)
        if not Sender(spool).has_work and not watch:
            say(f"{spool.address}: the server has everything{_refused(spool)}")
            continue
        try:
            sent = send_all(spool, patience_s=patience, watch=watch)
        except Unreachable as error:
            problems += 1
            say(f"{spool.address}: {clean(error)}; nothing is lost, `runstone sync` goes on", stderr=True)
            continue
        if sent is None:
            say(f"{spool.address}: a helper sends already; `runstone sync status` tells how far it is")
            continue
        told = f"{counted(sent.runs, 'run')} ({size(sent.bytes)}), {counted(sent.contents, 'content')}"
        say(f"{spool.address}: sent {told} ({size(sent.content_bytes)}){_refused(spool)}")
        problems += sent.refused
    ctx.exit(1 if problems else 0)


def _refused(spool: Spool) -> str:
    count = sum(spool.noted("refused", folder.name) is not None for folder in spool.runs())
    return f"; {counted(count, 'run')} refused, see `runstone sync status`" if count else ""


@sync_group.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status_command(as_json: bool) -> None:
    """Tell what is on this machine for servers, and what of it they have."""
    from runstone.sync.spool import spools

    found = [_status(spool) for spool in spools()]
    if as_json:
        say(to_json(found))
        return
    if not found:
        say("no run was ever written here for a server")
        return
    for one in found:
        say(f"{one['url']}  {'a helper sends' if one['is_sending'] else 'nobody sends'}")
        if one["problem"]:
            say(f"  {clean(one['problem'])}")
        rows = [
            (
                cell(short_id(run["id"])),
                cell(run["project"]),
                cell(run["name"]),
                Text(run["state"], style={"there": "green", "refused": "red"}.get(run["state"], "yellow")),
                cell(run["detail"]),
            )
            for run in one["runs"]
        ]
        show(table(["id", "project", ("name", "fold"), "", ("", "fold")], rows))


def _status(spool: Spool) -> dict[str, Any]:
    from runstone.runlog.reader import read_journal
    from runstone.sync.shipping import print_of

    runs = []
    for folder in spool.runs():
        journal = read_journal(folder)
        done, refused = spool.noted("done", folder.name), spool.noted("refused", folder.name)
        state, detail = "waiting", ""
        if refused is not None:
            state, detail = "refused", str(refused.get("reason", ""))
        elif done is not None and done.get("print") == print_of(folder):
            state, detail = "there", f"since {ago(datetime.fromtimestamp(done['at'], UTC), datetime.now(UTC))}"
        elif any(writer.is_alive for writer in journal.writers):
            state = "running"
        runs.append(
            {"id": folder.name, "project": journal.project, "name": journal.name, "state": state, "detail": detail}
        )
    told = spool.told()
    return {
        "url": str(spool.address),
        "folder": str(spool.path),
        "is_sending": spool.is_sent,
        "problem": told.get("problem", ""),
        "runs": runs,
    }


def _choice_options(command: Any) -> Any:
    for option in (
        click.option("--models", "-m", multiple=True, metavar="NAME", help="Model with all its versions; '*': all."),
        click.option(
            "--datasets", "-d", multiple=True, metavar="NAME", help="Dataset with all its versions; '*': all."
        ),
        click.option(
            "--runs", "-r", "filter", metavar="FILTER", help="Runs that a filter finds; '': all. See docs/filters.md."
        ),
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
    ):
        command = option(command)
    return command


@click.command("push")
@click.argument("target")
@_choice_options
@workspace_option
@click.pass_context
def push_command(
    ctx: click.Context,
    target: str,
    filter: str | None,
    datasets: Sequence[str],
    models: Sequence[str],
    as_json: bool,
) -> None:
    """Bring runs, datasets and models to TARGET: a folder, or the URL of a server. Default: all runs.

    What is there already stays; what went on there and here is told, and left alone. Pushing again changes nothing.
    """
    from runstone.sync.moving import push

    source = _folder(open_workspace(ctx.find_root().obj), "push from")
    _tell(ctx, push(source, target if is_url(target) else Path(target), _choice(filter, datasets, models)), as_json)


@click.command("pull")
@click.argument("source")
@_choice_options
@workspace_option
@click.pass_context
def pull_command(
    ctx: click.Context,
    source: str,
    filter: str | None,
    datasets: Sequence[str],
    models: Sequence[str],
    as_json: bool,
) -> None:
    """Bring runs, datasets and models from SOURCE, a folder or the URL of a server, into this workspace.

    Default: all runs. What is here already stays. Pulling again changes nothing.
    """
    from runstone.sync.moving import pull

    place = ctx.find_root().obj
    target = _folder(ensure_workspace(None if is_url(place) else place), "pull into")
    _tell(ctx, pull(target, source if is_url(source) else Path(source), _choice(filter, datasets, models)), as_json)


def _choice(filter: str | None, datasets: Sequence[str], models: Sequence[str]) -> Choice:
    from runstone.sync.moving import Choice

    return Choice("" if filter is None and not datasets and not models else filter, tuple(datasets), tuple(models))


def _folder(workspace: Workspace, what: str) -> Workspace:
    if workspace.url is not None or (workspace.path / "remote.json").is_file():
        raise InvalidValue(f"name a folder to {what} with --workspace: RUNSTONE_WORKSPACE is a server")
    return workspace


def _tell(ctx: click.Context, moving: Moving, as_json: bool) -> None:
    if as_json:
        say(to_json(asdict(moving)))
    else:
        for kind in ("runs", "datasets", "models"):
            of_kind = [one for one in moving.items if one.kind == kind]
            told = [f"{sum(one.outcome == word for one in of_kind):,} {word}" for word in _STYLE]
            told = [one for one in told if not one.startswith("0 ")]
            if of_kind:
                say(f"{kind}: {', '.join(told)} ({size(sum(one.bytes for one in of_kind))})")
        if not moving.items:
            say("there was nothing to move")
        else:
            say(f"{counted(moving.contents, 'content')} moved ({size(moving.content_bytes)})")
        for one in moving.items:
            if one.outcome == "different":
                say(f"  {clean(one.name)}: {clean(one.reason)}", stderr=True)
    ctx.exit(1 if any(one.outcome == "different" for one in moving.items) else 0)


@click.command("login")
@click.argument("url")
@click.option("--token", help="The token; default: asked for, so that it stands in no history.")
def login_command(url: str, token: str | None) -> None:
    """Keep the token for the server at URL, in a file that only you can read."""
    from runstone.sync.address import Address, keep_token
    from runstone.sync.client import Client

    address = Address.parse(url)
    token = (token or click.prompt("token", hide_input=True)).strip()
    Client(address, token).get("/api/sync")  # a token that is not known is not kept
    say(f"kept in {clean(keep_token(address, token))}; now: export RUNSTONE_WORKSPACE={address}")


@click.command("logout")
@click.argument("url")
def logout_command(url: str) -> None:
    """Forget the token for the server at URL."""
    from runstone.sync.address import Address, keep_token

    keep_token(Address.parse(url), None)
    say("forgotten; `runstone tokens revoke` on the server makes it worth nothing")
