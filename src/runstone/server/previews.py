"""What a page shows of a file without sending it: its text, rows, size as a picture, tensors. Runs nothing in it."""

from __future__ import annotations

import csv
import io
import json
import struct
from pathlib import PurePosixPath
from typing import Any, BinaryIO

TEXT_BYTES = 256 << 10
ROWS = 200
COLUMNS = 200
MOST_PIXELS = 50_000_000
MOST_GIF_BYTES = 8 << 20
"""Of a picture that may be a film: a browser unpacks every frame, and nothing in the head says how many there are."""
_MOST_HEADER = 16 << 20
_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg")
_TABLES = (".csv", ".tsv")


def preview(file: BinaryIO, name: str, size: int) -> dict[str, Any]:
    """Return what can be shown of a file.

    Args:
        file: Open, at its begin.
        name: Its name; the ending says what it should be.
        size: In bytes.

    Returns:
        `kind`: `text`, `json`, `table`, `image`, `tensors`, `binary`; and what belongs to it. `is_cut` says whether
        there is more.
    """
    ending = PurePosixPath(name).suffix.lower()
    told: dict[str, Any] = {"name": PurePosixPath(name).name, "size_bytes": size, "kind": "binary", "is_cut": False}
    if ending in _PICTURES:
        return told | _picture(file.read(64 << 10), ending, size)
    if ending == ".safetensors":
        return told | _tensors(file, size)
    if ending == ".parquet":
        return told | _parquet(file)
    data = file.read(TEXT_BYTES)
    text = _text(data)
    if text is None:
        return told
    is_cut = size > len(data)
    if ending in _TABLES:
        return told | _rows(text, "\t" if ending == ".tsv" else ",", is_cut=is_cut)
    if ending == ".json" and not is_cut:
        try:
            return told | {"kind": "json", "json": json.loads(text)}
        except (ValueError, RecursionError):
            pass
    return told | {"kind": "text", "text": text, "is_cut": is_cut}


def _text(data: bytes) -> str | None:
    if b"\0" in data[:4096]:
        return None
    for cut in range(4):  # the last character may be cut off
        try:
            return data[: len(data) - cut].decode()
        except UnicodeDecodeError as error:
            if error.start < len(data) - 4:
                return None
    return None


def _rows(text: str, separator: str, *, is_cut: bool) -> dict[str, Any]:
    lines = text.splitlines(keepends=True)
    if is_cut and len(lines) > 1:
        lines.pop()
    rows: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO("".join(lines)), delimiter=separator):
            rows.append(row[:COLUMNS])
            if len(rows) > ROWS:
                break
    except csv.Error:
        return {"kind": "text", "text": text, "is_cut": is_cut}
    header = rows[0] if rows else []
    return {"kind": "table", "columns": header, "rows": rows[1 : ROWS + 1], "is_cut": is_cut or len(rows) > ROWS}


def _tensors(file: BinaryIO, size: int) -> dict[str, Any]:
    """Return names, types and shapes of a safetensors file, which its header tells."""
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(_MOST_HEADER, size):
        return {"kind": "binary"}
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError):
        return {"kind": "binary"}
    if not isinstance(header, dict):
        return {"kind": "binary"}
    metadata = header.pop("__metadata__", {})
    tensors = [
        {"name": name, "dtype": str(one.get("dtype")), "shape": one.get("shape")}
        for name, one in header.items()
        if isinstance(one, dict)
    ]
    return {"kind": "tensors", "tensors": tensors[:10_000], "metadata": metadata, "is_cut": len(tensors) > 10_000}


def _parquet(file: BinaryIO) -> dict[str, Any]:
    import pyarrow as pa  # heavy, only for tables
    import pyarrow.parquet as pq

    try:
        found = pq.ParquetFile(file)
        names = found.schema_arrow.names[:COLUMNS]
        batch = next(found.iter_batches(batch_size=ROWS, columns=names, use_threads=False), None)
        rows = batch.to_pylist() if batch is not None else []
    except (pa.ArrowException, OSError, ValueError, NotImplementedError):
        return {"kind": "binary"}
    return {
        "kind": "table",
        "columns": names,
        "types": [str(found.schema_arrow.field(name).type) for name in names],
        "rows": [[_cell(row[name]) for name in names] for row in rows],
        "rows_in_all": found.metadata.num_rows,
        "is_cut": found.metadata.num_rows > len(rows),
    }


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return f"{len(value)} bytes" if isinstance(value, bytes) else str(value)[:1_000]


def _picture(head: bytes, ending: str, size: int) -> dict[str, Any]:
    """Return the size of a picture as its header tells it, so that a browser is not asked to unpack a huge one."""
    width, height = _size(head)
    is_too_large = width is not None and height is not None and width * height > MOST_PIXELS
    is_too_large = is_too_large or (head[:4] in (b"GIF8", b"RIFF") and size > MOST_GIF_BYTES)
    if ending != ".svg" and width is None:
        return {"kind": "binary"}
    return {"kind": "image", "width": width, "height": height, "is_too_large": is_too_large}


def _size(head: bytes) -> tuple[int | None, int | None]:
    if head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) >= 24:
        return struct.unpack(">II", head[16:24])
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return struct.unpack("<HH", head[6:10])
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP" and head[12:16] == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8 ":
        return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF
    if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return _jpeg_size(head)


def _jpeg_size(head: bytes) -> tuple[int | None, int | None]:
    place = 2 if head[:2] == b"\xff\xd8" else len(head)
    while place + 9 < len(head) and head[place] == 0xFF:
        marker, length = head[place + 1], int.from_bytes(head[place + 2 : place + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", head[place + 5 : place + 9])
            return width, height
        place += 2 + length
    return None, None
