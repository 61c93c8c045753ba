"""What differs between runs, side by side. Knows values, no files and no terminal."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runstone.errors import InvalidValue
from runstone.index.conditions import Attribute, Order
from runstone.names import SYSTEM
from runstone.params import flatten_params, is_equal
from runstone.query.parser import parse_order
from runstone.query.table import plain, recorded_value
from runstone.runinfo import RunInfo
from runstone.values import JSON, MetricSummary

# What of the environment snapshot says how a run came about: sections, and what in them changes with every process
# or only names one piece of hardware among its like.
_TELLING = "identity python os git packages cpu memory cgroup gpu frameworks process container env blas".split()
_NOISE = frozenset(
    "pid ppid started_at available_bytes uptime_s boot_id path id uuid serial index diff unreadable flags connections "
    "visible bar1_bytes untracked describe max_mhz vbios".split()
)


@dataclass(frozen=True, slots=True)
class Difference:
    """One name under which runs have different values.

    Attributes:
        name: Such as `model.lr`.
        values: By run id; a run without a value is not among them.
    """

    name: str
    values: Mapping[str, JSON]


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric in several runs; `summaries` by run id, without the runs that never logged it."""

    name: str
    summaries: Mapping[str, MetricSummary]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs side by side, in the order in which they rank.

    Attributes:
        runs: The runs; the first is the best where `sorted_by` is set.
        sorted_by: The order that ranks them, such as `metrics.val/acc.max desc`; empty: as they were given.
        ranking: What each run has under the first field of that order.
        params, tags, environment: What differs.
        equal_params, equal_tags, equal_environment: How many names have one value in all runs.
        metrics: All metrics but those of the system, by name.
    """

    runs: tuple[RunInfo, ...]
    sorted_by: str
    ranking: tuple[Any, ...]
    params: tuple[Difference, ...]
    equal_params: int
    tags: tuple[Difference, ...]
    equal_tags: int
    environment: tuple[Difference, ...]
    equal_environment: int
    metrics: tuple[MetricRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values. NaN and ±Inf stay floats."""
        figures = ("last", "min", "min_step", "max", "max_step", "mean", "count")
        return {
            "sorted_by": self.sorted_by or None,
            "runs": [
                {
                    "id": run.id,
                    "name": run.name,
                    "project": run.project,
                    "status": run.status.value,
                    "started_at": run.started_at.isoformat(),
                    "duration_s": run.duration_s,
                }
                for run in self.runs
            ],
            "params": {row.name: dict(row.values) for row in self.params},
            "equal_params": self.equal_params,
            "tags": {row.name: dict(row.values) for row in self.tags},
            "equal_tags": self.equal_tags,
            "environment": {row.name: dict(row.values) for row in self.environment},
            "equal_environment": self.equal_environment,
            "metrics": {
                row.name: {
                    run_id: {figure: getattr(summary, figure) for figure in figures}
                    for run_id, summary in row.summaries.items()
                }
                for row in self.metrics
            },
        }

    def rows(self) -> list[tuple[str, str, list[str]]]:
        """Return the whole as text: `(section, name, one cell a run)`, sections in order."""
        found: list[tuple[str, str, list[str]]] = []
        for section, differences in (("params", self.params), ("tags", self.tags), ("environment", self.environment)):
            for row in differences:
                found.append((section, row.name, [_cell(row.values, run.id) for run in self.runs]))
        for metric in self.metrics:
            summaries = [metric.summaries.get(run.id) for run in self.runs]
            for figure in ("last", "min", "max"):
                cells = ["" if summary is None else _figure(summary, figure) for summary in summaries]
                found.append(("metrics", f"{metric.name} {figure}", cells))
        return found

    def to_markdown(self) -> str:
        """Return the comparison as Markdown tables."""
        lines = []
        if self.sorted_by:
            lines += [f"Ranked by `{self.sorted_by}`.", ""]
        head = ["", *(_markdown(run.name) for run in self.runs)]
        facts = [
            ("id", [run.id for run in self.runs]),
            ("project", [run.project for run in self.runs]),
            ("status", [run.status.value for run in self.runs]),
        ]
        lines += [_line(head), _line(["---"] * len(head))]
        lines += [_line([name, *map(_markdown, cells)]) for name, cells in facts]
        section = ""
        for row_section, name, cells in self.rows():
            if row_section != section:
                section = row_section
                lines += ["", f"### {section.capitalize()}{self._equal_note(section)}", ""]
                lines += [_line(head), _line(["---"] * len(head))]
            lines.append(_line([_markdown(name), *map(_markdown, cells)]))
        return "\n".join(lines) + "\n"

    def _equal_note(self, section: str) -> str:
        equal = {"params": self.equal_params, "tags": self.equal_tags, "environment": self.equal_environment}
        return f" ({equal[section]} equal)" if equal.get(section) else ""

    def __repr__(self) -> str:
        """Say what is compared in one line."""
        names = ", ".join(run.name for run in self.runs[:6])
        return f"<Comparison of {names}: {len(self.params)} params differ, {len(self.metrics)} metrics>"

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(run.name)}</th>" for run in self.runs)
        body = "".join(
            f"<tr><th>{html.escape(section)}</th><td>{html.escape(name)}</td>"
            + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
            + "</tr>"
            for section, name, cells in self.rows()
        )
        return f"<table><thead><tr><th></th><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"


def compare(runs: Sequence[RunInfo], *, order_by: str | None = None) -> Comparison:
    """Put runs side by side: params, tags and environment where they differ, and all metrics.

    Args:
        runs: Two or more runs, such as a `RunTable`; a run given twice counts once.
        order_by: What ranks them, such as `"metrics.val/acc.max desc"`; default: as given. Runs without the
            value, or with NaN, come last.

    Raises:
        InvalidFilter: `order_by` does not parse.
        InvalidValue: there are fewer than two runs.
    """
    different = list({run.id: run for run in runs}.values())
    if len(different) < 2:
        raise InvalidValue(f"to compare takes two runs or more, got {len(different)}")
    orders = parse_order(order_by or "")
    ranked = _ranked(different, orders)
    params, equal_params = _differences(ranked, lambda run: flatten_params(run.params))
    tags, equal_tags = _differences(ranked, lambda run: run.tags)
    environment, equal_environment = _differences(ranked, lambda run: _telling(run.environment))
    names = sorted({name for run in ranked for name in run.metrics if not name.startswith(SYSTEM)})
    metrics = tuple(
        MetricRow(name, {run.id: run.metrics[name] for run in ranked if name in run.metrics}) for name in names
    )
    return Comparison(
        runs=tuple(ranked),
        sorted_by=(order_by or "").strip(),
        ranking=tuple(_value(run, orders[0]) for run in ranked) if orders else (),
        params=params,
        equal_params=equal_params,
        tags=tags,
        equal_tags=equal_tags,
        environment=environment,
        equal_environment=equal_environment,
        metrics=metrics,
    )


def _ranked(runs: list[RunInfo], orders: Sequence[Order]) -> list[RunInfo]:
    for order in reversed(orders):  # sorting is stable, so the first order is applied last
        values = {run.id: _value(run, order) for run in runs}
        having = [run for run in runs if _rank(values[run.id]) is not None]
        lacking = [run for run in runs if _rank(values[run.id]) is None]
        having.sort(key=lambda run: _rank(values[run.id]) or (0,), reverse=order.descending)
        if order.descending:  # reversing turned the kinds round, too: numbers still come first
            having.sort(key=lambda run: (_rank(values[run.id]) or (0,))[0])
        runs = having + lacking
    return runs


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
        case _:
            return (1, plain(value))


def _value(run: RunInfo, order: Order) -> Any:
    field = order.field
    if not isinstance(field, Attribute):
        return recorded_value(field, params=run.params, tags=run.tags, metrics=run.metrics)
    match field.name:
        case "duration":
            return run.duration_s
        case "attempts":
            return len(run.attempts)
        case "failure":
            return f"{run.failure.type}: {run.failure.message}" if run.failure else None
        case "started_at" | "ended_at":
            moment = getattr(run, field.name)
            return moment.timestamp() if moment is not None else None
        case "status":
            return run.status.value
        case name:
            return getattr(run, name)


def _differences(
    runs: Sequence[RunInfo], values_of: Callable[[RunInfo], Mapping[str, JSON]]
) -> tuple[tuple[Difference, ...], int]:
    """Return the names whose values are not the same in all runs, in order of first sight, and how many are."""
    of_run = {run.id: values_of(run) for run in runs}
    found, equal = [], 0
    for name in dict.fromkeys(name for values in of_run.values() for name in values):
        values = {run_id: values[name] for run_id, values in of_run.items() if name in values}
        first = next(iter(values.values()))
        if len(values) == len(runs) and all(is_equal(first, value) for value in values.values()):
            equal += 1
        else:
            found.append(Difference(name, values))
    return tuple(found), equal


def _telling(environment: Mapping[str, Any] | None) -> dict[str, JSON]:
    """Return what an environment snapshot says of how the run came about, under dotted names."""
    found: dict[str, JSON] = {}
    for section in _TELLING:
        value = (environment or {}).get(section)
        if section == "packages":
            installed = value.get("installed") if isinstance(value, dict) else None
            entries = [entry for entry in installed or () if isinstance(entry, dict)]
            value = {str(entry.get("name")): entry.get("version") for entry in entries}
        for name, inner in flatten_params({section: value}).items():
            if inner not in (None, [], {}) and _NOISE.isdisjoint(name.split(".")):
                found[name] = inner
    return found


def _cell(values: Mapping[str, JSON], run_id: str) -> str:
    if run_id not in values:
        return ""
    return "null" if values[run_id] is None else plain(values[run_id])


def _figure(summary: MetricSummary, figure: str) -> str:
    value = getattr(summary, figure)
    if value is None:
        return "nan"
    step = None if figure == "last" else getattr(summary, f"{figure}_step")
    return plain(value) if step is None else f"{plain(value)} @ {step}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown(text: str) -> str:
    """Return text as one cell of a Markdown table: nothing in it is markup."""
    text = "".join(c if c.isprintable() else "·" for c in text)
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#~" else c for c in text)


__all__ = ["Comparison", "Difference", "MetricRow", "compare"]
