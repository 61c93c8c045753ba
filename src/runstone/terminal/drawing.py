"""Curves as characters. Knows plotext and which axes are wanted; reads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from runstone.terminal.curves import Curve, smoothed, thinned

Axis = Literal["step", "time"]
COLOURS = ("cyan+", "orange+", "green+", "magenta+", "blue+", "red+", "gray+", "cyan")
SMOOTHINGS = (0.0, 0.6, 0.9, 0.97, 0.99)
_STYLES = (
    "bright_cyan",
    "bright_yellow",
    "bright_green",
    "bright_magenta",
    "bright_blue",
    "bright_red",
    "white",
    "cyan",
)


@dataclass(frozen=True, slots=True)
class Look:
    """How curves are drawn: against what, whether the values' logarithm counts, and how smooth."""

    axis: Axis = "step"
    is_log: bool = False
    smoothing: float = 0.0

    def next_smoothing(self) -> Look:
        """Return the same with the next stronger smoothing, or none after the strongest."""
        place = SMOOTHINGS.index(self.smoothing) if self.smoothing in SMOOTHINGS else 0
        return replace(self, smoothing=SMOOTHINGS[(place + 1) % len(SMOOTHINGS)])


@dataclass(frozen=True, slots=True)
class Line:
    """One curve to draw, and its place in the order of colours."""

    label: str
    curve: Curve
    colour: int


def colour_of(place: int) -> str:
    """Return the colour of a line as rich knows it."""
    return _STYLES[place % len(_STYLES)]


def draw(plot: Any, title: str, lines: Sequence[Line], look: Look, columns: int) -> None:
    """Draw lines into a plotext figure.

    Args:
        plot: The figure; what is in it goes.
        title: Above it.
        lines: What to draw.
        look: How.
        columns: How wide it is, in characters.
    """
    plot.clear_data()
    plot.clear_figure()
    plot.title(title + (" (log)" if look.is_log else ""))
    plot.xlabel("seconds" if look.axis == "time" else "step")
    ends: list[float] = []
    lows: list[float] = []
    highs: list[float] = []
    for line in lines:
        curve = thinned(line.curve, columns)
        value = smoothed(curve.value, look.smoothing)
        x = curve.wall_s - curve.wall_s[0] if look.axis == "time" and len(value) else curve.step
        if look.is_log:
            is_shown = value > 0
            x, value = x[is_shown], np.log10(value[is_shown])
        if not len(value):
            continue
        ends += [float(x.min()), float(x.max())]
        lows.append(float(value.min()))
        highs.append(float(value.max()))
        marker = "braille" if len(value) > 1 else "dot"
        plot.plot(x.tolist(), value.tolist(), color=COLOURS[line.colour % len(COLOURS)], marker=marker)
    if ends:
        _step_ticks(plot, min(ends), max(ends))
    if lows and look.is_log:
        _log_ticks(plot, min(lows), max(highs))
    elif lows and min(lows) == max(highs):
        margin = abs(lows[0]) * 0.1 or 1.0
        plot.ylim(lows[0] - margin, highs[0] + margin)


def _step_ticks(plot: Any, low: float, high: float) -> None:
    """Write whole numbers at the ticks."""
    places = np.unique(np.round(np.linspace(low, high, 5)))
    plot.xticks(places.tolist(), [f"{place:,.0f}" for place in places])


def _log_ticks(plot: Any, low: float, high: float) -> None:
    """Write the values at the ticks, not their logarithms."""
    if high - low >= 2:
        places = np.arange(np.floor(low), np.ceil(high) + 1)
        places = places[:: max(1, len(places) // 6)]
    else:
        places = np.linspace(low, high, 4)
    plot.yticks(places.tolist(), [f"{10.0**place:.3g}" for place in places])
