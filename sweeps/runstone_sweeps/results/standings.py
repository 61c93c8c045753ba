"""Where the trials of a sweep stand: ranked, best so far, and in the words that a table has for them."""

from __future__ import annotations

from runstone_sweeps.record import SweepRecord, TrialRecord, TrialState
from runstone_sweeps.results.text import STATES, clean, number
from runstone_sweeps.spec import SweepSpec


def ranked_rows(record: SweepRecord) -> list[tuple[int | None, TrialRecord]]:
    """Return all trials: the complete ones with their rank, then pruned, failed and unfinished ones."""
    ranked = record.ranked()
    rest = [trial for trial in record.trials.values() if trial.state is not TrialState.COMPLETE]
    rest.sort(key=lambda trial: (STATES.index(trial.state), trial.number))
    return [*enumerate(ranked, 1), *((None, trial) for trial in rest)]


def best_so_far(record: SweepRecord) -> list[tuple[TrialRecord, float]]:
    """Return each trial that ended, in the order of their ends, with the best result of the first metric by then.

    Those before the first result are left out; trials that break a constraint improve nothing.
    """
    ended = [trial for trial in record.trials.values() if trial.state.is_ended]
    ended.sort(key=lambda trial: (trial.ended_at or trial.asked_at, trial.number))
    better = max if record.is_maximized else min
    best: float | None = None
    found = []
    for trial in ended:
        if trial.state is TrialState.COMPLETE and trial.value is not None and trial.is_feasible:
            best = trial.value if best is None else better(best, trial.value)
        if best is not None:
            found.append((trial, best))
    return found


def metric_names(record: SweepRecord) -> list[str]:
    """Return the names of the sweep's metrics, in order."""
    metrics = record.created.get("metrics") or [{"name": record.created.get("metric", "value")}]
    return [str(metric["name"]) for metric in metrics]


def goals_text(spec: SweepSpec) -> str:
    """Return `minimize val/loss, maximize val/acc`."""
    return ", ".join(f"{metric.goal} {clean(metric.name)}" for metric in spec.metrics)


def state_text(trial: TrialRecord) -> str:
    """Return a trial's state in words, with what is special about it."""
    if trial.state is TrialState.COMPLETE and not trial.is_feasible:
        return "infeasible"
    if trial.same_as is not None and trial.state.is_ended:
        return f"{trial.state} (reused)"
    return f"{trial.state} (audited)" if trial.is_audited else str(trial.state)


def values_text(trial: TrialRecord, count: int) -> list[str]:
    """Return the trial's results, one for each of `count` metrics."""
    values = trial.values or (() if trial.value is None else (trial.value,))
    return [number(value) for value in values[:count]] + [""] * (count - len(values))


def legend(record: SweepRecord) -> list[str]:
    """Return what the marks of the leaderboard mean, as far as there are any."""
    trials = record.trials.values()
    lines = []
    if len(record.goals) > 1:
        lines.append("* on the Pareto front: no other trial is better in every metric")
    if any(not trial.is_feasible for trial in trials):
        lines.append("infeasible: breaks a constraint, by as much as stands in that column")
    if any(trial.spread is not None for trial in trials):
        lines.append("±: standard deviation of the first metric over the replicates (their number)")
    if any(trial.same_as is not None for trial in trials):
        lines.append("= N: the same point as trial N, whose result was taken")
    return lines
