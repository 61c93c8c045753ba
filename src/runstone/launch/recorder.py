"""The process that starts a program, passes on what it prints, and records it. Outlives the one the user started."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from runstone import settings
from runstone.capture import redact
from runstone.console.store import ConsoleStore
from runstone.launch.events import EventFollower
from runstone.launch.joined import Joined
from runstone.launch.params import left_to_tell, nested, params_of_words, without_secrets
from runstone.launch.plan import Plan
from runstone.launch.signals import Noticed, Relay, exit_code, send
from runstone.launch.snapshot import Snapshot
from runstone.launch.streams import STDERR, Pump, Stream, wait_until_drained
from runstone.launch.verdict import Told, judge
from runstone.names import new_run_id, new_run_name
from runstone.params import to_json
from runstone.runlog.reader import read_journal
from runstone.runlog.writer import RunLog
from runstone.values import Failure
from runstone.workspace import attempt_to_join

if TYPE_CHECKING:
    from runstone.capture.metrics import Sampler

_TICK_S = 0.2
_UNOBSERVED_S = 60.0
"""How long a Python script has to take its command line apart, before its words are taken as they are."""
_SAMPLES_ITSELF_S = 15.0
_LAST_LOOK_S = 10.0
_SNAPSHOT_S = 3.0
_SIGNALLED_S = 30.0
_MOST_NOTES_BYTES = 64 << 20


def record(plan: Plan, streams: list[Stream], channel: socket.socket) -> NoReturn:
    """Run a command, record it, and tell its exit code through the channel. Ends the process.

    Args:
        plan: What is run.
        streams: Its outputs; none: it has ours.
        channel: To the front. From it: numbers of signals. To it, one JSON object a line: `program` (its pid), `code`
            (the exit code), `broken` (a stream that nobody reads any more).
    """
    try:
        pumps = _Recorder(plan, streams, channel).run()
        channel.close()
        for pump in pumps:  # what the program left behind may go on writing
            pump.join()
    except BaseException as error:  # the front goes on without us
        _say(f"recording failed: {type(error).__name__}: {error}")
    finally:
        os._exit(0)


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"runstone: {text}\n".encode(errors="replace"))


class _Recording:
    """The run's files, as the recorder writes them. Nothing here raises: a record is never worth the program.

    Args:
        plan: What is run.

    Raises:
        OSError, RunstoneError: the run cannot be made.
    """

    def __init__(self, plan: Plan) -> None:
        self.own: set[str] = set()
        self._log = _open_run(plan)
        self.path = self._log.path
        self.id = self.path.name
        self.name = read_journal(self.path).name
        self.attempt = self._log.attempt
        self.created_at = read_journal(self.path).created_at
        # What is recorded here besides how the run began and ended. Not by the launcher: whoever does the run again
        # takes a launcher's params for those of a sweep.
        self._notes = RunLog(self.path, role="child", attempt=self.attempt)
        self.writer = self._log.writer.hex()
        self.own |= {self.writer, self._notes.writer.hex()}
        self.joined = Joined(self.path, self.own)
        if plan.tags:
            self.event("tags", set=dict(plan.tags), remove=[])
        self.params(plan.params, by_user=True)

    @property
    def word(self) -> int:
        """The run's stop word."""
        return int(self._log.control[0])

    def event(self, event: str, /, **fields: Any) -> None:
        """Write an event into the journal."""
        with contextlib.suppress(OSError):
            self._notes.write(event, **fields)

    def warning(self, kind: str, message: str) -> None:
        """Note what could not be recorded."""
        self.event("warning", kind=kind, message=message)

    def metrics(self, values: Any, step: int) -> None:
        """Log values at a step; raises `OSError` as the sampler expects."""
        self._notes.points.log(values, step)

    def params(self, found: Any, *, by_user: bool = False) -> None:
        """Record params that are no secrets; without those that the program has set, unless the user named them."""
        converted, _places = to_json(dict(found))
        assert isinstance(converted, dict)  # noqa: S101 - a mapping becomes an object
        clean = without_secrets(converted)
        left = clean if by_user else left_to_tell(clean, self.path, frozenset(self.own))
        if left:
            self.event("params", params=left)

    def end(self, status: str, failure: Failure | None, code: int) -> None:
        """Say how the run ended, where it does not say so itself."""
        self.event("exited", code=exit_code(code), signal=-code if code < 0 else None)
        told = {"type": failure.type, "message": failure.message, "traceback": failure.traceback} if failure else None
        with contextlib.suppress(OSError):
            self._log.write("end", status=status, failure=told, dropped=self._notes.points.dropped)
        self._notes.close()
        self._log.close(status)


def _open_run(plan: Plan) -> RunLog:
    """Make the run; in a trial of a sweep, take that of the trial."""
    standing = settings.read("RUNSTONE_RUN_ID") if settings.read("RUNSTONE_TRIAL") is not None else None
    folder = plan.workspace.find_run_folder(standing) if standing is not None else None
    if folder is not None:
        journal = read_journal(folder)
        return RunLog(folder, role="launcher", attempt=attempt_to_join(journal))
    run_id = new_run_id()
    created = {
        "run_id": run_id,
        "project": plan.project,
        "name": plan.name or new_run_name(run_id),
        "group": plan.group,
        "notes": None,
        "parent": None,
    }
    return plan.workspace.open_new_run(created, role="launcher")


class _Recorder:
    """One program, from its start to its end."""

    def __init__(self, plan: Plan, streams: list[Stream], channel: socket.socket) -> None:
        self._plan = plan
        self._streams = streams
        self._channel = channel
        self._received = b""
        self._relay = Relay()
        # A Ctrl-Z is for the program; we write on.
        self._noticed = Noticed(signal.SIGTSTP, signal.SIGWINCH)
        self._recording: _Recording | None = None
        self._console: ConsoleStore | None = None
        self._sampler: Sampler | None = None
        self._follower: EventFollower | None = None
        self._notes_fd: int | None = None
        self._notes = b""
        self._told: Told | None = None
        self._is_observed = False
        self._joined_s: float | None = None
        self._is_handed_over = False
        self._asked_s: float | None = None
        self._is_killed = False
        self._has_complained = False
        self._started_s = 0.0

    def run(self) -> list[Pump]:
        """Start the program and return when it has ended and all is recorded, with what passes on its outputs."""
        if not self._open():
            self._tell({"code": 1})
            return []
        environment = self._environment()
        program = self._start(environment)
        if program is None:
            return []
        keep = self._console.feed if self._console is not None else (lambda _number, _data: None)
        pumps = [Pump(stream, keep=keep, is_broken=self._break) for stream in self._streams]
        recording = self._recording
        snapshot: Snapshot | None = None
        if recording is not None:
            with self._whatever_happens():
                if self._plan.takes_environment:
                    snapshot = Snapshot(self._plan.command, program.pid, recording.path, recording.writer, environment)
                self._follow(recording, program.pid)
        while program.poll() is None:
            self._turn(program)
        wait_until_drained(pumps)
        if recording is not None:
            with self._whatever_happens():
                self._finish(recording, program, snapshot)
        self._tell({"code": exit_code(program.returncode)})
        return pumps

    @contextlib.contextmanager
    def _whatever_happens(self) -> Iterator[None]:
        """Tell once of what goes wrong in recording, and go on: the program is worth more."""
        try:
            yield
        except Exception as error:
            if not self._has_complained:
                self._has_complained = True
                _say(f"not all could be recorded: {type(error).__name__}: {error}")

    # --- the start -------------------------------------------------------------------------------------------------

    def _open(self) -> bool:
        """Make the run; return whether the program is to be started."""
        try:
            self._recording = _Recording(self._plan)
        except Exception as error:
            if self._plan.on_error == "raise":
                _say(f"the run cannot be recorded, and was not started: {type(error).__name__}: {error}")
                return False
            _say(f"the run cannot be recorded: {type(error).__name__}: {error}; it goes on without a record")
            return True
        recording = self._recording
        command = self._plan.command
        recording.event(
            "command", argv=redact.arguments(command.given), cwd=str(Path.cwd()), is_python=command.is_python
        )
        if not command.is_python:
            recording.params(params_of_words(command.arguments))
        if self._plan.keeps_console:
            self._console = ConsoleStore(recording.path, recording.writer)
        if os.isatty(2):
            _say(f"run {recording.name}, id {recording.id[-8:]}")
        return True

    def _environment(self) -> dict[str, str]:
        environment = dict(settings.process_environment())
        recording = self._recording
        if recording is None:
            return environment
        environment.pop("RUNSTONE_NAME", None)  # it is the name of this run, and of no other
        environment["RUNSTONE_WORKSPACE"] = str(self._plan.workspace.path)
        environment["RUNSTONE_PROJECT"] = self._plan.project
        environment["RUNSTONE_RUN_ID"] = recording.id
        if self._plan.group is not None:
            environment["RUNSTONE_GROUP"] = self._plan.group
        interval_s = self._plan.interval_s
        environment["RUNSTONE_SYSTEM_METRICS"] = "0" if interval_s is None else f"{interval_s:g}"
        return environment

    def _start(self, environment: dict[str, str]) -> subprocess.Popen[bytes] | None:
        """Start the program; where that fails, say why and end the run."""
        sinks = {stream.number: stream.sink for stream in self._streams}
        both = sinks.get(3)
        fds: list[int] = []
        words = list(self._plan.command.given)
        if self._plan.command.is_python and self._recording is not None:
            self._notes_fd, told = os.pipe()
            os.set_blocking(self._notes_fd, False)
            os.set_blocking(told, False)  # a script never waits for us
            fds = [told]
            words = self._plan.command.words(told)
        self._started_s = time.monotonic()
        try:
            # In our own group and session: the terminal's keys and job control reach it as if we were not there.
            program = subprocess.Popen(
                words,
                env=environment,
                stdout=both if both is not None else sinks.get(1),
                stderr=both if both is not None else sinks.get(2),
                pass_fds=fds,
            )
        except OSError as error:
            reason = f"cannot start {words[0]}: {error.strerror or error}"
            _say(reason)
            if self._recording is not None:
                self._recording.end("failed", Failure(type(error).__name__, reason, ""), 126)
            self._tell({"code": 126})
            return None
        finally:
            for stream in self._streams:
                stream.close_sink()
            for fd in fds:
                os.close(fd)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # we write to the terminal whoever is in front of it
        self._tell({"program": program.pid})
        return program

    def _follow(self, recording: _Recording, pid: int) -> None:
        """Begin to sample the machine, and to follow event files."""
        self._sample(recording, pid)
        if self._plan.event_files is not None:
            self._follower = EventFollower(
                recording.path,
                recording.attempt,
                self._plan.event_files,
                cwd=Path.cwd(),
                pid=pid,
                started_at=time.time(),
                own=recording.own.add,
                keeps_itself=recording.joined.logs_metrics,
                add_params=lambda found: recording.params(nested(found)),
            )

    def _sample(self, recording: _Recording, pid: int) -> None:
        if self._plan.interval_s is None:
            return
        from runstone.capture.metrics import start_sampler  # only where wanted

        self._sampler = start_sampler(
            recording.metrics,
            interval_s=self._plan.interval_s,
            started_at=recording.created_at,
            store=recording.path,
            pid=pid,
            note=lambda message: recording.warning("system-metrics", message),
        )

    # --- while it runs ---------------------------------------------------------------------------------------------

    def _turn(self, program: subprocess.Popen[bytes]) -> None:
        """Wait for news, at most for a tick, and see to everything."""
        fds: list[Any] = [self._noticed.fd]
        if self._channel.fileno() >= 0:
            fds.append(self._channel)
        if self._notes_fd is not None:
            fds.append(self._notes_fd)
        with contextlib.suppress(OSError):
            select.select(fds, [], [], _TICK_S / 4 if self._relay.is_waiting else _TICK_S)
        for number in self._noticed.take():
            if number == signal.SIGWINCH:
                for stream in self._streams:
                    stream.copy_size()
                send(program.pid, signal.SIGWINCH)
            elif number not in (signal.SIGCHLD, signal.SIGTSTP):
                self._relay.note_own(number)
        for number in self._asked_by_front():
            self._relay.ask(number)
        for number in self._relay.due():
            send(program.pid, number)
        if self._console is not None:
            self._console.flush()
        recording = self._recording
        if recording is not None:
            with self._whatever_happens():
                self._take_notes(recording)
                self._see_who_joined(recording, program.pid)
                self._see_stop(recording, program.pid)

    def _asked_by_front(self) -> Iterator[int]:
        if self._channel.fileno() < 0:
            return
        try:
            data = self._channel.recv(4096, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:  # the front was killed; the program goes on, and so does its record
            self._channel.close()
            return
        *lines, self._received = (self._received + data).split(b"\n")
        yield from map(int, lines)

    def _tell(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            self._channel.sendall(json.dumps(message).encode() + b"\n")

    def _break(self, stream: Stream) -> None:
        """Let the program know, as it would without us, that nobody reads what it prints."""
        self._tell({"broken": stream.number})

    def _take_notes(self, recording: _Recording) -> None:
        """Take what a Python script tells of its command line and its end."""
        if self._notes_fd is not None:
            with contextlib.suppress(BlockingIOError):
                while len(self._notes) < _MOST_NOTES_BYTES:
                    data = os.read(self._notes_fd, 1 << 16)
                    if not data:
                        os.close(self._notes_fd)
                        self._notes_fd = None
                        break
                    self._notes += data
            *lines, self._notes = self._notes.split(b"\n")
            for line in lines:
                with contextlib.suppress(ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError):
                    self._take_note(recording, ast.literal_eval(line.decode()))
        is_late = time.monotonic() - self._started_s >= _UNOBSERVED_S
        if self._plan.command.is_python and not self._is_observed and is_late:
            self._take_words(recording)

    def _take_note(self, recording: _Recording, note: dict[str, Any]) -> None:
        if "params" in note:
            self._is_observed = True
            params = _with_floats(note["params"])
            recording.params(params if note.get("is_exact") else nested(params))
        elif "failure" in note:
            told = note["failure"]
            failure = Failure(str(told["type"]), str(told["message"]), str(told["traceback"]))
            self._told = Told(failure, tuple(note["is"]))

    def _take_words(self, recording: _Recording) -> None:
        self._is_observed = True
        recording.params(params_of_words(self._plan.command.arguments))

    def _see_who_joined(self, recording: _Recording, pid: int) -> None:
        """Leave the system metrics to a program that records by itself, unless it does not take them."""
        now_s = time.monotonic()
        if self._joined_s is None and recording.joined.look():
            self._joined_s = now_s
            if self._sampler is not None:
                self._sampler.stop()
                self._sampler = None
        if self._joined_s is None or self._is_handed_over or now_s - self._joined_s < _SAMPLES_ITSELF_S:
            return
        self._is_handed_over = True
        if not recording.joined.logs_system_metrics():
            self._sample(recording, pid)

    def _see_stop(self, recording: _Recording, pid: int) -> None:
        """End a program that was asked to stop and does not read that by itself."""
        if not recording.word or self._joined_s is not None:
            return
        now_s = time.monotonic()
        if self._asked_s is None:
            self._asked_s = now_s
            send(pid, signal.SIGTERM)
        elif not self._is_killed and now_s - self._asked_s >= self._plan.grace_s:
            self._is_killed = True
            send(pid, signal.SIGKILL, whole_tree=True)

    # --- the end ---------------------------------------------------------------------------------------------------

    def _finish(self, recording: _Recording, program: subprocess.Popen[bytes], snapshot: Snapshot | None) -> None:
        if self._sampler is not None:
            self._sampler.stop()
        self._take_notes(recording)
        if self._plan.command.is_python and not self._is_observed:
            self._take_words(recording)
        tail = ""
        if self._console is not None:
            self._console.close()
            tail = self._console.tail(STDERR) or self._console.tail(3)
            if self._console.trouble is not None:
                recording.warning("console", f"not all that was printed could be kept: {self._console.trouble}")
        if self._follower is not None:
            self._follower.finish(_LAST_LOOK_S)
            self._tell_of_events(recording, self._follower)
        if snapshot is not None and not snapshot.join(_SNAPSHOT_S):
            recording.warning("environment", "the program ended before its environment was known")
        was_signalled = time.monotonic() - self._relay.last_at < _SIGNALLED_S
        status, failure = judge(
            program.returncode, word=recording.word, was_signalled=was_signalled, told=self._told, tail=tail
        )
        recording.end(str(status), failure, program.returncode)

    def _tell_of_events(self, recording: _Recording, follower: EventFollower) -> None:
        if follower.trouble is not None:
            recording.warning("tensorboard", follower.trouble)
        left = ", ".join(f"{count} x {kind}" for kind, count in follower.left_out.items() if count)
        if left:
            recording.warning(
                "tensorboard", f"not followed in TensorBoard files: {left}; `runstone import tensorboard` takes them"
            )


def _with_floats(value: Any) -> Any:
    """Return what a script told with the floats that a literal lacks."""
    if isinstance(value, dict):
        if value.keys() == {"$float"}:
            return float(value["$float"])
        return {name: _with_floats(item) for name, item in value.items()}
    return [*map(_with_floats, value)] if isinstance(value, list) else value
