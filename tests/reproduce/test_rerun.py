"""Doing it again: what is equal, within noise or different, and what is stored."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner

import runstone
from runstone import NotFound, Status, Workspace
from runstone.cli.reproduce import reproduce_command
from runstone.reproduce import Outcome, judge, rerun
from runstone.runinfo import RunInfo
from tests.reproduce.conftest import Project


def again(project: Project, run: RunInfo, name: str = "again", **options: float | bool) -> Outcome:
    """Restore a run and do it again."""
    with Path(os.devnull).open("wb") as nowhere:
        return rerun(project.restore(run, name), Workspace(project.home), output=nowhere, **options)  # type: ignore[arg-type]


def verdicts(outcome: Outcome) -> dict[str, str]:
    """Return the verdict of each metric."""
    assert outcome.judgement is not None
    return {metric.name: metric.verdict for metric in outcome.judgement.metrics}


def test_a_deterministic_run_is_equal_and_the_verdict_is_stored(project: Project) -> None:
    run = project.run("train.py", "3")
    outcome = again(project, run)
    assert outcome.verdict == "equal"
    assert outcome.is_reproduced
    assert verdicts(outcome) == {"loss": "equal", "lr": "equal", "step_time": "not judged"}
    assert outcome.run is not None
    new = Workspace(project.home).run(outcome.run.id)
    assert new.parent == run.id
    assert new.name == "s3 again"
    assert new.project == run.project
    assert new.tags["reproduces"] == run.id
    assert new.tags["reproduction"] == "equal"
    assert outcome.differs is not None
    assert outcome.differs.is_equal
    assert json.loads((project.root.parent / "again/verdict.json").read_text())["verdict"] == "equal"
    assert len(project.runs()) == 2


def test_a_noisy_run_is_within_the_noise_of_earlier_ones(project: Project) -> None:
    runs = [project.run("train.py", "3", "--noisy") for _ in range(3)]
    outcome = again(project, runs[0])
    assert outcome.verdict == "within noise"
    assert verdicts(outcome)["loss"] == "within noise"
    assert outcome.judgement is not None
    loss = outcome.judgement.metrics[0]
    assert loss.test.startswith("99 % interval of 3 runs (repetitions)")
    assert set(outcome.judgement.peers) == {run.id for run in runs}


def test_runs_that_differ_in_their_seed_alone_show_the_noise_of_seeds(project: Project) -> None:
    runs = [project.run("train.py", str(seed), "--noisy") for seed in (1, 2, 3, 4)]
    outcome = again(project, runs[0])
    assert outcome.judgement is not None
    assert "of 4 runs (other seeds)" in outcome.judgement.metrics[0].test


def test_without_earlier_runs_a_tolerance_decides_and_is_told(project: Project) -> None:
    run = project.run("train.py", "3", "--noisy")
    strict = again(project, run, tolerance=1e-9)
    assert strict.verdict == "different"
    assert strict.judgement is not None
    assert strict.judgement.metrics[0].test == "last, min and max within 1e-09 relative"
    assert "is off by" in strict.judgement.metrics[0].detail
    assert strict.run is not None
    loose = judge(run, strict.run, workspace=Workspace(project.home), tolerance=1.0)
    assert loose.verdict == "within noise"


def test_other_code_is_different(project: Project, tmp_path: Path) -> None:
    run = project.run("train.py", "3")
    made = project.restore(run)
    (made.folder / "code/helper.py").write_text("LR = 0.2\n")
    outcome = rerun(made, Workspace(project.home))
    assert outcome.verdict == "different"
    assert verdicts(outcome)["lr"] == "different"
    assert outcome.differs is not None
    assert [change.name for change in outcome.differs.groups[0].changes][:2] == ["changes", "changed file helper.py"]


def test_a_command_that_fails_is_told(project: Project) -> None:
    run = project.run("train.py", "3")
    made = project.restore(run)
    (made.folder / "code/helper.py").write_text("LR = 0.1\nimport runstone\nruns = runstone.start_run()\n1 / 0\n")
    outcome = rerun(made, Workspace(project.home))
    assert (outcome.verdict, outcome.exit_code) == ("failed", 1)
    assert outcome.run is not None
    assert outcome.run.status is Status.FAILED
    assert outcome.reason.endswith("the command ended with 1: ZeroDivisionError: division by zero")


def test_a_command_that_records_nothing_is_told(project: Project) -> None:
    made = project.restore(project.run("train.py", "3"))
    (made.folder / "code/helper.py").write_text("raise SystemExit(7)\n")
    outcome = rerun(made, Workspace(project.home))
    assert (outcome.verdict, outcome.exit_code, outcome.run) == ("failed", 7, None)
    assert outcome.reason == "the command ended with 7 before it started a run"
    failures = [failure.message for path in project.runs() if (failure := RunInfo(path).failure)]
    assert failures == ["the command ended with 7 before it started a run"]


def test_a_command_that_is_killed_is_told(project: Project) -> None:
    made = project.restore(project.run("train.py", "3"))
    (made.folder / "code/helper.py").write_text("import os, runstone\nrunstone.start_run()\nos.kill(os.getpid(), 9)\n")
    outcome = rerun(made, Workspace(project.home))
    assert (outcome.verdict, outcome.exit_code) == ("failed", -signal.SIGKILL)
    assert outcome.run is not None
    assert outcome.run.status is Status.CRASHED
    assert outcome.reason == "the new run ended crashed, the old one finished; the command was ended by SIGKILL"


def test_other_steps_and_missing_metrics_are_different(project: Project) -> None:
    run = project.run("train.py", "3")
    made = project.restore(run)
    script = made.folder / "code/train.py"
    script.write_text(script.read_text().replace("range(20)", "range(5)").replace('run.log({"lr"', 'run.log({"lr2"'))
    outcome = rerun(made, Workspace(project.home))
    assert verdicts(outcome) == {"loss": "different", "lr": "missing", "lr2": "new", "step_time": "not judged"}
    assert outcome.judgement is not None
    assert outcome.judgement.metrics[0].detail == "steps 0 to 19 (20) then, 0 to 4 (5) now"


def test_a_run_that_chose_its_id_is_not_gone_on_with(project: Project) -> None:
    script = (project.root / "train.py").read_text().replace("start_run(", "start_run(run_id='mine', ")
    project.write("train.py", script)
    project.commit()
    run = project.run("train.py", "3")
    outcome = again(project, run)
    assert outcome.verdict == "equal"
    assert outcome.workspace == project.root.parent / "again/.runstone"
    assert len(Workspace(project.home).run("mine").attempts) == 1
    assert len(project.runs()) == 1


def test_nothing_is_run_that_was_not_recorded_whole(project: Project) -> None:
    made = project.restore(project.run("train.py", "1", "--token", "sk-abcdefgh12345678"))
    with pytest.raises(NotFound, match="cannot be run again: word 4 of its command was redacted"):
        rerun(made, Workspace(project.home))
    assert len(project.runs()) == 1


def test_nan_equals_nan_and_differs_from_numbers(home: Path) -> None:
    def made(values: list[float]) -> RunInfo:
        with runstone.start_run(workspace=home, params={"a": 1}, environment=False) as run:
            for value in values:
                run.log({"x": value})
        return RunInfo(run.path)

    nan = float("nan")
    first, same, other = made([1.0, nan]), made([1.0, nan]), made([1.0, 2.0])
    workspace = Workspace(home)
    assert judge(first, same, workspace=workspace).verdict == "equal"
    assert judge(first, other, workspace=workspace).verdict == "different"


def test_the_command_line_shows_a_table_and_exits_with_the_verdict(project: Project) -> None:
    run = project.run("train.py", "3")
    options = ["-w", str(project.home), "-o"]
    folder = project.root.parent
    plain = CliRunner().invoke(reproduce_command, [run.id, *options, str(folder / "one")])
    assert plain.exit_code == 0, plain.output
    assert "command      python train.py 3" in plain.output
    assert len(project.runs()) == 1
    ran = CliRunner().invoke(reproduce_command, [run.id, *options, str(folder / "two"), "--run"])
    assert ran.exit_code == 0, ran.output
    assert "equal  2 equal, 1 not judged" in ran.output
    project.write("helper.py", "import random\nLR = random.random()\n")
    project.commit()
    noisy = project.run("train.py", "3", "--noisy")
    differs = CliRunner().invoke(
        reproduce_command, [noisy.id, *options, str(folder / "three"), "--run", "--tolerance", "0"]
    )
    assert differs.exit_code == 1
    assert "different" in differs.output
    lock = str(folder / "one/requirements.lock.txt")
    assert CliRunner().invoke(reproduce_command, [run.id, "--lock", lock, *options, "x"]).exit_code == 2
