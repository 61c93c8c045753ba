"""Runs folded into groups, such as the seeds of one configuration, and which group is better."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from runstone.comparison.differences import differences
from runstone.comparison.measure import Measure, measured
from runstone.comparison.members import Member
from runstone.errors import InvalidValue
from runstone.index.records import list_text, unescaped
from runstone.query.parser import parse_field
from runstone.query.table import plain, value_of
from runstone.statistics import Correction, Group, Summary, Test, Verdict, judge, summarize
from runstone.status import Status
from runstone.values import JSON

CONFIG = "config"
"""In place of a field: all params but seeds."""
SEEDS = frozenset("seed random_state random_seed seed_everything rng_seed fold replicate repeat".split())
"""How the names of params end in which runs of one group may differ: another seed is another throw of the dice."""
_MISSING = "(not set)"
_MOST_VERDICTS = 200
_MOST_NAMED = 6


@dataclass(frozen=True, slots=True)
class Judging:
    """How groups are compared.

    Attributes:
        confidence: Of intervals and verdicts.
        baseline: Label of the group that all others are compared with; `None`: each with each.
        margin: What a difference must exceed to matter.
        test: `t` or `permutation`.
        correction: Of p-values for many comparisons: `holm`, `bh` or `none`.
    """

    confidence: float = 0.95
    baseline: str | None = None
    margin: float = 0.0
    test: Test = "t"
    correction: Correction = "holm"


@dataclass(frozen=True, slots=True)
class GroupRow:
    """One group.

    Attributes:
        label: What it is called: its values.
        values: By field.
        run_ids: Its runs.
        sample: Their values, of those that have a finite one, by run id.
        summary: What they come down to; `None` where no run has a value.
    """

    label: str
    values: Mapping[str, JSON]
    run_ids: tuple[str, ...]
    sample: Mapping[str, float]
    summary: Summary | None


@dataclass(frozen=True, slots=True)
class Grouping:
    """Groups under one measure, the best first.

    Attributes:
        by: Fields.
        measure: What is compared.
        groups: Those without any value come last.
        verdicts: Two by two; those of the best first.
        made: How many comparisons the p-values are corrected for, about: those with two values or more on both sides.
        notes: What to know before they are believed.
        judging: How they were compared.
    """

    by: tuple[str, ...]
    measure: Measure
    groups: tuple[GroupRow, ...]
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]
    judging: Judging = field(default_factory=Judging)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "by": list(self.by),
            "metric": self.measure.label,
            "goal": self.measure.goal,
            "confidence": self.judging.confidence,
            "baseline": self.judging.baseline,
            "margin": self.judging.margin,
            "test": self.judging.test,
            "correction": self.judging.correction,
            "groups": [_group_dict(group) for group in self.groups],
            "verdicts": [{name: getattr(verdict, name) for name in verdict.__slots__} for verdict in self.verdicts],
            "notes": list(self.notes),
        }


def group_runs(
    members: Sequence[Member], by: Sequence[str], measure: Measure, judging: Judging, now: float
) -> Grouping:
    """Fold runs into groups and compare the groups.

    Runs of two groups with the same seed, and otherwise the same params, are partners, where every run of both groups
    has a seed and most have one partner: then what both owe to the seed does not blur the difference.

    Args:
        members: The runs.
        by: Fields, such as `params.model`; `config`: all params but seeds.
        measure: What is compared.
        judging: How.
        now: Seconds since the epoch, for the durations of runs that go on.

    Raises:
        InvalidFilter: a field does not parse.
        InvalidValue: no group is called as the baseline is.
        InvalidConfig: SciPy is not installed.
    """
    fields = _fields(members, by)
    values = {name: _column(members, name, now) for name in fields}
    rows: dict[str, list[Member]] = {}
    held: dict[str, dict[str, JSON]] = {}
    for place, member in enumerate(members):
        said = {name: column[place] for name, column in values.items()}
        label = _label(said)
        rows.setdefault(label, []).append(member)
        held.setdefault(label, {name: _jsonable(value) for name, value in said.items()})
    measures = measured(members, measure)
    groups = [_row(label, held[label], runs, measures, judging.confidence) for label, runs in rows.items()]
    sign = -1.0 if measure.is_maximized else 1.0
    groups.sort(key=lambda row: (row.summary is None, sign * row.summary.mean if row.summary is not None else 0.0))
    comparable = [row for row in groups if row.sample]
    if judging.baseline is not None and all(row.label != judging.baseline for row in comparable):
        labels = ", ".join(repr(row.label) for row in comparable[:_MOST_NAMED])
        raise InvalidValue(
            f"there is no group {judging.baseline!r:.120} with values to compare with; there is {labels}"
        )
    seeds = _seeds(members, fields)
    verdicts = judge(
        [Group(row.label, tuple(row.sample.values()), _partners(row, seeds)) for row in comparable],
        is_maximized=measure.is_maximized,
        baseline=judging.baseline,
        confidence=judging.confidence,
        margin=judging.margin,
        test=judging.test,
        correction=judging.correction,
        most=_MOST_VERDICTS,
    )
    notes = tuple(_notes(members, groups, rows, seeds, fields))
    return Grouping(tuple(by), measure, tuple(groups), tuple(verdicts), notes, judging)


def _fields(members: Sequence[Member], by: Sequence[str]) -> list[str]:
    """Return the fields to group by; `config` becomes all params that differ, but for seeds."""
    found: list[str] = []
    for name in by:
        if name != CONFIG:
            found.append(name)
            continue
        rows = differences({member.id: member.params for member in members}).rows
        found += [f"params.{row.name}" for row in rows if not is_seed(row.name)]
    return list(dict.fromkeys(found))


def _column(members: Sequence[Member], name: str, now: float) -> list[Any]:
    if name.startswith("params.") and any(name[7:] in member.params for member in members):
        return [member.params.get(name[7:], _Missing) for member in members]  # names as tables show them need no quotes
    wanted = parse_field(name)
    found = [value_of(member.record, wanted, now) for member in members]
    return [_Missing if value is None else value for value in found]


class _Missing:
    """What a run has under a name that it does not have: no value, `null` neither."""


def _label(values: Mapping[str, Any]) -> str:
    if len(values) == 1:
        return _shown(next(iter(values.values())))
    return (
        ", ".join(f"{unescaped(name).removeprefix('params.')}={_shown(value)}" for name, value in values.items())
        or "all"
    )


def _shown(value: Any) -> str:
    if value is _Missing:
        return _MISSING
    if value is None:
        return "null"
    text = list_text(value) if isinstance(value, (list, dict)) else plain(value)
    return text or '""'


def _jsonable(value: Any) -> JSON:
    if value is _Missing:
        return None
    return value.isoformat() if isinstance(value, datetime) else value


def _row(
    label: str, values: Mapping[str, JSON], runs: Sequence[Member], measures: Mapping[str, float], confidence: float
) -> GroupRow:
    sample = {run.id: measures[run.id] for run in runs if math.isfinite(measures.get(run.id, math.nan))}
    summary = summarize(list(sample.values()), confidence=confidence) if sample else None
    return GroupRow(label, values, tuple(run.id for run in runs), sample, summary)


def is_seed(name: str) -> bool:
    """Tell whether a param is one of those in which runs of a group may differ."""
    return name.rpartition(".")[2].lower() in SEEDS


def _seeds(members: Sequence[Member], fields: Sequence[str]) -> dict[str, Hashable]:
    """Return what each run that has a seed shares with its partners: seeds, and all params that are not grouped by.

    Params that are the same in all runs, and those that not every run has, tell no partners apart.
    """
    rows = differences({member.id: member.params for member in members}).rows
    names = [row.name for row in rows if f"params.{row.name}" not in fields and len(row.values) == len(members)]
    found: dict[str, Hashable] = {}
    for member in members:
        if any(is_seed(name) for name in member.params):
            told = dict.fromkeys([*(name for name in member.params if is_seed(name)), *names])
            found[member.id] = tuple((name, str(member.params.get(name))) for name in sorted(told))
    return found


def _partners(row: GroupRow, seeds: Mapping[str, Hashable]) -> tuple[Hashable, ...] | None:
    if any(run_id not in seeds for run_id in row.sample):
        return None
    return tuple(seeds[run_id] for run_id in row.sample)


def _notes(
    members: Sequence[Member],
    groups: Sequence[GroupRow],
    rows: Mapping[str, Sequence[Member]],
    seeds: Mapping[str, Hashable],
    fields: Sequence[str],
) -> list[str]:
    notes = []
    without = sum(len(row.run_ids) - len(row.sample) for row in groups)
    if without:
        notes.append(f"{_runs(without)} without a finite value {'is' if without == 1 else 'are'} left out")
    unfinished = sum(member.record.status is not Status.FINISHED for member in members)
    if unfinished:
        notes.append(f"{_runs(unfinished)} {'has' if unfinished == 1 else 'have'} not finished")
    grouped = {name.removeprefix("params.") for name in fields}
    varying: dict[str, None] = {}
    for runs in rows.values():
        if len(runs) > 1:
            found = differences({run.id: run.params for run in runs}).rows
            varying |= dict.fromkeys(row.name for row in found if not is_seed(row.name) and row.name not in grouped)
    if varying:
        names = ", ".join(map(unescaped, list(varying)[:_MOST_NAMED])) + (", …" if len(varying) > _MOST_NAMED else "")
        notes.append(f"within groups more than the seed differs: {names}; group by them, too, or filter")
    repeated = [
        row.label
        for row in groups
        if len({seeds[run_id] for run_id in row.sample if run_id in seeds})
        < sum(run_id in seeds for run_id in row.sample)
    ]
    if repeated and not varying:
        notes.append(
            f"the same seed occurs more than once in {', '.join(repeated[:_MOST_NAMED])}: such runs are not independent"
        )
    return notes


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count:,} runs"


def _group_dict(group: GroupRow) -> dict[str, Any]:
    summary = group.summary
    found: dict[str, Any] = {"label": group.label, "values": dict(group.values), "runs": list(group.run_ids)}
    found |= {"n": len(group.sample), "sample": dict(group.sample)}
    if summary is not None:
        interval = summary.interval
        found |= {name: getattr(summary, name) for name in ("mean", "median", "min", "max", "sd")}
        found |= {
            "low": interval.low if interval is not None else None,
            "high": interval.high if interval is not None else None,
            "interval": interval.method if interval is not None else None,
        }
    return found
