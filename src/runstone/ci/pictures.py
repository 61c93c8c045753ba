"""Curves of two sides as SVG, drawn here: no browser, no font, the same bytes for the same runs."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_WIDTH, _HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 40, 36
_BASE, _HEAD = "#8a8f98", "#2563eb"
_POINTS = 400
_MOST_CURVES = 12

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]


def curves_svg(title: str, base: Sequence[Curve], head: Sequence[Curve], labels: tuple[str, str]) -> str | None:
    """Return a picture of a metric over steps; `None` where there are no curves to draw.

    Args:
        title: Name of the metric.
        base, head: Steps and values of each run.
        labels: What the two sides are called.
    """
    sides = [[_thinned(*curve) for curve in side[:_MOST_CURVES]] for side in (base, head)]
    sides = [[curve for curve in side if len(curve[0]) > 1] for side in sides]
    every = [curve for side in sides for curve in side]
    if not every:
        return None
    low_x, high_x = _range([x for x, _y in every])
    low_y, high_y = _range([y for _x, y in every])
    scale_x, scale_y = (_WIDTH - _LEFT - _RIGHT) / (high_x - low_x), (_HEIGHT - _TOP - _BOTTOM) / (high_y - low_y)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="24" font-size="14" fill="#111827">{_text(title)}</text>',
    ]
    for value in _ticks(low_y, high_y):
        y = _HEIGHT - _BOTTOM - (value - low_y) * scale_y
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e5e7eb"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#4b5563">{value:.4g}</text>')
    for value in _ticks(low_x, high_x):
        x = _LEFT + (value - low_x) * scale_x
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - 14}" text-anchor="middle" fill="#4b5563">{value:g}</text>')
    for color, side in zip((_BASE, _HEAD), sides, strict=True):
        for steps, values in side:
            xs, ys = _LEFT + (steps - low_x) * scale_x, _HEIGHT - _BOTTOM - (values - low_y) * scale_y
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
            parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.6"/>')
    for place, (color, label) in enumerate(zip((_BASE, _HEAD), labels, strict=True)):
        x, y = _WIDTH - 230 + 115 * place, 20
        parts.append(f'<line x1="{x}" x2="{x + 16}" y1="{y}" y2="{y}" stroke="{color}" stroke-width="3"/>')
        parts.append(f'<text x="{x + 22}" y="{y + 4}" fill="#374151">{_text(label[:14])}</text>')
    return "\n".join([*parts, "</svg>", ""])


def write_picture(folder: Path, place: int, metric: str, picture: str) -> str:
    """Write a picture, and return its file name."""
    words = "".join(c if c.isascii() and c.isalnum() else "-" for c in metric).strip("-")[:60]
    name = f"{place:02d}-{words or 'metric'}.svg"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(picture, encoding="utf-8")
    return name


def _text(text: str) -> str:
    """Return text as XML takes it."""
    return html.escape("".join(c if c.isprintable() else "·" for c in text)[:80])


def _thinned(steps: NDArray[np.float64], values: NDArray[np.float64]) -> Curve:
    """Return at most so many points as can be seen; of each stretch the lowest and the highest."""
    kept = np.isfinite(values) & np.isfinite(steps)
    steps, values = steps[kept], values[kept]
    if len(steps) <= _POINTS:
        return steps, values
    places: list[int] = []
    for stretch in np.array_split(np.arange(len(steps)), _POINTS // 2):
        places += sorted({int(stretch[values[stretch].argmin()]), int(stretch[values[stretch].argmax()])})
    return steps[places], values[places]


def _range(columns: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    low, high = min(float(one.min()) for one in columns), max(float(one.max()) for one in columns)
    if low == high:
        room = abs(low) * 0.05 or 1.0
        return low - room, high + room
    return low, high


def _ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers within a range."""
    rough = (high - low) / 5
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough)
    first = math.ceil(low / step)
    return [round(place * step, 12) for place in range(first, math.floor(high / step) + 1)]
