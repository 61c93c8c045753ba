"""Sounds and moving pictures."""

from __future__ import annotations

import io
import wave
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runstone.errors import InvalidValue
from runstone.media.medium import Medium, is_path, known_file, plain_text, without_none
from runstone.media.pictures import shown_shape, to_pixels
from runstone.names import shown
from runstone.runlog.columns import to_array

_SOUNDS = ("aac", "flac", "m4a", "mp3", "oga", "ogg", "opus", "wav", "weba")
_VIDEOS = ("avi", "gif", "m4v", "mkv", "mov", "mp4", "ogv", "webm", "webp")
_MOST_CHANNELS = 32


def audio(given: Any, *, sample_rate: int | None = None, caption: str | None = None) -> Medium:
    """Return a sound.

    Args:
        given: Path of a file; or array of shape `(samples,)` or, in any order, `(samples, channels)`: floats of -1 to 1
            or int16. It becomes a WAV file of 16 bits.
        sample_rate: Samples a second; needed for arrays.
        caption: Text beside it.

    Raises:
        NotFound: there is no such file.
        InvalidValue: it is none of these.
    """
    caption = plain_text(caption) if caption is not None else None
    rate = _sample_rate(sample_rate)
    if is_path(given):
        path, form = known_file(given, "a sound", _SOUNDS)
        duration_s = None
        if form == "wav":
            try:
                with wave.open(str(path), "rb") as file:
                    rate = file.getframerate()
                    duration_s = file.getnframes() / rate
            except (wave.Error, EOFError):  # floats, or compressed: players know more of WAV than this reader
                pass
        return Medium("audio", form, path, without_none(sample_rate=rate, duration_s=duration_s, caption=caption))
    if rate is None:
        raise InvalidValue("a sound that is an array needs its sample_rate, in samples a second")
    samples, notes = _samples(given)
    data = io.BytesIO()
    with wave.open(data, "wb") as out:
        out.setnchannels(samples.shape[1])
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(samples.astype("<i2").tobytes())
    metadata = without_none(
        sample_rate=rate, channels=samples.shape[1], duration_s=len(samples) / rate, caption=caption
    )
    return Medium("audio", "wav", data.getvalue(), metadata, notes)


def _sample_rate(given: Any) -> int | None:
    if given is None:
        return None
    try:
        rate = int(given)
        if rate != given or not 1 <= rate < 2**31:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise InvalidValue(f"sample_rate must be a positive integer, got {shown(given)}") from None
    return rate


def _samples(given: Any) -> tuple[NDArray[np.int16], tuple[str, ...]]:
    try:
        array = to_array(given)
    except Exception as error:  # foreign code may raise anything
        raise InvalidValue(f"this is no sound: {shown(given)} ({type(error).__name__}: {error})") from None
    if array.ndim == 1:
        array = array[:, None]
    elif array.ndim == 2 and array.shape[0] < array.shape[1]:  # channels come first in torch's libraries
        array = array.T
    if array.ndim != 2 or not array.size or array.shape[1] > _MOST_CHANNELS:
        raise InvalidValue(f"a sound is an array of samples, or of samples and channels, got {shown_shape(given)}")
    if array.dtype == np.int16:
        return array, ()
    if array.dtype.kind != "f":
        raise InvalidValue(f"a sound is floats of -1 to 1 or int16, got {array.dtype}")
    floats = array.astype(np.float32)
    notes = []
    unknown = int(np.isnan(floats).sum())
    if unknown:
        floats[np.isnan(floats)] = 0.0
        notes.append(f"{unknown} samples are NaN and kept as silence")
    most = float(np.abs(floats).max())
    if most > 1.0:
        notes.append(f"samples of up to ±{most:.4g} are cut to -1 to 1")
    return np.rint(np.clip(floats, -1.0, 1.0) * 32767.0).astype(np.int16), tuple(notes)


def video(given: Any, *, fps: float = 10.0, form: str = "gif", caption: str | None = None) -> Medium:
    """Return a video.

    Args:
        given: Path of a file, kept as it is; or frames of shape `(frames, height, width, channels)`, or
            `(frames, channels, height, width)` of torch, with pixels as in `image`: an animated image is made of them.
        fps: Frames a second, for arrays.
        form: `gif` or `webp`, for arrays.
        caption: Text beside it.

    Raises:
        NotFound: there is no such file.
        InvalidValue: it is none of these, or Pillow, which animates frames, is not installed.
    """
    caption = plain_text(caption) if caption is not None else None
    if is_path(given):
        path, known = known_file(given, "a video", _VIDEOS)
        return Medium("video", known, path, without_none(caption=caption))
    if form not in ("gif", "webp"):
        raise InvalidValue(f"frames are kept as 'gif' or 'webp', not {form!r:.80}")
    if not isinstance(fps, int | float) or not 0.01 <= fps <= 1000:
        raise InvalidValue(f"fps must be a number of 0.01 to 1000, got {shown(fps)}")
    pixels, notes = to_pixels(given, "video")
    try:
        from PIL import Image  # optional, and only for frames
    except ImportError:
        raise InvalidValue(
            "frames become a video with Pillow, which is not installed: pip install pillow, or give the path of a file"
        ) from None
    frames = [Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame) for frame in pixels]
    data = io.BytesIO()
    duration_ms = max(1, round(1000 / fps))
    frames[0].save(data, format=form.upper(), save_all=True, append_images=frames[1:], duration=duration_ms, loop=0)
    height, width = pixels.shape[1:3]
    metadata = without_none(width=width, height=height, frames=len(frames), fps=float(fps), caption=caption)
    return Medium("video", form, data.getvalue(), metadata, notes)
