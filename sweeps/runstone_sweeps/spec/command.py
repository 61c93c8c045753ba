"""The words of a trial's command line. Knows templates and parameters; starts nothing."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from runstone_sweeps.space import Space, nest

_MACRO = re.compile(r"\$\{([^{}]*)\}")
# Those of Weights & Biases, so that a command that was written for it works.
_MACROS = frozenset(
    {"args", "args_no_hyphens", "args_no_boolean_flags", "args_json", "args_json_file", "env", "interpreter", "program"}
)
_WHOLE_WORD = frozenset({"args", "args_no_hyphens", "args_no_boolean_flags"})


def find_unknown_macros(command: Sequence[str], space: Space) -> list[str]:
    """Return the names in `${...}` that stand neither for a macro nor for a parameter."""
    known = _MACROS | {parameter.name for parameter in space}
    return [
        name
        for word in command
        for name in _MACRO.findall(word)
        if name not in known and not name.startswith("envvar:")
    ]


def uses_json_file(command: Sequence[str] | None) -> bool:
    """Tell whether the command wants the parameters in a file."""
    return any("${args_json_file}" in word for word in command or ())


def build_command(
    point: Mapping[str, Any],
    *,
    script: str | None,
    command: Sequence[str] | None,
    function: str | None,
    metric: str,
    environment: Mapping[str, str],
    json_file: Path | None = None,
) -> list[str]:
    """Return the words that start one trial.

    Without a template a script gets each parameter as `--name=value`; so does a command that mentions no
    parameters itself.

    Args:
        point: Dotted name and value of each parameter.
        script: Path of a script; `.py` files run with this interpreter.
        command: A template with macros.
        function: `module:name`, called in a process of its own.
        metric: What the number that the function returns is logged as.
        environment: What `${envvar:NAME}` reads.
        json_file: What `${args_json_file}` stands for.
    """
    if function is not None:
        return [sys.executable, "-m", "runstone_sweeps.trial", function, metric]
    if command is None:
        program = [sys.executable, str(script)] if str(script).endswith(".py") else [_local(str(script))]
        return [*program, *_arguments(point)]
    words: list[str] = []
    for word in command:
        match = _MACRO.fullmatch(word)
        if match and match[1] in _WHOLE_WORD:
            words.extend(_arguments(point, match[1]))
        elif match and match[1] == "env":
            words.append("/usr/bin/env")
        else:
            words.append(_fill(word, point, script, environment, json_file))
    mentioned = {name for word in command for name in _MACRO.findall(word)}
    if not mentioned & (_MACROS - {"env", "interpreter", "program"} | point.keys()):
        words.extend(_arguments(point))
    return words


def _fill(
    word: str, point: Mapping[str, Any], script: str | None, environment: Mapping[str, str], json_file: Path | None
) -> str:
    """Replace the macros inside one word."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name.startswith("envvar:"):
            return environment.get(name.removeprefix("envvar:"), "")
        match name:
            case "args_json":
                return json.dumps(nest(point), ensure_ascii=False)
            case "args_json_file":
                return str(json_file)
            case "interpreter":
                return sys.executable
            case "program":
                return str(script)
            case "env":
                return "/usr/bin/env"
            case "args" | "args_no_hyphens" | "args_no_boolean_flags":
                return " ".join(_arguments(point, name))
        return argument_text(point[name])

    return _MACRO.sub(value, word)


def _arguments(point: Mapping[str, Any], style: str = "args") -> Iterable[str]:
    for name, value in point.items():
        if style == "args_no_boolean_flags" and isinstance(value, bool):
            if value:
                yield f"--{name}"
        elif style == "args_no_hyphens":
            yield f"{name}={argument_text(value)}"
        else:
            yield f"--{name}={argument_text(value)}"


def argument_text(value: Any) -> str:
    """Return a parameter's value as a word of a command line: text as it is, lists and objects as JSON."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else str(value)


def _local(script: str) -> str:
    """Return a path that the system takes as one, not as a program to look for."""
    return script if "/" in script else f"./{script}"
