"""Where a folder lies and how its files may be written. Knows mounts, not runs."""

from __future__ import annotations

import errno
import os
import re
import sys
from pathlib import Path
from typing import Literal

Backend = Literal["mmap", "append"]
RETRY_S = 1.0
"""How long a disk that refused is left alone: asking it at each point would make training wait."""

# File systems whose shared maps are coherent with reads and whose space can be reserved. On others
# (NFS, Lustre, FUSE, SMB, 9p, …) a mapped page may be written back late, or never if the server goes.
_MAPPABLE = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "tmpfs", "ramfs", "overlay", "bcachefs"})
_OCTAL = re.compile(r"\\([0-7]{3})")


def filesystem_type(path: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> str | None:
    """Return the type of the file system that holds `path`, such as `"ext4"`, or `None` where it cannot be told."""
    target = os.fsencode(path.resolve())
    best, found = -1, None
    try:
        lines = mountinfo.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    for line in lines:
        left, _, right = line.partition(" - ")
        fields = left.split()
        if len(fields) < 5 or not right:
            continue
        point = fields[4]
        if "\\" in point:
            point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), point)
        mount = os.fsencode(point)
        inside = target == mount or target.startswith(mount.rstrip(b"/") + b"/")
        # of two mounts on one point the later one covers the earlier
        if inside and len(mount) >= best:
            best, found = len(mount), right.split()[0]
    return found


def choose_backend(path: Path) -> Backend:
    """Return how the metric log in `path` should be written: mapped where that is safe, else appended."""
    if sys.platform == "linux":
        return "mmap" if (_type_by_device(path) or filesystem_type(path)) in _MAPPABLE else "append"
    return "append"


def _type_by_device(path: Path) -> str | None:
    """Return the type of the file system that holds `path` by its device number: quicker than by its place.

    `None` where no mount has that number, as with the subvolumes of btrfs.
    """
    try:
        device = os.stat(path).st_dev  # noqa: PTH116 (each run of a sweep comes here: no path is made of it)
        with open("/proc/self/mountinfo", "rb", buffering=0) as file:  # noqa: PTH123 (as above)
            lines = file.readall().split(b"\n")
    except OSError:
        return None
    number = b"%d:%d" % (os.major(device), os.minor(device))
    for line in lines:
        left, _, right = line.partition(b" - ")
        if left.split(b" ", 3)[2:3] == [number]:
            return right.partition(b" ")[0].decode("ascii", "replace")
    return None


def reserve(fd: int, size_bytes: int) -> None:
    """Make every byte of a file exist, or raise `OSError` now: a later store into a hole on a full disk is SIGBUS."""
    try:
        os.posix_fallocate(fd, 0, size_bytes)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        # this file system cannot: write zeros instead; a nearly full one takes less than it is given
        offset = 0
        while offset < size_bytes:
            offset += os.pwrite(fd, bytes(min(1 << 20, size_bytes - offset)), offset)
