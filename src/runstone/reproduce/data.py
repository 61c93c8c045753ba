"""Brings the datasets of a run back: what it read is put where it read it, by the hash of its content."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from runstone.errors import AlreadyExists, FormatError, InvalidValue, NotFound
from runstone.reproduce.plan import inside, is_safe_relative, with_home
from runstone.reproduce.restored import CODE, DATA, Restored
from runstone.values import Link

if TYPE_CHECKING:
    from runstone.datasets import DatasetVersion


def restore_data(made: Restored, root: str, home: str) -> None:
    """Put the datasets that a run read into the new folder, where they are not there as they were.

    Data that lay in the old checkout is put at the same place of the new one: checked out from the store, or, where it
    was only known by reference and did not change since, linked. Data that lay elsewhere is read from there if it is as
    it was; else it is checked out into a folder `data`, and the command is told.

    Args:
        made: What there is so far; its checkout and links are, its command is not yet.
        root: Folder of the old checkout.
        home: What `~` stands for.
    """
    seen = set()
    for link in made.run.inputs:
        if link.kind == "dataset" and link.hash is not None and (link.name, link.hash) not in seen:
            seen.add((link.name, link.hash))
            try:
                _restore(made, link, root, home)
            except (NotFound, InvalidValue, FormatError, AlreadyExists, OSError) as error:
                made.lost.append(f"dataset {_called(link)}: {error}")


def _restore(made: Restored, link: Link, root: str, home: str) -> None:
    from runstone.datasets import Datasets  # hashing, only where data was used

    version = Datasets(made.workspace).get(link.name).find_content(str(link.hash))
    if version is None:
        raise NotFound("no version of it has this content in this workspace")
    then = with_home(link.source or "", home)
    if version.manifest.form not in ("tree", "file") or not then.startswith("/"):
        return  # the program makes it, fetches it from its URL, or asks for it by its name
    place = Path(os.fsdecode(then.encode("utf-8", "surrogateescape")))
    if place.is_relative_to(made.workspace):
        return  # a copy in the cache, which is made again
    relative = inside(then, root) if made.checkout is not None and root else None
    if relative is not None:
        _into_checkout(made, version, place, relative)
    elif not _is_as_it_was(version, place, made.workspace):
        target = made.folder / DATA / f"{link.name.replace('/', '_')}@{version.version}" / place.name
        target.parent.mkdir(parents=True, exist_ok=True)
        version.checkout(target)
        made.data[str(place)] = target
        made.notes.append(f"dataset {version} lay in {place}, which is not as it was; here it is {target}")


def _into_checkout(made: Restored, version: DatasetVersion, place: Path, relative: PurePosixPath) -> None:
    code = (made.folder / CODE).resolve()
    target = code / relative
    if not is_safe_relative(str(relative)) or code not in (target.parent.resolve(), *target.parent.resolve().parents):
        raise InvalidValue(f"{place} leads out of the checkout")
    if any(one.is_symlink() for one in (target, *target.parents) if code in one.parents):
        return  # --link put it there, or the commit has a link
    if version.is_stored:
        done = version.checkout(target)
        if done.written:
            made.notes.append(f"dataset {version} was checked out to {CODE}/{relative}")
        made.data[str(place)] = target
    elif not os.path.lexists(target):
        if not _is_as_it_was(version, place, made.workspace):
            raise NotFound(f"its content is not in the store, and {place} is not as it was")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(place)
        made.data[str(place)] = target
        made.notes.append(f"dataset {version}: {CODE}/{relative} is a link to {place}, which is as it was")
    elif not _is_as_it_was(version, target, made.workspace):
        raise NotFound(f"its content is not in the store, and {CODE}/{relative} of the commit is another")


def _is_as_it_was(version: DatasetVersion, place: Path, workspace: Path) -> bool:
    """Return whether a place holds just the content of a version now."""
    from runstone.blobs.intake import hash_of_bytes
    from runstone.datasets.places import cache_for
    from runstone.datasets.scan import Scan

    try:
        scan = Scan(place, cache_for(workspace, place), leave_out=workspace)
    except (NotFound, InvalidValue):
        return False
    manifest = scan.hash()
    scan.save()
    return hash_of_bytes(manifest.pack()) == version.hash


def _called(link: Link) -> str:
    return f"{link.name}@{link.version}" if link.version else link.name
