"""What processes of one host hand each other of a snapshot, so that a thousand short trials do not each ask git again.

A folder holds one file for each host, written by whoever had to read something itself. Who finds it takes a section
only where nothing can have changed: same machine since the same boot, same container, same version, same user, and the
section's own key. Sections whose key cannot tell all changes are taken for a minute at most.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import sys
import time
from pathlib import Path
from typing import Any

from runstone._version import __version__
from runstone.capture.context import Context
from runstone.capture.facts import Section

FORMAT = 1
_LARGEST_BYTES = 32 << 20
# After a checkout was found changed it is likely to change again: what would prove that it has not is made later.
_PATIENCE_S = 5.0
# By so much the clock may have been set, and the boot still be the same.
_CLOCKS_S = 60.0

Key = object


class Handover:
    """Sections that other processes of this host have read, and those that this one reads for them.

    Args:
        folder: Where the files lie; it exists. Nothing of another user is believed.
        context: What sections depend on.
    """

    def __init__(self, folder: Path, context: Context) -> None:
        host = _host(context)
        self._identity = json.dumps([FORMAT, __version__, *host, *_process(context)])
        name = hashlib.blake2b(json.dumps([*host[:2], os.getuid()]).encode(), digest_size=8).hexdigest()
        self._path = folder / f"host.{name}.json"
        self._patch_path = folder / f"host.{name}.patch"
        self._known: dict[str, Any] = self._read()
        self._is_changed = False

    def take(self, name: str, key: Key, *, keep_s: float) -> Section | None:
        """Return a section that was read under the same key at most `keep_s` ago, if there is one."""
        entry = self._known.get(name)
        if entry is None or entry["key"] != json.dumps(key) or not 0 <= now_s() - entry["at"] <= keep_s:
            return None
        return Section(name, entry["values"], entry["why"])

    def witness(self, name: str) -> dict[str, Any] | None:
        """Return what was kept with a section to tell whether it still holds."""
        entry = self._known.get(name)
        return entry["witness"] if entry is not None else None

    def patch(self, digest: str) -> bytes | None:
        """Return the patch of the git section, if it is the one meant."""
        data = _read_own(self._patch_path)
        return data if data is not None and _digest(data) == digest else None

    def may_witness(self) -> bool:
        """Return whether it is time to look for a proof that the checkout is unchanged."""
        return now_s() >= float(self._known.get("patience", {}).get("until", 0.0))

    def be_patient(self) -> None:
        """Take note that such a proof did not hold, or could not be had."""
        self._known.pop("git", None)
        self._known["patience"] = {"until": now_s() + _PATIENCE_S}
        self._is_changed = True

    def add(self, section: Section, key: Key, *, witness: dict[str, Any] | None = None, patch: bytes = b"") -> None:
        """Keep a section for those that come later; one that was not read without trouble is not kept."""
        if not section.is_complete or any(text.startswith(("error", "timeout")) for text in section.why.values()):
            return
        if patch and witness is not None:
            witness = {**witness, "patch": _digest(patch)}
            with contextlib.suppress(OSError):
                _write_own(self._patch_path, patch)
        self._known[section.name] = {
            "key": json.dumps(key),
            "at": now_s(),
            "values": section.values,
            "why": section.why,
            "witness": witness,
        }
        self._is_changed = True

    def save(self) -> None:
        """Write the file, if there is news. Where it cannot be written, everybody reads for themselves."""
        if not self._is_changed:
            return
        self._is_changed = False
        with contextlib.suppress(OSError):
            told = {"identity": self._identity, "booted_at": _booted_at(), "sections": self._known}
            _write_own(self._path, json.dumps(told).encode())

    def _read(self) -> dict[str, Any]:
        data = _read_own(self._path)
        if data is None:
            return {}
        try:
            told = json.loads(data)
            is_ours = told["identity"] == self._identity and abs(told["booted_at"] - _booted_at()) < _CLOCKS_S
            return dict(told["sections"]) if is_ours else {}
        except (ValueError, LookupError, TypeError, RecursionError):
            return {}


def open_handover(folder: Path | None, context: Context) -> Handover | None:
    """Return what lies in a folder, `None` where nothing can be handed over: not on Linux, or the folder is gone."""
    if folder is None or sys.platform != "linux":
        return None
    try:
        return Handover(folder, context)
    except OSError:
        return None


def now_s() -> float:
    """Return seconds since the boot, also those asleep: what all processes of a host agree on."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _booted_at() -> float:
    # Not the `boot_id`: the kernel takes 0.2 ms for it.
    return time.time() - now_s()


def _host(context: Context) -> list[Any]:
    """Return what tells hosts and containers from each other."""
    root = os.stat("/")  # noqa: PTH116  # strings all the way, for each trial of a sweep
    namespace = os.stat("/proc/self/ns/mnt").st_ino  # noqa: PTH116  # as above
    return [
        os.uname().nodename,
        namespace,
        [root.st_dev, root.st_ino, root.st_ctime_ns],
        context.text("proc/self/cgroup"),
    ]


def _process(context: Context) -> list[Any]:
    privacy = context.privacy
    return [
        *(os.getuid(), str(context.root), context.home, sys.executable, sys.prefix, sys.version),
        *(privacy.identity, privacy.keep_code, privacy.keep_serials, privacy.keep_cells),
    ]


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _read_own(path: Path) -> bytes | None:
    """Return the content of a file of this user that no other could have written."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as file:
        state = os.fstat(fd)
        if not stat.S_ISREG(state.st_mode) or state.st_uid != os.geteuid() or state.st_mode & 0o077:
            return None
        try:
            return file.read() if state.st_size <= _LARGEST_BYTES else None
        except OSError:
            return None


def _write_own(path: Path, data: bytes) -> None:
    """Put a file that only this user may read, whole or not at all. It need not outlive the machine's power."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        fd = os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
