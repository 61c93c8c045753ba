"""Runs side by side: what differs, how they did, and what can be concluded."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from runstone.comparison.differences import (
    SECTIONS,
    Difference,
    Differences,
    cell,
    data_differences,
    differences,
    patch_difference,
    snapshot_differences,
)
from runstone.comparison.front import Front, front_of
from runstone.comparison.grouping import Grouping, Judging, group_runs
from runstone.comparison.measure import Goal, Measure, checked_goal, measured, parse_measure
from runstone.comparison.members import Member, members_of, now_s
from runstone.errors import InvalidValue
from runstone.index.conditions import Metric, Order
from runstone.names import SYSTEM
from runstone.query.parser import parse_order
from runstone.query.table import plain, value_of
from runstone.runinfo import RunInfo
from runstone.statistics import CORRECTIONS, TESTS, Correction, Test
from runstone.values import MetricSummary

if TYPE_CHECKING:
    import plotly.graph_objects as go

_FIGURES = ("last", "min", "min_step", "max", "max_step", "mean", "count")
_SHOWN_ROWS, _SHOWN_RUNS = 60, 20


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric in several runs; `summaries` by run id, without the runs that never logged it."""

    name: str
    summaries: Mapping[str, MetricSummary]


@dataclass(frozen=True, slots=True)
class MeasureRow:
    """One number a run: what was asked for by `metrics=`; `values` by run id, without the runs that have none."""

    measure: Measure
    values: Mapping[str, float]


class Comparison:
    """Runs side by side, in the order in which they rank. Made by `compare`.

    Params, tags and metrics are there at once. What lies in the files of runs (environment, code, data) is read when
    it is first asked for.

    Attributes:
        members: The runs as far as tables know them; the first is the best where `sorted_by` is set.
        sorted_by: The order that ranks them, such as `metrics.val/acc.max desc`; empty: as they were given.
        ranking: What each run has under the first field of that order.
        metrics: All metrics but those of the system, by name.
        measures: What was asked for, one number a run.
        groupings: Groups and verdicts, one for each measure, where runs were to be grouped.
        front: What no other beats in every measure, of runs or of groups; `None` for fewer than two measures.
    """

    def __init__(
        self,
        members: Sequence[Member],
        *,
        sorted_by: str,
        ranking: tuple[Any, ...],
        measures: tuple[MeasureRow, ...] = (),
        groupings: tuple[Grouping, ...] = (),
        front: Front | None = None,
    ) -> None:
        self.members = tuple(members)
        self.sorted_by = sorted_by
        self.ranking = ranking
        self.measures = measures
        self.groupings = groupings
        self.front = front

    @cached_property
    def runs(self) -> tuple[RunInfo, ...]:
        """The runs, read from their files."""
        return tuple(member.info for member in self.members)

    @cached_property
    def metrics(self) -> tuple[MetricRow, ...]:
        """All metrics but those of the system, in alphabetical order."""
        rows: dict[str, dict[str, MetricSummary]] = {}
        for member in self.members:
            for name, summary in member.metrics.items():
                if not name.startswith(SYSTEM):
                    rows.setdefault(name, {})[member.id] = summary
        return tuple(MetricRow(name, rows[name]) for name in sorted(rows))

    # --- what differs ----------------------------------------------------------------------------------------------

    @cached_property
    def _differences(self) -> dict[str, Differences]:
        return {}

    def differences(self, section: str) -> Differences:
        """Return what differs of one kind, and how much is equal in all runs.

        Args:
            section: `params`, `tags`, `environment`, `code` or `data`.
        """
        if section not in self._differences:
            self._differences[section] = self._find(section)
        return self._differences[section]

    def _find(self, section: str) -> Differences:
        match section:
            case "params":
                return differences({member.id: member.params for member in self.members})
            case "tags":
                return differences({member.id: dict(member.tags) for member in self.members})
            case "environment" | "code":
                environment, code = self._snapshots
                return environment if section == "environment" else code
            case "data":
                return data_differences(self.members)
        raise InvalidValue(f"there is no section {section!r:.80}; there is {', '.join(SECTIONS)}")

    @cached_property
    def _snapshots(self) -> tuple[Differences, Differences]:
        return snapshot_differences(self.members)

    @property
    def params(self) -> tuple[Difference, ...]:
        """Params that differ."""
        return self.differences("params").rows

    @property
    def equal_params(self) -> int:
        """How many params have one value in all runs."""
        return self.differences("params").equal

    @property
    def tags(self) -> tuple[Difference, ...]:
        """Tags that differ."""
        return self.differences("tags").rows

    @property
    def equal_tags(self) -> int:
        """How many tags have one value in all runs."""
        return self.differences("tags").equal

    @property
    def environment(self) -> tuple[Difference, ...]:
        """What differs of machine, packages, variables and libraries."""
        return self.differences("environment").rows

    @property
    def equal_environment(self) -> int:
        """How much of the environment is the same in all runs."""
        return self.differences("environment").equal

    @property
    def code(self) -> tuple[Difference, ...]:
        """What differs of the code: commit, branch, command, and what was not committed."""
        return self.differences("code").rows

    @property
    def equal_code(self) -> int:
        """How much of what is known of the code is the same in all runs."""
        return self.differences("code").equal

    @property
    def data(self) -> tuple[Difference, ...]:
        """Versions of datasets, models and artifacts that runs used, where they differ."""
        return self.differences("data").rows

    @property
    def equal_data(self) -> int:
        """How many of them are the same in all runs."""
        return self.differences("data").equal

    def code_diff(self, left: str, right: str) -> str:
        """Return how the uncommitted changes of one run differ from those of another, as a diff of the two patches.

        Args:
            left, right: Ids of two of the runs.

        Raises:
            InvalidValue: there is no such run here.
        """
        named = {member.id: member for member in self.members}
        missing = [run_id for run_id in (left, right) if run_id not in named]
        if missing:
            raise InvalidValue(f"no run of the comparison has the id {missing[0]!r:.80}")
        return "\n".join(patch_difference(named[left], named[right]))

    # --- out -------------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values. NaN and ±Inf stay floats."""
        found: dict[str, Any] = {
            "sorted_by": self.sorted_by or None,
            "ranking": [value.isoformat() if isinstance(value, datetime) else value for value in self.ranking],
            "runs": [_run_dict(member) for member in self.members],
        }
        for section in SECTIONS:
            told = self.differences(section)
            found[section] = {row.name: dict(row.values) for row in told.rows}
            found[f"equal_{section}"] = told.equal
        found["metrics"] = {
            row.name: {
                run_id: {figure: getattr(summary, figure) for figure in _FIGURES}
                for run_id, summary in row.summaries.items()
            }
            for row in self.metrics
        }
        found["measures"] = {row.measure.label: dict(row.values) for row in self.measures}
        found["groups"] = [grouping.to_dict() for grouping in self.groupings]
        found["front"] = None
        if self.front is not None:
            found["front"] = {
                "metrics": [measure.label for measure in self.front.measures],
                "points": {key: list(point) for key, point in self.front.points.items()},
                "best": list(self.front.best),
            }
        return found

    def rows(self) -> list[tuple[str, str, list[str]]]:
        """Return the whole as text: `(section, name, one cell a run)`, sections in order."""
        found: list[tuple[str, str, list[str]]] = []
        for measure in self.measures:
            values = [measure.values.get(member.id) for member in self.members]
            found.append(("measures", measure.measure.label, [plain(value) for value in values]))
        for section in SECTIONS:
            for row in self.differences(section).rows:
                found.append((section, row.name, [cell(row, member.id) for member in self.members]))
        for metric in self.metrics:
            summaries = [metric.summaries.get(member.id) for member in self.members]
            for figure in ("last", "min", "max"):
                cells = ["" if summary is None else _figure(summary, figure) for summary in summaries]
                found.append(("metrics", f"{metric.name} {figure}", cells))
        return found

    def to_markdown(self) -> str:
        """Return the comparison as Markdown tables."""
        from runstone.comparison.markdown import to_markdown  # only where asked for

        return to_markdown(self)

    def to_html(self) -> str:
        """Return the comparison as one HTML page with figures that needs no network and nothing beside it."""
        from runstone.reports import comparison_page  # plotly, only where asked for

        return comparison_page(self)

    def plot(self, metric: str | None = None, *, kind: str | None = None, theme: str = "light") -> go.Figure:
        """Return a figure: the curves of a metric, or where runs are grouped, means of groups with their intervals.

        Args:
            metric: Which; default: the first that was asked for, else the one that ranks the runs.
            kind: `curves`, `groups`, `spread` (every run, by group), `parallel`, `front`; default: what there is.
            theme: `light` or `dark`.

        Raises:
            InvalidValue: there is no such metric, or nothing to draw.
            InvalidConfig: plotly is not installed.
        """
        from runstone.comparison.plotting import draw  # figures, only where asked for

        return draw(self, metric, kind).to_plotly(theme)

    def __repr__(self) -> str:
        """Say what is compared in one line."""
        names = ", ".join(member.name for member in self.members[:6])
        more = f" and {len(self.members) - 6} more" if len(self.members) > 6 else ""
        return f"<Comparison of {names}{more}: {len(self.params)} params differ, {len(self.metrics)} metrics>"

    def _repr_html_(self) -> str:
        from runstone.comparison.markdown import verdict_text  # only in notebooks

        said = "".join(
            f"<li>{html.escape(verdict_text(verdict, grouping))}</li>"
            for grouping in self.groupings
            for verdict in grouping.verdicts[:_SHOWN_RUNS]
        )
        shown = self.members[:_SHOWN_RUNS]
        head = "".join(f"<th>{html.escape(member.name)}</th>" for member in shown)
        rows = self.rows()
        body = "".join(
            f"<tr><th>{html.escape(section)}</th><td>{html.escape(name)}</td>"
            + "".join(f"<td>{html.escape(text)}</td>" for text in cells[:_SHOWN_RUNS])
            + "</tr>"
            for section, name, cells in rows[:_SHOWN_ROWS]
        )
        left_out = []
        if len(self.members) > len(shown):
            left_out.append(f"{len(self.members) - len(shown)} more runs")
        if len(rows) > _SHOWN_ROWS:
            left_out.append(f"{len(rows) - _SHOWN_ROWS} more rows")
        note = f"<p>and {' and '.join(left_out)}</p>" if left_out else ""
        verdicts = f"<ul>{said}</ul>" if said else ""
        table = f"<table><thead><tr><th></th><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f"<div>{verdicts}{table}{note}</div>"


def compare(
    runs: Iterable[RunInfo],
    *,
    order_by: str | None = None,
    metrics: Sequence[str] = (),
    at: str | None = None,
    by: str | Sequence[str] = (),
    goal: Goal | None = None,
    baseline: str | None = None,
    confidence: float = 0.95,
    margin: float = 0.0,
    test: Test = "t",
    correction: Correction = "holm",
) -> Comparison:
    """Put runs side by side: what differs, how they did, which group is better and how sure that is.

    Args:
        runs: Two or more runs, such as a `RunTable` (whose runs are not opened unless they must be); a run given twice
            counts once.
        order_by: What ranks them, such as `"metrics.val/acc.max desc"`; default: as given. Runs without the
            value, or with NaN, come last.
        metrics: What to compare by, such as `"val/acc"`, `"val/acc.max"`, `"val/acc.best"`. With two or more, the
            Pareto front is found, too.
        at: Take the values at the step where this is best, such as `"val/loss.min"`.
        by: Fields to group by, such as `"params.model"`; `"config"`: all params but seeds. Takes a metric.
        goal: `maximize` or `minimize`; default: as the name of the metric says (`loss`, `error`, …: less is better).
        baseline: Label of the group that all others are compared with; default: each with each.
        confidence: Of intervals and verdicts.
        margin: What a difference must exceed to matter.
        test: `t` (Welch's; paired where seeds are known) or `permutation`.
        correction: Of p-values, for many comparisons: `holm`, `bh` or `none`.

    Raises:
        InvalidFilter: `order_by` or `by` does not parse.
        InvalidValue: there are fewer than two runs, no such metric, or no such group.
        InvalidConfig: groups are to be compared, and SciPy is not installed.
    """
    members = members_of(runs)
    if len(members) < 2:
        raise InvalidValue(f"to compare takes two runs or more, got {len(members)}")
    _check(confidence=confidence, margin=margin, test=test, correction=correction)
    goal = checked_goal(goal)
    now = now_s()
    orders = parse_order(order_by or "")
    ranked, ranking = _ranked(members, orders, now)
    known = dict.fromkeys(name for member in ranked for name in member.metrics)
    texts = list(metrics)
    fields = [by] if isinstance(by, str) else list(by)
    first = orders[0].field if orders else None
    if not texts and (fields or at) and isinstance(first, Metric):
        texts = [first.name if at else f"{first.name}.{first.statistic.value}"]
        goal = goal or ("maximize" if orders[0].descending else "minimize")
    if not texts and (fields or at):
        names = ", ".join(repr(name) for name in known if not name.startswith(SYSTEM))
        raise InvalidValue(f"name the metric to compare by; the runs have {names[:400] or 'none'}")
    asked = [parse_measure(text, known, at=at, goal=goal) for text in texts]
    rows = tuple(MeasureRow(measure, measured(ranked, measure)) for measure in asked)
    judging = Judging(confidence, baseline, margin, test, correction)
    groupings = tuple(group_runs(ranked, fields, measure, judging, now) for measure in asked) if fields else ()
    front = _front(rows, groupings) if len(asked) > 1 else None
    return Comparison(
        ranked,
        sorted_by=(order_by or "").strip(),
        ranking=ranking,
        measures=rows,
        groupings=groupings,
        front=front,
    )


def _check(*, confidence: float, margin: float, test: str, correction: str) -> None:
    for name, value, words in (("test", test, TESTS), ("correction", correction, CORRECTIONS)):
        if value not in words:
            raise InvalidValue(f"{name} is {value!r:.80}; it must be {' or '.join(words)}")
    if not 0.5 <= confidence < 1:
        raise InvalidValue(f"confidence is {confidence!r:.80}; it must be at least 0.5 and below 1")
    if not (margin >= 0 and math.isfinite(margin)):
        raise InvalidValue(f"margin is {margin!r:.80}; it must be 0 or more")


def _front(rows: Sequence[MeasureRow], groupings: Sequence[Grouping]) -> Front:
    measures = [row.measure for row in rows]
    if not groupings:
        return front_of(measures, [row.values for row in rows])
    means = [
        {group.label: group.summary.mean for group in grouping.groups if group.summary is not None}
        for grouping in groupings
    ]
    return front_of(measures, means)


def _ranked(members: list[Member], orders: Sequence[Order], now: float) -> tuple[list[Member], tuple[Any, ...]]:
    for order in reversed(orders):  # sorting is stable, so the first order is applied last
        ranks = {member.id: _rank(value_of(member.record, order.field, now)) for member in members}
        having = [member for member in members if ranks[member.id] is not None]
        lacking = [member for member in members if ranks[member.id] is None]
        having.sort(key=lambda member: ranks[member.id] or (0,), reverse=order.descending)
        if order.descending:  # reversing turned the kinds round, too: numbers still come first
            having.sort(key=lambda member: (ranks[member.id] or (0,))[0])
        members = having + lacking
    if not orders:
        return members, ()
    return members, tuple(value_of(member.record, orders[0].field, now) for member in members)


def _rank(value: Any) -> tuple[Any, ...] | None:
    """Return what to sort a value by: numbers, then text, then bools; `None` for nothing and NaN."""
    match value:
        case None:
            return None
        case bool():
            return (2, value)
        case float() if math.isnan(value):
            return None
        case int() | float():
            return (0, value)
        case datetime():
            return (0, value.timestamp())
        case _:
            return (1, plain(value))


def _run_dict(member: Member) -> dict[str, Any]:
    record = member.record
    return {
        "id": record.id,
        "name": record.name,
        "project": record.project,
        "status": record.status.value,
        "started_at": member.started_at.isoformat(),
        "duration_s": member.duration_s,
    }


def _figure(summary: MetricSummary, figure: str) -> str:
    value = getattr(summary, figure)
    if value is None:
        return "nan"
    step = None if figure == "last" else getattr(summary, f"{figure}_step")
    return plain(value) if step is None else f"{plain(value)} @ {step}"
