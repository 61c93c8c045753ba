"""Writing a version to the disk: byte for byte, file by file whole or not at all, over nothing that would be lost."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from runstone.blobs import Blobs
from runstone.blobs.statcache import StatCache
from runstone.datasets.manifest import TreeFile, shown_path
from runstone.datasets.places import cache_for
from runstone.datasets.scan import hash_file
from runstone.datasets.version import DatasetVersion
from runstone.errors import AlreadyExists, InvalidValue

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class CheckedOut:
    """What a checkout did.

    Attributes:
        path: The file or folder.
        written: Files that were written; unchanged: that were there already.
        linked: How many of the written share their bytes with the store.
        removed: Files of other versions that were removed.
        others: Files of other versions that are still there.
    """

    path: Path
    written: int
    unchanged: int
    linked: int
    removed: int
    others: int


def check_out(
    version: DatasetVersion,
    blobs: Blobs,
    target: Path,
    *,
    link: bool = False,
    force: bool = False,
    exact: bool = False,
    known: Collection[tuple[str, str]] = (),
) -> CheckedOut:
    """Write a version to a file or folder.

    What is there already with the right content stays. A new folder is there whole or not at all; in one that is there,
    each file is replaced at once.

    Args:
        version: The version.
        blobs: The store that holds its content; what is not there is taken from where the data lies.
        target: The folder; for a version of one file that file, or a folder that is there, in which it is put.
        link: Whether read-only hard links will do, where bytes cannot be shared otherwise.
        force: Whether files that would be lost are written over.
        exact: Whether files of other versions, which can be had again, are removed.
        known: `(path, hash)` of files of other versions that are stored.

    Raises:
        AlreadyExists: files there were changed, and `force` is not given; nothing was written then.
        NotFound: its content is neither in the store nor where it lay.
        FormatError: its content is damaged.
        OSError: the disk is full.
    """
    manifest = version.manifest
    if manifest.form in ("object", "url") and not all(file.hash for file in manifest.files if not file.link):
        raise InvalidValue(f"{version} was pinned, not fetched: there is no content to check out")
    target = Path(os.path.abspath(target))  # noqa: PTH100 (a link as target stays one)
    is_single = manifest.form == "file" and not target.is_dir()
    base = target.parent if is_single else target
    names = {manifest.files[0].path: target.name} if is_single else {}
    work = _Work(version, blobs, base, names, link=link)
    if not is_single and not os.path.lexists(target):
        return work.write_new(manifest.files, target)
    base.mkdir(parents=True, exist_ok=True)
    todo = work.to_write(manifest.files, force=force, known=known)
    written = work.write(todo)
    others = [] if is_single else work.others(known, {file.path for file in manifest.files})
    removed = work.remove(others) if exact else 0
    work.save()
    return CheckedOut(target, written, len(manifest.files) - len(todo), work.linked, removed, len(others) - removed)


class _Work:
    """One checkout into a folder."""

    def __init__(self, version: DatasetVersion, blobs: Blobs, base: Path, names: dict[str, str], *, link: bool) -> None:
        self._version = version
        self._blobs = blobs
        self._base = base
        self._names = names
        self._link = link
        self._cache: StatCache = cache_for(blobs.root.parent, base)
        self.linked = 0

    def save(self) -> None:
        with contextlib.suppress(OSError):
            self._cache.save(drop_others=False)

    def write_new(self, files: tuple[TreeFile, ...], target: Path) -> CheckedOut:
        """Write a folder that is not there yet."""
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{os.urandom(8).hex()}.partial")
        partial.mkdir()
        self._base = partial
        try:
            written = self.write(list(files))
            if os.path.lexists(target):
                raise AlreadyExists(f"{target} came into being meanwhile; check out again")
            partial.rename(target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        return CheckedOut(target, written, 0, self.linked, 0, 0)

    def to_write(
        self, files: tuple[TreeFile, ...], *, force: bool, known: Collection[tuple[str, str]]
    ) -> list[TreeFile]:
        """Return what is not there yet as it should be.

        Raises:
            AlreadyExists: something would be lost.
        """
        todo, conflicts = [], []
        for file in files:
            place = self._place(file.path)
            try:
                status = place.lstat()
            except FileNotFoundError:
                todo.append(file)
                continue
            except NotADirectoryError:
                conflicts.append(file)
                continue
            if self._is_through_link(place):
                raise AlreadyExists(f"{place} lies behind a link; remove the link, or check out elsewhere")
            found = self._content(place, status)
            if self._is_same(file, place, status, found):
                continue
            todo.append(file)
            is_safe = found is not None and ((file.path, found) in known or found in (file.hash,))
            if not is_safe and not (file.is_folder and stat.S_ISDIR(status.st_mode)):
                conflicts.append(file)
        if conflicts and not force:
            names = ", ".join(repr(shown_path(file.path)) for file in conflicts[:_SHOWN])
            more = f" and {len(conflicts) - _SHOWN} more" if len(conflicts) > _SHOWN else ""
            raise AlreadyExists(
                f"{self._base}: {names}{more} changed, and no stored version of {self._version.name!r} has this "
                "content; add it first, or write over it with --force (force=True)"
            )
        return todo

    def write(self, files: list[TreeFile]) -> int:
        """Write files; return how many."""
        for folder in sorted({self._place(file.path).parent for file in files}):
            folder.mkdir(parents=True, exist_ok=True)
        with_content = [file for file in files if file.hash is not None]
        if len(with_content) > 8:
            with ThreadPoolExecutor(min(4, len(os.sched_getaffinity(0))), "runstone-checkout") as pool:
                ways = list(pool.map(self._write, with_content))
        else:
            ways = [self._write(file) for file in with_content]
        self.linked += sum(way in ("reflink", "hardlink") for way in ways)
        for file in files:
            if file.link is not None:
                self._write_link(file, file.link)
            elif file.is_folder:
                self._place(file.path).mkdir(exist_ok=True)
        return len(files)

    def others(self, known: Collection[tuple[str, str]], own: set[str]) -> list[Path]:
        """Return files that are there as another version has them, and this one has not."""
        found = []
        for path, content in sorted(known):
            place = self._place(path)
            if path in own or self._is_through_link(place):
                continue
            with contextlib.suppress(OSError):
                if self._content(place, place.lstat()) == content:
                    found.append(place)
        return found

    def remove(self, places: list[Path]) -> int:
        """Remove files, and folders that are empty then."""
        for place in places:
            place.unlink()
            for folder in place.parents:
                if folder == self._base:
                    break
                try:
                    folder.rmdir()
                except OSError:  # something else is in it
                    break
        return len(places)

    def _place(self, path: str) -> Path:
        return self._base / os.fsdecode(self._names.get(path, path).encode("utf-8", "surrogateescape"))

    def _is_through_link(self, place: Path) -> bool:
        return any(folder.is_symlink() for folder in place.parents if self._base in folder.parents)

    def _content(self, place: Path, status: os.stat_result) -> str | None:
        """Return the hash of a file that is there, `None` for what is no file."""
        if not stat.S_ISREG(status.st_mode):
            return None
        found = self._cache.find(status)
        if found is None:
            read_at_ns = time.time_ns()
            found, _size = hash_file(place)
            self._cache.remember(status, found, read_at_ns=read_at_ns)
        return found

    def _is_same(self, file: TreeFile, place: Path, status: os.stat_result, found: str | None) -> bool:
        if file.link is not None:
            is_link = stat.S_ISLNK(status.st_mode)
            return is_link and os.fsencode(place.readlink()) == file.link.encode("utf-8", "surrogateescape")
        if file.is_folder:
            return stat.S_ISDIR(status.st_mode)
        return found == file.hash and bool(status.st_mode & stat.S_IXUSR) == file.is_executable

    def _write(self, file: TreeFile) -> str:
        place = self._place(file.path)
        if self._is_through_link(place):
            raise AlreadyExists(f"{place} lies behind a link; remove the link, or check out elsewhere")
        if place.is_dir() and not place.is_symlink():
            raise AlreadyExists(f"{place} is a folder, and a file should be there; move it away")
        content = str(file.hash)
        if not self._version.is_stored and content not in self._blobs:
            self._copy_from_source(file, place)
            way = "copy"
        else:
            # a link shares its mode with the store, where nothing is executable
            way = self._blobs.copy_to(content, place, link=self._link and not file.is_executable, replace=True)
        if file.is_executable:
            mode = place.stat().st_mode
            place.chmod(mode | ((mode & 0o444) >> 2))
        return way

    def _copy_from_source(self, file: TreeFile, place: Path) -> None:
        source = self._version.place_of(file)
        partial = place.with_name(f".{os.urandom(8).hex()}.partial")
        try:
            shutil.copyfile(source, partial)
            if hash_file(partial)[0] != file.hash:
                raise InvalidValue(f"{source} was changed since it was {self._version}, which was not stored")
            partial.replace(place)
        finally:
            partial.unlink(missing_ok=True)

    def _write_link(self, file: TreeFile, target: str) -> None:
        place = self._place(file.path)
        if place.is_dir() and not place.is_symlink():
            raise AlreadyExists(f"{place} is a folder, and a link should be there; move it away")
        partial = place.with_name(f".{os.urandom(8).hex()}.partial")
        partial.symlink_to(os.fsdecode(target.encode("utf-8", "surrogateescape")))
        partial.replace(place)
