"""Words of the command line that change a config."""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runstone import InvalidConfig
from runstone_sweeps.config import apply_overrides, config_from_script, is_script, load_spec, parse_spec
from runstone_sweeps.config.guesses import guess_goal
from runstone_sweeps.space import Choice, Constant, Real, Whole

RAW: dict[str, Any] = {
    "script": "train.py",
    "metric": {"name": "loss", "goal": "minimize"},
    "trials": 4,
    "parameters": {
        "lr": {"min": 1e-4, "max": 1e-1, "log": True},
        "opt": {
            "parameters": {"name": {"values": ["adam", "sgd"]}, "momentum": {"value": 0.9, "when": {"name": "sgd"}}}
        },
        "seed": {"value": 1},
    },
}


def changed(*words: str, raw: dict[str, Any] = RAW) -> dict[str, Any]:
    before = copy.deepcopy(raw)
    after = apply_overrides(raw, words)
    assert raw == before, "the given config stays as it is"
    return after


def body(word: str) -> Any:
    """Return what a word makes of the parameter `x`."""
    return apply_overrides({"parameters": {}}, [word], is_open=True)["parameters"]["x"]


def wrong(*words: str, **more: Any) -> list[str]:
    with pytest.raises(InvalidConfig) as caught:
        apply_overrides(RAW, words, **more)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.1", {"value": 0.1}),
        ("3", {"value": 3}),
        ("1e-3", {"value": 0.001}),
        ("true", {"value": True}),
        ("null", {"value": None}),
        ("adam", {"value": "adam"}),
        ("'0.1'", {"value": "0.1"}),
        ('"a,b"', {"value": "a,b"}),
        (r"a\,b", {"value": "a,b"}),
        ("", {"value": ""}),
        ("a b", {"value": "a b"}),
        ("sqlite:///a", {"value": "sqlite:///a"}),
        ("[1,2]", {"value": [1, 2]}),
        ("[]", {"value": []}),
        ("{a: 1, b: [x]}", {"value": {"a": 1, "b": ["x"]}}),
        ("adam,sgd", {"values": ["adam", "sgd"]}),
        ("1,2.5,null", {"values": [1, 2.5, None]}),
        ("[1,2],[3]", {"values": [[1, 2], [3]]}),
        ("choice(a,b)", {"values": ["a", "b"]}),
        ("choice([1],{k: 2})", {"values": [[1], {"k": 2}]}),
        ("range(1,10)", {"min": 1, "max": 9, "type": "int"}),
        ("range(5)", {"min": 0, "max": 4, "type": "int"}),
        ("range(16,128,step=16)", {"min": 16, "max": 112, "type": "int", "step": 16}),
        ("range(start=1,stop=10,step=4)", {"min": 1, "max": 9, "type": "int", "step": 4}),
        ("range(10,1,-3)", {"min": 4, "max": 10, "type": "int", "step": 3}),
        ("range(0,1,0.1)", {"min": 0.0, "max": 0.9, "type": "float", "step": 0.1}),
        ("range(3,4)", {"value": 3}),
        ("interval(1e-5,1e-1)", {"min": 1e-5, "max": 1e-1, "type": "float"}),
        ("interval(start=0, end=1)", {"min": 0, "max": 1, "type": "float"}),
        ("tag(log, interval(1e-5,1))", {"min": 1e-5, "max": 1, "type": "float", "log": True}),
        ("tag(mine,choice(a,b))", {"values": ["a", "b"]}),
        ("int(interval(1,8))", {"min": 1, "max": 8, "type": "int"}),
        ("tag(log,int(interval(1,64)))", {"min": 1, "max": 64, "type": "int", "log": True}),
        ("float(range(1,4))", {"min": 1.0, "max": 3.0, "type": "float"}),
        ("int(choice('1','2'))", {"values": [1, 2]}),
        ("str([1,true])", {"value": ["1", "true"]}),
        ("bool(choice(true,false))", {"values": [True, False]}),
        ("sort(3,1,2)", {"values": [1, 2, 3]}),
        ("sort(choice(b,a),reverse=true)", {"values": ["b", "a"]}),
        ("shuffle(range(1,4))", {"min": 1, "max": 3, "type": "int"}),
        ("{min: 0.1, max: 1, log: true}", {"min": 0.1, "max": 1, "log": True}),
        ("{distribution: normal, mu: 3}", {"distribution": "normal", "mu": 3}),
    ],
)
def test_values_follow_the_grammar_of_hydra(text: str, expected: Any) -> None:
    assert body(f"x={text}") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("range(1", "ends where ',' is missing"),
        ("range(1,2", "ends where ',' is missing"),
        ("range()", "range needs a stop"),
        ("range(1,5,0)", "step of range is 0"),
        ("range(5,1)", "range from 5 to 1 by 1 holds nothing"),
        ("range(a,b)", "start of range must be a finite number, got 'a'"),
        ("range(1,2,3,4)", "range takes start, stop, step; got 4 values"),
        ("range(1,2,start=1)", "range has no start left to give; it takes start, stop, step"),
        ("interval(1)", "interval needs a start and an end"),
        ("tag(log,choice(a,b))", "log goes with a range or an interval only"),
        ("tag(log)", "tag takes words and at last one of choice, range and interval"),
        ("chioce(a,b)", "there is no function chioce; did you mean choice?; put text with brackets in quotes"),
        ("glob(*)", "glob lists the options of a config group, which only Hydra has; write a choice"),
        ("range(1,3),5", "a list of choices holds values only; give one of choice, range and interval alone"),
        ("[range(1,3)]", "a range or choice cannot stand inside of a list or mapping"),
        ("'a", "the quote ' is not closed"),
        ("[1,2", "ends where ',' is missing"),
        ("{a}", "expected ':' before '}'"),
        ("[1]2", "expected ',' before '2'"),
        ("int(a)", "'a' cannot be made int"),
        ("[" * 40, "is nested more than 32 levels deep"),
    ],
)
def test_what_is_not_in_the_grammar_is_said(text: str, message: str) -> None:
    assert wrong(f"lr={text}") == [f"lr={text}: {message}"]


def test_parameters_are_changed_added_and_left_out() -> None:
    after = changed("lr=0.1", "opt.name=a,b", "+drop=interval(0,0.5)", "~parameters.seed")["parameters"]
    assert after == {
        "lr": {"value": 0.1},
        "opt": {"parameters": {"name": {"values": ["a", "b"]}, "momentum": {"value": 0.9, "when": {"name": "sgd"}}}},
        "drop": {"min": 0, "max": 0.5, "type": "float"},
    }


def test_a_condition_stays_with_its_parameter() -> None:
    inner = changed("opt.momentum=interval(0.5,0.9)")["parameters"]["opt"]["parameters"]
    assert inner["momentum"] == {"min": 0.5, "max": 0.9, "type": "float", "when": {"name": "sgd"}}


def test_keys_of_the_config_are_changed_by_their_path() -> None:
    after = changed(
        "trials=20", "sampler.name=gp", "sampler.n_startup_trials=3", "metric.value=best", "preload=torch,numpy",
        "devices=0,1", "timeout=1h30m", "retries.oom=2", "budget.prices.gpu_hour=2.5", "name=007", "config.seed=3",
        "extends=12345678,old", "storage=sqlite:///a.db",
        raw={**RAW, "sampler": "tpe", "retries": 1},
    )  # fmt: skip
    assert after["trials"] == 20
    assert after["sampler"] == {"name": "gp", "n_startup_trials": 3}
    assert after["metric"] == {"name": "loss", "goal": "minimize", "value": "best"}
    assert (after["preload"], after["devices"], after["timeout"]) == (["torch", "numpy"], [0, 1], "1h30m")
    assert after["retries"] == {"crash": 1, "oom": 2}
    assert after["budget"] == {"prices": {"gpu_hour": 2.5}}
    assert (after["name"], after["seed"], after["extends"]) == ("007", 3, ["12345678", "old"])
    assert after["storage"] == "sqlite:///a.db"
    assert "trials" not in changed("~trials")
    assert changed("metrics.0.goal=maximize", raw={"metrics": [{"name": "a"}]})["metrics"][0]["goal"] == "maximize"


def test_names_that_are_not_there_or_could_be_two_things_are_said() -> None:
    assert wrong(
        "lrr=1", "seed=1", "=3", "lr", "~nothing", "+trials", "trials.x=1", "trails=3", "trials=range(1,3)"
    ) == [
        "lrr=1: is no parameter of the config; did you mean lr?; +lrr=... adds one",
        "seed=1: is a parameter and a key of the config; write parameters.seed or config.seed",
        "=3: write name=value, +name=value for a new parameter, or ~name to leave one out",
        "lr: write name=value, +name=value for a new parameter, or ~name to leave one out",
        "~nothing: there is nothing of this name; there is lr, opt.name, opt.momentum, seed, script, metric, trials or "
        "parameters",
        "+trials: write name=value, +name=value for a new parameter, or ~name to leave one out",
        "trials.x=1: trials is a single value, which holds nothing",
        "trails=3: is no parameter of the config; did you mean trials?; +trails=... adds one",
        "trials=range(1,3): is a key of the config and takes values, no ranges",
    ]
    assert wrong("trails=3", is_open=True) == ["trails=3: did you mean trials? +trails=... makes it a parameter"]


@given(
    words=st.lists(
        st.one_of(
            st.text(max_size=30),
            st.builds(
                "{}{}={}".format,
                st.sampled_from(["", "+", "++", "~"]),
                st.sampled_from(["lr", "opt.name", "trials", "metric.name", "sampler.name", "a.b", "config.x.0", ""]),
                st.text(alphabet="ab019.,()[]{}'\"\\:=-+ erangintvlochs", max_size=24)
                | st.sampled_from(["range(1,9)", "interval(0,1)", "tag(log,interval(1,2))", "int(choice(1,2))"]),
            ),
        ),
        max_size=4,
    )
)
@settings(max_examples=500, deadline=None)
def test_no_word_crashes_and_what_comes_out_is_checked_like_any_config(words: list[str]) -> None:
    with contextlib.suppress(InvalidConfig):
        after = apply_overrides(RAW, words)
        parse_spec(after, folder=Path("/"), is_for_reading=True)


def test_a_config_file_with_words_is_read_as_one(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("")
    file = tmp_path / "sweep.yaml"
    file.write_text(
        "script: train.py\nmetric: {name: loss, goal: minimize}\ntrials: 4\nparameters:\n"
        "  lr: {min: 1e-4, max: 1e-1, log: true}\n  hidden: {values: [8, 16]}\n"
    )
    spec = load_spec(file, overrides=["lr=0.1", "hidden=range(16,128,step=16)", "trials=7"])
    assert spec.space.parameters == (Constant("lr", 0.1), Whole("hidden", 16, 112, step=16))
    assert spec.trials == 7
    with pytest.raises(InvalidConfig) as caught:
        load_spec(file, overrides=["lr=interval(1,0)", "trials=0"])
    assert str(caught.value).splitlines() == [
        "sweep.yaml: trials: is 0; it must be at least 1",
        "sweep.yaml: parameters.lr.min: 1 is above max 0",
    ]


def test_words_change_a_config_of_weights_and_biases_too(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("")
    file = tmp_path / "sweep.yaml"
    file.write_text(
        "program: train.py\nmethod: random\nrun_cap: 4\nmetric: {name: loss}\n"
        "parameters: {lr: {distribution: log_uniform_values, min: 1e-4, max: 1}}\n"
    )
    spec = load_spec(file, overrides=["lr=interval(0.5,1)", "trials=9", "sampler=tpe", "pruner=hyperband"])
    assert (spec.space.parameters, spec.trials) == ((Real("lr", 0.5, 1.0),), 9)
    assert (spec.sampler.name, spec.pruner.name, spec.script) == ("tpe", "hyperband", "train.py")


def test_a_script_needs_no_config(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("")
    spec = load_spec(script, overrides=["lr=interval(0,1)", "opt=a,b", "trials=3"], metric="val/loss")
    assert spec.space.parameters == (Real("lr", 0.0, 1.0), Choice("opt", ("a", "b")))
    assert (spec.script, spec.name, spec.metric.goal, spec.trials) == ("train.py", "train", "minimize", 3)
    with pytest.raises(InvalidConfig, match="metric: is missing"):
        load_spec(script, overrides=["lr=interval(0,1)", "trials=3"])
    with pytest.raises(InvalidConfig, match="metric x1: say --goal minimize or --goal maximize"):
        config_from_script(script, ["lr=1"], metric="x1")
    program = tmp_path / "program"
    program.write_text("")
    assert not is_script(program), "a config may have any name"
    program.chmod(0o755)
    assert is_script(program)
    assert is_script("a.py")
    assert not is_script("a.yml")
    config = tmp_path / "c.yaml"
    config.write_text("{}")
    with pytest.raises(InvalidConfig, match="a config names its metric itself"):
        load_spec(config, metric="loss")


@pytest.mark.parametrize(
    ("name", "goal"),
    [
        ("val/loss", "minimize"), ("valAcc", "maximize"), ("test_accuracy", "maximize"), ("eval/f1", "maximize"),
        ("perplexity", "minimize"), ("epoch", None), ("loss_over_accuracy", None),
    ],
)  # fmt: skip
def test_goals_are_guessed_from_words(name: str, goal: str | None) -> None:
    assert guess_goal(name) == goal
