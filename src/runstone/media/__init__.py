"""Python objects become media: what is known of them, and their bytes. Knows no run and no step.

Pillow, matplotlib, plotly, pandas and torch are known by what their objects can do; none of them is needed, and none is
imported where the user has not done so.
"""

from __future__ import annotations

from runstone.media.data import histogram, long_text, object3d, table
from runstone.media.medium import Medium
from runstone.media.motion import audio, video
from runstone.media.pictures import figure, image
from runstone.media.shelf import MediaLimits, NoRoom, Shelf

__all__ = [
    "MediaLimits",
    "Medium",
    "NoRoom",
    "Shelf",
    "audio",
    "figure",
    "histogram",
    "image",
    "long_text",
    "object3d",
    "table",
    "video",
]
