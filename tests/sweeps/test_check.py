"""`sweep check`: what a config means, and one shortened trial for real."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import psutil
import pytest

from runstone_sweeps.config import load_spec
from runstone_sweeps.preparing.rehearsal import rehearse

from .conftest import Place
from .test_cli import call

CONFIG = """\
script: train.py
metric: {name: loss, goal: minimize, target: 0.01}
constraints: [{metric: mem, max: 4}]
trials: 40
parallel: 4
seed: 1
sampler: random
retries: 2
gpus: 2
memory: 8GB
start: cold
timeout: 2h
points: [{x: 0.5, optimizer: sgd}]
budget: {cost: 100, prices: {hour: 3.6}}
parameters:
  x: {min: 1e-3, max: 1.0, log: true}
  optimizer: {values: [adam, sgd]}
  momentum: {min: 0.5, max: 0.9, when: {optimizer: sgd}}
  noise: {distribution: normal, mu: 0, sigma: 2, min: 0}
  steps: {value: 3}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text("")
    path = tmp_path / "sweep.yaml"
    path.write_text(CONFIG)
    return path


def test_all_that_a_config_means_is_shown(config: Path) -> None:
    lines = [" ".join(line.split()) for line in call("check", str(config)).splitlines()]
    for expected in (
        "sweep.yaml is right",
        "search 4 parameters, a continuous space",
        "x 0.001 to 1, log",
        "optimizer adam | sgd",
        "momentum 0.5 to 0.9 when optimizer is sgd",
        "noise normal(0, 2), from 0",
        "steps always 3",
        "branches optimizer=adam; optimizer=sgd: at least 3 trials each",
        "for minimize loss, done at 0.01",
        "subject to mem at most 4",
        "with sampler random, pruner median",
        "first 1 given point",
        "budget 40 trials, 2 h at work, cost 100; 4 at once",
        "a trial takes 2 GPUs, 8 GB of memory",
        "tried again crash 2, oom 2, preempted 10",
        "starts cold, as asked for",
        f"in {config.parent}",
    ):
        assert expected in lines
    assert any(line.startswith("a trial") and "train.py --x=0.5 --optimizer=sgd --momentum=" in line for line in lines)
    assert not (config.parent / ".runstone").exists()


def test_the_first_points_are_shown_and_are_those_of_the_sweep(config: Path) -> None:
    out = call("check", str(config), "--points", "3")
    points = [json.loads(line.split(maxsplit=1)[1]) for line in out.splitlines() if "{" in line]
    assert len(points) == 3
    assert points[0]["x"] == 0.5
    assert all(load_spec(config).space.contains(point) for point in points)
    again = call("check", str(config), "--points", "3")
    assert again == out


def test_words_change_the_config_for_the_check(config: Path) -> None:
    out = call("check", str(config), "x=0.25", "trials=7", "~points")
    assert "always 0.25" in out
    assert "7 trials" in out
    assert "lrr=1: is no parameter of the config" in call("check", str(config), "lrr=1", code=1)


def test_a_script_is_checked_without_a_config(config: Path) -> None:
    out = call("check", str(config.parent / "train.py"), "lr=tag(log,interval(1e-4,1))", "--metric", "val/acc")
    assert "maximize val/acc" in out
    assert "0.0001 to 1, log" in out


def test_notes_about_what_has_no_effect_are_shown(config: Path) -> None:
    config.write_text(
        "program: train.py\nmethod: random\nrun_cap: 3\nmetric: {name: a, impute: best}\n"
        "parameters: {x: {min: 0, max: 1}}\n"
    )
    assert "metric.impute has no effect" in call("check", str(config))


def test_a_dry_run_says_what_is_logged_and_what_the_sweep_will_take(place: Place) -> None:
    path = place.config("  steps: {value: 4}\nbudget: {prices: {hour: 3600}}\n", trials=10)
    out = [" ".join(line.split()) for line in call("check", str(path), "--dry-run").splitlines()]
    assert any(line.startswith("dry run") and "train.py --x=" in line for line in out)
    assert any(line.startswith("ended with exit code 0; ") for line in out)
    assert any(line.startswith("logged loss 4 times, from step 0 to 3; last ") for line in out)
    assert any(line.startswith("forecast ") and "for 10 runs, 2 at once" in line for line in out)
    assert any("by your prices" in line for line in out)
    assert not place.home.exists(), "it leaves nothing behind"
    assert place.living() == []


def test_a_dry_run_that_takes_too_long_is_stopped_and_says_so(place: Place) -> None:
    path = place.config("  steps: {value: 10000}\n  slow: {value: 0.05}\n", trials=100)
    started = time.monotonic()
    out = call("check", str(path), "--dry-run", "--seconds", "2")
    assert time.monotonic() - started < 120
    assert "stopped after 2 s, as it was not done" in out
    assert "forecast  at least " in " ".join(out.split(" ")).replace("forecast       ", "forecast  ")
    assert "logged" in out


def test_a_dry_run_without_the_metric_names_the_nearest_and_shows_what_was_printed(place: Place) -> None:
    path = place.config()
    path.write_text(path.read_text().replace("name: loss", "name: losss"))
    out = call("check", str(path), "--dry-run", code=1)
    assert "losss never; but loss" in out
    place.script("broken.py", "print('before')\nraise SystemExit('no such data')\n")
    out = call("check", str(place.config(script="broken.py")), "--dry-run", code=1)
    assert "ended with exit code 1" in out
    assert "loss never" in out
    assert "| no such data" in out


def test_a_dry_run_that_wants_more_gpus_than_there_are_says_so_in_one_line(place: Place) -> None:
    path = place.config("gpus: 1000\n")
    last = call("check", str(path), "--dry-run", code=1).splitlines()[-1]
    assert "GPU" in last
    assert "Traceback" not in last
    assert not place.home.exists()


def test_a_trial_that_does_not_stop_is_killed_with_all_that_it_started(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runstone_sweeps.preparing.rehearsal._STOP_S", 0.3)
    monkeypatch.setattr("runstone_sweeps.preparing.rehearsal._TERM_S", 0.3)
    place.script(
        "deaf.py",
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
        "open('pids', 'w').write(f'{os.getpid()} {child.pid}')\n"
        "time.sleep(600)\n",
    )
    spec = load_spec(place.config(script="deaf.py"))
    shown = rehearse(spec, {"x": 0.5}, limit_s=1.5)
    assert shown.is_cut
    assert shown.code == -9
    assert shown.max_rss_bytes > 10**6
    for pid in map(int, (place.path / "pids").read_text().split()):
        place.until(lambda pid=pid: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie")  # type: ignore[misc]
    assert "RUNSTONE_RUN_ID" not in os.environ
