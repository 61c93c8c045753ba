"""Media of other tools as media of a run. What their stores say is not trusted: bytes are looked at, sizes bounded."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from runstone.errors import InvalidValue
from runstone.media import Medium, table
from runstone.tensorboard.picture_files import picture, shape_of_wav, sound
from runstone.values import JSON

_MOST_CAPTION = 1 << 14
_MOST_BINS = 10_000
_MOST_ROWS = 1_000_000
_MOST_FIGURE_BYTES = 64 << 20


def image(data: bytes, caption: object = None) -> Medium | None:
    """Return a picture; `None` where the bytes are of no form that can be shown (SVG, which can hold programs, too)."""
    found = picture(data)
    if found is None:
        return None
    form, width, height = found
    told: dict[str, JSON] = {"width": width, "height": height} if width and height else {}
    return Medium("video" if _is_animated(form, data) else "image", form, data, told | _caption(caption))


def audio(data: bytes, caption: object = None) -> Medium | None:
    """Return a sound, `None` where the bytes are none."""
    form = sound(data)
    if form is None:
        return None
    told: dict[str, JSON] = {}
    if form == "wav" and (shape := shape_of_wav(data)) is not None:
        rate, channels, samples = shape
        told = {"sample_rate": rate, "channels": channels, "duration_s": samples / rate}
    return Medium("audio", form, data, told | _caption(caption))


def video(data: bytes, caption: object = None) -> Medium | None:
    """Return a film, `None` where the bytes are none."""
    if data[4:8] == b"ftyp":
        form = "mp4"
    elif data[:4] == b"\x1aE\xdf\xa3":
        form = "webm"
    elif data[:6] in (b"GIF87a", b"GIF89a"):
        form = "gif"
    else:
        return None
    return Medium("video", form, data, _caption(caption))


def object3d(data: bytes, form: str, caption: object = None) -> Medium | None:
    """Return a shape in space, `None` where its form is none that can be shown."""
    return Medium("object3d", form, data, _caption(caption)) if form in ("glb", "obj", "ply", "stl") else None


def plotly(data: bytes) -> Medium | None:
    """Return a plotly figure given as JSON, `None` where it is none."""
    if len(data) > _MOST_FIGURE_BYTES:
        return None
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return Medium("figure", "plotly.json", data) if isinstance(told, dict) and "data" in told else None


def histogram(edges: object, counts: object) -> Medium | None:
    """Return a histogram, `None` where edges and counts make none."""
    if not isinstance(edges, Sequence) or not isinstance(counts, Sequence) or isinstance(edges, str | bytes):
        return None
    if len(edges) != len(counts) + 1 or not 1 <= len(counts) <= _MOST_BINS:
        return None
    try:
        ends, found = [float(edge) for edge in edges], [float(count) for count in counts]
    except (TypeError, ValueError, OverflowError):
        return None
    is_fit = all(map(math.isfinite, ends)) and all(math.isfinite(c) and 0 <= c < 2**63 for c in found)
    if not is_fit or any(b < a for a, b in pairwise(ends)):
        return None
    whole: list[Any] = [int(c) if c == int(c) else c for c in found]
    return Medium("histogram", metadata={"edges": list(ends), "counts": whole, "count": int(sum(found))})


def rows_table(columns: Iterable[object], rows: Iterable[object]) -> Medium | None:
    """Return a table given by its columns' names and its rows, `None` where they do not fit."""
    names = [str(name) for name in columns]
    listed = [row for row in rows if isinstance(row, list | tuple) and len(row) == len(names)]
    if not names:
        return None
    taken: dict[str, list[object]] = {}
    for position, name in enumerate(names):
        free, number = name, 2
        while free in taken:
            free, number = f"{name} ({number})", number + 1
        taken[free] = [_cell(row[position]) for row in listed]
    try:
        return table(taken, max_rows=_MOST_ROWS)
    except InvalidValue:
        return None


def records_table(rows: Iterable[object]) -> Medium | None:
    """Return a table given by rows that are mappings, `None` where there are none."""
    listed = [row for row in rows if isinstance(row, Mapping)]
    names = dict.fromkeys(str(name) for row in listed for name in row)
    return rows_table(names, [[row.get(name) for name in names] for row in listed])


def _cell(value: object) -> object:
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value, default=str)


def _caption(text: object) -> dict[str, JSON]:
    return {"caption": text[:_MOST_CAPTION]} if isinstance(text, str) and text else {}


def _is_animated(form: str, data: bytes) -> bool:
    return form == "gif" and data.count(b"\x21\xf9\x04") > 1
