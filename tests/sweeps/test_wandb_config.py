"""Configs of Weights & Biases: all of their words, and what is named because it has no counterpart."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from runstone import InvalidConfig
from runstone_sweeps.config import load_spec, parse_spec
from runstone_sweeps.space import Choice, Constant, Drawn, Parameter, Real, Whole
from runstone_sweeps.spec import SweepSpec
from runstone_sweeps.spec.algorithms import Algorithm
from runstone_sweeps.spec.command import build_command


def parse(folder: Path, **raw: Any) -> SweepSpec:
    (folder / "train.py").write_text("")
    base = {
        "program": "train.py",
        "method": "random",
        "run_cap": 3,
        "metric": {"name": "loss"},
        "parameters": {"x": {"min": 0, "max": 1}},
    }
    return parse_spec({**base, **raw}, folder=folder, file_name="sweep.yaml")


def mistakes_of(folder: Path, **raw: Any) -> list[str]:
    with pytest.raises(InvalidConfig) as caught:
        parse(folder, **raw)
    return [line.removeprefix("sweep.yaml: ") for line in str(caught.value).splitlines()]


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ({"min": 1, "max": 4}, Whole("x", 1, 4)),
        ({"min": 0.5, "max": 4}, Real("x", 0.5, 4.0)),
        ({"distribution": "uniform", "min": 1, "max": 4}, Real("x", 1.0, 4.0)),
        ({"distribution": "int_uniform", "min": 1, "max": 4}, Whole("x", 1, 4)),
        ({"distribution": "q_uniform", "min": 0, "max": 9, "q": 3}, Whole("x", 0, 9, step=3)),
        ({"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.25}, Real("x", 0.0, 1.0, step=0.25)),
        (
            {"distribution": "q_uniform", "min": 1, "max": 9, "q": 4},
            Drawn("x", "uniform", 1.0, 9.0, step=4.0, is_whole=True),
        ),
        ({"distribution": "log_uniform_values", "min": 0.1, "max": 10}, Real("x", 0.1, 10.0, log=True)),
        ({"distribution": "inv_log_uniform_values", "min": 0.1, "max": 10}, Real("x", 0.1, 10.0, log=True)),
        ({"distribution": "log_uniform", "min": -1, "max": 2}, Real("x", math.exp(-1), math.exp(2), log=True)),
        ({"distribution": "inv_log_uniform", "min": -1, "max": 2}, Real("x", math.exp(-2), math.exp(1), log=True)),
        (
            {"distribution": "q_log_uniform_values", "min": 1, "max": 100, "q": 5},
            Drawn("x", "log_uniform", 1.0, 100.0, step=5.0, is_whole=True),
        ),
        (
            {"distribution": "q_log_uniform", "min": 0, "max": 2},
            Drawn("x", "log_uniform", 1.0, math.exp(2), step=1.0, is_whole=True),
        ),
        ({"distribution": "normal"}, Drawn("x", "normal", 0.0, 1.0)),
        ({"distribution": "normal", "mu": 2, "sigma": 0}, Constant("x", 2)),
        ({"distribution": "q_normal", "mu": 5, "q": 0.5}, Drawn("x", "normal", 5.0, 1.0, step=0.5)),
        ({"distribution": "log_normal", "mu": 1, "sigma": 2}, Drawn("x", "log_normal", 1.0, 2.0)),
        ({"distribution": "q_log_normal"}, Drawn("x", "log_normal", 0.0, 1.0, step=1.0, is_whole=True)),
        ({"distribution": "beta", "a": 2, "b": 3}, Drawn("x", "beta", 2.0, 3.0)),
        ({"distribution": "q_beta", "q": 0.1}, Drawn("x", "beta", 1.0, 1.0, step=0.1)),
        ({"distribution": "categorical", "values": ["a", 1]}, Choice("x", ("a", 1))),
        ({"values": ["a", "b", "c"], "probabilities": [0.5, 0, 0.5]}, Choice("x", ("a", "c"), (0.5, 0.5))),
        ({"distribution": "constant", "value": 3}, Constant("x", 3)),
        ({"parameters": {"y": {"values": [1]}}}, Choice("x.y", (1,))),
    ],
)
def test_every_distribution_of_theirs_is_one_of_ours(
    tmp_path: Path, body: dict[str, Any], parameter: Parameter
) -> None:
    assert parse(tmp_path, parameters={"x": body}).space.parameters == (parameter,)


@pytest.mark.parametrize(
    ("method", "scheduler", "sampler"),
    [
        ("grid", None, "grid"), ("random", None, "random"), ("bayes", None, "tpe"),
        ("custom", {"engine": "optuna"}, "tpe"), ("custom", {"engine": "ax"}, "gp"),
        ("bayes", {"engine": "wandb"}, "tpe"),
    ],
)  # fmt: skip
def test_method_and_scheduler_choose_the_sampler(
    tmp_path: Path, method: str, scheduler: dict[str, str] | None, sampler: str
) -> None:
    more = {} if scheduler is None else {"scheduler": scheduler}
    spec = parse(tmp_path, method=method, parameters={"x": {"values": [1, 2]}}, **more)
    assert spec.sampler.name == sampler
    assert spec.pruner.name == "none", "theirs stops nothing unless it is told to"


@pytest.mark.parametrize(
    ("said", "options"),
    [
        ({"min_iter": 3}, {"min_resource": 3, "reduction_factor": 3}),
        ({"min_iter": 3, "eta": 2, "strict": True}, {"min_resource": 3, "reduction_factor": 2}),
        # looked at after 27 / 3 = 9 and 27 / 9 = 3
        ({"max_iter": 27, "s": 2}, {"min_resource": 3, "reduction_factor": 3}),
        ({"max_iter": 10, "s": 9}, {"min_resource": 1, "reduction_factor": 3}),
    ],
)
def test_early_terminate_is_successive_halving(tmp_path: Path, said: dict[str, Any], options: dict[str, int]) -> None:
    spec = parse(tmp_path, early_terminate={"type": "hyperband", **said})
    assert spec.pruner == Algorithm("successive_halving", options)
    assert spec.notes == ()


def test_a_whole_config_of_theirs_runs_unchanged(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("")
    (tmp_path / "sweep.yaml").write_text(
        """\
description: all of it
entity: us
project: p
name: mine
controller: {type: local}
program: train.py
method: bayes
metric: {name: val_loss, goal: minimize, target: 0.1, impute: best, impute_while_running: latest}
early_terminate: {type: hyperband, min_iter: 2, eta: 2.5, strict: false}
run_cap: 5
command: ["${env}", "${interpreter}", "${program}", --fixed=1, "${args}"]
parameters:
  flag: {values: [true, false]}
  lr: {value: 0.1}
"""
    )
    spec = load_spec(tmp_path / "sweep.yaml")
    assert (spec.name, spec.project, spec.trials, spec.metric.target) == ("mine", "p", 5, 0.1)
    assert [note.split(" ")[0] for note in spec.notes] == [
        "early_terminate.eta", "early_terminate.strict:", "metric.impute", "metric.impute_while_running",
    ]  # fmt: skip
    words = build_command(
        {"flag": True, "lr": 0.1},
        script=spec.script,
        command=spec.command,
        function=None,
        metric="val_loss",
        environment={},
    )
    assert words[0] == "/usr/bin/env"
    assert words[2:] == ["train.py", "--fixed=1", "--flag=True", "--lr=0.1"]


def test_several_metrics_of_theirs_are_several_of_ours(tmp_path: Path) -> None:
    metrics = [{"name": "acc", "goal": "maximize"}, {"name": "ms"}]
    raw = {
        "program": "train.py", "method": "custom", "scheduler": {"engine": "optuna"}, "run_cap": 3, "metrics": metrics,
        "parameters": {"x": {"min": 0, "max": 1}},
    }  # fmt: skip
    (tmp_path / "train.py").write_text("")
    spec = parse_spec(raw, folder=tmp_path)
    assert [(m.name, m.goal) for m in spec.metrics] == [("acc", "maximize"), ("ms", "minimize")]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"job": "a/b:latest"}, "job: is started by their server; name what to run with program or command"),
        ({"image_uri": "a"}, "image_uri: is started by their server; name what to run with program or command"),
        (
            {"method": "custom"},
            "method: is 'custom'; it needs scheduler: {engine: optuna} or {engine: ax}, or use sampler",
        ),
        ({"scheduler": {"engine": "magic"}}, "scheduler.engine: is 'magic'; optuna, ax and wandb are understood"),
        (
            {"method": "custom", "scheduler": {"engine": "optuna", "source": "a.py"}},
            "scheduler.source: is Python code of theirs; a sampler is named here, and when: makes branches",
        ),
        ({"scheduler": "optuna"}, "scheduler: must be a mapping such as {engine: optuna}"),
        ({"controller": {"type": "moon"}}, "controller: must be {type: local} or {type: cloud}"),
        (
            {"early_terminate": {"type": "median"}},
            "early_terminate.type: must be hyperband; the pruner key offers more",
        ),
        (
            {"early_terminate": {"type": "hyperband"}},
            "early_terminate.min_iter: is missing; hyperband needs it, or max_iter and s",
        ),
        ({"early_terminate": {"type": "hyperband", "max_iter": 9}}, "early_terminate.s: is missing; max_iter needs it"),
        (
            {"early_terminate": {"type": "hyperband", "min_iter": 3, "eta": 1}},
            "early_terminate.eta: must be a number above 1, got 1",
        ),
        (
            {"early_terminate": {"type": "hyperband", "min_iter": 3, "etta": 3}},
            "early_terminate.etta: is not a key of hyperband; there is min_iter, max_iter, s, eta and strict",
        ),
        (
            {"parameters": {"x": {"distribution": "log_uniform", "min": -1, "max": 1000}}},
            "parameters.x.max: is 1000; it is an exponent of e, so a float holds it up to 700",
        ),
        ({"run_cap": None}, "run_cap: is missing; say how many trials to run, or give a timeout or a budget"),
        ({"run_cap": 0}, "run_cap: is 0; it must be at least 1"),
    ],
)
def test_what_has_no_counterpart_is_named_in_their_words(tmp_path: Path, raw: dict[str, Any], message: str) -> None:
    assert message in mistakes_of(tmp_path, **raw)
