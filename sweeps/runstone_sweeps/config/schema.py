"""The JSON Schema of a config, for editors: what they complete and underline. `sweep schema` prints it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runstone_sweeps.config import wandb as wandb_config
from runstone_sweeps.config.shape import Shape
from runstone_sweeps.spec.algorithms import PRUNERS, SAMPLERS, Known

_DURATION: dict[str, Any] = {
    "anyOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": r"^\s*(?=\d)(\d+(\.\d+)?d)?(\d+(\.\d+)?h)?(\d+(\.\d+)?m)?(\d+(\.\d+)?s?)?\s*$"},
    ]
}
_WORD = {"type": "string", "minLength": 1}
_WORDS = {"anyOf": [_WORD, {"type": "array", "items": _WORD}]}
_OPTIONS: Mapping[str, dict[str, Any]] = {
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "resource": {"anyOf": [{"type": "integer"}, {"const": "auto"}]},
    "params": {"type": "object", "minProperties": 1},
    "sampler": {"$ref": "#/$defs/sampler"},
    "pruner": {"$ref": "#/$defs/pruner"},
    "matrix": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
}
_DESCRIPTIONS = {
    "name": "Name of the sweep; default: the file's name.",
    "project": "Project of the trials' runs.",
    "script": "A script: .py runs with this interpreter, others by themselves.",
    "command": "A template instead of, or around, the script: words with ${args}, ${lr}, ${program}.",
    "function": "module:name of a Python function, called with the params.",
    "working_dir": "Folder in which trials start; default: that of the config.",
    "env": "Variables for the trials.",
    "metric": "What is searched for.",
    "metrics": "Several metrics at once; the result is a front of trials of which none is better in all.",
    "prune_on": "Which of several metrics the pruner looks at; default: the first.",
    "constraints": "Bounds that a result has to keep to count as feasible.",
    "parameters": "The space: what each trial gets.",
    "points": "Points to try first; what they leave out is proposed by the sampler.",
    "extends": "Ids or names of earlier sweeps whose trials the sampler learns from.",
    "sampler": "What proposes points; default: tpe.",
    "pruner": "What stops hopeless trials; default: median.",
    "min_per_branch": "Trials that each branch of a conditional space gets at least.",
    "trials": "Trials in all, failed and pruned ones included.",
    "parallel": "Trials at once; default: 1, or as many as the workers take.",
    "replicates": "How often each point is run, each time with another seed, and what the results come to.",
    "duplicates": "What becomes of a point that was tried before.",
    "timeout": "Time at work in all, over all sessions: seconds, 90s, 10m, 1h30m, 2d.",
    "trial_timeout": "Time for one trial; one that takes longer fails.",
    "no_report_timeout": "Time that a trial may be silent; one that is silent longer fails.",
    "grace": "Time between asking a trial to stop and killing it; default: 30s.",
    "seed": "Seed of the search; default: drawn, and recorded.",
    "retries": "How often a trial is started again, by what ended it.",
    "budget": "What the sweep may use in GPU hours, energy and money.",
    "terminator": "Ends the sweep when nothing better is to be expected.",
    "audit": "Share of the trials that the pruner decides against which run to their end all the same.",
    "gpus": "GPUs of a trial: a whole number, or a share below 1.",
    "devices": "Indices of the GPUs that the sweep may use.",
    "cpus": "Threads that numerical libraries may use in a trial.",
    "memory": "Memory of a trial, such as 8GB; one that takes more is ended.",
    "start": "Whether trials are forked from a process that has imported what they need.",
    "preload": "Modules that this process imports.",
    "executor": "Where trials run.",
    "storage": "URL of an Optuna storage into which the study is copied.",
}
_WHEN = {
    "type": "object",
    "minProperties": 1,
    "description": "The parameter exists only where others have these values: {optimizer: sgd}, {layers: {min: 2}}.",
}


def build_schema() -> dict[str, Any]:
    """Return the schema, of draft 2020-12; a config that `sweep check` accepts is valid by it."""
    base = _without_titles(Shape.model_json_schema())
    defs: dict[str, Any] = base.pop("$defs")
    properties: dict[str, Any] = base["properties"]
    _put_short_forms(properties, defs)
    for key, description in _DESCRIPTIONS.items():
        properties[key]["description"] = description
    properties["$schema"] = {"type": "string"}
    base["allOf"] = [{"required": ["parameters"]}, {"oneOf": [{"required": ["metric"]}, {"required": ["metrics"]}]}]
    defs |= {
        "config": base,
        "parameters": _parameters(),
        "parameter": {"anyOf": [_range(), _choice(), _constant(), _drawn(), _group()]},
        "sampler": _algorithm(SAMPLERS),
        "pruner": {"anyOf": [_algorithm(PRUNERS), {"enum": [None, False]}]},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Sweep of Runstone",
        "description": "What `sweep run` takes; a config of Weights & Biases is understood too.",
        "type": "object",
        "if": {"anyOf": [{"required": [mark]} for mark in sorted(wandb_config.MARKS)]},
        "then": _wandb(),
        "else": {"$ref": "#/$defs/config"},
        "$defs": defs,
    }


def _put_short_forms(properties: dict[str, Any], defs: dict[str, Any]) -> None:
    """Add the forms that are read as a longer one, which the shapes do not know."""
    for key in ("timeout", "trial_timeout", "no_report_timeout", "grace"):
        properties[key] = dict(_DURATION)
    properties["command"] = {
        "anyOf": [_WORD, {"type": "array", "minItems": 1, "items": {"type": ["string", "number"]}}]
    }
    properties["parameters"] = {"$ref": "#/$defs/parameters"}
    properties["points"] = {"type": "array", "items": {"type": "object", "minProperties": 1}}
    properties["extends"] = dict(_WORDS)
    properties["preload"] = dict(_WORDS)
    properties["sampler"] = {"$ref": "#/$defs/sampler"}
    properties["pruner"] = {"$ref": "#/$defs/pruner"}
    properties["replicates"] = _either({"type": "integer", "minimum": 1}, "ReplicatesShape")
    properties["retries"] = _either({"type": "integer", "minimum": 0}, "RetriesShape")
    properties["terminator"] = _either({"type": ["boolean", "null"]}, "TerminatorShape")
    properties["executor"] = _either({"enum": ["local", "workers", "ray", "slurm"]}, "ExecutorShape")
    defs["BudgetShape"]["properties"]["energy"] = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, _WORD]}
    defs["RetriesShape"]["properties"]["backoff"] = dict(_DURATION)
    properties["memory"] = {"anyOf": [{"type": "integer", "exclusiveMinimum": 0}, _WORD, {"type": "null"}]}


def _either(short: dict[str, Any], long: str) -> dict[str, Any]:
    return {"anyOf": [short, {"$ref": f"#/$defs/{long}"}]}


def _without_titles(schema: Any) -> Any:
    """Leave out the names of our classes, which an editor would show."""
    if isinstance(schema, list):
        return [_without_titles(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    is_schema = "type" in schema or "$ref" in schema or "anyOf" in schema or "enum" in schema or "title" in schema
    return {
        key: _without_titles(value)
        for key, value in schema.items()
        if not (is_schema and ((key == "title" and isinstance(value, str)) or key == "default"))
    }


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


def _parameters() -> dict[str, Any]:
    return {"type": "object", "minProperties": 1, "additionalProperties": {"$ref": "#/$defs/parameter"}}


def _range() -> dict[str, Any]:
    return _object(
        ["min", "max"],
        min={"type": "number"},
        max={"type": "number"},
        log={"type": "boolean", "description": "Each factor is equally likely, not each difference."},
        step={"type": ["number", "null"], "exclusiveMinimum": 0, "description": "Only every step from min on."},
        type={"enum": ["int", "float", None]},
        when=_WHEN,
    )


def _choice() -> dict[str, Any]:
    shares = {"type": "array", "minItems": 1, "items": {"type": "number", "exclusiveMinimum": 0}}
    return _object(["values"], values={"type": "array", "minItems": 1}, probabilities=shares, when=_WHEN)


def _constant() -> dict[str, Any]:
    return _object(["value"], value={}, when=_WHEN)


def _drawn() -> dict[str, Any]:
    return _object(
        ["distribution"],
        distribution={"enum": ["normal", "log_normal", "beta", "uniform", "log_uniform", "inv_log_uniform"]},
        mu={"type": "number", "description": "Mean, of the logarithm for log_normal."},
        sigma={"type": "number", "exclusiveMinimum": 0, "description": "Standard deviation."},
        a={"type": "number", "exclusiveMinimum": 0},
        b={"type": "number", "exclusiveMinimum": 0},
        min={"type": ["number", "null"]},
        max={"type": ["number", "null"]},
        step={"type": ["number", "null"], "exclusiveMinimum": 0, "description": "Values are rounded to multiples."},
        type={"enum": ["int", "float", None]},
        when=_WHEN,
    )


def _group() -> dict[str, Any]:
    return _object(["parameters"], parameters={"$ref": "#/$defs/parameters"}, when=_WHEN)


def _algorithm(known: Mapping[str, Known]) -> dict[str, Any]:
    """Return the schema of a name, or of a mapping with a name and the options that go with it."""
    forms: list[dict[str, Any]] = [{"enum": sorted(known)}]
    for name, entry in known.items():
        options = {
            option: {"enum": list(kind)} if isinstance(kind, tuple) else _OPTIONS[kind]
            for option, kind in entry.options.items()
        }
        forms.append(_object(["name", *entry.required], name={"const": name}, **options))
    return {"anyOf": forms}


def _wandb() -> dict[str, Any]:
    """Return what is checked of a config of Weights & Biases, whose own schema says the rest."""
    return {
        "properties": {
            "parameters": {"type": "object", "minProperties": 1},
            "method": {"enum": ["grid", "random", "bayes", "custom"]},
            "run_cap": {"type": "integer", "minimum": 1},
        },
        "required": ["parameters"],
    }
