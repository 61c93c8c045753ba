"""Surroundings in which a store is hard to find or to make (F37): clear words, and training goes on."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import runstone
from runstone import Status

TRAIN = r"""
run = runstone.start_run(run_id="one", on_error="warn", name="Gr\u00f6\u00dfe \u6a21\U0001f600")
run.log_params({"pfad": "\u00fc"})
for step in range(100):
    run.log({"Verlust/gr\u00f6\u00dfe": float(step)}, step=step)
run.finish()
print(run.is_finished, run.dropped)
"""


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder in which nothing can be written, by nobody."""
    place = tmp_path / "read only"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", place], capture_output=True, check=False).returncode:
        pytest.skip("may not mount a file system here")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def check(info: runstone.RunInfo) -> None:
    assert info.status is Status.FINISHED
    assert info.series("Verlust/größe").value.tolist() == list(range(100))
    assert (info.name, info.params) == ("Größe 模😀", {"pfad": "ü"})
    assert info.environment is not None


@pytest.mark.parametrize(
    "environment",
    [
        {"HOME": "/nonexistent"},
        {"HOME": ""},
        {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PATH": ""},
        {"TMPDIR": "/nonexistent"},
    ],
    ids=["no such home", "no home", "language C", "no path", "no folder for temporary files"],
)
def test_odd_surroundings_change_nothing_that_is_recorded(
    run_program: Callable[..., Any], only_run: Callable[[], runstone.RunInfo], environment: dict[str, str]
) -> None:
    program = "import runstone" + TRAIN
    ended = run_program(program, **environment)
    assert (ended.code, ended.output, ended.errors) == (0, "True 0\n", "")
    check(only_run())


def test_home_and_temporary_files_on_a_full_or_read_only_disk_do_not_matter(
    run_program: Callable[..., Any], only_run: Callable[[], runstone.RunInfo], read_only: Path
) -> None:
    environment = {"HOME": str(read_only), "TMPDIR": str(read_only), "XDG_CACHE_HOME": str(read_only)}
    ended = run_program("import runstone" + TRAIN, **environment)
    assert (ended.code, ended.output, ended.errors) == (0, "True 0\n", "")
    check(only_run())


@pytest.mark.parametrize("where", ["read only", "deleted"])
def test_working_folder_that_takes_no_store_is_told_and_training_goes_on(
    run_program: Callable[..., Any], read_only: Path, where: str
) -> None:
    go = f"os.chdir({str(read_only)!r})" if where == "read only" else "os.mkdir('x'); os.chdir('x'); os.rmdir('../x')"
    ended = run_program(f"import os, runstone\n{go}" + TRAIN, RUNSTONE_WORKSPACE="")
    assert ended.code == 0, ended.errors
    assert ended.output == "True 100\n"
    told = [line for line in ended.errors.splitlines() if "TrackingWarning" in line]
    assert len(told) == 1
    assert "the run cannot be recorded: " in told[0]
    assert told[0].startswith("<string>:")


def test_working_folder_that_is_deleted_does_not_matter_to_a_store_elsewhere(
    run_program: Callable[..., Any], only_run: Callable[[], runstone.RunInfo]
) -> None:
    ended = run_program("import os, runstone\nos.mkdir('x'); os.chdir('x'); os.rmdir('../x')" + TRAIN)
    assert (ended.code, ended.output, ended.errors) == (0, "True 0\n", "")
    check(only_run())


def test_store_named_from_a_home_that_nobody_knows_is_told_and_training_goes_on(
    run_program: Callable[..., Any],
) -> None:
    program = (
        "import os, runstone\nos.setuid(54321)\ndel os.environ['HOME']" + TRAIN
    )  # a user without an entry, as in many containers
    ended = run_program(program, RUNSTONE_WORKSPACE="~/store")
    assert ended.code == 0, ended.errors
    assert ended.output == "True 100\n"
    assert "the run cannot be recorded: " in ended.errors
