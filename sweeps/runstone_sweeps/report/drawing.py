"""What figures of a report are made of: plotly's own JSON, colours by name, no more points than are seen."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from runstone_sweeps.record import TrialState
from runstone_sweeps.results.text import clean

T = TypeVar("T")
Trace = dict[str, Any]
# Names of colours; the page has them, for light and for dark.
ACCENT, GOOD, WARN, BAD, SOFT, INK = "--accent", "--good", "--warn", "--bad", "--soft", "--ink"
SCALE = [[0.0, "--strong"], [1.0, "--faint"]]
STATE_COLORS = {
    TrialState.COMPLETE: ACCENT,
    TrialState.PRUNED: WARN,
    TrialState.FAILED: BAD,
    TrialState.RUNNING: INK,
    TrialState.WAITING: SOFT,
}
_LABEL_LENGTH = 60


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure, or the reason why there is none.

    Attributes:
        title: Its heading.
        data: Traces as plotly takes them; a colour is the name of one of the page's.
        layout: As plotly takes it, without colours, fonts and width.
        reason: Why there is none; empty where there is one.
        note: What to know about it, such as that it does not show every trial.
        is_wide: Whether it takes the whole width.
        height: In pixels.
    """

    title: str
    data: Sequence[Trace] = ()
    layout: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    note: str = ""
    is_wide: bool = False
    height: int = 380


def escaped(text: str) -> str:
    """Return text that plotly, which reads some HTML, shows as it is; the end of a long one is cut off."""
    text = clean(text)
    if len(text) > _LABEL_LENGTH:
        text = text[: _LABEL_LENGTH - 1] + "…"
    return html.escape(text, quote=False)


def iso(at: float) -> str:
    """Return a time as plotly takes it, UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def thinned(items: Sequence[T], limit: int) -> list[T]:
    """Return `limit` items at most, evenly spread, the first and the last among them."""
    if len(items) <= limit:
        return list(items)
    return [items[place * (len(items) - 1) // (limit - 1)] for place in range(limit)]


def thinned_from_best(ranked: Sequence[T], limit: int) -> list[T]:
    """Return `limit` items at most of a ranking: its first half of them, and the rest evenly spread."""
    if len(ranked) <= limit:
        return list(ranked)
    return [*ranked[: limit // 2], *thinned(ranked[limit // 2 :], limit - limit // 2)]


def axis(title: str = "", **more: Any) -> dict[str, Any]:
    """Return an axis with a title of users' text."""
    return {"title": {"text": escaped(title)}, **more}


def is_wide_range(values: Sequence[float]) -> bool:
    """Tell whether values are better seen on a log scale: above 0, and over more than two orders."""
    finite = [value for value in values if math.isfinite(value)]
    return len(finite) > 1 and min(finite) > 0 and max(finite) / min(finite) > 100


def json_safe(value: Any) -> Any:
    """Return a value with `None` for each number that JSON lacks."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: json_safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_safe(item) for item in value]
    return value
