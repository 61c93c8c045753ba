"""A comparison in words and as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from runstone.comparison.differences import SECTIONS, cell
from runstone.comparison.grouping import Grouping, GroupRow
from runstone.index.records import unescaped
from runstone.query.table import plain
from runstone.statistics import Verdict

if TYPE_CHECKING:
    from runstone.comparison.comparison import Comparison

MOST_COLUMNS = 12
"""More runs than this become rows."""
_CORRECTIONS = {"holm": "Holm", "bh": "Benjamini-Hochberg"}


def to_markdown(found: Comparison) -> str:
    """Return a comparison as Markdown: groups and verdicts, the front, then the runs side by side."""
    lines: list[str] = []
    for grouping in found.groupings:
        lines += _grouping(grouping)
    lines += _front(found)
    if found.sorted_by:
        lines += [f"Ranked by `{found.sorted_by}`.", ""]
    if len(found.members) > MOST_COLUMNS:
        return "\n".join([*lines, *_one_row_a_run(found)]) + "\n"
    head = ["", *(escaped(member.name) for member in found.members)]
    facts = [
        ("id", [member.id for member in found.members]),
        ("project", [member.record.project for member in found.members]),
        ("status", [member.record.status.value for member in found.members]),
    ]
    lines += [_line(head), _line(["---"] * len(head))]
    lines += [_line([name, *map(escaped, cells)]) for name, cells in facts]
    section = ""
    for row_section, name, cells in found.rows():
        if row_section != section:
            section = row_section
            equal = 0 if section in ("metrics", "measures") else found.differences(section).equal
            lines += ["", f"### {section.capitalize()}{f' ({equal} equal)' if equal else ''}", ""]
            lines += [_line(head), _line(["---"] * len(head))]
        lines.append(_line([escaped(name), *map(escaped, cells)]))
    return "\n".join(lines) + "\n"


def _one_row_a_run(found: Comparison) -> list[str]:
    """Return many runs as rows: how they did, and the params that differ; of the rest, how many names differ."""
    params = found.params[:MOST_COLUMNS]
    measures = list(found.measures)
    metrics = [] if measures else found.metrics[:MOST_COLUMNS]
    head = ["run", "id", "status", *(row.measure.label for row in measures), *(f"{row.name} last" for row in metrics)]
    head += [unescaped(row.name) for row in params]
    if found.ranking:
        head.insert(3, found.sorted_by)
    lines = [_line(map(escaped, head)), _line(["---"] * len(head))]
    for place, member in enumerate(found.members):
        cells = [member.name, member.id, member.record.status.value]
        cells += [plain(found.ranking[place])] if found.ranking else []
        cells += [plain(row.values.get(member.id)) for row in measures]
        summaries = [row.summaries.get(member.id) for row in metrics]
        cells += ["" if summary is None else plain(summary.last) for summary in summaries]
        cells += [cell(row, member.id) for row in params]
        lines.append(_line(map(escaped, cells)))
    said = [f"{section} {len(found.differences(section).rows)}" for section in SECTIONS]
    return [*lines, "", f"Names that differ: {', '.join(said)}."]


def _grouping(grouping: Grouping) -> list[str]:
    goal = "more is better" if grouping.measure.is_maximized else "less is better"
    lines = [f"### {escaped(grouping.measure.label)} by {escaped(', '.join(grouping.by))} ({goal})", ""]
    head = ["", "runs", "mean", "sd", f"{grouping.judging.confidence:.0%} interval", "min", "max"]
    lines += [_line(head), _line(["---", *["---:"] * (len(head) - 1)])]
    lines += [_line([escaped(text) for text in group_cells(group)]) for group in grouping.groups]
    lines.append("")
    lines += [f"- {escaped(verdict_text(verdict, grouping))}" for verdict in grouping.verdicts]
    lines += [f"- Note: {escaped(note)}." for note in grouping.notes]
    return [*lines, ""]


def _front(found: Comparison) -> list[str]:
    if found.front is None:
        return []
    names = {member.id: member.name for member in found.members}
    head = ["Pareto front", *(escaped(measure.label) for measure in found.front.measures)]
    lines = [_line(head), _line(["---", *["---:"] * (len(head) - 1)])]
    for key in found.front.best:
        lines.append(_line([escaped(names.get(key, key)), *(plain(value) for value in found.front.points[key])]))
    return [*lines, ""]


def group_cells(group: GroupRow) -> list[str]:
    """Return a group as cells: label, runs, mean, standard deviation, interval, lowest, highest."""
    summary = group.summary
    if summary is None:
        return [group.label, "0", "", "", "", "", ""]
    interval = summary.interval
    bounds = "" if interval is None else f"{_four(interval.low)} to {_four(interval.high)}"
    sd = "" if summary.sd is None else f"{summary.sd:.2g}"
    return [group.label, str(summary.count), _four(summary.mean), sd, bounds, _four(summary.min), _four(summary.max)]


def _four(value: float) -> str:
    return f"{value:.4g}"


def _three(value: float) -> str:
    return f"{value:.3g}"


def verdict_text(verdict: Verdict, grouping: Grouping) -> str:
    """Return a verdict as a sentence."""
    winner, loser = verdict.winner, verdict.loser
    if verdict.word == "none":
        return f"{winner} and {loser}: no verdict; {verdict.reason}"
    effect = effect_text(verdict)
    if verdict.word == "better":
        return f"{winner} beats {loser} by {effect}; {_evidence(verdict, grouping)}"
    if verdict.word == "equal":
        return f"{winner} and {loser} are equal within {plain(grouping.judging.margin)}: {effect}"
    said = f"{_evidence(verdict, grouping)}; {more_text(verdict)}"
    return f"{winner} against {loser} is not settled: {effect}; {said}"


def effect_text(verdict: Verdict) -> str:
    """Return the effect with its interval, such as `0.012 (0.004 to 0.02)`."""
    if verdict.low is None or verdict.high is None:
        return _three(verdict.effect)
    return f"{_three(verdict.effect)} ({_three(verdict.low)} to {_three(verdict.high)})"


def p_text(p: float | None) -> str:
    """Return a p-value with two digits; below 0.0001 only that."""
    if p is None:
        return ""
    return "< 0.0001" if p < 0.0001 else f"{p:.2g}"


def more_text(verdict: Verdict) -> str:
    """Return how many more runs would settle it."""
    if verdict.word == "none":
        return "2 runs of each at least"
    if verdict.more is None:
        return "more runs than anyone makes would settle it"
    return f"about {verdict.more:,} more of each would settle it"


def _evidence(verdict: Verdict, grouping: Grouping) -> str:
    p = p_text(verdict.corrected_p)
    said = f"p {p}" if p.startswith("<") else f"p = {p}"
    method = _CORRECTIONS.get(grouping.judging.correction)
    runs = f"{verdict.count} pairs by seed" if verdict.is_paired else f"{verdict.count} and {verdict.other_count} runs"
    return f"{said}{f' ({method})' if method else ''}, {runs}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def escaped(text: str) -> str:
    """Return text as one cell of a Markdown table: nothing in it is markup."""
    text = "".join(c if c.isprintable() else "·" for c in text)
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#~" else c for c in text)
