"""The report: one file, complete, and safe with any text of users."""

from __future__ import annotations

import json
import re
from pathlib import Path

from runstone_sweeps.record import SweepRecord, TrialState
from runstone_sweeps.report import render, write_report
from runstone_sweeps.space import Choice, Real, Space
from runstone_sweeps.spec import parse_spec
from runstone_sweeps.store import SweepFolder
from runstone_sweeps.study import search_of

EVIL = "</script><img src=x onerror=alert(1)>"


def record_of(states: list[tuple[TrialState, float | None]]) -> SweepRecord:
    events = [{"event": "created", "sweep_id": "s1", "name": f"n{EVIL}", "goal": "minimize", "metric": EVIL, "seed": 1}]
    events += [{"event": "opened", "pid": 1}]
    for number, (state, value) in enumerate(states):
        params = {"lr": 0.1 * (number + 1), f"k{EVIL}": EVIL if number % 2 else "b"}
        events += [{"event": "asked", "number": number, "run_id": f"run{number}", "params": params}]
        if state is TrialState.WAITING:
            continue
        events += [{"event": "started", "number": number}]
        if value is not None:
            events += [{"event": "reported", "number": number, "points": [[0, value + 1], [1, value]]}]
        reason = f"ValueError: {EVIL}" if state is TrialState.FAILED else None
        events += [{"event": "told", "number": number, "state": str(state), "value": value, "reason": reason}]
    return SweepRecord.from_events({**event, "seq": seq, "at": 1e9 + seq} for seq, event in enumerate(events))


def html_of(record: SweepRecord) -> str:
    raw = {
        "metric": {"name": EVIL, "goal": "minimize"},
        "trials": 9,
        "parameters": {"lr": {"min": 0.0, "max": 2.0}, f"k{EVIL}": {"values": ["b", EVIL]}},
    }
    spec = parse_spec(raw, folder=Path("/"), is_for_reading=True)
    assert spec.space == Space((Real("lr", 0.0, 2.0), Choice(f"k{EVIL}", ("b", EVIL))))
    assert search_of(spec, record).study is not None
    return render(SweepFolder(Path("/s1")), record, spec)


FULL = [
    (TrialState.COMPLETE, 3.0),
    (TrialState.COMPLETE, 1.0),
    (TrialState.PRUNED, 5.0),
    (TrialState.FAILED, None),
    (TrialState.COMPLETE, 2.0),
    (TrialState.WAITING, None),
]


def without_plotly(text: str) -> str:
    """Return the page without the library, which is 4 MB of other people's text."""
    return re.sub(r"<script>/\*\*.*?</script>", "", text, count=1, flags=re.S)


def test_a_report_has_every_figure_and_every_trial_in_its_rank() -> None:
    text = html_of(record_of(FULL))
    figures = json.loads(re.search(r'id="figures">(.*?)</script>', text, re.S)[1])  # type: ignore[index]
    kinds = {figure["kind"] for figure in figures.values()}
    assert kinds == {
        "History",
        "Which parameters matter",
        "Parallel coordinates",
        "One parameter at a time",
        "While they ran",
        "When they ran",
    }
    rows = re.findall(r'<tr><td class="num">(\d*)</td><td class="num">(\d+)</td><td class="state (\w+)"', text)
    assert rows == [
        ("1", "1", "complete"),
        ("2", "4", "complete"),
        ("3", "0", "complete"),
        ("", "2", "pruned"),
        ("", "3", "failed"),
        ("", "5", "waiting"),
    ]
    assert "run4" in text


def test_text_of_users_is_never_markup() -> None:
    page = without_plotly(html_of(record_of(FULL)))
    assert "<img" not in page
    assert page.count("</script>") == 2
    assert "&lt;img src=x onerror=alert(1)&gt;" in page


def test_a_report_needs_no_network() -> None:
    page = without_plotly(html_of(record_of(FULL)))
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!x)""", page)
    assert "url(" not in page
    assert "@import" not in page


def test_a_figure_that_cannot_be_drawn_says_why() -> None:
    empty = html_of(record_of([]))
    assert "No trial is complete yet." in empty
    assert "No trial has run yet." in empty
    one = html_of(record_of([(TrialState.COMPLETE, 1.0)]))
    assert "at least two searched parameters and two complete trials" in one
    failed = html_of(record_of([(TrialState.FAILED, None)]))
    assert "with a step." in failed


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    raw = {"metric": {"name": "a", "goal": "minimize"}, "trials": 1, "parameters": {"x": {"min": 0, "max": 1}}}
    spec = parse_spec(raw, folder=tmp_path, is_for_reading=True)
    record = SweepRecord()
    record.created = {"name": "n", "goal": "minimize", "metric": "a"}
    path = write_report(SweepFolder(tmp_path), record, spec, tmp_path / "out.html")
    assert path.read_text().startswith("<!doctype html>")
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.html"]
