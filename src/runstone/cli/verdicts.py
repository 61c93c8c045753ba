"""Groups of runs and verdicts as they are shown in a terminal."""

from __future__ import annotations

from rich.console import RenderableType
from rich.text import Text

from runstone.cli._output import cell, clean, console, counted, is_terminal, table, width_of
from runstone.comparison import Comparison, Grouping
from runstone.comparison.markdown import effect_text, group_cells, more_text, p_text, verdict_text
from runstone.statistics import Verdict

_WORDS = {"better": ("beats", "green"), "equal": ("equals", "cyan"), "open": ("open", "yellow"), "none": ("–", "dim")}
_CORRECTED = {"holm": "Holm", "bh": "BH", "none": "not corrected"}
_MOST_GROUPS, _MOST_VERDICTS = 40, 20


def grouping_parts(found: Comparison) -> list[RenderableType]:
    """Return groups, verdicts and the Pareto front of a comparison; nothing where it has none."""
    parts: list[RenderableType] = []
    for grouping in found.groupings:
        parts += _grouping(grouping)
    if found.front is not None:
        parts += _front(found)
    return [*parts, Text()] if parts else []


def _grouping(grouping: Grouping) -> list[RenderableType]:
    title = Text(f"{clean(grouping.measure.label)} by {clean(', '.join(grouping.by))}", style="bold")
    title.append(f"  {'more' if grouping.measure.is_maximized else 'less'} is better", style="dim")
    confidence = f"{grouping.judging.confidence:.0%} interval"
    headers: list[str | tuple[str, str]] = ["", *((name, "right") for name in ("runs", "mean", "sd", confidence))]
    rows = []
    for group in grouping.groups[:_MOST_GROUPS]:
        label, *cells = group_cells(group)[:5]
        rows.append([Text(clean(label), style="bold"), *map(Text, cells)])
    parts: list[RenderableType] = [title, table(headers, rows)]
    hidden = len(grouping.groups) - len(rows)
    if hidden > 0:
        parts.append(Text(f"… and {counted(hidden, 'more group', 'more groups')}", style="dim"))
    if grouping.verdicts:
        p = f"p ({_CORRECTED[grouping.judging.correction]})"
        titles: list[str | tuple[str, str]] = ["", "", "", ("by", "right"), (p, "right"), ("size", "right"), "", ""]
        shown = grouping.verdicts[:_MOST_VERDICTS]
        lines = [_verdict(verdict) for verdict in shown]
        if is_terminal() and _width(lines) > console().width:  # sentences may be wrapped
            parts += [Text(), *(Text(f"· {clean(verdict_text(verdict, grouping))}") for verdict in shown)]
        else:
            parts += [Text(), table(titles, lines)]
        if len(grouping.verdicts) > len(shown):
            more = counted(len(grouping.verdicts) - len(shown), "more verdict", "more verdicts")
            parts.append(Text(f"… and {more}; --json and --html have them", style="dim"))
    parts += [Text(f"note: {clean(note)}", style="yellow") for note in grouping.notes]
    return [*parts, Text()]


def _width(lines: list[list[Text]]) -> int:
    return sum(max(width_of(line[place]) for line in lines) + 2 for place in range(len(lines[0])))


def _verdict(verdict: Verdict) -> list[Text]:
    word, style = _WORDS[verdict.word]
    how = f"{verdict.count} pairs" if verdict.is_paired else f"{verdict.count}, {verdict.other_count} runs"
    more = "" if verdict.word in ("better", "equal") else more_text(verdict)
    return [
        Text(clean(verdict.winner)),
        Text(word, style=style),
        Text(clean(verdict.loser)),
        Text(effect_text(verdict)),
        Text(p_text(verdict.corrected_p)),
        Text("" if verdict.size is None else f"{verdict.size:.2f}"),
        Text(how, style="dim"),
        Text(more, style="dim"),
    ]


def _front(found: Comparison) -> list[RenderableType]:
    front = found.front
    if front is None or not front.best:
        return []
    names = {member.id: member.name for member in found.members}
    headers: list[str | tuple[str, str]] = ["", *((measure.label, "right") for measure in front.measures)]
    rows = [
        [Text(clean(names.get(key, key)), style="bold"), *(cell(value) for value in front.points[key])]
        for key in front.best[:_MOST_GROUPS]
    ]
    title = Text("Pareto front", style="bold")
    title.append(f"  {len(front.best)} of {len(front.points)}", style="dim")
    return [title, table(headers, rows), Text()]
