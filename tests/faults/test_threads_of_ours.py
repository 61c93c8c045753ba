"""An exception in a thread or process of ours (F18): training goes on, and the run says once what is missing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import runstone
from runstone import Status
from tests.recording.conftest import Ended, Program

PROGRAM = """
import os, time, warnings
import runstone
{broken}
def fails(*_, **__):
    raise RuntimeError("planted in a thread of ours")
warnings.simplefilter("always")
run = runstone.start_run(run_id=os.environ["ID"], on_error="warn", **{options!r})
for step in range(20_000):  # several segments
    run.log({{"x": float(step), f"new/{{step % 100}}": 1.0}}, step=step)
    if step % 10_000 == 0:
        time.sleep(0.9)  # longer than from one look of a thread to the next
run.log_params({{"a": 1}})
run.finish()
"""
NOTHING = {"environment": False, "system_metrics": False}
FAULTS = {
    "keeper-prepares": ("runlog.mapped", "MappedPoints.tend", NOTHING),
    "keeper-lets-go": ("runlog.appended", "AppendedPoints.tend", NOTHING),
    "keeper-syncs": ("runlog.mapped", "MappedPoints.sync", NOTHING),
    "keeper-beats": ("runlog.writer", "RunLog.beat", NOTHING),
    "snapshot": ("capture.collect", "collect", NOTHING | {"environment": True}),
    "sampler": ("capture.metrics.collector", "Collector.collect", NOTHING | {"system_metrics": 0.5}),
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Ended, runstone.RunInfo]]]:
    """Run all the programs at once: they mostly wait. How each ended, and what it recorded, by fault."""
    folder = tmp_path_factory.mktemp("threads")
    programs = {}
    for fault, (module, place, options) in FAULTS.items():
        name = module.rpartition(".")[2]
        broken = f"import runstone.{module} as {name}\n{name}.{place} = lambda *_, **__: fails()"
        environment = {"ID": fault, "RUNSTONE_ON_ERROR": "warn", "RUNSTONE_WORKSPACE": str(folder / "workspace")}
        environment["RUNSTONE_LOG"] = "append" if name == "appended" else "mmap"
        programs[fault] = Program(PROGRAM.format(broken=broken, options=options), folder, environment)
    try:
        yield {
            fault: (program.end(), runstone.RunInfo(folder / "workspace" / "runs" / "default" / fault))
            for fault, program in programs.items()
        }
    finally:
        for program in programs.values():
            if program.process.poll() is None:
                program.process.kill()
                program.process.communicate()


@pytest.mark.parametrize("fault", FAULTS)
def test_exception_in_a_thread_of_ours_leaves_the_training_alone(
    ended: dict[str, tuple[Ended, runstone.RunInfo]], fault: str
) -> None:
    program, info = ended[fault]
    assert program.code == 0, program.errors
    assert info.status is Status.FINISHED
    assert info.params == {"a": 1}
    assert np.array_equal(info.series("x").value, np.arange(20_000.0))
    assert sum(len(info.series(f"new/{number}")) for number in range(100)) == 20_000
    assert info.dropped == 0


@pytest.mark.parametrize("fault", FAULTS)
def test_exception_in_a_thread_of_ours_is_told_once_in_the_run_and_never_as_a_traceback(
    ended: dict[str, tuple[Ended, runstone.RunInfo]], fault: str
) -> None:
    program, info = ended[fault]
    assert "Traceback" not in program.errors
    assert program.errors.count("TrackingWarning") <= 1
    (told,) = info.warnings
    assert "planted in a thread of ours" in told
