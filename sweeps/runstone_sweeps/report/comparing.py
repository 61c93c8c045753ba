"""Several sweeps as one HTML file: a table side by side, and their curves in one figure."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path

from runstone_sweeps.report.drawing import ACCENT, BAD, GOOD, INK, SOFT, WARN, Figure, Trace, axis, escaped, thinned
from runstone_sweeps.report.page import document, figures_html, text_html, written_text
from runstone_sweeps.results.comparison import Compared, compare, is_comparable
from runstone_sweeps.results.standings import best_so_far

_COLORS = (ACCENT, WARN, GOOD, BAD, INK, SOFT)
_MOST_POINTS = 1_000


def write_comparison(sweeps: Sequence[Compared], output: Path) -> Path:
    """Write the comparison and return where it lies.

    Raises:
        OSError: it cannot be written.
    """
    figures = draw_races(sweeps)
    names = [f"{sweep.record.name} ({sweep.record.sweep_id[-8:]})" for sweep in sweeps]
    head = "".join(f"<th>{text_html(name)}</th>" for name in ("", *names))
    rows = "".join(
        f"<tr><th scope='row'>{text_html(title)}</th>{''.join(f'<td>{text_html(cell)}</td>' for cell in cells)}</tr>"
        for title, cells in compare(sweeps)
    )
    body = (
        f'<header><p class="kind">Sweeps side by side</p><h1>{text_html(" · ".join(s.record.name for s in sweeps))}'
        f'</h1></header><section><div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
        f"</div></section>{figures_html(figures)}"
        f"<footer>{written_text()}.</footer>"
    )
    path = output.absolute()
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.write_text(document("sweeps side by side", body, figures), encoding="utf-8", errors="replace")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def draw_races(sweeps: Sequence[Compared]) -> list[Figure]:
    """Draw the best so far of each sweep, over its trials and over the time that they took."""
    title_trials, title_time = "Best so far, by trials", "Best so far, by the time of the trials"
    if not is_comparable(sweeps):
        return [Figure(title_trials, reason="The sweeps have different metrics or goals.")]
    over_trials: list[Trace] = []
    over_time: list[Trace] = []
    for place, sweep in enumerate(sweeps):
        bests = {trial.number: best for trial, best in best_so_far(sweep.record)}
        ended = sorted(
            (t for t in sweep.record.trials.values() if t.state.is_ended), key=lambda t: t.ended_at or t.asked_at
        )
        spent, points = 0.0, []
        for count, trial in enumerate(ended, 1):
            spent += trial.usage.wall_s or trial.duration_s or 0.0
            if trial.number in bests:
                points.append((count, spent / 60, bests[trial.number]))
        shown = thinned(points, _MOST_POINTS)
        line = {"shape": "hv", "width": 2, "color": _COLORS[place % len(_COLORS)]}
        if place >= len(_COLORS):
            line["dash"] = "dot"
        name = f"{escaped(sweep.record.name)} ({sweep.record.sweep_id[-8:]})"
        trace = {"type": "scatter", "mode": "lines", "name": name, "y": [y for *_, y in shown], "line": line}
        over_trials.append(trace | {"x": [x for x, _, _ in shown]})
        over_time.append(trace | {"x": [x for _, x, _ in shown]})
    metric = sweeps[0].spec.metrics[0].name
    return [
        Figure(title_trials, over_trials, {"xaxis": axis("Trials that ended"), "yaxis": axis(metric)}, is_wide=True),
        Figure(title_time, over_time, {"xaxis": axis("Minutes"), "yaxis": axis(metric)}, is_wide=True),
    ]
