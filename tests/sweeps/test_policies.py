"""What becomes of trials that end badly, twice, or too well: retries, replicates, duplicates, limits, audits."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from statistics import stdev

import pytest

import runstone
from runstone_sweeps.record import SweepRecord, TrialRecord, TrialState
from runstone_sweeps.store import SweepNotFound, Sweeps

from .conftest import Place, Silent

OPEN = "import os, signal, sys, time, runstone\nrun = runstone.start_run(environment=False)\n"
RETRY = "retries: {crash: 3, oom: 3, preempted: 3, nan: 3, backoff: 0.05}\n"


def trials_of(place: Place) -> list[TrialRecord]:
    return list(place.record.trials.values())


@pytest.mark.parametrize(
    ("kind", "first"),
    [
        ("oom", "raise MemoryError('too large')"),
        ("oom", "raise RuntimeError('CUDA out of memory. Tried to allocate 2.00 GiB')"),
        ("oom", "print('torch.OutOfMemoryError: CUDA out of memory.'); sys.stdout.flush(); os._exit(1)"),
        ("preempted", "os._exit(77)"),
        ("preempted", "os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)"),
        ("crash", "os.kill(os.getpid(), signal.SIGSEGV)"),
        ("nan", "run.log({'loss': float('nan')}, step=0); run.finish(); os._exit(0)"),
    ],
)
def test_what_may_pass_is_tried_again_and_counted_by_its_kind(place: Place, kind: str, first: str) -> None:
    place.script(
        "train.py",
        OPEN + f"retry = int(os.environ['RUNSTONE_RETRY'])\nif retry < 2: {first}\n"
        "run.log({'loss': retry, 'oom': int(os.environ['RUNSTONE_OOM_RETRY'])}, step=1)\n",
    )
    assert place.run_here(place.config(RETRY, trials=1)) == "finished"
    (trial,) = trials_of(place)
    assert (trial.state, trial.value, trial.attempts) == (TrialState.COMPLETE, 2.0, 3)
    assert dict(trial.runs[0].tries) == {kind: 2}
    run = runstone.open_workspace(place.home).run(trial.run_id)
    assert run.metrics["oom"].last == (2 if kind == "oom" else 0)


def test_a_defect_of_the_script_is_never_tried_again(place: Place) -> None:
    place.script("train.py", OPEN + "raise ValueError('a defect')\n")
    place.run_here(place.config(RETRY, trials=2))
    assert [(t.attempts, t.reason) for t in trials_of(place)] == [(1, "ValueError: a defect")] * 2


def test_a_result_that_is_no_number_is_tried_again_with_another_seed(place: Place) -> None:
    place.script(
        "train.py",
        OPEN + "seed = os.environ['RUNSTONE_SEED']\nrun.log_params({'a' + str(run.attempt): seed})\n"
        "run.log({'loss': float('nan') if run.attempt < 3 else 1.0})\n",
    )
    place.run_here(place.config(RETRY, trials=1))
    run = runstone.open_workspace(place.home).run(trials_of(place)[0].run_id)
    assert len({run.params["a1"], run.params["a2"], run.params["a3"]}) == 3


def test_retries_wait_longer_each_time_and_the_wait_survives_the_coordinator(place: Place) -> None:
    place.script("train.py", OPEN + "if run.attempt < 3: os.kill(os.getpid(), 9)\nrun.log({'loss': 1.0})\n")
    config = place.config("retries: {crash: 5, backoff: 1.2}\n", trials=1)
    process = place.start("run", config)
    place.until(lambda: len(place.events_of("requeued")) == 2, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    first, second = place.events_of("requeued")
    assert first["not_before"] - first["at"] == pytest.approx(1.2, abs=0.5)
    assert second["not_before"] - second["at"] == pytest.approx(2.4, abs=0.5)
    assert place.resume_here() == "finished"
    assert place.events_of("started")[-1]["at"] >= second["not_before"]
    assert trials_of(place)[0].attempts == 3


def test_a_trial_that_reports_nothing_for_too_long_fails_with_that_reason(place: Place) -> None:
    place.script("train.py", OPEN + "run.log({'loss': 1.0}, step=0)\ntime.sleep(600)\n")
    place.run_here(place.config("no_report_timeout: 0.4\ngrace: 0\n", trials=1))
    (trial,) = trials_of(place)
    assert trial.reason == "reported nothing for longer than no_report_timeout (0.4 s)"
    place.script(
        "train.py", OPEN + "for i in range(40): run.log({'other': 1.0}); time.sleep(0.1)\nrun.log({'loss': 1})"
    )
    place.run_here(place.config("no_report_timeout: 3.5\n", trials=1, name="busy"))
    assert place.folders[-1].read().trials[0].state is TrialState.COMPLETE


def test_replicates_are_runs_of_their_own_with_seeds_of_their_own_and_come_to_one_result(place: Place) -> None:
    place.script(
        "train.py",
        OPEN + "k = int(run.name.rpartition('.')[2])\nrun.log_params({'seed': os.environ['RUNSTONE_SEED']})\n"
        "run.log({'loss': [5.0, 1.0, 3.0][k]}, step=0)\n",
    )
    place.run_here(place.config("replicates: 3\n", trials=2))
    workspace = runstone.open_workspace(place.home)
    seeds = set()
    for trial in trials_of(place):
        assert (trial.state, trial.value, [run.values for run in trial.runs]) == (
            TrialState.COMPLETE, 3.0, [(5.0,), (1.0,), (3.0,)],
        )  # fmt: skip
        assert trial.spread == 2.0
        assert trial.runs[0].run_id == trial.run_id
        for run in trial.runs:
            info = workspace.run(run.run_id)
            assert info.tags["replicate"] == str(run.index)
            assert info.params["x"] == trial.params["x"]
            seeds.add(info.params["seed"])
    assert len(seeds) == 6
    assert len(place.events_of("told")) == 2
    assert place.record.is_finished


def test_a_trial_whose_first_run_is_pruned_has_no_others(place: Place) -> None:
    more = "  steps: {value: 99}\n  slow: {value: 0.02}\nreplicates: 3\npruner: {name: threshold, upper: 0.1}\n"
    place.run_here(place.config(more, trials=1))
    (trial,) = trials_of(place)
    assert [run.attempts for run in trial.runs] == [1, 0, 0]


def test_replicates_survive_the_coordinator(place: Place) -> None:
    place.script("train.py", OPEN + "time.sleep(0.15)\nrun.log({'loss': int(run.name.rpartition('.')[2])})\n")
    config = place.config("replicates: {count: 4, aggregate: worst}\n", trials=2)
    for wanted in (1, 4):
        process = place.start("run", config)
        place.until(lambda wanted=wanted: len(place.events_of("run_told")) >= wanted, process)  # type: ignore[misc]
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        place.until(lambda: not place.living())
    place.resume_here()
    assert [(trial.value, len(trial.runs)) for trial in trials_of(place)] == [(3.0, 4)] * 2
    assert len(place.events_of("told")) == 2
    assert len(list(runstone.open_workspace(place.home).run_folders())) == 8


GRID = "sampler: random\nparameters:\n  x: {values: [1, 2]}\n"


def grid_config(place: Place, more: str, *, trials: int) -> Path:
    text = place.config(trials=trials).read_text()
    path = place.path / "toy.yaml"
    path.write_text(text.split("sampler:")[0] + GRID + more)
    return path


def test_a_point_that_was_tried_takes_the_earlier_result_where_the_config_says_so(place: Place) -> None:
    place.run_here(grid_config(place, "duplicates: reuse\n", trials=6))
    trials = trials_of(place)
    assert len(trials) == 2  # then every point has been tried
    assert place.record.closed == "exhausted"
    place.run_here(
        place.config("duplicates: reuse\npoints: [{x: 0.5}, {x: 0.5}, {x: 0.5}]\n", trials=4, parallel=1, name="points")
    )
    first, second, third, last = place.folders[-1].read().trials.values()
    assert (second.same_as, third.same_as, last.same_as) == (0, 0, None)
    assert first.value == second.value == third.value
    assert second.run_id == first.run_id
    assert second.attempts == 0
    assert len(list(runstone.open_workspace(place.home).run_folders())) == 2 + 2


def test_no_point_is_tried_twice_where_that_is_forbidden(place: Place) -> None:
    assert place.run_here(grid_config(place, "duplicates: forbid\n", trials=6)) == "exhausted"
    assert sorted(trial.params["x"] for trial in trials_of(place)) == [1, 2]
    assert place.record.is_finished


def test_several_metrics_and_constraints_decide_which_trials_are_best(place: Place) -> None:
    place.script(
        "train.py",
        OPEN + "n = int(run.name.rpartition('-')[2])\n"
        "loss, acc, size = [(1, .5, 9), (2, .9, 1), (3, .7, 1), (0, .1, 1), (2, .9, 1)][n]\n"
        "run.log({'loss': loss, 'acc': acc, 'size': size})\n",
    )
    config = place.config("constraints: [{metric: size, max: 5}]\n", trials=5, parallel=1)
    config.write_text(
        config.read_text().replace(
            "metric: {name: loss, goal: minimize}",
            "metrics: [{name: loss, goal: minimize}, {name: acc, goal: maximize}]",
        )
    )
    place.run_here(config)
    record = place.record
    assert record.trials[0].constraints == (4.0,)
    assert not record.trials[0].is_feasible
    assert record.trials[1].values == (2.0, 0.9)
    assert [trial.number for trial in record.front()] == [3, 1, 4]
    assert [trial.number for trial in record.ranked()] == [3, 1, 4, 2, 0]
    assert record.best is record.trials[3]


def test_a_result_that_is_good_enough_ends_the_sweep(place: Place) -> None:
    place.script("train.py", OPEN + "run.log({'loss': 10 - int(run.name.rpartition('-')[2])})\n")
    config = place.config(trials=50, parallel=1)
    config.write_text(config.read_text().replace("goal: minimize}", "goal: minimize, target: 7}"))
    watcher = Silent()
    assert place.run_here(config, watcher=watcher) == "target"
    assert [trial.value for trial in trials_of(place)] == [10, 9, 8, 7]
    assert watcher.endings == ["target"]
    assert place.record.is_finished


def test_an_audited_trial_runs_to_its_end_and_counts_as_pruned(place: Place) -> None:
    more = "  steps: {value: 6}\n  slow: {value: 0.2}\npruner: {name: threshold, upper: 0.9}\naudit: 1.0\n"
    place.run_here(place.config(more, trials=2))
    workspace = runstone.open_workspace(place.home)
    for trial in trials_of(place):
        assert (trial.state, trial.is_audited, trial.prune_step) == (TrialState.PRUNED, True, 0)
        assert trial.audit_values == (pytest.approx(trial.params["x"] ** 2 + 1 / 6),)
        assert trial.value == pytest.approx(trial.params["x"] ** 2 + 1)
        assert list(trial.reports) == [0]
        assert workspace.run(trial.run_id).metrics["loss"].count == 6
        assert workspace.run(trial.run_id).status == "finished"


def test_failures_are_grouped_by_where_they_were_raised(place: Place) -> None:
    place.script(
        "train.py",
        OPEN + "n = int(run.name.rpartition('-')[2])\ndef load(): raise ValueError('file of trial ' + 'abc'[n % 3])\n"
        "def fit(): raise ValueError('file of trial a')\n(load if n < 4 else fit)()\n",
    )
    config = place.config(trials=6, parallel=1)
    place.run_here(config)  # stops after three that failed alike
    place.resume_here()
    groups = [(reason, [trial.number for trial in trials]) for reason, trials in place.record.failures()]
    assert groups == [("ValueError: file of trial a", [0, 1, 2, 3]), ("ValueError: file of trial a", [4, 5])]


def test_points_of_the_config_come_first_and_the_sampler_fills_them_in(place: Place) -> None:
    place.run_here(place.config("  steps: {min: 1, max: 3}\npoints: [{x: 0.25}, {steps: 2, x: -0.5}]\n", trials=3))
    first, second, third = trials_of(place)
    assert first.params["x"] == 0.25
    assert second.params == {"x": -0.5, "steps": 2}
    assert third.params["x"] not in (0.25, -0.5)


def test_a_sweep_that_extends_another_holds_its_trials_and_stands_alone(place: Place) -> None:
    place.run_here(place.config(trials=3, name="first"))
    first: SweepRecord = place.folder.read()
    config = place.config("extends: first\n", trials=2, name="second")
    place.run_here(config)
    folder = place.folders[-1]
    for path in place.folders[0].path.iterdir():
        path.unlink()
    record = folder.read()
    assert [trial.value for trial in record.prior] == [trial.value for trial in first.trials.values()]
    assert [trial.params for trial in record.prior] == [trial.params for trial in first.trials.values()]
    assert len(record.trials) == 2
    with pytest.raises(SweepNotFound, match="no sweep has the id or name 'first'"):
        place.run_here(config)
    assert len(list(Sweeps(runstone.open_workspace(place.home)))) == 1


def test_the_time_between_asking_and_killing_is_kept_also_for_silent_trials(place: Place) -> None:
    deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    place.script("train.py", deaf + OPEN + "time.sleep(600)\n")
    before = time.monotonic()
    place.run_here(place.config("no_report_timeout: 2\ngrace: 0.3\n", trials=1))
    assert 5.0 < time.monotonic() - before < 120
    assert not place.living()


def test_a_failure_that_was_recorded_and_not_told_is_tried_again_all_the_same(place: Place) -> None:
    """The coordinator may be killed after it ended the run and before the event is in the record."""
    place.script("train.py", OPEN + "if run.attempt < 2: os.kill(os.getpid(), 9)\nrun.log({'loss': 1.0})\n")
    place.run_here(place.config("start: cold\n", trials=1))
    (trial,) = trials_of(place)
    assert (trial.state, trial.reason) == (TrialState.FAILED, "killed by SIGKILL; was memory short?")
    (journal,) = [path for path in place.folder.path.glob("journal.*") if b'"told"' in path.read_bytes()]
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(line for line in lines if b'"told"' not in line and b'"closed"' not in line))
    config = place.config("start: cold\nretries: {crash: 1, backoff: 0}\n", trials=1)
    place.run_here(config, folder=place.folder)
    (trial,) = trials_of(place)
    assert (trial.state, trial.attempts, dict(trial.runs[0].tries)) == (TrialState.COMPLETE, 2, {"crash": 1})


def test_a_point_that_comes_again_is_run_again_and_ranks_by_what_all_its_results_come_to(place: Place) -> None:
    # One lucky draw of x = 0.5 is below all else; the point as a whole is not the best.
    place.script(
        "train.py",
        OPEN + "draws = {0: 0.0, 1: 8.0, 2: 9.0, 3: 5.0}\n"
        "run.log({'loss': draws[int(runstone.current_run().name.rpartition('-')[2])]})\n",
    )
    points = "points: [{x: 0.5}, {x: 0.5}, {x: 0.5}, {x: 0.1}]\n"
    place.run_here(place.config("duplicates: replicate\n" + points, trials=4, parallel=1))
    record = place.record
    assert [run.values[0] for trial in record.tried({"x": 0.5}) for run in trial.runs] == [0.0, 8.0, 9.0]
    assert [trial.value for trial in record.trials.values()] == [8.0, 8.0, 8.0, 5.0]
    assert [trial.own_values for trial in record.trials.values()] == [(0.0,), (8.0,), (9.0,), (5.0,)]
    assert [trial.number for trial in record.ranked()] == [3, 0, 1, 2]
    assert record.trials[0].spread == pytest.approx(stdev([0.0, 8.0, 9.0]))
    assert record.trials[3].spread is None
    assert len(list(runstone.open_workspace(place.home).run_folders())) == 4
    # Where the policy is another, each stands for itself.
    place.run_here(place.config("duplicates: allow\n" + points, trials=4, parallel=1, name="allowed"))
    allowed = place.folders[-1].read()
    assert allowed.best is not None
    assert (allowed.best.number, allowed.best.value) == (0, 0.0)


def test_the_mean_of_a_point_follows_a_trial_that_is_run_again(place: Place) -> None:
    place.script("train.py", OPEN + "run.log({'loss': float(run.attempt) if run.name.endswith('-1') else 5.0})\n")
    more = "duplicates: replicate\nreplicates: {count: 1, aggregate: mean}\npoints: [{x: 0.5}, {x: 0.5}]\n"
    place.run_here(place.config(more, trials=2, parallel=1))
    assert [trial.value for trial in place.record.trials.values()] == [3.0, 3.0]
    place.sweep("rerun", "toy", "1")
    assert [trial.value for trial in place.record.trials.values()] == [5.0, None]
    place.resume_here()
    assert [trial.value for trial in place.record.trials.values()] == [3.5, 3.5]


def test_a_trial_that_takes_more_memory_than_it_may_is_tried_again_as_out_of_memory(place: Place) -> None:
    place.script(
        "train.py",
        OPEN + "tries = int(os.environ['RUNSTONE_OOM_RETRY'])\n"
        "if tries == 0: held = bytearray(600 << 20); time.sleep(30)\nrun.log({'loss': tries})\n",
    )
    place.run_here(place.config("memory: 300MB\nstart: cold\n" + RETRY, trials=1))
    (trial,) = trials_of(place)
    assert (trial.value, dict(trial.runs[0].tries)) == (1.0, {"oom": 1})
    (requeued,) = place.events_of("requeued")
    assert requeued["reason"] == "took more memory than `memory` grants"
