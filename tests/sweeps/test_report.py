"""The report: one file, complete, and safe with any text of users."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from runstone_sweeps.record import SweepRecord
from runstone_sweeps.report.comparing import write_comparison
from runstone_sweeps.report.drawing import escaped, thinned, thinned_from_best
from runstone_sweeps.report.fronts import hypervolume
from runstone_sweeps.report.writing import draw_figures, render, write_report
from runstone_sweeps.results.comparison import Compared, best_of, compare, trials_to_reach
from runstone_sweeps.spec import SweepSpec
from runstone_sweeps.store import SweepFolder

from . import made

EVIL = "</script><img src=x onerror=alert(1)>"
TWO: dict[str, Any] = {
    **{key: value for key, value in made.CONFIG.items() if key != "metric"},
    "metrics": [{"name": "loss", "goal": "minimize"}, {"name": "speed", "goal": "maximize"}],
}


def evil_record() -> tuple[SweepRecord, SweepSpec]:
    """Return a sweep with trials of every kind, in which all that users write is an attack."""
    config = {
        "name": f"n{EVIL}",
        "script": f"{EVIL}.py",
        "metric": {"name": EVIL, "goal": "minimize"},
        "trials": 9,
        "parameters": {"lr": {"min": 0.0, "max": 2.0}, f"k{EVIL}": {"values": ["b", EVIL]}},
    }
    events: list[dict[str, Any]] = made.created(config, sweep_id=EVIL)
    for number, (state, value) in enumerate(
        [("complete", 3.0), ("complete", 1.0), ("pruned", 5.0), ("failed", None), ("complete", 2.0)]
    ):
        events.append(made.asked(number, {"lr": 0.1 * (number + 1), f"k{EVIL}": EVIL if number % 2 else "b"}))
        events.append({"event": "started", "number": number, "host": EVIL})
        points = [[0, 9.0], [1, 8.0]] if value is None else [[0, value + 1], [1, value]]
        events.append({"event": "reported", "number": number, "points": points})
        reason = f"ValueError: {EVIL}" if state == "failed" else None
        events.append(made.told(number, *([] if value is None else [value]), state=state, reason=reason))
    events.append({**made.asked(5, {"lr": 0.5, f"k{EVIL}": EVIL}), "run_id": EVIL})
    return made.record_of(events), made.spec_of(config)


def page(record: SweepRecord, spec: SweepSpec) -> str:
    return render(SweepFolder(Path("/s1")), record, spec)


def without_plotly(text: str) -> str:
    """Return the page without the library, which is 5 MB of other people's text."""
    return re.sub(r"<script>/\*\*.*?</script>", "", text, count=1, flags=re.S)


def json_in(text: str, name: str) -> Any:
    found = re.search(rf'id="{name}">(.*?)</script>', text, re.S)
    assert found is not None
    return json.loads(found[1])


def titles(text: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", text)


def test_a_report_has_every_figure_and_every_trial_in_its_rank() -> None:
    text = page(*evil_record())
    assert {
        "History",
        "Which parameters matter",
        "How many were how good",
        "Parallel coordinates",
        "One parameter at a time",
        "Two parameters at a time",
        "While they ran",
        "When they ran",
        "What more time brought",
        "Budget",
        "Trials",
    } <= set(titles(text))
    rows = re.findall(r'<tr><td class="num">(\d*)</td><td class="num">(\d+)</td><td class="state (\w+)"', text)
    ranked = [("1", "1", "complete"), ("2", "4", "complete"), ("3", "0", "complete")]
    assert rows == [*ranked, ("", "2", "pruned"), ("", "3", "failed"), ("", "5", "waiting")]
    table = json_in(text, "rows")
    assert [row[1] for row in table["rows"]] == [1, 4, 0, 2, 3, 5]
    assert f"{1:032x}" in text


def test_text_of_users_is_never_markup() -> None:
    text = without_plotly(page(*evil_record()))
    assert "<img" not in text
    # One for each script of ours: the figures, the rows, the code.
    assert text.count("</script>") == 3
    assert text.count("<script") == 3
    assert "&lt;img src=x onerror=alert(1)&gt;" in text


def test_plotly_which_reads_html_gets_text_of_users_escaped() -> None:
    figures = json_in(page(*evil_record()), "figures")
    shown = json.dumps(figures)
    assert "<img" not in shown
    assert "&lt;img" in shown
    assert escaped("<b>&amp;</b>") == "&lt;b&gt;&amp;amp;&lt;/b&gt;"
    assert len(escaped("x" * 500)) == 60
    assert "\x1b" not in escaped("a\x1b[31m")


def test_no_colour_is_taken_from_what_users_wrote() -> None:
    config = {**made.CONFIG, "metric": {"name": "--bad", "goal": "minimize"}}
    config["parameters"] = {"--ink": {"values": ["--good", "--warn"]}, "x": {"min": 0.0, "max": 1.0}}
    events = made.created(config)
    for number in range(4):
        events += [made.asked(number, {"--ink": ["--good", "--warn"][number % 2], "x": number / 4})]
        events += [made.told(number, float(number))]
    text = page(made.record_of(events), made.spec_of(config))
    plain = re.search(r"const PLAIN = new Set\(\[(.*?)\]\)", text)
    assert plain is not None
    keys = set(json.loads(f"[{plain[1]}]"))

    def strings(value: Any) -> list[str]:
        if isinstance(value, str):
            return [value]
        if isinstance(value, list):
            return [text for item in value for text in strings(item)]
        if isinstance(value, dict):
            return [text for key, item in value.items() if key not in keys for text in strings(item)]
        return []

    names = {"--accent", "--good", "--warn", "--bad", "--soft", "--ink", "--strong", "--faint", "--card"}
    style = [text for text in strings(list(json_in(text, "figures").values())) if text.startswith("--")]
    assert set(style) <= names
    assert "--bad" not in style  # no trial failed


def test_a_report_needs_no_network_and_sends_nothing() -> None:
    text = without_plotly(page(*evil_record()))
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!x)""", text)
    assert "url(" not in text
    assert "@import" not in text
    assert "fetch(" not in text
    assert "showSendToCloud: false" in text


def test_a_figure_that_cannot_be_drawn_says_why() -> None:
    spec = made.spec_of(made.CONFIG)
    empty = page(made.record_of(made.created()), spec)
    assert "No trial is complete yet." in empty
    assert "No trial has run yet." in empty
    assert "at least three trials" in empty
    one = [*made.created(), made.asked(0, {"lr": 0.1, "hidden": 20, "optimizer": "sgd"}), made.told(0, 1.0)]
    text = page(made.record_of(one), spec)
    assert "at least two searched parameters and two complete trials" in text
    assert "No trial logged loss with a step." in text
    assert "at least four complete trials" in text


def test_several_metrics_show_a_front_and_each_metric_by_itself() -> None:
    record, spec = made.record_of(made.searched(40, TWO)), made.spec_of(TWO)
    text = page(record, spec)
    assert {"Pareto front", "Hypervolume", "History: loss", "History: speed"} <= set(titles(text))
    figures = {figure.title: figure for figure in draw_figures(record, spec)}
    (on_front,) = [trace for trace in figures["Pareto front"].data if trace["name"] == "on the front"]
    assert sorted(on_front["x"]) == sorted(t.values[0] for t in record.front() if t.values)
    volumes = figures["Hypervolume"].data[0]["y"]
    assert volumes == sorted(volumes)
    marks = [row[0][0] for row in json_in(text, "rows")["rows"]]
    assert sum("◆" in mark for mark in marks) == len(record.front())


def test_infeasible_replicated_reused_and_audited_trials_are_marked() -> None:
    config = {**made.CONFIG, "constraints": [{"metric": "memory", "max": 4}], "replicates": 2}
    params = {"lr": 0.1, "hidden": 20, "optimizer": "sgd"}
    events = [
        *made.created(config),
        made.asked(0, params, run_ids=["a", "b"]),
        {"event": "run_told", "number": 0, "replicate": 0, "state": "complete", "values": [1.0]},
        {"event": "run_told", "number": 0, "replicate": 1, "state": "complete", "values": [2.0]},
        made.told(0, 1.5, constraints=[-1.0]),
        made.asked(1, {**params, "lr": 0.2}),
        made.told(1, 0.5, constraints=[2.5]),
        made.asked(2, params, same_as=0),
        made.told(2, 1.5, constraints=[-1.0]),
    ]
    record = made.record_of(events)
    table = json_in(page(record, made.spec_of(config)), "rows")
    shown = {row[1]: [cell[0] if isinstance(cell, list) else cell for cell in row] for row in table["rows"]}
    assert shown[1][2] == "infeasible"
    assert "2.5" in shown[1]
    assert shown[2][2] == "complete (reused) = 0"
    assert "0.70711" in shown[0]
    assert record.best is record.trials[0]


def test_an_audit_of_the_pruner_is_told() -> None:
    config = {**made.CONFIG, "audit": 0.1}
    events = made.searched(20, config)
    events += [made.asked(20, {"lr": 0.1, "hidden": 20, "optimizer": "sgd"})]
    events += [{"event": "prune", "number": 20, "step": 3, "is_audited": True}]
    events += [made.told(20, 0.01, state="pruned", audited=[0.0])]
    text = page(
        made.record_of({**e, "at": made.AT + 9999} if "at" not in e else e for e in events), made.spec_of(config)
    )
    assert "1 trials that it decided against ran to their end; 1 of them became the best" in text
    unaudited = page(made.record_of(made.searched(3)), made.spec_of(made.CONFIG))
    assert "The pruner was not audited" in unaudited


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 1e308, -1e308, 5e-324])
def test_extreme_results_and_reports_make_a_report_that_can_be_read(value: float) -> None:
    events = made.searched(12)
    number = 12
    events += [made.asked(number, {"lr": 1e-5, "hidden": 16, "optimizer": "adam"}, at=made.AT + 9000)]
    told = str(value) if not math.isfinite(value) else value
    events += [{"event": "reported", "number": number, "points": [[0, told], [10**15, told]], "at": made.AT + 9001}]
    state = "failed" if math.isnan(value) else "complete"
    events += [{**made.told(number, state=state), "value": told, "values": None if state == "failed" else [told]}]
    events[-1]["at"] = made.AT + 9002
    text = page(made.record_of(events), made.spec_of(made.CONFIG))
    assert "NaN" not in json.dumps(json_in(text, "figures"))
    assert json_in(text, "rows")["rows"]


def test_a_large_sweep_is_thinned_and_says_so() -> None:
    record, spec = made.record_of(made.searched(6_000, steps=6)), made.spec_of(made.CONFIG)
    text = page(record, spec)
    points = sum(len(trace.get("x") or ()) for f in json_in(text, "figures").values() for trace in f["data"])
    assert points < 25_000
    assert "curves are shown, the best among them" in text
    assert "of 6,000 trials are shown" in text
    assert len(text) < 9_000_000
    best = record.best
    assert best is not None
    figures = {figure.title: figure for figure in draw_figures(record, spec)}
    assert best.number in figures["History"].data[0]["x"]
    assert len(re.findall(r'<td class="id">', text)) == 50
    assert len(json_in(text, "rows")["rows"]) == 6_000


def test_thinning_keeps_ends_and_the_best() -> None:
    assert thinned(range(10), 100) == list(range(10))
    assert thinned(range(1000), 5) == [0, 249, 499, 749, 999]
    kept = thinned_from_best(range(1000), 10)
    assert kept[:5] == [0, 1, 2, 3, 4]
    assert kept[-1] == 999
    assert len(kept) == 10


def test_hypervolume_is_that_of_boxes() -> None:
    assert hypervolume([(0.0, 0.0)], (2.0, 3.0)) == pytest.approx(6.0)
    assert hypervolume([(0.0, 2.0), (1.0, 0.0)], (2.0, 3.0)) == pytest.approx(4.0)
    assert hypervolume([(5.0, 5.0)], (2.0, 3.0)) == 0.0
    assert hypervolume([(0.0, 0.0, 1.0), (1.0, 1.0, 0.0)], (2.0, 2.0, 2.0)) == pytest.approx(5.0)
    assert hypervolume([(0.0, 0.0, 1.0), (0.0, 0.0, 1.0)], (2.0, 2.0, 2.0)) == pytest.approx(4.0)


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    record, spec = made.record_of(made.created()), made.spec_of(made.CONFIG)
    path = write_report(SweepFolder(tmp_path), record, spec, tmp_path / "out.html")
    assert path.read_text().startswith("<!doctype html>")
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.html"]


# --- side by side ------------------------------------------------------------------------------------------------


def sweep_of(values: list[float], *, name: str = "a", goal: str = "minimize") -> Compared:
    config = {**made.CONFIG, "name": name, "metric": {"name": "loss", "goal": goal}}
    events: list[dict[str, Any]] = made.created(config, sweep_id=f"id-of-{name}")
    for number, value in enumerate(values):
        at = made.AT + 10 * number
        events.append(made.asked(number, {"lr": 0.1 * (number + 1), "hidden": 20, "optimizer": "sgd"}, at=at))
        events += [{"event": "started", "number": number, "at": at}, {**made.told(number, value), "at": at + 10}]
    return Compared(made.record_of(events), made.spec_of(config), "finished")


def test_a_comparison_tells_who_was_faster_where_all_have_arrived() -> None:
    lines = dict(compare([sweep_of([5.0, 3.0, 2.0]), sweep_of([4.0, 1.0, 6.0, 7.0], name="b")]))
    assert lines["best"] == ["2 (trial 2)", "1 (trial 1)"]
    assert lines["trials to reach 2"] == ["3", "2"]
    assert lines["time of trials to reach 2"] == ["30.0 s", "20.0 s"]
    assert lines["best of 3 results, 95 %"] == ["2 to 5", "1 to 6"]
    assert lines["points also tried by the first"] == ["–", "3"]
    assert lines["best lr"] == ["0.3", "0.2"]
    assert "best hidden" not in lines


def test_sweeps_with_other_goals_are_not_raced(tmp_path: Path) -> None:
    sweeps = [sweep_of([5.0, 3.0]), sweep_of([4.0, 1.0], name="b", goal="maximize")]
    assert not [title for title, _ in compare(sweeps) if "to reach" in title]
    text = write_comparison(sweeps, tmp_path / "c.html").read_text()
    assert "The sweeps have different metrics or goals." in text


def test_a_comparison_is_a_page_on_which_text_is_text(tmp_path: Path) -> None:
    sweeps = [sweep_of([5.0, 3.0, 2.0], name=EVIL), sweep_of([4.0, 1.0], name="b")]
    text = without_plotly(write_comparison(sweeps, tmp_path / "c.html").read_text())
    assert "<img" not in text
    assert text.count("</script>") == 2
    figures = json_in(text, "figures")
    assert [trace["y"] for trace in figures["figure-0"]["data"]] == [[5.0, 3.0, 2.0], [4.0, 1.0]]


def test_the_interval_of_the_best_is_that_of_the_bootstrap() -> None:
    import random

    values = [random.Random(4).gauss(0, 1) for _ in range(30)]
    rng = random.Random(5)
    drawn = sorted(min(rng.choices(values, k=8)) for _ in range(4000))
    better, worse = best_of(values, 8, is_maximized=False)
    assert better == drawn[int(4000 * 0.025)]
    assert worse == drawn[int(4000 * 0.975)]
    assert best_of(values, 8, is_maximized=True) == tuple(
        -v for v in best_of([-v for v in values], 8, is_maximized=False)
    )
    assert best_of([3.0], 5, is_maximized=False) == (3.0, 3.0)


def test_a_level_that_was_never_reached_has_no_number_of_trials() -> None:
    record = sweep_of([5.0, 3.0]).record
    assert trials_to_reach(record, 3.0) == (2, 20.0)
    assert trials_to_reach(record, 2.9) is None
