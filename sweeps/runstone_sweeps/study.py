"""The search itself, on Optuna in memory. The only file that imports Optuna.

Nothing here is on disk: a `Search` is built from a sweep's record, and built again on resume. What a
sampler proposes is a function of the sweep's seed, the number of the trial and the results told before,
so a search that was built again goes on as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.samplers._lazy_random_state import LazyRandomState
from optuna.trial import FrozenTrial, Trial
from optuna.trial import TrialState as OptunaState

from runstone import InvalidConfig
from runstone_sweeps.algorithms import PRUNERS, SAMPLERS, Algorithm
from runstone_sweeps.record import SweepRecord, TrialRecord, TrialState
from runstone_sweeps.space import Choice, Real, Searched, Space

if TYPE_CHECKING:
    from runstone_sweeps.spec import Metric, SweepSpec

_STATES = {
    TrialState.WAITING: OptunaState.RUNNING,  # it has been asked for and will be told
    TrialState.RUNNING: OptunaState.RUNNING,
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
}
# These warn that a parameter is drawn at random because the sampler cannot model it; docs say so once.
_QUIET = {
    "gp": {"warn_independent_sampling": False},
    "cmaes": {"warn_independent_sampling": False},
    "qmc": {"warn_independent_sampling": False, "warn_asynchronous_seeding": False},
}
_CROSSOVERS = {
    "uniform": "UniformCrossover",
    "blxalpha": "BLXAlphaCrossover",
    "spx": "SPXCrossover",
    "sbx": "SBXCrossover",
    "vsbx": "VSBXCrossover",
    "undx": "UNDXCrossover",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A point to try, and what the sampler wants kept with it and with the search."""

    params: dict[str, Any]
    attrs: dict[str, Any]
    study_attrs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Figure:
    """A plotly figure with its title, or the reason why there is none."""

    title: str
    drawing: Any = None
    reason: str = ""


class Search:
    """Proposes points, takes their results, and decides which trials to prune."""

    def __init__(
        self, space: Space, metric: Metric, sampler: Algorithm, pruner: Algorithm, *, seed: int, record: SweepRecord
    ) -> None:
        """Build the search as the record tells it.

        Raises:
            InvalidConfig: Optuna refuses an option of the sampler or pruner.
        """
        self._space = space
        self._metric = metric
        self._sampler = sampler
        self._pruner = pruner
        self._seed = seed
        self._distributions = {parameter.name: _distribution(parameter) for parameter in space.searched}
        self.rebuild(record)

    def rebuild(self, record: SweepRecord) -> None:
        """Forget everything and take it from the record."""
        with _quiet_optuna():
            self.study = optuna.create_study(
                study_name=f"sweep-{self._seed}",  # Hyperband derives a trial's bracket from it
                direction=self._metric.goal,
                sampler=_build_sampler(self._sampler, self._space, derive_seed(self._seed, "sampler")),
                pruner=_build_pruner(self._pruner),
            )
            storage, study_id = self.study._storage, self.study._study_id
            for key, value in record.study_attrs.items():
                storage.set_study_system_attr(study_id, key, value)
            for number in range(max(record.trials, default=-1) + 1):
                self.study.add_trial(self._frozen(record.trials.get(number)))
        self._live: dict[int, Trial] = {}
        self._reported: dict[int, set[int]] = {}
        self._known_attrs: dict[int, dict[str, Any]] = {}
        self._known_study_attrs = dict(record.study_attrs)
        ids = {trial.number: trial._trial_id for trial in self.study.get_trials(deepcopy=False)}
        for trial in record.trials.values():
            if not trial.state.is_ended:
                self._live[trial.number] = Trial(self.study, ids[trial.number])
                self._reported[trial.number] = set(trial.reports)
                self._known_attrs[trial.number] = dict(trial.attrs)

    def ask(self, number: int) -> Asked:
        """Propose the point of trial `number`, which must be the next one."""
        if self._sampler.name == "gp":
            # It starts each fit from the fit before, which a search that was built again has not made.
            self.study.sampler = _build_sampler(self._sampler, self._space, 0)
        self._reseed("ask", number)
        with _quiet_optuna():
            trial = self.study.ask(self._distributions)
        if trial.number != number:
            raise AssertionError(f"the search is at trial {trial.number}, the record at {number}")
        self._live[number] = trial
        self._reported[number] = set()
        self._known_attrs[number] = {}
        labels = {name: _plain(value) for name, value in trial.params.items()}
        return Asked(self._space.from_labels(labels), self._new_attrs(number), self._new_study_attrs())

    def report(self, trial: TrialRecord, record: SweepRecord) -> int | None:
        """Take in the reports of a trial that are new in the record.

        Returns:
            The step at which the pruner decides against the trial, or `None`.
        """
        reported = self._reported[trial.number]
        if not reported <= trial.reports.keys():
            # A new attempt made earlier reports void, and Optuna takes none back.
            self.rebuild(record)
            return None
        live = self._live[trial.number]
        decided: int | None = None
        for step, value in trial.reports.items():
            if step in reported:
                continue
            reported.add(step)
            live.report(value, step)
            # Asked for every report, so that the answer does not depend on how many came at once.
            if decided is None and bool(live.should_prune()):
                decided = step
        return decided

    def tell(self, number: int, state: TrialState, value: float | None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Take in the result of a trial.

        Returns:
            What the sampler wants kept with the trial, and with the search.
        """
        self._reseed("tell", number)
        live = self._live.pop(number)
        values = value if state is TrialState.COMPLETE else None
        try:
            with _quiet_optuna():
                self.study.tell(live, values, _STATES[state])
        except RuntimeError:
            # GridSampler stops the study after the last point, which Optuna forbids outside its own loop;
            # the trial has been told by then.
            if not self.study.get_trials(deepcopy=False)[number].state.is_finished():
                raise
        attrs = self._new_attrs(number)
        del self._reported[number], self._known_attrs[number]
        return attrs, self._new_study_attrs()

    def new_attrs(self, number: int) -> dict[str, Any]:
        """Return what the pruner has noted with a live trial since the last event about it."""
        return self._new_attrs(number)

    def importances(self) -> dict[str, float]:
        """Return how much of the variation each parameter explains, between 0 and 1, the largest first.

        Empty where that cannot be said: fewer than two parameters or complete trials, or equal results.

        Source: Watanabe, Bansal and Hutter, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in
        Arbitrary Subspaces", IJCAI 2023.
        """
        complete = [t for t in self.study.get_trials(deepcopy=False) if t.state is OptunaState.COMPLETE]
        if len(self._distributions) < 2 or len({trial.value for trial in complete}) < 2:
            return {}
        with _quiet_optuna():
            found = optuna.importance.get_param_importances(self.study)
        return {name: float(value) for name, value in found.items() if math.isfinite(value)}

    def figures(self) -> list[Figure]:
        """Return Optuna's plots of the search, or for each the reason why it cannot be drawn."""
        import optuna.visualization as plots  # imports plotly

        trials = self.study.get_trials(deepcopy=False)
        complete = [trial for trial in trials if trial.state is OptunaState.COMPLETE]
        name, params = self._metric.name, list(self._distributions)
        importances = self.importances()
        has_steps = any(trial.intermediate_values for trial in trials)
        most_important = list(importances) or params
        needs_complete = "" if complete else "No trial is complete yet."
        needs_params = needs_complete or ("" if params else "There is no parameter to compare.")
        importance_reason = (
            ""
            if importances
            else ("This takes at least two searched parameters and two complete trials with different results.")
        )

        def draw(title: str, reason: str, plot: Any, *, axes: tuple[str, str] | None = None, **options: Any) -> Figure:
            if reason:
                return Figure(title, reason=reason)
            with _quiet_optuna():
                drawing = plot(self.study, **options)
            if axes is not None:
                drawing.update_layout(xaxis_title=axes[0], yaxis_title=axes[1])
            return Figure(title, drawing)

        return [
            draw("History", needs_complete, plots.plot_optimization_history, target_name=name),
            draw(
                "Which parameters matter",
                importance_reason,
                plots.plot_param_importances,
                axes=("Share of the variation", ""),
                target_name=name,
            ),
            draw(
                "Parallel coordinates",
                needs_params,
                plots.plot_parallel_coordinate,
                params=most_important,
                target_name=name,
            ),
            draw("One parameter at a time", needs_params, plots.plot_slice, params=most_important, target_name=name),
            draw(
                "While they ran",
                "" if has_steps else f"No trial logged {name} with a step.",
                plots.plot_intermediate_values,
                axes=("Step", name),
            ),
            draw(
                "When they ran", "" if trials else "No trial has run yet.", plots.plot_timeline, axes=("UTC", "Trial")
            ),
        ]

    def _reseed(self, purpose: str, number: int) -> None:
        _reseed(self.study.sampler, derive_seed(self._seed, purpose, number))

    def _new_attrs(self, number: int) -> dict[str, Any]:
        known = self._known_attrs[number]
        now = self.study.get_trials(deepcopy=False)[number].system_attrs
        new = {key: value for key, value in now.items() if key not in known or known[key] != value}
        known.update(new)
        return new

    def _new_study_attrs(self) -> dict[str, Any]:
        now = self.study._storage.get_study_system_attrs(self.study._study_id)
        known = self._known_study_attrs
        new = {key: value for key, value in now.items() if key not in known or known[key] != value}
        known.update(new)
        return new

    def _frozen(self, trial: TrialRecord | None) -> FrozenTrial:
        if trial is None:  # its event was lost; the numbers of the others must stay
            return optuna.trial.create_trial(state=OptunaState.FAIL)
        state = _STATES[trial.state]
        frozen = optuna.trial.create_trial(
            state=state,
            value=trial.value if state in (OptunaState.COMPLETE, OptunaState.PRUNED) else None,
            params=self._space.to_labels(trial.params),
            distributions=self._distributions,
            system_attrs=dict(trial.attrs),
            intermediate_values=dict(trial.reports),
        )
        frozen.datetime_start = _naive_utc(trial.started_at or trial.asked_at)
        if state.is_finished():
            frozen.datetime_complete = _naive_utc(trial.ended_at or trial.asked_at)
        return frozen


def derive_seed(seed: int, *parts: object) -> int:
    """Return a seed below 2^32 for one purpose, so that no two draw the same numbers."""
    text = "/".join(map(str, (seed, *parts)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest())


def check_algorithms(space: Space, sampler: Algorithm, pruner: Algorithm) -> None:
    """Build the sampler and the pruner once, so that a config fails before a sweep exists.

    Raises:
        InvalidConfig: Optuna refuses an option, or a library that it needs is missing.
    """
    with _quiet_optuna():
        _build_sampler(sampler, space, 0)
        _build_pruner(pruner)


def _build_sampler(algorithm: Algorithm, space: Space, seed: int) -> BaseSampler:
    options: dict[str, Any] = {**algorithm.options, **_QUIET.get(algorithm.name, {})}
    if algorithm.name == "grid":
        options["search_space"] = {
            p.name: list(p.labels if isinstance(p, Choice) else p.values) for p in space.searched
        }
    if algorithm.name == "partial_fixed":
        options["base_sampler"] = _build_sampler(options["base_sampler"], space, seed)
    else:
        options["seed"] = seed
    if "crossover" in options:
        options["crossover"] = getattr(optuna.samplers.nsgaii, _CROSSOVERS[options["crossover"]])()
    class_name = SAMPLERS[algorithm.name].optuna_class
    built: BaseSampler = _build(optuna.samplers, class_name, options, f"sampler {algorithm.name}")
    return built


def _build_pruner(algorithm: Algorithm) -> BasePruner:
    options = dict(algorithm.options)
    if algorithm.name == "patient" and options["wrapped_pruner"] is not None:
        options["wrapped_pruner"] = _build_pruner(options["wrapped_pruner"])
    class_name = PRUNERS[algorithm.name].optuna_class
    built: BasePruner = _build(optuna.pruners, class_name, options, f"pruner {algorithm.name}")
    return built


def _build(module: Any, class_name: str, options: Mapping[str, Any], what: str) -> Any:
    try:
        return getattr(module, class_name)(**options)
    except (ValueError, TypeError, AssertionError) as error:
        raise InvalidConfig(f"{what}: {' '.join(str(error).split())}") from None
    except ImportError as error:
        raise InvalidConfig(f"{what}: needs a library that is not installed: {error}") from None


def _distribution(parameter: Searched) -> BaseDistribution:
    if isinstance(parameter, Choice):
        return CategoricalDistribution(parameter.labels)
    if isinstance(parameter, Real):
        return FloatDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)
    return IntDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)


def _reseed(sampler: BaseSampler, seed: int) -> None:
    """Seed every generator of a sampler and of the samplers inside it.

    Optuna's own `reseed_rng` draws from the system, so that a search could never be repeated.
    """
    for value in vars(sampler).values():
        if isinstance(value, LazyRandomState):
            value.rng.seed(seed)
        elif isinstance(value, BaseSampler):
            _reseed(value, seed)


def _plain(value: Any) -> Any:
    """Return a Python scalar for one of numpy."""
    return value.item() if hasattr(value, "item") else value


def _naive_utc(at: float) -> datetime:
    """Return a time as Optuna stores it."""
    return datetime.fromtimestamp(at, UTC).replace(tzinfo=None)


@contextlib.contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Keep Optuna from logging and from warning of what is experimental; what a user must know is in our docs."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def search_of(spec: SweepSpec, record: SweepRecord) -> Search:
    """Return the search of a sweep as its record tells it, for looking at."""
    seed = int(record.created.get("seed", 0))
    return Search(spec.space, spec.metric, spec.sampler, spec.pruner, seed=seed, record=record)


def propose(space: Space, metric: Metric, sampler: Algorithm, pruner: Algorithm, *, seed: int) -> dict[str, Any]:
    """Return the point that a new search would try first."""
    return Search(space, metric, sampler, pruner, seed=seed, record=SweepRecord()).ask(0).params
