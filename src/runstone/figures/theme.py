"""Colours by name, for the light and the dark ground, and the layout that all figures share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from runstone.errors import InvalidValue
from runstone.figures import palette

Theme = Literal["light", "dark"]
_GROUNDS: dict[Theme, dict[str, str]] = {
    "light": {
        "--bg": "#f6f7f9", "--card": "#ffffff", "--ink": "#1b2330", "--soft": "#5b6676", "--line": "#e1e5ea",
        "--accent": "#2f6fde", "--good": "#1d7a46", "--warn": "#8f5f00", "--bad": "#b3261e", "--faint": "#e4ebf5",
        "--strong": "#123f91",
    },
    "dark": {
        "--bg": "#12151b", "--card": "#1b2029", "--ink": "#e6e9ee", "--soft": "#9aa5b5", "--line": "#2d3440",
        "--accent": "#7aa7ff", "--good": "#63c78d", "--warn": "#e0b04c", "--bad": "#ff8a80", "--faint": "#2a3342",
        "--strong": "#a9c8ff",
    },
}  # fmt: skip
COLORS: Mapping[Theme, Mapping[str, str]] = {
    theme: {
        **_GROUNDS[theme],
        **{f"--run-{place}": color for place, color in enumerate(palette.LIGHT if theme == "light" else palette.DARK)},
    }
    for theme in ("light", "dark")
}
"""What each name of a colour stands for. `--run-3/0.2` is a fifth of `--run-3` over the ground."""
SEQUENTIAL = ((0.0, "--faint"), (0.5, "--accent"), (1.0, "--strong"))
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif"
_NAME = re.compile(r"(--[a-z]+(?:-\d+)?)(?:/(0|1|0?\.\d+))?")


def check_theme(theme: str) -> Theme:
    """Return the theme if there is one of this name.

    Raises:
        InvalidValue: there is none.
    """
    if theme not in ("light", "dark"):
        raise InvalidValue(f"theme is {theme!r:.80}; it must be light or dark")
    return "light" if theme == "light" else "dark"


def run_color(key: str, alpha: float | None = None) -> str:
    """Return the name of the colour of a run or group, see `palette`."""
    name = f"--run-{palette.color_index(key)}"
    return name if alpha is None else f"{name}/{alpha:g}"


def resolved(value: Any, theme: Theme) -> Any:
    """Return what a figure is made of with colours in place of their names."""
    if isinstance(value, str) and value.startswith("--"):
        return _color(value, theme)
    if isinstance(value, Mapping):
        return {key: resolved(item, theme) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [resolved(item, theme) for item in value]
    return value


def _color(text: str, theme: Theme) -> str:
    match = _NAME.fullmatch(text)
    if match is None or match[1] not in COLORS[theme]:
        return text
    color = COLORS[theme][match[1]]
    if match[2] is None:
        return color
    red, green, blue = (int(color[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{match[2]})"


def layout_of(layout: Mapping[str, Any], height: int) -> dict[str, Any]:
    """Return the layout of a figure with what all figures share; colours by name."""
    axis = {
        "gridcolor": "--line",
        "linecolor": "--line",
        "zerolinecolor": "--line",
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": "--line",
        "automargin": True,
        "title": {"font": {"size": 13, "color": "--soft"}},
        "tickfont": {"color": "--soft"},
    }
    common: dict[str, Any] = {
        "height": height,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": _FONT, "size": 13, "color": "--ink"},
        "margin": {"l": 56, "r": 16, "t": 12, "b": 48},
        "hoverlabel": {"bgcolor": "--card", "bordercolor": "--line", "font": {"color": "--ink"}, "namelength": -1},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 12}},
        "hovermode": "closest",
        "bargap": 0.35,
    }  # fmt: skip
    found = _merged(common, layout)
    for name in {"xaxis", "yaxis", *(key for key in found if re.fullmatch(r"[xy]axis\d*", key))}:
        found[name] = _merged(axis, found.get(name) or {})
    return found


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(base)
    for key, value in over.items():
        standing = found.get(key)
        is_both = isinstance(standing, Mapping) and isinstance(value, Mapping)
        found[key] = _merged(standing, value) if is_both and isinstance(standing, Mapping) else value
    return found
