"""A figure as a value: what plotly takes, with colours by name and arrays as arrays. Imports no plotly."""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runstone.errors import InvalidConfig
from runstone.figures.theme import Theme, check_theme, layout_of, resolved

if TYPE_CHECKING:
    import plotly.graph_objects as go

Trace = dict[str, Any]
_LONGEST_LABEL = 60
_INT32 = 2**31


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure, or the reason why there is none.

    Attributes:
        title: Its heading, as text.
        data: Traces as plotly takes them: arrays are NumPy's, a colour may be the name of one of `theme.COLORS`.
        layout: As plotly takes it; what all figures share comes with `to_dict`.
        note: What to know about it, as text.
        reason: Why there is none; empty where there is one.
        height: In pixels.
        is_wide: Whether it takes the whole width of a page.
    """

    title: str
    data: Sequence[Trace] = ()
    layout: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    reason: str = ""
    height: int = 380
    is_wide: bool = False

    def to_dict(self, theme: str | None = "light") -> dict[str, Any]:
        """Return `data` and `layout` as JSON has them; arrays as `{"dtype", "bdata"}`, which plotly.js reads.

        Args:
            theme: `light`, `dark`, or `None`: colours stay names, for a page that has them as CSS variables.
        """
        told: dict[str, Any] = {"data": list(self.data), "layout": layout_of(self.layout, self.height)}
        if theme is not None:
            told = resolved(told, check_theme(theme))
        plain: dict[str, Any] = _plain(told)
        return plain

    def to_json(self, theme: str | None = "light") -> str:
        """Return `to_dict` as compact JSON."""
        return json.dumps(self.to_dict(theme), separators=(",", ":"), allow_nan=False)

    def to_plotly(self, theme: str = "light") -> go.Figure:
        """Return it as a figure of plotly, for notebooks.

        Raises:
            InvalidConfig: plotly is not installed.
        """
        chosen: Theme = check_theme(theme)
        try:
            import plotly.graph_objects as go  # an extra, and heavy
        except ImportError:
            raise InvalidConfig("figures take plotly: pip install 'runstone[plots]'") from None
        layout = layout_of(self.layout, self.height)
        ground = "--card"
        layout |= {"paper_bgcolor": ground, "plot_bgcolor": ground}
        if self.title or self.reason:
            text = label(self.title) + (
                f"<br><sub>{html.escape(self.reason, quote=False)}</sub>" if self.reason else ""
            )
            layout["title"] = {"text": text, "x": 0.01, "font": {"size": 16}}
            layout["margin"] = {**layout["margin"], "t": 72}
        return go.Figure(data=resolved(list(self.data), chosen), layout=resolved(layout, chosen))


def label(text: str, longest: int = _LONGEST_LABEL) -> str:
    """Return text that plotly, which reads some HTML, shows as it is; the end of a long one is cut off."""
    text = "".join(c if c.isprintable() else "·" for c in text)
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    return html.escape(text, quote=False)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _array(value: NDArray[Any]) -> Any:
    if value.ndim != 1 or value.dtype.kind not in "fiub":
        return _plain(value.tolist())
    if value.dtype.kind in "iub":
        fits = not len(value) or (int(value.min()) >= -_INT32 and int(value.max()) < _INT32)
        value = value.astype("<i4" if fits else "<f8")  # plotly.js knows no wider integers
    else:
        value = value.astype("<f8")
    return {"dtype": "i4" if value.dtype.kind == "i" else "f8", "bdata": base64.b64encode(value.tobytes()).decode()}
