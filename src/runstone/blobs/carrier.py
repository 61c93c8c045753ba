"""Carrying what comes into a store to its remote store, while others put in and take out.

Whoever stores waits for the disk here alone: a remote store that is slow, or away, holds up nobody and loses nothing.
What is new is seen by the folders' times, so a store of a million files that stands still costs 256 looks.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from runstone.blobs import recipe as recipes
from runstone.blobs.exchange import send_file
from runstone.blobs.objects import Objects, is_hash
from runstone.blobs.remote import Remote
from runstone.blobs.trimming import trim
from runstone.errors import FormatError

_AT_ONCE = 4
_BATCH = 64
_SETTLED_S = 2.5
"""A folder that changed so lately may change again without a later time: the clocks of file systems are coarse."""
_TRIM_EVERY_S = 60.0


@dataclass(slots=True)
class Carried:
    """What one step did.

    Attributes:
        count, size_bytes: Files that were sent.
        given_back, given_back_bytes: Files that were removed here, since they lie there.
        damaged: What is wrong with files that were not sent.
    """

    count: int = 0
    size_bytes: int = 0
    given_back: int = 0
    given_back_bytes: int = 0
    damaged: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is here and not known to lie in the remote store: to be sent, or to be compared yet.

    Attributes:
        count, size_bytes: Files.
        oldest_at: When the one that waits longest was stored, in seconds since the epoch; `None` where none waits.
    """

    count: int = 0
    size_bytes: int = 0
    oldest_at: float | None = None


class Carrier:
    """Sends what a store has and its remote store lacks. For one thread.

    Args:
        objects: The files of the store.
        remote: Where to.
        cache_bytes: How much may stay here; `None`: all.
        is_ended: Asked between files.
    """

    def __init__(
        self,
        objects: Objects,
        remote: Remote,
        *,
        cache_bytes: int | None = None,
        is_ended: Callable[[], bool] = lambda: False,
    ) -> None:
        self._objects = objects
        self._remote = remote
        self._cache_bytes = cache_bytes
        self._is_ended = is_ended
        self._seen: dict[str, tuple[int, set[str]]] = {}
        """Of each folder its time when it was read, and the names that need not be sent any more."""
        self._trimmed_at = float("-inf")
        self._waiting: dict[str, tuple[int, float]] = {}
        """Size and time of each file that waits."""

    def waiting(self) -> Waiting:
        """Return what waits, as the latest step saw it and goes on with it. For any thread."""
        waiting = list(self._waiting.copy().values())
        if not waiting:
            return Waiting()
        return Waiting(len(waiting), sum(size for size, _at in waiting), min(at for _size, at in waiting))

    def step(self) -> Carried:
        """Send what is new, and make room where there is too much.

        Raises:
            OSError: the remote store does not answer; what was not sent is sent by a later step.
        """
        result = Carried()
        new = list(self._new())
        self._waiting = dict(self._sized(new))
        # a recipe goes behind its parts: whoever finds it there finds all
        new.sort(key=lambda name: name.endswith(recipes.ENDING))
        with ThreadPoolExecutor(_AT_ONCE, "runstone-carry") as pool:
            waiting = iter(new)
            while not self._is_ended() and (some := list(itertools.islice(waiting, _BATCH))):
                if len({name.endswith(recipes.ENDING) for name in some}) > 1:
                    parts = [name for name in some if not name.endswith(recipes.ENDING)]
                    waiting = itertools.chain(some[len(parts) :], waiting)
                    some = parts
                for name, sent in zip(some, pool.map(self._send, some), strict=True):
                    self._seen[name[:2]][1].add(name)
                    self._waiting.pop(name, None)
                    if isinstance(sent, str):
                        result.damaged.append(sent)
                    elif sent is not None:
                        result.count, result.size_bytes = result.count + 1, result.size_bytes + sent
        if self._cache_bytes is not None and time.monotonic() - self._trimmed_at >= _TRIM_EVERY_S:
            self._trimmed_at = time.monotonic()
            given_back = trim(self._objects, self._remote, self._cache_bytes, now=time.time())
            result.given_back, result.given_back_bytes = given_back
        return result

    def _sized(self, names: Iterable[str]) -> Iterator[tuple[str, tuple[int, float]]]:
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # collected meanwhile
                status = self._objects.path(name).stat()
                yield name, (status.st_size, status.st_mtime)

    def _send(self, name: str) -> int | str | None:
        try:
            return send_file(self._objects, self._remote, name)
        except FileNotFoundError:  # collected meanwhile
            return None
        except FormatError as error:
            return str(error)

    def _new(self) -> Iterator[str]:
        """Yield names of files that came since; nothing else of folders that did not change."""
        for number in range(256):
            folder = f"{number:02x}"
            path = self._objects.root / folder
            try:
                changed_ns = path.stat().st_mtime_ns
                known_ns, known = self._seen.get(folder, (0, set()))
                if known_ns == changed_ns:
                    # what a step before could not send is not among the known
                    continue
                names = {one.name for one in path.iterdir() if is_hash(one.name.removesuffix(recipes.ENDING))}
            except (FileNotFoundError, NotADirectoryError):
                self._seen.pop(folder, None)
                continue
            known &= names
            new = names - known
            is_settled = not new and time.time() - changed_ns / 1e9 > _SETTLED_S
            self._seen[folder] = (changed_ns if is_settled else 0, known)
            yield from sorted(new)
