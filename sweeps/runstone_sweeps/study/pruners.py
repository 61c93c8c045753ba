"""Which trials are not worth going on: Optuna's pruners on the one metric that is pruned on, and how often they err.

Kept apart from what the sampler sees: Optuna refuses to prune where there are several metrics, and the curves of
trials that lie outside of an edited space still tell how a good trial goes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.trial import TrialState as OptunaState

from runstone import InvalidConfig
from runstone_sweeps.record import SweepRecord, TrialRecord, TrialState
from runstone_sweeps.spec import Metric
from runstone_sweeps.spec.algorithms import PRUNERS, Algorithm
from runstone_sweeps.study.memory import Memory, new_trial, quiet_optuna

STATES = {
    TrialState.WAITING: OptunaState.RUNNING,  # it has been asked for and will be told
    TrialState.RUNNING: OptunaState.RUNNING,
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
}
# Pruners read every complete trial at every report. The first ones say how a trial went without a search, the last
# ones how it goes now; in between they add nothing but time.
MOST_COMPARED = 1_000


class Judge:
    """Decides on trials by the reports of one metric."""

    def __init__(self, pruner: Algorithm, metric: Metric, index: int, *, seed: int, record: SweepRecord) -> None:
        """Take all reports and results of a record.

        Args:
            pruner: What decides.
            metric: What is reported.
            index: Position of its result in the results of a trial.
            seed: Seed of the sweep.
            record: The trials so far.

        Raises:
            InvalidConfig: Optuna refuses an option.
        """
        self._index = index
        self._memory = Memory()
        with quiet_optuna():
            study = optuna.create_study(
                study_name=f"sweep-{seed}",  # Hyperband derives a trial's bracket from it
                direction=metric.goal,
                storage=self._memory,
                pruner=build_pruner(pruner),
            )
            self._study = _Compared(study.study_name, self._memory, pruner=study.pruner)
        for number in range(max(record.trials, default=-1) + 1):
            trial = record.trials.get(number)
            # The event of one that is missing was lost; the numbers of the others must stay.
            self._memory.add(new_trial(OptunaState.FAIL) if trial is None else self._frozen(trial))
        complete = [t for t in record.trials.values() if t.state is TrialState.COMPLETE and t.reports]
        first = min(complete, key=lambda trial: (trial.ended_at or 0.0, trial.number), default=None)
        self._is_settled = first is not None
        _settle(self._study.pruner, self._study, None if first is None else max(first.reports))

    def bracket(self, number: int) -> int | None:
        """Return which bracket of Hyperband a trial is in; `None` with any other pruner."""
        pruner = self._study.pruner
        if not isinstance(pruner, optuna.pruners.HyperbandPruner):
            return None
        return pruner._get_bracket_id(self._study, self._memory.get_trial(number))

    def begin(self) -> None:
        """Take in the next trial."""
        self._memory.add(new_trial(OptunaState.RUNNING))

    def report(self, trial: TrialRecord) -> int | None:
        """Take in what is new in a trial's reports.

        Returns:
            The step at which the pruner decides against the trial, or `None`.
        """
        reported = self._memory.get_trial(trial.number).intermediate_values
        if not reported.keys() <= trial.reports.keys():
            # A new attempt made earlier reports void; what was decided on them is void too.
            self._memory.put(trial.number, intermediate_values=dict(trial.reports), system_attrs=dict(trial.attrs))
            return None
        if len(reported) == len(trial.reports):
            return None
        decided: int | None = None
        for step in sorted(trial.reports.keys() - reported.keys()):
            self._memory.set_trial_intermediate_value(trial.number, step, trial.reports[step])
            # Asked for every report, so that the answer does not depend on how many came at once.
            with quiet_optuna():
                is_hopeless = self._study.pruner.prune(self._study, self._memory.get_trial(trial.number))
            if decided is None and is_hopeless:
                decided = step
        return decided

    def tell(self, number: int, state: TrialState, values: tuple[float, ...] | None) -> dict[int, float]:
        """Take in how a trial ended.

        Returns:
            Its reports.
        """
        trial = self._memory.get_trial(number)
        value = [values[self._index]] if values is not None and state is TrialState.COMPLETE else None
        self._memory.put(number, state=STATES[state], values=value)
        if not self._is_settled and value is not None and trial.intermediate_values:
            self._is_settled = True
            _settle(self._study.pruner, self._study, max(trial.intermediate_values))
        return trial.intermediate_values

    def take_noted(self, number: int) -> dict[str, Any]:
        """Return what the pruner noted with a trial since this was last asked."""
        return self._memory.take_noted(number)

    def _frozen(self, trial: TrialRecord) -> optuna.trial.FrozenTrial:
        is_complete = trial.state is TrialState.COMPLETE and trial.own_values is not None
        values = [trial.own_values[self._index]] if is_complete and trial.own_values else None
        return new_trial(STATES[trial.state], values=values, reports=trial.reports, attrs=trial.attrs)


class _Compared(optuna.Study):
    """The trials that a pruner compares with: all, or the first and the last of very many."""

    def get_trials(self, deepcopy: bool = True, states: Any = None) -> list[optuna.trial.FrozenTrial]:
        return self._get_trials(deepcopy, states)

    def _get_trials(
        self, deepcopy: bool = True, states: Any = None, use_cache: bool = False
    ) -> list[optuna.trial.FrozenTrial]:
        trials = self._storage.trials  # type: ignore[attr-defined]  # it is always a Memory
        if len(trials) > MOST_COMPARED:
            trials = trials[: MOST_COMPARED // 2] + trials[-MOST_COMPARED // 2 :]
        return [trial for trial in trials if states is None or trial.state in states]


def _settle(pruner: BasePruner | None, study: optuna.Study, last_step: int | None) -> None:
    """Settle what a pruner takes from the trials where it is `auto`: by the first trial that is complete.

    Left alone it settles when it is next asked, by whatever is complete then: a search that was built again would
    have asked at another time.
    """
    match pruner:
        case optuna.pruners.PatientPruner():
            _settle(pruner._wrapped_pruner, study, last_step)
        case optuna.pruners.SuccessiveHalvingPruner() if pruner._min_resource is None and last_step is not None:
            pruner._min_resource = max(last_step // 100, 1)
        case optuna.pruners.HyperbandPruner() if not pruner._pruners:
            if pruner._max_resource == "auto" and last_step is not None:
                pruner._max_resource = last_step + 1
            if pruner._max_resource != "auto":
                pruner._try_initialization(study)


def build_pruner(algorithm: Algorithm) -> BasePruner:
    """Return Optuna's pruner of that name.

    Raises:
        InvalidConfig: Optuna refuses an option.
    """
    options = dict(algorithm.options)
    if algorithm.name == "patient" and options["wrapped_pruner"] is not None:
        options["wrapped_pruner"] = build_pruner(options["wrapped_pruner"])
    class_name = PRUNERS[algorithm.name].optuna_class
    built: BasePruner = build(optuna.pruners, str(class_name), options, f"pruner {algorithm.name}")
    return built


def build(module: Any, class_name: str, options: Mapping[str, Any], what: str) -> Any:
    """Return an object of Optuna; what it refuses is a mistake of the config.

    Raises:
        InvalidConfig: an option is refused, or a library that it needs is missing.
    """
    try:
        return getattr(module, class_name)(**options)
    except (ValueError, TypeError, AssertionError) as error:
        raise InvalidConfig(f"{what}: {' '.join(str(error).split())}") from None
    except ImportError as error:
        raise InvalidConfig(f"{what}: needs a library that is not installed: {error}") from None


@dataclass(frozen=True, slots=True)
class PrunerAudit:
    """How often the pruner was wrong, as far as the trials tell that ran to their end although it was against them.

    Attributes:
        n: How many there were.
        wrong: How many of them ended better than the best of all other trials.
        above_median: How many ended better than the median of all other trials.
        rate: `wrong / n`; `nan` without any.
        interval: Between which rates the true one lies, with 95 % confidence.
    """

    n: int
    wrong: int
    above_median: int
    rate: float
    interval: tuple[float, float]


def pruner_audit(record: SweepRecord, metric: Metric, index: int = 0) -> PrunerAudit:
    """Compare the audited trials with the others, on the metric that is pruned on.

    Args:
        record: The trials.
        metric: The metric that is pruned on.
        index: Its position in the results of a trial.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.
    """
    sign = 1.0 if metric.goal == "minimize" else -1.0
    trials = record.trials.values()
    audited = [sign * t.audit_values[index] for t in trials if t.is_audited and t.audit_values]
    others = [sign * t.values[index] for t in trials if t.state is TrialState.COMPLETE and t.values]
    others.sort()
    wrong = sum(value < others[0] for value in audited) if others else 0
    above_median = sum(value < others[len(others) // 2] for value in audited) if others else 0
    n = len(audited)
    return PrunerAudit(n, wrong, above_median, wrong / n if n else math.nan, _wilson(wrong, n))


def _wilson(hits: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the 95 % interval of a share of which `hits` out of `n` were seen."""
    if n == 0:
        return 0.0, 1.0
    rate = hits / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)
