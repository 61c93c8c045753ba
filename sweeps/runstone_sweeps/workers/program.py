"""The worker: runs trials for the coordinator that it is connected to, and keeps them while it is not."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import secrets
import select
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import runstone
from runstone import RunstoneError
from runstone_sweeps.executors.executor import TrialEnded, TrialLost, TrialStart, TrialStarted
from runstone_sweeps.executors.local import LocalExecutor
from runstone_sweeps.executors.slots import GpuSlots, NoGpus, usable_cores
from runstone_sweeps.processes.trials import SupervisorLost, TrialProcesses
from runstone_sweeps.spec.options import Resources
from runstone_sweeps.workers.address import Address
from runstone_sweeps.workers.code import MOST_BYTES, CodeNotShipped, unpack_code
from runstone_sweeps.workers.connecting import NotConnected, Refused, connect
from runstone_sweeps.workers.link import LinkBroken
from runstone_sweeps.workers.messages import Message, Talk
from runstone_sweeps.workers.token import TOKEN_VARIABLE
from runstone_sweeps.workers.trials import HostedTrial, Name

# While trials record something, while they have not for some seconds, and without any.
_TICK_S, _QUIET_TICK_S, _IDLE_TICK_S = 0.02, 0.05, 0.25
_QUIET_AFTER_S = 5.0
_BLOBS_EVERY_S = 2.0
_BEAT_S = 2.0
_RETRY_S = 1.0
# A coordinator may think about its next trial for long; it says nothing meanwhile.
_SILENT_S = 120.0
_TERM_S = 10.0
_SAY_GOODBYE_S = 15.0
_ABANDONED_S = 86_400.0


class CannotTakePart(RunstoneError):
    """This host cannot run the trials of this sweep."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a worker is told.

    Attributes:
        address: Of the coordinator.
        token: Of the sweep.
        slots: Trials at once; `None`: as many as there are GPUs for, or cores where the config says `cpus`, else one.
        gpus: GPUs that trials may use, as `CUDA_VISIBLE_DEVICES` names them; `None`: all that are visible.
        for_s: Seconds after which trials are ended and go elsewhere; `None`: no limit.
        idle_exit_s: Seconds without a trial after which it ends; `None`: it does not.
        patience_s: Seconds without a coordinator after which it gives up, and its trials.
        folder: Where the sweep's folder lies on this host; `None`: at the same path, or as it is sent.
        spool: For what trials record; `None`: below `~/.local/state`.
        authority: Certificate that signed the coordinator's.
        id: 16 hex digits; drawn.
    """

    address: Address
    token: bytes
    slots: int | None = None
    gpus: str | None = None
    for_s: float | None = None
    idle_exit_s: float | None = None
    patience_s: float = 600.0
    folder: Path | None = None
    spool: Path | None = None
    authority: Path | None = None
    id: str = ""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a coordinator says of its sweep."""

    sweep: str
    workspace: Path
    is_shared: bool
    folder: Path
    working_dir: Path
    python: str
    code: str | None
    resources: Resources
    is_warm: bool
    preload: tuple[str, ...]


class WorkerProgram:
    """Runs until its coordinator needs it no more, its time is over, or someone ends it.

    Args:
        options: What it is told.
        environment: Of this process.
        say: Takes a line for the user.
    """

    def __init__(self, options: WorkerOptions, environment: Mapping[str, str], say: Callable[[str], None]) -> None:
        self._options = options
        self._environment = {name: value for name, value in environment.items() if name != TOKEN_VARIABLE}
        if options.gpus is not None:
            self._environment["CUDA_VISIBLE_DEVICES"] = options.gpus
        self._say = say
        self._id = options.id or secrets.token_hex(8)
        self._spool = _make_spool(options.spool or _default_spool(environment), self._id)
        self._facts = self._spool.path / "facts"
        self._talk: Talk | None = None
        self._terms: Terms | None = None
        self._processes: TrialProcesses | None = None
        self._executor: LocalExecutor | None = None
        self._slots = 0
        self._folder: Path | None = None
        self._code = bytearray()
        self._trials: dict[int, HostedTrial] = {}
        self._count = 0
        self._signals: list[int] = []
        now_s = time.monotonic()
        self._begun_s = self._busy_s = self._gone_s = self._heard_s = now_s
        self._retry_s = self._beat_s = self._blobs_s = self._found_s = self._looked_s = 0.0
        self._was_connected = False
        self._why: str | None = None
        self._leaving_s: float | None = None
        self._is_draining = False
        self._is_over = False
        self._result = 0

    def run(self) -> int:
        """Work; return the exit code: 0, or 1 where it could not reach the coordinator, or not take part."""
        with self._catching_signals():
            try:
                while not self._is_done():
                    self._step()
                return self._result
            finally:
                self.close()

    def close(self) -> None:
        """End what runs, and remove what lies here."""
        if self._talk is not None:
            self._talk.link.close()
        if self._executor is not None:
            self._executor.close()
        if self._processes is not None:
            self._processes.close()
        self._spool.remove()

    # --- the loop --------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        self._connect_if_due(time.monotonic())
        self._wait()
        self._hear()
        self._look_after_processes()
        now_s = time.monotonic()
        self._start_waiting()
        self._ship(now_s)
        self._beat(now_s)
        self._look_for_reasons_to_end(now_s)

    def _wait(self) -> None:
        now_s = time.monotonic()
        is_active = bool(self._trials) and self._talk is not None
        timeout_s = (
            (_TICK_S if now_s - self._found_s < _QUIET_AFTER_S else _QUIET_TICK_S) if is_active else _IDLE_TICK_S
        )
        link = self._talk.link if self._talk is not None else None
        if link is not None and link.has_more:
            timeout_s = 0.0
        readers = [each for each in (link, self._processes) if each is not None]
        writers = [link] if link is not None and link.wants_write else []
        with contextlib.suppress(InterruptedError):
            _, writable, _ = select.select(readers, writers, [], timeout_s)
            if writable:
                self._through(lambda talk: talk.link.flush())

    def _through(self, action: Callable[[Talk], object]) -> None:
        """Do something with the connection; where it turns out to be broken, let go of it."""
        if self._talk is None:
            return
        try:
            action(self._talk)
        except (LinkBroken, OSError) as error:
            self._disconnect(str(error))

    def _connect_if_due(self, now_s: float) -> None:
        if self._talk is not None or now_s < self._retry_s or self._is_over:
            return
        self._retry_s = now_s + _RETRY_S
        options = self._options
        try:
            talk = connect(options.address, options.token, options.authority)
        except NotConnected as error:
            self._why = str(error)
            return
        except Refused as error:
            self._why = str(error)
            if not self._was_connected:
                self._give_up(str(error))
            return
        self._talk, self._was_connected = talk, True
        self._heard_s = time.monotonic()
        versions = {"runstone": runstone.__version__, "python": platform.python_version()}
        claims = [
            {"sweep": trial.name.sweep, "key": trial.name.key, "attempt": trial.name.attempt}
            for trial in self._trials.values()
            if trial.run
        ]
        for local, trial in list(self._trials.items()):
            if not trial.run:  # its order was lost with the last connection
                del self._trials[local]
                trial.remove()
        self._through(
            lambda talk: talk.say(
                "join", worker=self._id, host=socket.gethostname(), pid=os.getpid(), versions=versions, trials=claims
            )
        )

    def _disconnect(self, reason: str) -> None:
        if self._talk is not None:
            self._talk.link.close()
            self._talk = None
            self._gone_s = time.monotonic()
            self._retry_s = self._gone_s + _RETRY_S / 4
            if not self._is_over and self._leaving_s is None:
                keeps = f"; keeping {len(self._trials)} trials" if self._trials else ""
                self._say(f"the connection is gone ({reason}); trying again for {self._options.patience_s:g} s{keeps}")

    # --- what the coordinator says ---------------------------------------------------------------------------------

    def _hear(self) -> None:
        def hear(talk: Talk) -> None:
            for message in talk.hear():
                self._heard_s = time.monotonic()
                self._obey(message)
                if self._talk is not talk:
                    return

        self._through(hear)
        if self._talk is not None and time.monotonic() - self._heard_s > _SILENT_S:
            self._disconnect(f"it was silent for {_SILENT_S:g} s")

    def _obey(self, message: Message) -> None:
        match message.kind:
            case "beat":
                pass
            case "welcome":
                self._on_welcome(message)
            case "code":
                self._on_code(message)
            case "farewell":
                self._is_over = message.fields.get("is_over") is True
                self._disconnect("the coordinator ended")
                if self._is_over:
                    self._say("the sweep is done")
            case "seed":
                self._trial_to_be(message).take_seed(message)
            case "start":
                self._busy_s = time.monotonic()
                self._trial_to_be(message).prepare(message)
            case _:
                self._obey_for_trial(message)

    def _obey_for_trial(self, message: Message) -> None:
        name = Name.of(self._terms.sweep if self._terms is not None else "", message)
        found = next(((local, trial) for local, trial in self._trials.items() if trial.name == name), None)
        if found is None:
            return
        local, trial = found
        match message.kind:
            case "signal":
                number = message.number("signal", least=1)
                if number in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
                    self._send_signal(local, trial, signal.Signals(number))
            case "word":
                trial.stop(message.text("reason"))
            case "content":
                trial.hear_of_content(message)
            case "forget":
                self._forget(local, trial)

    def _forget(self, local: int, trial: HostedTrial) -> None:
        """Drop a trial whose coordinator has all of it, or does not want it any more."""
        if trial.result is None and trial.is_started:
            trial.is_to_die = True
            self._send_signal(local, trial, signal.SIGKILL)
            return
        del self._trials[local]
        trial.remove()

    def _on_welcome(self, message: Message) -> None:
        try:
            terms = _terms(message)
        except (TypeError, ValueError, KeyError) as error:
            raise LinkBroken(f"the coordinator says what this version does not understand: {error}") from None
        is_same = self._terms is not None and self._terms.sweep == terms.sweep
        have = message.entry("have")
        for local, trial in list(self._trials.items()):
            there = have.get(str(trial.name.key))
            if trial.name.sweep == terms.sweep and isinstance(there, dict):
                trial.reconnect(there)
            else:
                self._forget(local, trial)
        if not is_same:
            self._stop_processes()
        self._terms = terms
        try:
            self._get_ready(terms)
        except (CannotTakePart, NoGpus) as error:
            self._refuse(error)

    def _refuse(self, error: Exception) -> None:
        self._through(lambda talk: talk.say("unable", reason=str(error)))
        self._give_up(str(error))

    def _get_ready(self, terms: Terms) -> None:
        """Find the code, and say that trials may come; where the code has to be fetched first, ask for it.

        Raises:
            CannotTakePart: it is not here.
            NoGpus: trials take GPUs that are not here.
        """
        if self._options.folder is not None:
            self._folder = self._options.folder.absolute()
        elif terms.code is not None:
            self._folder = self._spool.path / f"code.{terms.code[:16]}"
            if not self._folder.is_dir():
                self._code.clear()
                self._through(lambda talk: talk.say("want_code"))
                return
        else:
            self._folder = terms.folder
        working_dir = self._local_path(str(terms.working_dir))
        if not Path(working_dir).is_dir():
            raise CannotTakePart(
                f"there is no folder {working_dir} on {socket.gethostname()}; say where it is with --folder, or let "
                "the coordinator send it with ship_code: true"
            )
        if self._processes is None:
            self._start_processes(terms)
        if self._leaving_s is None and not self._is_draining:
            where = "the shared workspace" if terms.is_shared else "the coordinator, through this worker"
            self._say(f"joined sweep {terms.sweep} with {self._slots} slots; trials record into {where}")
            self._through(lambda talk: talk.say("ready", slots=self._slots, is_shared=terms.is_shared))

    def _on_code(self, message: Message) -> None:
        terms = self._terms
        size = message.number("size")
        if terms is None or terms.code is None or self._folder is None or size > MOST_BYTES:
            raise LinkBroken("code came that was not asked for")
        self._code += message.data
        if len(self._code) < size:
            return
        try:
            unpack_code(bytes(self._code), terms.code, self._folder)
            self._code.clear()
            self._get_ready(terms)
        except (CodeNotShipped, CannotTakePart, NoGpus) as error:
            self._refuse(error)

    # --- processes -------------------------------------------------------------------------------------------------

    def _start_processes(self, terms: Terms) -> None:
        resources, environment = terms.resources, self._environment
        slots = self._options.slots
        if resources.gpus:
            gpus = GpuSlots(resources, environment)
            slots = min(slots or gpus.count, gpus.count)
            gpus.close()
        # Where its trials hand each other what they know of this host; uncommitted code may be in it.
        self._facts.mkdir(mode=0o700, exist_ok=True)
        self._slots = slots or (max(1, usable_cores() // resources.cpus) if resources.cpus else 1)
        self._processes = TrialProcesses(preload=terms.preload)
        self._executor = LocalExecutor(
            self._processes, resources, parallel=self._slots, environment=environment, is_warm=terms.is_warm
        )

    def _stop_processes(self) -> None:
        if self._executor is not None:
            self._executor.close()
        if self._processes is not None:
            self._processes.close()
        self._executor = self._processes = None
        for trial in self._trials.values():
            trial.remove()
        self._trials.clear()

    def _trial_to_be(self, message: Message) -> HostedTrial:
        """Return the trial of an order; the first word of it makes it."""
        terms = self._terms
        if terms is None:
            raise LinkBroken("a trial came before the sweep")
        name = Name.of(terms.sweep, message)
        for trial in self._trials.values():
            if trial.name == name:
                if trial.run:
                    raise LinkBroken("a trial was started twice")
                return trial
        self._count += 1
        home = self._spool.path / f"{self._count}"
        trial = HostedTrial(name, home=home, workspace=terms.workspace, is_here=terms.is_shared)
        self._trials[self._count] = trial
        return trial

    def _start_waiting(self) -> None:
        executor, terms = self._executor, self._terms
        if executor is None or terms is None or self._leaving_s is not None:
            return
        for local, trial in list(self._trials.items()):
            if trial.is_started or not trial.run or trial.result is not None or not executor.has_room():
                continue
            trial.is_started = True
            try:
                executor.start(self._start_of(local, trial))
            except SupervisorLost as error:
                self._lose_all(str(error))
                return
            except (OSError, TypeError, ValueError, KeyError) as error:
                trial.end({"lost": f"it could not be started: {error}", "is_preempted": True})

    def _start_of(self, local: int, trial: HostedTrial) -> TrialStart:
        order, terms = trial.order, self._terms
        assert terms is not None  # noqa: S101  # no order comes before the terms
        files = trial.files()
        argv = []
        for word in map(str, order["argv"]):
            if word == terms.python:
                word = sys.executable
            for there, here in files.items():
                word = word.replace(there, here)
            argv.append(self._local_path(word))
        env = {**self._environment, **{str(name): str(value) for name, value in order["env"].items()}}
        env["RUNSTONE_WORKSPACE"] = str(trial.workspace)
        env["RUNSTONE_FACTS"] = str(self._facts)
        console = trial.folder / f"console.{trial.name.attempt}.log"
        cwd = Path(self._local_path(str(order["cwd"])))
        return TrialStart(local, trial.name.attempt, argv, env, cwd, console)

    def _local_path(self, word: str) -> str:
        """Return a word of a command line with the sweep's folder as it lies here."""
        there, here = str(self._terms.folder) if self._terms is not None else "", str(self._folder)
        if there in ("", here):
            return word
        return here if word == there else word.replace(f"{there}{os.sep}", f"{here}{os.sep}")

    def _send_signal(self, local: int, trial: HostedTrial, sent: signal.Signals) -> None:
        if trial.is_started and trial.result is None and self._executor is not None:
            try:
                self._executor.send_signal(local, sent)
            except SupervisorLost as error:
                self._lose_all(str(error))

    def _look_after_processes(self) -> None:
        if self._executor is None:
            return
        try:
            for news in self._executor.poll(0.0):
                self._on_news(news)
        except SupervisorLost as error:
            self._lose_all(str(error))
        for note in self._executor.take_notes() if self._executor is not None else ():
            self._through(lambda talk, note=note: talk.say("note", text=note))  # type: ignore[misc]

    def _on_news(self, news: TrialStarted | TrialEnded | TrialLost) -> None:
        trial = self._trials.get(news.key)
        if trial is None:
            return
        if isinstance(news, TrialStarted):
            trial.pid = news.pid
            return
        self._busy_s = time.monotonic()
        if isinstance(news, TrialLost):
            trial.end({"lost": news.reason, "is_preempted": news.is_preempted})
        elif self._leaving_s is not None and news.code != 0:
            trial.end({"lost": "its worker was ended", "is_preempted": True})
        else:
            trial.end(
                {
                    "code": news.code,
                    "is_over_memory": news.is_over_memory,
                    "was_oom_killer_here": news.was_oom_killer_here,
                    "cpu_s": news.cpu_s,
                    "max_rss_bytes": news.max_rss_bytes,
                }
            )
        if trial.is_to_die:
            self._forget(news.key, trial)

    def _lose_all(self, reason: str) -> None:
        """Take note that all trials are gone, and start over."""
        for trial in self._trials.values():
            if trial.is_started and trial.result is None:
                trial.end({"lost": reason, "is_preempted": True})
        if self._executor is not None:
            self._executor.close()
        if self._processes is not None:
            self._processes.close()
        self._executor = self._processes = None
        if self._terms is not None:
            self._start_processes(self._terms)

    # --- what is sent ----------------------------------------------------------------------------------------------

    def _ship(self, now_s: float) -> None:
        is_time_for_blobs = now_s - self._blobs_s > _BLOBS_EVERY_S
        if is_time_for_blobs:
            self._blobs_s = now_s
        for trial in list(self._trials.values()):

            def ship(talk: Talk, trial: HostedTrial = trial) -> None:
                if is_time_for_blobs:
                    trial.look_for_blobs()
                if trial.ship(talk):
                    self._found_s = now_s

            self._through(ship)

    def _beat(self, now_s: float) -> None:
        if now_s - self._beat_s > _BEAT_S:
            self._beat_s = now_s
            is_leaving = self._leaving_s is not None or self._is_draining
            self._through(lambda talk: talk.say("beat", is_leaving=is_leaving))

    # --- ends ------------------------------------------------------------------------------------------------------

    def _look_for_reasons_to_end(self, now_s: float) -> None:
        options = self._options
        if self._trials:
            self._busy_s = now_s
        if len(self._signals) > 1 or signal.SIGTERM in self._signals:
            self._leave(now_s, "ended from outside")
        elif self._signals and not self._is_draining:
            self._is_draining = True
            self._say(
                f"no more trials; {len(self._trials)} run to their end (once more: they are ended, and go elsewhere)"
            )
            self._through(lambda talk: talk.say("leave"))
        if options.for_s is not None and now_s - self._begun_s >= options.for_s:
            self._leave(now_s, "its time is over")
        if options.idle_exit_s is not None and now_s - self._busy_s >= options.idle_exit_s:
            self._leave(now_s, "there was nothing to do")
        if self._talk is None and not self._is_over:
            if now_s - self._gone_s >= options.patience_s:
                self._give_up(f"there is no coordinator at {options.address} ({self._why})")
            if now_s - self._looked_s > 1.0:
                self._looked_s = now_s
                self._end_those_that_were_given_up()
        if self._leaving_s is not None and now_s - self._leaving_s > _TERM_S:
            for local, trial in list(self._trials.items()):
                self._send_signal(local, trial, signal.SIGKILL)

    def _end_those_that_were_given_up(self) -> None:
        """End trials in a shared workspace that the coordinator, out of reach, has started elsewhere."""
        for local, trial in list(self._trials.items()):
            home = trial.workspace / "sweeps" / trial.name.sweep / "workers"
            if trial.is_shared and (home / f"lost.{trial.name.key}.{trial.name.attempt}").exists():
                self._forget(local, trial)

    def _leave(self, now_s: float, reason: str) -> None:
        if self._leaving_s is not None:
            return
        self._leaving_s = now_s
        self._say(f"leaving: {reason}" + (f"; {len(self._trials)} trials go elsewhere" if self._trials else ""))
        self._through(lambda talk: talk.say("leave"))
        for local, trial in list(self._trials.items()):
            if trial.is_started:
                self._send_signal(local, trial, signal.SIGTERM)
            elif trial.result is None:
                trial.end({"lost": "its worker was ended", "is_preempted": True})

    def _give_up(self, reason: str) -> None:
        self._say(reason)
        self._is_over, self._result = True, 1
        self._disconnect(reason)

    def _is_done(self) -> bool:
        if self._is_over:
            return True
        if self._is_draining and not self._trials:
            return True
        if self._leaving_s is None:
            return False
        has_all = not self._trials
        is_late = time.monotonic() - self._leaving_s > _TERM_S + _SAY_GOODBYE_S
        return has_all or is_late

    @contextlib.contextmanager
    def _catching_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, _frame: FrameType | None) -> None:
            self._signals.append(number)

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _terms(message: Message) -> Terms:
    told: dict[str, Any] = message.entry("resources")
    devices = told.get("devices")
    workspace = Path(message.text("workspace"))
    place, mark = message.entries("mark")
    return Terms(
        sweep=message.text("sweep"),
        workspace=workspace,
        is_shared=message.fields.get("is_shared") is True and _reads(workspace / str(place), str(mark)),
        folder=Path(message.text("folder")),
        working_dir=Path(message.text("working_dir")),
        python=message.text("python"),
        code=message.text("code") if message.fields.get("code") is not None else None,
        resources=Resources(
            gpus=float(told.get("gpus", 0.0)),
            devices=tuple(map(int, devices)) if devices is not None else None,
            cpus=int(told["cpus"]) if told.get("cpus") is not None else None,
            memory_bytes=int(told["memory_bytes"]) if told.get("memory_bytes") is not None else None,
        ),
        is_warm=message.fields.get("is_warm") is True,
        preload=tuple(map(str, message.entries("preload"))),
    )


def _reads(path: Path, mark: str) -> bool:
    """Return whether a file that the coordinator has just written is seen here: the workspace is shared."""
    try:
        return path.read_text() == mark
    except OSError:
        return False


def _default_spool(environment: Mapping[str, str]) -> Path:
    state = environment.get("XDG_STATE_HOME") or str(Path("~/.local/state").expanduser())
    return Path(state) / "runstone" / "workers"


class _Spool:
    """The folder of one worker, locked while it lives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, mode=0o700)
        self._fd = os.open(path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def remove(self) -> None:
        """Remove it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._fd)


def _make_spool(home: Path, worker_id: str) -> _Spool:
    """Make the folder of a worker; remove those that dead ones left: what lay there was started again elsewhere."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    for left in home.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime < _ABANDONED_S:
                continue
            fd = os.open(left / "lock", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(fd)
    return _Spool(home / f"{worker_id}.{secrets.token_hex(4)}")
