"""`runstone alerts`: checks and tries out `alerts.yaml`, shows what fired, watches runs that nobody watches."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, datetime

import click
from rich.text import Text

from runstone.alerts import FILE, RunWatch, read_alerting
from runstone.alerts.delivery import tell
from runstone.cli import _output as output
from runstone.cli.main import Suggesting, workspace_of, workspace_option
from runstone.errors import InvalidConfig, InvalidValue, RunNotFound
from runstone.values import Alert
from runstone.workspace import Workspace

_COLOURS = {"info": "cyan", "warning": "yellow", "error": "red"}


@click.group("alerts", cls=Suggesting)
def alerts_group() -> None:
    """What runs are watched for, and who is told of it."""


@alerts_group.command("list")
@click.argument("reference", metavar="RUN")
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
@workspace_option
@click.pass_context
def list_alerts(ctx: click.Context, reference: str, as_json: bool) -> None:
    """Show what fired for RUN, and who was told."""
    info = workspace_of(ctx).run(reference)
    if as_json:
        output.say(output.to_json([asdict(alert) for alert in info.alerts]))
    elif not info.alerts:
        output.say(f"Nothing fired for {output.clean(info.name)}.")
    else:
        output.show(output.table(["When", "Level", "What", "Shown by", "Told"], [_row(one) for one in info.alerts]))


def _row(alert: Alert) -> list[Text]:
    told = ", ".join(name if taken else f"{name}: {detail}" for name, taken, detail in alert.deliveries)
    return [
        Text(output.moment_text(datetime.fromtimestamp(alert.at, UTC))),
        Text(alert.level, style=_COLOURS.get(alert.level, "")),
        Text(output.clean(alert.title)),
        Text(output.clean(alert.text)),
        Text(output.clean(told)),
    ]


@alerts_group.command("check")
@workspace_option
@click.pass_context
def check(ctx: click.Context) -> None:
    """Read alerts.yaml of the workspace and say what it means; exit code 1 where it has mistakes."""
    workspace = workspace_of(ctx)
    alerting = read_alerting(workspace.path)
    if not alerting:
        output.say(f"{workspace.path / FILE} is not there, or says nothing; docs/alerts.md has an example.")
        return
    rules = [[Text(output.clean(rule.name)), Text(rule.when), Text(rule.level)] for rule in alerting.rules]
    output.show(output.table(["Rule", "Kind", "Level"], rules))
    targets = [[Text(output.clean(one.name)), Text(f"from {one.level} on")] for one in alerting.targets]
    if targets:
        output.show(output.table(["Told", "Of"], targets))
    else:
        output.say("Nobody is told: alerts are shown on the run only. Name somebody under deliver.")


@alerts_group.command("test")
@click.argument("name", required=False)
@workspace_option
@click.pass_context
def try_out(ctx: click.Context, name: str | None) -> None:
    """Tell the target NAME, or each of them, of an alert that is none; exit code 1 where one did not take it."""
    workspace = workspace_of(ctx)
    targets = read_alerting(workspace.path).targets
    chosen = [one for one in targets if name in (None, one.name)]
    if not chosen:
        names = ", ".join(one.name for one in targets) or "nobody"
        raise InvalidValue(f"{FILE} does not say to tell {name!r}; it names {names}")
    run = {"id": "test", "name": "test", "project": "test", "status": "running"}
    message = {
        "format": 1,
        "id": "test",
        "event": "alert",
        "rule": "test",
        "level": "info",
        "title": "a test",
        "text": "Nothing has happened.",
        "metric": None,
        "step": None,
        "value": None,
        "at": datetime.now(UTC).isoformat(),
        "run": run,
    }
    has_failed = False
    for one in chosen:
        sent = tell(one, message, workspace.path)
        has_failed = has_failed or not sent.is_delivered
        output.say(f"{one.name}: {'taken' if sent.is_delivered else 'not taken'}, {output.clean(sent.detail)}")
    ctx.exit(1 if has_failed else 0)


@alerts_group.command("watch")
@click.argument("filter", default="", metavar="[FILTER]")
@click.option("--interval", default=2.0, type=click.FloatRange(0.1), show_default=True, help="Seconds between looks.")
@click.option("--once", is_flag=True, help="Look once at the runs that live, and end.")
@workspace_option
@click.pass_context
def watch(ctx: click.Context, filter: str, interval: float, once: bool) -> None:
    """Watch the living runs that FILTER selects, until interrupted: also those whose start did not ask for it."""
    workspace = workspace_of(ctx)
    alerting = read_alerting(workspace.path)
    if not alerting.rules:
        raise InvalidConfig(f"{workspace.path / FILE} has no rules to watch by; docs/alerts.md has an example")
    watched: dict[str, RunWatch] = {}
    condition = f"({filter}) and status = 'running'" if filter.strip() else "status = 'running'"
    while True:
        for record in workspace.runs(condition):
            if record.id not in watched:
                watched[record.id] = RunWatch(record.path, alerting)
        for run_id, one in list(watched.items()):
            _look(workspace, run_id, one)
            if one.is_over:
                del watched[run_id]
        if once:
            return
        time.sleep(interval)


def _look(workspace: Workspace, run_id: str, one: RunWatch) -> None:
    try:
        found = one.look()
    except RunNotFound:
        found = []
    for alert in found:
        name = workspace.run(run_id).name
        output.say(f"{alert.level}: {output.clean(name)}: {output.clean(alert.title)}. {output.clean(alert.text)}")
