"""When a sweep has found what it is going to find.

Optuna's own terminator is deprecated since 4.9 and knows neither noise nor several metrics, so this is a rule of ours:
patience, or the gain that further trials can be expected to bring.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from runstone_sweeps.record import SweepRecord, TrialRecord, TrialState
from runstone_sweeps.spec import SweepSpec
from runstone_sweeps.spec.options import Terminator
from runstone_sweeps.study.gain import expected_gain

# The gain is reckoned for so many further trials.
AHEAD = 10
# What counts as an improvement by default, as a share of the range from the tenth to the ninetieth percentile.
GAIN_SHARE = 1e-3


def reason_to_end(spec: SweepSpec, record: SweepRecord) -> str | None:
    """Return why further trials are not worth it, in one line; `None`: they are, or it cannot be told yet.

    Args:
        spec: The config with its terminator.
        record: The trials.
    """
    rule = spec.terminator
    if rule is None:
        return None
    complete = [
        trial
        for trial in record.trials.values()
        if trial.state is TrialState.COMPLETE and trial.is_feasible and trial.values is not None
    ]
    complete.sort(key=lambda trial: (trial.ended_at or 0.0, trial.number))
    signs = [1.0 if metric.goal == "minimize" else -1.0 for metric in spec.metrics]
    losses = [[s * v for s, v in zip(signs, trial.values or (), strict=True)] for trial in complete]
    losses = [loss for loss in losses if all(map(math.isfinite, loss))]
    if len(losses) < max(rule.min_trials, 2):
        return None
    if len(signs) > 1:
        return _by_front(rule, losses)
    return _by_best(rule, [loss[0] for loss in losses], _noise(complete))


def _by_best(rule: Terminator, losses: list[float], noise: float | None) -> str | None:
    least = rule.min_gain
    if least is None:
        least = noise if noise is not None else GAIN_SHARE * _range(losses)
    best = min(losses)
    if rule.patience is not None:
        if len(losses) <= rule.patience:
            return None
        gained = min(losses[: -rule.patience]) - best
        if gained > least:
            return None
        return f"the last {rule.patience} trials gained {gained:.3g}, which is not more than {least:.3g}"
    if least <= 0:
        return f"all {len(losses)} results are the same" if best == max(losses) else None
    # Where the last trials gained something, so may the next, whatever the model says.
    waited = max(AHEAD, len(losses) // 4)
    if min(losses[:-waited], default=math.inf) - best > least:
        return None
    gain = expected_gain(losses, best=best, trials=AHEAD)
    if gain >= least:
        return None
    return f"{AHEAD} more trials are expected to gain {gain:.2g}, which is less than {least:.2g}"


def _by_front(rule: Terminator, losses: list[list[float]]) -> str | None:
    """Decide by whether new trials still extend the Pareto front, by more than the least gain in some metric."""
    columns = [list(column) for column in zip(*losses, strict=True)]
    least = [GAIN_SHARE * _range(column) if rule.min_gain is None else rule.min_gain for column in columns]
    patience = rule.patience or max(2 * AHEAD, len(losses) // 2)
    front: list[list[float]] = []
    last = 0
    for place, loss in enumerate(losses):
        if any(all(o <= v + e for o, v, e in zip(other, loss, least, strict=True)) for other in front):
            continue
        last = place
        front = [f for f in front if not all(v <= o for v, o in zip(loss, f, strict=True))] + [loss]
    if len(losses) - 1 - last < patience:
        return None
    return f"none of the last {len(losses) - 1 - last} trials extended the Pareto front"


def _noise(trials: Sequence[TrialRecord]) -> float | None:
    """Return the standard error of a result by the replicates; `None` without any.

    Source: stopping where the gain falls below the noise: Makarova et al., "Automatic Termination for Hyperparameter
    Optimization", AutoML 2022.
    """
    errors = [trial.spread / math.sqrt(len(trial.runs)) for trial in trials if trial.spread]
    return median(errors) if errors else None


def _range(values: Sequence[float]) -> float:
    """Return the distance from the tenth to the ninetieth percentile: one diverged trial does not move it."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return ordered[round(0.9 * last)] - ordered[round(0.1 * last)]
