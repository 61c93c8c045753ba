"""A sweep as one HTML file that needs nothing beside it and no network."""

from __future__ import annotations

import html
import json
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runstone_sweeps.record import SweepRecord, TrialState
from runstone_sweeps.spec import SweepSpec
from runstone_sweeps.store import SweepFolder
from runstone_sweeps.study import Figure, search_of
from runstone_sweeps.verdict import failure_key
from runstone_sweeps.view import counts_text, duration, number, ranked_rows, value_text

_WIDE = ("Parallel coordinates", "One parameter at a time", "While they ran", "When they ran")


def write_report(folder: SweepFolder, record: SweepRecord, spec: SweepSpec, output: Path | None = None) -> Path:
    """Write the report of a sweep and return where it lies.

    Args:
        folder: The sweep's files.
        record: What its events say.
        spec: With what it was created.
        output: The file; `report.html` beside the sweep's record if not given.

    Raises:
        OSError: it cannot be written.
    """
    path = (output or folder.path / "report.html").absolute()
    text = render(folder, record, spec)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.write_text(text, encoding="utf-8", errors="replace")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def render(folder: SweepFolder, record: SweepRecord, spec: SweepSpec) -> str:
    """Return the report as HTML."""
    from plotly.offline import get_plotlyjs  # 5 MB of text, only for reports

    figures = search_of(spec, record).figures()
    drawings = {f"figure-{index}": _drawing(figure) for index, figure in enumerate(figures) if figure.drawing}
    sections = "\n".join(_figure_section(f"figure-{index}", figure) for index, figure in enumerate(figures))
    name = html.escape(record.name)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name} – sweep report</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<header>
<p class="kind">Sweep report</p>
<h1>{name}</h1>
{_facts(record, spec)}
</header>
{_best(record, spec)}
{_failures(record)}
<div class="figures">
{sections}
</div>
{_table(record, spec)}
<footer>Sweep <code>{html.escape(folder.id)}</code>, written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by Runstone.
Parameter importance: PED-ANOVA.</footer>
</main>
<script>{get_plotlyjs()}</script>
<script type="application/json" id="figures">{_script_json(drawings)}</script>
<script>{_SCRIPT}</script>
</body>
</html>
"""


def _facts(record: SweepRecord, spec: SweepSpec) -> str:
    best = record.best
    begun = datetime.fromtimestamp(record.created.get("at", 0), UTC)
    facts = [
        ("Goal", f"{spec.metric.goal} {spec.metric.name}"),
        ("Best", "none yet" if best is None else f"{number(best.value)} (trial {best.number})"),
        ("Trials", counts_text(record)),
        ("At work", duration(record.active_s)),
        ("Begun", f"{begun:%Y-%m-%d %H:%M} UTC"),
        ("Search", f"{spec.sampler.name}, pruner {spec.pruner.name}, seed {record.created.get('seed')}"),
    ]
    return f"<dl>{''.join(f'<div><dt>{key}</dt><dd>{html.escape(value)}</dd></div>' for key, value in facts)}</dl>"


def _best(record: SweepRecord, spec: SweepSpec) -> str:
    best = record.best
    if best is None:
        return ""
    rows = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value_text(value))}</dd></div>"
        for name, value in best.params.items()
    )
    metric = f"{html.escape(spec.metric.name)} = {number(best.value)}"
    return (
        f'<section class="best"><h2>Best trial: {metric}</h2><dl>{rows}</dl>'
        f"<p>Trial {best.number}, run <code>{html.escape(best.run_id)}</code></p></section>"
    )


def _failures(record: SweepRecord) -> str:
    groups: dict[str, list[str]] = {}
    numbers: dict[str, list[int]] = {}
    for reason, trials in record.failures():
        groups.setdefault(failure_key(reason), []).append(reason)
        numbers.setdefault(failure_key(reason), []).extend(trial.number for trial in trials)
    items = ""
    for key, reasons in groups.items():
        which = ", ".join(map(str, sorted(numbers[key])))
        items += f"<li><code>{html.escape(reasons[0])}</code> <span>trial {which}</span></li>"
    return f'<section class="failures"><h2>Failed</h2><ul>{items}</ul></section>' if items else ""


def _figure_section(anchor: str, figure: Figure) -> str:
    wide = " wide" if figure.title in _WIDE else ""
    body = f'<p class="reason">{html.escape(figure.reason)}</p>'
    if figure.drawing:
        body = f'<div id="{anchor}" class="plot"></div>'
    return f'<section class="figure{wide}"><h2>{html.escape(figure.title)}</h2>{body}</section>'


def _table(record: SweepRecord, spec: SweepSpec) -> str:
    names = [parameter.name for parameter in spec.space.searched]
    head = "".join(
        f"<th>{html.escape(title)}</th>"
        for title in ("Rank", "Trial", "State", spec.metric.name, "Time", *names, "Run", "Reason")
    )
    rows = []
    for rank, trial in ranked_rows(record):
        cells = [
            ("num", "" if rank is None else str(rank)),
            ("num", str(trial.number)),
            (f"state {trial.state}", str(trial.state)),
            ("num", number(trial.value)),
            ("num", "" if trial.duration_s is None else duration(trial.duration_s)),
            *(("num" if _is_number(trial.params.get(n)) else "", value_text(trial.params.get(n))) for n in names),
            ("run", trial.run_id),
            ("reason", "" if trial.state is TrialState.COMPLETE else trial.reason or ""),
        ]
        row = "".join(f'<td class="{kind}">{html.escape(text)}</td>' for kind, text in cells)
        rows.append(f"<tr>{row}</tr>")
    return (
        '<section><h2>Trials</h2><div class="scroll"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _drawing(figure: Figure) -> dict[str, Any]:
    """Return a figure without what belongs to the page: colours, fonts, size, title."""
    drawing = json.loads(figure.drawing.to_json())
    layout = drawing["layout"]
    for key in ("template", "title", "width", "height"):
        layout.pop(key, None)
    if sum(bool(trace.get("showlegend", True)) for trace in drawing["data"]) > 12:
        layout["showlegend"] = False
    return {"data": drawing["data"], "layout": layout, "kind": figure.title}


def _script_json(value: Any) -> str:
    """Return JSON that no HTML parser takes for the end of its element."""
    return json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


_STYLE = """
:root { color-scheme: light dark; --bg: #f6f7f9; --card: #fff; --ink: #1b2330; --soft: #5b6676; --line: #e1e5ea;
  --accent: #2f6fde; --good: #1d7a46; --warn: #96690a; --bad: #b3261e;
  --faint: #ccd6e6; --strong: #1b4fb0; }
@media (prefers-color-scheme: dark) { :root { --bg: #12151b; --card: #1b2029; --ink: #e6e9ee; --soft: #9aa5b5;
  --line: #2d3440; --accent: #7aa7ff; --good: #63c78d; --warn: #e0b04c; --bad: #ff8a80;
  --faint: #394457; --strong: #9dc0ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 32px 24px 48px; }
h1 { margin: 0 0 16px; font-size: 30px; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 0 0 12px; font-size: 17px; overflow-wrap: anywhere; }
.kind { margin: 0; color: var(--soft); font-size: 13px; text-transform: uppercase; letter-spacing: .06em; }
dl { display: flex; flex-wrap: wrap; gap: 12px 32px; margin: 0; }
dt { color: var(--soft); font-size: 13px; overflow-wrap: anywhere; }
dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px;
  margin-top: 18px; }
.best { border-left: 4px solid var(--good); }
.best p { margin: 12px 0 0; color: var(--soft); }
.failures { border-left: 4px solid var(--bad); }
.failures ul { margin: 0; padding-left: 20px; }
.failures span { color: var(--soft); }
.figures { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); column-gap: 18px; }
.wide { grid-column: 1 / -1; }
@media (max-width: 860px) { .figures { grid-template-columns: minmax(0, 1fr); } }
.plot { height: 380px; }
.reason { color: var(--soft); margin: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: 6px 12px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top;
  white-space: nowrap; }
th { color: var(--soft); font-weight: 600; }
td.num { font-variant-numeric: tabular-nums; }
td.reason { white-space: normal; min-width: 160px; color: var(--soft); }
td.run { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: 12px; color: var(--soft); }
.complete { color: var(--good); } .pruned { color: var(--warn); } .failed { color: var(--bad); }
.running, .waiting { color: var(--soft); }
code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .92em;
  overflow-wrap: anywhere; }
footer { margin-top: 28px; color: var(--soft); font-size: 13px; }
"""

# Colours come from the page, so that a figure follows it when the reader's system turns dark.
_SCRIPT = """
"use strict";
const figures = JSON.parse(document.getElementById("figures").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");
function mix(from, to, share) {
  const parts = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  const [start, end] = [parts(from), parts(to)];
  return `rgb(${start.map((value, at) => Math.round(value + (end[at] - value) * share)).join(",")})`;
}
function draw() {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  for (const [id, figure] of Object.entries(figures)) {
    const layout = structuredClone(figure.layout);
    const data = structuredClone(figure.data);
    Object.assign(layout, {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true,
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: color("--ink") },
      margin: { l: 60, r: 24, t: 16, b: 48 },
      colorway: [color("--accent"), "#e07b39", "#2a9d78", "#a45fc4", "#d0427a", "#8a7a1f", "#3a9cc2", "#7d7d7d"],
    });
    if (figure.kind === "Parallel coordinates") layout.margin.l = 80;
    if (figure.kind === "Which parameters matter") layout.showlegend = false;
    layout.legend = Object.assign(layout.legend || {}, { bgcolor: "rgba(0,0,0,0)" });
    for (const key of new Set([...Object.keys(layout), "xaxis", "yaxis"])) {
      if (!/^[xy]axis[0-9]*$/.test(key)) continue;
      layout[key] = Object.assign(layout[key] || {}, {
        gridcolor: color("--line"), zerolinecolor: color("--line"), linecolor: color("--line"), automargin: true,
      });
    }
    layout.modebar = { bgcolor: "rgba(0,0,0,0)", color: color("--soft"), activecolor: color("--accent") };
    const scale = [[0, color("--faint")], [1, color("--strong")]];
    const states = { COMPLETE: "--good", PRUNED: "--warn", FAIL: "--bad", RUNNING: "--accent", WAITING: "--soft" };
    for (const trace of data) {
      for (const part of [trace.line, trace.marker]) {
        if (part && part.colorscale) part.colorscale = scale;
      }
      if (figure.kind === "When they ran" && states[trace.name]) {
        trace.marker = { color: color(states[trace.name]) };
        trace.name = trace.name.toLowerCase();
      }
      if (figure.kind === "Parallel coordinates" && trace.mode === "lines" && trace.line) {
        // Drawn in shades of blue, from 247 to 8 of red: the same place between the colours of the page.
        const red = /^rgb\\(([0-9.]+)/.exec(trace.line.color);
        if (red) trace.line.color = mix(color("--faint"), color("--strong"), (247 - red[1]) / 239);
        trace.opacity = 0.75;
      }
    }
    for (const note of layout.annotations || []) note.font = { ...note.font, color: color("--soft") };
    Plotly.react(id, data, layout, { responsive: true, displaylogo: false, displayModeBar: "hover" });
  }
}
draw();
dark.addEventListener("change", draw);
"""
