"""What only Linux has, and only C names: the fate of children, and how a process is listed. Standard library only."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_PR_SET_PDEATHSIG, _PR_SET_MM, _PR_SET_CHILD_SUBREAPER = 1, 35, 36
_PR_SET_MM_MAP = 14
# Fields of /proc/self/stat, counted from 1, in the order in which the kernel wants them.
_START_CODE, _END_CODE, _START_STACK, _START_DATA, _END_DATA, _START_BRK = 26, 27, 28, 45, 46, 47

Prctl = Callable[[int, int], int]


def find_prctl() -> Prctl | None:
    """Return the system call, as a function of an option and a value; `None` where there is none."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        import ctypes  # only Linux has what it is for

        prctl = ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return None
    return lambda option, value: int(prctl(option, ctypes.c_ulong(value), 0, 0, 0))


def die_with_parent(prctl: Prctl | None, parent: int) -> None:
    """Have the system kill this process when `parent` dies; end at once where it is dead already."""
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(127)


def adopt_orphans(prctl: Prctl | None) -> bool:
    """Become the parent of every process whose parents below this one die; tell whether that is so."""
    return prctl is not None and prctl(_PR_SET_CHILD_SUBREAPER, 1) == 0


class Listing:
    """How the system lists this process and its forks: `ps`, `nvidia-smi` and whoever looks for one.

    Made before a fork, it spares the fork the search. Where the kernel does not allow it, nothing changes.
    """

    def __init__(self) -> None:
        self._libc: Any = None
        with contextlib.suppress(Exception):
            import ctypes

            with open("/proc/self/stat", "rb") as file:  # noqa: PTH123  # no pathlib here: each import costs a start
                fields = file.read().rpartition(b")")[2].split()
            numbers = (_START_CODE, _END_CODE, _START_DATA, _END_DATA, _START_BRK, _START_STACK)
            # The first field after the name is the third.
            *self._before, self._stack = (int(fields[number - 3]) for number in numbers)
            self._ctypes = ctypes
            libc = ctypes.CDLL(None)
            libc.sbrk.restype = ctypes.c_void_p
            self._libc = libc

    def show(self, argv: Sequence[bytes], environment: Mapping[bytes, bytes]) -> None:
        """List this process with a command line and an environment of its own."""
        if self._libc is None:
            return
        ctypes = self._ctypes
        words = b"".join([word + b"\0" for word in argv])
        variables = b"".join([name + b"=" + value + b"\0" for name, value in environment.items()])
        text = ctypes.create_string_buffer(words + variables)
        start = ctypes.addressof(text)
        middle = start + len(words)
        layout = (ctypes.c_uint64 * 13)(
            *(*self._before, self._libc.sbrk(0), self._stack, start, middle, middle, middle + len(variables)),
            0,  # the auxiliary vector stays
            0xFFFFFFFF << 32,  # no size of it; the file that runs stays
        )
        arguments = (_PR_SET_MM_MAP, ctypes.byref(layout), ctypes.c_ulong(ctypes.sizeof(layout)), 0)
        if self._libc.prctl(_PR_SET_MM, *arguments) == 0:
            self._text = text  # it must live as long as the process


def children_of(pid: int) -> list[int]:
    """Return the living and ended children of a process."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:  # noqa: PTH123  # as above
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def highest_fd() -> int:
    """Return the highest open file of this process."""
    try:
        return max(map(int, os.listdir("/dev/fd")))  # noqa: PTH208  # as above
    except (OSError, ValueError):
        return 1024
