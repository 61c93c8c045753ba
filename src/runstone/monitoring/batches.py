"""What a checked batch looked like, kept beside its report: it can be compared with any reference later, exactly.

A report has bars and figures, from which other figures can only be guessed. So `batches/<id>.json.z` in the folder of a
model holds the whole profile of the batch. Reports of before have none; nor have those whose batch had to make room.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runstone.errors import FormatError
from runstone.monitoring.profile import Profile

FORMAT = 1
FOLDER = "batches"
SUFFIX = ".json.z"
MOST_BYTES = 256 << 20
"""Of the batches of one model; the oldest make room."""
_LARGEST = 512 << 20


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as it was looked at.

    Attributes:
        profile: What it looked like.
        ignore: Columns that are no features, whatever a reference says.
        is_labels_only: Whether its features were left alone.
    """

    profile: Profile
    ignore: tuple[str, ...] = ()
    is_labels_only: bool = False

    def to_bytes(self) -> bytes:
        """Return it as it is kept."""
        said = {"format": FORMAT, "kind": "batch", "ignore": list(self.ignore), "is_labels_only": self.is_labels_only}
        told = json.dumps({**said, "profile": json.loads(self.profile.to_bytes())}, ensure_ascii=False, allow_nan=False)
        return zlib.compress(told.encode())

    @classmethod
    def from_bytes(cls, data: bytes) -> Batch:
        """Return what `to_bytes` gave.

        Raises:
            FormatError: it is no batch, or a newer version wrote it.
        """
        try:
            inflating = zlib.decompressobj()
            raw: Mapping[str, Any] = json.loads(inflating.decompress(data, _LARGEST))
            if raw["kind"] != "batch" or raw["format"] > FORMAT:
                raise FormatError(f"this is no batch of format {FORMAT}; a newer version of Runstone may have made it")
            profile = Profile.from_bytes(json.dumps(raw["profile"]).encode())
            return cls(profile, tuple(raw["ignore"]), bool(raw["is_labels_only"]))
        except FormatError:
            raise
        except (zlib.error, ValueError, KeyError, TypeError) as error:
            raise FormatError(f"this batch is damaged: {type(error).__name__}: {error}") from None


def keep_batch(folder: Path, check_id: str, batch: Batch) -> None:
    """Keep a batch in the folder of its model, and let the oldest make room; one that finds no room is not kept."""
    kept = folder / FOLDER
    with contextlib.suppress(OSError):  # the report says what was found in any case
        kept.mkdir(parents=True, exist_ok=True)
        partial = kept / f".{check_id}.partial"
        try:
            partial.write_bytes(batch.to_bytes())
            partial.replace(kept / f"{check_id}{SUFFIX}")
        finally:
            partial.unlink(missing_ok=True)
        _make_room(kept)


def _make_room(kept: Path) -> None:
    found = []
    for path in kept.glob(f"*{SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):  # another process makes room, too
            status = path.stat()
            found.append((status.st_mtime_ns, status.st_size, path))
    size = 0
    for _time, own, path in sorted(found, reverse=True):
        size += own
        if size > MOST_BYTES:
            path.unlink(missing_ok=True)


def kept_batch(folder: Path, check_id: str) -> Batch | None:
    """Return the batch of a check; `None` where none is kept.

    Raises:
        FormatError: it is damaged.
    """
    try:
        return Batch.from_bytes((folder / FOLDER / f"{check_id}{SUFFIX}").read_bytes())
    except FileNotFoundError:
        return None
