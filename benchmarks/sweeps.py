"""What a sweep costs beside its trials: CPU of everything that was started, of whole sweeps, against a bare fork.

The start of a sweep (imports, the first trials, which load what they need) is left out by taking the difference of two
sweeps of which one has more trials.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import versions

_LOGS = """\
import argparse
import runstone
parser = argparse.ArgumentParser()
parser.add_argument("--x", type=float, default=0.0)
x = parser.parse_args().x
with runstone.start_run({options}) as run:
    run.log({{"loss": x * x}}, step=0)
"""
_TORCH = """\
import argparse
import torch
import runstone
parser = argparse.ArgumentParser()
parser.add_argument("--x", type=float, default=0.0)
x = parser.parse_args().x
data, target = torch.randn(256, 20), torch.randn(256, 1)
model = torch.nn.Sequential(torch.nn.Linear(20, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for _ in range(50):
    optimizer.zero_grad()
    loss = torch.nn.functional.mse_loss(model(data), target)
    loss.backward()
    optimizer.step()
with runstone.start_run(environment=False, system_metrics=False) as run:
    run.log({"loss": loss.item()}, step=0)
"""
_FUNCTION = """\
def objective(params):
    return params["x"] ** 2
"""
_BARE = "environment=False, system_metrics=False"


@dataclass(frozen=True, slots=True)
class Spent:
    """What a program and everything below it took."""

    cpu_s: float
    wall_s: float

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.cpu_s - other.cpu_s, self.wall_s - other.wall_s)

    def __truediv__(self, count: int) -> Spent:
        return Spent(self.cpu_s / count, self.wall_s / count)


def main(*, quick: bool = False) -> None:
    """Measure and print."""
    print(f"\nSweeps, 2 trials at once, sampler random ({versions('optuna', 'torch')}, load {os.getloadavg()[0]:.1f})")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as path:
        folder = Path(path)
        (folder / "logs.py").write_text(_LOGS.format(options=_BARE))
        (folder / "logs_all.py").write_text(_LOGS.format(options=""))
        (folder / "mlp.py").write_text(_TORCH)
        (folder / "functions.py").write_text(_FUNCTION)
        _trivial(folder, quick=quick)
        try:
            import torch  # noqa: F401  # whether it is there
        except ImportError:
            print("  torch: skipped, it is not installed")
        else:
            _torch(folder, quick=quick)
        _large(folder, quick=quick)


def _trivial(folder: Path, *, quick: bool) -> None:
    """Trials that do nothing, as scripts and functions, in turn with the floor."""
    few, many, rounds = (2, 4, 1) if quick else (20, 120, 3)
    programs = {
        "script that logs one value, forked": {"script": "logs.py"},
        "the same with environment and system metrics": {"script": "logs_all.py"},
        "function, in a process of its own, forked": {"function": "functions:objective"},
        "script, cold": {"script": "logs.py", "start": "cold"},
    }
    found: dict[str, list[Spent]] = {name: [] for name in ("bare fork and run of the script (floor)", *programs)}
    for number in range(rounds):
        count = (many - few) if quick else 200
        found["bare fork and run of the script (floor)"].append(_floor(folder, count) / count)
        for name, program in programs.items():
            found[name].append(_per_trial(folder, f"t{number}", program, few, many))
    floor = min(1 / spent.wall_s for spent in found["bare fork and run of the script (floor)"])
    for name, spent in found.items():
        cpu_s, rate = min(each.cpu_s for each in spent), max(1 / each.wall_s for each in spent)
        floor = rate if name.endswith("(floor)") else floor
        print(
            f"  {name:<46} {cpu_s * 1e3:7.1f} ms CPU a trial   {rate:6.1f} trials a second  {rate / floor:5.2f} × floor"
        )


def _torch(folder: Path, *, quick: bool) -> None:
    few, many = (1, 2) if quick else (6, 26)
    warm = _per_trial(folder, "warm", {"script": "mlp.py"}, few, many).cpu_s
    few, many = (1, 2) if quick else (2, 6)
    cold = _per_trial(folder, "cold", {"script": "mlp.py", "start": "cold"}, few, many).cpu_s
    print(
        f"  two-layer MLP of torch, 50 steps: forked {warm * 1e3:.0f} ms CPU a trial, cold {cold * 1e3:.0f} ms", end=""
    )
    print(f", {cold / warm:.1f} times as much")


def _per_trial(folder: Path, name: str, program: Mapping[str, str], few: int, many: int) -> Spent:
    # The same sweep twice would be gone on with.
    return (_sweep(folder, f"{name}-many", program, many) - _sweep(folder, f"{name}-few", program, few)) / (many - few)


def _sweep(folder: Path, name: str, program: Mapping[str, str], trials: int) -> Spent:
    config = folder / f"{name}.json"
    config.write_text(
        json.dumps(
            {
                **program,
                "metric": {"name": "loss", "goal": "minimize"},
                "parameters": {"x": {"min": 0.0, "max": 1.0}},
                "sampler": "random",
                "pruner": "none",
                "seed": 1,
                "trials": trials,
                "parallel": 2,
                "env": {"OMP_NUM_THREADS": "1"},
            }
        )
    )
    command = [sys.executable, "-m", "runstone_sweeps.cli", "run", "--new", str(config)]
    environment = {**os.environ, "RUNSTONE_WORKSPACE": str(folder / f"{name}.runstone")}
    before, began = _children_cpu_s(), time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the sweep {name} failed:\n{done.stdout}{done.stderr}")
    return Spent(_children_cpu_s() - before, time.perf_counter() - began)


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _floor(folder: Path, count: int) -> Spent:
    """Fork this process for each run of the script, two at once, with nothing around it but the wait for its end."""
    code = (
        f"import sys; sys.path[:0] = {[str(Path(__file__).parent.parent)]!r}\n"
        f"from benchmarks.sweeps import fork_and_run\nfork_and_run('logs.py', {count})"
    )
    environment = {**os.environ, "RUNSTONE_WORKSPACE": str(folder / "floor.runstone"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    cpu_s, wall_s = map(float, done.stdout.split())
    return Spent(cpu_s, wall_s)


def fork_and_run(script: str, count: int) -> None:
    """Be the floor: run a script in forks of this process, which has run it once; print CPU and wall seconds."""
    sys.argv = [script]
    runpy.run_path(script, run_name="__main__")
    running, began = 0, time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    for _ in range(count):
        if running == 2:
            os.wait()
            running -= 1
        if os.fork() == 0:
            runpy.run_path(script, run_name="__main__")
            os._exit(0)
        running += 1
    while running:
        os.wait()
        running -= 1
    after = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = sum(a.ru_utime + a.ru_stime - b.ru_utime - b.ru_stime for a, b in zip(after, before, strict=True))
    print(cpu_s, time.perf_counter() - began)


# --- many trials -----------------------------------------------------------------------------------------------------


def _large(folder: Path, *, quick: bool) -> None:
    """Go on with a sweep of 10,000 trials, whose record is made of that of a small one."""
    known = 20 if quick else 100
    total = 2 * known if quick else 10_000
    name = "large"
    _sweep(folder, name, {"script": "logs.py"}, known)
    code = (
        f"import sys; sys.path[:0] = {[str(Path(__file__).parent.parent)]!r}\n"
        "from benchmarks.sweeps import measure_large\n"
        f"measure_large({str(folder / f'{name}.runstone')!r}, {known}, {total}, {10 if quick else 60})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the large sweep failed:\n{done.stdout}{done.stderr}")
    resume_s, early_s, late_s = map(float, done.stdout.split())
    print(f"  resume of a sweep of {total} trials: {resume_s:.2f} s CPU until its study is there again")
    print(f"  the coordinator's own CPU a trial: {early_s * 1e3:.2f} ms from trial {known}", end="")
    print(f", {late_s * 1e3:.2f} ms from trial {total} ({late_s / early_s:.2f} times as much)")


def measure_large(workspace_path: str, known: int, total: int, more: int) -> None:
    """Print the CPU seconds of a resume at `total` trials, and of the coordinator for one trial before and there."""
    from runstone import Workspace
    from runstone_sweeps.coordinator.session import Budget, run_session, stored_spec
    from runstone_sweeps.record.journal import Journal
    from runstone_sweeps.store import Sweeps
    from runstone_sweeps.study import Search

    workspace = Workspace(workspace_path)
    (folder,) = Sweeps(workspace)
    watcher = _Clock()

    def go_on(trials: int) -> float:
        watcher.marks.clear()
        run_session(workspace, folder, stored_spec(folder, Budget(trials, None, None)), lambda *_: watcher)  # type: ignore[arg-type]
        marks = watcher.marks[len(watcher.marks) // 4 :]  # the first of a session wait for their modules
        return statistics.median(after - before for before, after in itertools.pairwise(marks))

    early_s = go_on(known + more)
    events = folder.events()
    record = folder.read()
    number = record.total if hasattr(record, "total") else len(record.trials)
    pattern = [e for e in events if e["event"] in ("asked", "started", "reported", "told") and e["number"] < known]
    kept = ("seq", "crc")
    journal = Journal(folder.path, next_seq=record.next_seq, sync_every_s=60.0)
    for shift in range(number, total, known):
        for event in pattern:
            if shift + event["number"] < total:
                moved = {key: value for key, value in event.items() if key not in kept}
                moved["number"] = shift + event["number"]
                if "run_id" in moved:
                    moved["run_id"] = f"{moved['number']:032x}"
                journal.append(moved)
    journal.close()
    began = time.process_time()
    spec = stored_spec(folder, Budget(total, None, None))
    record = folder.read()
    Search(spec, seed=1, record=record).ask(total)
    resume_s = time.process_time() - began
    print(resume_s, early_s, go_on(total + more))


class _Clock:
    """Takes down how much CPU this process had used at the end of each trial."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def on_event(self, event: Mapping[str, object], _record: object) -> None:
        if event["event"] == "told":
            self.marks.append(time.process_time())

    def __getattr__(self, name: str) -> object:
        if name.startswith("on_"):
            return lambda *_: None
        raise AttributeError(name)


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
