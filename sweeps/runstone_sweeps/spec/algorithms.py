"""Which samplers and pruners there are and which options they take. Data only; `study` builds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

OptionType = Literal["int", "float", "bool", "resource", "params", "sampler", "pruner", "matrix"] | tuple[str, ...]
# What a sampler draws together, from what it learnt; the rest it draws one by one, at random or by a simpler model.
Joint = Literal["all", "numbers", "nothing"]


@dataclass(frozen=True, slots=True)
class Known:
    """One sampler or pruner of Optuna.

    Attributes:
        optuna_class: Name of its class; `None`: it is our own.
        options: Option and what it takes; a tuple lists the words that are allowed.
        defaults: Options that differ from Optuna's own default, with the reason beside the table.
        required: Options that must be given.
        needs_finite_space: Whether every range must have a step.
        joint: Which parameters it draws together.
        models_branches: Whether it also draws those together that only some points have.
        is_slow: Whether what it does for a point grows with the trials that it sees.
        notes_each_trial: Whether it has to be asked for each trial, even one whose point is given.
        knows_many_metrics: Whether it can look for a Pareto front.
    """

    optuna_class: str | None
    options: Mapping[str, OptionType] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    needs_finite_space: bool = False
    joint: Joint = "nothing"
    models_branches: bool = False
    is_slow: bool = False
    notes_each_trial: bool = False
    knows_many_metrics: bool = True


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A sampler or pruner with the options that a sweep gives it; nested ones are `Algorithm` values too."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


_GENETIC: dict[str, OptionType] = {
    "population_size": "int",
    "mutation": ("polynomial",),
    "mutation_prob": "float",
    "crossover_prob": "float",
    "swapping_prob": "float",
    "crossover": ("uniform", "blxalpha", "spx", "sbx", "vsbx", "undx"),
}

SAMPLERS: Mapping[str, Known] = {
    # gp or tpe, by the space, the trials so far and how long they take.
    "auto": Known(None),
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
        joint="all",
        models_branches=True,
        is_slow=True,
    ),
    "gp": Known(
        "GPSampler",
        {"n_startup_trials": "int", "deterministic_objective": "bool", "independent_sampler": "sampler"},
        joint="all",
        models_branches=True,
        is_slow=True,
    ),
    "random": Known("RandomSampler"),
    "grid": Known("GridSampler", needs_finite_space=True),
    "brute_force": Known("BruteForceSampler", {"avoid_premature_stop": "bool"}, needs_finite_space=True),
    # Unscrambled sequences are the same for every seed, and start in the centre of the space.
    "qmc": Known(
        "QMCSampler",
        {"qmc_type": ("sobol", "halton"), "scramble": "bool", "independent_sampler": "sampler"},
        defaults={"scramble": True},
        joint="all",
        models_branches=True,
    ),
    "cmaes": Known(
        "CmaEsSampler",
        {
            "n_startup_trials": "int",
            "popsize": "int",
            "consider_pruned_trials": "bool",
            "use_separable_cma": "bool",
            "with_margin": "bool",
            "lr_adapt": "bool",
            "independent_sampler": "sampler",
        },
        joint="numbers",
        notes_each_trial=True,
        knows_many_metrics=False,
    ),
    "nsga2": Known("NSGAIISampler", _GENETIC, joint="all", notes_each_trial=True),
    "nsga3": Known(
        "NSGAIIISampler",
        {**_GENETIC, "dividing_parameter": "int", "reference_points": "matrix"},
        joint="all",
        notes_each_trial=True,
    ),
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
