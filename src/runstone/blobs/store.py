"""The store of a workspace: putting content in, once; getting it out, whole."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

from runstone.blobs.carrier import Carrier
from runstone.blobs.exchange import Moved, fetch, lies_there, one_at_a_time, send
from runstone.blobs.intake import Intake, hash_of_bytes
from runstone.blobs.objects import READ_ONLY, Objects, Written, check_same, drop, is_hash, lacking
from runstone.blobs.partial import Partial, sync_file_system
from runstone.blobs.recipe import PartsReader, Recipe
from runstone.blobs.remote import Remote
from runstone.blobs.source import CHUNK_BYTES, hash_of, hasher_for
from runstone.blobs.trimming import trim
from runstone.blobs.users import note_user
from runstone.errors import AlreadyExists, NotFound
from runstone.values import FileEntry

_BATCH_FILES = 200
_ASKED_AT_ONCE = 16


class Blobs:
    """The content-addressed store of one workspace.

    Args:
        root: Its folder; made with the first file.
        remote: A store elsewhere, or its URL; what is not here is fetched from it.
    """

    def __init__(self, root: Path, *, remote: Remote | str | None = None) -> None:
        self.root = root
        self.remote = Remote(remote) if isinstance(remote, str) else remote
        self.cache = root.parent / "cache" / root.name
        """Where content that lies in parts is put together for those who need a file; may be deleted."""
        self._objects = Objects(root)
        self._intake = Intake(self._objects)

    # --- looking ---------------------------------------------------------------------------------------------------

    def __contains__(self, content_hash: str) -> bool:
        """Return whether a content is here: whole, or all of its parts."""
        if not is_hash(content_hash):
            return False
        if self._objects.path(content_hash).is_file():
            return True
        recipe = self.find_recipe(content_hash)
        return recipe is not None and all(self._objects.path(part).is_file() for part in recipe.hashes)

    def find_recipe(self, content_hash: str) -> Recipe | None:
        """Return of which parts a content is, `None` where it is whole or not here.

        Raises:
            FormatError: the recipe is damaged.
        """
        return self._objects.find_recipe(content_hash)

    def size(self, content_hash: str) -> int:
        """Return the size of a content in bytes.

        Raises:
            NotFound: it is neither here nor in the remote store.
        """
        with contextlib.suppress(FileNotFoundError):
            return self._objects.path(content_hash).stat().st_size
        if content_hash not in self and self.remote is not None and is_hash(content_hash):
            self._note_use(self.remote)
            there = self.remote.size(f"{content_hash[:2]}/{content_hash}")
            if there is not None:
                return there
        self._ensure(content_hash)
        recipe = self.find_recipe(content_hash)
        return recipe.size if recipe is not None else self._objects.path(content_hash).stat().st_size

    def may_have(self, content_hash: str) -> bool:
        """Return whether a content is here or could come from the remote store, which is not asked."""
        return content_hash in self or (self.remote is not None and is_hash(content_hash))

    def lacking(self, hashes: Iterable[str]) -> set[str]:
        """Return which contents are neither here nor in the remote store. Fetches nothing.

        Raises:
            OSError: the remote store does not answer.
        """
        away = [content for content in dict.fromkeys(hashes) if content not in self]
        remote = self.remote
        if remote is None or not away:
            return set(away)
        self._note_use(remote)
        with ThreadPoolExecutor(min(_ASKED_AT_ONCE, len(away)), "runstone-blobs") as pool:
            found = list(pool.map(lambda content: is_hash(content) and lies_there(remote, content), away))
        return {content for content, is_there in zip(away, found, strict=True) if not is_there}

    def objects(self) -> Iterator[tuple[str, os.stat_result]]:
        """Yield `(name, stat)` of every file of the store: `<hash>`, or `<hash>.parts` for a recipe."""
        return self._objects.all()

    def object_path(self, name: str) -> Path:
        """Return where a file of the store lies, named as `objects` does."""
        return self._objects.path(name)

    # --- getting out -----------------------------------------------------------------------------------------------

    def open(self, content_hash: str, *, check: bool = False) -> BinaryIO:
        """Return a content as an open file, readable and seekable; it comes from the remote store where it is not here.

        Args:
            content_hash: Of the content.
            check: Whether all of it is read and hashed before.

        Raises:
            NotFound: it is neither here nor in the remote store.
            FormatError: it is damaged.
        """
        self._ensure(content_hash)
        if check:
            self.verify(content_hash)
        with contextlib.suppress(FileNotFoundError):
            return self._objects.path(content_hash).open("rb")
        recipe = self.find_recipe(content_hash)
        if recipe is None:
            raise self._lacking(content_hash)
        return cast(BinaryIO, io.BufferedReader(PartsReader(recipe, self._open_part), CHUNK_BYTES // 8))

    def _open_part(self, content_hash: str) -> BinaryIO:
        try:
            return self._objects.open(content_hash)
        except NotFound:  # given back to the remote store meanwhile
            self._ensure(content_hash)
            return self._objects.open(content_hash)

    def read(self, content_hash: str) -> bytes:
        """Return a small content, checked.

        Raises:
            NotFound, FormatError: as `open` does.
        """
        with self.open(content_hash) as file:
            data = file.read()
        check_same(content_hash, hash_of_bytes(data), f"the content {content_hash[:16]}…")
        return data

    def verify(self, content_hash: str) -> None:
        """Read a content and compare it with its hash.

        Raises:
            NotFound: it is neither here nor in the remote store.
            FormatError: it is damaged; the message names the file that is.
        """
        self._ensure(content_hash)
        recipe = self.find_recipe(content_hash) if not self._objects.path(content_hash).exists() else None
        if recipe is None:
            self._check_object(content_hash)
            return
        for part in recipe.hashes:
            self._check_object(part)
        with self.open(content_hash) as file:
            found = _hash_of_file(file, recipe.size)
        check_same(content_hash, found, str(self._objects.recipe_path(content_hash)))

    def local_path(self, content_hash: str) -> Path:
        """Return a file with a content, for those who need a path. Nobody may write to it.

        Content in parts is put together in the cache of the workspace, checked; what the remote store has is fetched.

        Raises:
            NotFound: it is neither here nor in the remote store.
            FormatError: it is damaged.
            OSError: the disk is full.
        """
        self._ensure(content_hash)
        place = self._objects.path(content_hash)
        if place.is_file():
            if self.remote is not None:  # what was used lately is not given back to the remote store
                self.keep(content_hash)
            return place
        whole = self.cache / content_hash[:2] / content_hash
        if whole.is_file() and whole.stat().st_size == self.size(content_hash):
            with contextlib.suppress(OSError):  # it is used: collecting garbage leaves it for a while
                os.utime(whole)
            return whole
        whole.parent.mkdir(parents=True, exist_ok=True)
        with Partial(self.cache) as partial:
            self._write_out(content_hash, partial)
            partial.place(whole, READ_ONLY)
        return whole

    def copy_to(self, content_hash: str, target: Path, *, link: bool = False, replace: bool = False) -> str:
        """Write a content to a file, checked; the file is there whole or not at all.

        Args:
            content_hash: Of the content.
            target: Where; its folder must be there.
            link: Whether a read-only hard link will do, which takes no space: whoever writes into it all the same
                (root may) damages the store.
            replace: Whether a file that is there is replaced.

        Returns:
            How: `"reflink"` (bytes are shared until one of the two is written), `"hardlink"` or `"copy"`.

        Raises:
            NotFound: it is neither here nor in the remote store.
            AlreadyExists: something is there, and `replace` is not given.
            FormatError: it is damaged.
            OSError: the disk is full.
        """
        self._ensure(content_hash)
        if not replace and os.path.lexists(target):
            raise AlreadyExists(f"{target} is there already; replace=True writes over it")
        place = self._objects.path(content_hash)
        with Partial(target.parent) as partial:
            way = "copy"
            if place.is_file():
                with place.open("rb", buffering=0) as file:
                    if partial.clone(file.fileno()):
                        way = "reflink"
                        check_same(content_hash, hash_of(partial.fd), str(place))
            if way == "copy" and link and place.is_file() and self._link(content_hash, target):
                return "hardlink"
            if way == "copy":
                self._write_out(content_hash, partial)
            partial.place(target, 0o666 & ~_umask())
        return way

    def _link(self, content_hash: str, target: Path) -> bool:
        self._check_object(content_hash)
        linked = target.with_name(f"{os.urandom(16).hex()}.partial")
        try:
            linked.hardlink_to(self._objects.path(content_hash))
        except OSError:  # another file system, or one without hard links
            return False
        try:
            linked.replace(target)
        finally:
            linked.unlink(missing_ok=True)  # where both are one file already, renaming does nothing
        return True

    def _write_out(self, content_hash: str, partial: Partial) -> None:
        hasher = hasher_for(self.size(content_hash))
        with self.open(content_hash) as file:
            while chunk := file.read(CHUNK_BYTES):
                hasher.update(chunk)
                partial.write(chunk)
        check_same(content_hash, hasher.hexdigest(), f"the content {content_hash[:16]}… in {self.root}")

    def _check_object(self, content_hash: str) -> None:
        place = self._objects.path(content_hash)
        try:
            with place.open("rb", buffering=0) as file:
                found = hash_of(file.fileno())
        except FileNotFoundError:
            raise self._lacking(content_hash) from None
        check_same(content_hash, found, str(place))

    # --- putting in ------------------------------------------------------------------------------------------------

    def put(self, source: Path, name: str) -> FileEntry:
        """Store one file and return its entry; content that is there already is not stored twice.

        Its bytes are shared where the file system can do that (reflink), else copied. Checkpoints are stored by tensor.

        Args:
            source: A regular file, or a link to one.
            name: Its path inside what it belongs to.

        Raises:
            InvalidValue: it is no regular file, or it changed while it was read.
            OSError: it cannot be read, or the disk is full; nothing is left in the store then.
        """
        return self._entry(name, self._intake.write(source))

    def put_bytes(self, data: bytes, name: str) -> FileEntry:
        """Store bytes and return their entry; content that is there already is not stored twice.

        Args:
            data: The content.
            name: Its path inside what it belongs to.

        Raises:
            OSError: the disk is full; nothing is left in the store then.
        """
        return self._entry(name, self._intake.write_bytes(data))

    def put_all(self, files: Iterable[tuple[Path, str]]) -> list[FileEntry]:
        """Store many files, by several threads, and return their entries in order.

        Args:
            files: As `put` takes each: the file, and its path inside what it belongs to.

        Raises:
            InvalidValue, OSError: one of them cannot be stored; those before it may be in the store.
        """
        waiting = iter(files)
        first = list(itertools.islice(waiting, 4))
        if len(first) < 4:
            return [self.put(path, name) for path, name in first]
        entries: list[FileEntry] = []
        names: list[str] = []
        before: list[Written] = []
        with ThreadPoolExecutor(min(4, len(os.sched_getaffinity(0))), "runstone-blobs") as pool:
            try:
                for batch in itertools.chain(_batches(itertools.chain(first, waiting)), [[]]):
                    pending = [pool.submit(self._intake.write, path) for path, _name in batch]
                    try:
                        # the disk takes the batch before while this one is read and hashed
                        self._objects.settle(before)
                        entries += map(_entry, before, names)
                        before = [one.result() for one in pending]
                    except BaseException:
                        _abandon(pending)
                        raise
                    names = [name for _path, name in batch]
            finally:
                drop(before)
        return entries

    def keep(self, content_hash: str) -> bool:
        """Mark a content as used, so that it is not collected before it is referred to; return whether it is here.

        Whoever refers to content without putting it (an unchanged file of a dataset, a version made of an artifact)
        calls this before. What was given back to the remote store counts as here if it can be marked there.
        """
        if not is_hash(content_hash):
            return False
        try:
            is_here = self._objects.keep(content_hash)
        except OSError:
            is_here = content_hash in self  # a store that is only read has nobody who collects
        return is_here or self._keep_there(content_hash)

    def _keep_there(self, content_hash: str) -> bool:
        """Mark what was given back to the remote store as used there; return whether that makes the content whole."""
        remote = self.remote
        if remote is None or remote.is_away:
            return False
        recipe = self.find_recipe(content_hash)
        names = [content_hash] if recipe is None else [name for name in recipe.hashes if not self._objects.keep(name)]
        if not all(self._objects.is_given_back(name) for name in names):
            return False
        try:
            return all(remote.touch(f"{name[:2]}/{name}") for name in names)
        except OSError:  # whoever has it stores it here
            return False

    def sync(self) -> None:
        """Bring the names of what was put to the disk, so that it is there after a power cut too."""
        if not self.root.is_dir():
            return
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if not sync_file_system(fd):
                os.sync()
        finally:
            os.close(fd)

    def _entry(self, name: str, written: Written) -> FileEntry:
        self._objects.settle([written])
        return _entry(written, name)

    # --- the remote store ------------------------------------------------------------------------------------------

    def push(self, hashes: Iterable[str] | None = None, *, to: Remote | None = None, check: bool = False) -> Moved:
        """Send contents to the remote store; what lies there with its size is not sent again, so a broken push goes on.

        What was given back to the remote store of the workspace stays there, and is fetched where it goes elsewhere.

        Args:
            hashes: Which; default: all that are here.
            to: Where; default: the remote store of the workspace.
            check: Whether what was sent is read back and hashed. It is hashed before, and its size compared after.

        Raises:
            NotFound: one is nowhere, or there is no remote store.
            FormatError: one is damaged; it was not sent.
            OSError: the remote store does not answer.
        """
        remote = self._remote(to)
        if remote is self.remote:
            self._note_use(remote)
        if hashes is None:
            return send(self._objects, remote, None, check=check)
        here, there = [], 0
        for content in dict.fromkeys(hashes):
            if remote is self.remote and content not in self and is_hash(content) and lies_there(remote, content):
                there += 1
                continue
            self._ensure(content)
            here.append(content)
        moved = send(self._objects, remote, here, check=check)
        return replace(moved, there_already=moved.there_already + there)

    def pull(self, hashes: Iterable[str], *, source: Remote | None = None) -> Moved:
        """Fetch contents that are not here from the remote store, checked.

        Raises:
            NotFound: one is nowhere, or there is no remote store.
            FormatError: what came is damaged; it was not kept.
            OSError: the remote store does not answer, or the disk is full.
        """
        remote = self._remote(source)
        count = size = there = 0
        for content in dict.fromkeys(hashes):
            if content in self:
                there += 1
                continue
            if remote is self.remote:
                self._note_use(remote)
            fetched = fetch(self._objects, remote, content)
            if fetched is None:
                raise NotFound(f"the content {content[:16]}… is neither in {self.root} nor in {remote}")
            count, size = count + 1, size + fetched
        return Moved(count, size, there)

    def trim(self, keep_bytes: int) -> tuple[int, int]:
        """Remove files here that lie in the remote store too, the longest unused first; return their number and bytes.

        What was stored or read within the last hour stays, and so does what is small: it would cost a request each time
        it is needed. What is removed comes back when it is read.

        Args:
            keep_bytes: Until all that are here have no more than so many.

        Raises:
            NotFound: there is no remote store.
            OSError: it does not answer.
        """
        return trim(self._objects, self._remote(None), keep_bytes, now=time.time())

    def carrier(self, remote: Remote, *, cache_bytes: int | None, is_ended: Callable[[], bool]) -> Carrier:
        """Return what sends all that comes here to a remote store, for a thread of its own; as `Carrier` takes it."""
        return Carrier(self._objects, remote, cache_bytes=cache_bytes, is_ended=is_ended)

    def _remote(self, given: Remote | None) -> Remote:
        remote = given if given is not None else self.remote
        if remote is None:
            raise NotFound("this workspace has no remote store; name one in RUNSTONE_BLOBS or in its settings.json")
        return remote

    def _ensure(self, content_hash: str) -> None:
        """Fetch a content that is only in the remote store."""
        if content_hash in self:
            return
        if not is_hash(content_hash) or self.remote is None:
            raise self._lacking(content_hash)
        self._note_use(self.remote)
        with one_at_a_time(self.root, content_hash):  # the others then find it here
            if content_hash not in self and fetch(self._objects, self.remote, content_hash) is None:
                raise self._lacking(content_hash)

    def _note_use(self, remote: Remote) -> None:
        """Tell the store once that this workspace uses it, so that nobody removes what lies there for it."""
        if self.root in remote.noted:
            return
        try:
            note_user(remote, self.root.parent)
        except (PermissionError, NotImplementedError):
            pass  # it may only be read
        except OSError as error:
            if error.errno != errno.EROFS:  # the workspace may only be read
                raise
        remote.noted.add(self.root)

    def _lacking(self, content_hash: str) -> NotFound:
        return lacking(content_hash, self.root if self.remote is None else f"{self.root} or {self.remote}")


def _entry(written: Written, name: str) -> FileEntry:
    return FileEntry(path=name, hash=written.hash, size_bytes=written.size)


def _hash_of_file(file: BinaryIO, size: int) -> str:
    hasher = hasher_for(size)
    while chunk := file.read(CHUNK_BYTES):
        hasher.update(chunk)
    return str(hasher.hexdigest())


def _abandon(pending: Sequence[Future[Written]]) -> None:
    for one in pending:
        one.cancel()
    for one in pending:
        if not one.cancelled() and one.exception() is None:
            drop([one.result()])


def _batches(files: Iterable[tuple[Path, str]]) -> Iterator[list[tuple[Path, str]]]:
    waiting = iter(files)
    while batch := list(itertools.islice(waiting, _BATCH_FILES)):
        yield batch


def _umask() -> int:
    """Return which permissions new files do not get, without setting them for a moment as `os.umask` does."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)
    return 0o022
