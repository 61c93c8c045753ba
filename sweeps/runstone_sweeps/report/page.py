"""The page around the figures of a report: what is best and how to run it, failures, budget, the table of trials."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from runstone_sweeps.record import SweepRecord, TrialRecord
from runstone_sweeps.report.drawing import Figure, json_safe
from runstone_sweeps.results.standings import goals_text, legend, metric_names, ranked_rows, state_text, values_text
from runstone_sweeps.results.surroundings import Surroundings
from runstone_sweeps.results.text import clean, counts_text, duration, energy, number, numbers_text, size, value_text
from runstone_sweeps.spec import SweepSpec

# Rows that stand in the page itself, for a reader without JavaScript.
_STATIC_ROWS = 50
_FAILURE_GROUPS = 20
_LISTED_TRIALS = 12


def page_of(
    record: SweepRecord,
    spec: SweepSpec,
    *,
    figures: Sequence[Figure],
    command: str,
    audit: str,
    tracebacks: Mapping[int, str],
    surroundings: Surroundings,
) -> str:
    """Return the whole page.

    Args:
        record: The sweep.
        spec: What it searches.
        figures: In the order in which they are looked at.
        command: A line that runs the best trial again; empty where there is none.
        audit: What the audit of the pruner found, in a sentence.
        tracebacks: Of failed trials, by number, as far as they are there.
        surroundings: In what trials differ besides their params.
    """
    name = text_html(record.name)
    body = f"""<header>
<p class="kind">Sweep report</p>
<h1>{name}</h1>
{_facts(record, spec)}
</header>
{_best(record, spec, command)}
{_failures(record, tracebacks)}
{_surroundings(surroundings)}
{_budget(record, audit)}
{figures_html(figures)}
{_table(record, spec)}
<footer>Sweep <code>{text_html(record.sweep_id)}</code>, {written_text()}.</footer>"""
    return document(f"{record.name} – sweep report", body, figures, rows=_rows(record, spec))


def document(title: str, body: str, figures: Sequence[Figure], *, rows: Mapping[str, Any] | None = None) -> str:
    """Return a page that needs nothing beside it.

    Args:
        title: Of the window.
        body: HTML, with `figures_html` of the figures in it.
        figures: The figures.
        rows: What the table of trials shows, where the body has one.
    """
    from plotly.offline import get_plotlyjs  # 5 MB of text, only for reports

    drawings = {f"figure-{place}": _drawing(figure) for place, figure in enumerate(figures) if not figure.reason}
    table = "" if rows is None else f'<script type="application/json" id="rows">{_script_json(rows)}</script>\n'
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text_html(title)}</title>
<style>{_asset("page.css")}</style>
</head>
<body>
<main>
{body}
</main>
<script>{get_plotlyjs()}</script>
<script type="application/json" id="figures">{_script_json(drawings)}</script>
{table}<script>{_asset("page.js")}</script>
</body>
</html>
"""


def written_text() -> str:
    """Return when and by whom the page was written."""
    return f"written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by Runstone"


def figures_html(figures: Sequence[Figure]) -> str:
    """Return the places of figures on a page, with their headings and notes."""
    sections = "\n".join(_figure(f"figure-{place}", figure) for place, figure in enumerate(figures))
    return f'<div class="figures">\n{sections}\n</div>'


def _facts(record: SweepRecord, spec: SweepSpec) -> str:
    best = record.best
    begun = datetime.fromtimestamp(record.created.get("at", 0), UTC)
    best_text = "none yet" if best is None else f"{number(best.value)} (trial {best.number})"
    if best is not None and len(spec.metrics) > 1:
        best_text = f"{len(record.front())} trials on the Pareto front"
    return _list(
        [
            ("Goal", goals_text(spec)),
            ("Best", best_text),
            ("Trials", counts_text(record)),
            ("At work", duration(record.active_s)),
            ("Begun", f"{begun:%Y-%m-%d %H:%M} UTC"),
            ("Search", f"{spec.sampler.name}, pruner {spec.pruner.name}, seed {record.created.get('seed')}"),
        ]
    )


def _best(record: SweepRecord, spec: SweepSpec, command: str) -> str:
    best = record.best
    if best is None:
        return ""
    results = zip(metric_names(record), values_text(best, len(spec.metrics)), strict=False)
    said = ", ".join(f"{text_html(name)} = {value}" for name, value in results)
    spread = "" if best.spread is None else f" ± {number(best.spread)} over {len(best.runs)} replicates"
    heading = "Best trial" if len(spec.metrics) == 1 else f"Best trial by {text_html(spec.metrics[0].name)}"
    again = ""
    if command:
        copy = '<button class="copy" type="button">copy</button>'
        again = f'<div class="run"><pre><code>{text_html(command)}</code></pre>{copy}</div>'
    params = _list([(name, value_text(value)) for name, value in best.params.items()])
    return (
        f'<section class="best"><h2>{heading}: {said}{spread}</h2>{params}'
        f"<p>Trial {best.number}, run <code>{text_html(best.run_id)}</code></p>{again}</section>"
    )


def _failures(record: SweepRecord, tracebacks: Mapping[int, str]) -> str:
    groups = record.failures()
    if not groups:
        return ""
    items = ""
    for reason, trials in groups[:_FAILURE_GROUPS]:
        which = numbers_text([trial.number for trial in trials], limit=20)
        shown = next((tracebacks[trial.number] for trial in trials if trial.number in tracebacks), "")
        line = f"<code>{text_html(reason)}</code> <span>{which}</span>"
        items += (
            f"<details><summary>{line}</summary><pre>{text_html(shown, is_block=True)}</pre></details>"
            if shown
            else f"<p>{line}</p>"
        )
    if len(groups) > _FAILURE_GROUPS:
        items += f"<p>{len(groups) - _FAILURE_GROUPS} more kinds of failures</p>"
    return f'<section class="failures"><h2>Failed, by cause</h2>{items}</section>'


def _surroundings(found: Surroundings) -> str:
    """Return what was not the same for all trials; nothing where no trial has a snapshot, or there is only one."""
    if found.looked_at < 2:
        return ""
    heading = "Code, versions and machines"
    if not found.differences:
        said = f"The same for all {found.looked_at:,} trials whose snapshots were compared."
        return f'<section><h2>{heading}</h2><p class="note">{said}</p></section>'
    rows = ""
    for difference in found.differences:
        for place, (value, numbers) in enumerate(difference.values or [("", ())]):
            listed = ", ".join(map(str, numbers[:_LISTED_TRIALS])) + (", …" if len(numbers) > _LISTED_TRIALS else "")
            count = f"{len(numbers):,}" if numbers else ""
            what = text_html(difference.what) if place == 0 else ""
            rows += f"<tr><th>{what}</th><td>{text_html(value)}</td><td>{count}</td><td>{listed}</td></tr>"
    note = f"Not the same for all {found.looked_at:,} trials whose snapshots were compared; a result may come of it."
    head = "<tr><th></th><th></th><th>trials</th><th></th></tr>"
    return (
        f'<section><h2>{heading}</h2><p class="note">{note}</p>'
        f'<div class="scroll"><table class="plain"><thead>{head}</thead><tbody>{rows}</tbody></table></div></section>'
    )


def _budget(record: SweepRecord, audit: str) -> str:
    """Return what was used, of which limits, and what further trials bring."""
    said = {"gpu_hours": ("GPU hours", _plain), "energy_j": ("Energy", energy), "cost": ("Cost", _plain)}
    amounts: list[tuple[str, float, float | None, Any]] = [
        ("Trials", record.ended, record.trials_budget, _plain),
        ("Time at work", record.active_s, record.timeout_s, duration),
    ]
    amounts += [
        (said[key][0], spent, limit, said[key][1])
        for key, spent, limit in record.spending()
        if spent or limit is not None
    ]
    items = ""
    for name, spent, limit, text in amounts:
        share = min(1.0, spent / limit) if limit else 0.0
        bar = f'<div class="bar"><i style="width:{share:.0%}"></i></div>' if limit else ""
        of = f" of {text(limit)}" if limit else ""
        items += f"<div><dt>{name}</dt><dd>{text_html(text(spent) + of)}{bar}</dd></div>"
    usage, forecast = record.usage, record.forecast()
    for name, value in (
        ("CPU time", duration(usage.cpu_s) if usage.cpu_s else ""),
        ("Memory of a trial, at most", size(usage.max_rss_bytes) if usage.max_rss_bytes else ""),
        ("Pace", f"{forecast.trials_per_hour:.3g} trials an hour" if forecast.trials_per_hour else ""),
        (
            "Gain of late",
            "" if forecast.gain_per_hour is None else f"{number(forecast.gain_per_hour)} an hour, over 20 trials",
        ),
    ):
        items += f"<div><dt>{name}</dt><dd>{text_html(value)}</dd></div>" if value else ""
    return f'<section><h2>Budget</h2><dl>{items}</dl><p class="note">{text_html(audit)}</p></section>'


def _figure(anchor: str, figure: Figure) -> str:
    wide = " wide" if figure.is_wide and not figure.reason else ""
    body = f'<p class="reason">{text_html(figure.reason)}</p>'
    if not figure.reason:
        body = f'<div id="{anchor}" style="height:{figure.height}px"></div>'
        body += f'<p class="note">{text_html(figure.note)}</p>' if figure.note else ""
    return f'<section class="figure{wide}"><h2>{text_html(figure.title)}</h2>{body}</section>'


def _drawing(figure: Figure) -> dict[str, Any]:
    return {"data": list(figure.data), "layout": {**figure.layout, "height": figure.height}}


def _table(record: SweepRecord, spec: SweepSpec) -> str:
    """Return the head and the first rows; the script takes over with all of them."""
    table = _rows(record, spec, limit=_STATIC_ROWS)
    head = "".join(f'<th tabindex="0" scope="col">{text_html(title)}</th>' for title in table["titles"])
    body = ""
    for row in table["rows"]:
        cells = ""
        for kind, cell in zip(table["kinds"], row, strict=True):
            shown, key = cell if isinstance(cell, list) else (cell, cell)
            class_ = f"state {key}" if kind == "state" else kind
            cells += f'<td class="{html.escape(class_)}">{text_html(str(shown))}</td>'
        body += f"<tr>{cells}</tr>"
    notes = "".join(f'<p class="note">{text_html(line)}</p>' for line in legend(record))
    left = len(record.trials) - len(table["rows"])
    without = f"<noscript><p>{left:,} more trials are shown with JavaScript only.</p></noscript>" if left > 0 else ""
    return (
        '<section><h2>Trials</h2><div class="tools"><input id="search" type="search" placeholder="find"'
        ' aria-label="Find trials by words"><span id="count"></span></div>'
        f'<div class="scroll"><table id="trials"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        f'<p><button id="more" type="button" hidden>show more</button></p>{without}{notes}</section>'
    )


def _rows(record: SweepRecord, spec: SweepSpec, *, limit: int | None = None) -> dict[str, Any]:
    """Return the table as JSON: a cell is what is shown, or that and what it is sorted by."""
    hidden = spec.space.constants
    trials = record.trials.values()
    names = list(dict.fromkeys(name for trial in trials for name in trial.params if name not in hidden))
    metrics = metric_names(record)
    front = {trial.number for trial in record.front()} if len(metrics) > 1 else set()
    has_spread = any(trial.spread is not None for trial in trials)
    has_bounds = any(trial.constraints for trial in trials)
    columns = [("num", "Rank"), ("num", "Trial"), ("state", "State"), *(("num", name) for name in metrics)]
    columns += [("num", "±")] if has_spread else []
    columns += [("num", "Breaks by")] if has_bounds else []
    columns += [("num", "Time"), *(("num", name) for name in names), ("id", "Run"), ("reason", "Reason")]
    rows = []
    for rank, trial in ranked_rows(record)[:limit]:
        values = trial.values or (() if trial.value is None else (trial.value,))
        shown = ("" if rank is None else str(rank)) + (" ◆" if trial.number in front else "")
        row: list[Any] = [[shown, rank], trial.number, [_state(trial), _state_class(trial)]]
        row += [[number(value), value] for value in values] + [""] * (len(metrics) - len(values))
        row += [["" if trial.spread is None else number(trial.spread), trial.spread]] if has_spread else []
        if has_bounds:
            broken = [violation for violation in trial.constraints if violation > 0]
            row.append([", ".join(map(number, broken)), max(broken, default=None)])
        took = trial.duration_s
        row.append(["" if took is None else duration(took), took])
        row += [_param(trial, name) for name in names]
        row += [trial.run_id, "" if trial.reason is None else clean(trial.reason)]
        rows.append(row)
    table: dict[str, Any] = json_safe(
        {"titles": [title for _, title in columns], "kinds": [kind for kind, _ in columns], "rows": rows}
    )
    return table


def _state(trial: TrialRecord) -> str:
    same = "" if trial.same_as is None else f" = {trial.same_as}"
    return state_text(trial) + same


def _state_class(trial: TrialRecord) -> str:
    return str(trial.state) if trial.is_feasible else "infeasible"


def _param(trial: TrialRecord, name: str) -> Any:
    if name not in trial.params:
        return ""
    value = trial.params[name]
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return [value_text(value), value] if is_number else value_text(value)


def _list(items: Sequence[tuple[str, str]]) -> str:
    rows = "".join(f"<div><dt>{text_html(key)}</dt><dd>{text_html(value)}</dd></div>" for key, value in items)
    return f"<dl>{rows}</dl>"


def text_html(text: str, *, is_block: bool = False) -> str:
    """Return text of users as HTML that is nothing but text."""
    return html.escape("\n".join(map(clean, text.splitlines())) if is_block else clean(text))


def _plain(value: float) -> str:
    return f"{value:.3g}" if isinstance(value, float) else f"{value:,}"


def _script_json(value: Any) -> str:
    """Return JSON that no HTML parser takes for the end of its element."""
    text = json.dumps(json_safe(value), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _asset(name: str) -> str:
    return files("runstone_sweeps.report").joinpath(name).read_text(encoding="utf-8")
