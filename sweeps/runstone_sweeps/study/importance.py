"""How much each parameter matters."""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal

import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState as OptunaState

from runstone_sweeps.record import SweepRecord
from runstone_sweeps.spec import SweepSpec
from runstone_sweeps.study.convert import display_study
from runstone_sweeps.study.memory import quiet_optuna

Method = Literal["ped_anova", "fanova"]
# Growing a forest over more trials takes long and hardly moves the shares.
MOST_IN_FOREST = 2_000


def find_importances(
    spec: SweepSpec, record: SweepRecord, *, method: Method = "ped_anova", metric: int = 0
) -> dict[str, float]:
    """Return how much of the variation each parameter explains, between 0 and 1, the largest first.

    Empty where that cannot be said: fewer than two parameters or complete trials, or equal results.

    Args:
        spec: The config.
        record: The trials.
        method: `ped_anova` looks at what sets the best tenth apart, and knows conditional parameters; `fanova` at the
            whole range of results, and at parameters that all trials have.
        metric: Position of the metric that is explained.

    Source: Watanabe, Bansal and Hutter, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in
    Arbitrary Subspaces", IJCAI 2023. Hutter, Hoos and Leyton-Brown, "An Efficient Approach for Assessing
    Hyperparameter Importance", ICML 2014.
    """
    return importances_of(display_study(spec, record), method=method, metric=metric)


def importances_of(study: optuna.Study, *, method: Method, metric: int) -> dict[str, float]:
    """Return the importances of a study; as `find_importances`."""
    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state is OptunaState.COMPLETE]
    if len({trial.values[metric] for trial in complete}) < 2:
        return {}
    names = {name for trial in complete for name in trial.params}
    if method == "fanova":
        names = {name for name in names if all(name in trial.params for trial in complete)}
    if len(names) < 2:
        return {}
    # PED-ANOVA looks for what makes a target low, whatever the direction of the study, and warns of it.
    sign = -1.0 if study.directions[metric] is StudyDirection.MAXIMIZE else 1.0
    evaluator: Any = None
    if method == "fanova":
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        if len(complete) > MOST_IN_FOREST:
            return {}
    try:
        with quiet_optuna(), warnings.catch_warnings():
            # Of targets that have no direction, of parameters with few values, of results near the largest floats:
            # no share comes of these, or one that is as good as it gets.
            warnings.simplefilter("ignore")
            found = optuna.importance.get_param_importances(
                study, evaluator=evaluator, target=lambda trial: sign * float(trial.values[metric])
            )
    except (ValueError, RuntimeError, AssertionError):
        # Optuna's words for parameters of a single value, or results that are not finite, or almost not.
        return {}
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}
