"""Reading what is to be stored: small files at once, checkpoints by tensor, others cloned or copied, all hashed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from runstone.blobs.cutting import cut, is_worth_it
from runstone.blobs.objects import Objects, Written, closing_on_error, drop
from runstone.blobs.source import Source, hash_of, hasher_for
from runstone.blobs.tensors import tensor_ranges

_SMALL_BYTES = 1 << 20
_SMALL_WHERE_CLONED = 64 << 10
_PARTS_AT_ONCE = 64


class Intake:
    """Writes what is to be stored into files that have no place yet.

    Args:
        objects: The files of the store.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._clones: dict[int, bool] = {}
        """Whether files of a device can be cloned into the store; what is not known is tried."""

    def write(self, path: Path) -> Written:
        """Write one file.

        Raises:
            InvalidValue: it is no regular file, or it changed while it was read.
            OSError: it cannot be read, or the disk is full.
        """
        with Source(path) as source:
            can_clone = self._clones.get(source.before.st_dev, True)
            if source.size < (_SMALL_WHERE_CLONED if can_clone else _SMALL_BYTES):
                return self.write_bytes(source.read_whole())
            ranges = tensor_ranges(source.fd, source.size)
            if ranges is not None and is_worth_it(ranges, source.size):
                return self._write_parts(source, ranges)
            return self._write_large(source)

    def write_bytes(self, data: bytes) -> Written:
        """Write bytes.

        Raises:
            OSError: the disk is full.
        """
        content = hash_of_bytes(data)
        if self._objects.is_used(content, len(data)):
            return Written(content, len(data), None)
        partial = self._objects.partial()
        with closing_on_error(partial):
            partial.write(data)
        return Written(content, len(data), partial)

    def _write_large(self, source: Source) -> Written:
        partial = self._objects.partial()
        with closing_on_error(partial):
            is_clone = self._clones[source.before.st_dev] = partial.clone(source.fd)
            # A clone stays as it is, whatever happens to the file.
            content = hash_of(partial.fd) if is_clone else _hash(source)
            size = os.fstat(partial.fd).st_size if is_clone else source.size
            if self._objects.is_used(content, size):
                partial.close()
                return Written(content, size, None)
            if not is_clone:
                hasher = hasher_for(size)
                for chunk in source.chunks():
                    hasher.update(chunk)
                    partial.write(chunk)
                if hasher.hexdigest() != content:
                    source.changed()
        return Written(content, size, partial)

    def _write_parts(self, source: Source, ranges: Sequence[tuple[int, int]]) -> Written:
        waiting: dict[str, Written] = {}

        def put(data: memoryview, content: str) -> None:
            if content in waiting or self._objects.is_used(content, len(data)):
                return
            partial = self._objects.partial()
            with closing_on_error(partial):
                partial.write(data)
            waiting[content] = Written(content, len(data), partial)
            if len(waiting) >= _PARTS_AT_ONCE:
                settle()

        def settle() -> None:
            self._objects.settle(list(waiting.values()))
            waiting.clear()

        try:
            content, recipe = cut(source, ranges, put)
            settle()
        except BaseException:
            drop(waiting.values())
            raise
        if not self._objects.is_used(content, source.size):
            self._objects.put_recipe(content, recipe)
        return Written(content, source.size, None)


def _hash(source: Source) -> str:
    hasher = hasher_for(source.size)
    for chunk in source.chunks():
        hasher.update(chunk)
    return str(hasher.hexdigest())


def hash_of_bytes(data: bytes) -> str:
    """Return the BLAKE3 of bytes."""
    hasher = hasher_for(len(data))
    hasher.update(data)
    return str(hasher.hexdigest())
