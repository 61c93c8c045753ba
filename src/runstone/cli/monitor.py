"""`runstone monitor`: profiles of versions, checks of batches, incidents, and how versions in use are doing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from runstone.cli import _output as output
from runstone.cli.main import Suggesting, workspace_of, workspace_option
from runstone.errors import InvalidValue, NotFound
from runstone.models.operation import Incident
from runstone.monitoring import LEVELS, FolderWatch, Outcome, Report, actions_of, check, set_profile, standings
from runstone.monitoring.pages import to_html, to_markdown
from runstone.monitoring.watching import LOG_ROWS
from runstone.workspace import Workspace

_COLOURS = {"ok": "green", "warning": "yellow", "drift": "bold dark_orange", "error": "bold red"}
_MARKS = {"ok": "▁", "warning": "▃", "drift": "▅", "error": "█"}
_SHOWN_COLUMNS = 15
_labels = click.option("--labels", metavar="COLUMN|FILE", help="The truth: a column, or a file (FILE:COLUMN).")
_predictions = click.option("--predictions", metavar="COLUMN|FILE", help="What the model said, likewise.")
_ignore = click.option(
    "--ignore", multiple=True, metavar="COLUMN", help="A column that is no feature; may be repeated."
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("monitor", cls=Suggesting)
def monitor_group() -> None:
    """Whether versions in use still see what they were made with, and what is done when they do not."""


@monitor_group.command("profile")
@click.argument("ref", metavar="MODEL@V")
@click.option("--data", required=True, metavar="FILE", help="CSV, Parquet, JSON lines, Arrow, .npy, or a folder.")
@_labels
@_predictions
@_ignore
@click.option("--role", metavar="ROLE", help="What the data was to the model, such as train or test.")
@click.option("--sample-rows", type=click.IntRange(0), metavar="ROWS",
              help="Rows of the data that are kept with the version at most; 0: none. Default: 5,000.")  # fmt: skip
@_json
@workspace_option
@click.pass_context
def profile_command(
    ctx: click.Context,
    ref: str,
    data: str,
    labels: str | None,
    predictions: str | None,
    ignore: tuple[str, ...],
    role: str | None,
    sample_rows: int | None,
    as_json: bool,
) -> None:
    """Keep with a version what its data looked like; later batches are compared with that."""
    made = set_profile(
        workspace_of(ctx), ref, data,
        labels=labels, predictions=predictions, ignore=ignore, role=role, sample_rows=sample_rows,
    )  # fmt: skip
    if as_json:
        output.say(output.to_json(made.to_dict()))
        return
    known = [name for name in (made.label, made.prediction) if name is not None]
    more = f", with {output.clean(' and '.join(known))}" if known else ""
    output.say(f"{output.clean(ref)}: {made.rows:,} rows, {output.counted(len(made.features), 'feature')}{more}")
    if made.performance is not None:
        output.say(", ".join(f"{name} {value:.4g}" for name, value in made.performance.figures.items()))


@monitor_group.command("check")
@click.argument("ref", metavar="MODEL@V")
@click.option("--data", required=True, metavar="FILE", help="CSV, Parquet, JSON lines, Arrow, .npy, or a folder.")
@_labels
@_predictions
@_ignore
@_json
@click.option("--markdown", metavar="FILE", help="Write the report as Markdown; - is the output.")
@click.option("--html", metavar="FILE", help="Write the report as a page; - is the output.")
@click.option("--dry-run", is_flag=True, help="Only look: record nothing, open no incident, start nothing.")
@click.option("--wait", is_flag=True, help="Wait for what an incident starts.")
@click.option(
    "--fail-on",
    type=click.Choice([*LEVELS[1:], "never"]),
    default="drift",
    show_default=True,
    help="From which verdict on the exit code is 1.",
)
@workspace_option
@click.pass_context
def check_command(
    ctx: click.Context,
    ref: str,
    data: str,
    labels: str | None,
    predictions: str | None,
    ignore: tuple[str, ...],
    as_json: bool,
    markdown: str | None,
    html: str | None,
    dry_run: bool,
    wait: bool,
    fail_on: str,
) -> None:
    """Compare a batch with the data of a version, and say whether it has drifted.

    A verdict from `drift` on opens an incident on the version and starts what monitoring.yaml says. Exit code 1 where
    the verdict is that bad (see --fail-on).
    """
    if [as_json, markdown == "-", html == "-"].count(True) > 1:
        raise click.UsageError("only one of --json, --markdown - and --html - can go to the output")
    outcome = check(
        ref, data,
        labels=labels, predictions=predictions, ignore=ignore or None, workspace=workspace_of(ctx), is_dry=dry_run,
    )  # fmt: skip
    found = outcome.report
    for target, text in ((markdown, found.to_markdown), (html, found.to_html)):
        if target == "-":
            output.say(text(), newline=False)
        elif target is not None:
            Path(target).write_text(text(), "utf-8")
    if as_json:
        output.say(output.to_json(_outcome(outcome)))
    is_quiet = as_json or "-" in (markdown, html)
    if not is_quiet:
        _show(found)
    _tell(outcome, stderr=is_quiet)
    if wait:
        for one in outcome.started:
            if one.process is not None:
                code = one.process.wait()
                output.say(f"{output.clean(one.what)}: exit code {code}", stderr=True)
    if fail_on != "never" and found.is_at_least(fail_on):  # type: ignore[arg-type]
        ctx.exit(1)


def _outcome(outcome: Outcome) -> dict[str, Any]:
    incident = outcome.incident
    return {
        **outcome.report.to_dict(),
        "check": outcome.check.id if outcome.check is not None else None,
        "incident": dataclasses.asdict(incident) | {"is_new": outcome.is_new} if incident is not None else None,
        "started": [{"what": one.what, "done": one.is_done, "detail": one.detail} for one in outcome.started],
    }


def _show(found: Report) -> None:
    what = f"{found.subject}: {found.rows:,} rows of {found.data}"
    if not found.reasons:
        what += ", nothing has changed"
    output.show(Text.assemble((found.verdict, _COLOURS[found.verdict]), f"  {output.clean(what)}"))
    for one in found.reasons[:_SHOWN_COLUMNS]:
        output.show(Text.assemble("  ", (one.level, _COLOURS[one.level]), f" {output.clean(one.text)}"))
    if len(found.reasons) > _SHOWN_COLUMNS:
        output.say(f"  … and {len(found.reasons) - _SHOWN_COLUMNS} more")
    rows = []
    for feature in found.features[:_SHOWN_COLUMNS]:
        distance = feature.distance
        figures = ["-"] * 4
        if distance is not None:
            p = feature.p_adjusted if feature.p_adjusted is not None else 1.0
            moved = f"{distance.wasserstein:.2f}" if distance.wasserstein is not None else "-"
            figures = [f"{distance.psi:.3f}", f"{distance.test} {distance.statistic:.3g}", f"{p:.2g}", moved]
        missing = f"{feature.after.missing_share:.1%}" if feature.after is not None else "-"
        rows.append(
            [
                Text(feature.level, style=_COLOURS[feature.level]),
                Text(output.clean(feature.name)),
                Text("" if feature.role == "feature" else feature.role, style="dim"),
                *map(Text, [*figures, missing]),
            ]
        )
    heads: list[str | tuple[str, str]] = [
        "", "column", "", ("PSI", "right"), "test", ("p", "right"), ("moved, sd", "right"), ("missing", "right"),
    ]  # fmt: skip
    if rows:
        output.say()
        output.show(output.table(heads, rows))
    if len(found.features) > len(rows):
        output.say(f"… and {len(found.features) - len(rows)} more columns; --html FILE shows all")
    output.say()
    if found.classifier is not None:
        domain = found.classifier
        output.say(f"domain classifier: AUC {domain.auc:.3f} ({domain.low:.3f} to {domain.high:.3f}), p {domain.p:.2g}")
    if found.performance is not None:
        now = found.performance
        before = f", {now.baseline:.4g} before ({output.clean(now.baseline_name)})" if now.baseline is not None else ""
        output.say(f"{now.figure} {now.value:.4g} ({now.low:.4g} to {now.high:.4g}){before}")
    for note in found.notes:
        output.show(Text(f"note: {output.clean(note)}", style="dim"))


def _tell(outcome: Outcome, *, stderr: bool = False) -> None:
    if outcome.incident is not None:
        word = "opened" if outcome.is_new else "is open already"
        which = f"{output.clean(outcome.incident)} of {output.clean(outcome.incident.version)}"
        output.say(f"incident {which} ({outcome.incident.kind}) {word}", stderr=stderr)
    for one in outcome.started:
        log = f", output in {one.log}" if one.log is not None else ""
        output.say(f"{output.clean(one.what)}: {output.clean(one.detail)}{output.clean(log)}", stderr=stderr)


@monitor_group.command("watch")
@click.argument("folder", metavar="FOLDER|LOG", type=click.Path(path_type=Path))
@click.option("--model", "ref", required=True, metavar="MODEL@V", help="Of whom; best by an alias or a stage.")
@click.option("--every", default=30.0, type=click.FloatRange(0.1), show_default=True, help="Seconds between looks.")
@click.option(
    "--rows",
    default=LOG_ROWS,
    type=click.IntRange(1),
    show_default=True,
    help="How many rows of a prediction log are judged together.",
)
@_labels
@_predictions
@click.option("--once", is_flag=True, help="Look once at all that is new, and end.")
@workspace_option
@click.pass_context
def watch_command(
    ctx: click.Context,
    folder: Path,
    ref: str,
    every: float,
    rows: int,
    labels: str | None,
    predictions: str | None,
    once: bool,
) -> None:
    """Check each table that comes into a folder, or what a prediction log gathers, until interrupted."""
    watch = FolderWatch(workspace_of(ctx), folder, ref, rows=rows, labels=labels, predictions=predictions)

    def tell(outcome: Outcome) -> None:
        found = outcome.report
        moment = output.moment_text(datetime.fromtimestamp(found.at, UTC))
        line = (f"{moment}  {output.clean(found.data)}  ", (found.verdict, _COLOURS[found.verdict]))
        output.show(Text.assemble(*line, f"  {output.clean(found.headline.partition(', ')[2])}"))
        _tell(outcome)

    if once:
        for outcome in watch.look(is_last=True):
            tell(outcome)
    else:
        watch.follow(every, tell)


@monitor_group.command("label")
@click.argument("model", metavar="MODEL")
@click.option("--data", required=True, metavar="FILE", help="Table with the columns request, label, and row if needed.")
@click.option("--label", default="label", show_default=True, metavar="COLUMN", help="Which column holds the labels.")
@click.option("--log", "folder", type=click.Path(path_type=Path), metavar="FOLDER",
              help="The prediction log. Default: that of the model in the workspace.")  # fmt: skip
@_json
@workspace_option
@click.pass_context
def label_command(ctx: click.Context, model: str, data: str, label: str, folder: Path | None, as_json: bool) -> None:
    """Join labels that came later to the predictions that were kept, by the id of the request.

    Labels of requests that were not sampled are left out. `monitor watch` on the log judges the performance then.
    """
    from runstone.serving.labels import join_labels
    from runstone.serving.places import log_folder

    kept = folder or log_folder(workspace_of(ctx), model.partition("@")[0])
    found = join_labels(kept, data, label=label)
    if as_json:
        output.say(output.to_json(dataclasses.asdict(found)))
        return
    output.say(
        f"{output.counted(found.joined, 'prediction')} got a label; {found.known:,} had one before, "
        f"{found.unknown:,} labels are of requests that were not kept"
    )


@monitor_group.command("predictions")
@click.argument("model", metavar="MODEL")
@click.option("--parquet", required=True, type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Write them here.")  # fmt: skip
@click.option("--log", "folder", type=click.Path(path_type=Path), metavar="FOLDER",
              help="The prediction log. Default: that of the model in the workspace.")  # fmt: skip
@workspace_option
@click.pass_context
def predictions_command(ctx: click.Context, model: str, parquet: Path, folder: Path | None) -> None:
    """Write the predictions that were kept, with the labels that came later, as a Parquet file."""
    from runstone.serving.logtable import export_log
    from runstone.serving.places import log_folder

    kept = folder or log_folder(workspace_of(ctx), model.partition("@")[0])
    count = export_log(kept, parquet)
    output.say(f"{output.counted(count, 'prediction')} in {output.clean(parquet)}")


@monitor_group.command("status")
@click.argument("name", metavar="[MODEL]", required=False)
@_json
@workspace_option
@click.pass_context
def status_command(ctx: click.Context, name: str | None, as_json: bool) -> None:
    """Show all versions in use, and how they did over time."""
    found = standings(workspace_of(ctx), name=name)
    if as_json:
        output.say(output.to_json([one.to_dict() for one in found]))
        return
    if not found:
        output.say("No version is in use: none is in a stage, under an alias, or deployed.")
        return
    rows = []
    for one in found:
        last = one.checks[-1] if one.checks else None
        over_time = Text()
        for each in one.checks:
            over_time.append(_MARKS[each.verdict], style=_COLOURS[each.verdict])
        rows.append(
            [
                Text(output.clean(f"{one.model}@{one.version}")),
                Text(output.clean(", ".join(one.places))) if one.places else Text("no longer", style="dim"),
                Text(one.health, style=_COLOURS.get(one.health, "dim")),
                over_time,
                Text(str(one.check_count)),
                Text(output.moment_text(datetime.fromtimestamp(last.at, UTC)) if last is not None else "-"),
                Text(
                    f"{last.performance[0]} {last.performance[1]:.4g}" if last is not None and last.performance else "-"
                ),
                Text(
                    output.clean(", ".join(f"#{incident.number} {incident.kind}" for incident in one.incidents)) or "-"
                ),
            ]
        )
    heads: list[str | tuple[str, str]] = [
        "version", "in use", "health", "over time", ("checks", "right"), "last", "performance", "open incidents",
    ]  # fmt: skip
    output.show(output.table(heads, rows))


@monitor_group.command("list")
@click.argument("name", metavar="[MODEL]", required=False)
@click.option("--all", "is_all", is_flag=True, help="Closed ones, too.")
@_json
@workspace_option
@click.pass_context
def list_command(ctx: click.Context, name: str | None, is_all: bool, as_json: bool) -> None:
    """List incidents."""
    registry = workspace_of(ctx).models
    states = [model.state() for model in ([registry.get(name)] if name is not None else registry)]
    found = [one for state in states for one in state.incidents.values() if is_all or one.is_open]
    if as_json:
        output.say(output.to_json([dataclasses.asdict(one) for one in found]))
    elif not found:
        output.say("no incidents" if is_all else "no open incidents")
    else:
        output.show(
            output.table(["incident", "version", "kind", "opened", "", "summary"], [_row(one) for one in found])
        )


def _row(one: Incident) -> Sequence[Text]:
    return [
        Text(output.clean(one)),
        Text(one.version),
        Text(output.clean(one.kind)),
        Text(output.moment_text(datetime.fromtimestamp(one.opened_at, UTC))),
        Text("open", style="yellow") if one.is_open else Text(f"closed: {output.clean(one.resolution)}", style="dim"),
        Text(output.clean(one.summary)),
    ]


@monitor_group.command("show")
@click.argument("incident", metavar="MODEL#N")
@_json
@click.option("--markdown", metavar="FILE", help="Write its report as Markdown; - is the output.")
@click.option("--html", metavar="FILE", help="Write its report as a page; - is the output.")
@workspace_option
@click.pass_context
def show_command(ctx: click.Context, incident: str, as_json: bool, markdown: str | None, html: str | None) -> None:
    """Show an incident, what was found, and what was done about it."""
    workspace = workspace_of(ctx)
    one = _incident(workspace, incident)
    report = _report(workspace, one)
    actions = actions_of(workspace.path, one.model, one.number)
    for target, write in ((markdown, to_markdown), (html, to_html)):
        if target is not None and report is None:
            raise NotFound(f"incident {one} was opened without a report")
        if target == "-" and report is not None:
            output.say(write(report), newline=False)
        elif target is not None and report is not None:
            Path(target).write_text(write(report), "utf-8")
    if as_json:
        output.say(output.to_json(dataclasses.asdict(one) | {"report": report, "actions": actions}))
        return
    if "-" in (markdown, html):
        return
    headline = Text.assemble((output.clean(one), "bold"), f" of {one.model}@{one.version}: {output.clean(one.kind)}")
    output.show(headline)
    output.say(
        f"opened {output.moment_text(datetime.fromtimestamp(one.opened_at, UTC))} by {output.clean(one.opened_by)}"
    )
    if one.closed_at is not None:
        closed = output.moment_text(datetime.fromtimestamp(one.closed_at, UTC))
        output.say(f"closed {closed} by {output.clean(one.closed_by)}: {output.clean(one.resolution)}")
    for reason in report["reasons"][:_SHOWN_COLUMNS] if report is not None else ():
        output.show(
            Text.assemble("  ", (reason["level"], _COLOURS[reason["level"]]), f" {output.clean(reason['text'])}")
        )
    for action in actions:
        output.say(
            f"started {output.clean(' '.join(action['command']))}: {output.clean(action.get('detail', 'running'))}"
        )


@monitor_group.command("close")
@click.argument("incident", metavar="MODEL#N")
@click.option("--reason", metavar="TEXT", required=True, help="Why; kept in the history.")
@workspace_option
@click.pass_context
def close_command(ctx: click.Context, incident: str, reason: str) -> None:
    """Close an incident by hand. It closes by itself when a version that was trained for it comes into use."""
    workspace = workspace_of(ctx)
    one = _incident(workspace, incident)
    if not reason.strip():
        raise InvalidValue("a reason is needed to close an incident")
    workspace.models.get(one.model).close_incident(one.number, reason=reason)
    output.say(f"incident {output.clean(one)} is closed")


def _incident(workspace: Workspace, text: str) -> Incident:
    name, mark, number = text.rpartition("#")
    if not mark or not name or not number.isdigit():
        raise InvalidValue(f"{text!r:.80} names no incident; write MODEL#NUMBER, as `runstone monitor list` shows them")
    found = workspace.models.get(name).state().incidents
    if int(number) not in found:
        there = ", ".join(f"#{one}" for one in sorted(found)[-10:]) or "none"
        raise NotFound(f"model {name!r:.80} has no incident #{number}; there is {there}")
    return found[int(number)]


def _report(workspace: Workspace, one: Incident) -> dict[str, Any] | None:
    import json  # only here

    if one.report_hash is None:
        return None
    found = json.loads(workspace.blobs.read(one.report_hash))
    return found if isinstance(found, dict) and "reasons" in found else None


__all__ = ["monitor_group"]
