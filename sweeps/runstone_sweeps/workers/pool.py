"""The executor whose trials run on workers: hands trials out, takes in what they record, and knows who is lost."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import runstone
from runstone import InvalidConfig, Workspace
from runstone_sweeps.executors.executor import News, TrialEnded, TrialLost, TrialStart, TrialStarted
from runstone_sweeps.spec import SweepSpec
from runstone_sweeps.store import SweepFolder
from runstone_sweeps.workers.address import Address, listen, parse_address, server_tls
from runstone_sweeps.workers.code import Archive, pack_code
from runstone_sweeps.workers.landing import BlobLanding, Landing
from runstone_sweeps.workers.link import LinkBroken
from runstone_sweeps.workers.messages import DATA_BYTES, Message
from runstone_sweeps.workers.runfiles import RUN_FOLDER, close_writers, seeds
from runstone_sweeps.workers.sessions import Session, Sessions
from runstone_sweeps.workers.settings import PoolOptions
from runstone_sweeps.workers.token import TOKEN_VARIABLE, check_token, ensure_token, keep_token

BEAT_S = 2.0
_LONGEST_WAIT_S = 0.25
# For what a worker that came back has recorded meanwhile, before the first look at it.
_CATCH_UP_S = 10.0
_FAREWELL_S = 2.0
_NO_WORKER_S = 15.0
_WORDS = {1: "stop", 2: "prune"}
_ID = re.compile("[0-9a-f]{16}")
_ANY = ("0.0.0.0", "::")  # noqa: S104  # compared
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(slots=True)
class Handed:
    """A trial that a worker has.

    Attributes:
        key, attempt: Which one.
        worker: Id of the worker; `host`: its name.
        folder: Of the run, below `runs`.
        is_shared: Whether it records right there.
    """

    key: int
    attempt: int
    worker: str
    host: str
    folder: str
    is_shared: bool


@dataclass(slots=True)
class Worker:
    """One worker, over all its connections.

    Attributes:
        id: Drawn by its process.
        host: Name of its host.
        slots: Trials that it runs at once.
        session: Its connection; `None`: it is gone.
        gone_s: Monotonic time at which it went.
        is_ready: Whether it said that it can start trials.
        is_leaving: Whether it takes no more.
        is_shared: Whether it sees the workspace.
        keys: Its trials.
    """

    id: str
    host: str
    slots: int = 0
    session: Session | None = None
    gone_s: float = 0.0
    is_ready: bool = False
    is_leaving: bool = False
    is_shared: bool = False
    keys: set[int] = field(default_factory=set)

    @property
    def free(self) -> int:
        """How many more trials it takes."""
        return self.slots - len(self.keys) if self.session is not None and self.is_ready and not self.is_leaving else 0


class WorkerPool:
    """An executor that hands trials to workers on other hosts.

    Args:
        workspace: Of the coordinator; what trials record comes here.
        folder: Of the sweep.
        spec: What to run.
        options: How to listen.
        environment: Of the coordinator: what trials get beside it is sent, it itself is not.
        is_warm, preload: How trials start; see `warm.plan`.

    Raises:
        InvalidConfig: it cannot listen, or the code cannot be sent.
        BadToken: the token is too short, or open to others.
    """

    def __init__(
        self,
        workspace: Workspace,
        folder: SweepFolder,
        spec: SweepSpec,
        options: PoolOptions,
        *,
        environment: Mapping[str, str],
        is_warm: bool,
        preload: Sequence[str],
    ) -> None:
        self._workspace = workspace
        self._folder = folder
        self._spec = spec
        self._options = options
        self._environment = environment
        self._is_warm = is_warm
        self._preload = tuple(preload)
        self._home = folder.path / "workers"
        self._home.mkdir(mode=0o700, exist_ok=True)
        self._trials = self._home / "trials"
        self._trials.mkdir(exist_ok=True)
        self.token_file = self._home / "token"
        given = environment.get(TOKEN_VARIABLE)
        if given is not None:  # the file is what workers that are started from here read
            keep_token(self.token_file, check_token(given, TOKEN_VARIABLE))
        token = ensure_token(self.token_file)
        self._mark = secrets.token_hex(16)
        _write(self._home / "mark", self._mark)
        self._notes: list[str] = []
        self._code = self._pack() if options.ship_code else None
        tls = None
        if options.tls_cert is not None and options.tls_key is not None:
            tls = server_tls(options.tls_cert, options.tls_key)
        listener, self.address = self._listen()
        self._earlier = self._read_handed()
        self._sessions = Sessions(listener, token, tls, on_message=self._hear, on_close=self._closed)
        self._workers: dict[str, Worker] = {}
        self._handed: dict[int, Handed] = {}
        self._landings: dict[int, Landing] = {}
        self._words: dict[int, int] = {}
        self._catching_up: set[int] = set()
        self._blobs = BlobLanding(workspace, self._home / "contents")
        self._blobs.tidy()
        self._news: list[News] = []
        self._told: list[Handed] = []
        self._notes.append(self._invitation())
        self._beat_s = 0.0
        self._lonely_s = time.monotonic()
        self._is_over = False

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the workers."""
        self.close()

    # --- what a coordinator asks for -------------------------------------------------------------------------------

    def has_room(self) -> bool:
        """Return whether a worker is there that takes one more trial."""
        return any(worker.free > 0 for worker in self._workers.values())

    def start(self, start: TrialStart) -> None:
        """Hand a trial to the worker with the most room."""
        worker = max(self._workers.values(), key=lambda worker: worker.free)
        session = worker.session
        if worker.free <= 0 or session is None:
            raise AssertionError("there is no room")
        run = start.console.parent
        relative = run.relative_to(self._workspace.path / "runs").as_posix()
        handed = Handed(start.key, start.attempt, worker.id, worker.host, relative, worker.is_shared)
        self._handed[start.key] = handed
        self._words[start.key] = 0
        worker.keys.add(start.key)
        _write(self._trials / f"{start.key}.json", json.dumps(asdict(handed)))
        if not worker.is_shared:
            self._landings[start.key] = Landing(run, start.attempt)

        def send() -> None:
            if not worker.is_shared:
                for name, offset, data in seeds(run):
                    session.say("seed", data, key=start.key, attempt=start.attempt, name=name, offset=offset)
            session.say("start", **self._order(start, relative))

        self._sessions.attempt(session, send)

    def send_signal(self, key: int, sent: signal.Signals) -> None:
        """Send a signal to every process of a trial; where its worker is gone, it is lost without it."""
        handed = self._handed.get(key)
        session = self._session_of(key)
        if handed is not None and session is not None:
            self._say(session, "signal", key=key, attempt=handed.attempt, signal=int(sent))

    def poll(self, timeout_s: float) -> Sequence[News]:
        """Return what happened, after `timeout_s` at the latest."""
        self._acknowledge()
        until_s = time.monotonic() + timeout_s
        while True:
            self._pass_words_on()
            self._sessions.pump(max(0.0, min(_LONGEST_WAIT_S, until_s - time.monotonic())))
            self._look_after(time.monotonic())
            if self._news or time.monotonic() >= until_s:
                news, self._news = self._news, []
                return news

    def survivors(self) -> Sequence[TrialStarted]:
        """Wait for the workers of an earlier session, and return the trials that they still have."""
        awaited = dict(self._earlier)
        until_s = time.monotonic() + self._options.lost_after_s
        while awaited.keys() - self._handed.keys() and time.monotonic() < until_s:
            self._sessions.pump(_LONGEST_WAIT_S)
            self._look_after(time.monotonic())
        until_s = time.monotonic() + _CATCH_UP_S
        while self._catching_up and time.monotonic() < until_s:
            self._sessions.pump(_LONGEST_WAIT_S)
            self._look_after(time.monotonic())
        for key in awaited.keys() - self._handed.keys():
            close_writers(self._workspace.path / "runs" / awaited[key].folder, awaited[key].attempt)
            self._forget(awaited[key])
        self._earlier.clear()
        lost = {news.key for news in self._news if isinstance(news, TrialLost)}
        gpus = self._spec.resources.gpus
        return [
            TrialStarted(key, 0, host=self._handed[key].host, gpus=gpus, attempt=self._handed[key].attempt)
            for key in sorted(awaited)
            if key in self._handed and key not in lost
        ]

    def take_notes(self) -> Sequence[str]:
        """Return who came and went."""
        notes, self._notes = self._notes, []
        return notes

    def end(self) -> None:
        """Say that nothing is left to do: workers that `close` says farewell to end, too."""
        self._is_over = True

    def close(self) -> None:
        """Let go of the workers: they go on with what they have, for a while, and look for another coordinator."""
        with contextlib.suppress(OSError):
            self._acknowledge()
        for worker in self._workers.values():
            if worker.session is not None:
                self._say(worker.session, "farewell", is_over=self._is_over and not worker.keys)
        until_s = time.monotonic() + _FAREWELL_S
        # Workers hang up when they hear it. To hang up first, with words of theirs unread, would take ours from them.
        while (self._sessions.has_unsent or self.connected) and time.monotonic() < until_s:
            self._sessions.pump(0.05)
        self._sessions.close()
        for landing in self._landings.values():
            landing.close()
        self._landings.clear()

    def lose(self, worker_id: str) -> None:
        """Take note that a worker's process is gone for good, whoever knows it."""
        worker = self._workers.get(worker_id)
        if worker is not None:
            if worker.session is not None:
                self._sessions.drop(worker.session, "its host was lost")
            self._lose(worker)

    def has_worker(self, worker_id: str) -> bool:
        """Return whether a worker is there."""
        worker = self._workers.get(worker_id)
        return worker is not None and worker.session is not None

    @property
    def connected(self) -> int:
        """How many workers are there."""
        return sum(worker.session is not None for worker in self._workers.values())

    # --- what workers say ------------------------------------------------------------------------------------------

    def _hear(self, session: Session, message: Message) -> None:
        worker = session.owner
        if worker is None:
            self._greet(session, message)
            return
        match message.kind:
            case "beat":
                worker.is_leaving = worker.is_leaving or message.fields.get("is_leaving") is True
            case "ready":
                worker.slots = message.number("slots", least=1)
                worker.is_shared = message.fields.get("is_shared") is True
                worker.is_ready = True
            case "unable":
                self._notes.append(_clean(f"worker on {worker.host} cannot take part: {message.text('reason')}"))
            case "note":
                self._notes.append(_clean(f"worker on {worker.host}: {message.text('text')}"))
            case "want_code" if self._code is not None:
                self._send_code(session, self._code)
            case "leave":
                worker.is_leaving = True
            case _:
                self._hear_of_trial(session, worker, message)

    def _hear_of_trial(self, session: Session, worker: Worker, message: Message) -> None:
        key, attempt = message.number("key"), message.number("attempt")
        handed = self._handed.get(key)
        if handed is None or handed.attempt != attempt or handed.worker != worker.id:
            if message.kind not in ("piece", "gone", "content"):  # of which there may be many more
                session.say("forget", key=key, attempt=attempt)
            return
        match message.kind:
            case "started":
                gpus = self._spec.resources.gpus
                self._news.append(TrialStarted(key, message.number("pid"), host=worker.host, gpus=gpus))
            case "piece":
                end = message.number("end") if message.fields.get("end") is not None else None
                self._landing(key).write(message.text("name"), message.number("offset"), message.data, end)
            case "gone":
                self._landing(key).remove(message.text("name"))
            case "offer":
                name = message.text("hash")
                answer = "there" if self._blobs.has(name) else "wanted"
                session.say("content", key=key, attempt=attempt, hash=name, answer=answer)
            case "content":
                name, offset, size = message.text("hash"), message.number("offset"), message.number("size")
                if self._blobs.write(worker.id, name, offset, size, message.data):
                    session.say("content", key=key, attempt=attempt, hash=name, answer="there")
            case "caught_up":
                self._catching_up.discard(key)
            case "ended":
                self._on_ended(handed, message)
            case _:
                raise LinkBroken(f"{message.kind!r:.40} is nothing that a worker says")

    def _on_ended(self, handed: Handed, message: Message) -> None:
        if any(told.key == handed.key for told in self._told):
            return
        landing = self._landings.get(handed.key)
        if landing is not None:
            landing.sync()
            landing.finish()
        self._catching_up.discard(handed.key)
        lost = message.fields.get("lost")
        if isinstance(lost, str):
            is_preempted = message.fields.get("is_preempted") is True
            self._news.append(TrialLost(handed.key, _clean(f"{lost} ({handed.host})"), is_preempted=is_preempted))
        else:
            code = message.fields.get("code")
            if type(code) is not int or not -256 < code < 256:
                raise LinkBroken("a trial ended without an exit code")
            self._news.append(
                TrialEnded(
                    handed.key,
                    code,
                    is_over_memory=message.fields.get("is_over_memory") is True,
                    was_oom_killer_here=message.fields.get("was_oom_killer_here") is True,
                    cpu_s=message.figure("cpu_s"),
                    max_rss_bytes=int(message.figure("max_rss_bytes")),
                )
            )
        self._told.append(handed)

    def _acknowledge(self) -> None:
        """Let workers forget the trials whose end the coordinator knows: all that `poll` returned before."""
        reported = {news.key for news in self._news}
        for handed in [each for each in self._told if each.key not in reported]:
            self._told.remove(handed)
            session = self._session_of(handed.key)
            self._forget(handed)
            if session is not None:
                self._say(session, "forget", key=handed.key, attempt=handed.attempt)

    # --- who comes and goes ----------------------------------------------------------------------------------------

    def _greet(self, session: Session, message: Message) -> None:
        if message.kind != "join":
            raise LinkBroken("a worker says first who it is")
        worker_id, host = message.text("worker"), _clean(message.text("host"))[:255]
        if not _ID.fullmatch(worker_id):
            raise LinkBroken("a worker is named by 16 hex digits")
        worker = self._workers.setdefault(worker_id, Worker(worker_id, host))
        if worker.session is not None:
            self._sessions.drop(worker.session, "it came back")
            self._workers[worker_id] = worker
        session.owner, worker.session = worker, session
        worker.is_ready = worker.is_leaving = False
        self._notes.append(f"worker on {host} ({session.peer}) is here{_differences(message)}")
        have, forget = self._claimed(worker, message.entries("trials"))
        session.say(
            "welcome",
            sweep=self._folder.id,
            lost_after=self._options.lost_after_s,
            workspace=str(self._workspace.path),
            mark=[str((self._home / "mark").relative_to(self._workspace.path)), self._mark],
            is_shared=self._options.is_shared,
            folder=str(self._spec.folder),
            working_dir=str(self._spec.working_dir),
            python=sys.executable,
            code=self._code.digest if self._code is not None else None,
            resources=asdict(self._spec.resources),
            is_warm=self._is_warm,
            preload=list(self._preload),
            have=have,
            forget=forget,
        )

    def _claimed(self, worker: Worker, claims: list[Any]) -> tuple[dict[str, Any], list[list[int]]]:
        """Return what is here of the trials that a worker still has, and those that it is to end."""
        have: dict[str, Any] = {}
        forget: list[list[int]] = []
        for claim in claims:
            if not isinstance(claim, dict):
                raise LinkBroken("a trial is claimed without a name")
            key, attempt = claim.get("key"), claim.get("attempt")
            if type(key) is not int or type(attempt) is not int:
                raise LinkBroken("a trial is claimed without a name")
            known = self._handed.get(key) or self._earlier.get(key)
            is_ours = claim.get("sweep") == self._folder.id and known is not None
            if not is_ours or known is None or (known.attempt, known.worker) != (attempt, worker.id):
                forget.append([key, attempt])
                continue
            self._handed[key] = known
            self._words.setdefault(key, 0)
            worker.keys.add(key)
            have[str(key)] = {}
            if not known.is_shared:
                landing = self._landing(key)
                landing.hold()
                have[str(key)] = {name: list(found) for name, found in landing.sums().items()}
                self._catching_up.add(key)
        for key in [key for key in worker.keys if str(key) not in have]:
            self._lose_trial(self._handed[key], "its worker lost it")
        return have, forget

    def _closed(self, session: Session, reason: str) -> None:
        worker = session.owner
        if not isinstance(worker, Worker):
            if session.talk is None and reason != "the coordinator ended":
                self._notes.append(_clean(f"a connection from {session.peer} was refused: {reason}"))
            return
        if worker.session is session:
            worker.session, worker.is_ready, worker.gone_s = None, False, time.monotonic()
            if not worker.is_leaving and reason != "the coordinator ended":
                patience = f"; waiting {self._options.lost_after_s:g} s for it" if worker.keys else ""
                self._notes.append(_clean(f"worker on {worker.host} is gone: {reason}{patience}"))
            if not worker.keys:
                self._workers.pop(worker.id, None)

    def _look_after(self, now_s: float) -> None:
        for worker in list(self._workers.values()):
            session = worker.session
            if session is not None and now_s - session.heard_s > self._options.lost_after_s:
                self._sessions.drop(session, f"it was silent for {self._options.lost_after_s:g} s")
                worker.gone_s = session.heard_s
            if worker.session is None and now_s - worker.gone_s > self._options.lost_after_s:
                self._lose(worker)
        if now_s - self._beat_s >= BEAT_S:
            self._beat_s = now_s
            for worker in list(self._workers.values()):
                if worker.session is not None:
                    self._say(worker.session, "beat")
        if self.connected:
            self._lonely_s = now_s
        elif now_s - self._lonely_s > _NO_WORKER_S:
            self._lonely_s = float("inf")
            self._notes.append(f"no worker is connected; {self._invitation()}")

    def _lose(self, worker: Worker) -> None:
        for key in list(worker.keys):
            self._lose_trial(self._handed[key], f"its host was lost ({worker.host})")
        self._workers.pop(worker.id, None)

    def _lose_trial(self, handed: Handed, reason: str) -> None:
        run = self._workspace.path / "runs" / handed.folder
        if handed.is_shared:  # where the worker sees this, it ends the trial that nobody waits for any more
            _write(self._home / f"lost.{handed.key}.{handed.attempt}", "")
        landing = self._landings.get(handed.key)
        if landing is not None:
            landing.finish()
        close_writers(run, handed.attempt)
        is_told = handed in self._told
        self._forget(handed)
        if is_told:
            self._told.remove(handed)
        else:
            self._news.append(TrialLost(handed.key, reason))

    def _forget(self, handed: Handed) -> None:
        """Drop all that is known of a trial."""
        key = handed.key
        self._handed.pop(key, None)
        self._words.pop(key, None)
        self._catching_up.discard(key)
        landing = self._landings.pop(key, None)
        if landing is not None:
            landing.close()
        if (worker := self._workers.get(handed.worker)) is not None:
            worker.keys.discard(key)
            if worker.session is None and not worker.keys:
                self._workers.pop(worker.id, None)
        with contextlib.suppress(FileNotFoundError):
            (self._trials / f"{key}.json").unlink()

    # --- parts -----------------------------------------------------------------------------------------------------

    def _read_handed(self) -> dict[int, Handed]:
        """Return the trials that workers had when the last session ended."""
        found = {}
        for path in self._trials.glob("*.json"):
            with contextlib.suppress(OSError, ValueError, TypeError):
                handed = Handed(**json.loads(path.read_text()))
                if RUN_FOLDER.fullmatch(handed.folder):
                    found[handed.key] = handed
        return found

    def _landing(self, key: int) -> Landing:
        landing = self._landings.get(key)
        if landing is None:
            handed = self._handed[key]
            if handed.is_shared:
                raise LinkBroken("a trial that records right here sends nothing")
            landing = Landing(self._workspace.path / "runs" / handed.folder, handed.attempt)
            self._landings[key] = landing
        return landing

    def _session_of(self, key: int) -> Session | None:
        handed = self._handed.get(key)
        worker = self._workers.get(handed.worker) if handed is not None else None
        return worker.session if worker is not None else None

    def _say(self, session: Session, kind: str, **fields: Any) -> None:
        self._sessions.attempt(session, lambda: session.say(kind, **fields))

    def _pass_words_on(self) -> None:
        """Send stop words that were set since the last look."""
        for key, told in list(self._words.items()):
            handed, session = self._handed[key], self._session_of(key)
            if session is None:
                continue
            word = _stop_word(self._workspace.path / "runs" / handed.folder)
            if word > told:
                self._words[key] = word
                self._say(session, "word", key=key, attempt=handed.attempt, reason=_WORDS.get(word, "stop"))

    def _order(self, start: TrialStart, relative: str) -> dict[str, Any]:
        """Return what a worker is told of a trial."""
        base = self._environment
        env = {
            name: value
            for name, value in start.env.items()
            if (base.get(name) != value or name.startswith("RUNSTONE_")) and name != TOKEN_VARIABLE
        }
        own = f"{self._folder.path}{os.sep}"
        files = {}
        for word in start.argv:  # a file with the params, which lies beside the sweep
            place = word.find(own)
            path = Path(word[place:]) if place >= 0 else None
            if path is not None and path.is_file():
                files[str(path)] = path.read_text(encoding="utf-8")
        return {
            "key": start.key,
            "attempt": start.attempt,
            "run": relative,
            "argv": list(start.argv),
            "env": env,
            "cwd": str(start.cwd),
            "files": files,
        }

    def _pack(self) -> Archive:
        code = pack_code(self._spec.folder, self._environment)
        if code.left_out:
            self._notes.append(f"ship_code: {len(code.left_out)} large files are not sent, such as {code.left_out[0]}")
        return code

    def _send_code(self, session: Session, code: Archive) -> None:
        for offset in range(0, len(code.data), DATA_BYTES):
            session.say("code", code.data[offset : offset + DATA_BYTES], size=len(code.data))

    def _listen(self) -> tuple[socket.socket, Address]:
        """Listen as the config says, on the same port in every session of a sweep; return what workers connect to."""
        wanted, kept = self._options.listen, self._home / "port"
        ports = [wanted.port]
        if wanted.port == 0:
            with contextlib.suppress(OSError, ValueError):
                ports = [int(kept.read_text()), 0]
        error: OSError | None = None
        for port in ports:
            try:
                listener = listen(Address(wanted.host, port))
                break
            except OSError as refusal:
                error = refusal
        else:
            raise InvalidConfig(f"executor.listen: {wanted}: {error.strerror if error else 'no port'}")
        port = listener.getsockname()[1]
        _write(kept, str(port))
        host = wanted.host
        if self._options.address is not None:
            told = parse_address(self._options.address, what="executor.address", port=port)
            host, port = told.host, told.port
        elif host in _ANY:
            host = socket.gethostname()
        return listener, Address(host, port, self._options.tls_cert is not None)

    @property
    def has_given_address(self) -> bool:
        """Whether the config says by which address workers reach this."""
        return self._options.address is not None or self._options.listen.host not in (*_ANY, "127.0.0.1")

    def address_at(self, host: str) -> Address:
        """Return what workers connect to, where this host goes by another name."""
        return Address(host, self.address.port, self.address.is_tls)

    def _invitation(self) -> str:
        command = f"sweep worker {self.address} --token-file {self.token_file}"
        if self._options.listen.is_loopback or self._options.tls_cert is not None:
            return f"workers join with: {command}"
        return f"workers join with: {command} (without TLS: what trials record can be read on the way)"


def _stop_word(run: Path) -> int:
    try:
        with (run / "control").open("rb", buffering=0) as file:
            return (file.read(1) or b"\0")[0]
    except OSError:
        return 0


def _differences(message: Message) -> str:
    """Return in what a worker's versions differ from ours, if they do."""
    ours = {"runstone": runstone.__version__, "python": ".".join(map(str, sys.version_info[:3]))}
    theirs = message.entry("versions")
    told = [
        f"{name} {_clean(str(theirs.get(name)))[:40]} there, {version} here"
        for name, version in ours.items()
        if theirs.get(name) != version
    ]
    return f"; versions differ: {', '.join(told)}" if told else ""


def _clean(text: str) -> str:
    """Return text from elsewhere as a terminal may show it."""
    return _CONTROL.sub("?", text[:1000]).encode("utf-8", "replace").decode()


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
