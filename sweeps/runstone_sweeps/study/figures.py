"""Optuna's plots of a sweep, each drawn or with the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from runstone_sweeps.record import SweepRecord
from runstone_sweeps.spec import SweepSpec
from runstone_sweeps.study.convert import display_study
from runstone_sweeps.study.importance import MOST_IN_FOREST, importances_of
from runstone_sweeps.study.memory import quiet_optuna

# A contour plot has a panel for each pair, and a panel costs as much as any other plot.
MOST_IN_CONTOUR = 3
# The hypervolume is computed once for each trial.
MOST_IN_HYPERVOLUME = 1_000


@dataclass(frozen=True, slots=True)
class Figure:
    """A plotly figure with its title, or the reason why there is none."""

    title: str
    drawing: Any = None
    reason: str = ""


def draw_figures(spec: SweepSpec, record: SweepRecord) -> list[Figure]:
    """Return the plots of a sweep in the order in which they are looked at.

    With several metrics, what shows one metric is drawn for each of them, with its name in the title.
    """
    import optuna.visualization as plots  # imports plotly, which is slow

    study = display_study(spec, record)
    trials = study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state is OptunaState.COMPLETE]
    needs_complete = "" if complete else "No trial is complete yet."
    params = sorted({name for trial in complete for name in trial.params})
    needs_params = needs_complete or ("" if params else "There is no parameter to compare.")
    needs_two = needs_params or ("" if len(params) > 1 else "This takes at least two searched parameters.")
    figures: list[Figure] = []
    drawn = _Drawer(study)
    for index, metric in enumerate(spec.metrics):
        name = metric.name
        end = f": {name}" if len(spec.metrics) > 1 else ""
        options: dict[str, Any] = {"target_name": name, "target": _value_of(index)}
        ranked = importances_of(study, method="ped_anova", metric=index)
        first = [p for p in ranked if p in params] or params
        figures += [
            drawn(f"History{end}", needs_complete, plots.plot_optimization_history, **options),
            _importance(f"Which parameters matter{end}", ranked, name),
            _importance(
                f"Which parameters matter, by fANOVA{end}",
                importances_of(study, method="fanova", metric=index),
                name,
                is_too_long=len(complete) > MOST_IN_FOREST,
            ),
            drawn(f"Parallel coordinates{end}", needs_params, plots.plot_parallel_coordinate, params=first, **options),
            drawn(f"One parameter at a time{end}", needs_params, plots.plot_slice, params=first, **options),
            drawn(
                f"Two parameters at a time{end}",
                needs_two,
                plots.plot_contour,
                params=first[:MOST_IN_CONTOUR] if len(first) > 1 else params[:MOST_IN_CONTOUR],
                **options,
            ),
            drawn(f"How many were how good{end}", needs_complete, plots.plot_edf, **options),
        ]
    return figures + _of_all_metrics(spec, study, needs_complete)


def _of_all_metrics(spec: SweepSpec, study: optuna.Study, needs_complete: str) -> list[Figure]:
    import optuna.visualization as plots  # imports plotly, which is slow

    trials = study.get_trials(deepcopy=False)
    drawn = _Drawer(study)
    figures: list[Figure] = []
    if len(spec.metrics) > 1:
        is_drawable = len(spec.metrics) <= 3
        needs_few = needs_complete or ("" if is_drawable else "A front of more than three metrics cannot be drawn.")
        figures.append(drawn("Pareto front", needs_few, plots.plot_pareto_front))
        finite = [t for t in trials if t.state is OptunaState.COMPLETE and np.isfinite(t.values).all()]
        reason = needs_complete or ("" if len(finite) <= MOST_IN_HYPERVOLUME else "It takes too long for that many.")
        reason = reason or ("" if finite else "No result is finite.")
        reference = _reference(finite, study) if not reason else []
        figures.append(drawn("Hypervolume", reason, plots.plot_hypervolume_history, reference_point=reference))
    metric = spec.metric.name
    has_steps = any(trial.intermediate_values for trial in trials)
    figures.append(
        drawn(
            "While they ran",
            "" if has_steps else f"No trial logged {metric} with a step.",
            plots.plot_intermediate_values,
            axes=("Step", metric),
        )
    )
    reason = "" if trials else "No trial has run yet."
    figures.append(drawn("When they ran", reason, plots.plot_timeline, axes=("UTC", "Trial")))
    return figures


class _Drawer:
    """Calls one of Optuna's plots for one study."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study

    def __call__(
        self, title: str, reason: str, plot: Callable[..., Any], *, axes: tuple[str, str] | None = None, **options: Any
    ) -> Figure:
        if reason:
            return Figure(title, reason=reason)
        with quiet_optuna():
            drawing = plot(self._study, **options)
        if axes is not None:
            drawing.update_layout(xaxis_title=axes[0], yaxis_title=axes[1])
        return Figure(title, drawing)


def _importance(title: str, found: dict[str, float], metric: str, *, is_too_long: bool = False) -> Figure:
    import plotly.graph_objects as go  # slow

    if is_too_long:
        return Figure(title, reason=f"It takes too long for more than {MOST_IN_FOREST:,} complete trials.")
    if not found:
        reason = "This takes at least two searched parameters and two complete trials with different results."
        return Figure(title, reason=reason)
    names = list(reversed(found))
    bars = go.Bar(x=[found[name] for name in names], y=names, orientation="h")
    drawing = go.Figure(bars)
    drawing.update_layout(xaxis_title=f"Share of the variation of {metric}")
    return Figure(title, drawing)


def _value_of(index: int) -> Callable[[FrozenTrial], float]:
    return lambda trial: float(trial.values[index])


def _reference(trials: list[FrozenTrial], study: optuna.Study) -> list[float]:
    """Return a point that is a little worse than every result by every metric."""
    values = np.array([trial.values for trial in trials])
    found = []
    for column, direction in zip(values.T, study.directions, strict=True):
        margin = 0.1 * float(np.ptp(column)) or 1.0
        is_lower_better = direction == optuna.study.StudyDirection.MINIMIZE
        found.append(float(column.max()) + margin if is_lower_better else float(column.min()) - margin)
    return found
