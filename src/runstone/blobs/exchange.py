"""Sending content to a remote store and fetching it, each file once, checked at both ends."""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from runstone.blobs import recipe as recipes
from runstone.blobs.objects import Objects, Written, check_same, closing_on_error, lacking
from runstone.blobs.recipe import PartsReader
from runstone.blobs.remote import Remote
from runstone.blobs.source import CHUNK_BYTES, hasher_for
from runstone.errors import NotFound

_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Moved:
    """What a push or pull did: files and bytes that moved, files that were there already."""

    count: int
    size_bytes: int
    there_already: int


def send(objects: Objects, remote: Remote, hashes: Iterable[str] | None, *, check: bool) -> Moved:
    """Send contents; what lies there with its size is not sent again.

    Args:
        objects: The files of the store.
        remote: Where to.
        hashes: Which contents; `None` for all that are here.
        check: Whether what was sent is read back.

    Raises:
        NotFound: one is not here.
        FormatError: one is damaged; it was not sent.
        OSError: the remote store does not answer.
    """
    if hashes is None:
        names = [name for name, _status in objects.all()]
    else:
        names = [name for content in dict.fromkeys(hashes) for name in _names(objects, content)]
    count = size_bytes = there_already = 0
    with ThreadPoolExecutor(_AT_ONCE, "runstone-push") as pool:
        # A recipe goes behind its parts: whoever finds it there finds all.
        for is_recipe in (False, True):
            some = [name for name in dict.fromkeys(names) if name.endswith(recipes.ENDING) is is_recipe]
            results = [pool.submit(send_file, objects, remote, name, check=check) for name in some]
            try:
                for result in results:
                    size = result.result()
                    if size is None:
                        there_already += 1
                    else:
                        count, size_bytes = count + 1, size_bytes + size
            except BaseException:
                for result in results:
                    result.cancel()
                raise
    return Moved(count, size_bytes, there_already)


def send_file(objects: Objects, remote: Remote, name: str, *, check: bool = False) -> int | None:
    """Send a file of the store, named as `Objects.all` does; return its size, `None` where it lies there with it.

    Raises:
        FileNotFoundError: it is not here.
        FormatError: it is damaged; it was not sent.
        OSError: the remote store does not answer.
    """
    path = objects.path(name)
    size = path.stat().st_size
    if remote.size(_there(name)) == size:
        return None
    is_recipe = name.endswith(recipes.ENDING)
    remote.send(path, _there(name), content_hash=None if is_recipe else name, check=check)
    return size


def _names(objects: Objects, content_hash: str) -> list[str]:
    if objects.path(content_hash).is_file():
        return [content_hash]
    recipe = objects.find_recipe(content_hash)
    if recipe is None:
        raise lacking(content_hash, objects.root)
    return [*recipe.hashes, content_hash + recipes.ENDING]


def fetch(objects: Objects, remote: Remote, content_hash: str) -> int | None:
    """Fetch a content, checked; parts that are here are not fetched again.

    Returns:
        How many bytes came; `None` where it is not there.

    Raises:
        NotFound: a part of it is not there.
        FormatError: what came is damaged; it was not kept.
        OSError: the remote store does not answer, or the disk is full.
    """
    recipe = objects.find_recipe(content_hash)
    if recipe is None:
        fetched = _fetch_whole(objects, remote, content_hash)
        if fetched is not None:
            return fetched
        try:
            data = b"".join(remote.receive(_there(content_hash) + recipes.ENDING))
        except FileNotFoundError:
            return None
        recipe = recipes.unpack(data, f"{remote}/{_there(content_hash)}{recipes.ENDING}")
    size = 0
    objects.partial().close()  # makes the folder
    for part in recipe.hashes:
        if not objects.keep(part):
            came = _fetch_whole(objects, remote, part)
            if came is None:
                raise NotFound(f"the content {content_hash[:16]}… is not whole in {remote}: it lacks {part[:16]}…")
            size += came
    hasher = hasher_for(recipe.size)
    with io.BufferedReader(PartsReader(recipe, objects.open), CHUNK_BYTES) as file:
        while chunk := file.read(CHUNK_BYTES):
            hasher.update(chunk)
    check_same(content_hash, hasher.hexdigest(), f"{remote}/{_there(content_hash)}{recipes.ENDING}")
    objects.put_recipe(content_hash, recipe)
    return size


def _fetch_whole(objects: Objects, remote: Remote, content_hash: str) -> int | None:
    size = remote.size(_there(content_hash))
    if size is None:
        return None
    hasher = hasher_for(size)
    partial = objects.partial()
    with closing_on_error(partial):
        for chunk in remote.receive(_there(content_hash)):
            hasher.update(chunk)
            partial.write(chunk)
        check_same(content_hash, hasher.hexdigest(), f"{remote}/{_there(content_hash)}")
    objects.settle([Written(content_hash, size, partial)])
    return size


def lies_there(remote: Remote, content_hash: str) -> bool:
    """Return whether a content lies in a store: whole, or as a recipe.

    Raises:
        OSError: it does not answer.
    """
    name = _there(content_hash)
    return remote.size(name) is not None or remote.size(name + recipes.ENDING) is not None


class _Flights:
    """Which contents are being fetched by a thread of this process, each with its lock and how many want it."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.lock = threading.Lock()
        self.wanted: dict[tuple[Path, str], tuple[threading.Lock, int]] = {}


_flights = _Flights()
os.register_at_fork(after_in_child=_flights.forget)  # in the child nobody would release them


@contextlib.contextmanager
def one_at_a_time(root: Path, content_hash: str) -> Iterator[None]:
    """Let only one thread of this process run the block for a content of a store."""
    key = (root, content_hash)
    with _flights.lock:
        lock, count = _flights.wanted.get(key, (threading.Lock(), 0))
        _flights.wanted[key] = (lock, count + 1)
    try:
        with lock:
            yield
    finally:
        with _flights.lock:
            lock, count = _flights.wanted.pop(key, (lock, 1))
            if count > 1:
                _flights.wanted[key] = (lock, count - 1)


def _there(name: str) -> str:
    return f"{name[:2]}/{name}"
