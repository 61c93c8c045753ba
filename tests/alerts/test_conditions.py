"""When rules fire: once while they hold, on real runs that are looked at as they grow."""

from __future__ import annotations

import errno
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runstone
from runstone.alerts import RunWatch, parse_alerting
from runstone.alerts.conditions import Moment, condition
from runstone.values import Series


class Watched:
    """A run and its watch."""

    def __init__(self, home: Path, *rules: Any) -> None:
        self.run = runstone.start_run(workspace=home, environment=False)
        self.watch = RunWatch(self.run.path, parse_alerting({"alerts": list(rules)}))

    def look(self, later_s: float = 0.0) -> list[str]:
        return [alert.title for alert in self.watch.look(time.time() + later_s)]

    def log(self, name: str, *values: float) -> list[str]:
        for value in values:
            self.run.log({name: value})
        return self.look()


def test_nan_and_infinity_are_told_once_until_they_are_over(home: Path) -> None:
    watched = Watched(home, "nan")
    assert watched.log("loss", 1.0, 0.5) == []
    assert watched.log("loss", math.nan) == ["loss became NaN"]
    assert watched.log("loss", math.nan, math.nan) == []
    assert watched.log("loss", 0.4) == []
    assert watched.log("loss", math.inf) == ["loss became Inf"]
    assert watched.log("acc", -math.inf) == ["acc became -Inf"]
    first = watched.run.read().alerts[0]
    assert (first.rule, first.level, first.metric, first.step) == ("nan", "error", "loss", 2)


def test_a_loss_that_ran_away_is_told_and_one_that_wobbles_is_not(home: Path) -> None:
    watched = Watched(home, "diverged")
    assert watched.log("train/loss", *[2.0 / (1 + i) + 0.3 for i in range(100)]) == []
    assert watched.log("train/loss", 5.0, 0.32, 7.0, 0.31) == []
    assert watched.log("train/loss", *[4.0] * 30) == ["train/loss has diverged"]
    assert watched.log("train/loss", *[5.0] * 30) == []


def test_the_best_of_a_long_stretch_is_not_missed(home: Path) -> None:
    watched = Watched(home, "diverged")
    falls_and_rises = [1.0 - 0.01 * i for i in range(95)] + [9.0] * 60
    assert watched.log("loss", *falls_and_rises) == ["loss has diverged"]


def test_a_metric_that_does_not_improve_is_told_by_points_and_by_time(home: Path) -> None:
    points = {"when": "no_improvement", "metric": "val/loss", "points": 3, "name": "points"}
    time_ = {"when": "no_improvement", "metric": "val/acc", "goal": "maximize", "after": "10m", "name": "time"}
    watched = Watched(home, points, time_)
    assert watched.log("val/loss", 1.0, 0.9, 0.95, 0.96) == []
    assert watched.log("val/loss", 0.97) == ["val/loss does not improve"]
    assert watched.log("val/loss", 0.8) == []
    assert watched.log("val/acc", 0.5, 0.7, 0.6) == []
    assert watched.look(500) == []
    assert watched.look(700) == ["val/acc does not improve"]
    assert watched.look(900) == []


def test_a_limit_holds_for_so_many_points_in_a_row(home: Path) -> None:
    watched = Watched(
        home,
        {"when": "metric", "metric": "grad/*", "above": 10, "points": 2},
        {"when": "metric", "metric": "val/acc", "above": 0.9, "level": "info"},
    )
    assert watched.log("grad/norm", 11, 9, 12) == []
    assert watched.log("grad/norm", 13) == ["grad/norm is above 10"]
    assert watched.log("grad/norm", 14, 3, 15, 16) == ["grad/norm is above 10"]
    assert watched.log("val/acc", 0.95, 0.99) == ["val/acc is above 0.9"]
    assert watched.log("system/x", 99.0) == []


def test_a_run_that_says_nothing_any_more_is_told(home: Path) -> None:
    watched = Watched(home, {"when": "stalled", "after": "5m"})
    assert watched.log("loss", 1.0) == []
    assert watched.look(200) == []
    assert watched.look(400) == ["nothing is logged any more"]
    assert watched.look(600) == []
    watched.run.finish()
    assert watched.look(900) == []


def test_idle_gpus_are_told_when_they_were_idle_all_the_time(tmp_path: Path) -> None:
    rule = parse_alerting({"alerts": [{"when": "gpu_idle", "below": 10, "after": "60s"}]}).rules[0]
    watches = condition(rule)

    def look(now: float, *values: float, status: str = "running") -> list[str]:
        name = "system/gpu.0/util_percent"
        at = np.array([now - 10.0 * back for back in range(len(values))][::-1])
        new = {name: Series(name, at.astype(np.int64), np.array(values), at)} if values else {}
        moment = Moment(now, 0.0, new, status, "", tmp_path)
        return [firing.title for firing in watches(moment)]

    assert look(1030.0, 5.0, 5.0, 5.0) == []  # less than a minute is known
    assert look(1090.0, 5.0, 4.0, 5.0, 5.0, 5.0, 5.0) == ["the GPUs are idle"]
    assert look(1100.0, 5.0) == []
    assert look(1160.0, 90.0, 95.0, 90.0, 90.0, 90.0, 90.0) == []
    assert look(1220.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, status="finished") == []
    assert look(1230.0, 1.0) == ["the GPUs are idle"]


def test_a_disk_that_is_nearly_full_is_told_once(home: Path) -> None:
    watched = Watched(home, {"when": "disk_full", "below": "1000TB"})
    assert watched.look() == ["the disk is nearly full"]
    assert watched.look() == []
    assert Watched(home, {"when": "disk_full", "below": "1kB"}).look() == []


def test_a_run_that_fails_is_told_with_its_exception(home: Path) -> None:
    watched = Watched(home, "ended")
    assert watched.look() == []
    watched.run.fail(ValueError("bad shape"))
    watched.run.finish()
    assert watched.look(10) == ["the run failed"]
    assert watched.watch.is_over
    assert watched.run.read().alerts[0].text == "ValueError: bad shape"


def test_the_last_points_of_a_run_are_seen(home: Path) -> None:
    watched = Watched(home, "nan")
    watched.look()
    watched.run.log({"loss": math.nan})
    watched.run.finish()
    assert watched.look() == ["loss became NaN"]


def test_a_run_that_is_killed_is_told_by_its_helper(home: Path) -> None:
    script = (
        "import os, signal, sys, runstone\n"
        "options = {'run_id': 'killed', 'environment': False, 'alerts': ['ended', 'nan']}\n"
        f"run = runstone.start_run(workspace={str(home)!r}, **options)\n"
        "run.log({'loss': float('nan')})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    process = subprocess.run([sys.executable, "-c", script], check=False)
    assert process.returncode == -signal.SIGKILL
    end = time.monotonic() + 60
    alerts: list[str] = []
    while len(alerts) < 2 and time.monotonic() < end:
        alerts = [alert.title for alert in runstone.open_workspace(home).run("killed").alerts]
        time.sleep(0.2)
    assert sorted(alerts) == ["loss became NaN", "the run crashed"]


def test_what_a_program_raises_itself_is_shown_and_delivered(home: Path, tmp_path: Path) -> None:
    told = tmp_path / "told"
    workspace = runstone.ensure_workspace(home)
    with runstone.start_run(workspace=home, environment=False) as run:
        rules = {"deliver": [{"name": "file", "command": ["sh", "-c", f"cat > {told}"], "level": "warning"}]}
        watch = RunWatch(run.path, parse_alerting(rules))
        run.alert("early", level="error")  # before the watch has looked for the first time
        watch.look()
        assert '"title":"early"' in told.read_text()
        run.alert("odd batch", "batch 17 is empty", level="warning")
        run.alert("by the way")
        watch.look()
        assert '"title":"odd batch"' in told.read_text()
        told.unlink()
        RunWatch(run.path, parse_alerting(rules)).look()  # another watch tells nothing twice
        assert not told.exists()
    alerts = workspace.run(run.id).alerts
    assert [alert.title for alert in alerts] == ["early", "odd batch", "by the way"]
    assert [[name for name, _ok, _detail in alert.deliveries] for alert in alerts] == [["file"], ["file"], []]


def test_another_watch_of_the_same_attempt_fires_nothing_twice(home: Path) -> None:
    watched = Watched(home, "nan", "stalled")
    assert watched.log("loss", 1.0, math.nan) == ["loss became NaN"]
    again = RunWatch(watched.run.path, parse_alerting({"alerts": ["nan", "stalled"]}))
    assert again.look() == []
    watched.run.log({"acc": math.nan})
    assert [alert.title for alert in again.look()] == ["acc became NaN"]


def test_a_folder_that_takes_nothing_keeps_nobody_from_being_told(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "told"
    with runstone.start_run(workspace=home, environment=False) as run:
        deliver = [{"name": "file", "command": ["sh", "-c", f"cat > {told}"]}]
        watch = RunWatch(run.path, parse_alerting({"alerts": ["nan"], "deliver": deliver}))
        run.log({"loss": math.nan})

        def refuse(*_arguments: Any) -> None:
            raise OSError(errno.ENOSPC, "no space")

        with monkeypatch.context() as patch:
            patch.setattr("runstone.alerts.watcher.write_events", refuse)
            watch.look()
        assert '"title":"loss became NaN"' in told.read_text()
        assert run.read().alerts == ()
        watch.look()
        (alert,) = run.read().alerts
    assert alert.deliveries == (("file", True, "exit code 0"),)


@pytest.mark.parametrize(("title", "level"), [("", "info"), ("x", "loud")])
def test_an_alert_needs_a_title_and_a_level(home: Path, title: str, level: Any) -> None:
    run = runstone.start_run(workspace=home, environment=False)
    with pytest.raises(runstone.InvalidValue, match="needs a title"):
        run.alert(title, level=level)
    run.finish()


def test_training_starts_no_helper_where_nobody_asked(home: Path) -> None:
    before = set(children())
    with runstone.start_run(workspace=home, environment=False):
        assert set(children()) == before


def children() -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(os.getpid()).children() if "runstone.alerts" in str(child.cmdline())]
