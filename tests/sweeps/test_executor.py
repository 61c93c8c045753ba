"""What the coordinator asks of an executor, shown by one whose trials outlive the coordinator."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

import runstone
from runstone_sweeps.coordinator.runner import Coordinator
from runstone_sweeps.coordinator.session import Budget, stored_spec
from runstone_sweeps.executors.executor import News, TrialEnded, TrialLost, TrialStart, TrialStarted, key_of
from runstone_sweeps.record import TrialState
from runstone_sweeps.store import Sweeps

from .conftest import Place, Silent


class Detached:
    """Runs trials in sessions of their own and finds them again by files, as one on other hosts would."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: set[int] = set()
        self._news: list[News] = []
        self._children: list[subprocess.Popen[bytes]] = []
        self.starts: list[tuple[int, int]] = []

    def has_room(self) -> bool:
        return True

    def start(self, start: TrialStart) -> None:
        # The shell that waits for the trial writes its exit code: it is asked by whoever comes.
        ended = self._folder / f"{start.key}.code"
        ended.unlink(missing_ok=True)
        words = ["sh", "-c", f'"$@"; echo $? > {ended}.partial; mv {ended}.partial {ended}', "sh", *start.argv]
        with start.console.open("ab") as console:
            child = subprocess.Popen(
                words, env=dict(start.env), cwd=start.cwd, stdout=console, stderr=console, start_new_session=True
            )
        self._children.append(child)
        (self._folder / f"{start.key}.pid").write_text(str(child.pid))
        self._known.add(start.key)
        self.starts.append((start.key, start.attempt))
        self._news.append(TrialStarted(start.key, child.pid, host="elsewhere"))

    def send_signal(self, key: int, sent: signal.Signals) -> None:
        os.killpg(int((self._folder / f"{key}.pid").read_text()), sent)

    def poll(self, timeout_s: float) -> Sequence[News]:
        time.sleep(timeout_s)
        for child in self._children:
            child.poll()
        for key in sorted(self._known):
            if (self._folder / f"{key}.code").exists():
                self._known.discard(key)
                self._news.append(TrialEnded(key, int((self._folder / f"{key}.code").read_text())))
            elif (self._folder / f"{key}.lost").exists():
                self._known.discard(key)
                (self._folder / f"{key}.lost").unlink()
                self._news.append(TrialLost(key, "host elsewhere was lost"))
        news, self._news = self._news, []
        return news

    def survivors(self) -> Sequence[TrialStarted]:
        found = []
        for path in self._folder.glob("*.pid"):
            key, pid = int(path.stem), int(path.read_text())
            if not path.with_suffix(".code").exists():
                self._known.add(key)
                found.append(TrialStarted(key, pid, host="elsewhere"))
        return found

    def take_notes(self) -> Sequence[str]:
        return ()

    def close(self) -> None:
        for child in self._children:
            child.wait()


class Dies(Exception):
    """Stands for the death of the coordinator."""


class Mortal(Silent):
    """Ends the coordinator in the midst, after so many reports."""

    def __init__(self, reports: int) -> None:
        super().__init__()
        self._left = reports

    def on_event(self, event: object, record: object) -> None:
        if event["event"] == "reported":  # type: ignore[index]
            self._left -= 1
            if self._left == 0:
                raise Dies


def session(place: Place, executor: Detached, watcher: Silent) -> str:
    workspace = runstone.open_workspace(place.home)
    folder = place.folder
    with folder.lock():
        spec = stored_spec(folder, Budget())
        return Coordinator(workspace, folder, folder.read(), spec, executor, watcher).run()


def made(place: Place, more: str, *, trials: int) -> None:
    from runstone_sweeps.config import load_spec

    spec = load_spec(place.config(more, trials=trials))
    Sweeps(runstone.ensure_workspace(place.home)).create(spec, seed=1)


def test_trials_that_outlive_the_coordinator_are_followed_again_and_started_once(place: Place, tmp_path: Path) -> None:
    made(place, "  steps: {value: 30}\n  slow: {value: 0.05}\n", trials=2)
    first = Detached(tmp_path)
    with pytest.raises(Dies):
        session(place, first, Mortal(3))
    assert first.starts == [(key_of(0, 0), 1), (key_of(1, 0), 1)]
    second = Detached(tmp_path)
    assert session(place, second, Silent()) == "finished"
    first.close()
    assert second.starts == []
    record = place.record
    assert [(t.state, t.attempts, len(t.reports)) for t in record.trials.values()] == [(TrialState.COMPLETE, 1, 30)] * 2
    assert {run.host for trial in record.trials.values() for run in trial.runs} == {"elsewhere"}
    workspace = runstone.open_workspace(place.home)
    for trial in record.trials.values():
        run = workspace.run(trial.run_id)
        assert (run.status, len(run.attempts)) == ("finished", 1)
        assert trial.usage.wall_s > 1.4  # from its start in the first session on


def test_a_trial_whose_host_is_lost_is_started_again(place: Place, tmp_path: Path) -> None:
    made(place, "  steps: {value: 10}\n  slow: {value: 0.05}\nretries: {preempted: 1, backoff: 0}\n", trials=1)
    executor = Detached(tmp_path)

    class Loses(Silent):
        def on_event(self, event: object, record: object) -> None:
            if event["event"] == "reported" and not executor.starts[1:]:  # type: ignore[index]
                executor.send_signal(0, signal.SIGKILL)
                (tmp_path / "0.lost").write_text("")

    assert session(place, executor, Loses()) == "finished"
    executor.close()
    (trial,) = place.record.trials.values()
    assert (trial.state, trial.attempts, dict(trial.runs[0].tries)) == (TrialState.COMPLETE, 2, {"preempted": 1})
    assert executor.starts == [(0, 1), (0, 2)]
    assert place.events_of("requeued")[0]["reason"] == "host elsewhere was lost"


def test_keys_tell_of_trial_and_replicate() -> None:
    keys = [key_of(number, replicate) for number in (0, 7) for replicate in (0, 1, 1023)]
    assert keys == [0, 1, 1023, 7168, 7169, 8191]
