"""What nobody refers to any more, and removing it while others store.

Content is removed when no run, dataset, model or import refers to it and it was not used for the time of grace: whoever
stores content, new or there already, marks it as used first and refers to it later. Each file is looked at once more
under a lock that those who mark it take too, so what is marked between the plan and its removal stays. A recipe goes
before its parts: whoever finds a recipe finds what it needs. So the store is valid after a kill at any moment.
"""

from __future__ import annotations

import itertools
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from runstone.blobs import Blobs, open_blobs
from runstone.blobs import recipe as recipes
from runstone.blobs.lock import locked
from runstone.blobs.objects import USED_FOR_S
from runstone.blobs.partial import Partial
from runstone.errors import FormatError, InvalidValue
from runstone.gc.caches import clear
from runstone.gc.holders import Holder, find_holders, run_folders
from runstone.gc.purge import is_marked, left_over, purge, purgeable, size_of, take_up

GRACE_S = 86_400.0
_SAFE_GRACE_S = 2 * USED_FOR_S
_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class HeldBytes:
    """What one holds of the store: all, and what nobody else holds, which deleting it would free."""

    holder: Holder
    size_bytes: int
    own_bytes: int


@dataclass(slots=True)
class Collected:
    """What is held, and what was freed, or would be.

    Attributes:
        held: By holder, those with the most own bytes first.
        store_bytes: Of all files of the store before.
        held_bytes: Of those that somebody refers to.
        recent_bytes, recent_count: Of those that nobody refers to, but that were used lately.
        freed_bytes, freed_count: Files of the store that go.
        partial_bytes, partial_count: What writers that are gone left unfinished.
        cache_bytes, cache_count: Content put together, and datasets checked out, for those who needed files; not used
            for a day.
        purged: Deleted runs that go for good: `(run id, bytes)`.
        is_dry: Whether nothing was removed.
    """

    held: list[HeldBytes] = field(default_factory=list)
    store_bytes: int = 0
    held_bytes: int = 0
    recent_bytes: int = 0
    recent_count: int = 0
    freed_bytes: int = 0
    freed_count: int = 0
    partial_bytes: int = 0
    partial_count: int = 0
    cache_bytes: int = 0
    cache_count: int = 0
    purged: list[tuple[str, int]] = field(default_factory=list)
    is_dry: bool = True

    @property
    def all_freed_bytes(self) -> int:
        """Of everything that goes."""
        return self.freed_bytes + self.partial_bytes + self.cache_bytes + sum(size for _run, size in self.purged)


def collect(
    workspace: Path,
    *,
    dry_run: bool = False,
    grace_s: float = GRACE_S,
    purge_deleted: bool = False,
    older_than_s: float = 0.0,
    before_removal: Callable[[], object] = lambda: None,
) -> Collected:
    """Remove the content that nobody refers to, and say who holds what.

    Args:
        workspace: Its folder.
        dry_run: Say only what would go.
        grace_s: Content that was stored or used within so many seconds stays.
        purge_deleted: Remove deleted runs for good too, and the content that only they refer to.
        older_than_s: Of those, the runs that were deleted at least so many seconds ago.
        before_removal: Called between planning and removing.

    Raises:
        FormatError: something that refers to content cannot be read; nothing was removed.
        InvalidValue: the grace is too short while a run is written.
        OSError: the workspace cannot be written.
    """
    blobs = open_blobs(workspace)
    now = _clock(blobs.root)
    # When a run was deleted, the clock of its host told; without an age, any will do.
    limit = time.time() - older_than_s if older_than_s else math.inf
    result = Collected(is_dry=dry_run)
    going = [folder for folder in run_folders(workspace) if purge_deleted and purgeable(folder, before=limit)]
    troubles: list[str] = []
    holders = find_holders(workspace, blobs, troubles)
    if troubles and not dry_run:
        raise FormatError(
            f"nothing was removed, since this cannot be read, and what it refers to is not known: {_listed(troubles)} "
            "(repair or remove it first)"
        )
    if grace_s < _SAFE_GRACE_S and not dry_run and any(holder.is_alive for holder in holders):
        raise InvalidValue(
            f"a grace of {grace_s:.0f} s is too short while a run is written: it may be storing what it has not told "
            f"of yet. Wait for it, or give at least {_SAFE_GRACE_S / 3600:.0f} h"
        )
    if dry_run:
        result.purged += [(folder.name, size_of(folder)) for folder in going]
        result.purged += [
            (place.name.removesuffix(".purged"), size_of(place)) for place in left_over(workspace) if is_marked(place)
        ]
        names = {folder.name for folder in going}
        holders = [holder for holder in holders if holder.kind != "run" or holder.id not in names]
    elif going or left_over(workspace):
        _purge(workspace, going, limit, result)
        holders = find_holders(workspace, blobs, troubles)
    plan = _Plan(blobs, holders, now - grace_s, troubles, is_dry=dry_run)
    plan.tell(result)
    before_removal()
    if not dry_run:
        result.freed_bytes = result.freed_count = 0
        _remove(blobs, plan.garbage, result)
    _clear(blobs, holders, now, grace_s, result)
    return result


def _clear(blobs: Blobs, holders: list[Holder], now: float, grace_s: float, result: Collected) -> None:
    used = {content for holder in holders if holder.is_alive for content in holder.hashes}
    cleared = clear(
        blobs, now=now, grace_s=grace_s, cache_grace_s=min(grace_s, GRACE_S), used=used, is_dry=result.is_dry
    )
    result.partial_bytes, result.partial_count = cleared.partial_bytes, cleared.partial_count
    result.cache_bytes, result.cache_count = cleared.cache_bytes, cleared.cache_count


class _Plan:
    """Which files of the store are held by whom, and which by nobody."""

    def __init__(
        self, blobs: Blobs, holders: list[Holder], cut_off: float, troubles: list[str], *, is_dry: bool
    ) -> None:
        since = [holder.spilled_since for holder in holders if holder.spilled_since is not None]
        cut_off = min([cut_off, *since])
        self.sizes: dict[str, int] = {}
        self._blobs = blobs
        self._recipes: dict[str, list[str]] = {}
        changed: dict[str, tuple[float, int]] = {}
        for name, status in blobs.objects():
            self.sizes[name] = status.st_size
            changed[name] = (status.st_mtime, status.st_mtime_ns)
        for name in self.sizes:
            if name.endswith(recipes.ENDING):
                self._read_recipe(name, troubles)
        if troubles and not is_dry:
            raise FormatError(f"nothing more was removed: {_listed(troubles)}")
        self.held = [(holder, self._files_of(holder.hashes)) for holder in holders]
        self.counts = Counter(itertools.chain.from_iterable(names for _holder, names in self.held))
        fresh = {name for name, (mtime, _ns) in changed.items() if mtime > cut_off}
        fresh |= self._files_of({name.removesuffix(recipes.ENDING) for name in fresh})
        self.recent = {name for name in fresh if name not in self.counts}
        garbage = [name for name in self.sizes if name not in self.counts and name not in self.recent]
        garbage.sort(key=lambda name: (not name.endswith(recipes.ENDING), name))
        self.garbage = [(name, changed[name][1]) for name in garbage]

    def _read_recipe(self, name: str, troubles: list[str]) -> None:
        content = name.removesuffix(recipes.ENDING)
        try:
            recipe = self._blobs.find_recipe(content)
        except (FormatError, OSError) as error:
            troubles.append(str(error))
            return
        if recipe is not None:
            self._recipes[content] = recipe.hashes

    def _files_of(self, hashes: Iterable[str]) -> set[str]:
        found: set[str] = set()
        for content in hashes:
            if content in self.sizes:
                found.add(content)
            if content in self._recipes:
                found.add(content + recipes.ENDING)
                found.update(part for part in self._recipes[content] if part in self.sizes)
        return found

    def tell(self, result: Collected) -> None:
        """Write down who holds what."""
        for holder, names in self.held:
            own = sum(self.sizes[name] for name in names if self.counts[name] == 1)
            result.held.append(HeldBytes(holder, self._sum(names), own))
        result.held.sort(key=lambda held: (-held.own_bytes, -held.size_bytes, held.holder.kind, held.holder.name))
        result.store_bytes = sum(self.sizes.values())
        result.held_bytes = self._sum(self.counts)
        result.recent_bytes, result.recent_count = self._sum(self.recent), len(self.recent)
        result.freed_bytes, result.freed_count = self._sum(name for name, _ns in self.garbage), len(self.garbage)

    def _sum(self, names: Iterable[str]) -> int:
        return sum(self.sizes[name] for name in names)


def _remove(blobs: Blobs, garbage: list[tuple[str, int]], result: Collected) -> None:
    folders: set[Path] = set()
    waiting = iter(garbage)
    while some := list(itertools.islice(waiting, _AT_ONCE)):
        with locked(blobs.root, exclusive=True):
            for name, planned_ns in some:
                path = blobs.object_path(name)
                try:
                    status = path.stat()
                    if status.st_mtime_ns != planned_ns:
                        continue  # it was used since
                    path.unlink()
                except FileNotFoundError:
                    continue
                result.freed_bytes, result.freed_count = result.freed_bytes + status.st_size, result.freed_count + 1
                folders.add(path.parent)


def _purge(workspace: Path, going: list[Path], limit: float, result: Collected) -> None:
    for place in left_over(workspace):
        size = take_up(workspace, place)
        if size:
            result.purged.append((place.name.removesuffix(".purged"), size))
    for folder in going:
        freed = purge(workspace, folder, before=limit)
        if freed is not None:
            result.purged.append((folder.name, freed))


def _clock(folder: Path) -> float:
    """Return the time by the clock that marks files as used: the file server's, where the store is on one."""
    try:
        with Partial(folder) as partial:
            return os.fstat(partial.fd).st_mtime
    except FileNotFoundError:  # nothing was ever stored
        with Partial(folder.parent) as partial:
            return os.fstat(partial.fd).st_mtime


def _listed(troubles: list[str]) -> str:
    shown = "; ".join(troubles[:3])
    return f"{shown}; and {len(troubles) - 3} more" if len(troubles) > 3 else shown
