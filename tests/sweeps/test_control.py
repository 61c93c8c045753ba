"""What is asked of a sweep while it runs and while it rests: pause, add, rerun, edit, status, logs."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

import runstone
from runstone_sweeps.record import SweepRecord, TrialState
from runstone_sweeps.store.requests import RequestRefused, Requests, answer_here, parse_assignments, wait_for_answer

from .conftest import Place, Silent

# Trials that wait, after their first step, until the test lets them go on.
HELD = "  steps: {value: 3}\n  until: {value: go}\n"


def test_a_paused_sweep_starts_nothing_until_it_is_resumed(place: Place) -> None:
    config = place.config(HELD, trials=5, parallel=1)
    process = place.start("run", config)
    place.until(lambda: len(place.events_of("reported")) >= 1, process)
    out = place.sweep("pause", "toy")
    assert "no more trials start until `sweep resume" in out
    place.go()
    place.until(lambda: len(place.events_of("told")) == 1, process)
    started = len(place.events_of("started"))
    assert started == 1
    active_s = place.record.active_s
    time.sleep(0.8)
    assert len(place.events_of("started")) == started
    assert place.record.is_paused
    assert "paused" in place.sweep("status", "toy")
    assert "goes on" in place.sweep("resume", "toy")
    process.communicate(timeout=180)
    assert process.returncode == 0
    record = place.record
    assert record.is_finished
    assert len(record.trials) == 5
    # a pause in which nothing runs is no work
    (told, *_), (unpaused,) = place.events_of("told"), place.events_of("unpaused")
    assert unpaused["at"] - told["at"] > 0.8
    total = place.events[-1]["at"] - place.events_of("opened")[0]["at"]
    assert record.active_s < total - 0.7
    assert record.active_s > active_s


def test_a_paused_sweep_stops_at_once(place: Place) -> None:
    process = place.start("run", place.config(HELD, trials=5, parallel=1))
    place.until(lambda: len(place.events_of("reported")) >= 1, process)
    place.sweep("pause", "toy")
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=180)
    assert process.returncode == 130
    place.go()
    assert place.resume_here(trials=2) == "finished"
    assert not place.record.is_paused


def test_points_are_added_to_a_sweep_that_runs_and_to_one_that_has_ended(place: Place) -> None:
    process = place.start("run", place.config(HELD, trials=2, parallel=1))
    place.until(lambda: len(place.events_of("reported")) >= 1, process)
    wait_for_answer(place.folder, Requests(place.folder).post("add", points=[{"x": 0.1}]))
    place.go()
    process.communicate(timeout=180)
    assert process.returncode == 0
    assert [trial.params["x"] == 0.1 for trial in place.record.trials.values()] == [False, True]
    assert "when the sweep goes on: `sweep resume" in place.sweep("add", "toy", "x=0.2", "steps=1")
    record = place.record
    assert [(dict(point.params), point.is_extra) for point in record.queue] == [({"x": 0.2, "steps": 1}, True)]
    assert not record.is_finished
    place.sweep("resume", "toy")
    assert place.record.trials[2].params == {"x": 0.2, "steps": 1, "until": "go"}
    assert place.record.is_finished  # beyond the budget of two
    out = place.sweep("add", "toy", "y=1", code=1)
    assert "there is no parameter 'y'; there is steps, until, x" in out
    assert not place.record.queue
    assert not list((place.folder.path / "requests").iterdir())


def test_a_sweep_is_given_more_trials_while_it_runs_and_after_its_end(place: Place) -> None:
    process = place.start("run", place.config(HELD, trials=1, parallel=1))
    place.until(lambda: len(place.events_of("reported")) >= 1, process)
    assert "2 more trials are run\n" in place.sweep("add", "toy", "--trials", "2")
    place.go()
    process.communicate(timeout=180)
    assert process.returncode == 0
    assert place.record.counts == {TrialState.COMPLETE: 3}
    assert "1 more trial is run when the sweep goes on" in place.sweep("add", "toy", "--trials", "1")
    assert not place.record.is_finished
    place.sweep("resume", "toy")
    assert place.record.counts == {TrialState.COMPLETE: 4}
    assert place.record.is_finished
    assert "name a point, such as lr=0.1, or how many --trials more" in place.sweep("add", "toy", code=2)


def test_a_sweep_that_time_alone_limits_is_given_no_more_trials(place: Place) -> None:
    config = place.config("timeout: 1s\n")
    config.write_text(config.read_text().replace("trials: 4\n", ""))
    assert place.run_here(config) == "timeout"
    assert "no number of trials limits this sweep" in place.sweep("add", "toy", "--trials", "1", code=1)
    assert not list((place.folder.path / "requests").iterdir())


def test_failed_trials_are_run_again_and_replace_what_they_came_to(place: Place) -> None:
    place.script(
        "train.py",
        "import os, runstone\nrun = runstone.start_run(environment=False)\n"
        "if not os.path.exists('data'): raise OSError('no data')\nrun.log({'loss': 1.0}, step=0)\n",
    )
    config = place.config(trials=3)
    assert place.run_here(config) == "failing"
    before = place.record
    assert before.counts[TrialState.FAILED] == 3
    (place.path / "data").write_text("")
    assert "they are run again when the sweep goes on" in place.sweep("rerun", "toy", "--failed")
    place.sweep("resume", "toy")
    record = place.record
    assert [(t.state, t.attempts, t.value) for t in record.trials.values()] == [(TrialState.COMPLETE, 2, 1.0)] * 3
    assert [t.run_id for t in record.trials.values()] == [t.run_id for t in before.trials.values()]
    assert [t.params for t in record.trials.values()] == [t.params for t in before.trials.values()]
    assert record.counts == {TrialState.COMPLETE: 3}
    assert record.is_finished
    for words, message in (
        (["7"], "there is no trial 7; there are 3, counted from 0"),
        ([], "name the trials to run again"),
        (["--failed"], "there is no failed trial to run again"),
    ):
        assert message in place.sweep("rerun", "toy", *words, code=1)


def test_a_trial_is_run_again_while_the_sweep_runs(place: Place) -> None:
    place.script(
        "train.py",
        "import os, time, runstone\nrun = runstone.start_run(environment=False)\n"
        "while not run.name.endswith('-0') and not os.path.exists('go'): time.sleep(0.01)\nrun.log({'loss': 1.0})\n",
    )
    process = place.start("run", place.config(trials=4, parallel=1))
    place.until(lambda: len(place.events_of("told")) == 1, process)
    place.sweep("rerun", "toy", "0")
    place.go()
    process.communicate(timeout=180)
    record = place.record
    assert record.is_finished
    assert [trial.attempts for trial in record.trials.values()] == [2, 1, 1, 1]
    assert sorted(event["number"] for event in place.events_of("told")) == [0, 0, 1, 2, 3]
    assert runstone.open_workspace(place.home).run(record.trials[0].run_id).attempts[-1].number == 2


def test_the_space_is_edited_in_mid_sweep_and_history_is_kept(place: Place) -> None:
    process = place.start("run", place.config(HELD, trials=3, parallel=1))
    place.until(lambda: len(place.events_of("reported")) >= 1, process)
    other = place.config(HELD, trials=5, parallel=1, name="other")
    other.write_text(other.read_text().replace("min: -1.0, max: 1.0", "min: 5.0, max: 6.0"))
    assert "goes on by other.yaml" in place.sweep("edit", "toy", other)
    place.go()
    process.communicate(timeout=180)
    assert process.returncode == 0
    record = place.record
    assert len(record.trials) == 5
    (edited,) = place.events_of("edited")
    asked = [(event["seq"] > edited["seq"], event["params"]["x"] >= 5) for event in place.events_of("asked")]
    assert len(set(asked)) == 2
    assert all(is_later == is_new for is_later, is_new in asked)
    assert record.best is not None
    assert abs(record.best.params["x"]) <= 1  # what was found before counts
    # the edited config is now the sweep's own: running it again goes on with it
    place.sweep("edit", "toy", other, "trials=6")
    assert place.record.trials_budget == 6
    place.sweep("resume", "toy")
    assert len(place.record.trials) == 6
    text = other.read_text().replace("name: loss", "name: accuracy")
    other.write_text(text)
    assert "the metrics of a sweep cannot change" in place.sweep("edit", "toy", other, code=1)


def test_status_and_logs_tell_of_a_running_and_of_an_ended_sweep(place: Place) -> None:
    place.script(
        "train.py",
        "import os, time, runstone\nrun = runstone.start_run(environment=False)\nprint('begin', run.name, flush=True)\n"
        "run.log({'loss': 2.0})\nwhile not os.path.exists('go'): time.sleep(0.01)\nprint('end', run.name)\n",
    )
    process = place.start("run", place.config(trials=2, parallel=2))
    place.until(lambda: len(place.events_of("reported")) >= 2, process)
    out = place.sweep("status", "toy")
    assert "running" in out
    assert "0/2 trials" in out
    follower = place.start("logs", "toy", "1", "-f")
    assert follower.stdout is not None
    assert follower.stdout.readline() == "begin toy-1\n"  # while it runs
    place.go()
    process.communicate(timeout=180)
    out, _ = follower.communicate(timeout=180)
    assert out.splitlines() == ["end toy-1"]
    assert place.sweep("logs", "toy", "0").splitlines() == ["begin toy-0", "end toy-0"]
    assert "has no trial 9; it has 2, counted from 0" in place.sweep("logs", "toy", "9", code=1)
    out = place.sweep("status", "toy")
    assert "finished" in out
    assert "trial 0" in out


def test_a_request_is_answered_once_however_often_it_is_found(place: Place) -> None:
    place.run_here(place.config(trials=1))
    requests = Requests(place.folder)
    request = requests.post("add", points=[{"x": 0.5}])
    answer_here(place.folder, request)
    # its file was not removed: the process died between the answer and that
    (place.folder.path / "requests" / f"{request.id}.json").write_text(
        json.dumps({"action": "add", "points": [{"x": 0.5}]})
    )
    assert place.resume_here() == "finished"
    assert len(place.record.trials) == 2
    assert requests.pending() == []


def test_what_cannot_be_done_is_refused_and_said_so(place: Place) -> None:
    place.run_here(place.config(trials=1))
    requests = Requests(place.folder)
    with pytest.raises(RequestRefused, match="nobody knows how to dance"):
        answer_here(place.folder, requests.post("dance"))
    (place.folder.path / "requests" / "0.json").write_text("{torn")
    assert place.resume_here() == "finished"
    (refused,) = [event for event in place.events_of("refused") if event["request"] == "0"]
    assert "a damaged file" in refused["reason"]
    assert not wait_for_answer(place.folder, requests.post("pause"), timeout_s=0.1)


def test_assignments_are_read_as_a_config_reads_them() -> None:
    words = ["lr=1e-3", "n=4", "name=adam", "on=true", "layers=[8, 8]", "text='1'", "nothing=null", "a.b=0.5"]
    assert parse_assignments(words) == {
        "lr": 0.001, "n": 4, "name": "adam", "on": True, "layers": [8, 8], "text": "1", "nothing": None, "a.b": 0.5,
    }  # fmt: skip
    with pytest.raises(runstone.InvalidValue, match="'lr' is not of the form name=value"):
        parse_assignments(["lr"])


def test_overrides_and_a_script_without_a_config_are_run(place: Place) -> None:
    place.sweep("run", place.config(trials=9), "trials=2", "parallel=1")
    assert len(place.record.trials) == 2
    place.sweep("run", "train.py", "x=interval(0, 1)", "--metric", "loss", "--goal", "minimize", "--trials", "2")
    record: SweepRecord = place.folders[-1].read()
    assert record.name == "train"
    assert len(record.trials) == 2
    assert all(0 <= trial.params["x"] <= 1 for trial in record.trials.values())
    out = place.sweep("run", place.path / "toy.yaml", "--metric", "loss", code=2)
    assert "--metric and --goal go with a script" in out


def test_remarks_reach_whoever_watches(place: Place) -> None:
    watcher = Silent()
    config = place.config("start: auto\n", trials=1)
    config.write_text(config.read_text().replace("script: train.py", "command: [sh, -c, 'exit 0', '${args}']"))
    place.run_here(config, watcher=watcher)
    assert [note for note in watcher.notes if note.startswith("trials start cold: ")]
