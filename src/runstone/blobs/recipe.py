"""Content in parts: the recipe that says of which, and reading it as one file."""

from __future__ import annotations

import bisect
import io
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from runstone.errors import FormatError

FORMAT = 1
ENDING = ".parts"
_MOST_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of stored content: so many bytes of `hash`, from `offset` on."""

    hash: str
    size: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Recipe:
    """Content of `size` bytes that is the concatenation of parts."""

    size: int
    parts: tuple[Part, ...]

    @property
    def hashes(self) -> list[str]:
        """Whole contents that it needs, each once, in order."""
        return list(dict.fromkeys(part.hash for part in self.parts))

    def pack(self) -> bytes:
        """Return the bytes of its file."""
        parts = [[part.hash, part.size, *((part.offset,) if part.offset else ())] for part in self.parts]
        return json.dumps({"format": FORMAT, "size": self.size, "parts": parts}, separators=(",", ":")).encode()


def unpack(data: bytes, where: str) -> Recipe:
    """Return the recipe that a file holds.

    Args:
        data: The bytes of the file.
        where: What the file is, for messages.

    Raises:
        FormatError: it is damaged, or a newer version wrote it.
    """
    try:
        told = json.loads(data)
        version = told["format"]
        parts = tuple(_part(*part) for part in told["parts"])
        recipe = Recipe(int(told["size"]), parts)
        if sum(part.size for part in parts) != recipe.size:
            raise ValueError("sizes do not add up")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise FormatError(f"{where} is damaged: it is no recipe ({error})") from None
    if version != FORMAT:
        raise FormatError(f"{where} has format {version!r:.20}, this version knows {FORMAT}; upgrade runstone")
    return recipe


def _part(content: str, size: int, offset: int = 0) -> Part:
    if len(content) != 64 or not set(content) <= set("0123456789abcdef") or size < 0 or offset < 0:
        raise ValueError("a part is none")
    return Part(content, int(size), int(offset))


def check_size(size: int, where: str) -> None:
    """Check that a file can be a recipe, before it is read.

    Raises:
        FormatError: it is too large.
    """
    if size > _MOST_BYTES:
        raise FormatError(f"{where} is damaged: a recipe of {size} bytes")


class PartsReader(io.RawIOBase):
    """Content in parts as one file, readable and seekable.

    Args:
        recipe: Of which parts.
        open_part: Opens the whole content of a hash.
    """

    def __init__(self, recipe: Recipe, open_part: Callable[[str], BinaryIO]) -> None:
        super().__init__()
        self._recipe = recipe
        self._open_part = open_part
        self._starts: Sequence[int] = list(itertools.accumulate((part.size for part in recipe.parts), initial=0))
        self._at = 0
        self._hash = ""
        self._file: BinaryIO | None = None

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def seekable(self) -> bool:
        """Return that it can be read from any place."""
        return True

    def tell(self) -> int:
        """Return the place of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place and return it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._recipe.size}[whence]
        if base + offset < 0:
            raise ValueError(f"negative seek position {base + offset}")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Read up to the end of a part into a buffer and return how many bytes; 0 at the end.

        Raises:
            NotFound: a part is not there.
            FormatError: a part is shorter than the recipe says.
        """
        if self._at >= self._recipe.size or not len(buffer):
            return 0
        number = bisect.bisect_right(self._starts, self._at) - 1
        part = self._recipe.parts[number]
        inside = self._at - self._starts[number]
        file = self._file_of(part.hash)
        file.seek(part.offset + inside)
        data = file.read(min(len(buffer), part.size - inside))
        if not data:
            raise FormatError(f"the content {part.hash[:16]}… is damaged: it is shorter than it was")
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        """Let go of the part that is open."""
        if self._file is not None:
            self._file.close()
            self._file = None
        super().close()

    def _file_of(self, content_hash: str) -> BinaryIO:
        if self._hash != content_hash or self._file is None:
            if self._file is not None:
                self._file.close()
                self._file = None
            self._file = self._open_part(content_hash)
            self._hash = content_hash
        return self._file
