"""The second look at the environment: what a program imports and sets after `start_run`."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runstone.capture import start_background
from runstone.environments import as_used, changes_since_start, diff_environments

_IMPORTS_LATER = """
import os, sys
from pathlib import Path
from runstone.capture import start_background
assert "numpy" not in sys.modules
work = start_background(Path(sys.argv[1]), "w", second_look_s={second_look_s})
assert work.join(20)
import numpy
os.environ["OMP_NUM_THREADS"] = "3"
os.environ["HF_HOME"] = "/data?token=hf_aB3dE5fG7hI9jK1lM3nO5pQ7rS9tU1vW3x"
{then}
assert work.error is None, work.error
"""
_LOOK = "work.look_again(); assert work.join(20)"


def _after(python: Callable[..., Any], folder: Path, then: str = _LOOK, second_look_s: float = 60.0) -> dict[str, Any]:
    done = python(_IMPORTS_LATER.format(then=then, second_look_s=second_look_s), str(folder))
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((folder / "environment.w.json").read_bytes())
    return found


def test_what_was_imported_and_set_later_is_added(python: Callable[..., Any], tmp_path: Path) -> None:
    found = _after(python, tmp_path)
    assert found["frameworks"]["numpy"] is None
    assert found["why"]["frameworks.numpy"] == "absent: not imported"
    later = found["later"]
    assert later["captured_at"] > found["captured_at"]
    assert later["frameworks"]["numpy"]["version"]
    assert later["env"]["OMP_NUM_THREADS"] == "3"
    assert later["why"]["frameworks.torch"] == "absent: not imported"
    assert "hf_aB3dE5" not in json.dumps(found)  # what comes later is redacted, too
    assert not {"packages", "gpu", "git"} & set(later)  # as they were


def test_what_was_used_is_what_is_compared(python: Callable[..., Any], tmp_path: Path) -> None:
    found = _after(python, tmp_path)
    used = as_used(found)
    assert used["frameworks"]["numpy"]["version"]
    assert "frameworks.numpy" not in used["why"]
    assert "later" not in used
    assert used["python"] == found["python"]
    assert diff_environments(found, used).is_equal
    changes = {change.name: (change.left, change.right) for change in changes_since_start(found)}
    assert changes["OMP_NUM_THREADS"] == (None, "3")
    assert changes["numpy"] == ("not loaded", f"loaded, {used['frameworks']['numpy']['version']}")


def test_nothing_that_changed_is_nothing_more(tmp_path: Path) -> None:
    work = start_background(tmp_path, "w")
    assert work.join()
    before = json.loads((tmp_path / "environment.w.json").read_bytes())
    assert "later" not in before
    work.look_again()
    assert work.join()
    found = json.loads((tmp_path / "environment.w.json").read_bytes())
    assert set(found.pop("later")) == {"captured_at", "duration_ms", "why"}
    assert found == before
    assert changes_since_start(found) == ()


def test_it_comes_by_itself_after_a_while(python: Callable[..., Any], tmp_path: Path) -> None:
    wait = (
        "import json, time; end = time.monotonic() + 20\n"
        "while 'later' not in json.loads(Path(sys.argv[1], 'environment.w.json').read_bytes()): "
        "assert time.monotonic() < end"
    )
    assert _after(python, tmp_path, wait, second_look_s=1.0)["later"]["frameworks"]["numpy"]


def test_nobody_waits_for_it_before_it_is_due(tmp_path: Path) -> None:
    work = start_background(tmp_path, "w")
    assert work.join()
    began = time.monotonic()
    assert work.join(10)
    assert time.monotonic() - began < 1


def test_a_run_that_ends_has_it_when_the_process_is_gone(tmp_path: Path) -> None:
    program = (
        "import runstone\n"
        "import time\n"
        "with runstone.start_run(workspace='ws', run_id='r', system_metrics=False) as run:\n"
        "    end = time.monotonic() + 30\n"
        "    while not any(run.path.glob('environment.*.json')):\n"
        "        assert time.monotonic() < end\n"
        "        time.sleep(0.01)\n"
        "    import numpy\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=60)
    (file,) = (tmp_path / "ws" / "runs" / "default" / "r").glob("environment.*.json")
    found = json.loads(file.read_bytes())
    assert found["frameworks"]["numpy"] is None
    assert found["later"]["frameworks"]["numpy"]["version"]


@pytest.mark.heavy
def test_flags_of_torch_are_those_that_it_ran_with(python: Callable[..., Any], tmp_path: Path) -> None:
    pytest.importorskip("torch")
    program = """
import sys
from pathlib import Path
from runstone.capture import start_background
work = start_background(Path(sys.argv[1]), "w")
assert work.join(20)
import torch
torch.manual_seed(1234)
torch.use_deterministic_algorithms(True)
work.look_again()
assert work.join(20)
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "environment.w.json").read_bytes())
    assert found["frameworks"]["torch"] is None
    torch = as_used(found)["frameworks"]["torch"]
    assert (torch["seed"], torch["is_deterministic"]) == (1234, True)
    assert as_used(found)["blas"]["libraries"]


def test_snapshot_and_patch_are_for_their_user_only(tmp_path: Path) -> None:
    work = start_background(tmp_path, "w")
    assert work.join()
    work._keep_patch(b"diff --git a/x b/x\n")
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["code.w.patch", "environment.w.json"]
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600, 0o600]
