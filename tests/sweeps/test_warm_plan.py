"""Whether trials start warm, and what is imported for them: read from the text of their program."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from runstone import InvalidConfig
from runstone_sweeps.executors import warm
from runstone_sweeps.processes.imports import find_imports
from runstone_sweeps.processes.invocation import Invocation, matters_at_import, read_invocation

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="warm starts are for Linux")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a folder of installed packages: heavy, with a part, and light."""
    folder = tmp_path / "site-packages"
    for name in ("heavy/__init__", "heavy/part/__init__", "heavy/part/deep", "light", "mpi4py"):
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("raise AssertionError('executed')")
    return folder


def found(tmp_path: Path, text: str) -> tuple[tuple[str, ...], str | None]:
    script = tmp_path / "train.py"
    script.write_text(text)
    return find_imports(script, folders=[str(tmp_path), str(tmp_path / "site-packages"), *sys.path])


def modules(tmp_path: Path, text: str) -> tuple[str, ...]:
    names, reason = found(tmp_path, text)
    assert reason is None
    return names


def test_installed_modules_are_found_and_nothing_is_executed(tmp_path: Path, site: Path) -> None:
    assert modules(tmp_path, "import os, json, light\nimport heavy.part.deep as d\nfrom heavy import part, x\n") == (
        *("light", "heavy.part.deep", "heavy", "heavy:part", "heavy:x"),
    )


def test_imports_inside_try_if_with_and_classes_count_and_those_of_functions_do_not(tmp_path: Path, site: Path) -> None:
    text = """
try:
    import light
except ImportError:
    import heavy
if True:
    with open("x") as f:
        class A:
            import heavy.part
def main():
    import mpi4py
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import heavy.part.deep
"""
    assert modules(tmp_path, text) == ("light", "heavy", "heavy.part")


def test_modules_of_the_user_are_searched_and_never_named(tmp_path: Path, site: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("from .net import Net\nfrom . import loss")
    (tmp_path / "models" / "net.py").write_text("import heavy\nimport models.net\nfrom ..nothing import x")
    (tmp_path / "models" / "loss.py").write_text("import heavy.part")
    (tmp_path / "own.py").write_text("import light, train")
    assert modules(tmp_path, "import own\nfrom models import Net\nimport missing") == ("light", "heavy", "heavy.part")


def test_a_file_beside_the_script_that_hides_an_installed_module_is_the_users(tmp_path: Path, site: Path) -> None:
    (tmp_path / "heavy.py").write_text("import light")
    assert modules(tmp_path, "import heavy") == ("light",)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import os\nos.environ['OMP_NUM_THREADS'] = '2'\nimport heavy", "train.py sets OMP_NUM_THREADS, line 2"),
        (
            "import os\nos.environ.setdefault('KERAS_BACKEND', 'jax')\nimport heavy",
            "train.py sets KERAS_BACKEND, line 2",
        ),
        (
            "import heavy, os\ndef f(): os.putenv('CUDA_LAUNCH_BLOCKING', '1')",
            "train.py sets CUDA_LAUNCH_BLOCKING, line 2",
        ),
        (
            "from os import environ\nenviron.update(A='b')\nimport heavy",
            "sets environment variables, line 2, before it imports heavy",
        ),
        ("from dotenv import load_dotenv\nload_dotenv()\nimport heavy", "sets environment variables, line 2,"),
        ("import sys\nsys.path.insert(0, 'x')\nimport heavy", "changes sys.path, line 2, before it imports heavy"),
        ("import sys\nsys.path = ['x']\nimport heavy", "changes sys.path, line 2,"),
        ("import mpi4py", "mpi4py starts MPI when it is imported"),
    ],
)
def test_what_must_come_before_an_import_makes_trials_start_cold(
    tmp_path: Path, site: Path, text: str, reason: str
) -> None:
    _, told = found(tmp_path, text)
    assert told is not None
    assert reason in told


@pytest.mark.parametrize(
    "text",
    [
        "import heavy, os, sys\nos.environ.update(A='b')\nsys.path.insert(0, 'x')",
        "import os\nos.environ['MASTER_PORT'] = '1'\nimport heavy",
        "import os\nos.environ['CUDA_VISIBLE_DEVICES'] = '1'\nimport heavy",
        "import sys\nsys.path.append('x')\nimport heavy",
        "import os\nprint(os.environ['OMP_NUM_THREADS'], os.environ.get('MKL_X'))\nimport heavy",
        "import os\nsettings = {}\nsettings.update(a=1)\nimport heavy",
    ],
)
def test_what_does_no_harm_does_not(tmp_path: Path, site: Path, text: str) -> None:
    assert modules(tmp_path, text) == ("heavy",)


@pytest.mark.parametrize("text", ["import (", "\0", "# coding: nonsense\nimport heavy"])
def test_a_script_that_cannot_be_read_has_no_imports(tmp_path: Path, text: str) -> None:
    assert modules(tmp_path, text) == ()


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ("python a.py -u x", ((), "script", "a.py", ("-u", "x"))),
        ("python -u -O a.py", (("-u", "-O"), "script", "a.py", ())),
        ("python -W ignore -Xdev -m pkg.mod --x", (("-Wignore", "-Xdev"), "module", "pkg.mod", ("--x",))),
        ("python -uB -X utf8 a.py", (("-uB", "-Xutf8"), "script", "a.py", ())),
        *((words, None) for words in ("python", "python -c x", "python -i a.py", "python - x", "python -v a.py")),
        *((words, None) for words in ("python -m", "python -Ximporttime a.py", "python --version", "python -W")),
    ],
)
def test_a_command_line_of_python_is_taken_apart(argv: str, told: tuple[Any, ...] | None) -> None:
    invocation = read_invocation(argv.split())
    assert invocation == (None if told is None else Invocation("python", *told))


def test_variables_that_are_read_at_import_are_told_from_others() -> None:
    assert [matters_at_import(name) for name in ("OMP_NUM_THREADS", "PYTHONPATH", "KERAS_BACKEND", "LD_PRELOAD")] == [
        True
    ] * 4
    assert [matters_at_import(name) for name in ("CUDA_VISIBLE_DEVICES", "RUNSTONE_TRIAL", "HOME", "MASTER_PORT")] == [
        False
    ] * 4


def plan(tmp_path: Path, **told: Any) -> warm.WarmPlan:
    (tmp_path / "train.py").write_text("import numpy, csv\nfrom runstone import start_run\n")
    defaults: dict[str, Any] = {"start": "auto", "working_dir": tmp_path, "environment": {"PATH": "/usr/bin:/bin"}}
    return warm.plan(**{**defaults, **told})


WORKS: list[dict[str, Any]] = [
    {"script": "train.py"},
    {"script": "train.py", "command": ["${env}", "${interpreter}", "-u", "${program}", "${args}"]},
    {"command": [sys.executable, "train.py", "--lr", "${lr}"]},
    {"command": ["python", "-m", "train"], "environment": {"PATH": str(Path(sys.executable).parent)}},
]


@pytest.mark.parametrize("told", WORKS)
def test_python_scripts_start_warm_with_what_they_import(tmp_path: Path, told: dict[str, Any]) -> None:
    assert plan(tmp_path, **told) == warm.WarmPlan(True, ("numpy", "runstone", "runstone:start_run"), None)


def test_functions_start_warm_with_what_their_module_imports(tmp_path: Path) -> None:
    made = plan(tmp_path, function="train:objective")
    assert made == warm.WarmPlan(True, ("runstone", "numpy", "runstone:start_run"), None)


COLD: list[tuple[dict[str, Any], str]] = [
    ({"script": "run.sh"}, "run.sh is not a Python script"),
    ({"script": "gone.py"}, "gone.py is not there"),
    ({"function": "gone:f"}, "gone:f is not there"),
    ({"command": ["torchrun", "train.py"]}, "torchrun is not this Python"),
    ({"command": ["mpirun", "-n", "2", "python", "train.py"]}, "mpirun is not this Python"),
    ({"command": ["/usr/bin/env", "A=b", sys.executable, "train.py"]}, "/usr/bin/env is not this Python"),
    ({"command": [sys.executable, "-c", "print(1)"]}, "a fork cannot stand in"),
    ({"command": [sys.executable, "${lr}.py"]}, "the params choose the script"),
    (
        {"command": [sys.executable, "-m", "accelerate.commands.launch", "train.py"]},
        "accelerate.commands.launch starts",
    ),
    ({"script": "train.py", "environment": {"COVERAGE_PROCESS_START": "x"}}, "COVERAGE_PROCESS_START is set"),
]


@pytest.mark.parametrize(("told", "reason"), COLD)
def test_other_commands_start_cold_and_say_why(tmp_path: Path, told: dict[str, Any], reason: str) -> None:
    made = plan(tmp_path, **told)
    assert not made.is_warm
    assert reason in str(made.reason)
    with pytest.raises(InvalidConfig, match="start: warm is not possible"):
        plan(tmp_path, **told, start="warm")


def test_start_cold_is_obeyed_without_a_reason(tmp_path: Path) -> None:
    assert plan(tmp_path, script="train.py", start="cold") == warm.WarmPlan(False, (), None)


@pytest.mark.parametrize(("start", "is_warm"), [("auto", False), ("warm", True)])
def test_start_warm_overrides_what_is_only_feared(tmp_path: Path, start: str, is_warm: bool) -> None:
    (tmp_path / "sets.py").write_text("import os\nos.environ['OMP_NUM_THREADS'] = '1'\nimport numpy")
    assert plan(tmp_path, script="sets.py", start=start).is_warm == is_warm


@pytest.mark.parametrize("preload", [("torch", "torch._dynamo"), ["numpy"]])
def test_modules_that_the_config_names_are_imported_instead(tmp_path: Path, preload: Sequence[str]) -> None:
    assert plan(tmp_path, script="train.py", preload=preload).preload == tuple(preload)
