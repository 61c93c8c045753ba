"""Figures of a sweep for notebooks: those of the page and the report, in their colours."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runstone import InvalidConfig, InvalidValue, Workspace, open_workspace
from runstone_sweeps.store import Sweeps

if TYPE_CHECKING:
    import plotly.graph_objects as go

THEMES = ("light", "dark")
_BLOCK = re.compile(r":root \{(.*?)\}", re.DOTALL)
_COLOUR = re.compile(r"(--[a-z]+): (#[0-9a-f]{3,6})")
# What holds texts of users and numbers, not colours.
_PLAIN = frozenset({"x", "y", "z", "text", "name", "values", "ticktext", "tickvals", "categoryarray", "label", "title"})


def plot_sweep(
    sweep: str,
    kind: str = "history",
    *,
    metric: str | None = None,
    x: str | None = None,
    y: str | None = None,
    workspace: str | Path | Workspace | None = None,
    theme: str = "light",
) -> go.Figure:
    """Return a figure of a sweep, finished or running (needs plotly).

    Args:
        sweep: Id of the sweep, or the begin or end of one, or its name.
        kind: `history`, `importance`, `parallel`, `slice`, `contour`, `timeline`, `edf`, `pareto`, `hypervolume`,
            `intermediate` or `spending`.
        metric: Of several; default the first.
        x, y: The two parameters of a contour; default the most important ones.
        workspace: Where it is recorded; default as for any run.
        theme: `light` or `dark`.

    Raises:
        SweepNotFound, AmbiguousName: there is no such sweep, or several.
        NotFound, InvalidValue: there is no such figure, metric or parameter.
        InvalidConfig: plotly is not installed.
    """
    if theme not in THEMES:
        raise InvalidValue(f"theme is {theme!r:.80}; it must be 'light' or 'dark'")
    try:
        import plotly.graph_objects as go  # an extra, and heavy
    except ImportError:
        raise InvalidConfig("figures take plotly: pip install 'runstone[plots]'") from None
    from runstone_sweeps.report.figures import Figures  # imports what a trial's process has no need of
    from runstone_sweeps.store.followed import Followed

    opened = workspace if isinstance(workspace, Workspace) else open_workspace(workspace)
    with Followed(Sweeps(opened).find(sweep)) as followed:
        drawn = Figures().draw(followed, kind, metric=metric, x=x, y=y)
    colours = colours_of(theme)
    title, reason = (html.escape(drawn[key], quote=False) for key in ("title", "reason"))
    ground = {"paper_bgcolor": colours["--card"], "plot_bgcolor": colours["--card"]}
    layout = {
        **resolved(drawn["layout"], colours),
        **ground,
        "title": {"text": f"{title}<br><sub>{reason}</sub>" if reason else title},
        "font": {"color": colours["--ink"]},
        "height": drawn["height"],
    }
    return go.Figure(data=resolved(drawn["data"], colours), layout=layout)


def colours_of(theme: str) -> dict[str, str]:
    """Return the colours of the report by name."""
    css = Path(__file__).with_name("page.css").read_text("utf-8")
    light, dark = _BLOCK.findall(css)
    found = dict(_COLOUR.findall(light))
    return found | dict(_COLOUR.findall(dark)) if theme == "dark" else found


def resolved(value: Any, colours: Mapping[str, str]) -> Any:
    """Return a part of a figure with colours in place of their names."""
    if isinstance(value, str):
        return colours.get(value, value)
    if isinstance(value, Mapping):
        return {key: inner if key in _PLAIN else resolved(inner, colours) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [resolved(inner, colours) for inner in value]
    return value
