"""Which sampler `auto` is for the next point."""

from __future__ import annotations

import importlib.util
from statistics import median

from runstone_sweeps.record import SweepRecord, TrialState
from runstone_sweeps.space import Choice
from runstone_sweeps.spec import SweepSpec
from runstone_sweeps.spec.algorithms import Algorithm

TPE = Algorithm("tpe")
GP = Algorithm("gp")
# Below the first there is nothing to model, beyond the second a Gaussian process is slower and hardly better.
FIRST_TRIALS = 10
MOST_TRIALS = 250
SLOW_TRIAL_S = 60.0
# What asking may take of the time that a trial takes.
MOST_SHARE = 0.1


def choose(spec: SweepSpec, record: SweepRecord) -> Algorithm:
    """Return the sampler for the next point: a function of the config and of the trials that have ended.

    A Gaussian process finds better points in fewer trials where all parameters are numbers, but takes seconds for a
    point; TPE takes milliseconds and takes anything. So the former is for trials that take long enough.
    """
    if record.ended >= MOST_TRIALS:
        return TPE
    ended = [trial for trial in record.trials.values() if trial.state.is_ended]
    complete = [trial for trial in ended if trial.state is TrialState.COMPLETE]
    durations = [trial.duration_s for trial in complete if trial.duration_s is not None]
    if len(complete) < FIRST_TRIALS or not durations or not fits_gp(spec):
        return TPE
    # It does not learn from pruned trials.
    if 3 * sum(trial.state is TrialState.PRUNED for trial in ended) > len(ended):
        return TPE
    usual_s = median(durations)
    is_worth_it = usual_s >= SLOW_TRIAL_S or ask_s(len(complete), spec) <= MOST_SHARE * usual_s
    return GP if is_worth_it else TPE


def fits_gp(spec: SweepSpec) -> bool:
    """Tell whether a Gaussian process suits the space and can be had here."""
    space = spec.space
    is_numeric = not space.has_conditions and not any(isinstance(parameter, Choice) for parameter in space.searched)
    return is_numeric and len(spec.metrics) == 1 and importlib.util.find_spec("torch") is not None


def ask_s(trials: int, spec: SweepSpec) -> float:
    """Return about how many seconds a point of a Gaussian process takes; twice what
    `benchmarks/search.py` measured with one thread.

    Reckoned and not clocked, so that a search that is built again chooses as the one before did.
    """
    return (0.2 + 0.002 * trials) * (1 + len(spec.constraints))
