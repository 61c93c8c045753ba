"""`runstone ui` and `runstone serve`: the page and the API; `users`, `tokens`, `audit`: who may use them."""

from __future__ import annotations

import getpass
import sys
import webbrowser
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runstone import settings
from runstone.cli._output import cell, clean, say, show, table, to_json
from runstone.cli.main import Suggesting, workspace_of, workspace_option
from runstone.errors import InvalidConfig
from runstone.workspace import Workspace

if TYPE_CHECKING:
    from runstone.index.accounts import Accounts
    from runstone.server.config import ServerConfig

_ROLES = click.Choice(["viewer", "contributor", "maintainer", "admin"])
_DAY_S = 86_400.0


@click.command("ui")
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=0, help="Port; default: 6060, or the next that is free."
)
@click.option("--no-open", is_flag=True, help="Print the address and open no browser.")
@click.option("--terminal", is_flag=True, help="Show runs here in the terminal instead of in a browser.")
@click.option("--develop", is_flag=True, hidden=True, help="Read the files of the page again at each request.")
@workspace_option
@click.pass_context
def ui_command(ctx: click.Context, port: int, no_open: bool, terminal: bool, develop: bool) -> None:
    """Open the page on this machine's workspace.

    Only this machine can reach it, and only who has the address that is printed: it holds a key that works once.
    """
    workspace = workspace_of(ctx)
    if terminal:
        from runstone.terminal import run_terminal  # only here

        run_terminal(workspace)
        return
    config = _config(port=port, local_name=getpass.getuser())
    _serve(workspace, config, opens=not no_open, is_page_fixed=not develop)


@click.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0: all of them.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=0, help="Port; default: 6060, or the next that is free."
)
@click.option("--root-path", default="", metavar="PATH", help="Prefix under which a proxy shows it, such as /runstone.")
@click.option("--allowed-hosts", multiple=True, metavar="NAME", help="Name under which it may be reached; repeatable.")
@click.option("--trusted-proxy", "proxies", multiple=True, metavar="ADDRESS", help="Whose X-Forwarded-* is believed.")
@click.option("--index", metavar="URL", help="PostgreSQL for the index and accounts; default: files in the workspace.")
@click.option("--blobs", metavar="URL", help="Store that content goes to, such as s3://bucket/prefix. Default: none.")
@click.option("--blobs-cache", metavar="SIZE", help="How much of that stays here too, such as 50G. Default: all.")
@click.option("--mlflow/--no-mlflow", "mlflow", default=True, show_default=True, help="Answer clients of MLflow.")
@click.option("--tls-cert", type=click.Path(path_type=Path), help="Certificate, PEM.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="Its key, PEM.")
@workspace_option
@click.pass_context
def serve_command(
    ctx: click.Context,
    host: str,
    port: int,
    root_path: str,
    allowed_hosts: Sequence[str],
    proxies: Sequence[str],
    index: str | None,
    blobs: str | None,
    blobs_cache: str | None,
    mlflow: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
) -> None:
    """Serve a workspace to a team; the log goes to standard error, as JSON.

    Beyond this machine it starts only when somebody has a token: `runstone users add`, `runstone tokens create`.
    """
    from runstone.index.opening import database_of  # SQL, only here
    from runstone.server.config import is_loopback  # only for serving

    settings.use_blob_store(blobs, cache=blobs_cache)
    config = _config(
        host=host,
        port=port,
        root_path=root_path,
        allowed_hosts=tuple(name for names in allowed_hosts for name in names.split(",")),
        trusted_proxies=tuple(proxies),
        index=database_of(index),
        mlflow=mlflow,
        tls_cert=tls_cert,
        tls_key=tls_key,
        local_name=getpass.getuser() if is_loopback(host) else None,
    )
    _serve(workspace_of(ctx), config, opens=False, has_log=True)


def _config(**options: Any) -> ServerConfig:
    from runstone.server.config import ServerConfig  # only for serving

    return ServerConfig(**options)


def _serve(
    workspace: Workspace, config: ServerConfig, *, opens: bool, has_log: bool = False, is_page_fixed: bool = True
) -> None:
    try:
        from runstone.server.logs import Log
        from runstone.server.serving import serve  # FastAPI and uvicorn, an extra
    except ModuleNotFoundError as error:
        raise InvalidConfig(f"the page needs {error.name!r}: pip install 'runstone[server]'") from None
    opened = not opens

    def announce(url: str, key: str | None) -> None:
        nonlocal opened
        address = url if key is None else f"{url}?key={key}"
        if not opened:
            opened = True
            # The browser may begin before the server does: it listens already, so the request waits.
            webbrowser.open(address)
            say(f"Runstone shows {clean(workspace.path)} at {url} (Ctrl+C ends it)")
            return
        say(f"  {address}" if key is not None else f"Runstone serves {clean(workspace.path)} at {url}")
        sys.stdout.flush()

    quiet = None if has_log else Log(_OnlyProblems())
    serve(workspace, config, announce=announce, log=quiet, is_page_fixed=is_page_fixed)


class _OnlyProblems:
    """A stream that lets through what a person who opened the page has to know."""

    def write(self, line: str) -> int:
        """Write a line of the log, where it tells of a problem of the server."""
        return sys.stderr.write(line) if '"problem": "Traceback' in line or "left_out" in line else len(line)

    def flush(self) -> None:
        """Write what waits."""
        sys.stderr.flush()


# --- who may come in ------------------------------------------------------------------------------------------------


@click.group("users", cls=Suggesting)
@workspace_option
def users_group() -> None:
    """Who may use the server of a team, and what they may do there."""


@users_group.command("add")
@click.argument("name")
@click.option("--role", type=_ROLES, default="contributor", show_default=True, help="What they may do.")
@click.option("--project", default="*", help="In this project only. Default: in all of them.")
@workspace_option
@click.pass_context
def users_add(ctx: click.Context, name: str, role: str, project: str) -> None:
    """Add a user; `runstone tokens create` then makes a token."""
    accounts = _accounts(ctx)
    accounts.add_user(name)
    accounts.set_role(name, project, role)
    accounts.note(_me(), "users add", name, details={"role": role, "project": project})
    say(f"added {clean(name)}; `runstone tokens create {clean(name)}` makes a token")


@users_group.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@workspace_option
@click.pass_context
def users_list(ctx: click.Context, as_json: bool) -> None:
    """List users, their roles and how many tokens of theirs work."""
    found = _accounts(ctx).users()
    if as_json:
        say(
            to_json([{"name": u.name, "created_at": u.created_at, "roles": u.roles, "tokens": u.tokens} for u in found])
        )
        return
    if not found:
        say("no users yet; `runstone users add NAME` adds one")
        return
    rows = [
        (cell(user.name), cell(_roles_text(user.roles)), cell(user.tokens), cell(_moment(user.created_at)))
        for user in found
    ]
    show(table(["user", ("roles", "fold"), ("tokens", "right"), "added"], rows))


@users_group.command("remove")
@click.argument("name")
@workspace_option
@click.pass_context
def users_remove(ctx: click.Context, name: str) -> None:
    """Remove a user with their tokens and sessions."""
    accounts = _accounts(ctx)
    accounts.remove_user(name)
    accounts.note(_me(), "users remove", name)
    say(f"removed {clean(name)}")


@users_group.command("role")
@click.argument("name")
@click.argument("role", type=click.Choice(["viewer", "contributor", "maintainer", "admin", "none"]))
@click.option("--project", default="*", help="In this project only. Default: in all of them.")
@workspace_option
@click.pass_context
def users_role(ctx: click.Context, name: str, role: str, project: str) -> None:
    """Give a user a role, or take it away: `none`."""
    accounts = _accounts(ctx)
    accounts.set_role(name, project, None if role == "none" else role)
    accounts.note(_me(), "users role", name, details={"role": role, "project": project})
    place = "in all projects" if project == "*" else f"in {clean(project)}"
    say(f"{clean(name)} is now {role} {place}")


@click.group("tokens", cls=Suggesting)
@workspace_option
def tokens_group() -> None:
    """Tokens by which programs and browsers show who they are. One is shown once; only its hash is kept."""


@tokens_group.command("create")
@click.argument("user")
@click.option("--label", default="", help="What it is for.")
@click.option(
    "--days", type=click.FloatRange(0, 36_500, min_open=True), help="How long it works. Default: until revoked."
)
@workspace_option
@click.pass_context
def tokens_create(ctx: click.Context, user: str, label: str, days: float | None) -> None:
    """Make a token and print it, this once."""
    from runstone.server.auth import hashed, new_token  # only for tokens

    accounts, token = _accounts(ctx), new_token()
    number = accounts.add_token(user, hashed(token), label=label, lasts_s=days * _DAY_S if days is not None else None)
    accounts.note(_me(), "tokens create", user, details={"token": number, "label": label, "days": days})
    say(token)
    say(f"This is token {number} of {clean(user)}; it is shown only now.", stderr=True)


@tokens_group.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@workspace_option
@click.pass_context
def tokens_list(ctx: click.Context, as_json: bool) -> None:
    """List what is known of tokens."""
    found = _accounts(ctx).tokens()
    if as_json:
        names = ("id", "user", "label", "created_at", "expires_at", "revoked_at", "used_at")
        say(to_json([{name: getattr(one, name) for name in names} for one in found]))
        return
    if not found:
        say("no tokens yet; `runstone tokens create USER` makes one")
        return
    rows = [
        (
            cell(one.id),
            cell(one.user),
            cell(one.label or None),
            cell(_moment(one.created_at)),
            cell("revoked" if one.revoked_at is not None else _moment(one.expires_at) or "when revoked"),
            cell(_moment(one.used_at) or "never"),
        )
        for one in found
    ]
    show(table([("id", "right"), "user", ("label", "fold"), "made", "ends", "last used"], rows))


@tokens_group.command("revoke")
@click.argument("number", type=int)
@workspace_option
@click.pass_context
def tokens_revoke(ctx: click.Context, number: int) -> None:
    """Let a token work no more, nor the sessions that it began."""
    accounts = _accounts(ctx)
    accounts.revoke_token(number)
    accounts.note(_me(), "tokens revoke", str(number))
    say(f"token {number} works no more")


@click.command("audit")
@click.option("--user", help="Only what this user did.")
@click.option(
    "--limit", type=click.IntRange(1, 1_000_000), default=100, show_default=True, help="At most so many lines."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@workspace_option
@click.pass_context
def audit_command(ctx: click.Context, user: str | None, limit: int, as_json: bool) -> None:
    """Show who changed what through the server, and who was let in; the newest first."""
    lines = _accounts(ctx).audit(user=user, limit=limit)
    if as_json:
        names = ("at", "user", "address", "action", "target", "status", "details")
        say(to_json([{name: getattr(line, name) for name in names} for line in lines]))
        return
    if not lines:
        say("nothing was noted yet")
        return
    rows = [
        (
            cell(_moment(line.at)),
            cell(line.user),
            cell(line.action),
            cell(line.target or None),
            cell(line.status or None),
            cell(line.address or None),
        )
        for line in lines
    ]
    show(table(["when", "user", ("what", "fold"), ("of", "fold"), ("status", "right"), "from"], rows))


def _accounts(ctx: click.Context) -> Accounts:
    from runstone.index.accounts import Accounts  # SQL, only here

    accounts = Accounts(workspace_of(ctx).path)
    ctx.call_on_close(accounts.close)
    return accounts


def _me() -> str:
    return f"{getpass.getuser()} (command line)"


def _roles_text(roles: Any) -> str:
    return ", ".join(role if project == "*" else f"{role} in {project}" for project, role in roles.items()) or "none"


def _moment(at: float | None) -> str | None:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC" if at is not None else None
