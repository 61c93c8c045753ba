"""`runstone runs`: list, show, delete, restore."""

from __future__ import annotations

import csv
import io
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from runstone.cli._machine import system_lines
from runstone.cli._output import (
    ago,
    cell,
    clean,
    counted,
    duration,
    fitting,
    is_terminal,
    moment_text,
    say,
    short_id,
    show,
    size,
    status,
    table,
    to_json,
    width_of,
)
from runstone.cli.doctor import finding_parts
from runstone.cli.main import Suggesting, workspace_of, workspace_option
from runstone.doctor import top_findings
from runstone.index.conditions import Attribute, Field, Metric, Param, Tag, fields_in
from runstone.index.records import RunRecord, split_path, unescaped
from runstone.names import SYSTEM
from runstone.params import flatten_params
from runstone.query.parser import parse_fields, parse_filter, parse_order
from runstone.query.table import CONSUMPTION, RunTable, plain, value_of
from runstone.runinfo import RunInfo
from runstone.values import Artifact, Attempt, Failure, MetricSummary
from runstone.workspace import Workspace

_ALWAYS = {"id": 0, "name": 0, "project": 2, "status": 0, "started_at": 6, "duration": 9}
"""Columns, and how important each is: see `_Column`."""
_MOST_METRICS, _MOST_PARAMS = 6, 6
_TERMINAL_LIMIT = 50
_WIDEST_NAME, _WIDEST_VALUE = 32, 28


@click.group(cls=Suggesting)
@workspace_option
def runs() -> None:
    """List, show, delete and restore runs.

    RUN is an id, the last 8 characters of one as lists show them (any 4 or more of its beginning or end will do),
    or a name.
    """


# --- list -------------------------------------------------------------------------------------------------------------


@runs.command("list")
@click.argument("filter", default="")
@click.option(
    "--order-by", metavar="FIELDS", help="Such as 'metrics.loss.min, started_at desc'. Default: newest first."
)
@click.option(
    "-n", "--limit", type=click.IntRange(min=0), help="At most this many. Default: 50 in a terminal, else all."
)
@click.option("--columns", metavar="FIELDS", help="What to show, such as 'name, params.lr, metrics.loss.min'.")
@click.option("-p", "--project", metavar="NAME", help="Only runs of this project.")
@click.option("--deleted", is_flag=True, help="The deleted runs instead of the others.")
@click.option("--json", "as_json", is_flag=True, help="All of each run but its points, as JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values; all columns, or those of --columns.")
@workspace_option
@click.pass_context
def list_command(
    ctx: click.Context,
    filter: str,
    order_by: str | None,
    limit: int | None,
    columns: str | None,
    project: str | None,
    deleted: bool,
    as_json: bool,
    as_csv: bool,
) -> None:
    """List runs, newest first, or those that FILTER describes.

    \b
    runstone runs list "metrics.val/acc.max > 0.9 and params.model = 'mlp'"
    runstone runs list "status in ('failed', 'crashed') and started_at > '2026-11-01'"
    """
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    workspace = workspace_of(ctx)
    fields = _chosen(columns) if columns is not None else ()
    asked = dict.fromkeys((*fields_in(parse_filter(filter)), *(order.field for order in parse_order(order_by or ""))))
    if limit is None and is_terminal() and not (as_json or as_csv):
        limit = _TERMINAL_LIMIT
    found = workspace.runs(in_project(filter, project), order_by=order_by, limit=limit, deleted=deleted)
    for trouble in found.troubles:
        say(f"warning: {clean(trouble)}", stderr=True)
    if as_json:
        say(to_json([_as_dict(record) for record in found.records]))
    elif as_csv:
        text = _as_csv(found, fields)
        say(clean(text, lines=True) if is_terminal() else text, newline=False)
    elif not found.records:
        say(_nothing_found(workspace, filter, project, deleted=deleted), stderr=True)
    else:
        _print_list(found, [_Column(*named) for named in fields] or _columns_for(found, list(asked)))


def _chosen(columns: str) -> tuple[tuple[str, Field], ...]:
    """Return titles and fields of `--columns`, which may name what a run consumed between fields of the filters."""
    chosen: list[tuple[str, Field]] = []
    others: list[str] = []
    for part in [*columns.split(","), None]:
        if part is not None and part.strip() not in CONSUMPTION:
            others.append(part)
            continue
        if others or (part is None and not chosen):
            chosen += parse_fields(",".join(others))
            others = []
        if part is not None:
            chosen.append((part.strip(), Attribute(part.strip())))
    return tuple(chosen)


def in_project(filter: str, project: str | None) -> str:
    """Return a filter, which must parse, narrowed to a project."""
    if project is None:
        return filter
    quoted = project.replace("\\", "\\\\").replace("'", "\\'")
    return f"project = '{quoted}' and ({filter})" if filter.strip() else f"project = '{quoted}'"


def _nothing_found(workspace: Workspace, filter: str, project: str | None, *, deleted: bool) -> str:
    if deleted:
        return "no deleted runs" if not (filter.strip() or project) else "no deleted run matches"
    if filter.strip() or project:
        return f"none of {counted(workspace.runs(limit=0).total, 'run')} matches"
    return f"no runs yet in {clean(workspace.path)}"


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the list; the more important, the smaller the number, and 0 is always shown."""

    title: str
    field: Field
    importance: int = 0


def _columns_for(found: RunTable, asked: Sequence[Field]) -> list[_Column]:
    """Return the columns to show where none were chosen: what was asked about, params that differ, and metrics."""
    records = found.records
    columns = [_Column(name, Attribute(name), importance) for name, importance in _ALWAYS.items()]
    if is_terminal() and len({record.project for record in records}) == 1:
        columns = [column for column in columns if column.title != "project"]
    titles = {column.title for column in columns}
    columns += [_Column(_title(field), field, 1) for field in asked if _title(field) not in titles]
    params = [name for name in _differing_params(records) if Param(tuple(split_path(name))) not in asked]
    for rank, name in enumerate(params[:_MOST_PARAMS]):
        columns.append(_Column(f"params.{name}", Param(tuple(split_path(name)), is_exact=True), 4 + 2 * rank))
    names_asked = {field.name for field in asked if isinstance(field, Metric)}
    metrics = [name for name in _telling_metrics(records) if name not in names_asked]
    for rank, name in enumerate(metrics[:_MOST_METRICS]):
        columns.append(_Column(f"metrics.{name}", Metric(name), 3 + 2 * rank))
    columns += [_Column(name, Attribute(name), 20) for name in CONSUMPTION if found.has(name)]
    return columns


def _differing_params(records: Sequence[RunRecord]) -> list[str]:
    values: dict[str, set[str]] = {}
    having: Counter[str] = Counter()
    for record in records:
        for name, value in flatten_params(record.params).items():
            values.setdefault(name, set()).add(plain(value))
            having[name] += 1
    return [name for name in values if len(values[name]) > 1 or having[name] < len(records)]


def _telling_metrics(records: Sequence[RunRecord]) -> list[str]:
    """Return the metrics, those that differ between runs first, then those that most runs have, then by name."""
    having = Counter(name for record in records for name in record.metrics if not name.startswith(SYSTEM))
    values: dict[str, set[str]] = {}
    for record in records:
        for name, summary in record.metrics.items():
            values.setdefault(name, set()).add(plain(summary.last))
    return sorted(having, key=lambda name: (len(values[name]) < 2, -having[name], name))


def _title(field: Field) -> str:
    match field:
        case Metric(name, statistic):
            return f"metrics.{name}" if statistic == "last" else f"metrics.{name}.{statistic}"
        case Param(keys):
            return f"params.{'.'.join(keys)}"
        case Tag(name):
            return f"tags.{name}"
        case Attribute(name):
            return name


def _print_list(found: RunTable, columns: Sequence[_Column]) -> None:
    """Print the table; in a terminal, leave out what does not fit."""
    now = time.time()
    cells = [[_list_cell(record, column.field, now) for column in columns] for record in found.records]
    titles = [_short_title(column.title, columns) if is_terminal() else column.title for column in columns]
    widths = [max(width_of(clean(title)), *(width_of(row[n]) for row in cells)) for n, title in enumerate(titles)]
    shown = fitting(widths, [column.importance for column in columns]) if is_terminal() else range(len(columns))
    headers = [(titles[n], _justify(columns[n].field)) for n in shown]
    show(table(headers, [[row[n] for n in shown] for row in cells]))
    if is_terminal():
        show(Text(_footer(found, [columns[n].title for n in range(len(columns)) if n not in shown]), style="dim"))


def _footer(found: RunTable, hidden: Sequence[str]) -> str:
    lines = [counted(len(found), "run")]
    if found.total > len(found):
        lines = [f"{len(found)} of {counted(found.total, 'run')}; --limit shows more"]
    if hidden:
        names = ", ".join(clean(title) for title in hidden[:4]) + (", …" if len(hidden) > 4 else "")
        lines.append(f"not shown for want of width: {names}; --columns chooses")
    return "\n" + "\n".join(lines)


def _short_title(title: str, columns: Sequence[_Column]) -> str:
    """Return the title without its kind, unless another column would then look the same."""
    bare = {"started_at": "started"}.get(title, _bare(title))
    return title if [_bare(column.title) for column in columns].count(bare) > 1 else bare


def _bare(title: str) -> str:
    kind, _, name = title.partition(".")
    return name if kind in ("metrics", "params", "tags") and name else title


def _justify(field: Field) -> str:
    is_number = isinstance(field, Metric) or (
        isinstance(field, Attribute) and field.name in ("duration", "attempts", *CONSUMPTION)
    )
    return "right" if is_number else ""


def _list_cell(record: RunRecord, field: Field, now: float) -> Text:
    if isinstance(field, Attribute):
        return _attribute_cell(record, field.name, now)
    value = value_of(record, field, now)
    if isinstance(field, Metric) and isinstance(value, float) and math.isfinite(value) and is_terminal():
        return Text(f"{value:.4g}")
    shown = cell(value)
    if is_terminal():
        shown.truncate(_WIDEST_VALUE, overflow="ellipsis")
    return shown


def _attribute_cell(record: RunRecord, name: str, now: float) -> Text:
    value = value_of(record, Attribute(name), now)
    if not is_terminal():
        return Text(f"{value:%Y-%m-%dT%H:%M:%SZ}") if isinstance(value, datetime) else cell(value)
    match name:
        case "id":
            return Text(short_id(record.id), style="dim")
        case "name":
            text = Text(clean(record.name), style="bold")
            text.truncate(_WIDEST_NAME, overflow="ellipsis")
            return text
        case "status":
            return status(record.status)
        case "duration":
            return Text(duration(record.duration_s(now)))
        case "energy_j" | "energy_cost" | "carbon_g" if value is not None:
            return Text(f"{value:,.0f}" if value >= 100 else f"{value:.3g}")
        case "started_at" | "ended_at" if value is not None:
            return Text(ago(value, datetime.fromtimestamp(now, UTC)))
        case _:
            shown = cell(value)
            shown.truncate(_WIDEST_VALUE, overflow="ellipsis")
            return shown


def _as_dict(record: RunRecord) -> dict[str, Any]:
    figures = ("last", "min", "min_step", "max", "max_step", "mean", "count", "nan_count", "first_step", "last_step")
    return {
        "id": record.id,
        "name": record.name,
        "project": record.project,
        "group": record.group,
        "status": record.status.value,
        "failure": record.failure,
        "started_at": _iso(record.started_at),
        "ended_at": _iso(record.ended_at),
        "duration_s": round(record.duration_s(time.time()), 3),
        "attempts": record.attempts,
        "energy_j": value_of(record, Attribute("energy_j"), time.time()),
        "parent": record.parent,
        "notes": record.notes,
        "params": record.params,
        "tags": record.tags,
        "metrics": {
            name: {figure: getattr(summary, figure) for figure in figures}
            for name, summary in sorted(record.metrics.items())
        },
        "dropped": record.dropped,
        "is_deleted": record.is_deleted,
    }


def _iso(epoch_s: float | None) -> str | None:
    return datetime.fromtimestamp(epoch_s, UTC).isoformat() if epoch_s is not None else None


def _as_csv(found: RunTable, columns: Sequence[tuple[str, Field]]) -> str:
    named = list(columns) or [(name, found.field(name)) for name in found.columns]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([title for title, _field in named])
    now = time.time()
    for record in found.records:
        writer.writerow([_csv_value(value_of(record, field, now)) for _title, field in named])
    return text.getvalue()


def _csv_value(value: Any) -> str:
    match value:
        case float():
            return repr(value)  # all digits
        case datetime():
            return value.isoformat()
        case _:
            return plain(value).encode("utf-8", "replace").decode()


# --- show -------------------------------------------------------------------------------------------------------------


@runs.command("show", short_help="Show all that a run recorded.")
@click.argument("run", metavar="RUN")
@click.option("--json", "as_json", is_flag=True, help="All of it but its points, as JSON.")
@workspace_option
@click.pass_context
def show_command(ctx: click.Context, run: str, as_json: bool) -> None:
    """Show all that a run recorded: params, tags, metrics, artifacts, attempts, environment, failure."""
    info = workspace_of(ctx).run(run)
    if as_json:
        say(to_json(_info_as_dict(info)))
        return
    show(*_sections(info))


def _info_as_dict(info: RunInfo) -> dict[str, Any]:
    return {
        "id": info.id,
        "name": info.name,
        "project": info.project,
        "group": info.group,
        "parent": info.parent,
        "notes": info.notes,
        "status": info.status.value,
        "failure": asdict(info.failure) if info.failure else None,
        "started_at": info.started_at,
        "ended_at": info.ended_at,
        "duration_s": info.duration_s,
        "path": str(info.path),
        "params": info.params,
        "tags": info.tags,
        "metrics": {name: asdict(summary) for name, summary in info.metrics.items()},
        "artifacts": [{**asdict(artifact), "size_bytes": artifact.size_bytes} for artifact in info.artifacts],
        "attempts": [asdict(attempt) for attempt in info.attempts],
        "dropped": info.dropped,
        "warnings": info.warnings,
        "is_deleted": info.is_deleted,
        "environment": info.environment,
    }


def _sections(info: RunInfo) -> Iterator[RenderableType]:
    yield _headline(info)
    yield _indented(_pairs(_facts(info)))
    if info.failure is not None:
        yield from _failure(info.failure)
    if info.notes:
        yield _heading("Notes")
        yield _indented(Text(clean(info.notes, lines=True)))
    if info.flat_params:
        yield _heading("Params", len(info.flat_params))
        yield _indented(_pairs([(unescaped(name), cell(value)) for name, value in info.flat_params.items()]))
    if info.tags:
        yield _heading("Tags", len(info.tags))
        yield _indented(_pairs([(name, cell(text)) for name, text in sorted(info.tags.items())]))
    metrics = [summary for name, summary in info.metrics.items() if not name.startswith(SYSTEM)]
    if metrics:
        yield _heading("Metrics", len(metrics))
        yield _indented(_metrics_table(metrics))
    if info.record_names:
        yield _heading("Media and texts", len(info.record_names))
        yield _indented(Text("\n".join(clean(name) for name in info.record_names)))
    system = list(system_lines(info))
    if system:
        yield _heading("System")
        yield _indented(_pairs(system))
    findings = top_findings(info)
    if findings:
        yield _heading("Findings", len(findings))
        for finding in findings:
            yield from finding_parts(finding)
    if info.artifacts:
        yield _heading("Artifacts", len(info.artifacts))
        yield _indented(_artifacts_table(info.artifacts))
    if len(info.attempts) > 1:
        yield _heading("Attempts", len(info.attempts))
        yield _indented(_attempts_table(info.attempts))
    environment = list(_environment(info.environment or {}))
    if environment:
        yield _heading("Environment")
        yield _indented(_pairs(environment))
    if info.warnings or info.dropped:
        yield _heading("Not recorded")
        lines = [clean(warning) for warning in info.warnings]
        if info.dropped:
            lines.append(f"{counted(info.dropped, 'point')} could not be written")
        yield _indented(Text("\n".join(lines), style="yellow"))


def _headline(info: RunInfo) -> Text:
    line = status(info.status)
    line.append("  ")
    line.append(clean(info.name), style="bold")
    line.append(f"  {clean(info.project)}", style="cyan")
    if info.group:
        line.append(f" / {clean(info.group)}", style="cyan")
    if info.is_deleted:
        line.append("  deleted", style="reverse")
    return line


def _facts(info: RunInfo) -> list[tuple[str, Text]]:
    facts = [("id", Text(info.id))]
    started = Text(moment_text(info.started_at))
    if is_terminal():
        started.append(f"  {ago(info.started_at, datetime.now(UTC))}", style="dim")
    facts.append(("started", started))
    if info.ended_at is not None:
        facts.append(("ended", Text(moment_text(info.ended_at))))
    facts.append(("duration", Text(duration(info.duration_s))))
    if info.parent:
        facts.append(("parent", Text(clean(info.parent))))
    if info.attempts:
        latest = info.attempts[-1]
        facts.append(("process", Text(f"{latest.pid} on {clean(latest.host)}")))
    facts.append(("folder", Text(clean(info.path), overflow="fold")))
    return facts


def _failure(failure: Failure) -> Iterator[RenderableType]:
    title = Text(f"{clean(failure.type)}: {clean(failure.message)}", style="bold red")
    if failure.rank:
        title.append(f"  (rank {failure.rank})", style="dim")
    yield _heading("Failure")
    yield _indented(title)
    if failure.traceback.strip():
        yield _indented(Text(clean(failure.traceback.rstrip(), lines=True), style="dim"))


def _metrics_table(summaries: Sequence[MetricSummary]) -> Table:
    rows = []
    for one in summaries:
        steps = str(one.last_step) if one.first_step == one.last_step else f"{one.first_step} … {one.last_step}"
        points = Text(f"{one.count:,}")
        if one.nan_count:
            points.append(f" ({one.nan_count:,} nan)", style="yellow")
        low, high = _at(one.min, one.min_step), _at(one.max, one.max_step)
        rows.append([Text(clean(one.name)), cell(one.last), low, high, cell(one.mean), points, Text(steps)])
    numbers = [(name, "right") for name in ("last", "min", "max", "mean", "points", "steps")]
    return table(["name", *numbers], rows)


def _at(value: float | None, step: int | None) -> Text:
    text = cell(value)
    if value is not None:
        text.append(f" @{step}", style="dim")
    return text


def _artifacts_table(artifacts: Sequence[Artifact]) -> Table:
    rows = []
    for artifact in artifacts:
        kind = counted(len(artifact.files), "file") if artifact.is_folder else "file"
        rows.append([Text(clean(artifact.name)), Text(kind), Text(size(artifact.size_bytes))])
    return table(["name", "kind", ("size", "right")], rows)


def _attempts_table(attempts: Sequence[Attempt]) -> Table:
    rows = []
    for attempt in attempts:
        end = attempt.ended_at or datetime.now(UTC)
        rows.append(
            [
                Text(str(attempt.number)),
                status(attempt.status),
                Text(moment_text(attempt.started_at)),
                Text(duration((end - attempt.started_at).total_seconds())),
                cell(attempt.rewind_step),
                Text(f"{attempt.pid} on {clean(attempt.host)}"),
            ]
        )
    return table(["", "status", "started", ("duration", "right"), ("from step", "right"), "process"], rows)


def _environment(snapshot: Mapping[str, Any]) -> Iterator[tuple[str, Text]]:
    """Yield the lines that say most; `--json` has the whole snapshot."""

    def at(*keys: str) -> Any:
        found: Any = snapshot
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found

    def joined(*parts: Any) -> str:
        return " ".join(clean(part) for part in parts if part not in (None, ""))

    gpus = at("gpu", "devices") or ()
    names = Counter(str(gpu.get("name")) for gpu in gpus if isinstance(gpu, Mapping))
    memory, cores = at("memory", "total_bytes"), at("cpu", "usable_cores")
    changes = "with uncommitted changes" if at("git", "is_dirty") else ""
    lines = {
        "host": joined(at("identity", "user"), "at", at("identity", "host")) if at("identity", "host") else "",
        "system": joined(at("os", "distribution") or at("os", "name"), at("os", "release"), at("os", "machine")),
        "python": joined(at("python", "version"), at("python", "executable")),
        "cpu": joined(at("cpu", "model"), f"({counted(cores, 'core')})" if isinstance(cores, int) else None),
        "memory": size(memory) if isinstance(memory, int) else "",
        "gpu": ", ".join(f"{count} x {clean(name)}" for name, count in names.items()),
        "git": joined(str(at("git", "commit") or "")[:12], at("git", "branch"), changes),
        "command": joined(*(at("process", "argv") or ())),
    }
    for name, text in lines.items():
        if text:
            yield name, Text(text)


def _heading(title: str, count: int | None = None) -> Text:
    text = Text(f"\n{title}", style="bold")
    if count is not None:
        text.append(f"  {count}", style="dim")
    return text


def _indented(what: RenderableType) -> Padding:
    return Padding(what, (0, 0, 0, 2), expand=False)


def _pairs(rows: Sequence[tuple[str, Text]]) -> Table:
    """Return names and values under each other, long values folded."""
    return table(["", ("", "fold")], [(Text(clean(name), style="dim"), text) for name, text in rows], header=False)


# --- delete, restore --------------------------------------------------------------------------------------------------


@runs.command("delete")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@workspace_option
@click.pass_context
def delete_command(ctx: click.Context, runs: Sequence[str]) -> None:
    """Hide runs from lists. Their files stay, and `runstone runs restore` brings them back."""
    workspace = workspace_of(ctx)
    for info in _all_of(workspace, runs):
        if info.is_deleted:
            say(f"{_called(info)} is deleted already")
            continue
        workspace.delete(info.id)
        note = "; it is still running" if not info.status.is_ended else ""
        say(f"deleted {_called(info)}{note}; `runstone runs restore {short_id(info.id)}` brings it back")


@runs.command("restore")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@workspace_option
@click.pass_context
def restore_command(ctx: click.Context, runs: Sequence[str]) -> None:
    """Show deleted runs in lists again."""
    workspace = workspace_of(ctx)
    for info in _all_of(workspace, runs):
        if not info.is_deleted:
            say(f"{_called(info)} is not deleted")
            continue
        workspace.restore(info.id)
        say(f"restored {_called(info)}")


def _all_of(workspace: Workspace, references: Sequence[str]) -> list[RunInfo]:
    """Return the runs, each once. All are looked up before anything is done: a typo must not leave half of it done."""
    found = [workspace.run(reference) for reference in references]
    return list({info.id: info for info in found}.values())


def _called(info: RunInfo) -> str:
    return f"{clean(info.name)} ({short_id(info.id)}) of {clean(info.project)}"
