"""`runstone runs`: the group and its list. Showing one run and changing runs stand in modules of their own."""

from __future__ import annotations

import csv
import io
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from runstone.cli import edits
from runstone.cli._output import (
    ago,
    cell,
    clean,
    counted,
    duration,
    fitting,
    is_terminal,
    say,
    short_id,
    show,
    status,
    table,
    to_json,
    width_of,
)
from runstone.cli.main import Suggesting, workspace_of, workspace_option
from runstone.cli.run_show import show_command
from runstone.index.conditions import (
    ATTRIBUTES,
    At,
    Attribute,
    AttributeType,
    Count,
    Environment,
    Field,
    Metric,
    Param,
    Tag,
    fields_in,
)
from runstone.index.records import RunRecord, split_path
from runstone.names import SYSTEM
from runstone.params import flatten_params
from runstone.query.parser import parse_fields, parse_filter, parse_order
from runstone.query.table import CONSUMPTION, RunTable, plain, value_of, write_columns
from runstone.views import load
from runstone.workspace import Workspace

_ALWAYS = {"id": 0, "name": 0, "project": 2, "status": 0, "started_at": 6, "duration": 9}
"""Columns, and how important each is: see `_Column`."""
_MOST_METRICS, _MOST_PARAMS = 6, 6
_NAMED = ("metrics", "params", "tags", "environment")
_TERMINAL_LIMIT = 50
_WIDEST_NAME, _WIDEST_VALUE = 32, 28


@click.group(cls=Suggesting)
@workspace_option
def runs() -> None:
    """List, show, change, put away and remove runs.

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
@click.option("--view", metavar="NAME", help="A saved view: its filter, order and columns, where none are given here.")
@click.option("-p", "--project", metavar="NAME", help="Only runs of this project.")
@click.option("--deleted", is_flag=True, help="The deleted runs instead of the others.")
@click.option("--archived", is_flag=True, help="The archived runs instead of the others.")
@click.option("--json", "as_json", is_flag=True, help="All of each run but its points, as JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated values; all columns, or those of --columns.")
@click.option("--parquet", type=click.Path(dir_okay=False, path_type=Path), help="The same into a Parquet file.")
@workspace_option
@click.pass_context
def list_command(
    ctx: click.Context,
    filter: str,
    order_by: str | None,
    limit: int | None,
    columns: str | None,
    view: str | None,
    project: str | None,
    deleted: bool,
    archived: bool,
    as_json: bool,
    as_csv: bool,
    parquet: Path | None,
) -> None:
    """List runs, newest first, or those that FILTER describes (docs/filters.md).

    \b
    runstone runs list "metrics.val/acc.max > 0.9 and params.model = 'mlp'"
    runstone runs list "status in ('failed', 'crashed') and started_at > now() - 7d"
    """
    if as_json + as_csv + (parquet is not None) > 1:
        raise click.UsageError("--json, --csv and --parquet exclude each other")
    workspace = workspace_of(ctx)
    if view is not None:
        filter, order_by, columns = load(workspace.path, view).narrowed(filter, order_by=order_by, columns=columns)
    fields = parse_fields(columns) if columns is not None else ()
    asked = dict.fromkeys((*fields_in(parse_filter(filter)), *(order.field for order in parse_order(order_by or ""))))
    if limit is None and is_terminal() and not (as_json or as_csv or parquet):
        limit = _TERMINAL_LIMIT
    within = in_project(filter, project)
    found = workspace.runs(within, order_by=order_by, limit=limit, deleted=deleted, archived=archived)
    for trouble in found.troubles:
        say(f"warning: {clean(trouble)}", stderr=True)
    if as_json:
        say(to_json([_as_dict(record) for record in found.records]))
    elif as_csv:
        text = _as_csv(found, fields)
        say(clean(text, lines=True) if is_terminal() else text, newline=False)
    elif parquet is not None:
        named = [(title, found.values_of(field)) for title, field in _columns_of(found, fields)]
        write_columns(parquet, dict(named))
        say(f"{counted(len(found), 'run')} written to {clean(parquet)}", stderr=True)
    elif not found.records:
        say(_nothing_found(workspace, filter, project, deleted=deleted, archived=archived), stderr=True)
    else:
        _print_list(found, [_Column(*named) for named in fields] or _columns_for(found, list(asked)))


def in_project(filter: str, project: str | None) -> str:
    """Return a filter, which must parse, narrowed to a project."""
    if project is None:
        return filter
    quoted = project.replace("\\", "\\\\").replace("'", "\\'")
    return f"project = '{quoted}' and ({filter})" if filter.strip() else f"project = '{quoted}'"


def _nothing_found(workspace: Workspace, filter: str, project: str | None, *, deleted: bool, archived: bool) -> str:
    if deleted or archived:
        word = "deleted" if deleted else "archived"
        return f"no {word} runs" if not (filter.strip() or project) else f"no {word} run matches"
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
    titles = {column.title for column in columns}
    columns += [_Column(name, Attribute(name), 20) for name in CONSUMPTION if found.has(name) and name not in titles]
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
        case At(name, step):
            return f"metrics.{name}@{step}"
        case Environment(keys):
            return f"environment.{'.'.join(keys)}"
        case Count(kind, pattern):
            return f"count({kind})" if kind not in _NAMED else f"count({kind}.{pattern})"
        case Attribute(name):
            return name


def _print_list(found: RunTable, columns: Sequence[_Column]) -> None:
    """Print the table; in a terminal, leave out what does not fit."""
    now = time.time()
    by_column = [_list_cells(found, column.field, now) for column in columns]
    cells = [list(row) for row in zip(*by_column, strict=True)]
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
    return name if kind in _NAMED and name else title


def _justify(field: Field) -> str:
    is_number = isinstance(field, Metric | At | Count) or (
        isinstance(field, Attribute) and field.name in ("duration", "attempts", *CONSUMPTION)
    )
    return "right" if is_number else ""


def _list_cells(found: RunTable, field: Field, now: float) -> list[Text]:
    if isinstance(field, Attribute) and ATTRIBUTES[field.name] is not AttributeType.TEXTS:
        return [_attribute_cell(record, field.name, now) for record in found.records]
    return [_value_cell(value, is_metric=isinstance(field, Metric | At)) for value in found.values_of(field)]


def _value_cell(value: Any, *, is_metric: bool) -> Text:
    if is_metric and isinstance(value, float) and math.isfinite(value) and is_terminal():
        return Text(f"{value:.4g}")
    shown = Text(clean(", ".join(map(plain, value)))) if isinstance(value, list) else cell(value)
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


def _columns_of(found: RunTable, columns: Sequence[tuple[str, Field]]) -> list[tuple[str, Field]]:
    return list(columns) or [(name, found.field(name)) for name in found.columns]


def _as_csv(found: RunTable, columns: Sequence[tuple[str, Field]]) -> str:
    named = _columns_of(found, columns)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([title for title, _field in named])
    by_column = [found.values_of(field) for _title, field in named]
    writer.writerows([_csv_value(value) for value in row] for row in zip(*by_column, strict=True))
    return text.getvalue()


def _csv_value(value: Any) -> str:
    match value:
        case float():
            return repr(value)  # all digits
        case datetime():
            return value.isoformat()
        case _:
            return plain(value).encode("utf-8", "replace").decode()


runs.add_command(show_command)
for _command in edits.COMMANDS:
    runs.add_command(_command)
