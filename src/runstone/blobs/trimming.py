"""Making room: files of a store that lie in its remote store too are removed here, and come back when they are read."""

from __future__ import annotations

import itertools

from runstone.blobs import recipe as recipes
from runstone.blobs.lock import locked
from runstone.blobs.objects import USED_FOR_S, Objects
from runstone.blobs.remote import Remote

SMALL_BYTES = 256 << 10
"""What is smaller stays: manifests, pictures, what pages show at once."""
_AT_ONCE = 64


def trim(objects: Objects, remote: Remote, keep_bytes: int, *, now: float) -> tuple[int, int]:
    """Remove the files longest unused until no more than so many bytes are here; return how many files and bytes went.

    Args:
        objects: The files of the store.
        remote: Where they must lie too.
        keep_bytes: How much may stay.
        now: Seconds since the epoch.

    Raises:
        OSError: the remote store does not answer, or a file cannot be removed.
    """
    total = 0
    loose = []
    for name, status in objects.all():
        total += status.st_size
        used_at = max(status.st_mtime, status.st_atime)
        is_recipe = name.endswith(recipes.ENDING)
        if not is_recipe and status.st_size >= SMALL_BYTES and status.st_mtime < now - USED_FOR_S:
            loose.append((used_at, name, status.st_size, status.st_mtime_ns))
    loose.sort()
    count = freed = 0
    waiting = iter(loose)
    while total - freed > keep_bytes and (some := list(itertools.islice(waiting, _AT_ONCE))):
        there = [one for one in some if remote.size(f"{one[1][:2]}/{one[1]}") == one[2]]
        with locked(objects.root, exclusive=True):
            for _used_at, name, size, changed_ns in there:
                if total - freed <= keep_bytes:
                    break
                path = objects.path(name)
                try:
                    if path.stat().st_mtime_ns != changed_ns:  # it was used since
                        continue
                    objects.note_given_back(name)
                    path.unlink()
                except FileNotFoundError:
                    continue
                count, freed = count + 1, freed + size
    return count, freed
