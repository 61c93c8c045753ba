"""What a config means, and what its rehearsal showed, as lines of text. Decides nothing."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable, Iterator, Sequence

from runstone_sweeps.executors.warm import WarmPlan
from runstone_sweeps.preparing.rehearsal import Logged, Rehearsal
from runstone_sweeps.results.text import at_once, clean, params_text, value_text
from runstone_sweeps.space import Choice, Constant, Drawn, Parameter, Real
from runstone_sweeps.spec import Metric, SweepSpec
from runstone_sweeps.spec.options import MOST_PARALLEL, Resources

Row = tuple[str, str]
_MAX_VALUES = 8
_MAX_BRANCHES = 12


def preview_rows(spec: SweepSpec, plan: WarmPlan | None) -> Iterator[Row]:
    """Yield a word and a text for all that a config means."""
    yield from _space_rows(spec)
    yield from _goal_rows(spec)
    yield from _search_rows(spec)
    yield "budget", _budget_text(spec)
    yield from _trial_rows(spec, plan)
    for note in spec.notes:
        yield "note", clean(note)


def _space_rows(spec: SweepSpec) -> Iterator[Row]:
    space = spec.space
    size = "a continuous space" if space.size is None else f"{space.size:,} points"
    searched = len(space.searched)
    yield "search", f"{searched} parameter{'s' * (searched != 1)}, {size}"
    width = max(len(p.name) for p in space)
    for parameter in space:
        condition = space.condition(parameter.name)
        when = f"   when {clean(str(condition))}" if condition else ""
        yield "", f"{clean(parameter.name):{width}}  {parameter_text(parameter)}{when}"
    if branches := space.branches():
        shown = "; ".join(params_text(branch) for branch in branches[:_MAX_BRANCHES])
        more = f"; and {len(branches) - _MAX_BRANCHES} more" if len(branches) > _MAX_BRANCHES else ""
        yield "branches", f"{shown}{more}: at least {spec.min_per_branch} trials each"


def parameter_text(parameter: Parameter) -> str:
    """Return what a parameter can be, in a few words."""
    if isinstance(parameter, Constant):
        return f"always {value_text(parameter.value)}"
    if isinstance(parameter, Choice):
        shares = parameter.probabilities or (None,) * len(parameter.values)
        words = [
            value_text(value) + ("" if share is None else f" ({share:.0%})")
            for value, share in zip(parameter.values, shares, strict=True)
        ]
        more = f" | … {len(words) - _MAX_VALUES} more" if len(words) > _MAX_VALUES else ""
        return " | ".join(words[:_MAX_VALUES]) + more
    if isinstance(parameter, Drawn):
        law = f"{parameter.law.replace('_', ' ')}({parameter.first:g}, {parameter.second:g})"
        ends = [f"{word} {end:g}" for word, end in (("from", parameter.low), ("to", parameter.high)) if end is not None]
        step = [] if parameter.step is None else [f"rounded to {parameter.step:g}"]
        return ", ".join([law, *ends, *step])
    kind = "" if isinstance(parameter, Real) else ", whole"
    log = ", log" if parameter.log else ""
    step_text = f", step {parameter.step:g}" if parameter.step not in (None, 1) else ""
    return f"{parameter.low:g} to {parameter.high:g}{kind}{log}{step_text}"


def _goal_rows(spec: SweepSpec) -> Iterator[Row]:
    for metric in spec.metrics:
        yield "for", _metric_text(metric, is_pruned_on=len(spec.metrics) > 1 and metric == spec.metric)
    for constraint in spec.constraints:
        ends = [f"at least {constraint.min:g}"] if constraint.min is not None else []
        ends += [f"at most {constraint.max:g}"] if constraint.max is not None else []
        yield "subject to", f"{clean(constraint.metric)} {' and '.join(ends)}"


def _metric_text(metric: Metric, *, is_pruned_on: bool) -> str:
    best = ", the best value counts" if metric.value == "best" else ""
    target = f", done at {metric.target:g}" if metric.target is not None else ""
    pruned = ", pruned on" if is_pruned_on else ""
    return f"{metric.goal} {clean(metric.name)}{best}{target}{pruned}"


def _search_rows(spec: SweepSpec) -> Iterator[Row]:
    yield "with", f"sampler {spec.sampler.name}, pruner {spec.pruner.name}"
    if spec.audit:
        yield "audit", f"{spec.audit:.0%} of the pruned trials run to their end all the same"
    if spec.points:
        yield "first", f"{len(spec.points)} given point{'s' * (len(spec.points) != 1)}"
    if spec.extends:
        yield "extends", ", ".join(map(clean, spec.extends))
    if spec.replicates.count > 1:
        yield "replicates", f"{spec.replicates.count} runs of each point; their {spec.replicates.aggregate} counts"
    if spec.duplicates != "allow":
        yield "duplicates", spec.duplicates
    if spec.terminator is not None:
        yield "ends", f"when no better result is expected, after {spec.terminator.min_trials} trials or more"


def _budget_text(spec: SweepSpec) -> str:
    limits = [f"{spec.trials:,} trials"] if spec.trials else []
    limits += [f"{seconds_text(spec.timeout_s)} at work"] if spec.timeout_s else []
    budget = spec.budget
    limits += [f"{budget.gpu_hours:g} GPU hours"] if budget.gpu_hours else []
    limits += [f"{budget.energy_j / 3.6e6:g} kWh"] if budget.energy_j else []
    limits += [f"cost {budget.cost:g}"] if budget.cost else []
    return f"{', '.join(limits) or 'until it is stopped'}; {at_once(spec.parallel)}"


def _trial_rows(spec: SweepSpec, plan: WarmPlan | None) -> Iterator[Row]:
    limits = [f"at most {seconds_text(spec.trial_timeout_s)}"] if spec.trial_timeout_s else []
    limits += [f"silent for {seconds_text(spec.no_report_timeout_s)} at most"] if spec.no_report_timeout_s else []
    taken = [*_resource_words(spec.resources), *limits]
    if taken:
        yield "a trial takes", ", ".join(taken)
    again = [f"{kind} {spec.retries.of(kind)}" for kind in ("crash", "oom", "nan") if spec.retries.of(kind)]
    if again:
        yield "tried again", f"{', '.join(again)}, preempted {spec.retries.preempted}"
    if spec.executor.name != "local":
        yield "runs on", spec.executor.name
    if plan is not None and plan.is_warm:
        yield "starts", f"warm, with {', '.join(map(clean, plan.preload)) or 'the interpreter'} imported beforehand"
    elif plan is not None:
        yield "starts", f"cold: {clean(plan.reason)}" if plan.reason else "cold, as asked for"
    yield "in", clean(str(spec.working_dir))


def _resource_words(resources: Resources) -> list[str]:
    words = []
    if resources.gpus:
        among = "" if resources.devices is None else f" of {', '.join(map(str, resources.devices))}"
        words.append(f"{resources.gpus:g} GPU{'s' * (resources.gpus > 1)}{among}")
    words += [f"{resources.cpus} CPU threads"] if resources.cpus else []
    words += [f"{bytes_text(resources.memory_bytes)} of memory"] if resources.memory_bytes else []
    return words


def rehearsal_rows(spec: SweepSpec, shown: Rehearsal, *, limit_s: float) -> Iterator[Row]:
    """Yield a word and a text for what a dry run showed, and what the sweep will take by it."""
    yield "dry run", clean(shlex.join(shown.argv))
    ended = f"stopped after {limit_s:g} s, as it was not done" if shown.is_cut else f"ended with exit code {shown.code}"
    yield "", f"{ended}; {shown.seconds:.1f} s, {shown.cpu_s:.1f} s of CPU, {bytes_text(shown.max_rss_bytes)} at most"
    if shown.gpu_bytes:
        yield "", f"{bytes_text(shown.gpu_bytes)} in use on a GPU at most"
    for name in wanted_metrics(spec):
        yield "logged", logged_text(name, shown.logged)
    yield from _forecast_rows(spec, shown)


def wanted_metrics(spec: SweepSpec) -> list[str]:
    """Return the metrics that each trial has to log."""
    return list(dict.fromkeys([*(m.name for m in spec.metrics), *(c.metric for c in spec.constraints)]))


def logged_text(name: str, logged: dict[str, Logged] | Iterable[str]) -> str:
    """Return how often a metric was logged and at which steps, or that it was not, and which name is near."""
    seen = logged.get(name) if isinstance(logged, dict) else None
    if seen is None:
        there = sorted(logged)
        near = difflib.get_close_matches(name, there, n=1)
        if near:
            return f"{clean(name)} never; but {clean(near[0])}"
        return f"{clean(name)} never; only {', '.join(map(clean, there[:8]))}" if there else f"{clean(name)} never"
    times = "once" if seen.count == 1 else f"{seen.count:,} times"
    if seen.last_step is None:
        steps = "without steps, so that nothing can be pruned"
    elif seen.count == 1:
        steps = f"at step {seen.last_step}"
    else:
        steps = f"from step {seen.first_step} to {seen.last_step}"
    return f"{clean(name)} {times}, {steps}; last {seen.last_value:g}"


def _forecast_rows(spec: SweepSpec, shown: Rehearsal) -> Iterator[Row]:
    if spec.trials is None:
        return
    runs = spec.trials * spec.replicates.count
    parallel = 1 if spec.parallel == MOST_PARALLEL else spec.parallel  # how many the workers take nobody knows yet
    hours = runs * shown.seconds / parallel / 3600
    least = "at least " if shown.is_cut else ""
    why = "the trial was cut" if shown.is_cut else "pruning makes it less, trials in parallel may slow each other down"
    yield "forecast", f"{least}{seconds_text(hours * 3600)} for {runs:,} runs, {parallel} at once ({why})"
    yield "", f"{bytes_text(shown.max_rss_bytes * parallel)} of memory for {parallel} at once"
    if spec.budget.prices:
        yield "", f"{least}{shown.usage(spec).cost(spec.budget.prices) * runs:.2f} by your prices, energy aside"


def seconds_text(seconds: float) -> str:
    """Return `42 s`, `12 min`, `3.5 h`, `2.1 days`."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size or (seconds >= size and unit != "days"):
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def bytes_text(size_bytes: int) -> str:
    """Return `512 MB`, `8.0 GB`."""
    return f"{size_bytes / 1e9:.3g} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.3g} MB"


def to_lines(rows: Iterable[Row]) -> Sequence[str]:
    """Return rows as lines with their texts below each other."""
    listed = list(rows)
    width = max((len(word) for word, _ in listed), default=0)
    return [f"  {word:{width}}  {text}".rstrip() for word, text in listed]
