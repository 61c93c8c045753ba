"""What a terminal shows of a sweep: within its height and width, of any text, and cheap."""

from __future__ import annotations

import io
import math
import time
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from runstone_sweeps.record import SweepRecord
from runstone_sweeps.results.standings import best_so_far, legend
from runstone_sweeps.results.text import clean, duration, energy, sparkline
from runstone_sweeps.store import SweepFolder
from runstone_sweeps.terminal.lines import leaderboard
from runstone_sweeps.terminal.panel import Panel, Row, failure_lines, rows_of
from runstone_sweeps.terminal.views import LineView, LiveView

from . import made

EVIL = "a\x1b[31m\x07\r\n\u202e\u2028[bold]名前👩‍👩‍👧‍👦" + "e" + "\u0301" * 40


def drawn(
    record: SweepRecord, config: dict[str, Any] = made.CONFIG, *, width: int = 100, height: int = 30
) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    panel = Panel(record, made.spec_of(config))
    console.print(panel.draw(record, rows_of(record), width=width, height=height, now=record.last_at + 2))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("height", [2, 5, 9, 14, 40])
@pytest.mark.parametrize("width", [20, 60, 80, 140])
def test_a_picture_is_no_higher_and_no_wider_than_the_terminal(width: int, height: int) -> None:
    lines = drawn(made.record_of(made.searched(60, running=30)), width=width, height=height)
    assert 1 <= len(lines) <= height - 1
    assert max(map(cell_len, lines)) <= width


def test_a_picture_tells_of_progress_best_budget_running_and_failures() -> None:
    record = made.record_of(made.searched(60, running=2))
    record.timeout_s, record.limits = 3600.0, {"gpu_hours": 2.0, "cost": 9.0, "prices": {"gpu_hour": 2.0}}
    text = "\n".join(drawn(record, {**made.CONFIG, "trials": 60}, width=160))
    best = record.best
    assert best is not None
    assert "58/60 trials" in text
    assert f"(trial {best.number})" in text
    assert "left" in text
    assert "of 1 h 0 min" in text
    assert "GPU hours" in text
    assert "cost" in text
    assert "kJ" in text
    assert "memory up to 1.2 GB" in text
    assert "failed: " in text
    assert "RuntimeError: shapes" in text
    for trial in list(record.trials.values())[-2:]:
        (line,) = [line for line in text.splitlines() if line.startswith(f"{trial.number} ")]
        assert "█" in line
        assert "0.5" in line


def test_more_trials_than_fit_are_counted() -> None:
    lines = drawn(made.record_of(made.searched(60, running=30)), height=15)
    assert any("more at work" in line for line in lines)


def test_odd_text_moves_nothing_in_a_terminal() -> None:
    config = {**made.CONFIG, "name": EVIL, "metric": {"name": EVIL, "goal": "minimize"}}
    config["parameters"] = {EVIL: {"values": [EVIL, "b"]}, "x": {"min": 0, "max": 1}}
    events: list[dict[str, Any]] = made.created(config)
    for number in range(3):
        events += [made.asked(number, {EVIL: EVIL, "x": 1}), {"event": "started", "number": number, "host": EVIL}]
    events += [made.told(0, 1.0), made.told(1, state="failed", reason=EVIL)]
    record, spec = made.record_of(events), made.spec_of(config)
    lines = drawn(record, config, width=80, height=20)
    assert max(map(cell_len, lines)) <= 80
    console = Console(file=io.StringIO(), width=80, highlight=False, markup=False, emoji=False)
    view = LineView(console, SweepFolder(Path("/s1")), record, spec)
    for event in made.numbered(events):
        view.on_event(event, record)
    view.on_note(EVIL)
    console.print(leaderboard(record, limit=9, hidden={}))
    assert isinstance(console.file, io.StringIO)
    text = "\n".join(lines) + console.file.getvalue()
    for char in ("\x1b", "\x07", "\r", "\u202e", "\u2028", "\u200d", "\u0301" * 3):
        assert char not in text
    assert "[bold]" in text


def test_a_pipe_gets_one_line_for_each_trial() -> None:
    events = made.numbered(made.searched(20))
    record, spec = SweepRecord(), made.spec_of(made.CONFIG)
    for event in events[:3]:
        record.apply(event)
    console = Console(file=io.StringIO(), width=80, highlight=False, markup=False, emoji=False)
    view = LineView(console, SweepFolder(Path("/s1")), record, spec)
    for event in events[3:]:
        record.apply(event)
        view.on_event(event, record)
    assert isinstance(console.file, io.StringIO)
    head, about, *lines = console.file.getvalue().splitlines()
    assert head.startswith("sweep made")
    assert "minimize loss" in about
    assert len(lines) == 20
    assert all(line.startswith(f"[{count}/40] trial ") for count, line in enumerate(lines, 1))


def test_a_live_view_draws_four_times_a_second_at_most_and_costs_little() -> None:
    events = made.numbered(made.searched(2_000, running=8, steps=200))
    record, spec = SweepRecord.from_events(events), made.spec_of(made.CONFIG)
    now_s = 0.0
    file = io.StringIO()
    console = Console(file=file, width=140, height=40, force_terminal=True)
    view = LiveView(console, SweepFolder(Path("/s1")), record, spec, clock=lambda: now_s)
    drawings = 0
    begun = time.process_time()
    for _ in range(200):  # ten seconds of the coordinator's ticks
        before = file.tell()
        view.on_tick(record, [])
        drawings += file.tell() > before
        now_s += 0.05
    spent = time.process_time() - begun
    view.close()
    assert 5 <= drawings <= 41
    # Of ten seconds, a fiftieth; and what a machine at work adds.
    assert spent < 0.6


def test_what_ended_between_two_pictures_is_printed_with_the_next(tmp_path: Path) -> None:
    events = made.numbered(made.searched(5))
    record, spec = SweepRecord.from_events(events), made.spec_of(made.CONFIG)
    now_s = 0.0
    console = Console(file=io.StringIO(), width=140, height=40, force_terminal=True, color_system=None)
    view = LiveView(console, SweepFolder(tmp_path), record, spec, clock=lambda: now_s)
    view.on_tick(record, [])
    for event in events:
        view.on_event(event, record)
    view.on_tick(record, [])
    assert isinstance(console.file, io.StringIO)
    assert "/40] trial 4 " not in console.file.getvalue()
    now_s = 0.3
    view.on_tick(record, [])
    view.close()
    assert "/40] trial 4 " in console.file.getvalue()


def test_sparklines_show_curves_of_any_length_and_value() -> None:
    assert sparkline([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 20) == "▁▂▃▄▅▆▇█"
    assert sparkline(list(map(float, range(1000))), 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([1.0, 1.0], 8) == "▄▄"
    assert sparkline([1.0, math.nan, 2.0, math.inf], 8) == "▁·█·"
    assert sparkline([math.nan], 8) == "·"
    assert sparkline([-1e308, 1e308], 8) == "▁█"
    assert sparkline([], 8) == sparkline([1.0], 0) == ""


def test_times_and_amounts_read_well() -> None:
    assert [duration(s) for s in (3.21, 59.97, 61, 7260, 200_000)] == [
        "3.2 s",
        "1 min 0 s",
        "1 min 1 s",
        "2 h 1 min",
        "2 d 7 h",
    ]
    assert [energy(j) for j in (850, 12_500, 7.2e6)] == ["850 J", "12.5 kJ", "2 kWh"]
    assert clean("a\x00b") == "a\ufffdb"


def test_the_best_so_far_is_in_the_order_of_ends_and_of_feasible_trials() -> None:
    events = made.created()
    for number, (value, end, broken) in enumerate([(3.0, 30, -1.0), (1.0, 20, -1.0), (2.0, 10, -1.0), (0.0, 5, 1.0)]):
        events.append(made.asked(number, {"lr": 0.1}, at=made.AT))
        events.append(made.told(number, value, constraints=[broken], at=made.AT + end))
    events.sort(key=lambda event: event["at"])
    found = best_so_far(made.record_of(events))
    assert [(trial.number, best) for trial, best in found] == [(2, 2.0), (1, 1.0), (0, 1.0)]


def test_failures_beyond_the_limit_are_counted() -> None:
    events = made.created()
    for number in range(9):
        events += [made.asked(number, {}), made.told(number, state="failed", reason="ABCDE"[number % 5] + " broke")]
    lines = [line.plain for line in failure_lines(made.record_of(events), limit=3)]
    assert len(lines) == 3
    assert lines[0] == "failed: 2 trials (0, 5): A broke"
    assert lines[2] == "failed: 5 more in 3 other ways"


def test_a_row_may_say_why_a_trial_is_about_to_end() -> None:
    record = made.record_of(made.searched(8, running=1))
    trial = list(record.trials.values())[-1]
    console = Console(file=io.StringIO(), width=100, height=30, color_system=None)
    panel = Panel(record, made.spec_of(made.CONFIG))
    row = Row(trial, trial.runs[0], "timed out", (77, 0.5))
    console.print(panel.draw(record, [row], width=100, height=30, now=record.last_at))
    assert isinstance(console.file, io.StringIO)
    assert "7 timed out" in console.file.getvalue()
    assert "77" in console.file.getvalue()


def test_the_leaderboard_explains_its_marks() -> None:
    config = {
        **{key: value for key, value in made.CONFIG.items() if key != "metric"},
        "metrics": [{"name": "loss", "goal": "minimize"}, {"name": "speed", "goal": "maximize"}],
    }
    record = made.record_of(made.searched(30, config))
    console = Console(file=io.StringIO(), width=160)
    console.print(leaderboard(record, limit=30, hidden={}))
    assert isinstance(console.file, io.StringIO)
    marked = [line for line in console.file.getvalue().splitlines() if line.split()[0].endswith("*")]
    assert len(marked) == len(record.front())
    assert "Pareto" in legend(record)[0]
