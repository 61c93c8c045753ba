"""What leaves a sweep: rows, the best trial as a command and as a config, an Optuna study; and what is seen of it."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pyarrow.parquet as pq
import pytest
import yaml

import runstone
import runstone_sweeps
from runstone_sweeps.config import parse_spec
from runstone_sweeps.results.export import (
    best_command,
    best_config,
    to_csv,
    to_json,
    trial_rows,
    whole_trials,
    write_parquet,
)
from runstone_sweeps.store import Sweeps

from . import made
from .conftest import Place
from .test_cli import call, run_here

EVIL = 'a\'b "$(touch /tmp/no)" `x`;&|\n=1'


def odd_sweep() -> tuple[Any, Any]:
    """Return a sweep whose params are of all kinds, and not in all trials."""
    config = {
        **made.CONFIG,
        "metric": {"name": "val/loss", "goal": "minimize"},
        "parameters": {
            "text": {"values": [EVIL, "b"]},
            "layers": {"values": [[8], [8, 8]]},
            "flag": {"values": [True, False]},
            "mixed": {"values": [1, "one"]},
            "lr": {"min": 0.0, "max": 1.0},
        },
    }
    common = {"layers": [8, 8], "flag": True}
    events = made.created(config)
    events += [made.asked(0, {"text": EVIL, "mixed": 1, **common, "lr": 0.25}), {"event": "started", "number": 0}]
    events += [{"event": "reported", "number": 0, "points": [[0, 2.0], [1, "nan"]]}, made.told(0, 0.5)]
    events += [made.asked(1, {"text": "b", "mixed": "one", **common}), made.told(1, state="failed", reason="no\nluck")]
    return made.record_of(events), made.spec_of(config)


def test_rows_have_the_same_columns_and_survive_csv() -> None:
    record, spec = odd_sweep()
    rows = list(trial_rows(record, spec))
    assert rows[0].keys() == rows[1].keys()
    read = list(csv.DictReader(io.StringIO(to_csv(record, spec), newline="")))
    assert read[0]["params.text"] == EVIL
    assert json.loads(read[0]["params.layers"]) == [8, 8]
    assert float(read[0]["metrics.val/loss"]) == 0.5
    assert read[1]["params.lr"] == ""
    assert read[1]["reason"] == "no\nluck"
    assert read[0]["is_best"] == "True"


def test_json_has_reports_and_only_what_json_has() -> None:
    record, spec = odd_sweep()
    told = json.loads(json.dumps(to_json(record, spec), allow_nan=False))
    assert told["best"] == [0]
    first, second = told["trials"]
    assert first["reports"] == [[0, 2.0], [1, "nan"]]
    assert first["params"]["layers"] == [8, 8]
    assert second["state"] == "failed"
    assert [trial["number"] for trial in whole_trials(record, spec)] == [0, 1]


def test_parquet_keeps_types(tmp_path: Path) -> None:
    record, spec = odd_sweep()
    write_parquet(record, spec, tmp_path / "t.parquet")
    rows = pq.read_table(tmp_path / "t.parquet").to_pylist()
    assert rows[0]["params.lr"] == 0.25
    assert rows[0]["params.flag"] is True
    assert rows[0]["params.mixed"] == "1"
    assert rows[1]["params.mixed"] == '"one"'
    assert rows[1]["params.lr"] is None
    assert rows[0]["started_at"].tzinfo is not None
    write_parquet(made.record_of(made.created()), spec, tmp_path / "none.parquet")
    assert pq.read_table(tmp_path / "none.parquet").num_rows == 0


def test_the_command_of_the_best_trial_is_its_very_command_whatever_its_params_hold(tmp_path: Path) -> None:
    record, _ = odd_sweep()
    (tmp_path / "args.py").write_text(
        "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ['RUNSTONE_TRIAL']]))"
    )
    config = {**record.config, "script": "args.py", "env": {"GREETING": EVIL}}
    spec = parse_spec(config, folder=tmp_path, is_for_reading=True)
    best = record.best
    assert best is not None
    line = best_command(spec, record, best, folder=tmp_path)
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=True, cwd="/")
    argv, trial = json.loads(done.stdout)
    assert argv == [f"--text={EVIL}", "--mixed=1", "--layers=[8, 8]", "--flag=True", "--lr=0.25"]
    assert json.loads(trial)["text"] == EVIL


def test_a_python_function_has_no_command() -> None:
    record, _ = odd_sweep()
    config = {key: value for key, value in record.config.items() if key != "script"}
    spec = parse_spec(config, folder=Path("/"), has_objective=True)
    with pytest.raises(runstone.InvalidValue, match="tries a Python function"):
        best_command(spec, record, record.trials[0], folder=Path("/"))


def test_the_config_of_the_best_trial_is_right_anywhere(tmp_path: Path) -> None:
    record, _ = odd_sweep()
    (tmp_path / "train.py").write_text("")
    config = {**record.config, "constraints": [{"metric": "m", "max": 1}], "points": [{"lr": 0.1}], "parallel": 3}
    spec = parse_spec(config, folder=tmp_path)
    best = record.best
    assert best is not None
    made_config = yaml.safe_load(yaml.safe_dump(best_config(spec, record, best)))
    again = parse_spec(made_config, folder=Path("/"))
    assert again.trials == 1
    assert again.space.constants == best.params
    assert Path(str(again.script)).is_absolute() or (again.working_dir / str(again.script)).is_file()


def test_the_commands_show_export_compare_and_copy_a_real_sweep(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run_here(place, place.config("  steps: {value: 2}\n", trials=4))
    other = run_here(place, place.config("  steps: {value: 2}\n", trials=3, name="other"))
    monkeypatch.chdir(place.path)
    assert len(list(csv.DictReader(io.StringIO(call("export", "toy"))))) == 4
    assert len(json.loads(call("export", "toy", "--json"))["trials"]) == 4
    assert len(call("export", "toy", "--trials").splitlines()) == 4
    assert "needs -o FILE" in call("export", "toy", "--parquet", code=2)
    call("export", "toy", "--parquet", "-o", "t.parquet")
    assert pq.read_table("t.parquet").num_rows == 4
    out = call("compare", "toy", "other", "--html", "c.html")
    assert "trials to reach" in out
    assert other.id[-8:] in out
    assert (place.path / "c.html").exists()
    assert "give two sweeps" in call("compare", "toy", code=2)
    name = call("to-optuna", "toy", "--storage", "sqlite:///s.db").split()[-1]
    call("to-optuna", "toy", "--storage", "sqlite:///s.db")
    study = optuna.load_study(study_name=name, storage="sqlite:///s.db")
    here = runstone_sweeps.to_optuna("toy", workspace=place.home)
    assert [(t.number, t.values, t.params) for t in study.trials] == [
        (t.number, t.values, t.params) for t in here.trials
    ]
    assert len(study.trials) == 4
    assert "unable to open database file" in call("to-optuna", "toy", "--storage", "sqlite:////no/where.db", code=1)
    out = call("status", "toy")
    assert "4/4 trials" in out
    assert "finished" in out
    out = call("watch", folder.id)
    assert f"sweep {folder.id}: finished" in out


def test_the_best_trial_can_be_run_again_by_command_and_by_config(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run_here(place, place.config("  steps: {value: 2}\n", trials=3))
    best = folder.read().best
    assert best is not None
    monkeypatch.chdir("/")
    reference = ["--workspace", str(place.home)]
    line = call("best", "toy", "--command", *reference).strip()
    assert shlex.split(line)[-2:] == [f"--x={best.params['x']}", "--steps=2"]
    environment = {**os.environ, "RUNSTONE_WORKSPACE": str(place.home)}
    subprocess.run(["/bin/sh", "-c", line], check=True, env=environment)
    runs = runstone.open_workspace(place.home).runs()
    again = next(run for run in runs if run.group is None)
    assert again.metrics["loss"].last == pytest.approx(best.value)
    config = place.path / "again.yaml"
    config.write_text(call("best", "toy", "--config", *reference))
    place.sweep("run", config)
    (rerun,) = [f.read() for f in Sweeps(runstone.open_workspace(place.home)) if f.id != folder.id]
    assert [trial.value for trial in rerun.trials.values()] == [pytest.approx(best.value)]
    assert "has no trial 99" in call("best", "toy", "--trial", "99", *reference, code=1)


def test_watch_follows_a_sweep_of_another_process_to_its_end(place: Place) -> None:
    config = place.config("  steps: {value: 10}\n  slow: {value: 0.1}\n", trials=4, parallel=2)
    running = place.start("run", config)
    place.until(lambda: bool(place.events_of("started")), running)
    ours, theirs = pty.openpty()
    watching = subprocess.Popen(
        [sys.executable, "-m", "runstone_sweeps.cli", "watch", "toy"],
        stdout=theirs,
        stderr=theirs,
        stdin=theirs,
        cwd=place.path,
        env={**os.environ, "RUNSTONE_WORKSPACE": str(place.home), "TERM": "xterm", "COLUMNS": "100", "LINES": "30"},
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert watching.wait() == 0
    running.communicate()
    text = shown.decode()
    assert "4/4 trials" in text
    assert "█" in text
    assert "finished" in text
    assert place.record.is_finished


def test_an_objective_in_python_gives_an_optuna_study(tmp_path: Path) -> None:
    config = {
        "parameters": {"x": {"min": -1.0, "max": 1.0}},
        "metric": {"name": "y", "goal": "minimize"},
        "trials": 3,
        "sampler": "random",
    }
    workspace = runstone.ensure_workspace(tmp_path / "w")
    sweep = runstone_sweeps.Sweep(config, lambda params: params["x"] ** 2, workspace=workspace)
    result = sweep.run(show_progress=False)
    study = result.to_optuna()
    assert study.best_value == result.best_value
    assert study.best_params == result.best_params
    assert study.trials[0].user_attrs["run_id"] == result.trials[0].run_id
