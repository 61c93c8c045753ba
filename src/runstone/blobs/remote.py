"""A store elsewhere, at any URL that fsspec knows: `s3://bucket/prefix`, `gs://…`, `sftp://…`, `file:///…`.

The same names lie there as here: `<aa>/<hash>` and `<aa>/<hash>.parts`. Each is written whole or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from runstone.blobs.s3 import S3
from runstone.blobs.source import CHUNK_BYTES, hash_of, hasher_for
from runstone.errors import FormatError, InvalidConfig, Unavailable

Result = TypeVar("Result")
_ATTEMPTS = 4
_FIRST_PAUSE_S = 0.25
_AWAY_S = 10.0
# Here an upload is seen while it grows, so it is renamed when it is whole. Object stores show it when it is closed.
_SHOWS_PARTIAL = frozenset(
    {"file", "local", "sftp", "ssh", "smb", "hdfs", "webhdfs", "arrow_hdfs", "ftp", "dav", "webdav"}
)
_NO_USE = (FileNotFoundError, NotImplementedError)
_NAME = re.compile(r"([0-9a-f]{2})/\1[0-9a-f]{62}(\.parts)?")
_TOLD = 300
# What can stand in what libraries say: credentials in URLs, keys, signatures and tokens of requests.
_SECRET = re.compile(
    r"(://)[^/@\s]*@|((?:X-Amz-[\w-]+|AWSAccessKeyId|Signature|sig|token|password)=)[^&\s'\"]+"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b",
    re.IGNORECASE,
)


class StoreUnreachable(Unavailable):
    """A store elsewhere does not do what it is asked to, for now."""


class StoreRefuses(StoreUnreachable, PermissionError):
    """A store elsewhere does not let these credentials do it, or they have expired."""


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
        self._pid = os.getpid()
        self._is_stale = False
        self._is_closed = threading.Event()
        self._failed_at = float("-inf")
        self.noted: set[Path] = set()
        """Workspaces that this process has seen told there."""

    def __str__(self) -> str:
        """Return the URL without credentials."""
        return re.sub(r"(://)[^/@]*@", r"\1…@", self._url)

    @property
    def is_away(self) -> bool:
        """Whether it failed so lately that those who can do without it need not ask."""
        return time.monotonic() - self._failed_at < _AWAY_S

    def check(self) -> None:
        """Check that the URL can be used with what is installed. Asks the store nothing.

        Raises:
            InvalidConfig: it cannot.
        """
        self._open()

    def close(self) -> None:
        """Let what others ask of it end with an error at its next request; an upload in parts leaves none."""
        self._is_closed.set()

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
        if S3.speaks(file_system):
            there = self._s3(file_system).look(f"{folder}/{name}")
            return there.size if there is not None else None

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

        return {name for name in self._persist(look) if _NAME.fullmatch(name)}

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
        if S3.speaks(file_system):
            there = self._s3(file_system).look(f"{folder}/{name}")
            return there.at if there is not None else None

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

    def touch(self, name: str) -> bool:
        """Let what lies under a name count as put there now, so that collecting spares it for its grace.

        Returns:
            Whether it is there and that could be done.

        Raises:
            OSError: the store does not answer.
        """
        file_system, folder = self._open()
        size = self.size(name)
        if size is None or not S3.speaks(file_system):
            return False
        with contextlib.suppress(FileNotFoundError):  # it was removed just now
            return self._s3(file_system).touch(f"{folder}/{name}", size)
        return False

    def give_up_uploads(self, *, before: float, is_dry: bool = False) -> int:
        """Remove what broken uploads left that began before a moment (seconds since the epoch); return their number.

        Only stores that speak S3 keep such parts until somebody removes them.

        Raises:
            OSError: the store does not answer.
        """
        file_system, folder = self._open()
        if not S3.speaks(file_system):
            return 0
        s3 = self._s3(file_system)
        broken = [
            one for one in s3.broken(folder) if one.began_at <= before and _NAME.fullmatch(one.key[len(folder) + 1 :])
        ]
        for one in [] if is_dry else broken:
            s3.give_up(one)
        return len(broken)

    def send(self, path: Path, name: str, *, content_hash: str | None, check: bool = False) -> None:
        """Put a file there, under a name that it takes when it is whole, and check what arrived.

        Where the store tells a checksum of what it has, that is compared, else only the size. What does not agree is
        read back and hashed: it stays if it is the file, else it is removed.

        Args:
            path: The file here.
            name: Its name there.
            content_hash: What its bytes hash to; damaged bytes are not sent under a name that promises others.
                `None`: its name does not say.
            check: Whether to read it back in any case.

        Raises:
            FormatError: the file here is damaged; it was not sent.
            OSError: it did not arrive; then nothing lies there that was not there before.
        """
        file_system, folder = self._open()
        target = f"{folder}/{name}"
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            found = hash_of(file.fileno())
        if content_hash is not None and found != content_hash:
            raise FormatError(f"{path} is damaged: its bytes are not those of its name; it was not sent")
        for is_last in (False, True):
            etag = self._put(file_system, path, target)
            problem = self._problem_of(name, size, found, etag, check=check)
            if problem is None:
                return
            if is_last:
                raise StoreUnreachable(f"{name} arrived {problem} at {self}, twice; it was removed there")

    def _put(self, file_system: Any, path: Path, target: str) -> str | None:
        """Put a file there and return the ETag that it should have, `None` where the store has none."""
        if S3.speaks(file_system):
            try:
                return self._s3(file_system).put(path, target)
            except FileNotFoundError as error:  # its bucket
                self._fail(StoreUnreachable, "cannot be used", error)
        protocols = {file_system.protocol} if isinstance(file_system.protocol, str) else set(file_system.protocol)
        shows_partial = bool(protocols & _SHOWS_PARTIAL)
        place = f"{self._open()[1]}/{os.urandom(16).hex()}.partial" if shows_partial else target
        file_system.makedirs(target.rpartition("/")[0], exist_ok=True)
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
        return None

    def _problem_of(self, name: str, size: int, content: str, etag: str | None, *, check: bool) -> str | None:
        """Return what is wrong with what arrived, which is removed then; `None` if nothing is."""
        arrived, told_etag = self._arrived(name)
        is_sound = arrived == size
        if is_sound and (check or told_etag != etag):
            hasher = hasher_for(size)
            for data in self.receive(name):
                hasher.update(data)
            is_sound = hasher.hexdigest() == content
        if is_sound:
            return None
        self.remove(name)
        return f"with {arrived} of {size} bytes" if arrived != size else "damaged"

    def _arrived(self, name: str) -> tuple[int, str | None]:
        """Return size and ETag of what was put there just now; some stores show it a moment later."""
        file_system, folder = self._open()
        target = f"{folder}/{name}"
        is_s3 = S3.speaks(file_system)
        if not is_s3:
            file_system.invalidate_cache(target.rpartition("/")[0])

        def look() -> tuple[int, str | None]:
            if is_s3:
                found = self._s3(file_system).look(target)
                if found is not None:
                    return found.size, found.etag
            else:
                with contextlib.suppress(FileNotFoundError):
                    return int(file_system.info(target)["size"]), None
            raise ConnectionError(f"{name} does not show after it was put there")

        return self._persist(look)

    def receive(self, name: str) -> Iterator[bytes]:
        """Yield the bytes that lie under a name; a stream that breaks goes on behind what came.

        Raises:
            FileNotFoundError: nothing lies there.
            OSError: the store does not answer.
        """
        file_system, folder = self._open()
        if S3.speaks(file_system):
            size = self.size(name)
            if size is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self}/{name}")
            yield from self._s3(file_system).read(f"{folder}/{name}", size)
            return
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
            if self._is_closed.is_set():
                raise StoreUnreachable(f"{self} is not used any more: this process ends")
            try:
                return operation()
            except (*_NO_USE, StoreUnreachable, InvalidConfig):
                raise
            except PermissionError as error:
                self._opened = None  # the next attempt looks for credentials anew: these may be ones that expired
                self._is_stale = True
                self._fail(StoreRefuses, "refuses", error)
            except OSError as error:
                if attempt == _ATTEMPTS - 1:
                    self._fail(StoreUnreachable, "cannot be used now", error)
            except Exception as error:
                # Libraries have kinds of their own for connections that break and credentials that are not there;
                # built-in kinds are defects.
                if type(error).__module__ == "builtins":
                    raise
                if attempt == _ATTEMPTS - 1:
                    self._fail(StoreUnreachable, "cannot be used now", error)
            self._pause(pause_s)
            pause_s *= 2
        raise AssertionError("unreachable")

    def _fail(self, kind: type[StoreUnreachable], what: str, error: Exception) -> NoReturn:
        self._failed_at = time.monotonic()
        told = _SECRET.sub(lambda match: f"{match[1] or match[2] or ''}…", str(error) or type(error).__name__)
        failure = kind(f"the store {self} {what}: {told:.{_TOLD}}")
        failure.errno = getattr(error, "errno", None)
        raise failure from None

    def _s3(self, file_system: Any) -> S3:
        return S3(file_system, self._persist)

    def _open(self) -> tuple[Any, str]:
        if self._opened is None or self._pid != os.getpid():  # file systems do not outlive a fork
            self._pid = os.getpid()
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
                file_system, folder = fsspec.core.url_to_fs(
                    self._url, use_listings_cache=False, skip_instance_cache=self._is_stale
                )
            except (ImportError, ValueError) as error:
                raise InvalidConfig(f"the store {self} cannot be used: {error}") from None
            self._opened = (file_system, str(folder).rstrip("/"))
            self._is_stale = False
        return self._opened
