"""The `sweep` command: what users type, see, and get wrong."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import runstone
from runstone_sweeps.cli import main as cli
from runstone_sweeps.config import load_spec
from runstone_sweeps.coordinator.session import run_session
from runstone_sweeps.record import SweepRecord
from runstone_sweeps.store import SweepFolder, Sweeps

from .conftest import Place


class Silent:
    """Watches and says nothing."""

    def on_event(self, event: object, record: object) -> None: ...

    def on_ending(self, reason: str, running: int, grace_s: float) -> None: ...

    def on_note(self, note: str) -> None: ...

    def on_tick(self, record: object, running: object) -> None: ...


def run_here(place: Place, config: Path) -> SweepFolder:
    """Run a sweep in this process, without a command line."""
    spec = load_spec(config)
    workspace = runstone.ensure_workspace(place.home)
    folder = Sweeps(workspace).create(spec, seed=spec.seed or 0)
    run_session(workspace, folder, spec, lambda *_: Silent())
    return folder


def call(*words: str, code: int = 0) -> str:
    """Call the command in this process and return what it printed."""
    shown = io.StringIO()
    before, sys.argv = sys.argv, ["sweep", *words]
    ended = 0
    try:
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
            cli.main()
    except SystemExit as end:
        ended = int(end.code or 0)
    finally:
        sys.argv = before
    assert ended == code, shown.getvalue()
    return shown.getvalue()


def test_check_says_what_a_sweep_would_do_and_makes_nothing(place: Place) -> None:
    out = call("check", str(place.config("  steps: {value: 2}\n")))
    assert "toy.yaml is right" in out
    assert "minimize loss" in out
    assert "train.py --x=" in out
    assert not place.home.exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["check", "nowhere.yaml"], 1, "nowhere.yaml: there is no such file"),
        (["run", "toy.yaml", "--trials", "0"], 2, "Invalid value for '--trials'"),
        (["run", "toy.yaml", "--timeout", "soon"], 2, "is 'soon'; write seconds, or a time such as 90s"),
        (["run"], 2, "Missing argument 'CONFIG'"),
        (["frobnicate"], 2, "No such command 'frobnicate'"),
        (["show", "nothing"], 1, "is not a workspace"),
    ],
)
def test_what_users_get_wrong_is_told_in_words(
    place: Place, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, message: str
) -> None:
    place.config()
    monkeypatch.chdir(place.path)
    out = call(*words, code=code)
    assert message in out
    assert "Traceback" not in out


def test_list_show_and_best_tell_of_a_sweep_by_id_part_or_name(place: Place) -> None:
    runstone.ensure_workspace(place.home)
    assert "no sweeps yet" in call("list")
    folder = run_here(place, place.config("  steps: {value: 2}\n", trials=5))
    out = call("list")
    assert folder.id in out
    assert "finished" in out
    assert "5 complete" in out
    best = folder.read().best
    assert best is not None
    for reference in (folder.id, folder.id[:10], folder.id[-6:], "toy"):
        assert f"trial {best.number}: loss" in call("best", reference)
    assert json.loads(call("best", "toy", "--json")) == best.params
    assert yaml.safe_load(call("best", "toy", "--yaml")) == best.params
    shown = [line.split() for line in call("show", "toy").splitlines()]
    rows = [line for line in shown if line[1:3] and line[1].isdigit() and line[2] == "complete"]
    assert [int(row[1]) for row in rows] == [trial.number for trial in folder.read().ranked()]
    out = call("show", "tyo", code=1)
    assert f"no sweep has the id or name 'tyo' in {place.home}; there is toy ({folder.id})" in out


def test_an_ambiguous_reference_lists_the_candidates(place: Place) -> None:
    folders = [run_here(place, place.config(trials=1, name="twice")) for _ in range(2)]
    out = call("show", "twice", code=1)
    assert all(folder.id in out for folder in folders)


def test_text_of_users_reaches_no_terminal_as_a_command(place: Place) -> None:
    config = place.config('  mode: {values: ["a\\e[31mred"]}\n', trials=1)
    config.write_text(config.read_text().replace("name: toy", 'name: "t\\e]0;x\\a[bold]"'))
    place.script("train.py", "raise ValueError('\\x1b[2Jgone [red]')\n")
    out = place.sweep("run", config, code=1)
    out += call("list") + call("show", place.folder.id)
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "[bold]" in out
    assert "gone [red]" in out


def test_help_answers_without_optuna_or_a_workspace(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['sweep', '--help']\nfrom runstone_sweeps.cli.main import main\n"
        "try: main()\nfinally: print({'optuna', 'plotly', 'numpy', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "resume" in done.stdout
    assert done.stdout.rstrip().endswith("set()")


def test_a_terminal_sees_a_live_table_and_its_end(place: Place) -> None:
    config = place.config("  steps: {value: 8}\n  slow: {value: 0.05}\n", trials=4)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "runstone_sweeps.cli", "run", str(config)],
        stdout=theirs,
        stderr=theirs,
        stdin=theirs,
        cwd=place.path,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0
    text = shown.decode()
    assert "/4 trials" in text
    assert "left" in text
    assert "4 complete" in text
    record: SweepRecord = place.record
    assert record.is_finished
