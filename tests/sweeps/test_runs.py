"""Whole sweeps with real processes: results, pruning, failures, timeouts, stops and resumes."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

import runstone
from runstone_sweeps.coordinator.watching import thinned
from runstone_sweeps.record import SweepRecord, TrialState
from runstone_sweeps.store import SweepIsRunning, recorded_spec
from runstone_sweeps.study import Search

from .conftest import SCRIPT, Place


def check_budget(place: Place, trials: int) -> None:
    """No trial is lost or doubled, each was told once, and each has one run."""
    record = place.record
    assert sorted(record.trials) == list(range(trials))
    assert [event["number"] for event in place.events_of("asked")] == list(range(trials))
    assert sorted(event["number"] for event in place.events_of("told")) == list(range(trials))
    runs = list(runstone.open_workspace(place.home).run_folders())
    assert sorted(path.name for path in runs) == sorted(trial.run_id for trial in record.trials.values())
    assert record.is_finished
    place.until(lambda: not place.living())


def test_each_trial_is_a_run_with_its_params_tags_and_group(place: Place) -> None:
    out = place.sweep("run", place.config("  steps: {value: 2}\nproject: vision\n"))
    check_budget(place, 4)
    record = place.record
    workspace = runstone.open_workspace(place.home)
    for trial in record.trials.values():
        run = workspace.run(trial.run_id)
        assert (run.project, run.group, run.name) == ("vision", place.folder.id, f"toy-{trial.number}")
        assert run.tags == {"sweep": "toy", "trial": str(trial.number)}
        assert run.params == {"x": trial.params["x"], "steps": 2}
        assert run.status == "finished"
        assert run.attempts[-1].number == 1
        assert trial.value == run.metrics["loss"].last == pytest.approx(trial.params["x"] ** 2 + 0.5)
        assert trial.reports == dict(enumerate([trial.params["x"] ** 2 + 1, trial.value]))
    assert record.best is not None
    assert f"trial {record.best.number} complete" in out
    assert "4 complete" in out


def test_the_best_value_of_a_trial_counts_where_the_config_says_so(place: Place) -> None:
    script = "import runstone\nrun = runstone.start_run(environment=False)\nfor v in (3, 1, 2): run.log({'loss': v})\n"
    place.script("train.py", script)
    place.sweep("run", place.config("", trials=1, name="last"))
    assert place.record.trials[0].value == 2.0
    text = place.config("", trials=1, name="least").read_text().replace("minimize}", "minimize, value: best}")
    (place.path / "least.yaml").write_text(text)
    place.sweep("run", place.path / "least.yaml")
    assert place.folders[-1].read().trials[0].value == 1.0


def test_hopeless_trials_are_pruned_and_stop_at_once(place: Place) -> None:
    # the loss starts above 1.4 where x**2 > 0.4
    more = "  steps: {value: 20}\n  slow: {value: 0.02}\npruner: {name: threshold, upper: 1.4}\n"
    place.sweep("run", place.config(more, trials=6))
    check_budget(place, 6)
    workspace = runstone.open_workspace(place.home)
    for trial in place.record.trials.values():
        is_hopeless = trial.params["x"] ** 2 + 1 > 1.4
        assert (trial.state is TrialState.PRUNED) == is_hopeless
        run = workspace.run(trial.run_id)
        assert run.status == ("pruned" if is_hopeless else "finished")
        assert (run.metrics["loss"].count < 20) == is_hopeless
        assert trial.value == (run.metrics["loss"].last if not is_hopeless else trial.reports[max(trial.reports)])
    assert {trial.state for trial in place.record.trials.values()} == {TrialState.PRUNED, TrialState.COMPLETE}


def test_a_trial_that_does_not_obey_is_killed_with_all_its_processes(place: Place) -> None:
    place.script(
        "stubborn.py",
        "import os, signal, sys, time, runstone\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "run = runstone.start_run(environment=False)\nrun.log({'loss': 9.0}, step=0)\nos.fork()\ntime.sleep(600)\n",
    )
    config = place.config("grace: 0.2\npruner: {name: threshold, upper: 1}\n", script="stubborn.py", trials=1)
    before = time.monotonic()
    place.sweep("run", config, code=1)
    assert time.monotonic() - before < 120
    trial = place.record.trials[0]
    assert (trial.state, trial.value) == (TrialState.PRUNED, 9.0)
    assert runstone.open_workspace(place.home).run(trial.run_id).status == "pruned"
    assert not place.living()


def test_a_trial_that_takes_too_long_fails_with_that_reason(place: Place) -> None:
    config = place.config("  steps: {value: 9999}\n  slow: {value: 0.05}\ntrial_timeout: 0.5\n", trials=2)
    out = place.sweep("run", config, code=1)
    assert [trial.reason for trial in place.record.trials.values()] == ["took longer than trial_timeout (0.5 s)"] * 2
    assert "failed: 2 trials (0, 1): took longer than trial_timeout (0.5 s)" in out
    check_budget(place, 2)


def test_one_crashed_trial_does_not_stop_the_sweep_and_failures_are_grouped(place: Place) -> None:
    place.script(
        "train.py",
        "import os, sys, runstone\n"
        "run = runstone.start_run(environment=False)\nn = int(run.name.rpartition('-')[2])\n"
        "if n % 3 == 1: raise ValueError(f'bad luck in {n}')\nif n == 3: os.kill(os.getpid(), 9)\n"
        "if n == 5: print('no metric'); sys.exit(4)\nrun.log({'loss': n})\n",
    )
    out = place.sweep("run", place.config(trials=8))
    check_budget(place, 8)
    reasons = {trial.number: trial.reason for trial in place.record.trials.values() if trial.reason}
    assert reasons == {
        1: "ValueError: bad luck in 1",
        3: "killed by SIGKILL; was memory short?",
        4: "ValueError: bad luck in 4",
        5: "no metric (exit code 4)",
        7: "ValueError: bad luck in 7",
    }
    assert "failed: 3 trials (1, 4, 7): ValueError: bad luck in 1" in out
    workspace = runstone.open_workspace(place.home)
    assert workspace.run(place.record.trials[3].run_id).status == "failed"
    console = workspace.run(place.record.trials[1].run_id).path / "console.1.log"
    assert "ValueError: bad luck in 1" in console.read_text()


def test_a_sweep_whose_first_trials_all_fail_alike_stops_and_says_why(place: Place) -> None:
    place.script("train.py", "raise RuntimeError('no data')\n")
    out = place.sweep("run", place.config(trials=50, parallel=1), code=1)
    assert "stopped early: the first trials all failed in the same way" in out
    assert "RuntimeError: no data (exit code 1)" in out
    assert place.record.ended == 3
    place.script("train.py", "import runstone\nrunstone.start_run(environment=False).log({'loss': 1})\n")
    out = place.sweep("run", place.config(trials=5, parallel=2))
    assert "going on with sweep" in out
    check_budget(place, 5)


def test_a_trial_that_logs_another_metric_fails_with_the_nearest_name(place: Place) -> None:
    place.script("train.py", "import runstone\nrunstone.start_run(environment=False).log({'val/loss': 1, 'acc': 2})\n")
    place.sweep("run", place.config(trials=1), code=1)
    assert place.record.trials[0].reason == "never logged the metric 'loss'; it logged 'val/loss'"
    place.script("train.py", "print('done')\n")
    place.sweep("run", place.config(trials=1, name="two"), code=1)
    assert place.folders[-1].read().trials[0].reason == "never logged the metric 'loss'; it logged none"


def test_a_result_that_is_no_number_fails(place: Place) -> None:
    place.script("train.py", "import runstone\nrunstone.start_run(environment=False).log({'loss': float('nan')})\n")
    place.sweep("run", place.config(trials=1), code=1)
    assert place.record.trials[0].reason == "loss is NaN"


def test_a_crash_is_tried_again_as_often_as_the_config_says(place: Place) -> None:
    place.script(
        "train.py",
        "import os, runstone\nrun = runstone.start_run(environment=False)\nrun.log({'loss': run.attempt}, step=0)\n"
        "if run.attempt < 3: os.kill(os.getpid(), 9)\n",
    )
    place.sweep("run", place.config("retries: {crash: 2, backoff: 0.1}\n", trials=2))
    check_budget(place, 2)
    assert [(trial.value, trial.attempts, trial.reports) for trial in place.record.trials.values()] == [
        (3.0, 3, {0: 3.0}),
        (3.0, 3, {0: 3.0}),
    ]


def test_ctrl_c_lets_trials_stop_and_a_second_run_goes_on(place: Place) -> None:
    place.script("train.py", SCRIPT.replace("while options.until and", "while not run.name.endswith(('-0', '-1')) and"))
    config = place.config("  steps: {value: 20}\n  until: {value: go}\n", trials=5)
    process = place.start("run", config)
    place.until(lambda: any(event["number"] >= 2 for event in place.events_of("reported")), process)
    os.kill(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=180)
    assert process.returncode == 130
    assert "running trials are asked to stop and have 30.0 s for it; Ctrl-C once more kills them" in out
    assert "stopped; `sweep resume" in out
    assert not place.living()
    record = place.record
    waiting = [trial for trial in record.trials.values() if trial.state is TrialState.WAITING]
    assert waiting
    assert not record.is_finished
    params = {trial.number: trial.params for trial in record.trials.values()}
    place.go()
    out = place.sweep("run", config)
    assert f"going on with sweep {place.folder.id}" in out
    check_budget(place, 5)
    assert all(place.record.trials[number].params == kept for number, kept in params.items())
    again = place.record.trials[waiting[0].number]
    assert again.attempts == 2
    assert sorted(again.reports) == list(range(20))
    run = runstone.open_workspace(place.home).run(again.run_id)
    assert (run.status, len(run.attempts), run.metrics["loss"].count) == ("finished", 2, 20)


def test_two_ctrl_c_kill_at_once(place: Place) -> None:
    place.script(
        "train.py", "import time, runstone\nrunstone.start_run(environment=False).log({'loss': 1})\ntime.sleep(600)\n"
    )
    process = place.start("run", place.config(trials=2))
    place.until(lambda: len(place.events_of("reported")) == 2, process)
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=180)
    assert process.returncode == 130
    assert not place.living()
    assert [trial.state for trial in place.record.trials.values()] == [TrialState.WAITING] * 2


def test_sweep_stop_ends_a_sweep_as_ctrl_c_does_and_resume_goes_on(place: Place) -> None:
    config = place.config("  steps: {value: 60}\n  until: {value: go}\n", trials=2)
    process = place.start("run", config)
    place.until(lambda: len(place.events_of("reported")) >= 2, process)
    assert place.folder.is_running
    with pytest.raises(SweepIsRunning, match="is running in another process"):
        place.folder.lock()
    assert "is asked to stop" in place.sweep("stop", "toy")
    process.communicate(timeout=180)
    assert process.returncode == 130
    assert "is not running" in place.sweep("stop", place.folder.id[-6:])
    place.go()
    place.sweep("resume", place.folder.id[:12], "--trials", "3")
    check_budget(place, 3)


def test_a_timeout_ends_the_sweep_and_more_time_goes_on(place: Place) -> None:
    config = place.config("  steps: {value: 12}\n  slow: {value: 0.05}\ntimeout: 1\n", trials=3, parallel=1)
    out = place.sweep("run", config, code=0)
    assert "time is up" in out
    assert not place.record.is_finished or place.record.ended == 0
    place.sweep("resume", "toy", "--timeout", "1m")
    check_budget(place, 3)


@pytest.mark.parametrize("seed", range(3))
def test_kill_9_of_the_coordinator_loses_and_doubles_nothing(place: Place, seed: int) -> None:
    chance = random.Random(seed)
    config = place.config(
        "  steps: {value: 8}\n  slow: {value: 0.08}\npruner: {name: threshold, upper: 1.6}\n", trials=9, parallel=3
    )
    for _ in range(3):
        process = place.start("run", config)
        place.until_opened(process)
        time.sleep(chance.uniform(0.0, 0.5))
        victims = [process.pid, *(place.living() if chance.random() < 0.3 else [])]
        for victim in victims:
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.communicate()
        place.until(lambda: not place.living())
    params = {trial.number: trial.params for trial in place.record.trials.values()}
    place.sweep("run", config, code=0)
    check_budget(place, 9)
    record = place.record
    assert all(record.trials[number].params == kept for number, kept in params.items())
    for trial in record.trials.values():
        is_hopeless = trial.params["x"] ** 2 + 1 > 1.6
        assert trial.state is (TrialState.PRUNED if is_hopeless else TrialState.COMPLETE)
    # the points are those of a search that nobody disturbed
    spec = recorded_spec(record)
    search = Search(spec, seed=5, record=SweepRecord())
    assert [search.ask(number).params for number in range(9)] == [trial.params for trial in record.trials.values()]


def test_a_trial_that_finished_untold_is_told_from_its_files(place: Place) -> None:
    place.sweep("run", place.config(trials=3, parallel=1))
    value = place.record.trials[2].value
    (journal,) = [path for path in place.folder.path.glob("journal.*") if b'"told"' in path.read_bytes()]
    lines = journal.read_bytes().splitlines(keepends=True)
    last_told = max(index for index, line in enumerate(lines) if b'"event":"told"' in line)
    reported = max(index for index, line in enumerate(lines) if b'"event":"reported"' in line)
    journal.write_bytes(b"".join(lines[:reported]))
    assert last_told > reported
    assert place.record.trials[2].state is TrialState.RUNNING
    place.sweep("run", place.config(trials=3, parallel=1))
    check_budget(place, 3)
    trial = place.record.trials[2]
    assert (trial.value, trial.attempts, sorted(trial.reports)) == (value, 1, [0, 1, 2])


def test_a_finished_sweep_is_not_resumed_but_a_larger_budget_is(place: Place) -> None:
    place.sweep("run", place.config(trials=2))
    place.sweep("run", place.config(trials=3))
    check_budget(place, 3)
    place.sweep("run", place.config(trials=3))
    assert len(place.folders) == 2


def test_a_function_is_tried_in_processes_of_its_own(place: Place) -> None:
    place.script(
        "objectives.py",
        "import os, runstone\ndef square(params):\n    print('pid', os.getpid())\n"
        "    runstone.log({'extra': 1})\n    return params['x'] ** 2\n",
    )
    text = place.config(trials=3).read_text().replace("script: train.py", "function: objectives:square")
    (place.path / "toy.yaml").write_text(text)
    place.sweep("run", place.path / "toy.yaml")
    check_budget(place, 3)
    workspace = runstone.open_workspace(place.home)
    for trial in place.record.trials.values():
        assert trial.value == pytest.approx(trial.params["x"] ** 2)
        run = workspace.run(trial.run_id)
        assert set(run.metrics) == {"loss", "extra"}
        assert (run.path / "console.1.log").read_text().startswith("pid ")


def test_a_command_of_any_language_is_a_trial_with_its_environment(place: Place) -> None:
    place.script("go.sh", 'echo "$1 $COLOR $RUNSTONE_SEED $RUNSTONE_TRIAL"; exec "$PYTHON" train.py --x=$2\n')
    more = "env: {COLOR: blue, PYTHON: " + sys.executable + "}\n"
    text = place.config(more, trials=2).read_text()
    text = text.replace("script: train.py", 'command: [sh, go.sh, "a b", "${x}"]')
    (place.path / "toy.yaml").write_text(text)
    place.sweep("run", place.path / "toy.yaml")
    check_budget(place, 2)
    runs = runstone.open_workspace(place.home)
    lines = [(runs.run(t.run_id).path / "console.1.log").read_text().split() for t in place.record.trials.values()]
    assert [line[:3] for line in lines] == [["a", "b", "blue"]] * 2
    assert lines[0][3] != lines[1][3]
    assert lines[0][4].startswith('{"x":')


def test_many_points_are_thinned_alike_for_trials_that_log_alike() -> None:
    steps = list(range(0, 500_000, 5))
    whole = [step for step, _ in thinned(steps, [0.0] * len(steps), 0)]
    assert whole[:256] == steps[:256]
    assert len(whole) < 256 + 128 * 10
    parts = [step for at in range(0, 100_000, 800) for step, _ in thinned(steps[at : at + 800], [0.0] * 800, at)]
    assert parts == whole


def test_a_config_outside_the_current_folder_runs_in_its_own(place: Place) -> None:
    config = place.config(trials=1)
    (place.path / "elsewhere").mkdir()
    process_path = Path("..") / config.name
    place.path, before = place.path / "elsewhere", place.path
    try:
        place.sweep("run", process_path)
    finally:
        place.path = before
    check_budget(place, 1)
