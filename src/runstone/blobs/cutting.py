"""A checkpoint cut into parts: each large tensor by itself, so that one that stays the same is stored once.

What lies between the tensors, and tensors that are small, would make thousands of tiny files: they are gathered in
bundles, of which the recipe names stretches. Headers and tensors go to different bundles, since a file's headers change
with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from runstone.blobs.recipe import Part, Recipe
from runstone.blobs.source import Source, hasher_for

PIECE_BYTES = 16 << 20
"""Larger tensors are cut again: this much is in memory at once, and a broken push goes on behind it."""
_SMALL = 64 << 10
_BUNDLE_BYTES = 256 << 10
_PART_TEXT_BYTES = 90

Put = Callable[[memoryview, str], None]
"""Stores a part, given with its hash."""


class _Hasher(Protocol):
    def update(self, data: memoryview) -> object: ...
    def hexdigest(self) -> str: ...
    def reset(self) -> None: ...


def is_worth_it(ranges: Sequence[tuple[int, int]], size: int) -> bool:
    """Return whether the recipe is small beside the content."""
    return 2 * len(ranges) * _PART_TEXT_BYTES < size // 8


def cut(source: Source, ranges: Sequence[tuple[int, int]], put: Put) -> tuple[str, Recipe]:
    """Store a checkpoint in parts, read once.

    Args:
        source: The file.
        ranges: Its tensors, as `tensor_ranges` found them.
        put: Stores a part.

    Returns:
        Its hash, and of which parts it is.

    Raises:
        InvalidValue: it changed while it was read.
        OSError: it cannot be read, or a part cannot be stored.
    """
    return _Cut(source, put).run(ranges)


class _Bundle:
    """Small stretches, gathered until there are enough of them."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.places: list[int] = []
        """Which parts lie in it."""


class _Cut:
    def __init__(self, source: Source, put: Put) -> None:
        self._source = source
        self._put = put
        self._whole: _Hasher = hasher_for(source.size)
        self._part: _Hasher = hasher_for(source.size)
        self._parts: list[Part] = []
        self._bundles = {True: _Bundle(), False: _Bundle()}
        self._buffer = memoryview(bytearray(min(PIECE_BYTES, source.size)))

    def run(self, ranges: Sequence[tuple[int, int]]) -> tuple[str, Recipe]:
        for begin, end, is_tensor in _regions(ranges, self._source.size):
            if end - begin < _SMALL:
                self._gather(begin, end, self._bundles[is_tensor])
            else:
                self._take(begin, end)
        for bundle in self._bundles.values():
            self._close(bundle)
        self._source.check(self._source.size)
        return self._whole.hexdigest(), Recipe(self._source.size, tuple(_merged(self._parts)))

    def _take(self, begin: int, end: int) -> None:
        count = -(-(end - begin) // PIECE_BYTES)
        step = -(-(end - begin) // count)
        for start in range(begin, end, step):
            piece = self._read(start, min(end, start + step))
            self._parts.append(Part(self._store(piece), len(piece)))

    def _gather(self, begin: int, end: int, bundle: _Bundle) -> None:
        piece = self._read(begin, end)
        bundle.places.append(len(self._parts))
        self._parts.append(Part("", len(piece), len(bundle.data)))  # its hash is known when the bundle is full
        bundle.data += piece
        if len(bundle.data) >= _BUNDLE_BYTES:
            self._close(bundle)

    def _close(self, bundle: _Bundle) -> None:
        if not bundle.places:
            return
        content = self._store(memoryview(bundle.data))
        for place in bundle.places:
            part = self._parts[place]
            self._parts[place] = Part(content, part.size, part.offset)
        bundle.data, bundle.places = bytearray(), []

    def _store(self, data: memoryview) -> str:
        self._part.reset()
        self._part.update(data)
        content = self._part.hexdigest()
        self._put(data, content)
        return content

    def _read(self, begin: int, end: int) -> memoryview:
        done = 0
        while done < end - begin:
            count = os.preadv(self._source.fd, [self._buffer[done : end - begin]], begin + done)
            if not count:
                self._source.changed()
            done += count
        piece = self._buffer[:done]
        self._whole.update(piece)
        return piece


def _regions(ranges: Sequence[tuple[int, int]], size: int) -> Iterator[tuple[int, int, bool]]:
    """Yield all of a file as `(begin, end, whether it is a tensor)`."""
    at = 0
    for begin, end in ranges:
        if at < begin:
            yield at, begin, False
        yield begin, end, True
        at = end
    if at < size:
        yield at, size, False


def _merged(parts: Sequence[Part]) -> Iterator[Part]:
    """Yield parts with those joined that lie behind each other in one bundle."""
    last: Part | None = None
    for part in parts:
        if last is not None and last.hash == part.hash and last.offset + last.size == part.offset:
            last = Part(last.hash, last.size + part.size, last.offset)
            continue
        if last is not None:
            yield last
        last = part
    if last is not None:
        yield last
