"""Writes a first config for a script: ranges proposed by name and default, and comments that say what else there is."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runstone_sweeps.config.guesses import guess_goal
from runstone_sweeps.preparing.detect import Option, ScriptFacts, Style

_IGNORED = re.compile(
    r"seed|path|dir|folder|file|output|out|device|workers?|gpus?|cuda|cpu|name|project|checkpoint|ckpt|resume|log|"
    r"config|verbose|debug|host|port|entity|tags?|save|load|root|data|dataset|rank|url|version|help|quiet|precision"
)
_LENGTHS = re.compile(r"epochs?|steps|iters?|iterations")
_COMMANDS: Mapping[Style, str | None] = {
    "arguments": None,
    "params": None,
    "hydra": '["${interpreter}", "${program}", "${args_no_hyphens}"]',
    "lightning": '["${interpreter}", "${program}", fit, "${args}"]',
}
_CLEAR = ("val", "valid", "validation", "eval", "dev")


@dataclass(frozen=True, slots=True)
class Proposal:
    """A parameter for the config: its name, its body as YAML, and whether it is more than a guess from a number."""

    name: str
    body: str
    is_sure: bool


def propose_parameters(options: Iterable[Option]) -> list[Proposal]:
    """Return what may be searched of a script's options, in their order."""
    found = []
    for option in options:
        body, is_sure = _range_for(option)
        if body:
            found.append(Proposal(option.name, body, is_sure and not option.is_flag))
    return found


def choose_metric(metrics: Sequence[str]) -> str | None:
    """Return the metric that is most likely meant: of a validation, and with a goal that its name suggests."""

    def worth(name: str) -> tuple[bool, bool, bool]:
        words = re.split(r"[^a-z0-9]+", name.lower())
        return guess_goal(name) is not None, any(word in _CLEAR for word in words), "test" in words

    return max(metrics, key=worth, default=None)


def write_config(
    facts: ScriptFacts,
    proposals: Sequence[Proposal],
    *,
    script: str,
    metric: str,
    goal: str,
    trials: int,
    parallel: int,
    schema: str | None,
) -> str:
    """Return the text of a config that `sweep check` accepts.

    Args:
        facts: What the script says of itself.
        proposals: Parameters; those that are not sure are written as comments.
        script: Path of the script, from the config's folder.
        metric, goal, trials, parallel: What their keys get.
        schema: Where editors find the schema; `None`: no line about it.
    """
    lines = [f"# yaml-language-server: $schema={schema}"] if schema else []
    lines += [
        "# What there is to say in this file: docs/sweep-config.md, or complete it in an editor.",
        "# `sweep check FILE` explains it; with --dry-run it tries one short trial. `sweep run FILE` runs it.",
        f"script: {_yaml(script)}",
    ]
    if command := _COMMANDS[facts.style]:
        lines.append(f"command: {command}")
    lines += [
        "metric:",
        f"  name: {_yaml(metric)}{_others(metric, facts.metrics)}",
        f"  goal: {goal}",
        "  # target: 0.1           # a result with which the sweep is done",
        "  # value: best           # what counts of a trial; default: the last value",
        f"trials: {trials}",
        f"parallel: {parallel}",
        "parameters:",
    ]
    sure = [proposal for proposal in proposals if proposal.is_sure]
    if not sure:
        lines.append("  # No option was found in the script whose range is clear; name what to search:")
        first = next(iter(proposals), Proposal("lr", "{min: 1e-5, max: 1e-1, log: true}", True))
        sure, proposals = [first], list(proposals)[1:]
    lines += [f"  {_yaml(proposal.name)}: {proposal.body}" for proposal in sure]
    lines += [f"  # {_yaml(p.name)}: {p.body}" for p in proposals if p not in sure]
    lines += [
        "",
        "# More, where it is needed:",
        "# sampler: tpe             # or gp (few, slow trials), random, grid, cmaes, nsga2, ...",
        "# pruner: median           # or successive_halving, hyperband, none, ...",
        "# timeout: 8h              # for all together; trial_timeout: for one",
        "# gpus: 1                  # of each trial; also cpus and memory",
        "# retries: 2               # after a crash",
        "# constraints: [{metric: latency_ms, max: 20}]",
        "",
    ]
    return "\n".join(lines)


def _others(metric: str, metrics: Sequence[str]) -> str:
    rest = [name for name in metrics if name != metric][:6]
    return f"  # or {', '.join(rest)}" if rest and all(name.isprintable() for name in rest) else ""


def _yaml(value: Any) -> str:
    """Return a scalar as YAML."""
    if isinstance(value, str):
        is_plain = re.fullmatch(r"[A-Za-z_][\w./-]*", value) and value.lower() not in ("true", "false", "null")
        return value if is_plain else json.dumps(value, ensure_ascii=False)
    return json.dumps(value)


def _values(values: Iterable[Any]) -> str:
    return f"{{values: [{', '.join(map(_yaml, values))}]}}"


def _range_for(option: Option) -> tuple[str, bool]:
    """Return a body and whether it is sure; no body where the option is none to search."""
    name = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", option.name.rpartition(".")[2]).lower().replace("-", "_")
    words = name.split("_")
    default = option.default
    if option.choices:
        return (_values(option.choices), True) if len(option.choices) > 1 else ("", False)
    if option.kind is bool or isinstance(default, bool):
        return _values([True, False]), False
    number = float(default) if isinstance(default, (int, float)) and math.isfinite(default) else None
    for pattern, propose in _RULES:
        if re.fullmatch(pattern, name):
            return propose(number), True
    if _LENGTHS.fullmatch(words[-1]):
        return (f"{{value: {_number(number, whole=True)}}}", False) if number else ("", False)
    if any(_IGNORED.fullmatch(word) for word in words) or number is None or number <= 0:
        return "", False
    if option.kind is int or isinstance(default, int):
        return f"{{min: {max(1, int(number) // 2)}, max: {max(2, int(number) * 2)}}}", False
    return f"{{min: {_number(number / 10)}, max: {_number(number * 10)}, log: true}}", False


def _number(value: float | None, *, whole: bool = False) -> str:
    return str(int(value or 0)) if whole else f"{float(f'{value or 0:.3g}')!r}"


def _log(low: float, high: float) -> Any:
    """Return a rule: two decades around the default within bounds that make sense, or all of them."""

    def propose(default: float | None) -> str:
        if default is None or not low <= default <= high:
            return f"{{min: {_number(low)}, max: {_number(high)}, log: true}}"
        return f"{{min: {_number(max(low, default / 100))}, max: {_number(min(high, default * 10))}, log: true}}"

    return propose


def _between(low: float, high: float) -> Any:
    def propose(default: float | None) -> str:
        top = high if default is None else max(high, default)
        return f"{{min: {_number(low)}, max: {_number(top)}}}"

    return propose


def _powers(usual: int) -> Any:
    def propose(default: float | None) -> str:
        middle = round(math.log2(max(2.0, default or usual)))
        return _values(2**power for power in range(max(1, middle - 2), middle + 3))

    return propose


def _counts(usual: int) -> Any:
    def propose(default: float | None) -> str:
        return f"{{min: 1, max: {max(usual, int(default or 1) * 2)}}}"

    return propose


# Names without their folders, and what is proposed for them.
_RULES: Sequence[tuple[str, Any]] = (
    (r"(.*_)?(lr|learning_rate|step_size)", _log(1e-6, 1.0)),
    (r"weight_decay|wd|l2|l1|lambda|reg|regularization|.*_penalty", _log(1e-7, 1.0)),
    (r".*(dropout|drop_rate|drop_path|p_drop).*", _between(0.0, 0.5)),
    (r"label_smoothing|warmup_ratio|mixup.*", _between(0.0, 0.3)),
    (r"momentum", _between(0.5, 0.99)),
    (r"beta_?1", _between(0.8, 0.99)),
    (r"beta_?2", _between(0.9, 0.9999)),
    (r"gamma", _between(0.9, 0.9999)),
    (r"temperature|tau|(grad(ient)?_)?clip(_norm|_val|_value)?|gradient_clip_val", _log(0.01, 100.0)),
    (r"(.*_)?(batch_size|bs)", _powers(32)),
    (
        r"(.*_)?(hidden|hidden_(size|dim|units)|width|units|channels|filters|(embed|embedding|model|latent)_(dim|size)|"
        r"d_model|n_embd|dim|hiddens|n_hidden|neurons)",
        _powers(64),
    ),
    (r"(.*_)?(layers|depth|blocks|n_layers?|num_layers?)", _counts(4)),
    (r"(.*_)?heads?|n_heads?|num_heads?", _powers(4)),
    (r"n_estimators|num_leaves|max_depth|num_boost_round", _powers(64)),
)
