"""Where a backup lies: a folder, or a store at a URL. Files there have names, are whole or not there, never change."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from runstone.blobs.partial import Partial, dead_partials
from runstone.blobs.remote import Remote
from runstone.blobs.source import CHUNK_BYTES, hasher_for
from runstone.errors import AlreadyExists, FormatError, NotFound


class Place(Protocol):
    """What both kinds can do."""

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the names of all files below a folder, with their sizes in bytes."""
        ...

    def send(self, path: Path, name: str, *, content_hash: str | None) -> None:
        """Put a file there, whole.

        Raises:
            FormatError: its bytes are not those that the hash promises; it was not sent.
            FileNotFoundError: there is no such file here.
            OSError: it did not arrive.
        """
        ...

    def receive(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a file.

        Raises:
            FileNotFoundError: there is none.
            OSError: the place does not answer.
        """
        ...

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is as good as removed."""
        ...

    def alone(self) -> contextlib.AbstractContextManager[None]:
        """Keep others from changing the backup meanwhile, as far as the place can.

        Raises:
            AlreadyExists: another process changes it.
        """
        ...


class FolderPlace:
    """A backup in a folder.

    Args:
        root: The folder; made with the first file.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def __str__(self) -> str:
        """Return where it is."""
        return str(self._root)

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the names of all files below a folder, with their sizes in bytes."""
        found = {}
        for place, _folders, names in os.walk(self._root / folder):
            for name in names:
                path = Path(place) / name
                if not name.endswith(".partial"):
                    with contextlib.suppress(FileNotFoundError):
                        found[path.relative_to(self._root).as_posix()] = path.stat().st_size
        return found

    def send(self, path: Path, name: str, *, content_hash: str | None) -> None:
        """Put a file there, whole; see `Place`."""
        target = self._root / name
        with path.open("rb", buffering=0) as source:
            self._make(target.parent)
            hasher = hasher_for(os.fstat(source.fileno()).st_size)
            with Partial(self._root) as partial:
                while chunk := source.read(CHUNK_BYTES):
                    hasher.update(chunk)
                    partial.write(chunk)
                if content_hash is not None and hasher.hexdigest() != content_hash:
                    raise FormatError(f"{path} is damaged: its bytes are not those of its name")
                partial.sync()
                partial.place(target, 0o600)  # environments and patches are their owner's

    def _make(self, folder: Path) -> None:
        """Make a folder of the backup, and those above it, for its owner only: names tell of runs, too."""
        if folder != self._root and not folder.parent.is_dir():
            self._make(folder.parent)
        folder.mkdir(exist_ok=True, mode=0o700)

    def receive(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a file; see `Place`."""
        with (self._root / name).open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def remove(self, name: str) -> None:
        """Remove a file."""
        (self._root / name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep others from changing the backup meanwhile, and clear away what killed ones left."""
        self._root.parent.mkdir(parents=True, exist_ok=True)
        self._make(self._root)
        fd = os.open(self._root / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyExists(f"another backup to {self._root} is running; wait for its end") from None
            except OSError:  # a file system without locks
                pass
            for path, _size in list(dead_partials(self._root, now=0.0, grace_s=float("-inf"))):
                path.unlink(missing_ok=True)
            yield
        finally:
            os.close(fd)


class UrlPlace:
    """A backup at a URL that fsspec knows.

    Args:
        url: Its folder there.
    """

    def __init__(self, url: str) -> None:
        self._remote = Remote(url)
        self._url = url
        self._opened: tuple[Any, str] | None = None

    def __str__(self) -> str:
        """Return where it is, without credentials."""
        return str(self._remote)

    def _open(self) -> tuple[Any, str]:
        if self._opened is None:
            self._remote.size("lock")  # says what is missing where it cannot be used
            import fsspec  # type: ignore[import-untyped]  # an extra, only for stores elsewhere

            file_system, root = fsspec.core.url_to_fs(self._url.rstrip("/"), use_listings_cache=False)
            self._opened = file_system, str(root).rstrip("/")
        return self._opened

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the names of all files below a folder, with their sizes in bytes."""
        file_system, root = self._open()
        try:
            found = file_system.find(f"{root}/{folder}", detail=True)
        except FileNotFoundError:
            return {}
        names = {str(path)[str(path).rindex(f"{root}/") + len(root) + 1 :]: info for path, info in found.items()}
        return {name: int(info["size"]) for name, info in names.items() if not name.endswith(".partial")}

    def send(self, path: Path, name: str, *, content_hash: str | None) -> None:
        """Put a file there, whole; see `Place`."""
        self._remote.send(path, name, content_hash=content_hash)

    def receive(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a file; see `Place`."""
        return self._remote.receive(name)

    def remove(self, name: str) -> None:
        """Remove a file."""
        file_system, root = self._open()
        with contextlib.suppress(FileNotFoundError):
            file_system.rm_file(f"{root}/{name}")

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Let it be made, on this machine's disk for its owner only; stores elsewhere have no locks."""
        file_system, root = self._open()
        if "file" in ([file_system.protocol] if isinstance(file_system.protocol, str) else file_system.protocol):
            Path(root).parent.mkdir(parents=True, exist_ok=True)
            Path(root).mkdir(exist_ok=True, mode=0o700)
        yield


def open_place(where: str | Path) -> Place:
    """Return the place at a folder or URL.

    Raises:
        InvalidConfig: the URL cannot be used.
    """
    text = str(where)
    return UrlPlace(text) if "://" in text else FolderPlace(Path(text).expanduser().absolute())


def read_whole(place: Place, name: str, *, most: int) -> bytes:
    """Return a small file.

    Raises:
        NotFound: there is none.
        FormatError: it is larger than `most`.
    """
    data = bytearray()
    try:
        for chunk in place.receive(name):
            data += chunk
            if len(data) > most:
                raise FormatError(f"{name} in {place} is too large")
    except FileNotFoundError:
        raise NotFound(f"there is no {name} in {place}") from None
    return bytes(data)


def receive(place: Place, name: str, size: int) -> Iterator[bytes]:
    """Yield the bytes of a file of which there must be so many.

    Raises:
        NotFound: it is not there.
        FormatError: there are more or fewer.
        OSError: the place does not answer.
    """
    left = size
    try:
        for chunk in place.receive(name):
            left -= len(chunk)
            if left < 0:
                break
            yield chunk
    except FileNotFoundError:
        raise NotFound(f"{place} is damaged: {name} is gone") from None
    if left:
        raise FormatError(f"{place} is damaged: {name} does not have {size:,} bytes")
