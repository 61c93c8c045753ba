"""A comparison as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from runstone.comparison import SECTIONS, Comparison, Difference, Grouping, Member, cell
from runstone.comparison.markdown import effect_text, group_cells, more_text, p_text, verdict_text
from runstone.comparison.plotting import figures_of
from runstone.index.records import unescaped
from runstone.query.table import plain
from runstone.reports.pieces import Cell, card, figures, heading, note, run_cell, table
from runstone.statistics import Verdict
from runstone.values import MetricSummary

_MOST_COLUMNS = 12
_MOST_ROWS = 200
_MOST_METRICS = 40
_MOST_VERDICTS = 40
_MOST_DIFFERENCES = 80
_LONGEST = 120
_MOST_OPEN = 24
_TITLES = {"params": "Params", "tags": "Tags", "environment": "Environment", "code": "Code", "data": "Data"}
_WORDS = {"better": "beats", "equal": "equal", "open": "not settled", "none": "no verdict"}
PARTS = ("verdicts", "figures", "runs", *SECTIONS, "metrics")


def comparison_html(found: Comparison, theme: str | None, parts: Sequence[str] = PARTS) -> str:
    """Return a comparison: verdicts, figures, the runs, what differs, all metrics.

    Args:
        found: The comparison.
        theme: See `Figure.to_dict`.
        parts: Which of `PARTS` are wanted.
    """
    pieces = []
    if "verdicts" in parts:
        pieces += [_grouping(grouping) for grouping in found.groupings]
        pieces.append(_front(found))
    if "figures" in parts:
        pieces.append(figures(figures_of(found), theme))
    if "runs" in parts:
        pieces.append(_runs(found))
    for section in SECTIONS:
        if section in parts:
            pieces.append(_section(found, section))
    if "metrics" in parts:
        pieces.append(_metrics(found))
    return "\n".join(piece for piece in pieces if piece)


def _grouping(grouping: Grouping) -> str:
    goal = "more is better" if grouping.measure.is_maximized else "less is better"
    numbers = [Cell(name, is_number=True) for name in ("runs", "mean", "sd")]
    interval = Cell(f"{grouping.judging.confidence:.0%} interval", is_number=True)
    headers: list[str | Cell] = [
        "group",
        *numbers,
        interval,
        Cell("lowest", is_number=True),
        Cell("highest", is_number=True),
    ]
    rows = []
    for group in grouping.groups[:_MOST_ROWS]:
        label, *cells = group_cells(group)
        rows.append([run_cell(label, label), *(Cell(said, is_number=True) for said in cells)])
    parts = [heading(f"{grouping.measure.label} by {', '.join(grouping.by)} ({goal})"), table(headers, rows)]
    if grouping.verdicts:
        parts += [heading("Verdicts", 4), _verdicts(grouping)]
    parts += [note(f"{said[:1].upper()}{said[1:]}.") for said in grouping.notes]
    return card(*parts)


def _verdicts(grouping: Grouping) -> str:
    headers: list[str | Cell] = ["", "", "", *(Cell(name, is_number=True) for name in ("by", "p", "size", "more runs"))]
    rows = [_verdict(verdict, grouping) for verdict in grouping.verdicts[:_MOST_VERDICTS]]
    shown = table(headers, rows)
    left_out = len(grouping.verdicts) - len(rows)
    correction = {"holm": " (Holm)", "bh": " (Benjamini-Hochberg)", "none": ", not corrected"}[
        grouping.judging.correction
    ]
    said = (
        f"By: difference of the means and its interval. p: corrected for all comparisons{correction}. Size: the "
        "difference in standard deviations. More runs: of each group, to settle it with a probability of 80 %."
    )
    return shown + note(f"and {left_out} more" if left_out else "") + note(said)


def _verdict(verdict: Verdict, grouping: Grouping) -> list[str | Cell]:
    more = "" if verdict.more == 0 else "many" if verdict.more is None and verdict.word == "open" else ""
    if verdict.more:
        more = f"{verdict.more:,}"
    if verdict.word == "none":
        more = more_text(verdict)
    return [
        run_cell(verdict.winner, verdict.winner),
        Cell(_WORDS[verdict.word], kind=f"rs-{verdict.word}", title=verdict_text(verdict, grouping)),
        run_cell(verdict.loser, verdict.loser),
        Cell(effect_text(verdict), is_number=True),
        Cell(p_text(verdict.corrected_p), is_number=True),
        Cell("" if verdict.size is None else f"{verdict.size:.2f}", is_number=True),
        Cell(more, is_number=True),
    ]


def _front(found: Comparison) -> str:
    if found.front is None or not found.front.best:
        return ""
    names = {member.id: member.name for member in found.members}
    headers: list[str | Cell] = ["", *(Cell(measure.label, is_number=True) for measure in found.front.measures)]
    rows = [
        [run_cell(key, names.get(key, key)), *(Cell(plain(value), is_number=True) for value in found.front.points[key])]
        for key in found.front.best[:_MOST_ROWS]
    ]
    left_out = len(found.front.points) - len(found.front.best)
    others = "other is" if left_out == 1 else "others are"
    said = f"{left_out:,} {others} beaten in one of these metrics and better in none."
    return card(heading("Pareto front"), table(headers, rows), note(said if left_out else ""))


def _runs(found: Comparison) -> str:
    shown = found.members[:_MOST_ROWS]
    headers: list[str | Cell] = [Cell("#", is_number=True), "run", "status", Cell("took", is_number=True)]
    # What ranks the runs is often one of the measures already.
    is_ranking_shown = bool(found.ranking) and all(
        any(row.values.get(member.id) != value for member, value in zip(found.members, found.ranking, strict=True))
        for row in found.measures
    )
    if is_ranking_shown:
        headers.append(Cell(found.sorted_by, is_number=True))
    headers += [Cell(row.measure.label, is_number=True) for row in found.measures]
    params = found.params[:_MOST_COLUMNS]
    headers += [_head(row) for row in params]
    rows = []
    for place, member in enumerate(shown):
        row: list[str | Cell] = [
            Cell(str(place + 1), is_number=True),
            run_cell(member.id, member.name),
            Cell(member.record.status.value, kind=f"rs-{member.record.status.value}"),
            Cell(took_text(member.duration_s), is_number=True),
        ]
        if is_ranking_shown:
            row.append(Cell(plain(found.ranking[place]), is_number=True))
        row += [Cell(plain(measure.values.get(member.id)), is_number=True) for measure in found.measures]
        row += [_value(difference, member.id) for difference in params]
        rows.append(row)
    left_out = len(found.members) - len(shown)
    return card(heading("Runs"), table(headers, rows), note(f"and {left_out:,} more runs" if left_out else ""))


def _head(row: Difference) -> Cell:
    is_number = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in row.values.values())
    return Cell(unescaped(row.name), is_number=is_number)


def took_text(seconds: float) -> str:
    """Return a duration for people."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds >= 0.1 else f"{seconds * 1000:.0f} ms"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _section(found: Comparison, section: str) -> str:
    told = found.differences(section)
    if not told.rows and not told.equal:
        return ""
    title = heading(f"{_TITLES[section]}: {len(told.rows)} differ, {told.equal} equal")
    if not told.rows:
        return card(title)
    if len(found.members) > _MOST_COLUMNS:
        return card(title, _hidden(_folded(found.members, told.rows), len(told.rows)))
    rows: list[list[str | Cell]] = [
        [unescaped(row.name), *(replace(_value(row, member.id), is_number=False) for member in found.members)]
        for row in told.rows[:_MOST_DIFFERENCES]
    ]
    left_out = len(told.rows) - len(rows)
    shown = table(["", *(run_cell(member.id, member.name) for member in found.members)], rows)
    return card(title, _hidden(shown + note(f"and {left_out:,} more" if left_out else ""), len(told.rows)))


def _hidden(shown: str, rows: int) -> str:
    """Return what is long behind a line to click at."""
    return shown if rows <= _MOST_OPEN else f"<details><summary>show all {rows:,}</summary>{shown}</details>"


def _folded(members: Sequence[Member], rows: Sequence[Difference]) -> str:
    """Return, of many runs, how often each value occurs."""
    told = []
    for row in rows[:_MOST_DIFFERENCES]:
        count: dict[str, int] = {}
        for member in members:
            said = cell(row, member.id) if member.id in row.values else "–"
            count[said] = count.get(said, 0) + 1
        often = sorted(count.items(), key=lambda item: -item[1])
        values = ", ".join(f"{_short(value)} ({times:,} ×)" for value, times in often[:6])
        told.append([unescaped(row.name), str(len(count)), values + (", …" if len(often) > 6 else "")])
    left_out = len(rows) - len(told)
    return table(["", "values", "most frequent"], told) + note(f"and {left_out:,} more" if left_out else "")


def _short(said: str) -> str:
    return said if len(said) <= _LONGEST else f"{said[: _LONGEST - 1]}…"


def _value(row: Difference, run_id: str) -> Cell:
    if run_id not in row.values:
        return Cell("–", kind="gone", title="not set")
    value = row.values[run_id]
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return Cell(_short(cell(row, run_id)), is_number=is_number)


def _metrics(found: Comparison) -> str:
    shown = found.members[:_MOST_COLUMNS]
    if not found.metrics or len(found.members) > _MOST_COLUMNS:
        return ""
    headers: list[str | Cell] = [
        "",
        "",
        *(replace(run_cell(member.id, member.name), is_number=True) for member in shown),
    ]
    rows: list[list[str | Cell]] = []
    for metric in found.metrics[:_MOST_METRICS]:
        for figure in ("last", "min", "max"):
            cells = [_figure(metric.summaries.get(member.id), figure) for member in shown]
            rows.append([metric.name if figure == "last" else "", Cell(figure, kind="gone"), *cells])
    left_out = len(found.metrics) - _MOST_METRICS
    said = note(f"and {left_out:,} more metrics" if left_out > 0 else "")
    return card(heading("Metrics"), table(headers, rows), said)


def _figure(summary: MetricSummary | None, figure: str) -> Cell:
    if summary is None:
        return Cell("–", is_number=True, kind="gone", title="not logged")
    value = getattr(summary, figure)
    step = summary.last_step if figure == "last" else getattr(summary, f"{figure}_step")
    said = "nan" if value is None else plain(value)
    return Cell(said, is_number=True, title="" if step is None else f"at step {step}")
