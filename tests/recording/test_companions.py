"""What works beside a run: system metrics and the TensorBoard mirror, as `start_run` starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import runstone
from runstone.companions import RankReports
from runstone.names import SYSTEM
from runstone.runlog.reader import read_journal


def wait_for(condition: object, limit_s: float = 20.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def system_names(run: runstone.Run) -> set[str]:
    return {name for name in runstone.RunInfo(run.path).metrics if name.startswith(SYSTEM)}


def test_system_metrics_are_recorded_beside_the_metrics(home: Path) -> None:
    with runstone.start_run(workspace=home, environment=False, system_metrics=0.5) as run:
        run.log({"loss": 1.0})
        wait_for(lambda: system_names(run))
        run.log({"loss": 0.5})
    info = run.read()
    assert info.series("loss").step.tolist() == [0, 1]
    assert f"{SYSTEM}process/rss_bytes" in info.metrics
    assert info.warnings == ()


def test_what_recording_costs_is_a_series_too(home: Path) -> None:
    with runstone.start_run(workspace=home, environment=False, system_metrics=0.5) as run:
        wait_for(lambda: f"{SYSTEM}runstone/sampler_ms" in system_names(run))
    info = run.read()
    of_runstone = {name.rpartition("/")[2] for name in info.metrics if "/runstone/" in name}
    assert of_runstone == {"sampler_ms", "sampler_cpu_ms", "dropped_points", "waiting_values", "sync_age_s"}
    assert 0 <= info.metrics[f"{SYSTEM}runstone/sync_age_s"].last < 10
    assert info.metrics[f"{SYSTEM}runstone/dropped_points"].last == 0


def test_system_metrics_move_no_step_and_are_not_superseded(home: Path) -> None:
    with runstone.start_run(workspace=home, run_id="r", environment=False, system_metrics=0.5) as run:
        run.log({"loss": 1.0}, step=3)
        wait_for(lambda: system_names(run))
    count = len(run.read().series(f"{SYSTEM}process/rss_bytes"))
    with runstone.start_run(workspace=home, run_id="r", environment=False) as again:
        again.log({"loss": 0.5})
        again.rewind(0)
    info = again.read()
    assert info.series("loss", attempt="all").step.tolist() == [3, 4]
    assert len(info.series(f"{SYSTEM}process/rss_bytes")) == count


def test_system_metrics_stay_out_of_tables(home: Path) -> None:
    with runstone.start_run(workspace=home, environment=False, system_metrics=0.5) as run:
        run.log({"loss": 1.0})
        wait_for(lambda: system_names(run))
    with runstone.start_run(workspace=home, environment=False) as other:
        other.log({"loss": 2.0})
    comparison = runstone.compare([run.read(), other.read()])
    assert [row.name for row in comparison.metrics] == ["loss"]


@pytest.mark.parametrize("value", [False, None])
def test_system_metrics_can_be_switched_off(home: Path, value: bool | None) -> None:
    # by the argument, or by RUNSTONE_SYSTEM_METRICS, which is 0 in these tests
    options = {} if value is None else {"system_metrics": value}
    with runstone.start_run(workspace=home, environment=False, **options) as run:
        assert run._companions is not None
        assert run._companions._sampler is None


@pytest.mark.parametrize("interval", [0, -1.0, "soon"])
def test_an_interval_that_is_none_is_refused_before_anything_is_made(home: Path, interval: object) -> None:
    with pytest.raises(runstone.InvalidValue):
        runstone.start_run(workspace=home, system_metrics=interval)  # type: ignore[arg-type]
    assert not home.exists()


def test_a_reopened_run_samples_again(home: Path) -> None:
    run = runstone.start_run(workspace=home, environment=False, system_metrics=0.5)
    run.finish()
    run.reopen()
    run.log({"loss": 1.0})
    wait_for(lambda: system_names(run))
    run.finish()


def test_a_run_is_mirrored_into_event_files(home: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    with runstone.start_run(workspace=home, name="mirrored", environment=False, tensorboard=tmp_path / "logs") as run:
        run.log({"loss": 0.25}, step=7)
    wait_for(lambda: any(b"loss" in path.read_bytes() for path in (tmp_path / "logs").rglob("events.*")))


# --- several ranks --------------------------------------------------------------------------------------------------

RANK = """
import sys, time, runstone
run = runstone.start_run(run_id={run_id!r}, workspace="ws", system_metrics=0.5)
run.log({{"loss": 1.0}})
sys.stdin.readline()
run.finish()
"""


def start_rank(place: Path, rank: int, *, run_id: str | None, more: Mapping[str, str]) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RUNSTONE_")}
    environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", **more}
    return subprocess.Popen(
        [sys.executable, "-c", RANK.format(run_id=run_id)], cwd=place, env=environment, stdin=subprocess.PIPE, text=True
    )


def snapshots_of(info: runstone.RunInfo) -> dict[int, dict[str, Any]]:
    found = {}
    for writer in read_journal(info.path).writers:
        found[writer.rank] = json.loads((info.path / f"environment.{writer.writer}.json").read_text())
    return found


@pytest.mark.parametrize("named_by", ["argument", "environment"])
def test_ranks_that_start_one_run_id_report_into_one_run(named_by: str, tmp_path: Path) -> None:
    run_id = "shared" if named_by == "argument" else None
    more = {} if run_id else {"RUNSTONE_RUN_ID": "shared", "RUNSTONE_WORKSPACE": "ws"}
    folder = tmp_path / "ws" / "runs" / "default" / "shared"
    first = start_rank(tmp_path, 0, run_id=run_id, more=more)
    wait_for(lambda: list(folder.glob("journal.*")))
    ranks = [first, start_rank(tmp_path, 1, run_id=run_id, more=more)]

    def reported() -> set[str]:
        return set(runstone.RunInfo(folder).metrics)

    wait_for(lambda: {"system/process/rss_bytes", "system/rank.1/process/rss_bytes"} <= reported())
    for rank in ranks:
        rank.communicate("\n", timeout=30)
        assert rank.returncode == 0
    info = runstone.RunInfo(folder)
    assert info.status == "finished"
    assert len(info.attempts) == 1
    assert "system/memory/percent" in info.metrics
    of_rank_1 = {name.split("/")[2] for name in info.metrics if name.startswith("system/rank.1/")}
    assert of_rank_1 == {"process", "runstone"}
    snapshots = snapshots_of(info)
    assert snapshots[0]["packages"]["installed"]
    assert snapshots[1]["packages"] is None
    assert snapshots[1]["rank"]["rank"] == 1
    assert snapshots[1]["process"]["argv"]


def test_a_task_of_slurm_with_a_run_of_its_own_takes_the_whole_snapshot(tmp_path: Path) -> None:
    rank = start_rank(tmp_path, 1, run_id="own", more={})
    folder = tmp_path / "ws" / "runs" / "default" / "own"
    wait_for(lambda: list(folder.glob("environment.*.json")))
    rank.communicate("\n", timeout=30)
    assert snapshots_of(runstone.RunInfo(folder))[1]["packages"]["installed"]


def test_tasks_that_share_no_run_each_report_the_machine(tmp_path: Path) -> None:
    environment = {"SLURM_PROCID": "3", "SLURM_LOCALID": "3", "SLURM_NTASKS": "4"}
    code = RANK.format(run_id=None)
    task = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | environment, stdin=subprocess.PIPE, text=True
    )
    runs = tmp_path / "ws" / "runs" / "default"
    wait_for(lambda: list(runs.glob("*/journal.*")))
    folder = next(runs.iterdir())
    wait_for(lambda: "system/memory/percent" in runstone.RunInfo(folder).metrics)
    task.communicate("\n", timeout=30)
    assert not [name for name in runstone.RunInfo(folder).metrics if "rank." in name]
    assert snapshots_of(runstone.RunInfo(folder))[0]["packages"]["installed"]


def test_a_rank_reports_into_a_run_without_deciding_its_end(home: Path) -> None:
    with runstone.start_run(workspace=home, environment=False, system_metrics=0.5) as run:
        invitation = RankReports.invitation_to(run)
        assert invitation is not None
        invitation = tuple(json.loads(json.dumps(invitation)))  # plain values, however they are sent
        reports = RankReports(invitation, rank=3, world_size=4, local_rank=0, local_size=2, node_rank=1)
        reports.start()
        reports.start()
        # It stands for a host of its own here, as local rank 0.
        wait_for(lambda: {f"{SYSTEM}rank.3/memory/percent", f"{SYSTEM}process/rss_bytes"} <= system_names(run))
        reports.stop()
        reports.stop()
        assert run.read().status == "running"
        assert runstone.current_run() is run
        samples = len(run.read().series(f"{SYSTEM}rank.3/process/rss_bytes"))
        reports.start()  # a later stage
        wait_for(lambda: len(run.read().series(f"{SYSTEM}rank.3/process/rss_bytes")) > samples)
        reports.stop()
    info = run.read()
    assert info.status == "finished"
    assert [one.role for one in read_journal(info.path).writers].count("child") == 2


def test_a_rank_with_nothing_to_tell_leaves_no_file(home: Path) -> None:
    with runstone.start_run(workspace=home, environment=False, system_metrics=0.5) as run:
        invitation = RankReports.invitation_to(run)
        assert invitation is not None
        reports = RankReports(invitation, rank=1, world_size=2, local_rank=1)
        reports.start()
        reports.stop()
        assert len(list(run.path.glob("journal.*"))) == 1


def test_a_rank_that_cannot_see_the_run_trains_on(home: Path, tmp_path: Path) -> None:
    with runstone.start_run(workspace=home, environment=False, system_metrics=0.5) as run:
        invitation = RankReports.invitation_to(run)
    assert invitation is not None
    reports = RankReports((str(tmp_path / "elsewhere"), *invitation[1:]), rank=1, world_size=2, local_rank=1)
    reports.start()
    reports.stop()


def test_a_run_without_anything_beside_it_invites_nobody(home: Path) -> None:
    with runstone.start_run(workspace=home, environment=False, system_metrics=False) as run:
        assert RankReports.invitation_to(run) is None
