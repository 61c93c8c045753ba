"""Several sweeps side by side: what each found, how fast, at what cost. Reads records; changes nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from runstone_sweeps.record import SweepRecord, TrialRecord, TrialState
from runstone_sweeps.results.standings import best_so_far
from runstone_sweeps.results.text import counts_text, duration, energy, number, value_text
from runstone_sweeps.spec import SweepSpec


@dataclass(frozen=True, slots=True)
class Compared:
    """One of the sweeps.

    Attributes:
        record: What its events say.
        spec: What it searches.
        status: Whether it runs or how it ended, in a word.
    """

    record: SweepRecord
    spec: SweepSpec
    status: str

    @property
    def results(self) -> list[float]:
        """The results of the first metric: complete, feasible, finite, in the order of the trials."""
        return [
            trial.value
            for trial in self.record.trials.values()
            if trial.state is TrialState.COMPLETE
            and trial.is_feasible
            and trial.value is not None
            and math.isfinite(trial.value)
        ]


Lines = list[tuple[str, list[str]]]


def compare(sweeps: Sequence[Compared]) -> Lines:
    """Return what is the same and what differs: a title and a cell for each sweep, line by line.

    What compares results is there only where all sweeps have the same first metric and goal.
    """
    lines: Lines = [
        ("goal", [", ".join(f"{m.goal} {m.name}" for m in sweep.spec.metrics) for sweep in sweeps]),
        ("status", [sweep.status for sweep in sweeps]),
        ("search", [f"{s.spec.sampler.name}, pruner {s.spec.pruner.name}" for s in sweeps]),
        ("trials", [counts_text(sweep.record) for sweep in sweeps]),
        ("best", [_best(sweep) for sweep in sweeps]),
    ]
    if is_comparable(sweeps):
        lines += _races(sweeps)
    lines += [
        ("time at work", [duration(sweep.record.active_s) for sweep in sweeps]),
        ("time of trials, in all", [duration(_trial_s(sweep.record)) for sweep in sweeps]),
    ]
    for key, title in (("gpu_hours", "GPU hours"), ("energy_j", "energy"), ("cost", "cost")):
        spent = [{name: used for name, used, _ in sweep.record.spending()}[key] for sweep in sweeps]
        if any(spent):
            lines.append((title, [energy(used) if key == "energy_j" else f"{used:.3g}" for used in spent]))
    lines.append(("points also tried by the first", [_overlap(sweeps[0], sweep) for sweep in sweeps]))
    return lines + _differences(sweeps)


def is_comparable(sweeps: Sequence[Compared]) -> bool:
    """Tell whether the first metric and its goal are the same in all sweeps."""
    return len({(sweep.spec.metrics[0].name, sweep.spec.metrics[0].goal) for sweep in sweeps}) == 1


def best_of(
    values: Sequence[float], draws: int, *, is_maximized: bool, confidence: float = 0.95
) -> tuple[float, float]:
    """Return between which values the best of so many draws lies: the bootstrap's interval, without its noise.

    The best of `draws` values drawn from n with replacement is the k-th best or better with a probability of
    `1 - ((n - k) / n) ** draws`; its quantiles need no simulation.

    Args:
        values: Results, at least one.
        draws: How many are drawn, at least 1.
        is_maximized: Whether higher is better.
        confidence: Share of the draws that lie in the interval.

    Returns:
        The better end and the worse end.

    Source: Dodge et al., "Show Your Work: Improved Reporting of Experimental Results", EMNLP 2019.
    """
    ordered = sorted(values, reverse=is_maximized)
    count = len(ordered)

    def quantile(share: float) -> float:
        place = math.ceil(count * (1 - math.pow(1 - share, 1 / draws)) - 1e-12)
        return ordered[min(count, max(1, place)) - 1]

    return quantile((1 - confidence) / 2), quantile((1 + confidence) / 2)


def trials_to_reach(record: SweepRecord, level: float) -> tuple[int, float] | None:
    """Return how many trials had ended when the best was as good as `level`, and after how many seconds.

    The seconds are those of all trials until then, together; `None`: it never was.
    """
    best = {trial.number: value for trial, value in best_so_far(record)}
    spent = 0.0
    ended = sorted((t for t in record.trials.values() if t.state.is_ended), key=lambda t: t.ended_at or t.asked_at)
    for count, trial in enumerate(ended, 1):
        spent += _took_s(trial)
        value = best.get(trial.number)
        if value is not None and (value >= level if record.is_maximized else value <= level):
            return count, spent
    return None


def _races(sweeps: Sequence[Compared]) -> Lines:
    bests = [sweep.record.best.value for sweep in sweeps if sweep.record.best is not None]
    reached = [value for value in bests if value is not None]
    if len(reached) < len(sweeps):
        return []
    is_maximized = sweeps[0].record.is_maximized
    # The level that all of them reached: the worst of their bests.
    level = min(reached) if is_maximized else max(reached)
    found = [trials_to_reach(sweep.record, level) for sweep in sweeps]
    lines = [
        (f"trials to reach {number(level)}", ["" if got is None else str(got[0]) for got in found]),
        (f"time of trials to reach {number(level)}", ["" if got is None else duration(got[1]) for got in found]),
    ]
    draws = min(len(sweep.results) for sweep in sweeps)
    if draws:
        ends = [best_of(sweep.results, draws, is_maximized=is_maximized) for sweep in sweeps]
        said = [f"{number(better)} to {number(worse)}" for better, worse in ends]
        lines.append((f"best of {draws} results, 95 %", said))
    return lines


def _differences(sweeps: Sequence[Compared]) -> Lines:
    """Return the params of the best trials where they are not the same in all sweeps."""
    bests = [sweep.record.best for sweep in sweeps]
    names = dict.fromkeys(name for best in bests if best is not None for name in best.params)
    lines = []
    for name in names:
        cells = ["–" if best is None or name not in best.params else value_text(best.params[name]) for best in bests]
        if len(set(cells)) > 1:
            lines.append((f"best {name}", cells))
    return lines


def _best(sweep: Compared) -> str:
    best = sweep.record.best
    if best is None:
        return "none yet"
    spread = "" if best.spread is None else f" ± {number(best.spread)}"
    return f"{number(best.value)}{spread} (trial {best.number})"


def _overlap(first: Compared, other: Compared) -> str:
    if other is first:
        return "–"
    shared = _points(first.record) & _points(other.record)
    missing = {p.name for p in first.spec.space.parameters} ^ {p.name for p in other.spec.space.parameters}
    names = f"; only in one: {', '.join(sorted(missing))}" if missing else ""
    return f"{len(shared)}{names}"


def _points(record: SweepRecord) -> set[str]:
    return {json.dumps(trial.params, sort_keys=True) for trial in record.trials.values()}


def _trial_s(record: SweepRecord) -> float:
    return sum(_took_s(trial) for trial in record.trials.values())


def _took_s(trial: TrialRecord) -> float:
    return trial.usage.wall_s or trial.duration_s or 0.0
