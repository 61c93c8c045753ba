"""The files of a store: contents and recipes under their names, marked as used, put in their places."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from runstone.blobs import recipe as recipes
from runstone.blobs.lock import locked
from runstone.blobs.partial import Partial, sync_all
from runstone.blobs.recipe import Recipe
from runstone.errors import FormatError, NotFound

USED_FOR_S = 3600.0
"""Content that was used so lately is not marked as used again: collecting garbage spares it for longer than this."""
READ_ONLY = 0o444
_GIVEN_BACK = ".there"
_DIGITS = frozenset("0123456789abcdef")


class Written(NamedTuple):
    """A content that is written, but not yet in its place; no `partial` where it was there already."""

    hash: str
    size: int
    partial: Partial | None


class Objects:
    """The files of one store.

    Args:
        root: Its folder; made with the first file.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._root = str(root)

    def place(self, name: str) -> str:
        """Return where a file lies as text, which costs a tenth of a path."""
        return f"{self._root}/{name[:2]}/{name}"

    def path(self, name: str) -> Path:
        """Return where a file lies, named `<hash>`, or `<hash>.parts` for a recipe."""
        return self.root / name[:2] / name

    def note_given_back(self, name: str) -> None:
        """Note that a file goes since the remote store has it."""
        self.path(name + _GIVEN_BACK).touch()

    def is_given_back(self, name: str) -> bool:
        """Return whether a file went since the remote store had it."""
        return self.path(name + _GIVEN_BACK).exists()

    def forget_given_back(self, name: str) -> None:
        """Forget that, since the remote store has it no more."""
        self.path(name + _GIVEN_BACK).unlink(missing_ok=True)

    def recipe_path(self, content_hash: str) -> Path:
        """Return where the recipe of a content lies."""
        return self.path(content_hash + recipes.ENDING)

    def all(self) -> Iterator[tuple[str, os.stat_result]]:
        """Yield `(name, stat)` of every file of the store: `<hash>`, or `<hash>.parts` for a recipe."""
        for folder in _entries(self.root):
            if len(folder.name) == 2 and set(folder.name) <= _DIGITS and folder.is_dir():
                for entry in _entries(Path(folder.path)):
                    content = entry.name.removesuffix(recipes.ENDING)
                    if is_hash(content) and content[:2] == folder.name:
                        with contextlib.suppress(FileNotFoundError):  # collected meanwhile
                            yield entry.name, entry.stat()

    def find_recipe(self, content_hash: str) -> Recipe | None:
        """Return of which parts a content is, `None` where it is whole or not here.

        Raises:
            FormatError: the recipe is damaged.
        """
        path = self.recipe_path(content_hash)
        try:
            recipes.check_size(path.stat().st_size, str(path))
            return recipes.unpack(path.read_bytes(), str(path))
        except FileNotFoundError:
            return None

    def open(self, content_hash: str) -> BinaryIO:
        """Open a whole content.

        Raises:
            NotFound: it is not here.
        """
        try:
            return self.path(content_hash).open("rb", buffering=0)
        except FileNotFoundError:
            raise lacking(content_hash, self.root) from None

    def partial(self) -> Partial:
        """Return a new file, for a content whose hash is not known yet."""
        # the folder above must be there: a workspace that was renamed is not begun anew under its old name
        try:
            return Partial(self.root)
        except FileNotFoundError:
            self.root.mkdir(exist_ok=True)
            return Partial(self.root)

    def is_used(self, content_hash: str, size: int) -> bool:
        """Mark a content as used if it is here with this size; a torn one is stored anew."""
        place = self.place(content_hash)
        # Most new content is new: no lock for that. What comes meanwhile is seen when it takes its place.
        if not os.path.lexists(place) and not os.path.lexists(place + recipes.ENDING):
            return False
        with locked(self.root):
            return self.mark(content_hash, size) or self.mark_parts(content_hash)

    def keep(self, content_hash: str) -> bool:
        """Mark a content of any size as used; return whether it is here."""
        with locked(self.root):
            return self.mark(content_hash, None) or self.mark_parts(content_hash)

    def mark(self, name: str, size: int | None) -> bool:
        """Mark a file of the store as used, under the lock; return whether it is here."""
        path = self.place(name)
        try:
            status = os.stat(path)  # noqa: PTH116 (many)
            if size is not None and status.st_size != size:
                return False
            # Not each time: files that are linked to it would look changed.
            if not 0.0 <= time.time() - status.st_mtime < USED_FOR_S:
                os.utime(path)
        except OSError:  # not there, or another user's: then an own one takes its place
            return False
        return True

    def mark_parts(self, content_hash: str) -> bool:
        """Mark a content in parts as used, under the lock; return whether all of it is here."""
        try:
            recipe = self.find_recipe(content_hash)
        except FormatError:
            return False
        # parts before the recipe: while it counts as used, they must
        is_whole = recipe is not None and all([self.mark(part, None) for part in recipe.hashes])  # noqa: C419 (mark all)
        return is_whole and self.mark(f"{content_hash}{recipes.ENDING}", None)

    def settle(self, written: Sequence[Written]) -> None:
        """Let contents take their places, their bytes being on the disk: a name promises the content."""
        partials = [one.partial for one in written if one.partial is not None]
        try:
            sync_all(partials)
            if partials:
                with locked(self.root):
                    for one in written:
                        if one.partial is not None and not self.mark(one.hash, one.size):
                            self._put(one.partial, one.hash)
        finally:
            drop(written)

    def put_recipe(self, content: str, recipe: Recipe) -> None:
        """Store of which parts a content is; they are in their places."""
        with self.partial() as partial:
            partial.write(recipe.pack())
            partial.sync()
            with locked(self.root):
                self._put(partial, content + recipes.ENDING)

    def _put(self, partial: Partial, name: str) -> None:
        place = self.place(name)
        try:
            partial.place(place, READ_ONLY)
        except FileNotFoundError:  # the first one with these two digits
            Path(place).parent.mkdir(exist_ok=True)
            partial.place(place, READ_ONLY)


def is_hash(text: object) -> bool:
    """Return whether this is the hash of a content as text: 64 of the digits 0-9 a-f."""
    return isinstance(text, str) and len(text) == 64 and _DIGITS.issuperset(text)


def lacking(content_hash: str, where: object) -> NotFound:
    """Return the error that says that a content is nowhere.

    Args:
        content_hash: Of the content.
        where: Where it was looked for.
    """
    if not is_hash(content_hash):
        return NotFound(f"{content_hash!r:.80} is not a content hash: 64 of the digits 0-9 a-f")
    return NotFound(f"the content {content_hash[:16]}… is not in {where}; was the workspace copied whole?")


def check_same(expected: str, found: str, what: str) -> None:
    """Check that bytes are those of their name.

    Raises:
        FormatError: they are not.
    """
    if expected != found:
        raise FormatError(f"{what} is damaged: its bytes hash to {found[:16]}…, not to {expected[:16]}…")


def drop(written: Iterable[Written]) -> None:
    """Let go of what took no place."""
    for one in written:
        if one.partial is not None:
            one.partial.close()


@contextlib.contextmanager
def closing_on_error(partial: Partial) -> Iterator[None]:
    """Close a file where the block fails."""
    try:
        yield
    except BaseException:
        partial.close()
        raise


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except (FileNotFoundError, NotADirectoryError):
        return
