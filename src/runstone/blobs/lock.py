"""The lock between those who store and the one who collects garbage.

It is held for moments only: while content that is there is marked as used or new content takes its place (shared), and
while a few unused ones are looked at once more and removed (exclusive). Nobody waits for a whole copy or collection.

On file systems without locks there is none. Then only age protects: what is collected was not used for long.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

_HAS_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


def lock_path(root: Path) -> Path:
    """Return the file that is locked: beside the store, so that the store holds nothing but content."""
    return root.with_name(f"{root.name}.lock")


@contextlib.contextmanager
def locked(root: Path, *, exclusive: bool = False) -> Iterator[None]:
    """Hold the lock of a store while the block runs.

    Args:
        root: Folder of the store.
        exclusive: Alone, for removing; else together with others who store.

    Raises:
        OSError: the lock file cannot be made.
    """
    path = lock_path(root)
    try:
        fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
    except PermissionError:  # another user's; on local disks that will do
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        except OSError as error:
            if error.errno not in _HAS_NO_LOCKS:
                raise
        yield
    finally:
        os.close(fd)
