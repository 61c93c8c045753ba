"""TensorBoard files that a program writes become metrics while it runs."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runstone.runinfo import RunInfo
from runstone.workspace import Workspace
from tests.launch.conftest import RUN

pytest.importorskip("tensorboardX")
Script = Callable[..., str]


def test_event_files_are_followed_with_their_steps_and_times(script: Script, launched: Callable[..., object]) -> None:
    name = script(
        """
        import sys; sys.modules['torch'] = None; from tensorboardX import SummaryWriter
        with SummaryWriter("logs/train") as train, SummaryWriter("logs/validation") as validation:
            for n in range(50):
                train.add_scalar("loss", 1 / (n + 1), n * 10, walltime=1_700_000_000 + n)
            validation.add_scalar("loss", 0.5, 490)
            train.add_text("note", "text")
        """
    )
    done = launched(name)
    assert done.code == 0, done.err
    run = done.run
    assert set(run.metrics) == {"train/loss", "validation/loss"}
    series = run.series("train/loss")
    assert series.step.tolist() == list(range(0, 500, 10))
    assert series.wall_s.tolist() == [1_700_000_000 + n for n in range(50)]
    assert series.value[1] == 0.5
    assert any("1 x text" in warning for warning in run.warnings)


def test_points_come_while_the_program_runs_also_from_outside_its_folder(
    script: Script, home: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("elsewhere")
    name = script(
        f"""
        import sys, time; sys.modules['torch'] = None; from tensorboardX import SummaryWriter
        writer = SummaryWriter({str(place)!r}, flush_secs=1)
        writer.add_scalar("loss", 1.0, 0); time.sleep(0.3); writer.flush()
        sys.stdin.readline()
        writer.add_scalar("loss", 2.0, 1); writer.close()
        """
    )
    with subprocess.Popen([*RUN, name], stdin=subprocess.PIPE) as process:
        end = time.monotonic() + 30
        found: list[str] = []
        while not found:
            assert time.monotonic() < end
            time.sleep(0.1)
            if (home / "runs").is_dir():
                found = [
                    m
                    for path in Workspace(home).run_folders()
                    if list(path.glob("journal.*"))
                    for m in RunInfo(path).metrics
                ]
        assert found == ["loss"]
        process.communicate(b"\n", timeout=30)
    (folder,) = Workspace(home).run_folders()
    assert RunInfo(folder).series("loss").value.tolist() == [1.0, 2.0]


def test_files_that_were_there_before_are_not_followed(script: Script, launched: Callable[..., object]) -> None:
    old = script(
        """
        import sys; sys.modules['torch'] = None; from tensorboardX import SummaryWriter
        with SummaryWriter("logs") as writer: writer.add_scalar("old", 1.0, 0)
        """,
        "old.py",
    )
    assert launched("--tensorboard-logs", "off", old).run.metrics == {}
    (file,) = Path("logs").iterdir()
    now_s = time.time()
    os.utime(file, (now_s - 1, now_s - 1))
    file.rename(file.with_name(f"events.out.tfevents.{int(now_s) + 1}.of-this-second"))  # their names count seconds
    run = max(launched(script("print(1)")).runs, key=lambda run: run.started_at)
    assert run.metrics == {}


def test_what_a_run_is_mirrored_into_is_not_followed(script: Script, launched: Callable[..., object]) -> None:
    name = script(
        """
        import glob, sys, time; sys.modules['torch'] = None; from tensorboardX import SummaryWriter
        import runstone
        with runstone.start_run(tensorboard="mirror") as run, SummaryWriter("logs") as writer:
            writer.add_scalar("loss", 1.0, 0)
            time.sleep(0.3)  # a thread of tensorboardX writes it
            writer.flush()
            until = time.monotonic() + 20
            while not glob.glob("mirror/**/*tfevents*", recursive=True) and time.monotonic() < until: time.sleep(0.05)
            time.sleep(0.5)
        """
    )
    run = launched(name).run
    assert {name: metric.count for name, metric in run.metrics.items()} == {"loss": 1}
    assert list(Path("mirror").rglob("*tfevents*"))


def test_a_script_that_records_metrics_itself_is_followed_only_where_asked(
    script: Script, launched: Callable[..., object]
) -> None:
    name = script(
        """
        import runstone
        import sys; sys.modules['torch'] = None; from tensorboardX import SummaryWriter
        with runstone.start_run() as run, SummaryWriter("logs") as writer:
            run.log({"loss": 1.0})
            writer.add_scalar("loss", 1.0, 0)
            writer.add_scalar("more", 1.0, 0)
        """
    )
    first = launched(name).run
    assert {name: metric.count for name, metric in first.metrics.items()} == {"loss": 1}
    second = max(launched("--tensorboard-logs", "logs", name).runs, key=lambda run: run.started_at)
    assert second.metrics["more"].count == 1


def test_hyperparameters_are_params_and_an_infinite_value_is_kept(
    script: Script, launched: Callable[..., object]
) -> None:
    name = script(
        """
        import sys; sys.modules['torch'] = None; from tensorboardX import SummaryWriter
        with SummaryWriter("logs") as writer:
            writer.add_hparams({"lr": 0.5, "model.width": 8}, {"final": 1.0}, name="hp")
            writer.add_scalar("loss", float("inf"), 3)
        """
    )
    run = launched(name).run
    assert run.params == {"lr": 0.5, "model": {"width": 8.0}}
    assert run.series("loss").value.tolist() == [float("inf")]
