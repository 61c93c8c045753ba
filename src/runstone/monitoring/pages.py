"""A report as Markdown, and as one page of HTML with the distributions side by side. Draws SVG itself.

A report is taken as JSON, as `Report.to_dict` gives it, so that one that was kept looks the same.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

_MARKS = {"ok": "✅", "warning": "⚠️", "drift": "🔶", "error": "❌"}
_ROLES = {"feature": "", "label": "label", "prediction": "prediction"}
_MOST_DRAWN = 200
_MOST_ROWS = 40


def to_markdown(report: Mapping[str, Any]) -> str:
    """Return a report for a comment on a change, a summary of CI, or a message."""
    lines = [f"### {_MARKS[report['verdict']]} {_md(report['headline'])}", ""]
    lines += [f"{_facts(report)}", ""]
    reasons, features = report["reasons"], report["features"]
    if reasons:
        lines += [f"- **{one['level']}**: {_md(one['text'])}" for one in reasons[:_MOST_ROWS]]
        more = len(reasons) - _MOST_ROWS
        lines += [f"- … and {more} more", ""] if more > 0 else [""]
    lines.append("| | column | | PSI | by chance | test | p | JS | W₁/σ | missing | |")
    lines.append("|---|---|---|--:|--:|---|--:|--:|--:|--:|---|")
    for one in features[:_MOST_ROWS]:
        cells = [_MARKS[one["level"]], _md(one["name"]), _ROLES[one["role"]], *_cells(one, _md)]
        lines.append(f"| {' | '.join(cells)} |")
    if len(features) > _MOST_ROWS:
        lines.append(f"\n… and {len(features) - _MOST_ROWS} more columns.")
    lines.append("")
    if report["classifier"] is not None:
        lines += [_classifier_text(report["classifier"]), ""]
    if report["performance"] is not None:
        lines += [_performance_text(report["performance"]), ""]
    lines += [f"- {_md(note)}" for note in report["notes"]]
    return "\n".join(lines).rstrip() + "\n"


def to_html(report: Mapping[str, Any]) -> str:
    """Return a page that needs nothing from elsewhere and runs no script."""
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width,initial-scale=1'>",
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{_text(report['headline'])}</title><style>{_CSS}</style></head><body><main>",
        f"<header><span class='verdict {report['verdict']}'>{report['verdict']}</span>",
        f"<h1>{_text(_subject(report))}</h1><p class='soft'>{_text(_facts(report))}</p></header>",
    ]
    if report["reasons"]:
        parts.append("<section><h2>Why</h2><ul class='reasons'>")
        parts += [
            f"<li><span class='level {one['level']}'>{one['level']}</span><span>{_text(one['text'])}</span></li>"
            for one in report["reasons"]
        ]
        parts.append("</ul></section>")
    cards = [_card(*one) for one in _figures(report)]
    parts.append(f"<section class='cards'>{''.join(cards)}</section>")
    features = report["features"]
    parts.append("<section><h2>Columns</h2><p class='legend'><i class='was'></i>reference")
    parts.append("<i class='is'></i>this batch</p><div class='grid'>")
    parts += [_panel(one) for one in features[:_MOST_DRAWN]]
    parts.append("</div>")
    if len(features) > _MOST_DRAWN:
        parts.append(f"<p class='soft'>… and {len(features) - _MOST_DRAWN} more columns without a drawing.</p>")
    parts.append("</section>")
    parts.append(_table(report))
    if report["correlations"]:
        parts.append("<section><h2>Correlations that changed most</h2><table><tr><th>pair<th>before<th>now</tr>")
        parts += [
            f"<tr><td>{_text(' · '.join(one['features']))}<td class='n'>{one['before']:.2f}"
            f"<td class='n'>{one['after']:.2f}</tr>"
            for one in report["correlations"]
        ]
        parts.append("</table></section>")
    if report["notes"]:
        parts.append("<section><h2>Notes</h2><ul>")
        parts += [f"<li>{_text(note)}</li>" for note in report["notes"]]
        parts.append("</ul></section>")
    parts.append("</main></body></html>")
    return "".join(parts)


# --- words ----------------------------------------------------------------------------------------------------------


def _subject(report: Mapping[str, Any]) -> str:
    return f"{report['model']}@{report['version']}" if report["model"] is not None else str(report["data"])


def _facts(report: Mapping[str, Any]) -> str:
    reference = report["reference"]
    moment = f"{datetime.fromtimestamp(report['at'], UTC):%Y-%m-%d %H:%M} UTC"
    source = reference.get("name") or "the reference"
    role = f" ({reference['role']})" if reference.get("role") else ""
    rows = f"{report['rows']:,} rows of {report['data']}"
    return f"{rows}, compared with {reference['rows']:,} rows of {source}{role}, {moment}"


def _classifier_text(found: Mapping[str, Any]) -> str:
    return (
        f"Domain classifier: AUC {found['auc']:.3f} ({found['low']:.3f} to {found['high']:.3f}), p {_p(found['p'])}, "
        f"over {found['rows']:,} rows of both."
    )


def _performance_text(found: Mapping[str, Any]) -> str:
    before = ""
    if found["baseline"] is not None:
        before = f"; {found['baseline']:.4g} before ({_md(found['baseline_name'])}), p {_p(found['p'])}"
    others = {name: value for name, value in found["now"]["figures"].items() if name != found["figure"]}
    rest = "".join(f", {name} {value:.4g}" for name, value in others.items() if value is not None)
    bounds = f"({found['low']:.4g} to {found['high']:.4g})"
    return f"Performance: {found['figure']} {found['value']:.4g} {bounds}{before}{rest}."


def _cells(one: Mapping[str, Any], text: Callable[[str], str]) -> list[str]:
    found, missing, unseen = one["distance"], one["missing"], one["unseen"]
    before, after = ("–" if missing[side] is None else f"{missing[side]:.1%}" for side in ("before", "after"))
    changed = f"{before} → {after}" if before != after else after
    new = f"unseen: {text(', '.join(list(unseen['values'])[:3]))}" if unseen["rows"] else ""
    if found is None:
        return [*["–"] * 6, changed, new]
    moved = f"{found['wasserstein']:.2f}" if found["wasserstein"] is not None else "–"
    return [
        *(f"{found['psi']:.3f}", f"{found['psi_chance']:.3f}", f"{found['test']} {found['statistic']:.3g}"),
        *(_p(one["p"]), f"{found['js']:.3f}", moved, changed, new),
    ]


def _p(p: float | None) -> str:
    if p is None:
        return "–"
    return "<0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.1 else f"{p:.2f}"


def _md(text: str) -> str:
    """Return text as one cell of a Markdown table: nothing in it is markup."""
    text = "".join(c if c.isprintable() else "·" for c in text)
    return re.sub(r"([\\`*_\[\]<>|#~@])", r"\\\1", text)


def _text(text: object) -> str:
    return html.escape("".join(c if c.isprintable() else "·" for c in str(text)))


# --- the page -------------------------------------------------------------------------------------------------------


def _figures(report: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    features, bad = report["features"], ("error", "drift", "warning")
    counts = {level: sum(one["level"] == level for one in features) for level in bad}
    worst = next((level for level in bad if counts[level]), "ok")
    words = ", ".join(f"{counts[level]} {level}" for level in bad if counts[level]) or "none has changed"
    found = [("Columns", f"{sum(counts.values())} of {len(features)}", words, worst)]
    if (domain := report["classifier"]) is not None:
        level = "drift" if domain["p"] < report["thresholds"]["alpha"] else "ok"
        below = f"{domain['low']:.2f} to {domain['high']:.2f}, p {_p(domain['p'])}"
        found.append(("Domain classifier", f"AUC {domain['auc']:.2f}", below, level))
    if (now := report["performance"]) is not None:
        before = f"; {now['baseline']:.3g} before ({now['baseline_name']})" if now["baseline"] is not None else ""
        below = f"{now['low']:.3g} to {now['high']:.3g}{before}"
        found.append((now["figure"], f"{now['value']:.3g}", below, now["level"]))
    return found


def _card(title: str, value: str, below: str, level: str) -> str:
    return f"<div class='card {level}'><h3>{_text(title)}</h3><b>{_text(value)}</b><p>{_text(below)}</p></div>"


def _panel(one: Mapping[str, Any]) -> str:
    role = f" <span class='role'>{_ROLES[one['role']]}</span>" if _ROLES[one["role"]] else ""
    figures, missing, level = [], one["missing"], one["level"]
    if one["distance"] is not None:
        figures += [f"PSI {one['distance']['psi']:.2f}", f"p {_p(one['p'])}"]
    if one["after"] is None:
        figures.append("missing column")
    elif missing["before"] or missing["after"]:
        figures.append(f"missing {missing['before']:.1%} → {missing['after']:.1%}")
    if one["unseen"]["rows"]:
        figures.append(f"{one['unseen']['rows']:,} rows unseen")
    return (
        f"<figure class='{level}'><figcaption><span class='level {level}'>{level}</span><b>{_text(one['name'])}</b>"
        f"{role}<span class='soft'>{_text(' · '.join(figures))}</span></figcaption>{_drawing(one)}</figure>"
    )


_WIDTH, _HEIGHT, _LEFT, _BELOW = 340.0, 130.0, 8.0, 18.0


def _drawing(one: Mapping[str, Any]) -> str:
    found = one["bars"]
    if found is None:
        return "<p class='soft none'>nothing to draw</p>"
    what = f"{one['name']}: reference and this batch"
    return _categories(found, what) if "labels" in found else _histogram(found, what)


def _histogram(found: Mapping[str, Any], what: str) -> str:
    edges, before, after = found["edges"], found["before"], found["after"]
    most = max([*before, *after, 1e-9])
    inner, high = _WIDTH - 2 * _LEFT, _HEIGHT - _BELOW - 6
    width = inner / len(before)
    parts = []
    for name, shares in (("was", before), ("is", after)):
        for place, share in enumerate(shares):
            if share > 0:
                tall = max(0.8, share / most * high)
                x, y = _LEFT + place * width, _HEIGHT - _BELOW - tall
                told = f"{edges[place]:.4g} to {edges[place + 1]:.4g}: {share:.1%}"
                parts.append(
                    f"<rect class='{name}' x='{x:.1f}' y='{y:.1f}' width='{max(0.5, width - 0.6):.1f}' "
                    f"height='{tall:.1f}'><title>{told}</title></rect>"
                )
    line = _HEIGHT - _BELOW
    parts.append(f"<path class='axis' d='M{_LEFT} {line}H{_WIDTH - _LEFT}'/>")
    for place, anchor in ((0, "start"), (len(edges) // 2, "middle"), (len(edges) - 1, "end")):
        x = _LEFT + place * width
        parts.append(f"<text x='{x:.1f}' y='{_HEIGHT - 4:.1f}' text-anchor='{anchor}'>{edges[place]:.4g}</text>")
    return _svg(parts, _HEIGHT, what)


def _categories(found: Mapping[str, Any], what: str) -> str:
    labels: Sequence[str] = found["labels"]
    before, after = found["before"], found["after"]
    most = max([*before, *after, 1e-9])
    row, left = 22.0, 112.0
    inner = _WIDTH - left - 46
    parts = []
    for place, label in enumerate(labels):
        y = place * row + 4
        shown = label if len(label) <= 16 else f"{label[:15]}…"
        hint = f"<title>{_text(label)}</title>"
        parts.append(f"<text x='{left - 6:.0f}' y='{y + 12:.1f}' text-anchor='end'>{_text(shown)}{hint}</text>")
        for offset, name, shares in ((0.0, "was", before), (8.5, "is", after)):
            share = shares[place] if place < len(shares) else 0.0
            parts.append(
                f"<rect class='{name}' x='{left:.0f}' y='{y + offset:.1f}' "
                f"width='{share / most * inner:.1f}' height='7.5'><title>{share:.1%}</title></rect>"
            )
        now = f"{after[place]:.1%}" if place < len(after) else "–"
        parts.append(f"<text x='{_WIDTH - 2:.0f}' y='{y + 12:.1f}' text-anchor='end'>{now}</text>")
    return _svg(parts, row * len(labels) + 8, what)


def _svg(parts: Sequence[str], height: float, what: str) -> str:
    label = _text(what)
    return f"<svg viewBox='0 0 {_WIDTH:.0f} {height:.0f}' role='img' aria-label='{label}'>{''.join(parts)}</svg>"


def _table(report: Mapping[str, Any]) -> str:
    heads = ("column", "", "PSI", "by chance", "test", "p (corrected)", "JS", "W₁/σ", "missing", "")
    rows = [
        f"<tr class='{one['level']}'><td>{_text(one['name'])}<td>{_ROLES[one['role']]}"
        + "".join(f"<td class='n'>{_text(cell)}" for cell in _cells(one, str))
        + "</tr>"
        for one in report["features"]
    ]
    head = "".join(f"<th>{one}" for one in heads)
    return f"<section><h2>Figures</h2><div class='wide'><table><tr>{head}</tr>{''.join(rows)}</table></div></section>"


_CSS = """
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#1b2330;--soft:#5b6676;--line:#e1e5ea;--was:#8a95a5;
--is:#2f6fde;--ok:#1d7a46;--warning:#8f5f00;--drift:#b3470a;--error:#b3261e}
@media(prefers-color-scheme:dark){:root{--bg:#12151b;--card:#1b2029;--ink:#e6e9ee;--soft:#9aa5b5;--line:#2d3440;
--was:#77839a;--is:#7aa7ff;--ok:#63c78d;--warning:#e0b04c;--drift:#ff9f5a;--error:#ff8a80}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--ink);
font:14px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,Arial,sans-serif}
main{max-width:1180px;margin:0 auto;padding:24px 20px 60px}h1{font-size:24px;margin:0 0 2px;overflow-wrap:anywhere}
h2{font-size:16px;margin:28px 0 10px}h3{font-size:12px;color:var(--soft);margin:0;font-weight:600}
.soft{color:var(--soft);margin:0}.verdict,.level{display:inline-block;border-radius:5px;font-weight:700;
border:1.5px solid currentColor;padding:0 7px;font-size:12px;line-height:19px}.verdict{font-size:15px;padding:2px 12px;
margin-bottom:8px}.ok>.level,.verdict.ok,.level.ok,.card.ok b{color:var(--ok)}
.verdict.warning,.level.warning,.card.warning b{color:var(--warning)}
.verdict.drift,.level.drift,.card.drift b{color:var(--drift)}
.verdict.error,.level.error,.card.error b{color:var(--error)}
.reasons{list-style:none;margin:0;padding:0}.reasons li{display:flex;gap:10px;align-items:baseline;
padding:5px 0;border-bottom:1px solid var(--line)}.reasons .level{flex:none;width:68px;text-align:center}
.reasons span{overflow-wrap:anywhere;min-width:0}.cards{display:flex;flex-wrap:wrap;gap:12px;margin-top:20px}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 16px;min-width:190px;flex:1}
.card b{font-size:22px}.card p{margin:0;color:var(--soft)}.grid{display:grid;gap:12px;
grid-template-columns:repeat(auto-fill,minmax(min(330px,100%),1fr))}figure{margin:0;background:var(--card);
border:1px solid var(--line);border-radius:10px;padding:10px 12px}figcaption{display:flex;flex-wrap:wrap;gap:2px 8px;
align-items:baseline;margin-bottom:6px}figcaption b{overflow-wrap:anywhere}
figcaption .soft{flex-basis:100%;font-size:12px}
.role{color:var(--soft);font-size:12px}svg{display:block;width:100%}svg text{font-size:10.5px;fill:var(--soft)}
rect.was{fill:var(--was);opacity:.55}rect.is{fill:var(--is);opacity:.62}.axis{stroke:var(--line)}
.legend{color:var(--soft);display:flex;gap:6px;align-items:center;margin:0 0 10px}.legend i{width:13px;height:13px;
border-radius:3px;margin-left:10px}.legend i.was{background:var(--was);opacity:.55;margin-left:0}
.legend i.is{background:var(--is);opacity:.62}.wide{overflow-x:auto;background:var(--card);border:1px solid var(--line);
border-radius:10px}table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:5px 10px;
border-bottom:1px solid var(--line);white-space:nowrap}th{color:var(--soft);font-size:12px}td.n{font-variant-numeric:
tabular-nums}tr.drift td:first-child{color:var(--drift);font-weight:600}tr.error td:first-child{color:var(--error);
font-weight:600}tr.warning td:first-child{color:var(--warning);font-weight:600}.none{padding:20px 0}
"""
