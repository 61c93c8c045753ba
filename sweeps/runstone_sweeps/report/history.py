"""Figures of how a sweep went: its history, what it spent, when its trials ran and what they logged."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from runstone_sweeps.record import SweepRecord, TrialRecord, TrialState
from runstone_sweeps.report.drawing import (
    ACCENT,
    BAD,
    GOOD,
    SOFT,
    STATE_COLORS,
    WARN,
    Figure,
    Trace,
    axis,
    escaped,
    is_wide_range,
    iso,
    thinned,
    thinned_from_best,
)
from runstone_sweeps.results.standings import best_so_far
from runstone_sweeps.results.text import duration, number
from runstone_sweeps.spec import SweepSpec

_MOST_MARKERS = 2_000
_MOST_CURVES = 150
_MOST_STEPS = 150
_MOST_BARS = 3_000
_MOST_LANES = 64


def draw_history(record: SweepRecord, spec: SweepSpec, index: int) -> Figure:
    """Draw every result of one metric over the trials, with the best so far; pruned and failed ones are marked.

    Args:
        record: The trials.
        spec: What they were searched with.
        index: Position of the metric.
    """
    metric = spec.metrics[index]
    title = f"History{_of(spec, index)}"
    complete = [t for t in record.trials.values() if t.values is not None and t.state is TrialState.COMPLETE]
    if not complete:
        return Figure(title, reason="No trial is complete yet.")
    sign = -1.0 if metric.goal == "maximize" else 1.0
    ranked = sorted(complete, key=lambda t: sign * _value(t, index))
    feasible = sorted(thinned_from_best([t for t in ranked if t.is_feasible], _MOST_MARKERS), key=_number)
    infeasible = thinned([t for t in complete if not t.is_feasible], _MOST_MARKERS // 4)
    data = [_markers("complete", feasible, index, ACCENT, "circle")]
    if infeasible:
        data.append(_markers("infeasible", infeasible, index, SOFT, "circle-open"))
    pruned = [t for t in record.trials.values() if t.state is TrialState.PRUNED and t.value is not None]
    if pruned and metric.name == spec.metric.name:
        shown = thinned(pruned, _MOST_MARKERS // 4)
        trace = _markers("pruned", shown, index, WARN, "x-thin")
        trace["y"] = [t.value for t in shown]
        trace["marker"] |= {"line": {"width": 1.5, "color": WARN}}
        data.append(trace)
    failed = thinned([t for t in record.trials.values() if t.state is TrialState.FAILED], _MOST_MARKERS // 4)
    if failed:
        # They have no value: they stand at the lower edge.
        rug = _markers("failed", failed, index, BAD, "line-ns")
        rug |= {"y": [0.015] * len(failed), "yaxis": "y2"}
        rug["marker"] |= {"size": 9, "line": {"width": 1.5, "color": BAD}}
        rug["text"] = [f"trial {t.number}: {escaped(t.reason or '')}" for t in failed]
        data.append(rug)
    data.append(_best_line(complete, index, sign))
    values = [_value(t, index) for t in complete]
    layout = {
        "xaxis": axis("Trial"),
        "yaxis": axis(metric.name, **({"type": "log"} if is_wide_range(values) else {})),
        "yaxis2": {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True},
    }
    all_shown = len(feasible) == sum(t.is_feasible for t in complete) and len(pruned) <= _MOST_MARKERS // 4
    note = "" if all_shown else f"Of {len(record.trials):,} trials, the best and some of the others are shown."
    return Figure(title, data, layout, note=note, is_wide=True)


def draw_spending(record: SweepRecord, spec: SweepSpec) -> Figure:
    """Draw the best result over the time that trials took in all: what more of it would bring."""
    title = "What more time brought"
    bests = best_so_far(record)
    if len(bests) < 3:
        return Figure(title, reason="This takes at least three trials that ended after the first result.")
    ended = sorted((t for t in record.trials.values() if t.state.is_ended), key=lambda t: t.ended_at or t.asked_at)
    spent, total = {}, 0.0
    for trial in ended:
        total += trial.usage.wall_s or trial.duration_s or 0.0
        spent[trial.number] = total / 3600
    unit, scale = ("hours", 1.0) if total >= 3600 else ("minutes", 60.0)
    points = [(spent[trial.number] * scale, best) for trial, best in bests]
    line = thinned(points, 1_000)
    data: list[Trace] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "best so far",
            "x": [x for x, _ in line],
            "y": [best for _, best in line],
            "line": {"color": GOOD, "shape": "hv", "width": 2},
        }
    ]
    windows = 10
    size = max(1, len(points) // windows)
    xs, gains = [], []
    for place in range(size, len(points), size):
        (before, worse), (now, better) = points[place - size], points[place]
        if now > before:
            xs.append((now + before) / 2)
            gains.append(abs(better - worse) / (now - before))
    data.append(
        {
            "type": "bar",
            "name": f"gain per {unit[:-1]}",
            "x": xs,
            "y": gains,
            "yaxis": "y2",
            "marker": {"color": ACCENT, "opacity": 0.35},
        }
    )
    layout = {
        "xaxis": axis(f"{unit.capitalize()} that trials took, all together"),
        "yaxis": axis(spec.metrics[0].name),
        "yaxis2": axis("Gain", overlaying="y", side="right", showgrid=False, rangemode="tozero"),
        "bargap": 0.3,
    }
    return Figure(title, data, layout, is_wide=True)


def draw_curves(record: SweepRecord, spec: SweepSpec) -> Figure:
    """Draw what the trials logged of the metric that is pruned on."""
    title = "While they ran"
    name = spec.metric.name
    logged = [t for t in record.trials.values() if t.reports]
    if not logged:
        return Figure(title, reason=f"No trial logged {name} with a step.")
    ranked = [t for t in record.ranked() if t.reports]
    rest = [t for t in logged if t.state is not TrialState.COMPLETE]
    many = len(logged) > _MOST_CURVES
    shown = thinned_from_best(ranked, _MOST_CURVES * 2 // 3) + thinned(rest, _MOST_CURVES // 3) if many else logged
    data = []
    for state, color in STATE_COLORS.items():
        curves = [t for t in shown if t.state is state and t is not record.best]
        if curves:
            data.append(_lines(str(state), curves, color, 0.4))
    if record.best is not None and record.best.reports:
        data.append(_lines(f"best (trial {record.best.number})", [record.best], GOOD, 1.0) | {"legendrank": 1})
        data[-1]["line"]["width"] = 3
    values = [value for t in shown for value in t.reports.values()]
    layout = {
        "xaxis": axis("Step"),
        "yaxis": axis(name, **({"type": "log"} if is_wide_range(values) else {})),
    }
    note = f"{len(shown)} of {len(logged):,} curves are shown, the best among them." if many else ""
    if any(len(t.reports) > _MOST_STEPS for t in shown):
        note += f" Each has {_MOST_STEPS} of its points at most."
    return Figure(title, data, layout, note=note.strip(), is_wide=True)


def draw_timeline(record: SweepRecord) -> Figure:
    """Draw when each trial ran, by host, each line one slot of it."""
    title = "When they ran"
    started = [t for t in record.trials.values() if t.started_at is not None]
    if not started:
        return Figure(title, reason="No trial has run yet.")
    shown = started[-_MOST_BARS:]
    lanes = _lanes(shown, record.last_at)
    data: list[Trace] = []
    for state, color in STATE_COLORS.items():
        xs: list[str | None] = []
        ys: list[str | None] = []
        texts: list[str | None] = []
        for trial, lane in lanes:
            if trial.state is state:
                begin, end = trial.started_at or 0.0, _end(trial, record.last_at)
                xs += [iso(begin), iso(end), None]
                ys += [lane, lane, None]
                said = f"trial {trial.number}, {state}, {duration(end - begin)}"
                texts += [said, said, None]
        if xs:
            line = {"color": color, "width": 9}
            more = {"x": xs, "y": ys, "text": texts, "hoverinfo": "text", "line": line}
            data.append({"type": "scatter", "mode": "lines", "name": str(state), **more})
    names = sorted({lane for _, lane in lanes}, key=_lane_order, reverse=True)
    note = f"The last {len(shown):,} of {len(started):,} trials are shown." if len(shown) < len(started) else ""
    layout = {
        "xaxis": axis("UTC", type="date"),
        "yaxis": {"type": "category", "categoryorder": "array", "categoryarray": names, "fixedrange": True},
    }
    height = max(220, min(900, 130 + 22 * len(names)))
    return Figure(title, data, layout, note=note, is_wide=True, height=height)


def _lanes(trials: Sequence[TrialRecord], now: float) -> list[tuple[TrialRecord, str]]:
    """Return each trial with the slot that it seems to have had: the first of its host that was free."""
    free: dict[str, list[int]] = {}
    busy: dict[str, list[tuple[float, int]]] = {}
    count: dict[str, int] = {}
    found = []
    for trial in sorted(trials, key=lambda t: t.started_at or 0.0):
        host = escaped((trial.runs[0].host if trial.runs else None) or "this host")
        waiting, taken = free.setdefault(host, []), busy.setdefault(host, [])
        while taken and taken[0][0] <= (trial.started_at or 0.0):
            heapq.heappush(waiting, heapq.heappop(taken)[1])
        if waiting:
            lane = heapq.heappop(waiting)
        else:
            lane = count[host] = count.get(host, 0) + 1
        heapq.heappush(taken, (_end(trial, now), lane))
        found.append((trial, f"{host} · {min(lane, _MOST_LANES)}"))
    return found


def _lane_order(lane: str) -> tuple[str, int]:
    host, _, slot = lane.rpartition(" · ")
    return host, int(slot)


def _end(trial: TrialRecord, now: float) -> float:
    return trial.ended_at if trial.ended_at is not None else max(now, trial.started_at or now)


def _best_line(complete: Sequence[TrialRecord], index: int, sign: float) -> Trace:
    xs, ys = [], []
    best: float | None = None
    for trial in sorted(complete, key=_number):
        value = _value(trial, index)
        if trial.is_feasible and (best is None or sign * value < sign * best):
            best = value
            xs.append(trial.number)
            ys.append(value)
    if best is not None:
        xs.append(max(trial.number for trial in complete))
        ys.append(best)
    line = {"color": GOOD, "shape": "hv", "width": 2}
    return {"type": "scatter", "mode": "lines", "name": "best so far", "x": xs, "y": ys, "line": line}


def _markers(name: str, trials: Sequence[TrialRecord], index: int, color: str, symbol: str) -> Trace:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [t.number for t in trials],
        "y": [_value(t, index) for t in trials] if all(t.values for t in trials) else [],
        "text": [f"trial {t.number}: {number(_value(t, index)) if t.values else name}" for t in trials],
        "hoverinfo": "text",
        "marker": {"color": color, "symbol": symbol, "size": 7, "opacity": 0.8},
    }


def _lines(name: str, trials: Sequence[TrialRecord], color: str, opacity: float) -> Trace:
    """Return many curves as one trace, with gaps between them: plotly is slow with many traces."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    texts: list[str | None] = []
    for trial in trials:
        points = thinned(sorted(trial.reports.items()), _MOST_STEPS)
        xs += [*(step for step, _ in points), None]
        ys += [*(value for _, value in points), None]
        texts += [*(f"trial {trial.number}, step {step}: {number(value)}" for step, value in points), None]
    return {
        "type": "scatter",
        "mode": "lines" if all(len(t.reports) > 1 for t in trials) else "lines+markers",
        "name": name,
        "x": xs,
        "y": ys,
        "text": texts,
        "hoverinfo": "text",
        "line": {"color": color, "width": 1.5},
        "opacity": opacity,
    }


def _value(trial: TrialRecord, index: int) -> float:
    return trial.values[index] if trial.values is not None and index < len(trial.values) else float("nan")


def _number(trial: TrialRecord) -> int:
    return trial.number


def _of(spec: SweepSpec, index: int) -> str:
    return f": {spec.metrics[index].name}" if len(spec.metrics) > 1 else ""
