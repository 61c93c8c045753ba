"""Files of pictures and sounds: what their first bytes tell of them, whatever they are called."""

from __future__ import annotations

import io
import struct
import wave

_PNG = b"\x89PNG\r\n\x1a\n"
# Start of frame, of all ways to code one; what lies between are tables.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def picture(data: bytes) -> tuple[str, int, int] | None:
    """Return form, width and height of a PNG, JPEG, GIF, BMP or WebP file; `None` for anything else.

    Width and height are 0 where they are not told.
    """
    if data[:8] == _PNG and data[12:16] == b"IHDR" and len(data) >= 24:
        return "png", *struct.unpack_from(">II", data, 16)
    if data[:6] in (b"GIF87a", b"GIF89a") and len(data) >= 10:
        return "gif", *struct.unpack_from("<HH", data, 6)
    if data[:3] == b"\xff\xd8\xff":
        return "jpg", *_size_of_jpeg(data)
    if data[:2] == b"BM" and len(data) >= 26 and data[14:18] == (40).to_bytes(4, "little"):
        width, height = struct.unpack_from("<ii", data, 18)
        return "bmp", abs(width), abs(height)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp", 0, 0
    return None


def sound(data: bytes) -> str | None:
    """Return the form of a WAV, Ogg, FLAC or MP3 file; `None` for anything else."""
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return "wav"
    if data[:4] == b"OggS":
        return "ogg"
    if data[:4] == b"fLaC":
        return "flac"
    return "mp3" if data[:3] == b"ID3" or (data[:1] == b"\xff" and data[1:2] in (b"\xfb", b"\xf3", b"\xf2")) else None


def shape_of_wav(data: bytes) -> tuple[int, int, int] | None:
    """Return samples a second, channels and samples of a WAV file, `None` where it does not tell or is damaged."""
    try:
        with wave.open(io.BytesIO(data), "rb") as file:
            rate, channels, frames = file.getframerate(), file.getnchannels(), file.getnframes()
    except (wave.Error, EOFError, struct.error, RuntimeError, ZeroDivisionError):  # what its reader gives on damage
        return None
    return (rate, channels, frames) if 0 < rate < 2**31 and 0 <= frames <= len(data) else None


def _size_of_jpeg(data: bytes) -> tuple[int, int]:
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4])
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, place + 5)
            return width, height
        place += 2 + max(2, length)
    return 0, 0
