"""Configs: what is understood, and how each mistake is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runstone import InvalidConfig
from runstone_sweeps.config import load_spec, parse_duration, parse_spec, yamlfile
from runstone_sweeps.space import Choice, Constant, Real, Whole, nest
from runstone_sweeps.spec.algorithms import Algorithm

GOOD = """\
script: train.py
metric: {name: val/loss, goal: minimize}
trials: 4
parameters:
  lr: {min: 1e-4, max: 1e-1, log: true}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text("pass\n")
    return tmp_path


def mistakes_of(folder: Path, text: str) -> list[str]:
    config = folder / "sweep.yaml"
    config.write_text(text)
    with pytest.raises(InvalidConfig) as caught:
        load_spec(config)
    return str(caught.value).splitlines()


def with_parameters(body: str) -> str:
    return GOOD.split("parameters:")[0] + f"parameters:\n  {body}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "prunner: median\n", "prunner: is not a key here; did you mean pruner? (line 6)"),
        (GOOD.replace("trials: 4", "trials: 0"), "trials: is 0; it must be at least 1 (line 3)"),
        (
            GOOD.replace("trials: 4", "trials: many"),
            "trials: must be a whole number, got the text 'many' (line 3)",
        ),
        (
            GOOD.replace("trials: 4", "trials: 2.5"),
            "trials: must be a whole number, got 2.5 (line 3)",
        ),
        (
            GOOD.replace("trials: 4\n", ""),
            "trials: is missing; say how many trials to run, or give a timeout or a budget",
        ),
        (
            GOOD.replace("minimize", "minimise"),
            "metric.goal: is 'minimise'; did you mean minimize? (line 2)",
        ),
        (
            GOOD.replace(", goal: minimize", ""),
            "metric.goal: is missing; write minimize or maximize (line 2)",
        ),
        (
            GOOD.replace("metric: {name: val/loss, goal: minimize}\n", ""),
            "metric: is missing; write `metric: {name: val/loss, goal: minimize}`",
        ),
        (GOOD + "sampler: tpee\n", "sampler: there is no sampler 'tpee'; did you mean tpe? (line 6)"),
        (
            GOOD + "pruner: asha\n",
            "pruner: there is no pruner 'asha'; did you mean successive_halving? (line 6)",
        ),
        (
            GOOD + "sampler: {name: tpe, n_startup: 3}\n",
            "sampler.n_startup: the sampler tpe has no such option; did you mean n_startup_trials? (line 6)",
        ),
        (
            GOOD + "pruner:\n  name: percentile\n",
            "pruner.percentile: is missing; the pruner percentile needs it (line 6)",
        ),
        (
            GOOD + "sampler: {name: tpe, multivariate: 1}\n",
            "sampler.multivariate: must be true or false, got 1 (line 6)",
        ),
        (
            GOOD + "sampler: grid\n",
            "parameters.lr: the sampler grid needs a step or values, not a continuous range (line 5)",
        ),
        (GOOD + "timeout: soon\n", "timeout: is 'soon'; write seconds, or a time such as 90s, 10m, 1h30m, 2d (line 6)"),
        (GOOD + "parallel: -1\n", "parallel: is -1; it must be at least 1 (line 6)"),
        (
            GOOD + "env: {RUNSTONE_TRIAL: x}\n",
            "env.RUNSTONE_TRIAL: is set by the sweep for each trial and cannot be given (line 6)",
        ),
        (GOOD + "function: a:b\n", "function: does not go with script; keep one of them (line 6)"),
        (
            GOOD.replace("script: train.py", "function: train"),
            "function: is 'train'; write it as module:function, such as train:objective (line 1)",
        ),
        (
            GOOD.replace("script: train.py\n", ""),
            "script: is missing; say what to run: script: train.py, command: [...] or function: module:name",
        ),
        (
            GOOD + "command: [python, '${program}', '${arg}']\n",
            "command: ${arg} stands for nothing; did you mean args? (line 6)",
        ),
        (
            GOOD.replace("script: train.py", "command: [no-such-program-here]"),
            "command.0: there is no program 'no-such-program-here' (line 1)",
        ),
        (with_parameters("lr: {min: 0.1, max: 0.01}"), "parameters.lr.min: 0.1 is above max 0.01 (line 5)"),
        (
            with_parameters("lr: {min: 0, max: 1, log: true}"),
            "parameters.lr.min: is 0; a log scale needs a min above 0 (line 5)",
        ),
        (with_parameters("lr: {min: 1}"), "parameters.lr.max: is missing (line 5)"),
        (
            with_parameters("lr: {min: '1', max: 2}"),
            "parameters.lr.min: must be a number, got the text '1' (line 5)",
        ),
        (with_parameters("lr: {min: 0, max: .inf}"), "parameters.lr.max: is inf; it must be finite (line 5)"),
        (
            with_parameters("lr: {min: 1, max: 8, step: 2, log: true}"),
            "parameters.lr.step: does not go with log: true; leave one of them out (line 5)",
        ),
        (
            with_parameters("lr: {min: 0.5, max: 8, type: int}"),
            "parameters.lr.min: is 0.5; a parameter of type int needs whole numbers (line 5)",
        ),
        (with_parameters("lr: {vales: [1]}"), "parameters.lr.vales: is not a key here; did you mean values? (line 5)"),
        (
            with_parameters("lr: {values: []}"),
            "parameters.lr.values: must be a list with at least one value, got an empty list (line 5)",
        ),
        (with_parameters("lr: {values: [1, true]}"), "parameters.lr.values.1: true equals 1 (line 5)"),
        (
            with_parameters("lr: {value: 1, min: 0, max: 1}"),
            "parameters.lr: has value and also min and max; keep one of them (line 5)",
        ),
        (
            with_parameters("lr: 3"),
            "parameters.lr: must be a mapping with min and max, values or value, got 3 (line 5)",
        ),
        (
            with_parameters("{a: {value: 1}, a.b: {value: 2}}"),
            "parameters: a is a value and also holds a.b; rename one of them (line 4)",
        ),
        (
            with_parameters("{a.b: {value: 1}, a: {parameters: {b: {value: 2}}}}"),
            "parameters: a.b is defined twice, once with dots and once nested (line 4)",
        ),
        (GOOD + "trials: 5\n", "the key 'trials' is here twice (line 6)"),
        ("- a\n- b\n", "must be a mapping with keys such as metric or parameters, got a list of 2"),
        ("a: [1\n", "is not valid YAML: expected ',' or ']', but got '<stream end>' (line 2)"),
        (
            "a: !!python/object:os.system x\n",
            "the tag tag:yaml.org,2002:python/object:os.system is not allowed (line 1)",
        ),
        ("", "must be a mapping with keys such as metric or parameters, got nothing"),
    ],
)
def test_each_mistake_is_one_line_with_its_place(folder: Path, text: str, message: str) -> None:
    assert mistakes_of(folder, text) == [f"sweep.yaml: {message}"]


def test_a_missing_script_names_the_folder_and_the_nearest_file(folder: Path) -> None:
    (line,) = mistakes_of(folder, GOOD.replace("train.py", "trian.py"))
    assert line == f"sweep.yaml: script: there is no file 'trian.py' in {folder}; did you mean train.py? (line 1)"


def test_all_mistakes_are_shown_at_once(folder: Path) -> None:
    text = (
        "script: train.py\nmetric: {name: a, goal: up}\ntrials: -1\nparameters: {x: {min: 2, max: 1}}\nsampler: foo\n"
    )
    lines = mistakes_of(folder, text)
    assert [line.split(": ")[1] for line in lines] == ["metric.goal", "trials", "parameters.x.min", "sampler"]


def test_a_budget_from_elsewhere_may_be_missing_in_the_file(folder: Path) -> None:
    (folder / "sweep.yaml").write_text(GOOD.replace("trials: 4\n", ""))
    assert load_spec(folder / "sweep.yaml", has_budget=True).trials is None


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"nothing\.yaml: there is no such file"):
        load_spec(tmp_path / "nothing.yaml")


def test_numbers_are_read_by_the_rules_of_yaml_1_2() -> None:
    text = "a: 1e-3\nb: no\nc: 1_000\nd: 0o17\ne: .5\nf: -.inf\ng: '1'\nh: 12:30\ni: ~\nj: True\nk: 2.\nl: 0x1F"
    read, _ = yamlfile.parse(text, "x")
    assert read == {
        "a": 0.001, "b": "no", "c": "1_000", "d": 15, "e": 0.5, "f": float("-inf"), "g": "1", "h": "12:30",
        "i": None, "j": True, "k": 2.0, "l": 31,
    }  # fmt: skip


def test_a_small_file_that_stands_for_billions_of_values_is_refused() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
    )
    with pytest.raises(InvalidConfig, match="more than 20,000 values"):
        yamlfile.parse(bomb, "bomb.yaml")


@pytest.mark.parametrize("text", ["[" * 5000, "&a [*a]", "a: *b", "\x00", "{a: 1}: 2", "? [a]\n: 1"])
def test_strange_yaml_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        yamlfile.parse(text, "x.yaml")
    assert "\n" not in str(caught.value)


def test_every_kind_of_parameter_is_understood(folder: Path) -> None:
    spec = parse_spec(
        {
            "script": "train.py",
            "metric": {"name": "acc", "goal": "maximize", "value": "best"},
            "trials": 3,
            "parameters": {
                "lr": {"min": 1e-4, "max": 1e-1, "log": True},
                "width": {"min": 1, "max": 10, "step": 4},
                "drop": {"min": 0.0, "max": 0.35, "step": 0.1},
                "wide": {"min": 1, "max": 3, "type": "float"},
                "opt": {
                    "parameters": {"name": {"values": ["adam", None, True, 2.5, [1, 2]]}, "m.x": {"value": {"a": 1}}}
                },
            },
        },
        folder=folder,
    )
    assert spec.space.parameters == (
        Real("lr", 1e-4, 1e-1, log=True),
        Whole("width", 1, 9, step=4),
        Real("drop", 0.0, 0.3, step=0.1),
        Real("wide", 1.0, 3.0),
        Choice("opt.name", ("adam", None, True, 2.5, [1, 2])),
        Constant("opt.m.x", {"a": 1}),
    )
    assert spec.space.size is None
    assert spec.sampler == Algorithm("tpe")
    assert spec.pruner == Algorithm("median", {"n_startup_trials": 5, "n_warmup_steps": 1})
    point = {"lr": 0.1, "width": 5, "drop": 0.2, "wide": 1.5, "opt.name": [1, 2], "opt.m.x": {"a": 1}}
    searched = spec.space.searched
    assert [p.from_label(p.to_label(point[p.name])) for p in searched] == [point[p.name] for p in searched]
    assert nest(point)["opt"] == {"name": [1, 2], "m": {"x": {"a": 1}}}


def test_steps_are_counted_in_decimals_as_they_were_written() -> None:
    assert Real("x", 0.0, 0.3, step=0.1).values == (0.0, 0.1, 0.2, 0.3)


def test_a_grid_needs_no_number_of_trials_and_never_has_more(folder: Path) -> None:
    raw: dict[str, Any] = {
        "script": "train.py",
        "metric": {"name": "a", "goal": "minimize"},
        "sampler": "grid",
        "parameters": {"x": {"values": [1, 2, 3]}, "y": {"min": 1, "max": 2}},
    }
    assert parse_spec(raw, folder=folder).trials == 6
    assert parse_spec({**raw, "trials": 99}, folder=folder).trials == 6
    assert parse_spec({**raw, "trials": 4}, folder=folder).trials == 4


def test_a_config_of_weights_and_biases_runs_unchanged(folder: Path) -> None:
    (folder / "sweep.yaml").write_text(
        """\
program: train.py
method: bayes
metric: {goal: maximize, name: val_acc}
run_cap: 7
early_terminate: {type: hyperband, min_iter: 3, eta: 2}
command: ["${env}", "${interpreter}", "${program}", "${args}"]
parameters:
  lr: {distribution: log_uniform_values, min: 1e-5, max: 1e-1}
  units: {distribution: q_uniform, min: 8, max: 64, q: 8}
  act: {values: [relu, gelu]}
  seed: {value: 3}
"""
    )
    spec = load_spec(folder / "sweep.yaml")
    assert (spec.script, spec.trials, spec.sampler.name) == ("train.py", 7, "tpe")
    assert spec.pruner == Algorithm("successive_halving", {"min_resource": 3, "reduction_factor": 2})
    assert spec.space.parameters[:2] == (Real("lr", 1e-5, 1e-1, log=True), Whole("units", 8, 64, step=8))


def test_what_weights_and_biases_has_and_we_have_not_is_said(folder: Path) -> None:
    text = "program: train.py\nmethod: magic\nrun_cap: 1\nmetric: {name: a}\n"
    text += "parameters: {x: {distribution: cauchy, mu: 0}}\n"
    lines = mistakes_of(folder, text)
    assert lines[0] == "sweep.yaml: method: is 'magic'; grid, random and bayes are understood, or use sampler (line 2)"
    assert "parameters.x.distribution: 'cauchy' has no counterpart here" in lines[1]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172800), (7.5, 7.5)]
)
def test_times_are_seconds_or_words(text: object, seconds: float) -> None:
    assert float(str(parse_duration(text))) == seconds


def test_only_the_budget_may_change_without_making_it_another_sweep(folder: Path) -> None:
    raw: dict[str, Any] = {
        "script": "train.py",
        "metric": {"name": "a", "goal": "minimize"},
        "trials": 3,
        "parameters": {"x": {"min": 0, "max": 9}},
    }
    spec = parse_spec(raw, folder=folder)
    assert parse_spec({**raw, "trials": 9, "parallel": 4, "timeout": "1h"}, folder=folder).identity == spec.identity
    budget = {"retries": 2, "budget": {"gpu_hours": 1}, "gpus": 1, "memory": "1GB", "start": "cold", "terminator": True}
    assert parse_spec({**raw, **budget}, folder=folder).identity == spec.identity
    for other in ({"sampler": "random"}, {"replicates": 2}, {"audit": 0.1}, {"points": [{"x": 1}]}):
        assert parse_spec({**raw, **other}, folder=folder).identity != spec.identity


def test_a_huge_whole_number_is_a_mistake_and_no_crash(folder: Path) -> None:
    (line,) = mistakes_of(folder, GOOD.replace("trials: 4", f"trials: {'9' * 400}"))
    assert "is not a number (line 3)" in line


def test_a_line_for_editors_in_a_json_config_is_no_key(folder: Path) -> None:
    raw = {"$schema": "sweep.schema.json", "script": "train.py", "metric": {"name": "a", "goal": "minimize"}}
    spec = parse_spec({**raw, "trials": 1, "parameters": {"x": {"value": 1}}}, folder=folder)
    assert "$schema" not in spec.raw
