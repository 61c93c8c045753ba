"""The coordinator's end, against workers that are played here: what they may say, and what becomes of it."""

from __future__ import annotations

import json
import random
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runstone import LaunchedRun, RunInfo, Status, Workspace, ensure_workspace
from runstone_sweeps.config import parse_spec
from runstone_sweeps.executors.executor import News, TrialEnded, TrialLost, TrialStart, TrialStarted
from runstone_sweeps.store import SweepFolder, Sweeps
from runstone_sweeps.workers.connecting import connect
from runstone_sweeps.workers.link import LinkBroken
from runstone_sweeps.workers.messages import Message, Talk
from runstone_sweeps.workers.opening import open_executor
from runstone_sweeps.workers.pool import WorkerPool
from runstone_sweeps.workers.token import read_token

WRITER = "0123456789abcdef" * 2
LIMIT_S = 120.0


class Played:
    """A pool and the workers that talk to it."""

    def __init__(self, path: Path, *, lost_after: float = 30.0) -> None:
        config = {
            "command": ["true"],
            "metric": {"name": "loss", "goal": "minimize"},
            "parameters": {"x": {"min": 0.0, "max": 1.0}},
            "trials": 9,
            "env": {"MINE": "1"},
            "executor": {"name": "workers", "shared": False, "lost_after": lost_after},
        }
        self.spec = parse_spec(config, folder=path, file_name="sweep", has_objective=False)
        self.workspace: Workspace = ensure_workspace(path / "home")
        self.folder: SweepFolder = Sweeps(self.workspace).create(self.spec, seed=0)
        self.runs: dict[int, LaunchedRun] = {}
        self.talks: list[Talk] = []
        self.news: list[News] = []
        self.notes: list[str] = []
        self.pool = self.open()

    def open(self) -> WorkerPool:
        pool = open_executor(
            self.workspace, self.folder, self.spec, environment={"SECRET": "s", "A": "1"}, is_warm=False, preload=()
        )
        assert isinstance(pool, WorkerPool)
        return pool

    def worker(self, worker_id: str = "0" * 16, trials: list[dict[str, Any]] | None = None, slots: int = 2) -> Talk:
        """Let a worker join, and return its end."""
        talk = self.connected()
        talk.say("join", worker=worker_id, host="played", pid=1, versions={}, trials=trials or [])
        self.hear(talk, "welcome")
        talk.say("ready", slots=slots, is_shared=False)
        return talk

    def connected(self) -> Talk:
        found: list[Talk] = []
        token = read_token(self.pool.token_file)
        thread = threading.Thread(target=lambda: found.append(connect(self.pool.address, token, None)))
        thread.start()
        self.until(lambda: not thread.is_alive())
        self.talks += found
        return found[0]

    def hear(self, talk: Talk, kind: str) -> Message:
        """Return the next message of a kind."""
        heard: list[Message] = []

        def has_come() -> bool:
            heard.extend(message for message in talk.hear() if message.kind == kind)
            return bool(heard)

        self.until(has_come)
        return heard[0]

    def until(self, is_so: Callable[[], bool]) -> None:
        limit = time.monotonic() + LIMIT_S
        while not is_so():
            assert time.monotonic() < limit
            self.poll()

    def poll(self) -> None:
        self.news += self.pool.poll(0.005)
        self.notes += self.pool.take_notes()

    def start(self, key: int) -> TrialStart:
        self.until(self.pool.has_room)
        run = self.runs[key] = self.workspace.create_run(project="p")
        env = {"SECRET": "s", "A": "2", "MINE": "1", "RUNSTONE_RUN_ID": run.id}
        start = TrialStart(key, 1, ["true", "--x=1"], env, self.folder.path, run.path / "console.1.log")
        self.pool.start(start)
        return start

    def close(self) -> None:
        for run in self.runs.values():
            run.close()
        self.pool.close()
        for talk in self.talks:
            talk.link.close()


@pytest.fixture
def played(tmp_path: Path) -> Iterator[Played]:
    found = Played(tmp_path)
    yield found
    found.close()


def test_a_trial_is_handed_out_followed_and_acknowledged_after_the_coordinator_knows(played: Played) -> None:
    talk = played.worker()
    played.start(7)
    order = played.hear(talk, "start")
    assert order.fields["argv"] == ["true", "--x=1"]
    assert order.fields["env"] == {"A": "2", "MINE": "1", "RUNSTONE_RUN_ID": played.runs[7].id}
    talk.say("started", key=7, attempt=1, pid=123)
    talk.say("piece", b"hello\n", key=7, attempt=1, name="console.1.log", offset=0, end=None)
    played.until(lambda: bool(played.news))
    assert played.news == [TrialStarted(7, 123, host="played")]
    assert (played.runs[7].path / "console.1.log").read_bytes() == b"hello\n"
    talk.say("ended", key=7, attempt=1, code=3, cpu_s=1.5, max_rss_bytes=9)
    limit = time.monotonic() + LIMIT_S
    while len(played.news) < 2 and time.monotonic() < limit:
        played.news += played.pool.poll(0.005)
    assert played.news[1] == TrialEnded(7, 3, cpu_s=1.5, max_rss_bytes=9)
    assert not [message for message in talk.hear() if message.kind == "forget"]
    assert played.hear(talk, "forget").fields == {"key": 7, "attempt": 1}


def test_the_stop_word_is_passed_on_once(played: Played) -> None:
    talk = played.worker()
    played.start(0)
    played.runs[0].request_stop("prune")
    assert played.hear(talk, "word").fields == {"key": 0, "attempt": 1, "reason": "prune"}
    for _ in range(5):
        played.poll()
    assert not [message for message in talk.hear() if message.kind == "word"]


def test_a_worker_has_no_say_in_the_trials_of_another(played: Played) -> None:
    talk = played.worker("a" * 16, slots=1)
    played.start(0)
    other = played.worker("b" * 16)
    other.say("piece", b"x", key=0, attempt=1, name="console.1.log", offset=0, end=None)
    other.say("ended", key=0, attempt=1, code=0)
    other.say("started", key=0, attempt=2, pid=1)
    assert played.hear(other, "forget").fields == {"key": 0, "attempt": 1}
    assert played.news == []
    assert not (played.runs[0].path / "console.1.log").exists()
    talk.say("ended", key=0, attempt=1, code=0)
    played.until(lambda: bool(played.news))


def test_a_worker_that_is_silent_loses_its_trials_once(tmp_path: Path) -> None:
    played = Played(tmp_path, lost_after=0.3)
    talk = played.worker()
    played.start(4)
    talk.say("piece", b"", key=4, attempt=1, name=f"{WRITER}.status", offset=0, end=None)
    played.until(lambda: bool(played.news))
    assert played.news == [TrialLost(4, "its host was lost (played)")]
    again = played.worker(trials=[{"sweep": played.folder.id, "key": 4, "attempt": 1}])
    again.say("ended", key=4, attempt=1, code=0)
    assert played.hear(again, "forget").fields["key"] == 4
    assert len(played.news) == 1
    played.close()


def test_a_worker_that_comes_back_without_a_trial_has_lost_it(played: Played) -> None:
    talk = played.worker()
    played.start(0)
    talk.link.close()
    played.until(lambda: any("is gone" in note for note in played.notes))
    played.worker(trials=[])
    played.until(lambda: bool(played.news))
    assert played.news == [TrialLost(0, "its worker lost it")]


def test_the_next_coordinator_takes_over_what_a_worker_still_has(played: Played) -> None:
    talk = played.worker()
    played.start(3)
    talk.say("piece", b"before", key=3, attempt=1, name="console.1.log", offset=0, end=None)
    played.until(lambda: (played.runs[3].path / "console.1.log").exists())
    talk.link.close()
    played.pool.close()
    played.pool = played.open()

    survivors: list[Any] = []
    thread = threading.Thread(target=lambda: survivors.append(played.pool.survivors()))
    thread.start()
    talk = connect(played.pool.address, read_token(played.pool.token_file), None)
    claims = [
        {"sweep": played.folder.id, "key": 3, "attempt": 1},
        {"sweep": played.folder.id, "key": 3, "attempt": 2},
        {"sweep": played.folder.id, "key": 8, "attempt": 1},
        {"sweep": "another", "key": 3, "attempt": 1},
    ]
    talk.say("join", worker="0" * 16, host="played", pid=1, versions={}, trials=claims)
    limit = time.monotonic() + LIMIT_S
    heard: list[Message] = []
    while not heard and time.monotonic() < limit:
        heard = talk.hear()
    welcome = heard[0]
    assert list(welcome.fields["have"]) == ["3"]
    assert welcome.fields["have"]["3"]["console.1.log"][0] == 6
    assert welcome.fields["forget"] == [[3, 2], [8, 1], [3, 1]]
    talk.say("ended", key=3, attempt=1, code=0)
    thread.join()
    assert survivors == [[TrialStarted(3, 0, host="played", attempt=1)]]
    assert list(played.pool.poll(0.1)) == [TrialEnded(3, 0)]
    assert not [message for message in talk.hear() if message.kind == "forget"]  # nobody knows of its end yet
    assert played.hear(talk, "forget").fields == {"key": 3, "attempt": 1}
    talk.link.close()


def test_nothing_that_a_worker_says_ends_the_coordinator(played: Played) -> None:
    drawn = random.Random(11)
    odd: list[Any] = [
        *(None, True, -1, 0, 1, 2, 1 << 61, 1 << 70, 1.5, float("nan"), "", "x", "../../x", "\ud800", "\0", "a" * 300),
        *([], {}, [[]], [None], {"a": 1}, [{"key": 0, "attempt": 1, "sweep": 3}], [{"key": "0"}]),
        *("console.1.log", f"{WRITER}.status", f"{WRITER}.keys", "metrics.parquet", "0" * 64, "0" * 16),
    ]
    kinds = "join beat ready unable note want_code leave started piece gone offer content caught_up ended x".split()
    names = "worker host trials versions key attempt slots is_shared reason text pid name offset end hash size".split()
    names += ["code", "lost", "cpu_s", "max_rss_bytes", "is_leaving"]
    outside = sorted(played.workspace.path.parent.iterdir())
    for number in range(120):
        talk = played.worker(f"{number:016x}")
        if not played.runs:
            played.start(0)
        try:
            for _ in range(12):
                fields = {name: drawn.choice(odd) for name in names if drawn.random() < 0.7}
                fields |= {"key": 0, "attempt": 1} if drawn.random() < 0.7 else {}
                talk.say(drawn.choice(kinds), drawn.randbytes(drawn.choice([0, 1, 5000])), **fields)
                played.poll()
        except LinkBroken:
            continue
    assert sorted(played.workspace.path.parent.iterdir()) == outside
    for note in played.notes:
        assert note.isprintable()
        note.encode()
    good = played.worker("f" * 16)
    good.say("beat")
    played.poll()
    assert played.pool.has_worker("f" * 16)


def test_what_was_lost_reads_as_crashed_and_not_as_running(tmp_path: Path) -> None:
    played = Played(tmp_path, lost_after=0.3)
    talk = played.worker()
    played.start(0)
    told = {"event": "writer", "at": time.time(), "format": 1, "writer": WRITER, "role": "main", "attempt": 1}
    journal = json.dumps({**told, "rank": 0, "pid": 1, "host": "elsewhere", "boot_id": "another"}) + "\n"
    status = struct.pack("<8sIxxxxddIxxxxQ", b"\x89RSS\r\n\x1a\n", 1, time.time(), 1.0, 1, 0)
    for name, data in ((f"journal.{WRITER}.jsonl", journal.encode()), (f"{WRITER}.status", status)):
        talk.say("piece", data, key=0, attempt=1, name=name, offset=0, end=None)
    path = played.runs[0].path
    played.until(lambda: (path / f"{WRITER}.status").exists())
    assert RunInfo(path).status is Status.RUNNING
    played.until(lambda: bool(played.news))
    played.runs[0].close()
    assert RunInfo(path).status is Status.CRASHED
    assert played.workspace.launched_run(played.runs[0].id).attempt == 2
    played.close()
