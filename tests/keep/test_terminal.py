"""Curves in the terminal: the program under a pilot and at a real terminal, and one look for pipes."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

import runstone
from runstone.cli.main import run as call
from tests.keep.conftest import Record

pytest.importorskip("textual")
pytest.importorskip("textual_plotext")

from textual.pilot import Pilot
from textual.widgets import DataTable, Input, Static
from textual_plotext import PlotextPlot

from runstone.terminal.app import TerminalApp
from runstone.terminal.curves import RunCurves, shared_names, smoothed, thinned


def piloted(app: TerminalApp, look: Callable[[Pilot[None]], Awaitable[None]]) -> None:
    """Run the program on a screen of 80 by 24 and let a test look at it."""

    async def session() -> None:
        async with app.run_test(size=(80, 24)) as pilot:
            await app.workers.wait_for_complete()
            await look(pilot)

    asyncio.run(session())


def shown(app: TerminalApp, place: str) -> str:
    return str(app.query_one(place, Static).render())


def rows(app: TerminalApp) -> list[str]:
    table = app.query_one("#runs", DataTable)
    return [str(table.get_row_at(number)[0]) for number in range(table.row_count)]


# --- what is drawn ----------------------------------------------------------------------------------------------------


def test_curves_follow_a_run_and_leave_out_what_a_later_attempt_superseded(workspace: runstone.Workspace) -> None:
    with runstone.start_run(run_id="one", project="p", workspace=workspace, environment=False) as run:
        curves = RunCurves(run.path)
        for step in range(10):
            run.log({"loss": float(step), "odd": float("nan") if step == 3 else 1.0}, step=step)
        assert curves.poll()
        assert not curves.poll()
        loss, odd = curves.curve("loss"), curves.curve("odd")
        assert loss is not None
        assert odd is not None
        assert loss.value.tolist() == list(range(10))
        assert (odd.count, odd.nan_count, len(odd.value)) == (10, 1, 9)
    curves.poll()
    with runstone.start_run(run_id="one", resume=True, project="p", workspace=workspace, environment=False) as again:
        curves.look_again()
        for step in range(6, 9):
            again.log({"loss": 100.0 + step}, step=step)
        curves.poll()
        found = curves.curve("loss")
        assert found is not None
        assert found.value.tolist() == [0, 1, 2, 3, 4, 5, 106, 107, 108]
    assert curves.curve("nothing") is None


def test_a_long_run_takes_bounded_memory_and_keeps_its_spikes(workspace: runstone.Workspace) -> None:
    with runstone.start_run(workspace=workspace, environment=False) as run:
        handle = run.metric("loss")
        for step in range(200_000):
            handle(1000.0 if step == 123_457 else 0.5, step=step)
    curves = RunCurves(run.path)
    curves.poll()
    found = curves.curve("loss")
    assert found is not None
    assert found.count == 200_000
    assert len(found.value) <= 1 << 16
    assert found.step[found.value.argmax()] == 123_457
    assert thinned(found, 80).value.max() == 1000.0
    assert len(thinned(found, 80).value) <= 800


def test_smoothing_is_a_moving_average_that_is_not_pulled_to_zero() -> None:
    assert smoothed(np.full(5, 3.0), 0.9) == pytest.approx(np.full(5, 3.0))
    assert smoothed(np.array([1.0, 0.0]), 0.5) == pytest.approx([1.0, 1 / 3])
    values = np.random.default_rng(1).normal(size=500)
    assert smoothed(values, 0.99).std() < 0.5 * values.std()
    assert smoothed(values, 0.0) is values


# --- the program ------------------------------------------------------------------------------------------------------


def test_the_program_lists_runs_and_draws_the_newest(workspace: runstone.Workspace, record: Record) -> None:
    record("amber", points=50)
    record("brass\x1b[2J", points=50)
    app = TerminalApp(workspace)

    async def look(pilot: Pilot[None]) -> None:
        assert len(rows(app)) == 2
        assert "brass" in rows(app)[0]
        assert "\x1b" not in rows(app)[0]
        assert rows(app)[0].startswith("●")
        assert "finished" in shown(app, "#said")
        plot = app.query_one(PlotextPlot)
        assert plot.size.width > 40
        assert plot.size.height > 10
        assert "loss" in str(plot.render())
        assert "2 runs" in shown(app, "#message")

    piloted(app, look)


def test_runs_are_chosen_and_drawn_above_each_other(workspace: runstone.Workspace, record: Record) -> None:
    for name in ("amber", "brass", "copper"):
        record(name, points=30)
    app = TerminalApp(workspace)

    async def look(pilot: Pilot[None]) -> None:
        await pilot.press("down", "space", "down", "space")
        assert [row.startswith("●") for row in rows(app)] == [True, True, True]
        said = shown(app, "#said")
        assert all(name in said for name in ("amber", "brass", "copper"))
        await pilot.press("enter")
        assert [row.startswith("●") for row in rows(app)] == [False, False, True]
        await pilot.press("space")
        assert shown(app, "#said").strip() == ""

    piloted(app, look)


def test_keys_change_metric_axis_logarithm_and_smoothing(workspace: runstone.Workspace) -> None:
    with runstone.start_run(workspace=workspace, environment=False) as run:
        for step in range(40):
            run.log({"a": 10.0**-step, "b": -1.0, "system/cpu": 50.0, "single": 7}, step=step)
    app = TerminalApp(workspace)

    def drawn() -> str:
        return str(app.query_one(PlotextPlot).render())

    async def look(pilot: Pilot[None]) -> None:
        assert "a" in drawn()
        await pilot.press("l")
        assert "(log)" in drawn()
        assert "1e-" in drawn()
        await pilot.press("n")  # nothing of b has a logarithm
        assert "b" in drawn()
        await pilot.press("l", "t")
        assert "seconds" in drawn()
        await pilot.press("s")
        assert "smoothing 0.6" in shown(app, "#message")
        await pilot.press("s", "s", "s", "s")
        assert "smoothing 0" in shown(app, "#message")
        await pilot.press("y")
        assert "system/cpu" in drawn()
        await pilot.press("y", "p")
        assert "single" in drawn()

    piloted(app, look)


def test_a_filter_narrows_the_list_and_a_wrong_one_is_told(workspace: runstone.Workspace, record: Record) -> None:
    record("amber", params={"lr": 0.1})
    record("brass", params={"lr": 0.9})
    app = TerminalApp(workspace)

    async def look(pilot: Pilot[None]) -> None:
        await pilot.press("slash")
        field = app.query_one("#filter", Input)
        assert field.has_focus
        await pilot.press(*"params.lr", "space", "less_than_sign", "space", *"0.5", "enter")
        await pilot.pause()
        assert field.value == "params.lr < 0.5"
        assert len(rows(app)) == 1
        assert "amber" in rows(app)[0]
        await pilot.press("slash", "end", *" and", "enter")
        await pilot.pause()
        assert len(rows(app)) == 1
        assert shown(app, "#message") != ""
        await pilot.press("slash", "escape")
        assert app.query_one("#runs", DataTable).has_focus

    piloted(app, look)


def test_a_run_that_goes_on_is_drawn_as_it_grows(workspace: runstone.Workspace) -> None:
    with runstone.start_run(name="living", workspace=workspace, environment=False) as run:
        run.log({"loss": 5.0}, step=0)
        app = TerminalApp(workspace, runs=[run.id], metrics=["loss", "acc"])

        async def look(pilot: Pilot[None]) -> None:
            assert "running" in shown(app, "#said")
            assert len(app.query(PlotextPlot)) == 1
            run.log({"loss": 4.25, "acc": 0.5}, step=1)
            await app._refresh()
            await pilot.pause()
            assert "4.25" in shown(app, "#said")
            assert len(app.query(PlotextPlot)) == 2
            run.finish()
            await app._refresh()
            assert "finished" in shown(app, "#said")

        piloted(app, look)


def test_an_empty_workspace_and_a_run_without_metrics_are_no_error(workspace: runstone.Workspace) -> None:
    app = TerminalApp(workspace)

    async def look(pilot: Pilot[None]) -> None:
        assert "0 runs" in shown(app, "#message")
        await pilot.press("space", "enter", "n", "l", "s", "t", "y")

    piloted(app, look)
    with runstone.start_run(workspace=workspace, environment=False):
        pass
    piloted(TerminalApp(workspace), look=lambda pilot: pilot.press("n", "l"))


# --- at a terminal, and in a pipe -------------------------------------------------------------------------------------


def test_watch_works_at_a_terminal_of_80_by_24_and_leaves_it_as_it_was(
    workspace: runstone.Workspace, record: Record
) -> None:
    record("amber", points=60)
    main, replica = pty.openpty()
    fcntl.ioctl(replica, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "RUNSTONE_WORKSPACE": str(workspace.path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "runstone.cli.main", "watch", "amber", "loss"],
        stdin=replica,
        stdout=replica,
        stderr=replica,
        env=environment,
    )
    os.close(replica)
    drawn = b""
    is_asked = False
    until = time.monotonic() + 50
    try:
        while time.monotonic() < until:
            if not select.select([main], [], [], 0.2)[0]:
                continue
            try:
                part = os.read(main, 65536)
            except OSError:  # how Linux says that the other side is closed
                break
            drawn += part
            if not is_asked and b"loss" in drawn and b"finished" in drawn:
                os.write(main, b"q")
                is_asked = True
        assert is_asked, drawn[-2000:]
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(main)
    assert drawn.rstrip().endswith((b"\x1b[?1049l", b"\x1b[?25h", b"h", b"l"))
    assert b"\x1b[?1049l" in drawn  # the screen from before is back


def test_one_look_is_plain_text(
    workspace: runstone.Workspace, record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    record("amber", points=60)
    record("brass\x1b[31m", points=30)
    assert call(["watch", "amber", "--once"]) == 0
    out = capsys.readouterr().out
    assert re.search("[\u2800-\u28ff]", out)
    assert "amber: 0.0166667, 60 points" in out
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 120
    second = str(workspace.run("brass\x1b[31m").id)
    assert call(["watch", "amber", "loss", "--with", second, "--once", "--log"]) == 0
    out = capsys.readouterr().out
    assert "30 points" in out
    assert "\x1b" not in out
    assert call(["watch", "amber", "nosuch", "--once"]) == 0
    assert "nosuch" in capsys.readouterr().err
    assert call(["watch", "nobody", "--once"]) == 1


def test_shared_names_come_first(workspace: runstone.Workspace) -> None:
    paths: list[Path] = []
    for names in (("x", "b"), ("b", "system/cpu")):
        with runstone.start_run(workspace=workspace, environment=False) as run:
            run.log(dict.fromkeys(names, 1.0), step=0)
        paths.append(run.path)
    runs = [RunCurves(path) for path in paths]
    for run_curves in runs:
        run_curves.poll()
    assert shared_names(runs, system=False) == ["b", "x"]
    assert shared_names(runs, system=True) == ["system/cpu"]
