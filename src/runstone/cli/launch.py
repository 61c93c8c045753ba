"""`runstone run`: any program as a run."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import click

from runstone import settings
from runstone.cli.main import workspace_option
from runstone.errors import InvalidName, InvalidValue
from runstone.names import check_name
from runstone.workspace import ensure_workspace


def _tags(words: Sequence[str]) -> dict[str, str]:
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise click.BadParameter(f"{word!r} has no value; write --tag {word}=VALUE", param_hint="--tag")
        found[_checked(name, "tag")] = value
    return found


def _interval_s(given: str | None) -> float | None:
    told = given if given is not None else settings.read("RUNSTONE_SYSTEM_METRICS")
    if told is None:
        told = "on"
    from runstone.capture.metrics import interval_of  # loads the sampler

    word = told.strip().lower()
    if word in ("off", "0", "no", "false"):
        return None
    try:
        return interval_of(True if word in ("on", "yes", "true") else float(told))
    except ValueError:
        where = "--system-metrics" if given is not None else "RUNSTONE_SYSTEM_METRICS"
        raise InvalidValue(
            f"{where} is {told!r}; it must be off, or seconds between two samples, at least 0.5"
        ) from None


def _event_files(given: str) -> Path | Literal["auto"] | None:
    if given == "off":
        return None
    return "auto" if given == "auto" else Path(given).expanduser()


@click.command("run", context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@click.option("-p", "--project", metavar="NAME", help="Default: RUNSTONE_PROJECT, else `default`.")
@click.option("-n", "--name", metavar="TEXT", help="Name of the run. Default: two words and a number.")
@click.option("-g", "--group", metavar="TEXT", help="Runs that belong together inside the project.")
@click.option("-t", "--tag", "tags", metavar="NAME=VALUE", multiple=True, help="A tag; may be given several times.")
@click.option(
    "--params-from", type=click.Path(path_type=Path), metavar="FILE", help="Params from a JSON, TOML or YAML file."
)
@click.option("--no-environment", is_flag=True, help="Take no snapshot of the machine, the packages and the code.")
@click.option("--no-console", is_flag=True, help="Do not keep what it prints: it has the terminal for itself.")
@click.option(
    "--system-metrics", metavar="SECONDS|off", help="How often CPU, memory and GPUs are looked at. Default: 10."
)
@click.option(
    "--tensorboard-logs",
    metavar="FOLDER|auto|off",
    default="auto",
    help="TensorBoard files that are followed: auto: those that it writes (default); all new ones below FOLDER; none.",
)
@click.option(
    "--grace",
    "grace_s",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=30.0,
    help="How long it may go on after SIGTERM, where it is asked to stop. Default: 30.",
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, required=True)
@workspace_option
@click.pass_context
def run_command(
    ctx: click.Context,
    project: str | None,
    name: str | None,
    group: str | None,
    tags: Sequence[str],
    params_from: Path | None,
    no_environment: bool,
    no_console: bool,
    system_metrics: str | None,
    tensorboard_logs: str,
    grace_s: float,
    command: Sequence[str],
) -> None:
    """Run COMMAND as a run: what it prints, its arguments, its environment, how it ends.

    A .py file is run by this Python, anything else as it is. COMMAND needs no line of Runstone; where it has some, they
    record into this run. The exit code is that of COMMAND; 127 where there is no such program.

    \b
    runstone run train.py --lr 0.1
    runstone run -p digits -t kind=baseline -- torchrun --nproc-per-node 2 train.py
    """
    from runstone.launch.command import CannotStart, find_command  # only here
    from runstone.launch.front import launch
    from runstone.launch.params import read_params
    from runstone.launch.plan import Plan

    environment = settings.process_environment()
    try:
        found = find_command(command, environment)
    except CannotStart as error:
        click.echo(f"{click.style('error:', fg='red', bold=True)} {error}", err=True)
        ctx.exit(error.exit_code)
    if settings.is_disabled():
        sys.stdout.flush()
        os.execvpe(found.given[0], list(found.given), dict(environment))  # noqa: S606 - no shell, on purpose
    options: dict[str, Any] = {
        "project": _checked(project or settings.read("RUNSTONE_PROJECT") or "default", "project"),
        "name": _checked(name, "run") if (name := name or settings.read("RUNSTONE_NAME")) else None,
        "group": _checked(group, "group") if (group := group or settings.read("RUNSTONE_GROUP")) else None,
        "tags": _tags(tags),
        "params": read_params(params_from) if params_from is not None else {},
        "takes_environment": not no_environment,
        "keeps_console": not no_console,
        "interval_s": _interval_s(system_metrics),
        "event_files": _event_files(tensorboard_logs),
        "grace_s": grace_s,
        "on_error": settings.on_error(None),
    }
    try:
        workspace = ensure_workspace(ctx.find_root().obj)
    except OSError as error:
        if options["on_error"] == "raise":
            raise
        click.echo(
            f"runstone: the run cannot be recorded: {error}; {shlex.join(command)} runs without a record", err=True
        )
        os.execvpe(found.given[0], list(found.given), dict(environment))  # noqa: S606 - as above
    ctx.exit(launch(Plan(found, workspace, **options)))


def _checked(name: str, what: str) -> str:
    try:
        return check_name(name, what)
    except InvalidName as error:
        raise click.UsageError(str(error)) from None
