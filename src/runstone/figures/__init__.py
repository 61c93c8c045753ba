"""Figures for notebooks, reports and the page: made here once, as plotly takes them; imports no plotly."""

from __future__ import annotations

from runstone.figures.curves import Curve, curve_of, draw_curves, draw_spread
from runstone.figures.figure import Figure
from runstone.figures.groups import Bar, draw_bars, draw_boxes
from runstone.figures.palette import color, color_index, dashes
from runstone.figures.parallel import draw_parallel
from runstone.figures.points import Point, draw_front, draw_history, draw_scatter
from runstone.figures.smoothing import smoothed
from runstone.figures.tables import draw_confusion, draw_heat_map, draw_histogram
from runstone.figures.theme import COLORS

__all__ = [
    "COLORS",
    "Bar",
    "Curve",
    "Figure",
    "Point",
    "color",
    "color_index",
    "curve_of",
    "dashes",
    "draw_bars",
    "draw_boxes",
    "draw_confusion",
    "draw_curves",
    "draw_front",
    "draw_heat_map",
    "draw_histogram",
    "draw_history",
    "draw_parallel",
    "draw_scatter",
    "draw_spread",
    "smoothed",
]
