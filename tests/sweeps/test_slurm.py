"""Sweeps whose workers are jobs: through submitit's local executor, and through Slurm's own commands, played here."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from runstone import InvalidConfig, ensure_workspace
from runstone_sweeps.config import parse_spec
from runstone_sweeps.store import Sweeps
from runstone_sweeps.workers.opening import open_executor
from tests.sweeps.test_workers import SLOW, Cluster, cluster, wait_for

pytest.importorskip("submitit")

__all__ = ["cluster"]

LOCAL = "executor: {name: slurm, cluster: local, workers: 2, shared: false, lost_after: 2s}\n"
# Job arrays as processes: enough of the three commands for submitit to submit, to look and to cancel.
SBATCH = """\
#!/bin/sh
script="$1"
echo "$@" >> "$PLAYED/sbatch"
id=$(( $(ls "$PLAYED" | grep -c '^job') + 100 ))
touch "$PLAYED/job.$id"
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
command=$(grep '^srun' "$script" | sed 's/^srun//; s/--[a-z-]* [^ ]*%[^ ]*//g; s/--unbuffered//')
for task in $(seq 0 "${last:-0}"); do
    name=$id; [ -n "$last" ] && name=${id}_$task
    SLURM_JOB_ID=$name SLURM_ARRAY_JOB_ID=$id SLURM_ARRAY_TASK_ID=$task SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 \\
    SUBMITIT_EXECUTOR=slurm SLURM_NODEID=0 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_JOB_NODELIST=here \\
    setsid sh -c "$command" > "$PLAYED/out.$name" 2>&1 &
    echo $! > "$PLAYED/pid.$name"
done
echo "Submitted batch job $id"
"""
SACCT = """\
#!/bin/sh
echo "JobID|State|NodeList"
for file in "$PLAYED"/pid.*; do
    name=${file##*/pid.}
    state=COMPLETED; kill -0 "$(cat "$file")" 2>/dev/null && state=RUNNING
    echo "$name|$state|here"
done
"""
SCANCEL = """\
#!/bin/sh
echo "$@" >> "$PLAYED/scancel"
for file in "$PLAYED"/pid.$1 "$PLAYED"/pid.$1_*; do
    [ -s "$file" ] && kill -s TERM -- "-$(cat "$file")" 2>/dev/null
done
exit 0
"""


def test_jobs_take_the_trials_and_end_with_the_sweep(cluster: Cluster) -> None:
    beside = cluster.path / "beside"
    beside.mkdir()
    cluster.script(
        "both.py",
        "import pathlib, time, runstone\n"
        "with runstone.start_run(environment=False) as run: run.log({'loss': 1.0}, step=0)\n"
        f"beside = pathlib.Path({str(beside)!r})\n(beside / run.name).touch()\n"
        "while len(list(beside.iterdir())) < 2: time.sleep(0.02)\n",  # until both have trials
    )
    coordinator = cluster.start("run", cluster.config(LOCAL, script="both.py", trials=5, parallel=2))
    out = cluster.finish(coordinator)
    assert out.count("is here") == 2
    cluster.check(5)
    assert not (cluster.workers_home / "jobs.json").exists()
    for path in (cluster.workers_home / "slurm").glob("*.err"):
        assert "Traceback" not in path.read_text()


def test_a_job_that_is_gone_is_submitted_again(cluster: Cluster) -> None:
    executor = LOCAL.replace("workers: 2", "workers: 1")
    coordinator = cluster.start("run", cluster.config(SLOW + executor, trials=2, parallel=1))
    wait_for(lambda: bool(list(cluster.home.glob("sweeps/*/workers/mark"))))
    cluster.until(lambda: cluster.logged(0) >= 3, coordinator)
    (trial,) = cluster.trials_alive()
    worker = next(each.pid for each in psutil.Process(trial).parents() if "submitit.core._submit" in each.cmdline())
    os.kill(worker, 9)
    out = cluster.finish(coordinator)
    assert "a worker ended" in out
    cluster.check(2)
    assert [event["kind"] for event in cluster.events_of("requeued")] == ["preempted"]


def test_jobs_that_end_as_soon_as_they_begin_end_the_sweep_with_a_reason(cluster: Cluster) -> None:
    executor = LOCAL.replace("workers: 2", "workers: 1")
    (cluster.path / "sub").mkdir()
    (cluster.path / "train.py").rename(cluster.path / "sub" / "train.py")
    coordinator = cluster.start("run", cluster.config(f"working_dir: sub\n{executor}", trials=1))
    wait_for(lambda: bool(list(cluster.home.glob("sweeps/*/workers/mark"))))
    (cluster.path / "sub").rename(cluster.path / "hidden")
    out = cluster.finish(coordinator, code=1)
    assert "workers ended as soon as they began" in out


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Put commands of Slurm on the path that run jobs as processes here."""
    played, commands = tmp_path / "played", tmp_path / "bin"
    played.mkdir()
    commands.mkdir()
    for name, text in (("sbatch", SBATCH), ("sacct", SACCT), ("scancel", SCANCEL), ("srun", "#!/bin/sh\nexit 1\n")):
        path = commands / name
        path.write_text(text)
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.setenv("PLAYED", str(played))
    yield played
    for path in played.glob("pid.*"):
        with contextlib.suppress(ValueError, ProcessLookupError):
            os.killpg(int(path.read_text()), signal.SIGKILL)


def test_workers_are_an_array_with_the_options_of_the_config_and_are_cancelled_at_the_end(
    cluster: Cluster, slurm: Path
) -> None:
    executor = (
        "executor: {name: slurm, workers: 2, partition: gpu, time: 30m, cpus: 3, shared: false, "
        "listen: 127.0.0.1:0, slurm_qos: low}\n"
    )
    coordinator = cluster.start("run", cluster.config(executor, trials=4, parallel=2))
    out = cluster.finish(coordinator)
    assert out.count("is here") == 2
    cluster.check(4)
    script, *_ = (cluster.workers_home / "slurm").glob("*submission*.sh")
    text = script.read_text()
    for line in ("--array=0-1", "--partition=gpu", "--time=30", "--cpus-per-task=3", "--qos=low"):
        assert f"#SBATCH {line}" in text
    assert len((slurm / "scancel").read_text().split()) == 2
    token = (cluster.workers_home / "token").read_text().strip()
    for path in (cluster.workers_home / "slurm").iterdir():
        assert token.encode() not in path.read_bytes()


def test_an_option_that_slurm_lacks_is_told(tmp_path: Path) -> None:
    config = {
        "command": [sys.executable],
        "metric": {"name": "loss", "goal": "minimize"},
        "parameters": {"x": {"min": 0.0, "max": 1.0}},
        "trials": 1,
        "executor": {"name": "slurm", "cluster": "local", "partiton": "x"},
    }
    spec = parse_spec(config, folder=tmp_path, file_name="sweep", has_objective=False)
    workspace = ensure_workspace(tmp_path / "w")
    folder = Sweeps(workspace).create(spec, seed=0)
    with pytest.raises(InvalidConfig, match="partiton"):
        open_executor(workspace, folder, spec, environment={}, is_warm=False, preload=())
