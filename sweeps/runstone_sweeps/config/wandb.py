"""Reads the sweep config of Weights & Biases as one of ours. Knows their words, and nothing else does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

AddMistake = Callable[[Sequence[str | int], str], None]
AddNote = Callable[[str], None]
MARKS = frozenset(
    {"method", "program", "run_cap", "early_terminate", "controller", "scheduler", "job", "image_uri", "apiVersion"}
)
# What a mistake in a key of ours is to be called for those who wrote theirs.
THEIR_NAMES = {"trials": "run_cap", "script": "program", "sampler": "method", "pruner": "early_terminate"}
_METHODS = {"grid": "grid", "random": "random", "bayes": "tpe"}
_ENGINES = {"optuna": "tpe", "ax": "gp"}
# What says nothing about the search: who owns the sweep, and where their server keeps it.
_IGNORED = ("description", "entity", "$schema", "display_name", "kind")
# Theirs, and what it is in our words; those in exponents have bounds of the logarithm.
_DISTRIBUTIONS: Mapping[str, Mapping[str, Any]] = {
    "uniform": {"type": "float"},
    "int_uniform": {"type": "int"},
    "q_uniform": {"distribution": "uniform"},
    "log_uniform_values": {"type": "float", "log": True},
    # The logarithm of 1/x is uniform where that of x is.
    "inv_log_uniform_values": {"type": "float", "log": True},
    "q_log_uniform_values": {"distribution": "log_uniform"},
    "log_uniform": {"type": "float", "log": True},
    "inv_log_uniform": {"type": "float", "log": True},
    "q_log_uniform": {"distribution": "log_uniform"},
    "normal": {"distribution": "normal"},
    "q_normal": {"distribution": "normal"},
    "log_normal": {"distribution": "log_normal"},
    "q_log_normal": {"distribution": "log_normal"},
    "beta": {"distribution": "beta"},
    "q_beta": {"distribution": "beta"},
    "categorical": {},
    "categorical_w_probabilities": {},
    "constant": {},
}
_IN_EXPONENTS = {"log_uniform": False, "q_log_uniform": False, "inv_log_uniform": True}


def is_wandb(raw: Mapping[str, Any]) -> bool:
    """Tell whether a config uses words that only theirs has."""
    return bool(MARKS & raw.keys())


def translate(raw: Mapping[str, Any], add_mistake: AddMistake, add_note: AddNote) -> dict[str, Any]:
    """Return the config in our words.

    Args:
        raw: Theirs.
        add_mistake: Told what has no counterpart here and would make it another sweep.
        add_note: Told what has none and makes no difference to the search.
    """
    ours = {key: value for key, value in raw.items() if key not in _IGNORED and key not in MARKS}
    for key in ("job", "image_uri"):
        if key in raw:
            add_mistake((key,), "is started by their server; name what to run with program or command")
    # Where our own word is there too, it was put there to say something else.
    if "program" in raw:
        ours.setdefault("script", raw["program"])
    if "run_cap" in raw:
        ours.setdefault("trials", raw["run_cap"])
    if "controller" in raw and raw["controller"] not in ({"type": "local"}, {"type": "cloud"}):
        add_mistake(("controller",), "must be {type: local} or {type: cloud}")
    if "sampler" not in raw:
        _method(raw, ours, add_mistake)
    # Theirs stops nothing unless it is told to.
    ours.setdefault("pruner", "none")
    if raw.get("early_terminate") and "pruner" not in raw:
        ours["pruner"] = _pruner(raw["early_terminate"], add_mistake, add_note)
    if isinstance(raw.get("metric"), dict):
        ours["metric"] = _metric(raw["metric"], add_note)
    if isinstance(raw.get("metrics"), list):
        ours["metrics"] = [_metric(m, add_note) if isinstance(m, dict) else m for m in raw["metrics"]]
    if isinstance(raw.get("parameters"), dict):
        ours["parameters"] = _parameters(raw["parameters"], ("parameters",), add_mistake)
    return ours


def _method(raw: Mapping[str, Any], ours: dict[str, Any], add_mistake: AddMistake) -> None:
    """Read `method` and `scheduler`, which together say what proposes points."""
    method, scheduler = raw.get("method"), raw.get("scheduler")
    if scheduler is not None and not isinstance(scheduler, dict):
        add_mistake(("scheduler",), "must be a mapping such as {engine: optuna}")
        return
    for key in ("source", "optimizer", "search_space"):
        if key in (scheduler or {}):
            add_mistake(
                ("scheduler", key), "is Python code of theirs; a sampler is named here, and when: makes branches"
            )
    engine = (scheduler or {}).get("engine")
    if scheduler is not None and engine not in (*_ENGINES, "wandb"):
        add_mistake(("scheduler", "engine"), f"is {engine!r}; optuna, ax and wandb are understood")
    elif method == "custom":
        if engine in _ENGINES:
            ours["sampler"] = _ENGINES[engine]
        else:
            add_mistake(
                ("method",), "is 'custom'; it needs scheduler: {engine: optuna} or {engine: ax}, or use sampler"
            )
    elif isinstance(method, str) and method in _METHODS:
        ours["sampler"] = _METHODS[method]
    elif "method" in raw:
        add_mistake(("method",), f"is {method!r}; grid, random and bayes are understood, or use sampler")


def _metric(raw: Mapping[str, Any], add_note: AddNote) -> dict[str, Any]:
    ours = {"goal": "minimize", **raw}
    for key in ("impute", "impute_while_running"):
        # Only samplers of theirs take a made-up result for a trial that has none.
        if ours.pop(key, None) not in (None, "false", False):
            add_note(f"metric.{key} has no effect: a failed trial has no result here, and none is made up for it")
    return ours


def _pruner(raw: Any, add_mistake: AddMistake, add_note: AddNote) -> dict[str, Any] | str:
    """Read `early_terminate`: their hyperband has one bracket, which is successive halving.

    With `min_iter` it looks at `min_iter`, `min_iter * eta`, ...; with `max_iter` and `s` at `max_iter / eta**s`,
    ..., `max_iter / eta`.
    """
    where = "early_terminate"
    if not isinstance(raw, dict) or raw.get("type") != "hyperband":
        add_mistake((where, "type"), "must be hyperband; the pruner key offers more")
        return "none"
    for key in raw:
        if key not in ("type", "min_iter", "max_iter", "s", "eta", "strict"):
            add_mistake((where, key), "is not a key of hyperband; there is min_iter, max_iter, s, eta and strict")
    numbers = {key: raw[key] for key in ("min_iter", "max_iter", "s", "eta") if key in raw}
    for key, number in numbers.items():
        is_right = isinstance(number, (int, float)) and not isinstance(number, bool) and 0 < number < 10**9
        if not is_right or (key == "eta" and number <= 1):
            add_mistake((where, key), f"must be a number above {int(key == 'eta')}, got {number!r}")
            return "none"
    eta = numbers.get("eta", 3)
    factor = max(2, round(eta))
    if factor != eta:
        add_note(f"{where}.eta is {eta:g}; whole numbers of 2 and more are possible, so it is {factor}")
    if "min_iter" in numbers:
        first = numbers["min_iter"]
    elif "max_iter" in numbers:
        if "s" not in numbers:
            add_mistake((where, "s"), "is missing; max_iter needs it")
            return "none"
        first = numbers["max_iter"] / factor ** min(numbers["s"], 60)
    else:
        add_mistake((where, "min_iter"), "is missing; hyperband needs it, or max_iter and s")
        return "none"
    if raw.get("strict") is False:
        add_note(f"{where}.strict: false has no effect: of each {factor} trials that come so far, the best goes on")
    return {"name": "successive_halving", "min_resource": max(1, int(first)), "reduction_factor": factor}


def _parameters(raw: dict[str, Any], path: tuple[str | int, ...], add_mistake: AddMistake) -> dict[str, Any]:
    ours: dict[str, Any] = {}
    for name, body in raw.items():
        here = (*path, name)
        if not isinstance(body, dict):
            ours[name] = body
        elif isinstance(body.get("parameters"), dict):
            ours[name] = {**body, "parameters": _parameters(body["parameters"], (*here, "parameters"), add_mistake)}
        else:
            ours[name] = _parameter(body, here, add_mistake)
    return ours


def _parameter(raw: dict[str, Any], path: tuple[str | int, ...], add_mistake: AddMistake) -> dict[str, Any]:
    body = dict(raw)
    name = body.pop("distribution", None)
    if isinstance(body.get("values"), list) and isinstance(body.get("probabilities"), list):
        _drop_the_impossible(body)
    if name is None:
        return body
    if name not in _DISTRIBUTIONS:
        add_mistake((*path, "distribution"), f"{name!r} has no counterpart here; there is {', '.join(_DISTRIBUTIONS)}")
        return body
    body.update(_DISTRIBUTIONS[name])
    if name in _IN_EXPONENTS:
        _raise_to_powers(body, path, add_mistake, is_inverse=_IN_EXPONENTS[name])
    if name.startswith("q_"):
        body["step"] = body.pop("q", 1)
    if body.get("sigma") == 0 and name in ("normal", "log_normal"):
        mean = body.get("mu", 0.0)
        return {"value": math.exp(mean) if name == "log_normal" else mean}
    return body


def _drop_the_impossible(body: dict[str, Any]) -> None:
    """Leave out values with probability 0, which theirs allows."""
    kept = [(v, p) for v, p in zip(body["values"], body["probabilities"], strict=False) if p != 0]
    if kept and len(body["values"]) == len(body["probabilities"]):
        body["values"], body["probabilities"] = [v for v, _ in kept], [p for _, p in kept]


def _raise_to_powers(
    body: dict[str, Any], path: tuple[str | int, ...], add_mistake: AddMistake, *, is_inverse: bool
) -> None:
    """Replace bounds that are exponents of e by the bounds of the value."""
    for key in ("min", "max"):
        number = body.get(key)
        if not isinstance(number, (int, float)) or isinstance(number, bool):
            continue
        if abs(number) > 700:
            add_mistake((*path, key), f"is {number}; it is an exponent of e, so a float holds it up to 700")
            return
        body[key] = math.exp(-number if is_inverse else number)
    if is_inverse and "min" in body and "max" in body:
        body["min"], body["max"] = body["max"], body["min"]
