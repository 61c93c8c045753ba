"""Live blocks of reports: each reads the workspace and becomes tables and figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from runstone.comparison import SECTIONS, Comparison, Plot, compare, draw_plot
from runstone.comparison.plotting import TELLING
from runstone.errors import FormatError, InvalidConfig, NotFound, RunstoneError
from runstone.index.records import unescaped
from runstone.models.history import ModelVersion
from runstone.models.manifest import Manifest
from runstone.models.saving import read_manifest
from runstone.query.table import RunTable, plain
from runstone.reports.comparing import PARTS, comparison_html, took_text
from runstone.reports.options import Options
from runstone.reports.pieces import Cell, card, error, figure, figures, heading, note, run_cell, table
from runstone.reports.plots import PLOT_KEYS, goal_in, plot_of
from runstone.statistics import CORRECTIONS, TESTS
from runstone.workspace import Workspace

_CHOICE = frozenset({"filter", "runs", "sort", "limit", "title"})
_JUDGING = frozenset({"by", "goal", "baseline", "margin", "confidence", "test", "correction", "at"})
_MOST_RUNS = 1_000
_DEFAULT_ROWS = 30
_MOST_PARAMS, _MOST_TOLD = 6, 9
_BEST_OF_SWEEP = 10
_MOST_OF_MODEL = 6


def render_block(workspace: Workspace, kind: str, text: str, theme: str | None) -> str:
    """Return one block as HTML; what is wrong with it stands in its place, and the rest of the report is untouched.

    Args:
        workspace: What is read.
        kind: One of `KINDS`.
        text: What stands in the block.
        theme: See `Figure.to_dict`.
    """
    draw, keys = _BLOCKS[kind]
    try:
        return draw(workspace, Options(kind, text, keys), theme)
    except (RunstoneError, OSError) as mistake:
        return error(f"This {kind} block cannot be shown.", str(mistake))


def _runs(workspace: Workspace, options: Options, _theme: str | None) -> str:
    found = _table(workspace, options, _DEFAULT_ROWS)
    columns = options.texts("columns") or [
        "name",
        "status",
        "started_at",
        "duration",
        *_telling(found, options.text("sort")),
    ]
    return _run_table(found, columns, options.text("title"))


def _run_table(found: RunTable, columns: Sequence[str], title: str) -> str:
    if not len(found):
        return card(heading(title) if title else "", "<p>No run fits.</p>")
    values = {column: found.values(column) for column in columns}
    headers: list[str | Cell] = []
    for column in columns:
        name = unescaped(column.removeprefix("params.").removeprefix("metrics."))
        headers.append(Cell(name.replace("_", " ") if column in _WORDS else name, is_number=_is_number(values[column])))
    rows = []
    for place, record in enumerate(found.records):
        row: list[str | Cell] = []
        for column in columns:
            value = values[column][place]
            row.append(_cell(record.id, record.name, column, value))
        rows.append(row)
    more = found.total - len(found)
    parts = [heading(title) if title else "", table(headers, rows), note(f"and {more:,} more runs" if more else "")]
    return card(*parts)


_WORDS = {"started_at", "ended_at"}


def _is_number(values: Sequence[Any]) -> bool:
    told = [value for value in values if value is not None]
    return bool(told) and all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in told)


def _cell(run_id: str, name: str, column: str, value: Any) -> Cell:
    match column:
        case "name":
            return run_cell(run_id, name)
        case "id":
            return Cell(str(value), kind="gone")
        case "status":
            return Cell(str(value), kind=f"rs-{value}")
        case "started_at" | "ended_at" if isinstance(value, datetime):
            return Cell(f"{value.astimezone(UTC):%Y-%m-%d %H:%M}", kind="rs-whole")
        case "duration" if isinstance(value, (int, float)):
            return Cell(took_text(value), is_number=True)
    if value is None:
        return Cell("–", kind="gone", title="not set")
    if isinstance(value, float):
        return Cell(f"{value:.5g}", is_number=True, title=repr(value))
    return Cell(plain(value), is_number=isinstance(value, int) and not isinstance(value, bool))


def _telling(found: RunTable, sort: str = "") -> list[str]:
    """Return the params and metrics that tell the runs of a table apart, as columns; first what they are sorted by."""
    rows = found.to_dicts()
    sorted_by = [text.strip().removesuffix(" desc").removesuffix(" asc").strip() for text in sort.split(",")]
    first = [column for column in sorted_by if column.startswith("metrics.")][:1]

    def differs(column: str) -> bool:
        return len({plain(row.get(column)) for row in rows}) > 1

    params = [column for column in found.columns if column.startswith("params.") and differs(column)]
    metrics = [
        column for column in found.columns if column.startswith("metrics.") and not column.startswith("metrics.system/")
    ]
    metrics = sorted(metrics, key=lambda column: not TELLING.match(column.removeprefix("metrics.")))
    return [*params[:_MOST_PARAMS], *first, *(column for column in metrics if column not in first)][:_MOST_TOLD]


def _columns(workspace: Workspace, options: Options, theme: str | None) -> str:
    if "columns" not in options:
        raise InvalidConfig("a table block needs columns, such as `columns: [name, params.lr, metrics.val/acc.max]`")
    return _runs(workspace, options, theme)


def _plot(workspace: Workspace, options: Options, theme: str | None) -> str:
    return figure(draw_plot(_table(workspace, options, _MOST_RUNS), plot_of(options)), theme)


def _compare(workspace: Workspace, options: Options, theme: str | None) -> str:
    found = compare_by(_table(workspace, options, _MOST_RUNS), options)
    shown = options.texts("show")
    unknown = [part for part in shown if part not in (*PARTS, "differences")]
    if unknown:
        raise InvalidConfig(
            f"show has {unknown[0]!r:.80}; there is {', '.join(PARTS)}, and differences for all of them"
        )
    if "differences" in shown:
        shown += SECTIONS
    default = ["verdicts", "figures", "runs"] if found.measures else ["figures", "runs", *SECTIONS]
    title = options.text("title")
    return (heading(title) if title else "") + comparison_html(found, theme, shown or default)


def compare_by(found: RunTable, options: Options) -> Comparison:
    """Compare runs as the options of a block say."""
    return compare(
        found,
        order_by=options.text("sort") or None,
        metrics=options.texts("metrics", "metric"),
        at=options.text("at") or None,
        by=options.texts("by"),
        goal=goal_in(options),
        baseline=options.text("baseline") or None,
        confidence=options.number("confidence", 0.95),
        margin=options.number("margin", 0.0),
        test="permutation" if options.word("test", TESTS, "t") == "permutation" else "t",
        correction=next(word for word in CORRECTIONS if word == options.word("correction", CORRECTIONS, "holm")),
    )


def _model(workspace: Workspace, options: Options, _theme: str | None) -> str:
    name = options.text("model")
    if not name:
        raise InvalidConfig("a model block needs `model: NAME`, or `model: NAME@VERSION`")
    wanted = workspace.models.find(name if "@" in name else f"{name}@latest")
    model = workspace.models.get(wanted.model)
    state = model.state()
    versions = list(reversed(state.versions.values()))
    if "@" in name:
        versions = [wanted]
    shown = versions[: options.count("limit", _DEFAULT_ROWS, _MOST_RUNS)]
    manifests = [_manifest(workspace, version) for version in shown]
    told = [manifest for manifest in manifests if manifest is not None]
    metrics = list(dict.fromkeys(metric for manifest in told for metric in manifest.metrics))[:_MOST_OF_MODEL]
    headers: list[str | Cell] = ["version", "stage", "aliases", "approval", "registered", "by", "run"]
    headers += [Cell(metric, is_number=True) for metric in metrics]
    rows = []
    for version, manifest in zip(shown, manifests, strict=True):
        at = datetime.fromtimestamp(version.registered_at, UTC)
        run = (manifest.run if manifest is not None else None) or {}
        run_id, run_name = run.get("id") or version.run_id, run.get("name")
        values = manifest.metrics if manifest is not None else {}
        row: list[str | Cell] = [
            Cell(str(version.version), kind="gone" if version.withdrawn else "", title=version.withdrawn or ""),
            Cell(version.stage),
            Cell(", ".join(version.aliases)),
            Cell(version.approval.state),
            Cell(f"{at:%Y-%m-%d %H:%M}", kind="rs-whole"),
            Cell(version.author),
            run_cell(run_id, run_name or run_id[-8:]) if run_id else Cell("–", kind="gone"),
        ]
        rows.append([*row, *(_cell("", "", "", values.get(metric)) for metric in metrics)])
    said = wanted.notes if "@" in name else state.notes
    return card(heading(options.text("title") or f"Model {name}"), note(said or ""), table(headers, rows))


def _manifest(workspace: Workspace, version: ModelVersion) -> Manifest | None:
    """Return what a version consists of; `None` where its content is not in this workspace."""
    try:
        return read_manifest(version, workspace.blobs)
    except (NotFound, FormatError):
        return None


def _sweep(workspace: Workspace, options: Options, theme: str | None) -> str:
    name = options.text("sweep")
    if not name:
        raise InvalidConfig("a sweep block needs `sweep: NAME`")
    quoted = name.replace("\\", "\\\\").replace("'", "\\'")
    order = options.text("sort") or None
    found = workspace.runs(f"group = '{quoted}' or tags.sweep = '{quoted}'", order_by=order, limit=_MOST_RUNS)
    if not len(found):
        raise InvalidConfig(f"no run belongs to a sweep {name!r:.120}")
    metric = options.text("metric")
    title = heading(options.text("title") or f"Sweep {name}")
    if not metric or len(found) < 2:
        return title + _run_table(found[:_DEFAULT_ROWS], ["name", "status", "duration", *_telling(found)], "")
    named = compare(found, metrics=[metric], goal=goal_in(options))
    (row,) = named.measures
    sign = -1.0 if row.measure.is_maximized else 1.0
    ids = sorted(
        (run for run in row.values if row.values[run] == row.values[run]), key=lambda run: sign * row.values[run]
    )
    count = options.count("limit", _BEST_OF_SWEEP, _MOST_RUNS)
    place = {record.id: number for number, record in enumerate(found.records)}
    best = RunTable(workspace.path, [found.records[place[run]] for run in ids[:count]])
    drawn = [
        draw_plot(found, Plot(kind=kind, metrics=(metric,), goal=row.measure.goal)) for kind in ("history", "parallel")
    ]
    columns = ["name", "status", "duration", *_telling(found)]
    return title + _run_table(best, columns, f"Best by {row.measure.label}") + figures(drawn, theme)


def _table(workspace: Workspace, options: Options, rows: int) -> RunTable:
    """Return the runs that a block speaks of."""
    limit = options.count("limit", rows, _MOST_RUNS)
    named = options.texts("runs")
    if not named:
        return workspace.runs(options.text("filter"), order_by=options.text("sort") or None, limit=limit)
    if "filter" in options:
        raise InvalidConfig("runs and filter exclude each other")
    ids = [workspace.run(reference).id for reference in named]
    quoted = ", ".join(f"'{run_id}'" for run_id in ids)
    found = workspace.runs(f"id IN ({quoted})", order_by=options.text("sort") or None)
    if "sort" in options:
        return found
    place = {run_id: number for number, run_id in reversed(list(enumerate(ids)))}
    ordered = sorted(found.records, key=lambda record: place[record.id])
    return RunTable(workspace.path, ordered)


Drawn = Callable[[Workspace, Options, str | None], str]
_BLOCKS: dict[str, tuple[Drawn, frozenset[str]]] = {
    "runs": (_runs, _CHOICE | {"columns"}),
    "table": (_columns, _CHOICE | {"columns"}),
    "plot": (_plot, _CHOICE | PLOT_KEYS),
    "compare": (_compare, _CHOICE | _JUDGING | {"metric", "metrics", "show"}),
    "model": (_model, frozenset({"model", "title", "limit"})),
    "sweep": (_sweep, frozenset({"sweep", "title", "limit", "metric", "goal", "sort"})),
}
KINDS = tuple(_BLOCKS)
"""First words of the fenced blocks that are live."""

__all__ = ["KINDS", "render_block"]
