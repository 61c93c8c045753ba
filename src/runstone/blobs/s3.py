"""What stores that speak S3 can do and fsspec does not say: uploads in parts that leave nothing, checksums, ages.

An object is there when its last request is answered, whole, or it is not there. Until then its parts cost space that no
listing of the bucket shows; so an upload that fails is given up, and those of killed processes can be found.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

PART_BYTES = 8 << 20
"""Of an upload in parts: so much is in memory, `_AT_ONCE` times."""
_MOST_PARTS = 9_000  # S3 takes 10,000
_AT_ONCE = 2
_MOST_COPIED_BYTES = 5 << 30  # in one request


@dataclass(frozen=True, slots=True)
class BrokenUpload:
    """An upload in parts that was never completed: its object, id, and when it began (seconds since the epoch)."""

    key: str
    id: str
    began_at: float


class Found(NamedTuple):
    """An object: its size in bytes, its ETag, and since when it is there (seconds since the epoch)."""

    size: int
    etag: str
    at: float


class S3:
    """A bucket, by the calls of s3fs.

    Args:
        file_system: The file system of s3fs.
        persist: Does something several times where it fails for a moment.
    """

    def __init__(self, file_system: Any, persist: Callable[[Callable[[], Any]], Any]) -> None:
        self._file_system = file_system
        self._persist = persist

    @staticmethod
    def speaks(file_system: Any) -> bool:
        """Return whether a file system of fsspec is one of S3."""
        told = getattr(file_system, "protocol", ())
        return "s3" in ({told} if isinstance(told, str) else set(told)) and hasattr(file_system, "call_s3")

    def look(self, target: str) -> Found | None:
        """Return what is known of an object, `None` where there is none."""
        bucket, key = target.split("/", 1)
        try:
            told = self._call("head_object", Bucket=bucket, Key=key)
        except FileNotFoundError:
            return None
        return Found(int(told["ContentLength"]), str(told.get("ETag", "")).strip('"'), told["LastModified"].timestamp())

    def put(self, path: Path, target: str) -> str:
        """Upload a file and return the ETag that it should have there; parts of a failed upload are removed.

        Args:
            path: The file.
            target: Bucket and key.
        """
        bucket, key = target.split("/", 1)
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size <= 2 * PART_BYTES:
                data = _read(file.fileno(), 0, size)
                digest = hashlib.md5(data, usedforsecurity=False)
                self._call("put_object", Bucket=bucket, Key=key, Body=data, ContentMD5=_packed(digest.digest()))
                return digest.hexdigest()
            return self._put_parts(file.fileno(), size, bucket, key)

    def _put_parts(self, fd: int, size: int, bucket: str, key: str) -> str:
        step = max(PART_BYTES, -(-size // _MOST_PARTS))
        upload = str(self._call("create_multipart_upload", Bucket=bucket, Key=key)["UploadId"])

        def send(number: int) -> tuple[str, bytes]:
            data = _read(fd, (number - 1) * step, min(step, size - (number - 1) * step))
            digest = hashlib.md5(data, usedforsecurity=False).digest()
            answer = self._call(
                "upload_part",
                Bucket=bucket,
                Key=key,
                UploadId=upload,
                PartNumber=number,
                Body=data,
                ContentMD5=_packed(digest),
            )
            return str(answer["ETag"]), digest

        numbers = range(1, -(-size // step) + 1)
        try:
            with ThreadPoolExecutor(_AT_ONCE, "runstone-s3") as pool:
                waiting = [pool.submit(send, number) for number in numbers]
                try:
                    sent = [one.result() for one in waiting]
                finally:
                    for one in waiting:
                        one.cancel()
            parts = [{"PartNumber": number, "ETag": etag} for number, (etag, _) in zip(numbers, sent, strict=True)]
            # Where its answer was lost, the upload is gone when it is asked for again: then the object tells.
            with contextlib.suppress(FileNotFoundError):
                self._call(
                    "complete_multipart_upload",
                    Bucket=bucket,
                    Key=key,
                    UploadId=upload,
                    MultipartUpload={"Parts": parts},
                )
        except BaseException:
            with contextlib.suppress(Exception):  # the store may be away: `gc --remote` finds it
                self._file_system.call_s3("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload)
            raise
        whole = hashlib.md5(b"".join(digest for _, digest in sent), usedforsecurity=False)
        return f"{whole.hexdigest()}-{len(sent)}"

    def read(self, target: str, size: int) -> Iterator[bytes]:
        """Yield the bytes of an object, `PART_BYTES` at a time, each asked for again where it breaks off."""
        for begin in range(0, size, PART_BYTES):
            end = min(size, begin + PART_BYTES)
            data: bytes = self._persist(partial(self._range, target, begin, end))
            yield data

    def _range(self, target: str, begin: int, end: int) -> bytes:
        data = bytes(self._file_system.cat_file(target, start=begin, end=end))
        if len(data) != end - begin:
            raise ConnectionError(f"{len(data)} of {end - begin} bytes came")
        return data

    def touch(self, target: str, size: int) -> bool:
        """Let an object count as put there now; return whether that can be done."""
        if size > _MOST_COPIED_BYTES:
            return False
        bucket, key = target.split("/", 1)
        source = {"Bucket": bucket, "Key": key}
        self._call("copy_object", Bucket=bucket, Key=key, CopySource=source, MetadataDirective="REPLACE")
        return True

    def broken(self, folder: str) -> Iterator[BrokenUpload]:
        """Yield uploads below a folder that are not complete, those that go on as well."""
        bucket, _, prefix = folder.partition("/")
        options: dict[str, Any] = {"Bucket": bucket, "Prefix": f"{prefix}/" if prefix else ""}
        while True:
            found = self._call("list_multipart_uploads", **options)
            for one in found.get("Uploads", ()):
                yield BrokenUpload(f"{bucket}/{one['Key']}", str(one["UploadId"]), one["Initiated"].timestamp())
            if not found.get("IsTruncated"):
                return
            options |= {"KeyMarker": found["NextKeyMarker"], "UploadIdMarker": found["NextUploadIdMarker"]}

    def give_up(self, upload: BrokenUpload) -> None:
        """Remove the parts of an upload; one that is gone is fine."""
        bucket, key = upload.key.split("/", 1)
        with contextlib.suppress(FileNotFoundError):
            self._call("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload.id)

    def _call(self, name: str, **options: Any) -> Any:
        return self._persist(lambda: self._file_system.call_s3(name, **options))


def _read(fd: int, offset: int, size: int) -> bytes:
    data = bytearray(os.pread(fd, size, offset))
    while len(data) < size:
        piece = os.pread(fd, size - len(data), offset + len(data))
        if not piece:
            raise OSError(f"the file became shorter while it was sent: {offset + len(data)} bytes are there")
        data += piece
    return bytes(data)


def _packed(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
