"""Reads a whole config and checks what hangs together in it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runstone import InvalidConfig
from runstone_sweeps.config import wandb as wandb_config
from runstone_sweeps.config import yamlfile
from runstone_sweeps.config.mistakes import Mistakes, join_words, kind_of, nearest
from runstone_sweeps.config.overrides import apply_overrides, config_from_script, is_script
from runstone_sweeps.config.parameters import read_space
from runstone_sweeps.config.points import read_points
from runstone_sweeps.config.program import check_program, env_text, read_command
from runstone_sweeps.config.search import check_sampler_fits, read_algorithm
from runstone_sweeps.config.shape import MetricShape, Shape, read_shape
from runstone_sweeps.spec import Metric, SweepSpec
from runstone_sweeps.spec.algorithms import PRUNERS, SAMPLERS
from runstone_sweeps.spec.options import (
    MOST_PARALLEL,
    Budget,
    Constraint,
    ExecutorSpec,
    Replicates,
    Resources,
    Retries,
    Terminator,
)


def load_spec(
    path: str | Path,
    *,
    overrides: Sequence[str] = (),
    metric: str | None = None,
    goal: str | None = None,
    has_budget: bool = False,
) -> SweepSpec:
    """Read and check a config file, or a script with words that say what to search.

    Args:
        path: The file.
        overrides: Changes to it in words such as `lr=0.1`; see `apply_overrides`.
        metric, goal: What a script is tried for; a config has them itself.
        has_budget: Whether the number of trials or the timeout is given elsewhere, and may be missing here.

    Raises:
        InvalidConfig: the message has one line for each mistake: file, path inside the file, what is
            wrong and what would be right, and the line number.
    """
    path = Path(path)
    if is_script(path):
        raw = config_from_script(path, overrides, metric=metric, goal=goal)
        return parse_spec(raw, folder=path.parent.absolute(), file_name=path.name, has_budget=has_budget)
    if metric is not None or goal is not None:
        raise InvalidConfig(f"{path}: a config names its metric itself; write metric.name=... to change it")
    raw, lines = yamlfile.read(path)
    if overrides and isinstance(raw, dict):
        changed = apply_overrides(raw, overrides)
        lines = {place: line for place, line in lines.items() if _at(raw, place) == _at(changed, place)}
        raw = changed
    folder = path.parent.absolute()
    return parse_spec(raw, folder=folder, file_name=path.name, lines=lines, has_budget=has_budget)


def _at(raw: Any, place: tuple[str | int, ...]) -> Any:
    """Return what a config has at a place, `None` where it has nothing there."""
    for part in place:
        try:
            raw = raw[part]
        except (KeyError, IndexError, TypeError):
            return None
    return raw


def parse_spec(
    raw: Any,
    *,
    folder: Path,
    file_name: str = "config",
    lines: Mapping[tuple[str | int, ...], int] | None = None,
    has_objective: bool = False,
    has_budget: bool = False,
    is_for_reading: bool = False,
) -> SweepSpec:
    """Check a config that is already a dict, by the same rules as `load_spec`.

    Args:
        raw: The config.
        folder: Where relative paths start, absolute.
        file_name: What the messages start with.
        lines: Line of each path inside the file.
        has_objective: Whether a Python function is tried, so that the config names no program.
        has_budget: As for `load_spec`.
        is_for_reading: Whether nothing is to be run, so that scripts and folders may be gone.

    Raises:
        InvalidConfig: as `load_spec`.
    """
    mistakes = Mistakes(file_name, lines or {})
    if not isinstance(raw, dict):
        message = f"must be a mapping with keys such as {join_words(('metric', 'parameters'))}, got {kind_of(raw)}"
        mistakes.add((), message)
        raise mistakes.error()
    # What tells an editor where the schema is.
    raw = {key: value for key, value in raw.items() if key != "$schema"}
    notes: list[str] = []
    if wandb_config.is_wandb(raw):
        raw = wandb_config.translate(raw, mistakes.add, notes.append)
        mistakes.say_instead(wandb_config.THEIR_NAMES)
    shape = read_shape(raw, mistakes)
    if shape is not None:
        _check_metrics(shape, mistakes)
    space = read_space(raw.get("parameters"), mistakes)
    points = read_points(raw.get("points"), space, mistakes)
    sampler = read_algorithm(raw.get("sampler", "tpe"), SAMPLERS, ("sampler",), mistakes)
    pruner_raw = raw.get("pruner", "median")
    pruner = read_algorithm("none" if pruner_raw in (None, False) else pruner_raw, PRUNERS, ("pruner",), mistakes)
    if sampler:
        check_sampler_fits(sampler, space, len(shape.metrics or ()) if shape else 1, mistakes)
    if shape is None:
        raise mistakes.error()
    _check_limits(shape, mistakes)
    working_dir = (folder / Path(shape.working_dir or ".").expanduser()).resolve()
    command = read_command(shape.command)
    if not is_for_reading:
        check_program(shape, command, space, working_dir, mistakes, has_objective=has_objective)
    is_finite = sampler is not None and SAMPLERS[sampler.name].needs_finite_space
    has_limit = has_budget or is_for_reading or any((shape.trials, shape.timeout, *_limits(shape)))
    if not (is_finite or has_limit):
        mistakes.add(("trials",), "is missing; say how many trials to run, or give a timeout or a budget")
    metrics = shape.metrics or ([shape.metric] if shape.metric else [])
    if mistakes or sampler is None or pruner is None or not metrics:
        raise mistakes.error()
    trials = shape.trials
    if is_finite and space.size is not None:
        trials = min(trials or space.size, space.size)
    return SweepSpec(
        name=shape.name or Path(file_name).stem,
        project=shape.project,
        script=shape.script,
        command=command,
        function=shape.function,
        working_dir=working_dir,
        env={name: env_text(value) for name, value in shape.env.items()},
        metrics=tuple(Metric(m.name, m.goal, m.value, m.target) for m in metrics),
        prune_on=shape.prune_on,
        constraints=tuple(Constraint(c.metric, c.min, c.max) for c in shape.constraints),
        space=space,
        points=points,
        extends=tuple(shape.extends),
        sampler=sampler,
        pruner=pruner,
        min_per_branch=shape.min_per_branch,
        trials=trials,
        parallel=shape.parallel or (MOST_PARALLEL if shape.executor.name in ("workers", "slurm") else 1),
        replicates=Replicates(shape.replicates.count, shape.replicates.aggregate),
        duplicates=shape.duplicates,
        timeout_s=shape.timeout,
        trial_timeout_s=shape.trial_timeout,
        no_report_timeout_s=shape.no_report_timeout,
        grace_s=shape.grace,
        seed=shape.seed,
        retries=_retries(shape),
        budget=_budget(shape),
        terminator=_terminator(shape),
        audit=shape.audit,
        resources=_resources(shape),
        start=shape.start,
        preload=tuple(shape.preload),
        executor=ExecutorSpec(shape.executor.name, dict(shape.executor.model_extra or {})),
        storage=shape.storage,
        notes=tuple(notes),
        raw=raw,
        folder=folder,
    )


def _check_metrics(shape: Shape, mistakes: Mistakes) -> None:
    """Check that there is a metric and that what names one names one that there is."""
    if shape.metric is None and shape.metrics is None:
        mistakes.add(("metric",), "is missing; write `metric: {name: val/loss, goal: minimize}`")
        return
    if shape.metric is not None and shape.metrics is not None:
        mistakes.add(("metrics",), "does not go with metric; keep one of them")
    metrics: list[MetricShape] = shape.metrics or ([shape.metric] if shape.metric else [])
    names = [metric.name for metric in metrics]
    for index, name in enumerate(names):
        if name in names[:index]:
            mistakes.add(("metrics", index, "name"), f"{name} is there twice")
    if shape.prune_on is not None and shape.prune_on not in names:
        mistakes.add(("prune_on",), f"{shape.prune_on} is not a metric of the sweep{nearest(shape.prune_on, names)}")
    for index, constraint in enumerate(shape.constraints):
        if constraint.min is None and constraint.max is None:
            mistakes.add(("constraints", index), "needs min or max")
        elif constraint.min is not None and constraint.max is not None and constraint.min > constraint.max:
            mistakes.add(("constraints", index, "min"), f"{constraint.min:g} is above max {constraint.max:g}")


def _check_limits(shape: Shape, mistakes: Mistakes) -> None:
    """Check what a sweep may use and what a trial takes."""
    if shape.budget.cost is not None and not shape.budget.prices.model_dump(exclude_none=True):
        mistakes.add(("budget", "cost"), "needs prices; write `prices: {gpu_hour: 2.5}`, cpu_hour, hour or kwh")
    if shape.gpus is not None and shape.gpus > 1 and not float(shape.gpus).is_integer():
        mistakes.add(("gpus",), f"is {shape.gpus}; give a whole number, or a share below 1")
    if shape.devices is not None:
        if len(set(shape.devices)) < len(shape.devices):
            mistakes.add(("devices",), "names a GPU twice")
        if shape.gpus is not None and math.ceil(shape.gpus) > len(shape.devices):
            mistakes.add(("devices",), f"has {len(shape.devices)} GPUs, and a trial takes {shape.gpus:g}")


def _limits(shape: Shape) -> tuple[float | None, ...]:
    return shape.budget.gpu_hours, shape.budget.energy, shape.budget.cost


def _retries(shape: Shape) -> Retries:
    said = shape.retries
    return Retries(said.crash, said.oom, said.preempted, said.nan, said.backoff)


def _budget(shape: Shape) -> Budget:
    said = shape.budget
    prices = {name: float(price) for name, price in said.prices.model_dump(exclude_none=True).items()}
    return Budget(said.gpu_hours, said.energy, said.cost, prices)


def _terminator(shape: Shape) -> Terminator | None:
    said = shape.terminator
    return None if said is None else Terminator(said.min_trials, said.patience, said.min_gain)


def _resources(shape: Shape) -> Resources:
    # Who names devices wants them used.
    gpus = shape.gpus if shape.gpus is not None else float(shape.devices is not None)
    devices = None if shape.devices is None else tuple(shape.devices)
    return Resources(gpus, devices, shape.cpus, shape.memory)
