"""`runstone compare`: runs side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import RenderableType
from rich.text import Text

from runstone.cli._output import (
    cell,
    clean,
    console,
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
from runstone.cli.main import workspace_of, workspace_option
from runstone.cli.verdicts import grouping_parts
from runstone.comparison import SECTIONS, Comparison, Difference, MetricRow, compare
from runstone.comparison import cell as described
from runstone.comparison.measure import GOALS, Goal
from runstone.index.records import unescaped
from runstone.query.table import plain
from runstone.runinfo import RunInfo
from runstone.statistics import CORRECTIONS, TESTS, Correction, Test
from runstone.workspace import Workspace

_MOST_ROWS = 40


@click.command("compare")
@click.argument("runs", metavar="RUN RUN...", nargs=-1)
@click.option("-f", "--filter", "filter", metavar="FILTER", help="Also the runs that this filter describes.")
@click.option(
    "-s", "--sort", metavar="FIELD", help="Rank by, such as 'metrics.val/acc.max desc' or 'metrics.loss.min'."
)
@click.option(
    "-m", "--metric", "metrics", multiple=True, metavar="METRIC",
    help="Compare by, such as val/acc or val/acc.best. May be given again: then the Pareto front is shown.",
)  # fmt: skip
@click.option("--at", metavar="METRIC", help="Take values where another metric is best, such as val/loss.min.")
@click.option(
    "-b", "--by", multiple=True, metavar="FIELD",
    help="Fold runs into groups, such as params.model; 'config': all params but seeds. May be given again.",
)  # fmt: skip
@click.option("--baseline", metavar="GROUP", help="Compare all groups with this one, and not each with each.")
@click.option("--goal", type=click.Choice(GOALS), help="What is better. Default: as the name of the metric says.")
@click.option("--margin", type=float, default=0.0, metavar="NUMBER", help="What a difference must exceed to matter.")
@click.option("--confidence", type=float, default=0.95, show_default=True, help="Of intervals and verdicts.")
@click.option("--test", type=click.Choice(TESTS), default="t", show_default=True, help="What p-values come from.")
@click.option(
    "--correction", type=click.Choice(CORRECTIONS), default="holm", show_default=True,
    help="Of p-values, for many comparisons.",
)  # fmt: skip
@click.option("--code", "show_code", is_flag=True, help="Show how the uncommitted changes of two runs differ.")
@click.option("--all", "show_all", is_flag=True, help="Show every row, however many there are.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--markdown", "as_markdown", is_flag=True, help="As Markdown tables.")
@click.option("--html", "html_file", type=click.Path(path_type=Path), metavar="FILE", help="As one page with figures.")
@workspace_option
@click.pass_context
def compare_command(
    ctx: click.Context,
    runs: Sequence[str],
    filter: str | None,
    sort: str | None,
    metrics: Sequence[str],
    at: str | None,
    by: Sequence[str],
    baseline: str | None,
    goal: Goal | None,
    margin: float,
    confidence: float,
    test: Test,
    correction: Correction,
    show_code: bool,
    show_all: bool,
    as_json: bool,
    as_markdown: bool,
    html_file: Path | None,
) -> None:
    """Put runs side by side: what differs, how they did, which group is better and how sure that is.

    RUN is an id, its last 8 characters as lists show them, or a name.
    """
    if sum((as_json, as_markdown, html_file is not None, show_code)) > 1:
        raise click.UsageError("--json, --markdown, --html and --code exclude each other")
    if not runs and filter is None:
        raise click.UsageError("name two runs or more, or describe them with --filter")
    workspace = workspace_of(ctx)
    found = compare(
        _chosen(workspace, runs, filter),
        order_by=sort,
        metrics=metrics,
        at=at,
        by=by,
        goal=goal,
        baseline=baseline,
        confidence=confidence,
        margin=margin,
        test=test,
        correction=correction,
    )
    if as_json:
        say(to_json(found.to_dict()))
    elif as_markdown:
        say(found.to_markdown(), newline=False)
    elif html_file is not None:
        html_file.write_text(found.to_html(), encoding="utf-8", errors="replace")
        say(str(html_file))
    elif show_code:
        _show_code(found)
    else:
        if parts := grouping_parts(found):
            show(*parts)
        if found.groupings and not show_all:
            show(Text(f"{counted(len(found.members), 'run')}; --all shows them, too", style="dim"))
        elif is_terminal() and not show_all and _width(found) > console().width:
            show(*_one_row_a_run(found))
        else:
            show(*_sections(found, most=10**9 if show_all or not is_terminal() else _MOST_ROWS))


def _chosen(workspace: Workspace, runs: Sequence[str], filter: str | None) -> Iterable[RunInfo]:
    """Return the runs that are named, then those that the filter describes; of a filter alone, no file is opened."""
    if not runs:
        return workspace.runs(filter or "")
    named = [workspace.run(reference) for reference in runs]
    return named if filter is None else [*named, *workspace.runs(filter)]


def _show_code(found: Comparison) -> None:
    if len(found.members) != 2:
        raise click.UsageError(f"--code compares two runs, got {len(found.members)}")
    left, right = found.members
    for row in found.code:
        if not row.name.startswith("file "):
            say(clean(f"{row.name}: {described(row, left.id) or '-'} → {described(row, right.id) or '-'}"))
    diff = found.code_diff(left.id, right.id)
    say(clean(diff, lines=True) if diff else "The uncommitted changes are the same.")


def _sections(found: Comparison, most: int) -> list[RenderableType]:
    """Return everything, one column a run."""
    parts: list[RenderableType] = [_runs_table(found)]
    for section in SECTIONS:
        told = found.differences(section)
        title, rows, equal = section.capitalize(), told.rows, told.equal
        if rows:
            parts += [_heading(title, len(rows), equal), _differences(found, rows[:most])]
            if len(rows) > most:
                parts.append(Text(f"… and {len(rows) - most} more; --all shows them", style="dim"))
        elif equal:
            parts.append(_heading(title, 0, equal))
    if found.measures:
        parts += [Text("\nMeasures", style="bold"), _measures(found)]
    if found.metrics:
        parts += [Text("\nMetrics", style="bold"), _metrics(found)]
    return parts


def _width(found: Comparison) -> int:
    """Return how wide a table with one column a run is, about."""
    names = [metric.name for metric in found.metrics] + [row.name for row in found.params]
    return (
        max(map(width_of, names), default=0) + 6 + sum(max(15, width_of(clean(run.name))) + 2 for run in found.members)
    )


def _one_row_a_run(found: Comparison) -> list[RenderableType]:
    """Return one table for many runs: what differs and the last values, as far as the terminal is wide."""
    columns = [
        _Column("#", [Text(str(place)) for place in range(1, len(found.members) + 1)], is_number=True),
        _Column("run", [Text(clean(run.name), style="bold") for run in found.members]),
        _Column("id", [Text(short_id(run.id), style="dim") for run in found.members]),
        _Column("status", [status(run.record.status) for run in found.members], 1),
    ]
    for measure in found.measures:
        values = [measure.values.get(run.id) for run in found.members]
        columns.append(_Column(measure.measure.label, [cell(value) for value in values], 1, is_number=True))
    if found.ranking:
        columns.append(_Column(found.sorted_by, [cell(value) for value in found.ranking], is_number=True))
    for rank, row in enumerate(found.params):
        columns.append(_Column(unescaped(row.name), [_value(row, run.id) for run in found.members], 3 + 2 * rank))
    for rank, metric in enumerate(sorted(found.metrics, key=_is_same_for_all)):
        summaries = [metric.summaries.get(run.id) for run in found.members]
        cells = [cell(summary.last if summary is not None else None) for summary in summaries]
        columns.append(_Column(metric.name, cells, 2 + 2 * rank, is_number=True))
    shown = fitting(
        [max(width_of(clean(column.title)), *map(width_of, column.cells)) for column in columns],
        [column.importance for column in columns],
    )
    headers = [(columns[n].title, "right" if columns[n].is_number else "") for n in shown]
    rows = [[columns[n].cells[place] for n in shown] for place in range(len(found.members))]
    hidden = [clean(column.title) for n, column in enumerate(columns) if n not in shown]
    notes = f"\n{counted(len(found.members), 'run')}, last values of metrics; --all shows one column a run"
    if hidden:
        names = ", ".join(hidden[:5]) + (", …" if len(hidden) > 5 else "")
        notes += f"\nnot shown for want of width: {names}; --all, --markdown and --json have everything"
    return [table(headers, rows), Text(notes, style="dim")]


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the table with one row a run; the more important, the smaller the number, 0 is always shown."""

    title: str
    cells: list[Text]
    importance: int = 0
    is_number: bool = False


def _is_same_for_all(metric: MetricRow) -> bool:
    return len({plain(summary.last) for summary in metric.summaries.values()}) < 2


def _heading(title: str, count: int, equal: int) -> Text:
    text = Text(f"\n{title}", style="bold")
    text.append(f"  {count} differ, {equal} equal" if count else f"  {counted(equal, 'equal value')}", style="dim")
    return text


def _runs_table(found: Comparison) -> RenderableType:
    rows = []
    for place, run in enumerate(found.members, 1):
        row = [
            Text(str(place)),
            Text(clean(run.name), style="bold"),
            Text(short_id(run.id), style="dim"),
            Text(clean(run.record.project)),
            status(run.record.status),
            Text(duration(run.duration_s)),
        ]
        if found.ranking:
            row.append(cell(found.ranking[place - 1]))
        rows.append(row)
    headers: list[str | tuple[str, str]] = [("#", "right"), "run", "id", "project", "status", ("duration", "right")]
    if found.ranking:
        headers.append((found.sorted_by, "right"))
    return table(headers, rows)


def _differences(found: Comparison, rows: Sequence[Difference]) -> RenderableType:
    return table(
        ["", *_run_headers(found)],
        [[Text(clean(unescaped(row.name))), *(_value(row, run.id) for run in found.members)] for row in rows],
    )


def _value(row: Difference, run_id: str) -> Text:
    if run_id not in row.values:
        return Text("-", style="dim")
    value = row.values[run_id]
    shown = Text("null") if value is None else cell(value)
    shown.truncate(36, overflow="ellipsis")
    return shown


def _metrics(found: Comparison) -> RenderableType:
    rows = []
    for metric in found.metrics:
        for figure in ("last", "min", "max"):
            name = Text(clean(metric.name)) if figure == "last" else Text()
            cells = []
            for run in found.members:
                summary = metric.summaries.get(run.id)
                value = cell(getattr(summary, figure) if summary is not None else None)
                step = getattr(summary, f"{figure}_step", None) if figure != "last" else None
                if step is not None:
                    value.append(f" @{step}", style="dim")
                cells.append(value)
            rows.append([name, Text(figure, style="dim"), *cells])
    return table(["", "", *_run_headers(found)], rows)


def _measures(found: Comparison) -> RenderableType:
    rows = [
        [Text(clean(row.measure.label)), *(cell(row.values.get(run.id)) for run in found.members)]
        for row in found.measures
    ]
    return table(["", *_run_headers(found)], rows)


def _run_headers(found: Comparison) -> list[tuple[str, str]]:
    """Return a title for each run: its name, with the end of the id where a name occurs twice."""
    names = [run.name for run in found.members]
    return [
        (run.name if names.count(run.name) == 1 else f"{run.name} {short_id(run.id)}", "right") for run in found.members
    ]
