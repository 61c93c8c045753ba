"""The process that the user started: forks the recorder, passes signals on, and ends as the program does."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
from typing import Any

from runstone.launch.plan import Plan
from runstone.launch.recorder import record
from runstone.launch.signals import Noticed, adopt_orphans, exit_code, send
from runstone.launch.streams import Pump, Stream, open_streams, wait_until_drained


def launch(plan: Plan) -> int:
    """Run a command as a run, and return its exit code: 128 and the signal's number where a signal killed it.

    To be called from the main thread of a process that has no other.

    Raises:
        OSError: no process or pipe can be made.
    """
    streams = open_streams() if plan.keeps_console else []
    ours, theirs = socket.socketpair()
    sys.stdout.flush()
    sys.stderr.flush()
    adopt_orphans()
    noticed = Noticed()
    try:
        if os.fork() == 0:
            ours.close()
            record(plan, streams, theirs)
        theirs.close()
        for stream in streams:
            stream.close_sink()
        return _Front(streams, ours, noticed).wait()
    finally:
        noticed.close()


class _Front:
    """Waits for the recorder's word, or for the program where the recorder is gone."""

    def __init__(self, streams: list[Stream], channel: socket.socket, noticed: Noticed) -> None:
        self._streams = streams
        self._channel = channel
        self._noticed = noticed
        self._program: int | None = None
        self._program_code: int | None = None
        self._received = b""

    def wait(self) -> int:
        """Return the exit code of the program."""
        while True:
            waited_for: list[Any] = [self._channel, self._noticed.fd]
            ready = select.select(waited_for, [], [])[0]
            for number in self._noticed.take():
                if number == signal.SIGCHLD:
                    self._reap()
                else:
                    self._tell(number)
            if self._channel not in ready:
                continue
            for message in self._receive():
                if "code" in message:
                    return int(message["code"])
                self._program = message.get("program", self._program)
                if "broken" in message:
                    self._close(message["broken"])
            if self._channel.fileno() < 0:
                return self._go_on_alone()

    def _receive(self) -> list[dict[str, Any]]:
        try:
            data = self._channel.recv(1 << 16)
        except ConnectionError:
            data = b""
        if not data:
            self._channel.close()
        *lines, self._received = (self._received + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def _tell(self, number: int) -> None:
        with contextlib.suppress(OSError):  # it is gone, or says so in a moment
            self._channel.sendall(b"%d\n" % number)

    def _close(self, number: int) -> None:
        for stream in self._streams:
            if stream.number == number:
                stream.close_source()

    def _reap(self) -> None:
        """Take the ends of what is ours by now: orphans of the program come to us."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._program:
                    self._program_code = os.waitstatus_to_exitcode(status)

    # --- without a recorder ----------------------------------------------------------------------------------------

    def _go_on_alone(self) -> int:
        if self._program is None:
            print("runstone: the recorder ended before it could start the command", file=sys.stderr)
            return 1
        print("runstone: the recorder was killed; the command goes on without a record", file=sys.stderr)
        pumps = [Pump(stream) for stream in self._streams]
        while self._program_code is None and _is_there(self._program):
            select.select([self._noticed.fd], [], [], 0.1)
            for number in self._noticed.take():
                if number == signal.SIGTERM:
                    send(self._program, number)
            self._reap()
        wait_until_drained(pumps)
        return exit_code(self._program_code) if self._program_code is not None else 1


def _is_there(pid: int) -> bool:
    """Return whether a process runs, or has ended and waits for us to ask: not one whose end another has taken."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
