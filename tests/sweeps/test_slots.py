"""GPUs and cores: which trial gets which, and when one is free again. The GPUs are those of a library that is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runstone_sweeps.executors.slots import oom_kills, thread_variables, usable_cores

from .conftest import Place

Gpus = Callable[..., Any]
GIB = 1 << 30


@pytest.fixture
def gpus(fakenvml: Path, tmp_path: Path) -> Gpus:
    """Return a function that runs code with `slots` in a process that sees the GPUs that are described."""

    def run(code: str, state: str, *, devices: str = "None", each: str = "1", visible: str | None = None) -> Any:
        config = tmp_path / "nvml.conf"
        config.write_text(state)
        program = f"""
import json, pathlib
from runstone_sweeps.spec.options import Resources
from runstone_sweeps.executors.slots import GpuSlots, NoGpus
now = [0.0]
def state(text): pathlib.Path({str(config)!r}).write_text(text)
environment = {{}} if {visible!r} is None else {{"CUDA_VISIBLE_DEVICES": {visible!r}}}
def make(): return GpuSlots(Resources(gpus={each}, devices={devices}), environment, clock=lambda: now[0])
def shown(key): return slots.take(key)["CUDA_VISIBLE_DEVICES"]
out = []
try:
    slots = make()
    {code.replace(chr(10), chr(10) + "    ")}
except NoGpus as error:
    out.append(str(error))
print(json.dumps(out))
"""
        environment = {**os.environ, "LD_LIBRARY_PATH": str(fakenvml), "FAKENVML": str(config)}
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def used(*gib: float) -> str:
    lines = [f"count {len(gib)}"] + [f"gpu{index}.mem_used {int(each * GIB)}" for index, each in enumerate(gib)]
    return "\n".join(lines) + "\n"


def test_each_trial_gets_gpus_of_its_own_the_least_loaded_first(gpus: Gpus) -> None:
    out = gpus(
        "while slots.has_room(): out.append(shown(len(out)))\nslots.give_back(1)\nout.append(shown(9))",
        used(3, 1, 2),
    )
    assert out == ["1", "2", "0", "2"]
    assert gpus("out.append(shown(0)); out.append(slots.has_room())", used(3, 1, 2), each="2") == ["1,2", False]
    assert gpus("out.append(slots.take(0))", used(1)) == [
        {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "0"}
    ]


def test_several_trials_share_a_gpu_where_each_takes_a_part(gpus: Gpus) -> None:
    code = "out.append(slots.count)\nwhile slots.has_room(): out.append(shown(len(out)))"
    assert gpus(code, used(0, 1), each="0.5") == [4, "0", "1", "0", "1"]
    assert gpus(code, used(0), each="0.33") == [3, "0", "0", "0"]
    assert gpus(code, used(0), each="0.1") == [10, *["0"] * 10]
    assert gpus(code, used(0), each="0.6") == [1, "0"]


def test_only_the_gpus_that_are_visible_and_named_are_used(gpus: Gpus) -> None:
    every = "while slots.has_room(): out.append(slots.take(len(out)))"
    tokens = lambda told: [each["CUDA_VISIBLE_DEVICES"] for each in told]  # noqa: E731
    state = used(0, 0, 0, 0)
    assert tokens(gpus(every, state, devices="(1, 3)")) == ["1", "3"]
    assert tokens(gpus(every, state, visible="3,1")) == ["3", "1"]
    assert tokens(gpus(every, state, visible="3,1", devices="(1,)")) == ["1"]
    assert tokens(gpus(every, state, visible="GPU-fake-2,GPU-fake-0")) == ["GPU-fake-2", "GPU-fake-0"]
    assert gpus(every, state, visible="2") == [{"CUDA_VISIBLE_DEVICES": "2"}]  # their order is the user's own


def test_the_parts_of_a_divided_gpu_are_gpus(gpus: Gpus) -> None:
    state = "count 2\ngpu0.mig_mode 1\ngpu0.mig 1\ngpu0.mig_count 2\n"
    every = "while slots.has_room(): out.append(shown(len(out)))"
    assert gpus(every, state) == ["MIG-fake-0-0", "MIG-fake-0-1", "1"]
    assert gpus(every, state, visible="MIG-fake-0-1") == ["MIG-fake-0-1"]


def test_a_gpu_is_free_again_when_its_memory_is_or_has_been_waited_for(gpus: Gpus) -> None:
    code = f"""
slots.take(0)
state({used(20)!r})
slots.give_back(0)
out.append(slots.has_room())
now[0] = 5.0
out.append(slots.has_room())
state({used(2.03)!r})
out.append(slots.has_room())
slots.take(1)
state({used(20.5)!r})
slots.give_back(1)
out.append(slots.has_room())
now[0] = 15.1
out.append(slots.has_room())
"""
    assert gpus(code, used(2)) == [False, False, True, False, True]


@pytest.mark.parametrize(
    ("state", "options", "message"),
    [
        ("count 0\n", {}, "gpus is 1, and this machine has no GPU"),
        ("init 9\n", {}, "gpus is 1, and this machine shows no GPU"),
        ("count 2\n", {"each": "4"}, "gpus is 4, and there are 2 GPUs to use"),
        ("count 2\n", {"devices": "(2,)"}, "devices names GPU 2, and there are 2 GPUs, counted from 0"),
        ("count 2\n", {"visible": "7"}, "CUDA_VISIBLE_DEVICES names GPU 7, which is not there"),
        ("count 2\n", {"visible": "GPU-x"}, "CUDA_VISIBLE_DEVICES names 'GPU-x', and no GPU here is called so"),
        ("count 2\n", {"visible": ""}, "gpus is 1, and there is no GPU to use (CUDA_VISIBLE_DEVICES=)"),
    ],
)
def test_gpus_that_are_not_there_are_named_in_one_line(
    gpus: Gpus, state: str, options: dict[str, str], message: str
) -> None:
    (out,) = gpus("out.append('made')", state, **options)
    assert out.startswith(message)


def test_trials_of_a_sweep_get_gpus_and_threads(
    place: Place, fakenvml: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "nvml.conf"
    config.write_text(used(0, 0))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(fakenvml))
    monkeypatch.setenv("FAKENVML", str(config))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    place.script(
        "train.py",
        "import os, time, runstone\nrun = runstone.start_run(environment=False)\n"
        "run.log_params({k: os.environ[k] for k in ('CUDA_VISIBLE_DEVICES', 'OMP_NUM_THREADS', 'MKL_NUM_THREADS')})\n"
        "time.sleep(0.3)\nrun.log({'loss': 1.0})\n",
    )
    place.sweep("run", place.config("gpus: 1\ncpus: 3\nenv: {MKL_NUM_THREADS: 7}\nstart: cold\n", trials=4, parallel=8))
    record = place.record
    events = [e for e in place.events if e["event"] in ("started", "told")]
    running = 0
    for event in events:
        running += 1 if event["event"] == "started" else -1
        assert running <= 2  # there are two GPUs, whatever `parallel` says
    assert {event["gpus"] for event in place.events_of("started")} == {1.0}
    import runstone

    workspace = runstone.open_workspace(place.home)
    params = [workspace.run(trial.run_id).params for trial in record.trials.values()]
    assert {p["CUDA_VISIBLE_DEVICES"] for p in params} == {"0", "1"}
    assert {(p["OMP_NUM_THREADS"], p["MKL_NUM_THREADS"]) for p in params} == {("3", "7")}
    assert record.usage.gpu_s == pytest.approx(sum(trial.duration_s or 0 for trial in record.trials.values()), rel=0.2)
    assert record.usage.gpu_s > 4 * 0.3


def test_no_gpu_where_one_is_asked_for_is_one_line(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    out = place.sweep("run", place.config("gpus: 1\n", trials=1), code=1)
    assert "gpus is 1, and" in out
    assert out.count("gpus is 1") == 1


def test_threads_are_the_cores_divided_by_the_trials_unless_someone_set_them() -> None:
    assert set(thread_variables(None, 4, {}, cores=10).values()) == {"2"}
    assert thread_variables(None, 1, {}, cores=10) == {}
    assert set(thread_variables(None, 20, {}, cores=10).values()) == {"1"}
    assert set(thread_variables(6, 1, {}, cores=10).values()) == {"6"}
    told = thread_variables(6, 1, {"OMP_NUM_THREADS": "1"}, cores=10)
    assert "OMP_NUM_THREADS" not in told
    assert "MKL_NUM_THREADS" in told


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "150000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "100000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "max 100000\n"}, None),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/x\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n",
            },
            1,
        ),
        ({}, None),
    ],
)
def test_cores_are_those_that_control_groups_grant(tmp_path: Path, files: dict[str, str], cores: int | None) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    bound = len(os.sched_getaffinity(0))
    assert usable_cores(tmp_path) == min(bound, cores or bound)


def test_kills_of_the_system_are_counted(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/vmstat").write_text("nr_free 5\noom_kill 3\n")
    assert oom_kills(tmp_path) == 3
    assert oom_kills(tmp_path / "nowhere") == 0
