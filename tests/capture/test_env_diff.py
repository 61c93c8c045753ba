"""`runstone env diff`: what differs between environments, most likely to matter first, without noise."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import runstone
from runstone.capture import snapshot
from runstone.cli.main import run as runstone_command
from runstone.environments import EnvironmentDiff, diff_environments, patch_files

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def here() -> dict[str, Any]:
    """Return the snapshot of this machine."""
    return snapshot()


def changed(base: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """Return a snapshot with other values, at paths written with `__`."""
    found = copy.deepcopy(dict(base))
    for path, value in changes.items():
        *outer, last = path.split("__")
        place = found
        for name in outer:
            if not isinstance(place.get(name), dict):
                place[name] = {}
            place = place[name]
        place[last] = value
    return found


def rows(diff: EnvironmentDiff) -> list[tuple[str, str, Any, Any]]:
    """Return all that differs: group, name, left, right."""
    return [(group.name, one.name, one.left, one.right) for group in diff.groups for one in group.changes]


def test_what_is_never_the_same_is_left_out(here: dict[str, Any]) -> None:
    later = changed(
        here,
        captured_at=1.0,
        duration_ms=7.0,
        writer="f" * 32,
        process__pid=1,
        process__ppid=2,
        process__started_at=3.0,
        os__boot_id="x",
        os__uptime_s=1.0,
        memory__available_bytes=1,
        disk__tmp__free_bytes=1,
        container__id="abc",
    )
    assert rows(diff_environments(here, later)) == []


def test_two_snapshots_of_one_process_are_equal() -> None:
    # In a process of its own: threads that other tests left here may import and set what they like.
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from runstone.environments import diff_environments\n"
        "from tests.capture.test_env_diff import rows, snapshot\n"
        "found = diff_environments(snapshot(), snapshot())\n"
        "print(rows(found), found.is_equal)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[] True"


def test_groups_come_in_the_order_in_which_they_matter(here: dict[str, Any]) -> None:
    left = changed(
        here,
        git={"commit": "a" * 40, "branch": "main", "is_dirty": False},
        frameworks__torch={"version": "2.9.0", "is_deterministic": True, "threads": 8, "cuda": "12.8"},
    )
    right = changed(
        left,
        os__release="other",
        cgroup__cpu_limit=4.0,
        env={**here["env"], "OMP_NUM_THREADS": "2"},
        cpu__usable_cores=999,
        frameworks__torch={"version": "2.9.0", "is_deterministic": False, "threads": 4, "cuda": "12.9"},
        packages__installed=[],
        git={"commit": "b" * 40, "branch": "side", "is_dirty": True},
    )
    found = diff_environments(left, right)
    assert [group.name for group in found.groups] == [
        "code", "packages", "gpu", "numerics", "cpu", "variables", "limits", "system",
    ]  # fmt: skip
    assert all(group.changes for group in found.groups)
    assert rows(found)[:3] == [
        ("code", "commit", "a" * 40, "b" * 40),
        ("code", "branch", "main", "side"),
        ("code", "changes", "clean", "uncommitted"),
    ]
    assert ("gpu", "torch.cuda", "12.8", "12.9") in rows(found)
    assert ("numerics", "torch.is_deterministic", True, False) in rows(found)
    assert ("cpu", "torch.threads", 8, 4) in rows(found)
    assert ("variables", "OMP_NUM_THREADS", None, "2") in rows(found)
    assert found.count == len(rows(found))


def test_frameworks_lead_the_packages(here: dict[str, Any]) -> None:
    before = [{"name": name, "version": "1"} for name in ("aaa", "gone", "numpy", "torch", "same")]
    after = [{"name": "aaa", "version": "2"}, {"name": "new", "version": "1"}, {"name": "same", "version": "1"}]
    after += [
        {"name": "torch", "version": "1", "url": "https://x/y", "commit": "c" * 40},
        {"name": "numpy", "version": "2"},
    ]
    diff = diff_environments(changed(here, packages__installed=before), changed(here, packages__installed=after))
    packages = next(group for group in diff.groups if group.name == "packages")
    assert [(one.name, one.kind) for one in packages.changes] == [
        ("torch", "changed"),
        ("numpy", "changed"),
        ("aaa", "changed"),
        ("gone", "removed"),
        ("new", "added"),
    ]
    assert packages.changes[0].right == f"1 from {'c' * 40}"


def test_gpus_differ_by_what_they_are_not_by_which_one_it_is(here: dict[str, Any]) -> None:
    card = {"index": 0, "name": "H100", "uuid": "a", "memory_bytes": 80, "power_limit_w": 700.0, "serial": "1"}
    gpu = {
        "driver": "580",
        "cuda_driver": "13.0",
        "count": 2,
        "devices": [card, {**card, "index": 1}],
        "visible": [{}, {}],
    }
    left = changed(here, gpu=gpu)
    other = [{**card, "uuid": "b", "serial": "2"}, {**card, "index": 1, "uuid": "c"}]
    assert rows(diff_environments(left, changed(here, gpu={**gpu, "devices": other}))) == []
    lowered = [{**card, "power_limit_w": 350.0}, {**card, "index": 1, "power_limit_w": 350.0}]
    found = diff_environments(left, changed(here, gpu={**gpu, "driver": "590", "devices": lowered, "visible": [{}]}))
    assert rows(found) == [
        ("gpu", "driver", "580", "590"),
        ("gpu", "visible to CUDA", 2, 1),
        ("gpu", "power_limit_w", 700.0, 350.0),
    ]
    fewer = diff_environments(left, changed(here, gpu={**gpu, "devices": [card]}))
    assert rows(fewer) == [("gpu", "devices", "2 x H100", "1 x H100")]


def test_what_one_side_could_not_read_is_unknown_not_different(here: dict[str, Any]) -> None:
    left = changed(here, env={"OMP_NUM_THREADS": "1"}, cgroup__cpu_limit=2.0)
    right = changed(here, env={"OMP_NUM_THREADS": None}, cgroup__cpu_limit=None, packages=None)
    right["why"] = {
        **here["why"],
        "env.OMP_NUM_THREADS": "redacted: x",
        "cgroup.cpu_limit": "denied: y",
        "packages": "timeout: z",
    }
    found = diff_environments(left, right)
    assert rows(found) == []
    assert {(one.name, one.side) for one in found.unknown} == {
        ("env.OMP_NUM_THREADS", "right"),
        ("cgroup.cpu_limit", "right"),
        ("packages", "right"),
    }


def test_patches_differ_by_file() -> None:
    first = b"# note\ndiff --git a/x y.py b/x y.py\n--- a/x y.py\n+++ b/x y.py\n@@ -1,1 +1,2 @@\n a\n+b\n"
    second = b"diff --git a/z.py b/z.py\nnew file mode 100644\n--- /dev/null\n+++ b/z.py\n@@ -0,0 +1,1 @@\n+c\n"
    assert list(patch_files(first + second)) == ["x y.py", "z.py"]
    assert b"".join(patch_files(first + second).values()) == first.removeprefix(b"# note\n") + second
    assert patch_files(b"# only notes\n") == {}
    found = diff_environments({}, {}, left_patch=first + second, right_patch=first.replace(b"+b", b"+bb"))
    assert rows(found) == [
        ("code", "changed file x y.py", "+1 -0", "+1 -0, others"),
        ("code", "changed file z.py", "+1 -0", None),
    ]


@pytest.mark.parametrize("broken", [{}, {"why": 3, "packages": [1], "gpu": "x", "env": [], "frameworks": {"torch": 1}}])
def test_snapshots_of_any_shape_can_be_compared(here: dict[str, Any], broken: dict[str, Any]) -> None:
    json.dumps(diff_environments(here, broken).to_dict())
    json.dumps(diff_environments(broken, here, is_same_program=False).to_dict())


# --- the command ----------------------------------------------------------------------------------------------------
PROGRAM = "import runstone, sys\nwith runstone.start_run(name=sys.argv[1]) as run:\n    run.log({'x': 1.0})\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a repository with two runs, `a` and `b`, between which something changed."""
    root = tmp_path / "project"
    root.mkdir()
    (root / "train.py").write_text(PROGRAM)
    for arguments in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=t", "-c", "user.email=t@x", "commit", "-qm", "x"],
    ):
        subprocess.run(["git", *arguments], cwd=root, check=True)

    def start(name: str, **variables: str) -> None:
        command = [sys.executable, "train.py", name]
        subprocess.run(command, cwd=root, check=True, env={**os.environ, **variables}, timeout=60)

    start("a")
    (root / "train.py").write_text(f"{PROGRAM}\n# more\n")
    start("b", OMP_NUM_THREADS="1")
    monkeypatch.chdir(root)
    return root


def test_two_runs_are_compared_in_a_table(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runstone_command(["env", "diff", "a", "b"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Code  3 differ, ")
    assert "changed file train.py  -           +2 -0" in out
    assert "OMP_NUM_THREADS  -  1" in out
    assert "The same: " in out
    assert not any(line.endswith(" ") for line in out.splitlines())
    assert runstone_command(["env", "diff", "a", "b", "--exit-code"]) == 1


def test_a_run_is_compared_with_this_machine(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runstone_command(["env", "diff", "b", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["left"]["name"] == "b"
    assert found["right"] is None
    assert found["groups"]["code"]["differences"] == []
    variables = found["groups"]["variables"]["differences"]
    assert {"name": "OMP_NUM_THREADS", "kind": "removed", "left": "1", "right": None} in variables


def test_a_run_equals_itself(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runstone_command(["env", "diff", "a", "a", "--exit-code"]) == 0
    assert "the same in everything" in capsys.readouterr().out


def test_the_other_forms_of_env_still_work(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runstone_command(["env", "a"]) == 0
    assert capsys.readouterr().out.startswith("Run a  ")
    for arguments in (["env", "a", "--json"], ["env", "--json", "a"]):
        assert runstone_command(arguments) == 0
        assert json.loads(capsys.readouterr().out)["process"]["argv"][-1] == "a"
    assert runstone_command(["env", "--help"]) == 0
    assert "diff" in capsys.readouterr().out
    assert runstone_command(["env", "nobody"]) == 1
    assert "no run" in capsys.readouterr().err


def test_a_run_without_environment_is_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with runstone.start_run(workspace=home, name="bare", environment=False):
        pass
    assert runstone_command(["env", "diff", "bare"]) == 1
    assert "run 'bare' has no environment" in capsys.readouterr().err
