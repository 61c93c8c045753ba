"""Images and figures. PNG files are written here, so that no imaging library is needed."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runstone.errors import InvalidValue
from runstone.media.medium import Medium, comes_from, is_path, known_file, plain_text, without_none
from runstone.names import shown
from runstone.runlog.columns import to_array

_FILES = ("avif", "bmp", "gif", "ico", "jpeg", "jpg", "png", "svg", "tif", "tiff", "webp")
_PNG_COLOUR = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> colour type
_PIL_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})  # what PNG holds as it is
_UP = 2  # the filter that keeps the difference to the row above


def image(given: Any, *, caption: str | None = None) -> Medium:
    """Return an image.

    Args:
        given: Path of a file; image of Pillow; figure of matplotlib; array of shape `(height, width)` or
            `(height, width, channels)`, or tensor of torch of shape `(channels, height, width)`, with 1 to 4 channels:
            uint8, bool, other integers of 0 to 255, or floats of 0 to 1.
        caption: Text beside it.

    Raises:
        NotFound: there is no such file.
        InvalidValue: it is none of these.
    """
    caption = plain_text(caption) if caption is not None else None
    if is_path(given):
        path, form = known_file(given, "an image", _FILES)
        width, height = _size_of_file(path)
        return Medium("image", form, path, without_none(width=width, height=height, caption=caption))
    notes: tuple[str, ...] = ()
    if comes_from(given, "matplotlib"):
        data = _render(given, "png")
    elif comes_from(given, "plotly"):
        raise InvalidValue("a plotly figure is no image; log_figure takes it")
    elif comes_from(given, "PIL") and given.mode != "F":
        file = io.BytesIO()
        (given if given.mode in _PIL_MODES else given.convert("RGB")).save(file, format="PNG")
        data = file.getvalue()
    else:
        pixels, notes = to_pixels(given, "image")
        if pixels.ndim != 3:
            raise InvalidValue(f"an image has 2 or 3 dimensions, got {shown_shape(given)}; log several one by one")
        data = encode_png(pixels)
    width, height = struct.unpack_from(">II", data, 16)
    return Medium("image", "png", data, without_none(width=width, height=height, caption=caption), notes)


def figure(given: Any, *, form: str = "png", caption: str | None = None) -> Medium:
    """Return a figure.

    Args:
        given: Figure of matplotlib (or `matplotlib.pyplot` itself, for the current one, or an axes), kept as an image;
            or of plotly, kept as JSON that draws it again.
        form: `png` or `svg`, for matplotlib.
        caption: Text beside it.

    Raises:
        InvalidValue: it is none of these.
    """
    metadata = without_none(caption=plain_text(caption) if caption is not None else None)
    if form not in ("png", "svg"):
        raise InvalidValue(f"a figure is kept as 'png' or 'svg', not {form!r:.80}")
    if comes_from(given, "plotly") and hasattr(given, "to_json"):
        return Medium("figure", "plotly.json", given.to_json().encode("utf-8", "backslashreplace"), metadata)
    if hasattr(given, "gcf"):
        given = given.gcf()
    if not hasattr(given, "savefig"):
        given = getattr(given, "figure", given)
    if not hasattr(given, "savefig"):
        raise InvalidValue(f"a figure of matplotlib or plotly is wanted, got {shown(given)}")
    data = _render(given, form)
    if form == "png":
        metadata["width"], metadata["height"] = struct.unpack_from(">II", data, 16)
    return Medium("figure", form, data, metadata)


def _render(given: Any, form: str) -> bytes:
    file = io.BytesIO()
    drawn = given if hasattr(given, "savefig") else given.figure
    drawn.savefig(file, format=form)
    return file.getvalue()


def to_pixels(given: Any, what: str) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Return an array, or several of them, as uint8 with the channels last, and what had to be changed.

    Raises:
        InvalidValue: it is no array, or not of numbers that stand for pixels.
    """
    try:
        array = to_array(given)
    except Exception as error:  # foreign code may raise anything
        raise InvalidValue(f"this is no {what}: {shown(given)} ({type(error).__name__}: {error})") from None
    if not array.size:
        raise InvalidValue(f"this {what} is empty: {shown_shape(given)}")
    pixels, notes = _to_bytes(array)
    frames = what == "video"
    if pixels.ndim == 4 and not frames and pixels.shape[0] == 1:  # a batch of one
        pixels = pixels[0]
    if pixels.ndim == 2 + frames:
        return pixels[..., None], notes
    if pixels.ndim != 3 + frames:
        raise InvalidValue(f"no {what} has this shape: {shown_shape(given)}")
    is_first, is_last = pixels.shape[-3] in (1, 3, 4), pixels.shape[-1] in _PNG_COLOUR
    if is_first and (hasattr(given, "detach") or not is_last):
        pixels = np.moveaxis(pixels, -3, -1)
    elif not is_last:
        raise InvalidValue(f"pixels have 1 to 4 channels, got {shown_shape(given)}")
    return pixels, notes


def _to_bytes(array: NDArray[Any]) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    if array.dtype == np.uint8:
        return array, ()
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255), ()
    if array.dtype.kind in "iu":
        if array.min() < 0 or array.max() > 255:
            raise InvalidValue(f"pixels that are integers lie in 0 to 255, these in {array.min()} to {array.max()}")
        return array.astype(np.uint8), ()
    if array.dtype.kind != "f":
        raise InvalidValue(f"pixels are numbers, these are {array.dtype}")
    floats = array.astype(np.float32)
    notes = []
    unknown = int(np.isnan(floats).sum())
    if unknown:
        floats[np.isnan(floats)] = 0.0
        notes.append(f"{unknown} pixel values are NaN and shown black")
    low, high = float(floats.min()), float(floats.max())
    if low < 0.0 or high > 1.0:
        notes.append(f"floats from {low:.4g} to {high:.4g} are cut to 0 to 1")
    return np.rint(np.clip(floats, 0.0, 1.0) * 255.0).astype(np.uint8), tuple(notes)


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return a PNG file of pixels of shape `(height, width, channels)`, with 1 to 4 channels.

    Source: W3C, "Portable Network Graphics (PNG) Specification (Third Edition)".
    """
    height, width, channels = pixels.shape
    flat = np.ascontiguousarray(pixels).reshape(height, width * channels)
    rows = np.empty((height, 1 + width * channels), np.uint8)
    rows[:, 0] = _UP
    rows[0, 1:] = flat[0]
    np.subtract(flat[1:], flat[:-1], out=rows[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, _PNG_COLOUR[channels], 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 4)), (b"IEND", b""))
    chunks = [
        struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data)) for tag, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _size_of_file(path: Path) -> tuple[int | None, int | None]:
    """Return width and height, where the first bytes of the file tell."""
    with path.open("rb") as file:
        head = file.read(24)
    if head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) == 24:
        width, height = struct.unpack_from(">II", head, 16)
        return width, height
    if head[:4] == b"GIF8" and len(head) >= 10:
        width, height = struct.unpack_from("<HH", head, 6)
        return width, height
    return None, None


def shown_shape(given: Any) -> str:
    """Return the type and the shape of an array, for a message."""
    shape = getattr(given, "shape", None)
    return f"{type(given).__name__} of shape {tuple(shape)}" if shape is not None else shown(given)
