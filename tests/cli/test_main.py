"""The command itself: help, errors, exit codes, pipes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import runstone
from runstone.cli.main import run


def called(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "runstone.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)  # type: ignore[call-overload, no-any-return]


def test_help_loads_no_heavy_module() -> None:
    code = (
        "import sys; from runstone.cli.main import run; assert run(['--help']) == 0; "
        "print(sorted({'rich', 'numpy', 'sqlalchemy', 'psutil', 'pandas', 'torch'} & sys.modules.keys()))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert out.startswith("Usage: runstone ")
    assert out.endswith("[]\n")
    for command in ("env", "runs", "compare"):
        assert f"\n  {command} " in out


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"runstone {runstone.__version__}\n"


@pytest.mark.parametrize("arguments", [["runs"], ["runs", "list"], ["runs", "show"], ["compare"], ["runs", "delete"]])
def test_every_command_explains_itself(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*arguments, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Usage: runstone {' '.join(arguments)} ")
    assert "--workspace" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rnus"], "there is no command 'rnus'; did you mean 'runs'?"),
        (["runs", "lst"], "there is no command 'lst'; did you mean 'list'?"),
        (["runs", "zzzzz"], "there are list, show, rename, tag"),
        (["runs", "list", "--ordr-by", "x"], "--ordr-by"),
        (["runs", "list", "--limit", "-1"], "--limit"),
        (["runs", "list", "--json", "--csv"], "exclude each other"),
        (["runs", "show"], "Missing argument 'RUN'"),
        (["runs", "delete"], "name runs, or choose them by --filter"),
        (["compare"], "name two runs or more"),
    ],
)
def test_a_wrong_command_line_is_explained_and_exits_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert words in told.err
    assert "error: " in told.err
    assert "Traceback" not in told.err


def test_a_filter_that_does_not_parse_exits_2_with_a_caret(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runstone.ensure_workspace(home)
    assert run(["runs", "list", "metrics.loss <"]) == 2
    assert capsys.readouterr().err == ("error: expected a value, found the end\n  metrics.loss <\n                ^\n")


@pytest.mark.parametrize("arguments", [["runs", "list"], ["runs", "show", "x"], ["compare", "a", "b"]])
def test_no_workspace_exits_1(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--workspace", str(tmp_path / "nowhere"), *arguments]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert "is not a workspace" in told


def test_the_workspace_option_counts_wherever_it_stands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = tmp_path / "here"
    with runstone.start_run(name="found", workspace=here, environment=False):
        pass
    for arguments in (
        ["-w", str(here), "runs", "list"],
        ["runs", "-w", str(here), "list"],
        ["runs", "list", "--workspace", str(here)],
    ):
        assert run(arguments) == 0
        assert "found" in capsys.readouterr().out


def test_the_end_of_a_pipe_is_no_error(home: Path) -> None:
    for number in range(3):
        with runstone.start_run(name=f"run-{number}", params={"x": "y" * 60_000}, workspace=home, environment=False):
            pass
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "runstone.cli.main", "-w", str(home), "runs", "list", "--json"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(writer)
    assert done.returncode == 141
    assert done.stderr == ""


def test_an_interrupt_exits_130(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    runstone.ensure_workspace(home)
    with runstone.start_run(workspace=home, environment=False):
        pass
    monkeypatch.setattr("time.time_ns", interrupted)
    assert run(["runs", "list"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_errors_cannot_steer_the_terminal(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runstone.ensure_workspace(home)
    for arguments in (["runs", "show", "\x1b[31mx"], ["\x1b[2J"], ["runs", "list", "--columns", "\x1b[2J"]):
        assert run(arguments) in (1, 2)
        assert "\x1b[2J" not in capsys.readouterr().err


def test_the_installed_command_runs(home: Path) -> None:
    with runstone.start_run(name="amber", workspace=home, environment=False):
        pass
    done = called("runs", "list", env={**os.environ, "RUNSTONE_WORKSPACE": str(home)})
    assert done.returncode == 0
    assert "amber" in done.stdout
    assert done.stderr == ""
