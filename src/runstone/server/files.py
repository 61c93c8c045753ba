"""Sending content that users made: as a download, never as something that a browser runs."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import quote

from fastapi.responses import Response, StreamingResponse

from runstone.blobs import Blobs
from runstone.errors import FormatError, NotFound, Unavailable
from runstone.server.errors import ApiError

CHUNK_BYTES = 1 << 18
_MOST_PATH = 4_096
_CHECKED = 4_096
# What a page may show as it is; everything else is bytes to a browser.
SHOWN = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".svg": "image/svg+xml",
    ".wav": "audio/wav",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
}
_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})")
SANDBOX = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; frame-ancestors 'none'"


def check_path(path: str) -> str:
    """Return a path inside an artifact, which is relative, in POSIX form and says where it leads.

    Raises:
        ApiError: it is none.
    """
    parts = path.split("/")
    is_bad = (
        not path
        or len(path) > _MOST_PATH
        or any(sign in path for sign in "\0\\")
        or any(part in ("", ".", "..") for part in parts)
        or re.match(r"[A-Za-z]:", path) is not None
        or not _is_text(path)
    )
    if is_bad:
        raise ApiError("invalid", f"{path!r:.120} is no path inside an artifact: it is relative, without '.' and '..'")
    return path


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


class Contents:
    """Content of a workspace by its hash, opened so that nothing outside of the store can be meant.

    Args:
        blobs: The store.
    """

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._lock = threading.Lock()
        self._checked: OrderedDict[tuple[str, int, int, int, int], None] = OrderedDict()

    def open(self, content: str) -> tuple[BinaryIO, int]:
        """Return a content as an open file and its size.

        Raises:
            ApiError: it is not here, is a link, or other bytes than its name says.
            Unavailable: it lies in a store elsewhere that does not answer.
        """
        missing = ApiError("not_found", f"the content {content[:16]}… is not in this workspace")
        try:
            path, fd = self._opened(content)
        except Unavailable:
            raise
        except (NotFound, FormatError, OSError):
            raise missing from None
        file = os.fdopen(fd, "rb")
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or not self._is_sound(content, path, found):
            file.close()
            raise missing
        return file, found.st_size

    def _opened(self, content: str) -> tuple[Path, int]:
        for _again in range(2):
            path = self._blobs.local_path(content)
            with contextlib.suppress(FileNotFoundError):  # given back to the store elsewhere just now
                return path, os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        raise FileNotFoundError(path)

    def _is_sound(self, content: str, path: Path, found: os.stat_result) -> bool:
        """Return whether a file holds what its name says; each is read once for that."""
        key = (content, found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
        with self._lock:
            if key in self._checked:
                return True
        if _hash_of(path) != content:
            return False
        with self._lock:
            self._checked[key] = None
            while len(self._checked) > _CHECKED:
                self._checked.popitem(last=False)
        return True


def _hash_of(path: Path) -> str:
    from blake3 import blake3  # only where content is sent

    hasher = blake3()
    hasher.update_mmap(path)
    return str(hasher.hexdigest())


def sent(contents: Contents, content: str, name: str, *, range_header: str | None = None) -> Response:
    """Return a content as an answer: to be saved, or shown as an image, sound or film; never run.

    Args:
        contents: Where it lies.
        content: Its hash.
        name: File name; its ending says what it is.
        range_header: Of the request; one range is served, of several the whole.
    """
    file, size = contents.open(content)
    kind = SHOWN.get(PurePosixPath(name).suffix.lower(), "application/octet-stream")
    headers = {
        "Content-Disposition": disposition(name),
        "Content-Security-Policy": SANDBOX,
        "Cache-Control": "private, max-age=3600",
        "ETag": f'"{content[:32]}"',
        "Accept-Ranges": "bytes",
    }
    try:
        span = _span(range_header, size)
    except ApiError:
        file.close()
        raise
    low, high = span if span is not None else (0, size)
    headers["Content-Length"] = str(high - low)
    if span is not None:
        headers["Content-Range"] = f"bytes {low}-{high - 1}/{size}"
    file.seek(low)
    body = _chunks(file, high - low)
    return StreamingResponse(body, status_code=206 if span is not None else 200, media_type=kind, headers=headers)


def disposition(name: str) -> str:
    """Return the header that has a browser save an answer under a name, whatever is in it."""
    last = PurePosixPath(name).name or "file"
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", last)[:150].lstrip(".") or "file"
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(last[:150].encode('utf-8', 'replace'), safe='')}"


def _span(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the bytes that one range asks for, first and after the last; `None`: all of them."""
    if header is None:
        return None
    match = _RANGE.fullmatch(header.strip()) if len(header) < 100 else None
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        low, high = max(0, size - int(match[2])), size
    else:
        low, high = int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
    if low >= high:
        raise ApiError(
            "invalid",
            f"there are {size} bytes; none in {header:.60}",
            status=416,
            headers={"Content-Range": f"bytes */{size}"},
        )
    return low, high


def _chunks(file: BinaryIO, size: int) -> Iterator[bytes]:
    with file:
        while size > 0:
            data = file.read(min(CHUNK_BYTES, size))
            if not data:
                return
            size -= len(data)
            yield data
