"""Builds Optuna's samplers from a config, and seeds them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.samplers._lazy_random_state import LazyRandomState
from optuna.trial import FrozenTrial

from runstone import InvalidConfig
from runstone_sweeps.spec.algorithms import SAMPLERS, Algorithm
from runstone_sweeps.study.pruners import build

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


class Chance(RandomSampler):
    """Draws at random, choices by their probabilities."""

    def __init__(self, seed: int, probabilities: Mapping[str, Sequence[float]]) -> None:
        super().__init__(seed)
        self._probabilities = probabilities

    def sample_independent(
        self, study: Any, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw one parameter."""
        weights = self._probabilities.get(param_name)
        if weights is None or not isinstance(param_distribution, CategoricalDistribution):
            return super().sample_independent(study, trial, param_name, param_distribution)
        return param_distribution.choices[int(self._rng.rng.choice(len(weights), p=np.asarray(weights)))]


def build_sampler(
    algorithm: Algorithm,
    seed: int,
    *,
    probabilities: Mapping[str, Sequence[float]] | None = None,
    source: Sequence[FrozenTrial] = (),
) -> BaseSampler:
    """Return Optuna's sampler of that name. Not for `auto`, `grid` and `partial_fixed`, which are not Optuna's here.

    Args:
        algorithm: Name and options.
        seed: Seed of its generators.
        probabilities: Probability of each choice, by the name of the parameter, where they differ.
        source: Complete trials of earlier sweeps, for a sampler that starts from a distribution and not from trials.

    Raises:
        InvalidConfig: Optuna refuses an option, or a library that it needs is missing.
    """
    name = algorithm.name
    chance = Chance(seed, probabilities or {})
    options: dict[str, Any] = {**algorithm.options, **_QUIET.get(name, {}), "seed": seed}
    if "crossover" in options:
        options["crossover"] = getattr(optuna.samplers.nsgaii, _CROSSOVERS[options["crossover"]])()
    if "mutation" in options:
        options["mutation"] = optuna.samplers.nsgaii.PolynomialMutation()
    if "reference_points" in options:
        options["reference_points"] = _matrix(options["reference_points"], f"sampler {name}")
    if name in ("gp", "cmaes", "qmc"):
        own = options.get("independent_sampler")
        options["independent_sampler"] = build_sampler(own, seed, probabilities=probabilities) if own else chance
    if name == "cmaes" and source and not options.get("use_separable_cma"):
        options["source_trials"] = list(source)
    if name == "tpe" and options.pop("group", False) and options.get("multivariate") is False:
        raise InvalidConfig("sampler tpe: group: true needs multivariate: true")
    if name == "random":
        return chance
    built: BaseSampler = build(optuna.samplers, str(SAMPLERS[name].optuna_class), options, f"sampler {name}")
    if hasattr(built, "_random_sampler"):  # the first points of TPE and of the genetic samplers
        built._random_sampler = chance
    return built


def reseed(sampler: BaseSampler, seed: int) -> None:
    """Seed every generator of a sampler and of the samplers inside it.

    Optuna's own `reseed_rng` draws from the system, so that a search could never be repeated.
    """
    for value in vars(sampler).values():
        if isinstance(value, LazyRandomState):
            value.rng.seed(seed)
        elif isinstance(value, BaseSampler):
            reseed(value, seed)


def _matrix(rows: Any, what: str) -> Any:
    try:
        points = np.asarray(rows, dtype=float)
    except (TypeError, ValueError):
        points = np.zeros(0)
    if points.ndim != 2 or not np.isfinite(points).all():
        raise InvalidConfig(f"{what}: reference_points must be a list of points, each a list of as many numbers")
    return points


@contextlib.contextmanager
def one_thread(sampler: BaseSampler) -> Iterator[None]:
    """Let a Gaussian process compute in one thread: with more, its small sums take two to four times the CPU time.

    What the threads take would be missing from the trials. Optuna limits those of torch, but not those of BLAS.
    """
    if not isinstance(sampler, optuna.samplers.GPSampler):
        yield
        return
    import torch  # noqa: F401  # slow; only pools of libraries that are loaded can be limited
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


def forget_fits(sampler: BaseSampler) -> None:
    """Make a Gaussian process start each fit anew: a search that was built again has not made the fits before."""
    if isinstance(sampler, optuna.samplers.GPSampler):
        sampler._gprs_cache_list = None
        sampler._constraints_gprs_cache_list = None
