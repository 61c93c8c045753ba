"""What works beside a run: system metrics and the TensorBoard mirror, as `start_run` starts them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import runstone
from runstone.names import SYSTEM


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
