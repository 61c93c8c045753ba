"""`runstone import`: what it says, and that bad input gives words and no traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from runstone.cli.main import run
from runstone.importers import TOOLS
from runstone.workspace import open_workspace

Unpack = Callable[[str], Path]


@pytest.fixture
def command(home: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(["-w", str(home), "import", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


Command = Callable[..., tuple[int, str, str]]


def test_the_end_tells_counts_in_and_out_and_what_was_lost(command: Command, golden: Unpack) -> None:
    code, out, _err = command(str(golden("wandb")))
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert ["runs", "2", "2", "2"] in lines
    assert any(line[:1] == ["points"] and line[1] == line[2] == line[3] for line in lines)
    assert "not carried over: " in out
    assert "definition of a metric 1" in out


def test_a_tool_can_be_named_and_a_project_given(command: Command, golden: Unpack, home: Path) -> None:
    code, _out, _err = command("dvclive", str(golden("dvclive")), "--project", "mine")
    assert code == 0
    assert [info.project for info in open_workspace(home).runs()] == ["mine"]


def test_a_dry_run_says_that_nothing_was_written(command: Command, golden: Unpack, home: Path) -> None:
    code, out, _err = command("mlflow", str(golden("mlflow_db")), "--dry-run")
    assert code == 0
    assert "nothing was written" in out
    assert ["versions", "2"] in [line.split() for line in out.splitlines()]
    assert len(open_workspace(home).runs()) == 0


def test_json_has_every_count(command: Command, golden: Unpack) -> None:
    code, out, _err = command("mlflow", str(golden("mlflow_db")), "--json")
    assert code == 0
    told = json.loads(out)
    assert (told["tool"], len(told["runs"]), told["models"][0]["held"]) == ("mlflow", 4, 2)
    assert all(one["found"] == one["held"] for one in told["runs"])


def test_tensorboard_is_found_out_too(command: Command, tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    from runstone.tensorboard.protos import Event, Summary
    from runstone.tensorboard.records import framed

    event = Event(step=1, wall_time=1.7e9, summary=Summary(value=[Summary.Value(tag="loss", simple_value=0.5)]))
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "events.out.tfevents.1").write_bytes(framed(event.SerializeToString()))
    code, out, _err = command(str(tmp_path / "logs"))
    assert code == 0
    assert "1 point in the event files, 1 added, 1 in the runs" in out


@pytest.mark.parametrize("tool", [*TOOLS, ""])
def test_what_is_no_store_is_refused_in_words(tool: str, command: Command, tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("this is no store of anything")
    empty = tmp_path / "empty"
    empty.mkdir()
    for path in (text, empty, tmp_path / "gone"):
        code, _out, err = command(*([tool] if tool else []), str(path))
        assert code == 1, (tool, path)
        assert err.startswith("error: "), (tool, path)
        assert "Traceback" not in err


@pytest.mark.parametrize("tool", [tool for tool in TOOLS if tool != "csv"])  # any text is a table
def test_junk_with_the_right_name_is_refused_in_words(tool: str, command: Command, tmp_path: Path) -> None:
    names = {"wandb": "run-a.wandb", "mlflow": "mlflow.db", "trackio": "p.db", "neptune": "r_part_0.parquet",
             "clearml": "s.zip"}  # fmt: skip
    path = tmp_path / names.get(tool, "junk")
    path.write_bytes(bytes(range(256)) * 10)
    code, _out, err = command(tool, str(path))
    assert (code, err[:7]) == (1, "error: ")


def test_a_tool_that_is_not_there_is_named(command: Command) -> None:
    code, _out, err = command("wandbb", "somewhere/")
    assert code != 0
    assert "wandbb" in err


def test_names_from_a_store_cannot_steer_the_terminal(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("run,step,metric,value\n\x1b[2Jevil,0,loss,1\n")
    code, out, _err = command("csv", str(path))
    assert code == 0
    assert "\x1b" not in out
