"""Reads the sweep config of Weights & Biases as one of ours. Knows their words, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

AddMistake = Callable[[Sequence[str | int], str], None]
_MARKS = frozenset({"method", "program", "run_cap", "early_terminate", "controller"})
_METHODS = {"grid": "grid", "random": "random", "bayes": "tpe"}
# What says nothing about the search: who owns the sweep, and where their server keeps it.
_IGNORED = ("description", "entity", "controller", "$schema", "display_name")
_DISTRIBUTIONS: dict[str, dict[str, Any]] = {
    "uniform": {"type": "float"},
    "int_uniform": {"type": "int"},
    "q_uniform": {"type": "float"},
    "log_uniform_values": {"type": "float", "log": True},
    "categorical": {},
    "constant": {},
}


def is_wandb(raw: dict[str, Any]) -> bool:
    """Tell whether a config uses words that only theirs has."""
    return bool(_MARKS & raw.keys())


def translate(raw: dict[str, Any], add_mistake: AddMistake) -> dict[str, Any]:
    """Return the config in our words; what has no counterpart here is added as a mistake."""
    ours = {key: value for key, value in raw.items() if key not in _IGNORED and key not in _MARKS}
    if "program" in raw:
        ours["script"] = raw["program"]
    if "run_cap" in raw:
        ours["trials"] = raw["run_cap"]
    method = raw.get("method")
    if method in _METHODS:
        ours["sampler"] = _METHODS[method]
    elif "method" in raw:
        add_mistake(("method",), f"is {method!r}; grid, random and bayes are understood, or use sampler")
    # Theirs stops nothing unless it is told to.
    ours["pruner"] = _pruner(raw["early_terminate"], add_mistake) if raw.get("early_terminate") else "none"
    if isinstance(raw.get("metric"), dict):
        ours["metric"] = {"goal": "minimize", **raw["metric"]}
        if "target" in ours["metric"]:
            add_mistake(("metric", "target"), "is not supported; a sweep ends with its trials or its timeout")
            del ours["metric"]["target"]
    if isinstance(raw.get("parameters"), dict):
        ours["parameters"] = _parameters(raw["parameters"], ("parameters",), add_mistake)
    return ours


def _pruner(raw: Any, add_mistake: AddMistake) -> dict[str, Any] | str:
    if not isinstance(raw, dict) or raw.get("type") != "hyperband":
        add_mistake(("early_terminate", "type"), "must be hyperband; the pruner key offers more")
        return "none"
    pruner: dict[str, Any] = {"name": "hyperband", "reduction_factor": raw.get("eta", 3)}
    if "min_iter" in raw:
        pruner["min_resource"] = raw["min_iter"]
    if "max_iter" in raw:
        pruner["max_resource"] = raw["max_iter"]
    return pruner


def _parameters(raw: dict[str, Any], path: tuple[str | int, ...], add_mistake: AddMistake) -> dict[str, Any]:
    ours: dict[str, Any] = {}
    for name, body in raw.items():
        here = (*path, name)
        if not isinstance(body, dict):
            ours[name] = body
            continue
        body = dict(body)
        if isinstance(body.get("parameters"), dict):
            body["parameters"] = _parameters(body["parameters"], (*here, "parameters"), add_mistake)
        distribution = body.pop("distribution", None)
        if distribution is not None and distribution not in _DISTRIBUTIONS:
            known = ", ".join(_DISTRIBUTIONS)
            add_mistake((*here, "distribution"), f"{distribution!r} has no counterpart here; there is {known}")
        elif distribution is not None:
            body.update(_DISTRIBUTIONS[distribution])
        if "q" in body:
            body["step"] = body.pop("q")
        if "probabilities" in body:
            add_mistake((*here, "probabilities"), "is not supported; every value is equally likely at first")
            del body["probabilities"]
        ours[name] = body
    return ours
