"""Whole sweeps whose trials run on workers: what is recorded, pruned, counted, and what survives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from runstone import InvalidConfig, RunInfo, Status, Workspace, ensure_workspace
from runstone_sweeps.config import parse_spec
from runstone_sweeps.record import TrialState
from runstone_sweeps.store import Sweeps
from runstone_sweeps.workers.opening import open_executor
from tests.sweeps.conftest import Place

# On a busy machine a worker may be silent for seconds: only where a test is about a lost one does so little count.
SPOOLED = "executor: {name: workers, shared: false, lost_after: 60s}\n"
SHARED = "executor: {name: workers, lost_after: 60s}\n"


def soon_lost(executor: str) -> str:
    return executor.replace("60s", "2s")


class Cluster(Place):
    """A folder with a sweep, its coordinator and its workers."""

    def coordinator(self, *words: str | Path) -> subprocess.Popen[str]:
        """Start a coordinator and wait until workers can come."""
        process = self.start(*words)
        self.until(lambda: bool(list(self.home.glob("sweeps/*/workers/mark"))), process)
        self.until_opened(process)
        return process

    @property
    def workers_home(self) -> Path:
        return self.folder.path / "workers"

    @property
    def url(self) -> str:
        return f"tcp://127.0.0.1:{(self.workers_home / 'port').read_text()}"

    def worker(self, *words: str | Path, cwd: Path | None = None) -> subprocess.Popen[str]:
        """Start a worker."""
        command = [sys.executable, "-W", "error", "-m", "runstone_sweeps.cli", "worker", self.url]
        token = ["--token-file", self.workers_home / "token", "--spool", self.path / "spool"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RUNSTONE")}
        process = subprocess.Popen(
            [*command, *map(str, token), *map(str, words)],
            cwd=cwd or self.path.parent,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def finish(self, process: subprocess.Popen[str], *, code: int = 0) -> str:
        out, err = process.communicate(timeout=180)
        assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
        assert "Traceback" not in out + err, out + err
        return out + err

    def trials_alive(self) -> list[int]:
        """Return the processes of this sweep's trials, wherever they record."""
        found = []
        for process in psutil.process_iter():
            try:
                environ = process.environ()
                if environ.get("RUNSTONE_GROUP") == self.folder.id and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
            except (psutil.Error, OSError):
                continue
        return found

    def run_of(self, number: int) -> RunInfo:
        path = Workspace(self.home).find_run_folder(self.record.trials[number].run_id)
        assert path is not None
        return RunInfo(path)

    def logged(self, number: int) -> int:
        """Return how many points of a trial's metric have arrived."""
        if number not in self.record.trials:
            return 0
        path = Workspace(self.home).find_run_folder(self.record.trials[number].run_id)
        if path is None or not any(path.glob("journal.*")):
            return 0
        return len(info.series("loss")) if "loss" in (info := RunInfo(path)).metrics else 0

    def check(self, trials: int) -> None:
        """Check that every trial is told once, that its run says the same, and that nothing is left."""
        record = self.record
        assert sorted(record.trials) == list(range(trials))
        told = [event["number"] for event in self.events_of("told")]
        assert sorted(told) == list(range(trials))
        for number in record.trials:
            info = self.run_of(number)
            expected = {TrialState.COMPLETE: Status.FINISHED, TrialState.PRUNED: Status.PRUNED}
            assert info.status is expected.get(record.trials[number].state, Status.FAILED)
        assert list((self.workers_home / "trials").iterdir()) == []
        wait_for(lambda: self.trials_alive() == [])


def wait_for(is_so: Callable[[], bool], limit_s: float = 120.0) -> None:
    limit = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    folder = tmp_path / "place"
    folder.mkdir()
    made = Cluster(folder)
    yield made
    made.close()


@pytest.mark.parametrize("executor", [SPOOLED, SHARED], ids=["spooled", "shared"])
def test_trials_run_on_two_workers_and_all_that_they_record_is_here(cluster: Cluster, executor: str) -> None:
    beside = cluster.path / "beside"
    beside.mkdir()
    cluster.script(
        "art.py",
        """\
import argparse, os, pathlib, time
import runstone
parser = argparse.ArgumentParser()
parser.add_argument("--x", type=float)
x = parser.parse_args().x
print("hello from", os.getpid())
with runstone.start_run(system_metrics=False) as run:
    for step in range(5):
        run.log({"loss": x**2 + 1 / (step + 1), "note": f"step {step}"}, step=step)
    path = pathlib.Path(f"file.{os.getpid()}")
    path.write_bytes(b"%r" % x * 100_000)
    run.log_artifact(path, name="model")
    path.unlink()
beside = pathlib.Path(BESIDE)
(beside / str(os.getpid())).touch()
while len(list(beside.iterdir())) < 3: time.sleep(0.02)  # until both have trials
""".replace("BESIDE", repr(str(beside))),
    )
    coordinator = cluster.coordinator("run", cluster.config(executor, script="art.py", trials=6, parallel=4))
    workers = [cluster.worker("--slots", "2") for _ in range(2)]
    out = cluster.finish(coordinator)
    assert "sweep worker tcp://127.0.0.1" in out
    for worker in workers:
        said = cluster.finish(worker)
        assert ("shared workspace" in said) is (executor is SHARED)
    cluster.check(6)
    hosts = {event["host"] for event in cluster.events_of("started")}
    assert hosts == {os.uname().nodename}
    for number, trial in cluster.record.trials.items():
        info = cluster.run_of(number)
        assert info.series("loss").value.tolist() == [trial.params["x"] ** 2 + 1 / (step + 1) for step in range(5)]
        assert len(info.series("note")) == 5
        assert info.environment is not None
        assert "hello from" in (info.path / "console.1.log").read_text()
        (artifact,) = info.artifacts
        (entry,) = artifact.files
        content = (cluster.home / "blobs" / entry.hash[:2] / entry.hash).read_bytes()
        assert content == b"%r" % trial.params["x"] * 100_000
        assert [attempt.number for attempt in info.attempts] == [1]
    assert list((cluster.path / "spool").iterdir()) == []


@pytest.mark.parametrize("executor", [SPOOLED, SHARED], ids=["spooled", "shared"])
def test_a_trial_on_a_worker_is_pruned_by_its_stop_word(cluster: Cluster, executor: str) -> None:
    more = f"pruner: {{name: threshold, upper: 0.6}}\ngrace: 20s\n{executor}"
    config = cluster.config("  steps: {value: 2000}\n  slow: {value: 0.05}\n" + more, trials=2)
    coordinator = cluster.coordinator("run", config)
    cluster.worker("--slots", "2")
    cluster.finish(coordinator, code=1)  # no trial is complete
    cluster.check(2)
    assert {trial.state for trial in cluster.record.trials.values()} == {TrialState.PRUNED}
    for number in range(2):
        assert cluster.run_of(number).status is Status.PRUNED  # it stopped by itself: nobody had to kill it


def test_failures_on_a_worker_are_told_as_those_here(cluster: Cluster) -> None:
    cluster.script(
        "fails.py",
        "import os, sys\nx = float(sys.argv[1].partition('=')[2])\n"
        "if x < -0.5: raise ValueError(f'x is {x}')\nif x < 0: os.kill(os.getpid(), 11)\n"
        "if x < 0.5: sys.exit(3)\nimport runstone\nrunstone.start_run(environment=False).log({'loss': x})\n",
    )
    points = "points: [{x: -0.9}, {x: -0.1}, {x: 0.1}, {x: 0.9}]\n"
    coordinator = cluster.coordinator("run", cluster.config(points + SPOOLED, script="fails.py", trials=4))
    cluster.worker()
    cluster.finish(coordinator)
    reasons = [cluster.record.trials[number].reason for number in range(4)]
    for reason, told in zip(reasons, ("ValueError: x is -0.9", "SIGSEGV", "exit code 3", "None"), strict=True):
        assert told in str(reason)
    assert cluster.record.trials[3].state is TrialState.COMPLETE


def test_the_limit_of_memory_holds_on_a_worker(cluster: Cluster) -> None:
    cluster.script(
        "eats.py",
        "import time\neaten = bytearray(400 << 20)\n"
        "for place in range(0, len(eaten), 4096): eaten[place] = 1\ntime.sleep(60)\n",
    )
    coordinator = cluster.coordinator("run", cluster.config(f"memory: 200MB\n{SPOOLED}", script="eats.py", trials=1))
    cluster.worker()
    cluster.finish(coordinator, code=1)
    assert "memory" in str(cluster.record.trials[0].reason)


SLOW = "  steps: {value: 30}\n  slow: {value: 0.1}\n"


@pytest.mark.parametrize("executor", [SPOOLED, SHARED], ids=["spooled", "shared"])
def test_trials_of_a_worker_that_was_killed_are_started_elsewhere(cluster: Cluster, executor: str) -> None:
    coordinator = cluster.coordinator("run", cluster.config(SLOW + soon_lost(executor), trials=3, parallel=3))
    first = cluster.worker("--slots", "2")
    cluster.until(lambda: cluster.logged(0) >= 3, coordinator)
    second = cluster.worker("--slots", "2")
    first.kill()
    out = cluster.finish(coordinator)
    assert "is gone" in out
    cluster.finish(second)
    cluster.check(3)
    requeued = cluster.events_of("requeued")
    assert {event["kind"] for event in requeued} == {"preempted"}
    assert 0 in [event["number"] for event in requeued]
    # On a busy machine the other worker, too, may be silent for two seconds.
    for number, times in Counter(event["number"] for event in requeued).items():
        info = cluster.run_of(number)
        assert [attempt.number for attempt in info.attempts] == list(range(1, times + 2))
        assert len(info.series("loss")) == 30
    assert {trial.state for trial in cluster.record.trials.values()} == {TrialState.COMPLETE}


@pytest.mark.parametrize("executor", [SPOOLED, SHARED], ids=["spooled", "shared"])
def test_a_coordinator_that_was_killed_finds_its_workers_and_their_trials(cluster: Cluster, executor: str) -> None:
    coordinator = cluster.coordinator("run", cluster.config(SLOW + executor, trials=4, parallel=2))
    worker = cluster.worker("--slots", "2", "--patience", "60")
    cluster.until(lambda: min(cluster.logged(0), cluster.logged(1)) >= 5, coordinator)
    before = set(cluster.trials_alive())
    coordinator.kill()
    coordinator.wait()
    time.sleep(0.5)
    assert before >= set(cluster.trials_alive())  # that they live on, the only attempt of each says below
    resumed = cluster.start("resume", cluster.folder.id)
    cluster.finish(resumed)
    cluster.finish(worker)
    cluster.check(4)
    assert cluster.events_of("requeued") == []
    for number in range(4):
        info = cluster.run_of(number)
        assert len(info.series("loss")) == 30
        assert [attempt.number for attempt in info.attempts] == [1]
        reported = [
            point for event in cluster.events_of("reported") if event["number"] == number for point in event["points"]
        ]
        assert [step for step, _ in reported] == list(range(30))


def test_a_trial_that_ended_while_there_was_no_coordinator_is_counted_once(cluster: Cluster) -> None:
    coordinator = cluster.coordinator("run", cluster.config(SLOW + SPOOLED, trials=3, parallel=2))
    worker = cluster.worker("--slots", "2", "--patience", "60")
    cluster.until(lambda: cluster.logged(1) >= 5, coordinator)
    coordinator.kill()
    wait_for(lambda: cluster.trials_alive() == [])
    cluster.finish(cluster.start("resume", cluster.folder.id))
    cluster.finish(worker)
    cluster.check(3)
    assert cluster.events_of("requeued") == []


def test_when_both_were_killed_the_trials_start_again_and_the_budget_is_exact(cluster: Cluster) -> None:
    coordinator = cluster.coordinator("run", cluster.config(SLOW + soon_lost(SPOOLED), trials=3, parallel=2))
    worker = cluster.worker("--slots", "2")
    cluster.until(lambda: cluster.logged(1) >= 3, coordinator)
    coordinator.kill()
    worker.kill()
    wait_for(lambda: cluster.trials_alive() == [])
    resumed = cluster.start("resume", cluster.folder.id)
    cluster.worker("--slots", "2")
    cluster.finish(resumed)
    cluster.check(3)
    assert {event["number"] for event in cluster.events_of("requeued")} >= {0, 1}


@pytest.mark.parametrize("executor", [SPOOLED, SHARED], ids=["spooled", "shared"])
def test_a_host_that_comes_back_too_late_ends_its_trials_and_they_count_once(cluster: Cluster, executor: str) -> None:
    coordinator = cluster.coordinator("run", cluster.config(SLOW + soon_lost(executor), trials=2, parallel=1))
    frozen = cluster.worker("--patience", "60")
    cluster.until(lambda: cluster.logged(0) >= 3, coordinator)
    (stale,) = cluster.trials_alive()
    frozen.send_signal(signal.SIGSTOP)
    cluster.worker()
    cluster.until(lambda: any(event["number"] == 0 for event in cluster.events_of("requeued")), coordinator)
    frozen.send_signal(signal.SIGCONT)
    wait_for(lambda: stale not in cluster.trials_alive())
    cluster.finish(coordinator)
    cluster.check(2)
    assert len(cluster.run_of(0).series("loss")) == 30


def test_a_worker_that_is_asked_to_end_hands_its_trials_back_at_once(cluster: Cluster) -> None:
    executor = "executor: {name: workers, shared: false, lost_after: 50s}\n"
    coordinator = cluster.coordinator("run", cluster.config(SLOW + executor, trials=2))
    first = cluster.worker("--slots", "2")
    cluster.until(lambda: cluster.logged(1) >= 3, coordinator)
    first.send_signal(signal.SIGTERM)
    assert "2 trials go elsewhere" in cluster.finish(first)
    assert {event["kind"] for event in cluster.events_of("requeued")} == {"preempted"}
    cluster.worker("--slots", "2")
    cluster.finish(coordinator)
    cluster.check(2)


def test_after_one_ctrl_c_a_worker_ends_when_its_trials_have(cluster: Cluster) -> None:
    coordinator = cluster.coordinator("run", cluster.config(SLOW + SPOOLED, trials=2, parallel=1))
    first = cluster.worker()
    cluster.until(lambda: cluster.logged(0) >= 3, coordinator)
    first.send_signal(signal.SIGINT)
    cluster.finish(first)
    assert cluster.events_of("requeued") == []
    assert cluster.record.trials[0].state is TrialState.COMPLETE
    cluster.worker()
    cluster.finish(coordinator)
    cluster.check(2)


def test_a_stopped_sweep_goes_on_with_the_workers_that_wait_for_it(cluster: Cluster) -> None:
    coordinator = cluster.coordinator("run", cluster.config(SLOW + SPOOLED, trials=3))
    worker = cluster.worker("--slots", "2", "--patience", "60")
    cluster.until(lambda: cluster.logged(0) >= 3, coordinator)
    coordinator.send_signal(signal.SIGINT)
    cluster.finish(coordinator, code=130)
    assert cluster.trials_alive() == []
    assert worker.poll() is None
    cluster.finish(cluster.start("resume", cluster.folder.id))
    cluster.finish(worker)
    cluster.check(3)


def test_a_worker_goes_when_its_time_is_over_or_there_is_nothing_to_do(cluster: Cluster) -> None:
    coordinator = cluster.coordinator("run", cluster.config(SLOW + SPOOLED, trials=1, parallel=1))
    assert "nothing to do" in cluster.finish(cluster.worker("--idle-exit", "0.01"))
    assert "its time is over" in cluster.finish(cluster.worker("--for", "0.01"))
    cluster.worker()
    cluster.finish(coordinator)
    cluster.check(1)


def test_a_worker_without_a_coordinator_gives_up_and_takes_its_trials_along(cluster: Cluster) -> None:
    coordinator = cluster.coordinator("run", cluster.config(SLOW + SPOOLED, trials=1))
    worker = cluster.worker("--patience", "1")
    cluster.until(lambda: cluster.logged(0) >= 3, coordinator)
    coordinator.kill()
    assert "there is no coordinator" in cluster.finish(worker, code=1)
    wait_for(lambda: cluster.trials_alive() == [])
    assert list((cluster.path / "spool").iterdir()) == []


def test_the_code_is_sent_where_it_is_not(cluster: Cluster, tmp_path: Path) -> None:
    cluster.script("helper.py", "FACTOR = 2.0\n")
    cluster.script(
        "uses.py",
        "import sys, os, runstone, helper, pathlib\nx = float(sys.argv[1].partition('=')[2])\n"
        "here = str(pathlib.Path(__file__).parent)\nassert os.getcwd() == here, (os.getcwd(), here)\n"
        "runstone.start_run(params={'here': here}, environment=False).log({'loss': x * helper.FACTOR})\n",
    )
    (cluster.path / "large.bin").write_bytes(bytes(11 << 20))
    executor = "executor: {name: workers, shared: false, ship_code: true}\n"
    coordinator = cluster.coordinator("run", cluster.config(executor, script="uses.py", trials=2))
    worker = cluster.worker("--slots", "2", cwd=tmp_path)
    out = cluster.finish(coordinator)
    cluster.finish(worker)
    cluster.check(2)
    assert "large.bin" in out
    here = str(cluster.run_of(0).flat_params["here"])
    assert here.startswith(str(cluster.path / "spool"))
    assert not Path(here).exists()


def test_a_folder_that_lies_elsewhere_is_named_on_the_worker(cluster: Cluster, tmp_path: Path) -> None:
    coordinator = cluster.coordinator("run", cluster.config(SPOOLED, trials=2))
    other = tmp_path / "other"
    other.mkdir()
    (other / "train.py").write_text((cluster.path / "train.py").read_text().replace("options.x**2", "100"))
    cluster.worker("--folder", other)
    cluster.finish(coordinator)
    assert {trial.value for trial in cluster.record.trials.values()} == {100 + 1 / 3}


def test_params_in_a_file_reach_a_worker_that_does_not_see_the_sweep(cluster: Cluster) -> None:
    cluster.script(
        "reads.py",
        "import json, sys, runstone\nparams = json.load(open(sys.argv[1]))\n"
        "runstone.start_run(environment=False).log({'loss': params['x']})\n",
    )
    command = "command: [python, reads.py, '${args_json_file}']\n".replace("python,", f"{sys.executable},")
    text = cluster.config(command + SPOOLED, script="reads.py", trials=2).read_text()
    (cluster.path / "toy.yaml").write_text(text)
    coordinator = cluster.coordinator("run", cluster.path / "toy.yaml")
    cluster.worker()
    cluster.finish(coordinator)
    cluster.check(2)
    for trial in cluster.record.trials.values():
        assert trial.value == trial.params["x"]


def test_a_wrong_token_is_told_on_both_sides(cluster: Cluster) -> None:
    coordinator = cluster.coordinator("run", cluster.config(SPOOLED, trials=1))
    wrong = cluster.path / "wrong"
    wrong.write_text("w" * 64)
    wrong.chmod(0o600)
    assert "does not know this token" in cluster.finish(cluster.worker("--token-file", wrong), code=1)
    cluster.worker()
    assert "it does not have the token" in cluster.finish(coordinator)
    token = (cluster.workers_home / "token").read_text().strip()
    assert (cluster.workers_home / "token").stat().st_mode & 0o777 == 0o600
    for path in cluster.home.rglob("*"):
        if path.is_file() and path.name != "token":
            assert token.encode() not in path.read_bytes()


def test_the_token_does_not_reach_trials(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNSTONE_SWEEP_TOKEN", "s" * 40)
    cluster.script(
        "looks.py",
        "import os, runstone\nassert 'RUNSTONE_SWEEP_TOKEN' not in os.environ\n"
        "runstone.start_run(environment=False).log({'loss': 1.0})\n",
    )
    coordinator = cluster.coordinator("run", cluster.config(SPOOLED, script="looks.py", trials=1))
    assert (cluster.workers_home / "token").read_text().strip() == "s" * 40
    cluster.worker()
    cluster.finish(coordinator)
    cluster.check(1)
    assert cluster.record.trials[0].state is TrialState.COMPLETE


def test_a_worker_that_lacks_the_folder_says_so_on_both_sides(cluster: Cluster) -> None:
    (cluster.path / "sub").mkdir()
    (cluster.path / "train.py").rename(cluster.path / "sub" / "train.py")
    coordinator = cluster.coordinator("run", cluster.config(f"working_dir: sub\n{SPOOLED}", trials=1))
    (cluster.path / "sub").rename(cluster.path / "hidden")
    assert "--folder" in cluster.finish(cluster.worker(), code=1)
    (cluster.path / "hidden").rename(cluster.path / "sub")
    cluster.worker()
    assert "cannot take part" in cluster.finish(coordinator)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"listn": "x"}, "did you mean listen"),
        ({"lost_after": "soon"}, "executor.lost_after"),
        ({"tls_cert": "a.pem"}, "given together"),
        ({"listen": "tcp://"}, "no address"),
        ({"ship_code": "yes"}, "true or false"),
        ({"listen": "203.0.113.9:80"}, "executor.listen"),
    ],
)
def test_a_mistake_in_the_options_is_told(tmp_path: Path, options: dict[str, str], told: str) -> None:
    config = {
        "command": ["true"],
        "metric": {"name": "loss", "goal": "minimize"},
        "parameters": {"x": {"min": 0.0, "max": 1.0}},
        "trials": 1,
        "executor": {"name": "workers", **options},
    }
    spec = parse_spec(config, folder=tmp_path, file_name="sweep", has_objective=False)
    workspace = ensure_workspace(tmp_path / "w")
    folder = Sweeps(workspace).create(spec, seed=0)
    with pytest.raises(InvalidConfig, match=told):
        open_executor(workspace, folder, spec, environment={}, is_warm=False, preload=())


def test_a_python_function_cannot_be_sent(cluster: Cluster) -> None:
    from runstone_sweeps import Sweep

    config = {
        "metric": {"name": "loss", "goal": "minimize"},
        "parameters": {"x": {"min": 0.0, "max": 1.0}},
        "trials": 1,
        "executor": "workers",
    }
    with pytest.raises(InvalidConfig, match="function: module:name"):
        Sweep(config, lambda params: params["x"], workspace=cluster.home).run(show_progress=False)


def test_what_lies_in_the_folder_of_the_workers_is_private(cluster: Cluster) -> None:
    before = os.umask(0)
    try:
        coordinator = cluster.coordinator("run", cluster.config(SLOW + SPOOLED, trials=1))
        worker = cluster.worker()
        cluster.until(lambda: cluster.logged(0) >= 3, coordinator)
        (spool,) = (cluster.path / "spool").iterdir()
        assert (cluster.path / "spool").stat().st_mode & 0o077 == 0
        assert spool.stat().st_mode & 0o077 == 0
        assert cluster.workers_home.stat().st_mode & 0o077 == 0
        (handed,) = (cluster.workers_home / "trials").iterdir()
        assert json.loads(handed.read_text())["attempt"] == 1
        cluster.finish(coordinator)
        cluster.finish(worker)
    finally:
        os.umask(before)


def test_without_parallel_as_many_run_as_the_workers_take_and_they_share_what_is_known_of_their_host(
    cluster: Cluster,
) -> None:
    beside = cluster.path / "beside"
    beside.mkdir()
    cluster.script(
        "train.py",
        "import os, pathlib, sys, time, runstone\n"
        "with runstone.start_run(system_metrics=False) as run:\n    run.log({'loss': 1.0}, step=0)\n"
        f"beside = pathlib.Path({str(beside)!r})\n(beside / run.name).touch()\n"
        "while len(list(beside.iterdir())) < 3: time.sleep(0.02)\n"
        "folder = pathlib.Path(os.environ['RUNSTONE_FACTS'])\nprint(folder, oct(folder.stat().st_mode & 0o777))\n",
    )
    config = cluster.config(SPOOLED, trials=3)
    config.write_text(config.read_text().replace("parallel: 2\n", ""))
    coordinator = cluster.coordinator("run", config)
    worker = cluster.worker("--slots", "3")
    out = cluster.finish(coordinator)  # each waits for the two others
    assert "as many at once as the workers take" in out
    cluster.finish(worker)
    told = {(cluster.run_of(number).path / "console.1.log").read_text() for number in range(3)}
    (line,) = told  # one folder for all of them
    folder, mode = line.split()
    assert Path(folder).is_relative_to(cluster.path / "spool")
    assert mode == "0o700"
    assert not Path(folder).exists()
    assert all(cluster.run_of(number).environment for number in range(3))
