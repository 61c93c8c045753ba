"""Which samplers and pruners there are and which options they take. Data only; `study.py` builds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

OptionType = Literal["int", "float", "bool", "resource", "params", "sampler", "pruner"] | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """One sampler or pruner of Optuna.

    Attributes:
        optuna_class: Name of its class.
        options: Option and what it takes; a tuple lists the words that are allowed.
        defaults: Options that differ from Optuna's own default, with the reason beside the table.
        required: Options that must be given.
        needs_finite_space: Whether every range must have a step.
    """

    optuna_class: str
    options: Mapping[str, OptionType] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    needs_finite_space: bool = False


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A sampler or pruner with the options that a sweep gives it; nested ones are `Algorithm` values too."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


_GENETIC: dict[str, OptionType] = {
    "population_size": "int",
    "mutation_prob": "float",
    "crossover_prob": "float",
    "swapping_prob": "float",
    "crossover": ("uniform", "blxalpha", "spx", "sbx", "vsbx", "undx"),
}

SAMPLERS: Mapping[str, Known] = {
    # As Optuna 5 comes: multivariate, and aware of the trials in flight.
    "tpe": Known(
        "TPESampler",
        {
            "n_startup_trials": "int",
            "n_ei_candidates": "int",
            "multivariate": "bool",
            "group": "bool",
            "constant_liar": "bool",
        },
    ),
    "gp": Known("GPSampler", {"n_startup_trials": "int", "deterministic_objective": "bool"}),
    "random": Known("RandomSampler"),
    "grid": Known("GridSampler", needs_finite_space=True),
    "brute_force": Known("BruteForceSampler", {"avoid_premature_stop": "bool"}, needs_finite_space=True),
    # Unscrambled sequences are the same for every seed, and start in the centre of the space.
    "qmc": Known("QMCSampler", {"qmc_type": ("sobol", "halton"), "scramble": "bool"}, defaults={"scramble": True}),
    "cmaes": Known(
        "CmaEsSampler",
        {
            "n_startup_trials": "int",
            "popsize": "int",
            "consider_pruned_trials": "bool",
            "use_separable_cma": "bool",
            "with_margin": "bool",
            "lr_adapt": "bool",
        },
    ),
    "nsga2": Known("NSGAIISampler", _GENETIC),
    "nsga3": Known("NSGAIIISampler", {**_GENETIC, "dividing_parameter": "int"}),
    "partial_fixed": Known(
        "PartialFixedSampler",
        {"fixed_params": "params", "base_sampler": "sampler"},
        defaults={"base_sampler": Algorithm("tpe")},
        required=("fixed_params",),
    ),
}

PRUNERS: Mapping[str, Known] = {
    # One step of warm-up: the first value of a fresh network says little.
    "median": Known(
        "MedianPruner",
        {"n_startup_trials": "int", "n_warmup_steps": "int", "interval_steps": "int", "n_min_trials": "int"},
        defaults={"n_startup_trials": 5, "n_warmup_steps": 1},
    ),
    "percentile": Known(
        "PercentilePruner",
        {
            "percentile": "float",
            "n_startup_trials": "int",
            "n_warmup_steps": "int",
            "interval_steps": "int",
            "n_min_trials": "int",
        },
        required=("percentile",),
    ),
    "hyperband": Known(
        "HyperbandPruner",
        {"min_resource": "int", "max_resource": "resource", "reduction_factor": "int", "bootstrap_count": "int"},
    ),
    "successive_halving": Known(
        "SuccessiveHalvingPruner",
        {
            "min_resource": "resource",
            "reduction_factor": "int",
            "min_early_stopping_rate": "int",
            "bootstrap_count": "int",
        },
    ),
    "threshold": Known(
        "ThresholdPruner",
        {"lower": "float", "upper": "float", "n_warmup_steps": "int", "interval_steps": "int"},
    ),
    "patient": Known(
        "PatientPruner",
        {"wrapped_pruner": "pruner", "patience": "int", "min_delta": "float"},
        defaults={"wrapped_pruner": None},
        required=("patience",),
    ),
    "wilcoxon": Known("WilcoxonPruner", {"p_threshold": "float", "n_startup_steps": "int"}),
    "none": Known("NopPruner"),
}
