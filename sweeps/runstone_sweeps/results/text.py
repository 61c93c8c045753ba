"""How values of a sweep read, in a terminal and on a page. Text alone: no colours, no tables."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from runstone_sweeps.record import SweepRecord, TrialState
from runstone_sweeps.spec.options import MOST_PARALLEL

STATES = (
    TrialState.COMPLETE,
    TrialState.PRUNED,
    TrialState.FAILED,
    TrialState.RUNNING,
    TrialState.WAITING,
)
_BARS = "▁▂▃▄▅▆▇█"
# What could not be drawn as a bar: NaN or infinite.
_NO_BAR = "·"


def clean(text: str) -> str:
    """Return text without what a terminal would take as a command, and without what would join other characters."""
    if text.isascii() and text.isprintable():
        return text
    # Combining marks of any number may stack on one character and draw over the lines around it.
    marks = 0
    kept = []
    for char in text:
        marks = marks + 1 if unicodedata.combining(char) else 0
        if marks <= 2:
            kept.append(char if char.isprintable() else "\ufffd")
    return "".join(kept)


def at_once(parallel: int) -> str:
    """Return how many trials run at once."""
    return "as many at once as the workers take" if parallel == MOST_PARALLEL else f"{parallel} at once"


def value_text(value: Any) -> str:
    """Return a parameter's value as a table shows it."""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, (list, dict)):
        return clean(json.dumps(value, ensure_ascii=False))
    return clean(str(value))


def params_text(params: Mapping[str, Any]) -> str:
    """Return `lr=0.01 hidden=64`."""
    return " ".join(f"{clean(name)}={value_text(value)}" for name, value in params.items())


def counts_text(record: SweepRecord) -> str:
    """Return `9 complete, 3 pruned`."""
    counts = record.counts
    return ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state]) or "no trials yet"


def numbers_text(numbers: Sequence[int], *, limit: int = 8) -> str:
    """Return `trial 3`, or `12 trials (0, 1, 2, …)`."""
    listed = ", ".join(map(str, numbers[:limit])) + (", …" if len(numbers) > limit else "")
    return f"trial {listed}" if len(numbers) == 1 else f"{len(numbers)} trials ({listed})"


def number(value: float | None) -> str:
    """Return a value with five digits that matter."""
    return "" if value is None else f"{value:.5g}"


def duration(seconds: float) -> str:
    """Return `3.2 s`, `4 min 10 s`, `2 h 5 min`, `3 d 4 h`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def energy(joules: float) -> str:
    """Return `850 J`, `12.5 kJ`, `3.4 kWh`."""
    if joules < 1000:
        return f"{joules:.0f} J"
    return f"{joules / 1000:.3g} kJ" if joules < 3.6e5 else f"{joules / 3.6e6:.3g} kWh"


def size(bytes_: int) -> str:
    """Return `512 MB`, `3.2 GB`."""
    return f"{bytes_ / 1e6:.0f} MB" if bytes_ < 1e9 else f"{bytes_ / 1e9:.1f} GB"


def sparkline(values: Sequence[float], width: int) -> str:
    """Return a curve as one line of bars, the lowest value as the lowest bar.

    Args:
        values: In order; of more than `width`, each bar is the last one of its share.
        width: Characters at most.
    """
    if width < 1 or not values:
        return ""
    count = len(values)
    if count > width:
        values = [values[(place + 1) * count // width - 1] for place in range(width)]
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return _NO_BAR * len(values)
    low, high = min(finite), max(finite)
    # Halves, so that the difference of two huge values does not overflow.
    span = high / 2 - low / 2
    top = len(_BARS) - 1

    def bar(value: float) -> str:
        if not math.isfinite(value):
            return _NO_BAR
        return _BARS[round((value / 2 - low / 2) / span * top) if span > 0 else top // 2]

    return "".join(map(bar, values))
