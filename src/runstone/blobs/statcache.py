"""What the files of a tree hashed to when they were last read, so that unchanged ones need not be read again.

A derived file: delete it, and everything is read once more. An entry stands for one state of one file, told by device,
inode, size, and the times of the last change of content and of inode in nanoseconds. Writing to a file changes these
(its owner can set back the first time, not the second), except within the tick of the file system's clock in which it
was read. So a file that changed so shortly before it was read is not remembered: it is read once more the next time.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

from runstone.blobs.partial import Partial

_MAGIC = b"\x89RSC\r\n\x1a\n\x01"
_KEY = struct.Struct("<QQQqq")
_ENTRY_BYTES = _KEY.size + 32
_CRC = struct.Struct("<I")
_MASK = (1 << 64) - 1
_TICK_NS = 20_000_000
"""Kernels count file times in steps of up to 10 ms."""
_COARSE_TICK_NS = 2_100_000_000
"""FAT counts in 2 s, old NFS servers and HFS+ in 1 s."""
_SECOND_NS = 1_000_000_000


class StatCache:
    """The hashes of files that were read before, as one file on the disk.

    ```python
    cache = StatCache(workspace / "cache" / "stat" / tree_name)
    status = os.stat(path)
    content = cache.find(status)
    if content is None or not blobs.keep(content):
        read_at_ns = time.time_ns()
        content = blobs.put(path, name).hash
        cache.remember(status, content, read_at_ns=read_at_ns)   # the state before it was read
    …
    cache.save()
    ```

    Args:
        path: The file; one for each tree, since `save` drops what was not looked up. Made with its folder by `save`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = _load(path)
        self._seen: dict[bytes, bytes] = {}

    def find(self, status: os.stat_result) -> str | None:
        """Return the hash of a file's content, `None` where it must be read.

        Args:
            status: Of the file, links followed, taken now.
        """
        key = _key(status)
        found = self._seen.get(key) or self._known.get(key)
        if found is None:
            return None
        self._seen[key] = found
        return found.hex()

    def remember(self, status: os.stat_result, content_hash: str, *, read_at_ns: int) -> bool:
        """Remember what a file hashed to; return whether that can be told from later states of it.

        Args:
            status: Of the file as it was before it was read.
            content_hash: BLAKE3 of its content, hex.
            read_at_ns: `time.time_ns()` from before it was read.
        """
        is_coarse = status.st_ctime_ns % _SECOND_NS == 0
        tick_ns = _COARSE_TICK_NS if is_coarse else _TICK_NS
        if status.st_ctime_ns >= read_at_ns - tick_ns:
            return False
        self._seen[_key(status)] = bytes.fromhex(content_hash)
        return True

    def save(self, *, drop_others: bool = True) -> None:
        """Write it to the disk, whole or not at all. Two that save at once: the later one's stands.

        Args:
            drop_others: Whether entries that were not looked up since it was opened are left out: files that are gone.

        Raises:
            OSError: it cannot be written. What it is for works without it.
        """
        entries = self._seen if drop_others else self._known | self._seen
        if entries == self._known:
            return
        data = b"".join(key + content for key, content in entries.items())
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with Partial(self._path.parent) as partial:
            partial.write(_MAGIC + _CRC.pack(zlib.crc32(data)) + data)
            partial.place(self._path, 0o600)
        self._known = dict(entries)


def _key(status: os.stat_result) -> bytes:
    numbers = (status.st_dev, status.st_ino, status.st_size)
    return _KEY.pack(*(number & _MASK for number in numbers), status.st_mtime_ns, status.st_ctime_ns)


def _load(path: Path) -> dict[bytes, bytes]:
    """Return the entries of a file; none where it is not there, damaged, or of another version."""
    try:
        data = path.read_bytes()
    except OSError:
        return {}
    head = len(_MAGIC) + _CRC.size
    body = data[head:]
    if data[: len(_MAGIC)] != _MAGIC or len(data) < head or len(body) % _ENTRY_BYTES:
        return {}
    if _CRC.unpack_from(data, len(_MAGIC))[0] != zlib.crc32(body):
        return {}
    return {
        body[at : at + _KEY.size]: body[at + _KEY.size : at + _ENTRY_BYTES] for at in range(0, len(body), _ENTRY_BYTES)
    }
