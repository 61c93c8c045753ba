"""The output of a program on its way to where it would have gone: a terminal where that is one, else a pipe."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import termios
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

STDOUT, STDERR, BOTH = 1, 2, 3
_CHUNK = 1 << 16


@dataclass(slots=True)
class Stream:
    """One of a program's outputs.

    Attributes:
        number: 1: standard output. 2: standard error. 3: both, which go to one place and keep their order.
        source: Where we read what it writes.
        sink: Where it writes.
        target: Where that goes: a descriptor of our own.
        is_terminal: Whether that is a terminal; then `sink` is one too, of the same size.
    """

    number: int
    source: int
    sink: int
    target: int
    is_terminal: bool

    def copy_size(self) -> None:
        """Give the program's terminal the size of the real one."""
        if self.is_terminal:
            with contextlib.suppress(OSError, termios.error):
                termios.tcsetwinsize(self.source, termios.tcgetwinsize(self.target))

    def close_sink(self) -> None:
        """Let go of the end that the program writes to: when all of its holders have, the stream ends."""
        os.close(self.sink)

    def close_source(self) -> None:
        """Stop reading: who writes on is told that nobody listens."""
        with contextlib.suppress(OSError):
            os.close(self.source)


def open_streams() -> list[Stream]:
    """Return a stream for each output that this process has; one for both where they are the same file.

    Raises:
        OSError: no pipes can be made.
    """
    places = {fd: _place(fd) for fd in (STDOUT, STDERR)}
    if places[STDOUT] is not None and places[STDOUT] == places[STDERR]:
        return [_open(BOTH, STDOUT)]
    return [_open(fd, fd) for fd, place in places.items() if place is not None]


def _place(fd: int) -> tuple[int, int, int] | None:
    try:
        found = os.fstat(fd)
    except OSError:  # closed by who started us
        return None
    return found.st_dev, found.st_ino, found.st_rdev


def _open(number: int, target: int) -> Stream:
    if os.isatty(target):
        with contextlib.suppress(OSError, termios.error):
            return _open_terminal(number, target)
    source, sink = os.pipe()
    return Stream(number, source, sink, target, is_terminal=False)


def _open_terminal(number: int, target: int) -> Stream:
    source, sink = os.openpty()
    try:
        attributes = termios.tcgetattr(target)
        # The real terminal turns newlines into what it needs; ours passes on what the program wrote.
        attributes[1] &= ~termios.OPOST
        termios.tcsetattr(sink, termios.TCSANOW, attributes)
    except BaseException:
        os.close(source)
        os.close(sink)
        raise
    stream = Stream(number, source, sink, target, is_terminal=True)
    stream.copy_size()
    return stream


class Pump:
    """Passes on what comes from a stream, in a thread, and shows it to `keep` first.

    Args:
        stream: Where it comes from, and where it goes.
        keep: Takes the number of the stream and the bytes; must not raise.
        is_broken: Called when nobody reads on the other side any more, as in `… | head`.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        keep: Callable[[int, bytes], None] = lambda _number, _data: None,
        is_broken: Callable[[Stream], None] = lambda _stream: None,
    ) -> None:
        self.stream = stream
        self._keep = keep
        self._is_broken = is_broken
        self._passes_on = True
        self._is_busy = False
        self._thread = threading.Thread(target=self._work, name=f"runstone-stream-{stream.number}", daemon=True)
        self._thread.start()

    def is_drained(self) -> bool:
        """Whether the stream has ended, or all that was written has been passed on."""
        if not self._thread.is_alive():
            return True
        try:
            ready = select.select([self.stream.source], [], [], 0)[0]
        except (OSError, ValueError):
            return True
        return not ready and not self._is_busy

    def join(self, timeout_s: float | None = None) -> None:
        """Wait until the stream has ended."""
        self._thread.join(timeout_s)

    def _work(self) -> None:
        while True:
            try:
                data = os.read(self.stream.source, _CHUNK)
            except OSError:  # how the end of a terminal is told
                data = b""
            if not data:
                break
            self._is_busy = True
            self._keep(self.stream.number, data)
            if self._passes_on and not self._pass(data):
                break
            self._is_busy = False
        self._is_busy = False
        self.stream.close_source()

    def _pass(self, data: bytes) -> bool:
        """Write to where it goes; return whether there is any point in reading on."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self.stream.target, view) :]
            except BlockingIOError:
                select.select([], [self.stream.target], [], 1.0)
            except BrokenPipeError:
                self._is_broken(self.stream)
                return False
            except OSError as error:
                if error.errno == errno.EINTR:
                    continue
                self._passes_on = False  # a terminal that is gone: the program's words are kept all the same
                return True
        return True


def wait_until_drained(pumps: list[Pump], *, quiet_s: float = 0.05) -> None:
    """Return when all streams have ended, or nothing has come for a moment: something the program left holds them."""
    quiet_since: float | None = None
    while any(pump._thread.is_alive() for pump in pumps):
        now = time.monotonic()
        if all(pump.is_drained() for pump in pumps):
            quiet_since = quiet_since or now
            if now - quiet_since >= quiet_s:
                return
        else:
            quiet_since = None
        time.sleep(0.002)
