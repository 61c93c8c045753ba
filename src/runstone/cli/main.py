"""The command `runstone`. Parses, calls, presents; loads a subcommand when it is used.

Exit codes: 0 done; 1 it could not be done (no such run, a file that cannot be read, …); 2 the command line was wrong
(unknown option, a filter that does not parse); 130 interrupted; 141 the reader of a pipe went away.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import click

from runstone._version import __version__
from runstone.errors import InvalidFilter, InvalidValue, RunstoneError
from runstone.settings import is_url
from runstone.workspace import Workspace, open_workspace

Command = TypeVar("Command", bound=Callable[..., Any])
# name: module, attribute, help. Help stands here too, so that `--help` loads no subcommand.
_COMMANDS = {
    "env": ("runstone.cli.env", "env", "Show what a run would record of this machine, Python and code."),
    "run": (
        "runstone.cli.launch",
        "run_command",
        "Run any program as a run: what it prints, its arguments, how it ends.",
    ),
    "console": ("runstone.cli.console", "console_command", "Show what a run printed."),
    "runs": ("runstone.cli.runs", "runs", "List, show, change, put away and remove runs."),
    "sql": ("runstone.cli.sql", "sql_command", "Ask all runs in SQL, read-only."),
    "views": ("runstone.cli.views", "views_group", "Save what to show of which runs."),
    "watch": ("runstone.cli.watch", "watch_command", "Show the curves of a run in the terminal, while it goes on."),
    "compare": ("runstone.cli.compare", "compare_command", "Put runs side by side: what differs, and how they did."),
    "alerts": ("runstone.cli.alerts", "alerts_group", "What runs are watched for, and who is told of it."),
    "report": ("runstone.cli.report", "report_group", "Reports: Markdown with live tables and figures, as one file."),
    "doctor": ("runstone.cli.doctor", "doctor_command", "Say what was wrong with a run."),
    "reproduce": (
        "runstone.cli.reproduce",
        "reproduce_command",
        "Put what a run needs to be done again into a folder; run it there.",
    ),
    "data": ("runstone.cli.data", "data_group", "Versions of data: add, compare, check out, send and fetch."),
    "seal": ("runstone.cli.files", "seal_command", "Make the metrics of ended runs compact."),
    "export": ("runstone.cli.files", "export_command", "Take runs elsewhere: Parquet, CSV, JSON, a bundle, …"),
    "backup": ("runstone.cli.backup", "backup_command", "Copy the whole workspace elsewhere, while runs write."),
    "restore": ("runstone.cli.backup", "restore_command", "Make a workspace of a backup."),
    "models": ("runstone.cli.models", "models_group", "Register, compare, approve, promote and prove models."),
    "ci": ("runstone.cli.ci", "ci_group", "Tell a pull request how its runs did, and let it pass or not."),
    "monitor": ("runstone.cli.monitor", "monitor_group", "Whether versions in use still see what they were made with."),
    "lineage": ("runstone.cli.lineage", "lineage_command", "Show what things came of, and what came of them."),
    "revoke": ("runstone.cli.lineage", "revoke_command", "Say that data, a model or a run must not be used."),
    "gc": ("runstone.cli.gc", "gc_command", "Free the space of content that nothing refers to; say who holds what."),
    "verify": ("runstone.cli.gc", "verify_command", "Read all content and histories again and name what is damaged."),
    "blobs": ("runstone.cli.gc", "blobs_group", "Send the content of a workspace to its remote store."),
    "ui": ("runstone.cli.serve", "ui_command", "Open the page on this machine's workspace."),
    "serve": ("runstone.cli.serve", "serve_command", "Serve a workspace to a team."),
    "sync": ("runstone.cli.sync", "sync_group", "Send what runs have written for a server."),
    "push": ("runstone.cli.sync", "push_command", "Bring runs, datasets and models to another workspace."),
    "pull": ("runstone.cli.sync", "pull_command", "Bring runs, datasets and models from another workspace."),
    "login": ("runstone.cli.sync", "login_command", "Keep the token for a server."),
    "logout": ("runstone.cli.sync", "logout_command", "Forget the token for a server."),
    "users": ("runstone.cli.serve", "users_group", "Who may use the server, and what they may do there."),
    "tokens": ("runstone.cli.serve", "tokens_group", "Tokens by which they show who they are."),
    "audit": ("runstone.cli.serve", "audit_command", "Who changed what through the server."),
    "autolog": ("runstone.cli.autolog", "autolog_group", "Record trainings that do not ask for it, or not."),
    "import": ("runstone.cli.imports", "import_group", "Make runs of what other tools recorded."),
    "tensorboard": (
        "runstone.cli.tensorboard",
        "tensorboard_command",
        "Write runs as TensorBoard event files, while they train or later.",
    ),
}


# Commands that show runs: for a workspace on a server, they answer from what was fetched.
_READING = frozenset({"runs list", "runs show", "compare", "sql", "export", "console", "doctor"})


class LazyGroup(click.Group):
    """A group whose subcommands are imported when they are run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the subcommands."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a subcommand, imported now."""
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _help = _COMMANDS[cmd_name]
        command = getattr(import_module(module), attribute)
        return command if isinstance(command, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the subcommand to run, or name the nearest in the error."""
        name = args[0] if args else ""
        if not name.startswith("-") and name not in _COMMANDS:
            ctx.fail(f"there is no command {name!r}{_nearest(name, _COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of subcommands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_module, _attribute, text) in _COMMANDS.items()])


def _nearest(word: str, words: Iterable[str]) -> str:
    found = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else f" (there are {', '.join(words)})"


class Suggesting(click.Group):
    """A group that names the nearest subcommand where there is none."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the subcommand to run, or name the nearest in the error."""
        name = args[0] if args else ""
        if not name.startswith("-") and name not in self.commands:
            ctx.fail(f"there is no command {name!r}{_nearest(name, self.commands)}")
        return super().resolve_command(ctx, args)


class _Place(click.ParamType[Path | str]):
    """A folder, or the URL of a server, which a path would not keep as it is."""

    name = "folder or url"

    def convert(self, value: Any, _parameter: click.Parameter | None, _ctx: click.Context | None) -> Path | str:
        """Return the place."""
        return value if is_url(value) else Path(value)


def _set_workspace(ctx: click.Context, _parameter: click.Parameter, value: Path | str | None) -> None:
    if value is not None:
        ctx.find_root().obj = value


def workspace_option(command: Command) -> Command:
    """Give a command `--workspace`, which counts wherever it stands on the command line."""
    return click.option(
        "-w",
        "--workspace",
        type=_Place(),
        metavar="FOLDER|URL",
        expose_value=False,
        callback=_set_workspace,
        help="Folder of the workspace, or URL of a server. Default: RUNSTONE_WORKSPACE, else the nearest .runstone "
        "here or above.",
    )(command)


def workspace_of(ctx: click.Context) -> Workspace:
    """Return the workspace that the command line names, or the nearest.

    Of a workspace on a server, what is new there is fetched before.

    Raises:
        WorkspaceNotFound: there is none.
        InvalidValue: it is on a server, and the command works in a folder only.
    """
    workspace = open_workspace(ctx.find_root().obj)
    if workspace.url is not None:
        from runstone.sync.remote import RemoteWorkspace  # only for workspaces on a server

        command = " ".join(ctx.command_path.split()[1:])
        if command not in _READING:
            raise InvalidValue(
                f"`runstone {command}` works in a folder, or on the server itself; name one with --workspace, or fetch "
                f"what you need: `runstone --workspace FOLDER pull {workspace.url}`"
            )
        if isinstance(workspace, RemoteWorkspace):
            workspace.refresh()
    return workspace


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="runstone", message="%(prog)s %(version)s")
@workspace_option
def cli() -> None:
    """Runstone records training runs, versions what they produce, and searches for better ones."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; nothing that a user can do wrong shows a traceback."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        # Not `cli.main`: it has exit codes of its own for a closed pipe.
        with cli.make_context("runstone", list(sys.argv[1:] if arguments is None else arguments)) as context:
            cli.invoke(context)
        sys.stdout.flush()
        return 0
    except click.exceptions.Exit as ended:  # --help, --version
        return ended.exit_code
    except click.ClickException as error:
        if isinstance(error, click.UsageError) and error.ctx is not None:
            click.echo(f"{error.ctx.get_usage()}\n`{error.ctx.command_path} --help` says more.\n", err=True)
        return _fail(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return 130
    except (InvalidFilter, InvalidValue) as error:
        return _fail(error, 2)
    except BrokenPipeError:
        # What is still buffered has no reader: without this, Python complains while it exits.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except RunstoneError as error:
        return _fail(error, 1)
    except OSError as error:
        reason = error.strerror or str(error)
        return _fail(f"{error.filename}: {reason}" if error.filename else reason, 1)


def _fail(error: object, code: int) -> int:
    from runstone.cli._output import clean  # loads rich

    click.echo(f"{click.style('error:', fg='red', bold=True)} {clean(error, lines=True)}", err=True)
    return code


if __name__ == "__main__":
    main()
