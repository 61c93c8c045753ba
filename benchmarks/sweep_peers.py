"""Sweeps beside Ray Tune and Hydra: `python -m benchmarks.sweep_peers [--install | --venvs DIR] [--quick]`.

The same trivial objective, two trials at once, no search: trials a second, and the CPU of all that was started, daemons
included. Each figure is the difference of two sweeps of which one has more trials, so that starts are left out; the
best of several rounds, the subjects in turn.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import machine, versions
from benchmarks.sweeps import _BARE, _FUNCTION, _LOGS, Spent

PACKAGES = {
    "ray": ("ray[tune]==2.60.0",),
    "hydra": ("hydra-core==1.3.8", "hydra-joblib-launcher==1.2.0"),
}
_VENVS = Path(__file__).parent / "peers"
_PR_SET_CHILD_SUBREAPER = 36
_LEFT_S = 60.0

_RAY = """\
import sys
import ray
from ray import tune

def objective(config):
    tune.report({"loss": config["x"] ** 2})

if __name__ == "__main__":
    count, reuses = int(sys.argv[1]), sys.argv[2] == "reuse"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    results = tune.Tuner(
        objective,
        param_space={"x": tune.uniform(0.0, 1.0)},
        tune_config=tune.TuneConfig(num_samples=count, max_concurrent_trials=2, reuse_actors=reuses),
        run_config=tune.RunConfig(verbose=0, storage_path=sys.argv[3]),
    ).fit()
    assert len(results) == count and not results.errors
    ray.shutdown()
"""
_HYDRA = """\
import hydra

@hydra.main(version_base=None, config_path=None, config_name=None)
def main(config):
    return config["x"] ** 2

if __name__ == "__main__":
    main()
"""


@dataclass(frozen=True, slots=True)
class Subject:
    """One way to run the trials: what measures so many of them, and how many there are in the short and the long run.

    Attributes:
        command: Returns the command line for a number of trials.
        few, many: How many.
    """

    command: Callable[[int], list[str]]
    few: int
    many: int


def main() -> None:
    """Install, or measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep_peers", description=__doc__)
    parser.add_argument("--install", action="store_true", help="make the peers' environments, measure nothing")
    parser.add_argument("--venvs", type=Path, metavar="DIR", help="folder of environments, each named as its peer")
    parser.add_argument("--quick", action="store_true", help="only show that it runs; the figures mean nothing")
    options = parser.parse_args()
    pythons = {name: _python(name, options.venvs and options.venvs.absolute()) for name in PACKAGES}
    if options.install:
        for name, python in pythons.items():
            if not python.exists():
                subprocess.run([sys.executable, "-m", "venv", python.parent.parent], check=True)
            pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, *PACKAGES[name]], check=True)
        return
    print(f"{machine()}; {versions('runstone', 'optuna')}, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as path:
        measure(Path(path), pythons, quick=options.quick)


def measure(folder: Path, pythons: dict[str, Path], *, quick: bool) -> None:
    """Measure all that are installed, in turn, and print a line for each."""
    subjects = find_subjects(folder, pythons, quick=quick)
    found: dict[str, list[Spent]] = {name: [] for name in subjects}
    for _ in range(1 if quick else 3):
        for name, subject in subjects.items():
            few, many = (spend(subject.command(count), folder) for count in (subject.few, subject.many))
            found[name].append((many - few) / (subject.many - subject.few))
    ours = max(1 / spent.wall_s for spent in found["Runstone, script"])
    for name, spent in found.items():
        rate, cpu_s = max(1 / each.wall_s for each in spent), min(each.cpu_s for each in spent)
        line = f"  {name:<38} {rate:8.2f} trials a second   {cpu_s * 1e3:8.1f} ms CPU a trial"
        print(line + ("" if name.startswith("Runstone") else f"   Runstone's script runs {ours / rate:6.1f} × as many"))


def find_subjects(folder: Path, pythons: dict[str, Path], *, quick: bool) -> dict[str, Subject]:
    """Write the programs and return those that can run here; say which cannot."""
    (folder / "logs.py").write_text(_LOGS.format(options=_BARE))
    (folder / "logs_all.py").write_text(_LOGS.format(options=""))
    (folder / "functions.py").write_text(_FUNCTION)
    (folder / "tuned.py").write_text(_RAY)
    (folder / "app.py").write_text(_HYDRA)
    few, many = (2, 4) if quick else (20, 140)

    def ours(name: str, program: str) -> Subject:
        def command(count: int) -> list[str]:
            config = folder / f"{name}-{count}.yaml"
            config.write_text(
                f"{program}\nmetric: {{name: loss, goal: minimize}}\nparameters:\n  x: {{min: 0.0, max: 1.0}}\n"
                f"sampler: random\npruner: none\nseed: 1\ntrials: {count}\nparallel: 2\n"
            )
            return [sys.executable, "-m", "runstone_sweeps.cli", "run", "--new", str(config)]

        return Subject(command, few, many)

    found = {
        "Runstone, script": ours("script", "script: logs.py"),
        "Runstone, script, all recorded": ours("all", "script: logs_all.py"),
        "Runstone, function, all recorded": ours("function", "function: functions:objective"),
    }
    ray, hydra = str(pythons["ray"]), str(pythons["hydra"])
    if pythons["ray"].exists():
        for name, word, small, large in (("reused actors", "reuse", 20, 220), ("an actor each", "new", 2, 10)):
            small, large = (1, 2) if quick else (small, large)
            found[f"Ray Tune {_version(ray, 'ray')}, {name}"] = Subject(
                lambda count, word=word: [ray, str(folder / "tuned.py"), str(count), word, str(folder / "ray")],  # type: ignore[misc]
                small,
                large,
            )
    else:
        print("  Ray Tune: skipped, it has no environment (--install)")
    if pythons["hydra"].exists():
        small, large = (1, 2) if quick else (10, 60)
        version = _version(hydra, "hydra-core")
        for name, words in (
            ("one at a time", []),
            ("joblib, two at once", ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]),
        ):
            found[f"Hydra {version}, {name}"] = Subject(
                lambda count, words=words: [  # type: ignore[misc]
                    *(hydra, str(folder / "app.py"), "-m", *words),
                    "+x=" + ",".join(str(number / 1000) for number in range(count)),
                ],
                small,
                large,
            )
    else:
        print("  Hydra: skipped, it has no environment (--install)")
    return found


def spend(command: list[str], folder: Path) -> Spent:
    """Run a program and return what it and all that it started took, daemons that outlive it included."""
    _adopt_orphans()
    group = _Group()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("RUNSTONE", "RAY_"))},
        "RUNSTONE_WORKSPACE": str(folder / "home"),
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_V2_ENABLED": "1",
    }
    before, began = _children_cpu_s(), time.perf_counter()
    command = group.entering(command)
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
        code = process.wait()
        wall_s = time.perf_counter() - began
        _bury()
        if code:
            output.seek(0)
            raise RuntimeError(f"{' '.join(command)} failed:\n{output.read()[-4000:]}")
    cpu_s = group.cpu_s()
    group.close()
    return Spent(_children_cpu_s() - before if cpu_s is None else cpu_s, wall_s)


class _Group:
    """A control group that counts the CPU of all that a program starts, also of what nobody waits for.

    Where none can be made, only what is waited for is counted: too little of Ray, whose daemons do not wait.
    """

    def __init__(self) -> None:
        mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
        root = next((Path(fields[1]) for fields in mounts if fields[2] == "cgroup2"), None)
        self._path = root / f"runstone-benchmark-{os.getpid()}-{time.monotonic_ns()}" if root is not None else None
        try:
            if self._path is not None:
                self._path.mkdir()
        except OSError:
            self._path = None

    def entering(self, command: list[str]) -> list[str]:
        """Return a command that enters the group and then is the one given."""
        if self._path is None:
            return command
        return ["/bin/sh", "-c", f'echo $$ > {self._path}/cgroup.procs && exec "$@"', "sh", *command]

    def cpu_s(self) -> float | None:
        """Return what was used, `None` where nobody counted."""
        if self._path is None:
            return None
        told = dict(line.split() for line in (self._path / "cpu.stat").read_text().splitlines())
        return int(told["usage_usec"]) / 1e6

    def close(self) -> None:
        """Remove it; the system does so only once all is gone from it."""
        until = time.monotonic() + _LEFT_S
        while self._path is not None and time.monotonic() < until:
            try:
                self._path.rmdir()
                return
            except OSError:
                time.sleep(0.05)


def _adopt_orphans() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0)


def _bury() -> None:
    """Wait for what was left behind, so that its time is counted; what does not end is ended."""
    until = time.monotonic() + _LEFT_S
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            if time.monotonic() > until:
                for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
                    os.kill(int(child), signal.SIGKILL)
            time.sleep(0.02)


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _python(peer: str, venvs: Path | None) -> Path:
    return (_VENVS / f".venv-{peer}" if venvs is None else venvs / peer) / "bin" / "python"


def _version(python: str, package: str) -> str:
    code = f"import importlib.metadata; print(importlib.metadata.version({package!r}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
