"""A sweep as an Optuna study, for Optuna's own tools and plots."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import optuna
from optuna import Study as Study
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from runstone_sweeps.record import SweepRecord, TrialRecord, TrialState
from runstone_sweeps.space import Choice, Drawn, Real, Searched, Whole, label
from runstone_sweeps.spec import SweepSpec
from runstone_sweeps.study.memory import Memory, naive_utc, quiet_optuna
from runstone_sweeps.study.pruners import STATES


def to_optuna(spec: SweepSpec, record: SweepRecord) -> optuna.Study:
    """Return a sweep as a plain study in memory.

    Every trial is there under its number: parameters as they were given to it, results, reports, constraints, times.
    Parameters that Optuna cannot hold, values that are no longer among a parameter's choices, and the ids of its
    runs are in the user attributes of a trial. A number outside of an edited range widens that trial's range.

    Args:
        spec: The config as it is now.
        record: The trials.
    """
    with quiet_optuna():
        study = optuna.create_study(study_name=record.name or None, directions=[m.goal for m in spec.metrics])
        study.set_metric_names([metric.name for metric in spec.metrics])
        study.set_user_attr("sweep_id", record.sweep_id)
        for trial in frozen_trials(spec, record):
            study.add_trial(trial)
    return study


def display_study(spec: SweepSpec, record: SweepRecord) -> optuna.Study:
    """Return the same study for looking only, made in a hundredth of the time."""
    memory = Memory()
    with quiet_optuna():
        study = optuna.create_study(study_name="display", directions=[m.goal for m in spec.metrics], storage=memory)
        study.set_metric_names([metric.name for metric in spec.metrics])
    for trial in frozen_trials(spec, record):
        memory.add(trial)
    return study


def frozen_trials(spec: SweepSpec, record: SweepRecord) -> Iterator[FrozenTrial]:
    """Yield every trial as Optuna keeps it, in the order of the numbers; one whose event was lost has failed."""
    freezer = Freezer(spec)
    for number in range(max(record.trials, default=-1) + 1):
        yield freezer.freeze(number, record.trials.get(number))


class Freezer:
    """Turns trials of one sweep into Optuna's."""

    def __init__(self, spec: SweepSpec) -> None:
        self._known = {parameter.name: parameter for parameter in spec.space.searched}
        self._usual = {name: shown_distribution(parameter) for name, parameter in self._known.items()}
        self._metrics = len(spec.metrics)

    def freeze(self, number: int, trial: TrialRecord | None) -> FrozenTrial:
        """Return a trial as Optuna keeps it; one whose event was lost, `None`, has failed."""
        if trial is None:
            return _frozen(number, OptunaState.FAIL, user_attrs={"reason": "its record was lost"})
        params, distributions, others = {}, {}, {}
        for name, value in trial.params.items():
            parameter = self._known.get(name)
            fitting = None if parameter is None else _fitting(parameter, self._usual[name], value)
            if fitting is None:
                others[name] = value
            else:
                params[name], distributions[name] = label(value), fitting
        return _with_times(_told(trial, params, distributions, others, self._metrics), trial)


def _told(
    trial: TrialRecord,
    params: dict[str, Any],
    distributions: dict[str, BaseDistribution],
    others: dict[str, Any],
    metrics: int,
) -> FrozenTrial:
    attrs: dict[str, Any] = {"run_id": trial.run_id}
    if len(trial.runs) > 1:
        attrs["run_ids"] = [run.run_id for run in trial.runs]
    if others:
        attrs["parameters"] = others
    if trial.reason:
        attrs["reason"] = trial.reason
    values = list(trial.own_values) if trial.state is TrialState.COMPLETE and trial.own_values is not None else None
    if trial.state is TrialState.PRUNED and metrics == 1 and trial.value is not None:
        values = [trial.value]
    return _frozen(
        trial.number,
        STATES[trial.state],
        values=values,
        params=params,
        distributions=distributions,
        reports=trial.reports,
        user_attrs=attrs,
        system_attrs={f"constraints:{place}": violation for place, violation in enumerate(trial.constraints)},
    )


def _frozen(
    number: int,
    state: OptunaState,
    *,
    values: list[float] | None = None,
    params: dict[str, Any] | None = None,
    distributions: dict[str, BaseDistribution] | None = None,
    reports: dict[int, float] | None = None,
    user_attrs: dict[str, Any],
    system_attrs: dict[str, Any] | None = None,
) -> FrozenTrial:
    start = naive_utc(0.0)
    return FrozenTrial(
        number=number,
        trial_id=number,
        state=state,
        value=None,
        values=values,
        params=params or {},
        distributions=distributions or {},
        intermediate_values=dict(reports or {}),
        user_attrs=user_attrs,
        system_attrs=system_attrs or {},
        datetime_start=start,
        datetime_complete=start if state.is_finished() else None,
    )


def _with_times(frozen: FrozenTrial, trial: TrialRecord) -> FrozenTrial:
    frozen.datetime_start = naive_utc(trial.started_at or trial.asked_at)
    if frozen.state.is_finished():
        frozen.datetime_complete = naive_utc(trial.ended_at or trial.started_at or trial.asked_at)
    return frozen


def shown_distribution(parameter: Searched) -> BaseDistribution:
    """Return the distribution of a parameter's own values, where a sampler may see their quantiles."""
    match parameter:
        case Choice():
            return CategoricalDistribution([label(value) for value in parameter.values])
        case Drawn():
            low, high = float(parameter.from_label(0.0)), float(parameter.from_label(1.0))
            if parameter.is_whole:
                return IntDistribution(int(low), int(high), log=False)
            return FloatDistribution(low, high, log=parameter.law.startswith("log_") and low > 0)
        case Real():
            return FloatDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)
        case Whole():
            return IntDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)


def _fitting(parameter: Searched, usual: BaseDistribution, value: Any) -> BaseDistribution | None:
    """Return the usual distribution, or a wider one that holds a value; `None`: there is none."""
    if parameter.holds(value):
        return usual
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(parameter, Choice) or not is_number:
        return None
    if isinstance(usual, IntDistribution):
        if value != int(value) or (usual.log and value < 1):
            return None
        return IntDistribution(min(usual.low, int(value)), max(usual.high, int(value)), log=usual.log)
    if not isinstance(usual, FloatDistribution) or (usual.log and value <= 0):
        return None
    return FloatDistribution(min(usual.low, value), max(usual.high, value), log=usual.log)
