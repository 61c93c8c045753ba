"""`runstone runs` and `runstone compare`: what people read, and what programs read."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import runstone
from runstone.cli import _output
from runstone.cli.main import run
from runstone.comparison import compare


@pytest.fixture
def home(home: Path) -> Path:
    """A workspace with four runs; the names try to steer the terminal and to pass for markup."""
    for number, name in enumerate(("amber", "[bold]brass[/bold]", "copper\x1b[31m\u202e", "dusk")):
        try:
            with runstone.start_run(
                project="digits" if number < 3 else "other",
                name=name,
                params={"lr": 10.0**-number, "model": {"name": "mlp", "layers": [64, 32]}, "amp": bool(number % 2)},
                tags={"stage": "dev", "[red]evil": "\x1b]0;owned\x07"},
                notes="first line\nsecond \x1b[2Jline",
                group="sweep-1" if number == 1 else None,
                workspace=home,
                environment=number == 0,
            ) as started:
                for step in range(10):
                    metrics = {"train/loss": 1.0 / (step + 1) + number / 10, "val/acc": step / 10, "nan": float("nan")}
                    started.log(metrics, step=step)
                if number == 0:
                    (home / "weights.bin").write_bytes(b"x" * 3000)
                    started.log_artifact(home / "weights.bin")
                    started.read()  # waits for the environment snapshot
                if number == 2:
                    raise ValueError("bad [shape]\x1b[31m")
        except ValueError:
            pass
    return home


def output(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert run(list(arguments)) == 0
    return capsys.readouterr().out


def on_terminal(home: Path, *arguments: str, columns: int = 100) -> str:
    """Run a command on a pseudo terminal and return what it drew, without colours."""
    main, replica = pty.openpty()
    subprocess.run(["stty", "cols", str(columns), "rows", "50"], stdin=replica, check=True)
    environment = {**os.environ, "TERM": "xterm-256color", "RUNSTONE_WORKSPACE": str(home)}
    environment.pop("COLUMNS", None)
    command = [sys.executable, "-m", "runstone.cli.main", *arguments]
    with subprocess.Popen(command, stdin=replica, stdout=replica, stderr=replica, env=environment) as process:
        os.close(replica)
        drawn = b""
        while True:
            try:
                part = os.read(main, 65536)
            except OSError:  # how Linux says that the other side is closed
                break
            if not part:
                break
            drawn += part
        process.wait(timeout=60)
    os.close(main)
    return re.sub(r"\x1b\[[0-9;]*m", "", drawn.decode()).replace("\r\n", "\n")


# --- list -------------------------------------------------------------------------------------------------------------


def test_a_list_in_a_pipe_is_plain_and_complete(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = output("runs", "list", "--order-by", "params.lr desc", capsys=capsys)
    header, *rows = out.splitlines()
    assert header.split() == [
        "id", "name", "project", "status", "started_at", "duration",
        "params.lr", "params.amp", "metrics.train/loss", "metrics.nan", "metrics.val/acc",
    ]  # fmt: skip
    assert len(rows) == 4
    assert rows[0].split()[1:4] == ["amber", "digits", "finished"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", rows[0].split()[4])
    assert "[bold]brass[/bold]" in rows[1]
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert not any(line != line.rstrip() for line in out.splitlines())


def test_a_list_on_a_terminal_fits_its_width_and_names_what_it_hides(home: Path) -> None:
    drawn = on_terminal(home, "runs", "list", "--order-by", "metrics.train/loss.min", columns=80)
    header, rule, *rest = drawn.splitlines()
    assert max(map(_output.width_of, drawn.splitlines())) <= 80
    assert header.split()[:2] == ["id", "name"]
    assert "train/loss.min" in header
    assert set(rule.strip()) == {"─"}
    assert "amber" in rest[0]
    assert "✓ finished" in rest[0]
    assert "✗ failed" in drawn
    assert "4 runs" in drawn
    assert "not shown for want of width: started_at, duration" in drawn
    assert "copper␛[31m" in drawn


def test_a_list_shows_the_fields_that_were_asked_about(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = output("runs", "list", "tags.stage = 'dev' and metrics.val/acc.max > 0.5", "-p", "other", capsys=capsys)
    header, row = out.splitlines()
    assert {"tags.stage", "metrics.val/acc.max"} <= set(header.split())
    assert "dusk" in row


def test_columns_can_be_chosen(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = output("runs", "list", "--columns", "name, metrics.train/loss.min, params.lr", "-n", "1", capsys=capsys)
    assert out.split() == ["name", "metrics.train/loss.min", "params.lr", "dusk", "0.4", "0.001"]
    assert run(["runs", "list", "--columns", "nme"]) == 2
    assert "did you mean 'name'" in capsys.readouterr().err


def test_json_holds_all_but_the_points(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(output("runs", "list", "--json", "--order-by", "started_at", capsys=capsys))
    assert [one["status"] for one in found] == ["finished", "finished", "failed", "finished"]
    assert found[1]["group"] == "sweep-1"
    assert found[2]["name"] == "copper\x1b[31m\u202e"
    assert found[2]["failure"].startswith("ValueError: bad [shape]")
    assert found[0]["params"]["model"] == {"name": "mlp", "layers": [64, 32]}
    assert found[0]["metrics"]["val/acc"]["max_step"] == 9
    assert found[0]["metrics"]["nan"]["last"] == "nan"
    assert json.loads(output("runs", "list", "name = 'x'", "--json", capsys=capsys)) == []


def test_csv_has_one_line_a_run_with_all_digits(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.DictReader(io.StringIO(output("runs", "list", "--csv", "--order-by", "started_at", capsys=capsys))))
    assert len(rows) == 4
    assert rows[1]["metrics.train/loss"] == repr(1 / 10 + 1 / 10)
    assert rows[1]["params.model.layers"] == "[64, 32]"
    chosen = output("runs", "list", "--csv", "--columns", "name,metrics.val/acc.max", "-n", "1", capsys=capsys)
    assert chosen == "name,metrics.val/acc.max\ndusk,0.9\n"


def test_an_empty_list_says_why(home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for arguments, words in (
        (["runs", "list", "name = 'x'"], "none of 4 runs matches"),
        (["runs", "list", "--deleted"], "no deleted runs"),
        (["-w", str(runstone.ensure_workspace(tmp_path / "new").path), "runs", "list"], "no runs yet in"),
    ):
        assert run(arguments) == 0
        told = capsys.readouterr()
        assert told.out == ""
        assert words in told.err


def test_a_project_may_have_any_name(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "it's a \\ 'project' or 1=1"
    with runstone.start_run(project=name, name="here", workspace=home, environment=False):
        pass
    assert "here" in output("runs", "list", "name = 'a' or name = 'here'", "--project", name, capsys=capsys)
    assert run(["runs", "list", "name = ", "--project", name]) == 2
    assert "  name = \n" in capsys.readouterr().err


# --- show -------------------------------------------------------------------------------------------------------------


def test_show_prints_every_part_of_a_run(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = output("runs", "show", "amber", capsys=capsys)
    assert out.startswith("✓ finished  amber  digits\n")
    for words in (
        "Params  4",
        "model.layers  [64, 32]",
        "Tags  2",
        "Metrics  3",
        "Artifacts  1",
        "weights.bin",
        "2.9 KiB",
    ):
        assert words in out
    assert re.search(r"train/loss\s+0\.1\s+0\.1 @9\s+1 @0", out)
    assert "10 (10 nan)" in out
    assert "Environment\n" in out
    assert "first line\n  second ␛[2Jline\n" in out
    assert "\x1b" not in out


def test_show_prints_the_failure_with_its_traceback(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (failed,) = runstone.open_workspace(home).runs("status = 'failed'")
    out = output("runs", "show", failed.id, capsys=capsys)
    assert "ValueError: bad [shape]␛[31m" in out
    assert "Traceback (most recent call last):" in out
    assert "\x1b" not in out


def test_show_prints_attempts_of_a_resumed_run(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    amber = runstone.open_workspace(home).run("amber")
    with runstone.start_run(run_id=amber.id, resume=True, workspace=home, environment=False) as resumed:
        resumed.rewind(5)
    out = output("runs", "show", "amber", capsys=capsys)
    assert "Attempts  2" in out


def test_show_gives_json(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(output("runs", "show", "amber", "--json", capsys=capsys))
    assert found["status"] == "finished"
    assert found["metrics"]["train/loss"]["min_step"] == 9
    assert found["artifacts"][0]["size_bytes"] == 3000
    assert found["environment"]["python"]["version"]


def test_show_of_nothing_exits_1_and_names_the_nearest(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runs", "show", "ambr"]) == 1
    assert capsys.readouterr().err == "error: no run has the id or name 'ambr'; did you mean 'amber'?\n"


# --- delete, restore --------------------------------------------------------------------------------------------------


def test_delete_hides_and_restore_shows_again(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    amber = runstone.open_workspace(home).run("amber")
    files = sorted(path.name for path in amber.path.iterdir())
    told = output("runs", "delete", "amber", "dusk", capsys=capsys)
    assert f"deleted amber ({amber.id[-8:]}) of digits; `runstone runs restore {amber.id[-8:]}` brings it back" in told
    assert "amber" not in output("runs", "list", capsys=capsys)
    assert "amber" in output("runs", "list", "--deleted", capsys=capsys)
    assert set(files) <= {path.name for path in amber.path.iterdir()}
    assert "is deleted already" in output("runs", "delete", "amber", capsys=capsys)
    assert output("runs", "restore", amber.id[-8:], capsys=capsys).startswith("restored amber")
    assert "is not deleted" in output("runs", "restore", "amber", capsys=capsys)
    assert "amber" in output("runs", "list", capsys=capsys)


def test_a_typo_among_several_runs_deletes_none(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runs", "delete", "amber", "dsk"]) == 1
    assert "did you mean 'dusk'" in capsys.readouterr().err
    assert "amber" in output("runs", "list", capsys=capsys)


# --- compare ----------------------------------------------------------------------------------------------------------


def test_compare_shows_what_differs_and_how_runs_did(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = output("compare", "amber", "dusk", "--sort", "metrics.train/loss.min desc", capsys=capsys)
    lines = out.splitlines()
    assert lines[0].split()[:3] == ["#", "run", "id"]
    assert lines[1].split()[:2] == ["1", "dusk"]
    assert lines[2].split()[:2] == ["2", "amber"]
    assert "Params  2 differ, 2 equal" in out
    assert re.search(r"^lr\s+0\.001\s+1$", out, re.MULTILINE)
    assert re.search(r"^train/loss\s+last\s+0\.4\s+0\.1$", out, re.MULTILINE)
    assert re.search(r"^\s+min\s+0\.4 @9\s+0\.1 @9$", out, re.MULTILINE)
    assert "model.name" not in out
    assert "\x1b" not in out


def test_compare_takes_a_filter_and_many_runs_become_rows(home: Path) -> None:
    drawn = on_terminal(home, "compare", "--filter", "", "-s", "metrics.train/loss.min", columns=76)
    header, _rule, *rows = drawn.splitlines()
    assert header.split()[:4] == ["#", "run", "id", "status"]
    assert rows[0].split()[:2] == ["1", "amber"]
    assert "4 runs, last values" in drawn
    assert max(map(_output.width_of, drawn.splitlines())) <= 76


def test_compare_gives_json_and_markdown(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(output("compare", "amber", "dusk", "--json", capsys=capsys))
    ids = [one["id"] for one in found["runs"]]
    assert found["params"]["lr"] == {ids[0]: 1.0, ids[1]: 0.001}
    assert found["equal_params"] == 2
    assert found["metrics"]["nan"][ids[0]]["last"] == "nan"
    text = output("compare", "amber", "dusk", "--markdown", capsys=capsys)
    assert "| lr | 1 | 0.001 |\n" in text
    assert "### Params (2 equal)" in text
    assert "| train/loss min | 0.1 @ 9 | 0.4 @ 9 |" in text


def test_compare_of_one_run_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", "amber", "amber"]) == 2
    assert "two runs or more, got 1" in capsys.readouterr().err
    assert run(["compare", "amber", "dusk", "--sort", "loss"]) == 2
    assert "unknown field 'loss'" in capsys.readouterr().err


def test_a_comparison_is_a_value(home: Path) -> None:
    found = compare(runstone.open_workspace(home).runs(), order_by="params.lr")
    assert [one.name for one in found.runs][::3] == ["dusk", "amber"]
    assert found.ranking == pytest.approx((0.001, 0.01, 0.1, 1.0))
    assert {row.name for row in found.params} == {"lr", "amp"}
    assert found.equal_params == 2
    assert [row.name for row in found.metrics] == ["nan", "train/loss", "val/acc"]
    assert "\\[bold\\]brass\\[/bold\\]" in found.to_markdown()
    assert "\x1b" not in found.to_markdown()
    assert "<td>params</td>" not in found._repr_html_()
    assert repr(found).startswith("<Comparison of dusk, ")
    assert compare(found.runs).ranking == ()


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.02, "20 ms"),
        (0.1, "0.1 s"),
        (9.99, "10.0 s"),
        (42, "42 s"),
        (59.9, "1 min 00 s"),
        (185, "3 min 05 s"),
        (8040, "2 h 14 min"),
        (273600, "3 d 4 h"),
    ],
)
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert _output.duration(seconds) == text


def test_sizes_and_counts_are_written_for_people() -> None:
    assert [_output.size(n) for n in (0, 1023, 1024, 1536 * 1024)] == ["0 B", "1023 B", "1.0 KiB", "1.5 MiB"]
    assert [_output.counted(n, "run") for n in (0, 1, 1234)] == ["0 runs", "1 run", "1,234 runs"]


@pytest.mark.parametrize("text", ["\x1b[2J", "\x07", "\x9b31m", "\u202e", "\u2028", "\ud800", "\r", "\x00"])
def test_what_steers_a_terminal_becomes_visible(text: str) -> None:
    shown = _output.clean(f"a{text}b")
    assert shown.isprintable()
    assert shown.startswith("a")
    assert shown.endswith("b")


def test_names_in_any_script_stay_as_they_are() -> None:
    for text in ("Größe 語 😀 👩‍🔬", "עברית", "नमस्ते"):
        assert _output.clean(text) == text


def test_json_for_programs_holds_no_nan() -> None:
    value: Any = {"a": [float("nan"), float("-inf"), 1.5], "b": ("\ud800",)}
    assert json.loads(_output.to_json(value)) == {"a": ["nan", "-inf", 1.5], "b": ["?"]}
