"""Configs with conditions, distributions and fixed points: what is understood, and how mistakes are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runstone import InvalidConfig
from runstone_sweeps.config import parse_spec, yamlfile
from runstone_sweeps.space import Choice, Drawn, Real, Whole
from runstone_sweeps.spec import Metric, SweepSpec
from runstone_sweeps.spec.options import Budget, Constraint, ExecutorSpec, Replicates, Resources, Retries, Terminator

TREE = """\
parameters:
  optimizer: {values: [adam, sgd]}
  layers: {min: 1, max: 4}
  momentum: {min: 0.5, max: 0.99, when: {optimizer: sgd}}
  extra: {values: [1, 2], when: {layers: {min: 3}, optimizer: [adam]}}
"""


def parse(text: str, folder: Path, **more: Any) -> SweepSpec:
    raw, lines = yamlfile.parse(text, "sweep.yaml")
    base = {"metric": {"name": "loss", "goal": "minimize"}, "trials": 4}
    return parse_spec({**base, **raw, **more}, folder=folder, file_name="sweep.yaml", lines=lines, has_objective=True)


def mistakes_of(text: str, folder: Path, **more: Any) -> list[str]:
    with pytest.raises(InvalidConfig) as caught:
        parse(text, folder, **more)
    return [line.removeprefix("sweep.yaml: ") for line in str(caught.value).splitlines()]


def test_conditions_are_read(tmp_path: Path) -> None:
    space = parse(TREE, tmp_path).space
    assert str(space.condition("momentum")) == "optimizer is sgd"
    assert str(space.condition("extra")) == "layers >= 3 and optimizer is adam"
    assert space.condition("optimizer") is None
    assert space.branches() == ({"optimizer": "adam"}, {"optimizer": "sgd"})


def test_a_condition_of_a_group_holds_for_all_in_it_and_names_are_found_from_the_inside(tmp_path: Path) -> None:
    text = """\
parameters:
  kind: {values: [a, b]}
  net:
    when: {kind: a}
    parameters:
      kind: {values: [x, y]}
      depth: {min: 1, max: 3, when: {kind: x}}
"""
    space = parse(text, tmp_path).space
    assert str(space.condition("net.kind")) == "kind is a"
    assert str(space.condition("net.depth")) == "kind is a and net.kind is x"
    assert space.size == 1 + 3 + 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("a: {value: 1, when: {b: 1}}", "parameters.a.when.b: there is no such parameter; there is a (line 2)"),
        ("a: {values: [1], when: {a: 1}}", "parameters.a.when: a depends on itself (line 2)"),
        (
            "a: {values: [1, 2], when: {b: 1}}\n  b: {values: [1], when: {c: 1}}\n  c: {values: [1], when: {a: 1}}",
            "parameters.a.when: goes round in a circle: a needs b needs c needs a (line 2)",
        ),
        (
            "a: {values: [adam, sgd]}\n  b: {value: 1, when: {a: sdg}}",
            "parameters.b.when.a: a is never 'sdg'; did you mean sgd? (line 3)",
        ),
        ("a: {min: 1, max: 3}\n  b: {value: 1, when: {a: 4}}", "parameters.b.when.a: a is never 4 (line 3)"),
        (
            "a: {values: [1]}\n  b: {value: 1, when: {a: true}}",
            "parameters.b.when.a: a is never true; there is 1 (line 3)",
        ),
        (
            "a: {min: 1, max: 3}\n  b: {value: 1, when: {a: {min: 4}}}",
            "parameters.b.when.a: is never so: a has no value with a >= 4 (line 3)",
        ),
        (
            "a: {min: 1, max: 3}\n  b: {value: 1, when: {a: {min: x}}}",
            "parameters.b.when.a.min: must be a number, got the text 'x' (line 3)",
        ),
        (
            "a: {value: 1, when: sgd}",
            "parameters.a.when: must be a mapping such as {optimizer: sgd}, got the text 'sgd' (line 2)",
        ),
        (
            "a: {values: [1, 2], probabilities: [1]}",
            "parameters.a.probabilities: must be a list with one number for each of the 2 values, got a list of 1 "
            "(line 2)",
        ),
        (
            "a: {values: [1, 2], probabilities: [1, 0]}",
            "parameters.a.probabilities.1: must be a number above 0, got 0 (line 2)",
        ),
        (
            "a: {distribution: normal, sigma: 0}",
            "parameters.a.sigma: is 0; it must be above 0 (line 2)",
        ),
        (
            "a: {distribution: gauss}",
            "parameters.a.distribution: is 'gauss'; there is normal, log_normal, beta, uniform, log_uniform or "
            "inv_log_uniform (line 2)",
        ),
        ("a: {distribution: beta, mu: 1}", "parameters.a.mu: does not go with the distribution beta (line 2)"),
        ("a: {distribution: log_uniform, min: 1}", "parameters.a.max: is missing (line 2)"),
        (
            "a: {distribution: normal, min: 50, max: 60}",
            "parameters.a: min and max cut off all of the distribution that is likely; widen them (line 2)",
        ),
        (
            "a: {distribution: log_normal, sigma: 500}",
            "parameters.a: reaches numbers that a float cannot hold; give a max or a smaller sigma (line 2)",
        ),
        ("a: {value: .inf}", "parameters.a.value: is inf; a value must be finite (line 2)"),
    ],
)
def test_each_mistake_is_one_line_with_its_place(tmp_path: Path, body: str, message: str) -> None:
    assert mistakes_of(f"parameters:\n  {body}\n", tmp_path) == [message]


def test_conditions_that_would_take_forever_to_count_are_refused(tmp_path: Path) -> None:
    many = {f"p{i}": {"values": [0, 1]} for i in range(20)}
    last = {"all": {"value": 1, "when": dict.fromkeys(many, 1)}}
    (line,) = mistakes_of("{}", tmp_path, parameters={**many, **last})
    assert line == "parameters: the conditions make 1,048,576 cases; at most 100,000 are kept apart"


def test_distributions_are_read(tmp_path: Path) -> None:
    text = """\
parameters:
  a: {distribution: normal, mu: 1, sigma: 2}
  b: {distribution: log_normal, mu: 0, sigma: 1, max: 9, step: 1}
  c: {distribution: beta, a: 2, b: 5}
  d: {distribution: inv_log_uniform, min: 1, max: 10}
  e: {distribution: log_uniform, min: 1, max: 1000, step: 0.5}
  f: {distribution: uniform, min: 1, max: 9, step: 2}
  g: {distribution: uniform, min: 2, max: 9, step: 2}
  h: {values: [x, y], probabilities: [3, 1]}
"""
    assert parse(text, tmp_path).space.parameters == (
        Drawn("a", "normal", 1.0, 2.0),
        Drawn("b", "log_normal", 0.0, 1.0, high=9.0, step=1.0, is_whole=True),
        Drawn("c", "beta", 2.0, 5.0),
        Real("d", 1.0, 10.0, log=True),
        Drawn("e", "log_uniform", 1.0, 1000.0, step=0.5),
        Drawn("f", "uniform", 1.0, 9.0, step=2.0, is_whole=True),
        Whole("g", 2, 8, step=2),
        Choice("h", ("x", "y"), (0.75, 0.25)),
    )


def test_points_are_read_with_dotted_names_and_checked(tmp_path: Path) -> None:
    text = "parameters: {a: {parameters: {x: {min: 0.0, max: 1.0}}}, b: {values: [{k: 1}, 2]}}\n"
    good = parse(text, tmp_path, points=[{"a": {"x": 0.5}}, {"a.x": 1, "b": {"k": 1}}])
    assert good.points == ({"a.x": 0.5}, {"a.x": 1, "b": {"k": 1}})
    wrong = [{"a": {"x": 2.0}}, {"c": 1}, {}, 3]
    assert mistakes_of(text, tmp_path, points=wrong) == [
        "points.0.a.x: 2.0 is not in the space",
        "points.1.c: is not a parameter; there is a.x or b",
        "points.2: must be a mapping from parameters to values, got a mapping",
        "points.3: must be a mapping from parameters to values, got 3",
    ]
    assert mistakes_of(TREE, tmp_path, points=[{"optimizer": "adam", "momentum": 0.9}]) == [
        "points.0.momentum: is not there in this point: it needs optimizer is sgd"
    ]


def test_all_that_a_sweep_may_be_told_beside_its_space(tmp_path: Path) -> None:
    text = """\
metrics: [{name: loss, goal: minimize, target: 0.1}, {name: acc, goal: maximize}]
prune_on: acc
constraints: [{metric: mem, max: 4}, {metric: f, min: 0, max: 1}]
extends: old
replicates: {count: 3, aggregate: worst}
duplicates: reuse
min_per_branch: 5
terminator: {patience: 7}
gpus: 0.5
devices: [0, 1]
cpus: 2
memory: 8GB
start: cold
preload: [torch, torch._dynamo]
no_report_timeout: 10m
retries: {oom: 2, backoff: 5s}
budget: {gpu_hours: 3, energy: 3kWh, cost: 10, prices: {gpu_hour: 2.5}}
audit: 0.05
executor: {name: slurm, partition: gpu}
storage: sqlite:///study.db
sampler: random
parameters: {x: {min: 0, max: 9}}
"""
    raw, _ = yamlfile.parse(text, "x")
    spec = parse_spec(raw, folder=tmp_path, has_objective=True)
    assert spec.metrics == (Metric("loss", "minimize", target=0.1), Metric("acc", "maximize"))
    assert spec.metric.name == "acc"
    assert spec.constraints == (Constraint("mem", max=4.0), Constraint("f", 0.0, 1.0))
    assert (spec.extends, spec.duplicates, spec.min_per_branch, spec.audit) == (("old",), "reuse", 5, 0.05)
    assert spec.replicates == Replicates(3, "worst")
    assert spec.terminator == Terminator(patience=7)
    assert spec.resources == Resources(0.5, (0, 1), 2, 8 * 10**9)
    assert (spec.start, spec.preload) == ("cold", ("torch", "torch._dynamo"))
    assert spec.no_report_timeout_s == 600
    assert spec.retries == Retries(oom=2, backoff_s=5.0)
    assert spec.budget == Budget(3.0, 3 * 3.6e6, 10.0, {"gpu_hour": 2.5})
    assert spec.executor == ExecutorSpec("slurm", {"partition": "gpu"})
    assert spec.storage == "sqlite:///study.db"
    assert spec.trials is None, "GPU hours are a limit too"


def test_short_forms_stand_for_the_long_ones(tmp_path: Path) -> None:
    text = "parameters: {x: {min: 0, max: 9}}\nretries: 2\nreplicates: 3\nterminator: true\nexecutor: ray\ndevices: [1]"
    spec = parse(text, tmp_path)
    assert spec.retries == Retries(crash=2, oom=2)
    assert spec.replicates == Replicates(3)
    assert spec.terminator == Terminator()
    assert spec.executor == ExecutorSpec("ray")
    assert spec.resources.gpus == 1, "who names devices wants them used"
    plain = parse("parameters: {x: {min: 0, max: 9}}", tmp_path)
    assert (plain.terminator, plain.retries, plain.replicates) == (None, Retries(), Replicates())
    assert parse("parameters: {x: {min: 0, max: 9}}\nterminator: false", tmp_path).terminator is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("metrics: []", "metrics: must have at least one entry (line 2)"),
        ("prune_on: los", "prune_on: los is not a metric of the sweep; did you mean loss? (line 2)"),
        ("constraints: [{metric: a}]", "constraints.0: needs min or max (line 2)"),
        ("constraints: [{metric: a, min: 2, max: 1}]", "constraints.0.min: 2 is above max 1 (line 2)"),
        ("constraints: [{metrik: a}]", "constraints.0.metric: is missing (line 2)"),
        ("gpus: 1.5", "gpus: is 1.5; give a whole number, or a share below 1 (line 2)"),
        ("devices: [0, 0]", "devices: names a GPU twice (line 2)"),
        ("gpus: 2\ndevices: [0]", "devices: has 1 GPUs, and a trial takes 2 (line 3)"),
        ("memory: much", "memory: is 'much'; write bytes, or a size such as 512MB, 8GB, 8GiB (line 2)"),
        (
            "budget: {energy: 3 apples}",
            "budget.energy: is '3 apples'; write kilowatt-hours, or an energy such as 3kWh, 5MJ (line 2)",
        ),
        (
            "budget: {cost: 3}",
            "budget.cost: needs prices; write `prices: {gpu_hour: 2.5}`, cpu_hour, hour or kwh (line 2)",
        ),
        (
            "budget: {prices: {gpu: 3}}",
            "budget.prices.gpu: is not a key here; there is gpu_hour, cpu_hour, hour or kwh (line 2)",
        ),
        ("retries: {oon: 1}", "retries.oon: is not a key here; did you mean oom? (line 2)"),
        ("retries: -1", "retries.crash: is -1; it must be at least 0 (line 2)"),
        ("start: hot", "start: is 'hot'; there is auto, warm or cold (line 2)"),
        ("audit: 2", "audit: is 2; it must be at most 1 (line 2)"),
        ("executor: moon", "executor.name: is 'moon'; there is local, workers, ray or slurm (line 2)"),
        ("storage: study.db", "storage: is 'study.db'; write a URL, such as sqlite:///study.db (line 2)"),
        ("duplicates: drop", "duplicates: is 'drop'; there is allow, reuse, replicate or forbid (line 2)"),
        ("replicates: 0", "replicates.count: is 0; it must be at least 1 (line 2)"),
        ("terminator: 3", "terminator: must be a mapping, got 3 (line 2)"),
        ("extends: [1]", "extends.0: must be text, got 1 (line 2)"),
    ],
)
def test_mistakes_in_what_is_beside_the_space(tmp_path: Path, line: str, message: str) -> None:
    found = mistakes_of(f"parameters: {{x: {{min: 0, max: 9}}}}\n{line}\n", tmp_path)
    assert message in found


def test_a_metric_and_metrics_do_not_go_together(tmp_path: Path) -> None:
    both = [{"name": "a", "goal": "minimize"}, {"name": "a", "goal": "maximize"}]
    assert mistakes_of("parameters: {x: {min: 0, max: 9}}", tmp_path, metrics=both) == [
        "metrics: does not go with metric; keep one of them",
        "metrics.1.name: a is there twice",
    ]


def test_a_target_is_reached_in_the_direction_of_the_goal() -> None:
    assert Metric("a", "minimize", target=1.0).is_reached(1.0)
    assert not Metric("a", "minimize", target=1.0).is_reached(1.1)
    assert Metric("a", "maximize", target=1.0).is_reached(2.0)
    assert not Metric("a", "maximize").is_reached(1e9)
