"""Collecting in a store elsewhere, which several workspaces may share: only what is known to be nobody's goes.

What a workspace refers to stands in the workspace alone. So all that use the store must be read: this one, and every
other that left its file there (`runstone.blobs.users`). Where one of these is not at hand, nothing is removed.
Histories that lie in the store itself hold their content, too.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runstone.blobs import Blobs, open_blobs
from runstone.blobs import recipe as recipes
from runstone.blobs.objects import Objects
from runstone.blobs.remote import Remote
from runstone.blobs.users import StoreUser, forget_user, note_user, users_of, workspace_id
from runstone.datasets.exchange import elsewhere_of
from runstone.errors import FormatError, InvalidValue, NotFound, RunstoneError
from runstone.gc.collection import GRACE_S
from runstone.gc.holders import find_holders

_BESIDE = ("FORMAT", "datasets")


class StoreIsShared(RunstoneError):
    """A store is used by workspaces that are not at hand, so what they refer to is not known."""


@dataclass(slots=True)
class CollectedElsewhere:
    """What is held in a store elsewhere, and what was freed, or would be.

    Attributes:
        store: Its URL.
        users: The workspaces that use it, this one first.
        count, held_count: Files of it, and those that somebody refers to.
        recent_count: Those that nobody refers to, but that came lately.
        freed_bytes, freed_count: Those that go.
        broken_count: Uploads in parts that were broken off, whose parts go.
        is_dry: Whether nothing was removed.
    """

    store: str
    users: list[StoreUser] = field(default_factory=list)
    count: int = 0
    held_count: int = 0
    recent_count: int = 0
    freed_bytes: int = 0
    freed_count: int = 0
    broken_count: int = 0
    is_dry: bool = True


def collect_elsewhere(
    workspace: Path,
    *,
    others: Sequence[Path] = (),
    forget: Sequence[str] = (),
    dry_run: bool = False,
    grace_s: float = GRACE_S,
    now: float,
) -> CollectedElsewhere:
    """Remove from the remote store of a workspace what nobody refers to.

    Args:
        workspace: Its folder.
        others: Folders of other workspaces that use the store.
        forget: Ids of workspaces that used it and are gone; their content goes unless another refers to it.
        dry_run: Say only what would go, and forget nobody.
        grace_s: What came so lately stays: its workspace may not have told of it yet.
        now: Seconds since the Unix epoch.

    Raises:
        NotFound: the workspace has no remote store, or a workspace to forget never used it.
        StoreIsShared: the store is used by workspaces that are not at hand.
        InvalidValue: the store lies in a workspace, or tells no times.
        FormatError: something that refers to content cannot be read; nothing was removed.
        OSError: the store does not answer.
    """
    remote = open_blobs(workspace).remote
    if remote is None:
        raise NotFound("this workspace has no remote store; name one in RUNSTONE_BLOBS or in its settings.json")
    _check_place(remote)
    result = CollectedElsewhere(str(remote), is_dry=dry_run)
    own = note_user(remote, workspace)
    at_hand = {workspace_id(folder) for folder in others} | {own}
    known = users_of(remote)
    _check_forgotten(forget, known, at_hand)
    result.users = sorted((user for user in known if user.id not in forget), key=lambda user: (user.id != own, user.at))
    unknown = [user for user in result.users if user.id not in at_hand]
    if unknown:
        raise StoreIsShared(
            f"nothing was removed: {remote} is also used by {', '.join(map(str, unknown[:5]))}"
            f"{f' and {len(unknown) - 5} more' if len(unknown) > 5 else ''}; what they refer to is not known here. "
            "Name their folders with --with, or with --forget those that are gone"
        )
    held = _held(workspace, others, remote)
    for user in [] if dry_run else forget:
        forget_user(remote, user)
    for name in _remove(remote, held, now - grace_s, result):
        for folder in (workspace, *others):
            Objects(folder / "blobs").forget_given_back(name.rpartition("/")[2])
    result.broken_count = remote.give_up_uploads(before=now - grace_s, is_dry=dry_run)
    return result


def _check_place(remote: Remote) -> None:
    """Check that the store is not a folder of a workspace, or of a place to which datasets are pushed."""
    above = remote.above()
    found = next((name for name in _BESIDE if above is not None and above.exists(name)), None)
    if found is not None:
        raise InvalidValue(
            f"nothing was removed: beside {remote} lies {found!r}, so what there refers to it is not known here"
        )


def _check_forgotten(forget: Sequence[str], known: Sequence[StoreUser], at_hand: set[str]) -> None:
    for user in forget:
        if user not in {one.id for one in known}:
            there = ", ".join(map(str, known))
            raise NotFound(f"no workspace {user!r:.40} uses the store; there is {there}")
        if user in at_hand:
            raise InvalidValue(f"workspace {user} is at hand; only those that are gone can be forgotten")


def _held(workspace: Path, others: Sequence[Path], remote: Remote) -> set[str]:
    """Return the contents that anything refers to, in these workspaces and in the histories in the store."""
    troubles: list[str] = []
    found: set[str] = set()
    for folder in (workspace, *others):
        if not (folder / "FORMAT").exists():
            raise NotFound(f"{folder} is no workspace")
        for holder in find_holders(folder, Blobs(folder / "blobs", remote=remote), troubles):
            found |= holder.hashes
    with tempfile.TemporaryDirectory(prefix="runstone-gc-") as scratch:
        there = elsewhere_of(workspace, None)
        for name, count in there.events().items():
            events = Path(scratch, "datasets", name, "events")
            events.mkdir(parents=True)
            for seq in range(1, count + 1):
                (events / f"{seq:08d}.json").write_bytes(there.read(name, seq))
        for holder in find_holders(Path(scratch), open_blobs(workspace), troubles):
            found |= holder.hashes
    if troubles:
        raise FormatError(f"nothing was removed: {'; '.join(troubles[:3])}. What it refers to is not known")
    return found


def _remove(remote: Remote, held: set[str], cut_off: float, result: CollectedElsewhere) -> list[str]:
    """Remove what is neither held nor came lately, and return the names of what went."""
    names = remote.names()
    result.count = len(names)
    kept = {name for name in names if _content(name) in held}
    kept |= _parts(remote, {name for name in kept if name.endswith(recipes.ENDING)})
    fresh: set[str] = set()
    loose = names - kept
    for name in sorted(loose):
        try:
            at = remote.modified_at(name)
        except NotImplementedError:
            raise InvalidValue(
                f"nothing was removed: {remote} does not say when content came, and it may have come just now"
            ) from None
        if at is None or at > cut_off:
            fresh.add(name)
    fresh |= _parts(remote, {name for name in fresh if name.endswith(recipes.ENDING)}) & loose
    result.held_count, result.recent_count = len(kept & names), len(fresh)
    # a recipe goes before its parts: whoever finds it finds all of them
    gone = []
    for name in sorted(loose - fresh, key=lambda name: (not name.endswith(recipes.ENDING), name)):
        size = remote.size(name)
        if size is not None and not _came_after(remote, name, cut_off):
            result.freed_bytes, result.freed_count = result.freed_bytes + size, result.freed_count + 1
            if not result.is_dry:
                remote.remove(name)
                gone.append(name)
    return gone


def _came_after(remote: Remote, name: str, cut_off: float) -> bool:
    """Return whether somebody stored or used a content since it was looked at: it may be referred to by now."""
    at = remote.modified_at(name)
    return at is None or at > cut_off


def _parts(remote: Remote, names: set[str]) -> set[str]:
    found = set()
    for name in names:
        try:
            recipe = recipes.unpack(b"".join(remote.receive(name)), f"{remote}/{name}")
        except FileNotFoundError:
            continue
        found |= {f"{part[:2]}/{part}" for part in recipe.hashes}
    return found


def _content(name: str) -> str:
    return name.rpartition("/")[2].removesuffix(recipes.ENDING)
