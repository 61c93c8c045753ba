"""How runs and versions show themselves in a notebook: small tables, all text escaped."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from runstone.names import SYSTEM

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from runstone.runinfo import RunInfo

_MOST_ROWS = 30
_LONGEST = 200


def facts_html(title: str, rows: Iterable[tuple[str, object]]) -> str:
    """Return facts under a title; those that are `None` or empty are left out.

    Args:
        title: What is shown.
        rows: Names and values.
    """
    body = "".join(
        f"<tr><th style='text-align:left'>{_text(name)}</th><td style='text-align:left'>{_text(value)}</td></tr>"
        for name, value in rows
        if value not in (None, "", (), [], {})
    )
    return f"<div><b>{_text(title)}</b><table><tbody>{body}</tbody></table></div>"


def run_html(run: RunInfo) -> str:
    """Return a run: how it stands, its params and the last values of its metrics."""
    params = list(run.flat_params.items())
    metrics = [(name, summary) for name, summary in run.metrics.items() if not name.startswith(SYSTEM)]
    rows: list[tuple[str, object]] = [
        ("id", run.id),
        ("project", run.project),
        ("group", run.group),
        ("status", str(run.status)),
        ("started", f"{run.started_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("took", f"{run.duration_s:,.1f} s"),
        ("failure", f"{run.failure.type}: {run.failure.message}" if run.failure else None),
        ("tags", ", ".join(f"{name}={value}" for name, value in run.tags.items())),
        ("artifacts", ", ".join(artifact.name for artifact in run.artifacts)),
    ]
    rows += [(f"params.{name}", _shown(value)) for name, value in params[:_MOST_ROWS]]
    rows += [(f"metrics.{name}", _shown(summary.last)) for name, summary in metrics[:_MOST_ROWS]]
    left_out = max(0, len(params) - _MOST_ROWS) + max(0, len(metrics) - _MOST_ROWS)
    rows.append(("", f"and {left_out:,} more params and metrics" if left_out else ""))
    return facts_html(f"Run {run.name}", rows)


def plot_run(run: RunInfo, metrics: tuple[str, ...], *, x: str, smoothing: float, log_y: bool, theme: str) -> go.Figure:
    """Return curves of one run; see `RunInfo.plot`."""
    from runstone.figures import Curve, curve_of, draw_curves  # NumPy, only for figures

    curves = [curve_of(run, metric, x) for metric in metrics]
    if len(metrics) > 1:  # then colours tell metrics apart
        curves = [Curve(name, name, curve.x, curve.y) for name, curve in zip(metrics, curves, strict=True)]
    drawn = draw_curves(curves, metric=", ".join(metrics), x=x, smoothing=smoothing, is_log_y=log_y)
    return drawn.to_plotly(theme)


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.6g}"
    return str(value)


def _text(value: object) -> str:
    told = str(value)
    told = told if len(told) <= _LONGEST else f"{told[: _LONGEST - 1]}…"
    return html.escape("".join(c if c.isprintable() else "·" for c in told))
