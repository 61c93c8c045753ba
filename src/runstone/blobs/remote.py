"""A store elsewhere, at any URL that fsspec knows: `s3://bucket/prefix`, `gs://…`, `sftp://…`, `file:///…`.

The same names lie there as here: `<aa>/<hash>` and `<aa>/<hash>.parts`. Each is written whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path
from typing import Any, TypeVar

from runstone.blobs.source import CHUNK_BYTES, hash_of, hasher_for
from runstone.errors import FormatError, InvalidConfig

Result = TypeVar("Result")
_ATTEMPTS = 4
_FIRST_PAUSE_S = 0.25
# Here an upload is seen while it grows, so it is renamed when it is whole. Object stores show it when it is closed.
_SHOWS_PARTIAL = frozenset(
    {"file", "local", "sftp", "ssh", "smb", "hdfs", "webhdfs", "arrow_hdfs", "ftp", "dav", "webdav"}
)
_NO_USE = (FileNotFoundError, PermissionError, NotImplementedError)


class Remote:
    """A store at a URL. Cheap to make; talks to it when it is used.

    Args:
        url: Folder that holds the store. Credentials are found as fsspec finds them; better not in the URL.
        file_system: The fsspec file system, for those that need more than a URL; then `url` is a path on it.
        pause: Waits so many seconds before another attempt.
    """

    def __init__(self, url: str, *, file_system: Any = None, pause: Callable[[float], object] = time.sleep) -> None:
        self._url = url.rstrip("/")
        self._given = file_system
        self._pause = pause
        self._opened: tuple[Any, str] | None = None

    def __str__(self) -> str:
        """Return the URL without credentials."""
        return re.sub(r"(://)[^/@]*@", r"\1…@", self._url)

    def above(self) -> Remote | None:
        """Return the folder in which it lies, `None` where it is the uppermost one."""
        file_system, folder = self._open()
        above = folder.rpartition("/")[0]
        return Remote(above, file_system=file_system, pause=self._pause) if above else None

    def exists(self, name: str) -> bool:
        """Return whether there is a file or folder of this name.

        Raises:
            OSError: the store does not answer.
        """
        file_system, folder = self._open()
        return bool(self._persist(lambda: file_system.exists(f"{folder}/{name}")))

    def size(self, name: str) -> int | None:
        """Return the size in bytes of what lies under a name, `None` where nothing does.

        Raises:
            OSError: the store does not answer.
        """
        file_system, folder = self._open()

        def look() -> int | None:
            try:
                return int(file_system.info(f"{folder}/{name}")["size"])
            except FileNotFoundError:
                return None

        return self._persist(look)

    def names(self) -> set[str]:
        """Return all names that lie there.

        Raises:
            OSError: the store does not answer.
        """
        file_system, folder = self._open()

        def look() -> set[str]:
            try:
                paths = file_system.find(folder)
            except FileNotFoundError:
                return set()
            return {"/".join(str(path).split("/")[-2:]) for path in paths}

        return {name for name in self._persist(look) if re.fullmatch(r"([0-9a-f]{2})/\1[0-9a-f]{62}(\.parts)?", name)}

    def files(self, folder: str) -> set[str]:
        """Return the names of the files in a folder of it.

        Raises:
            OSError: the store does not answer.
        """
        file_system, root = self._open()

        def look() -> set[str]:
            try:
                found = file_system.ls(f"{root}/{folder}", detail=True)
            except FileNotFoundError:
                return set()
            return {str(one["name"]).rpartition("/")[2] for one in found if one.get("type") != "directory"}

        return {name for name in self._persist(look) if name and not name.endswith(".partial")}

    def modified_at(self, name: str) -> float | None:
        """Return when what lies under a name was put there, in seconds since the Unix epoch.

        Returns:
            `None` where it is gone.

        Raises:
            NotImplementedError: the store does not say.
            OSError: it does not answer.
        """
        file_system, folder = self._open()

        def look() -> float | None:
            try:
                found = file_system.modified(f"{folder}/{name}")
            except FileNotFoundError:
                return None
            return float((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())

        return self._persist(look)

    def remove(self, name: str) -> None:
        """Remove what lies under a name; nothing there is fine.

        Raises:
            OSError: the store does not answer, or does not allow it.
        """
        file_system, folder = self._open()

        def take() -> None:
            with contextlib.suppress(FileNotFoundError):
                file_system.rm_file(f"{folder}/{name}")

        self._persist(take)

    def send(self, path: Path, name: str, *, content_hash: str | None, check: bool = False) -> None:
        """Put a file there, under a name that it takes when it is whole.

        Args:
            path: The file here.
            name: Its name there.
            content_hash: What its bytes hash to; damaged bytes are not sent under a name that promises others.
                `None`: its name does not say.
            check: Whether to read it back. Its size is always compared.

        Raises:
            OSError: it did not arrive.
        """
        file_system, folder = self._open()
        target = f"{folder}/{name}"
        protocols = {file_system.protocol} if isinstance(file_system.protocol, str) else set(file_system.protocol)
        shows_partial = bool(protocols & _SHOWS_PARTIAL)
        place = f"{folder}/{os.urandom(16).hex()}.partial" if shows_partial else target
        file_system.makedirs(target.rpartition("/")[0], exist_ok=True)
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if content_hash is not None and hash_of(file.fileno()) != content_hash:
                raise FormatError(f"{path} is damaged: its bytes are not those of its name; it was not sent")
        try:
            # not `open`: where that is broken off, object stores keep what came until then
            self._persist(lambda: file_system.put_file(str(path), place))
            if shows_partial:
                self._persist(lambda: file_system.mv(place, target))
        except BaseException:
            if shows_partial:
                with contextlib.suppress(Exception):  # the store may be away; what is left there has no name
                    file_system.rm(place)
            raise
        file_system.invalidate_cache(target.rpartition("/")[0])
        arrived = self.size(name)
        if arrived != size:
            raise OSError(f"{name} arrived at {self} with {arrived} of {size} bytes")
        if check and content_hash is not None:
            hasher = hasher_for(size)
            for data in self.receive(name):
                hasher.update(data)
            if hasher.hexdigest() != content_hash:
                raise OSError(f"{name} arrived damaged at {self}")

    def receive(self, name: str) -> Iterator[bytes]:
        """Yield the bytes that lie under a name; a stream that breaks goes on behind what came.

        Raises:
            FileNotFoundError: nothing lies there.
            OSError: the store does not answer.
        """
        file_system, folder = self._open()
        offset = 0
        file: Any = None

        def read_more() -> bytes:
            nonlocal file
            if file is None:
                file = file_system.open(f"{folder}/{name}", "rb")
                file.seek(offset)
            try:
                return bytes(file.read(CHUNK_BYTES))
            except OSError:
                file.close()
                file = None
                raise

        try:
            while chunk := self._persist(read_more):
                offset += len(chunk)
                yield chunk
        finally:
            if file is not None:
                file.close()

    def _persist(self, operation: Callable[[], Result]) -> Result:
        """Do something that may fail for a moment, several times where it does."""
        pause_s = _FIRST_PAUSE_S
        for attempt in range(_ATTEMPTS):
            try:
                return operation()
            except _NO_USE:
                raise
            except OSError:
                if attempt == _ATTEMPTS - 1:
                    raise
            self._pause(pause_s)
            pause_s *= 2
        raise AssertionError("unreachable")

    def _open(self) -> tuple[Any, str]:
        if self._opened is None:
            if self._given is not None:
                self._opened = (self._given, self._url)
                return self._opened
            try:
                import fsspec  # type: ignore[import-untyped]  # an extra, only for stores elsewhere
            except ImportError:
                raise InvalidConfig(
                    f"the store {self} needs fsspec; install it: pip install 'runstone[remote]'"
                ) from None
            try:
                # what others put there meanwhile must be seen
                file_system, folder = fsspec.core.url_to_fs(self._url, use_listings_cache=False)
            except (ImportError, ValueError) as error:
                raise InvalidConfig(f"the store {self} cannot be used: {error}") from None
            self._opened = (file_system, str(folder).rstrip("/"))
        return self._opened
