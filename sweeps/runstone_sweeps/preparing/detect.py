"""What a training script says of itself, by its source alone: the options that it takes and the metrics that it logs.

Nothing is imported and nothing is run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from runstone import InvalidConfig
from runstone_sweeps.config import yamlfile

Style = Literal["arguments", "hydra", "lightning", "params"]
_TYPES = {"int": int, "float": float, "str": str, "bool": bool}
_LOGGERS = frozenset({"log", "log_dict", "log_metrics", "log_metric", "add_scalar", "metric", "report"})
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a script.

    Attributes:
        name: As it is written on the command line, without hyphens before it; with dots in a config of Hydra.
        kind: Type of its value, where the source says it or its default does.
        default: Its default; `None` where there is none.
        choices: What is allowed, where the source lists it.
        is_flag: Whether it is given without a value.
    """

    name: str
    kind: type | None = None
    default: Any = None
    choices: tuple[Any, ...] = ()
    is_flag: bool = False


@dataclass(frozen=True, slots=True)
class ScriptFacts:
    """What was found: options, metrics in the order in which they are logged, and how options are given."""

    options: tuple[Option, ...] = ()
    metrics: tuple[str, ...] = ()
    style: Style = "arguments"


def detect(script: Path) -> ScriptFacts:
    """Read a script; what cannot be read says nothing."""
    try:
        tree = ast.parse(script.read_text(encoding="utf-8-sig"))
    except (OSError, SyntaxError, ValueError, RecursionError):
        return ScriptFacts()
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    metrics = tuple(dict.fromkeys(_metrics(calls)))
    options: list[Option] = []
    if hydra := _hydra_config(tree, script):
        return ScriptFacts(tuple(_flat_options(hydra, "")), metrics, "hydra")
    if cli := next((call for call in calls if _name(call.func) == "LightningCLI"), None):
        return ScriptFacts(tuple(_lightning_options(cli, tree)), metrics, "lightning")
    for call in calls:
        if _name(call.func) == "add_argument":
            options += _argparse_option(call)
        elif _name(call.func) == "option":
            options += _click_option(call)
    options += _function_options(tree, calls)
    if options:
        return ScriptFacts(_unique(options), metrics, "arguments")
    return ScriptFacts(_unique(_params_options(tree)), metrics, "params")


def _unique(options: Iterable[Option]) -> tuple[Option, ...]:
    return tuple({option.name: option for option in options}.values())


def _name(node: ast.expr) -> str:
    """Return the last name of a dotted one."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _literal(node: ast.expr | None) -> Any:
    try:
        return _MISSING if node is None else ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return _MISSING


def _keywords(call: ast.Call) -> dict[str, ast.expr]:
    return {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}


def _long_name(call: ast.Call) -> str:
    """Return the long name among `-l`, `--lr`, `--learning-rate`; empty where there is none."""
    words = [word for argument in call.args if isinstance(word := _literal(argument), str)]
    # click joins the two sides of a flag by a slash
    names = [word.split("/")[0].strip() for word in words if word.startswith("--")]
    return names[0].removeprefix("--") if names else ""


def _option(name: str, kind: type | None, default: Any, choices: Any = (), *, is_flag: bool = False) -> Option:
    default = None if default is _MISSING else default
    if kind is None and isinstance(default, (bool, int, float, str)):
        kind = type(default)
    listed = tuple(choices) if isinstance(choices, (list, tuple)) else ()
    return Option(name, kind, default, listed, is_flag)


def _argparse_option(call: ast.Call) -> Iterator[Option]:
    name, given = _long_name(call), _keywords(call)
    if not name or "nargs" in given:
        return
    action = _literal(given.get("action"))
    is_flag = action in ("store_true", "store_false", "store_const")
    if action in ("version", "help", "append", "count"):
        return
    kind = _TYPES.get(_name(given["type"])) if "type" in given else None
    default = _literal(given.get("default"))
    yield _option(name, bool if is_flag else kind, default, _literal(given.get("choices")), is_flag=is_flag)


def _click_option(call: ast.Call) -> Iterator[Option]:
    name, given = _long_name(call), _keywords(call)
    if not name:
        return
    type_node = given.get("type")
    choices: Any = ()
    kind = None
    if isinstance(type_node, ast.Call) and _name(type_node.func) == "Choice" and type_node.args:
        choices = _literal(type_node.args[0])
    elif isinstance(type_node, ast.Call):
        kind = {"IntRange": int, "FloatRange": float}.get(_name(type_node.func))
    elif type_node is not None:
        kind = _TYPES.get(_name(type_node).lower())
    first = next((str(word) for node in call.args if str(word := _literal(node)).startswith("--")), "")
    is_flag = _literal(given.get("is_flag")) is True or "/" in first
    yield _option(name, bool if is_flag else kind, _literal(given.get("default")), choices, is_flag=is_flag)


def _function_options(tree: ast.Module, calls: list[ast.Call]) -> Iterator[Option]:
    """Yield the options that typer and fire make of a function's parameters."""
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    imported = {
        alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in ([ast.alias(node.module or "")] if isinstance(node, ast.ImportFrom) else node.names)
    }
    if "typer" in imported:
        run = {_name(call.args[0]) for call in calls if _name(call.func) == "run" and call.args}
        for function in functions.values():
            is_command = any(
                isinstance(mark, ast.Call) and _name(mark.func) == "command" for mark in function.decorator_list
            )
            if is_command or function.name in run:
                yield from _parameters(function, "-")
    if "fire" in imported:
        for call in calls:
            if _name(call.func) == "Fire" and call.args and _name(call.args[0]) in functions:
                yield from _parameters(functions[_name(call.args[0])], "_")


def _parameters(function: ast.FunctionDef, joint: str, prefix: str = "") -> Iterator[Option]:
    """Yield an option for each parameter with a default."""
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    for argument, node in [
        *zip(positional, defaults, strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]:
        if node is None or argument.arg in ("self", "cls"):
            continue
        if isinstance(node, ast.Call) and _name(node.func) == "Option" and node.args:
            node = node.args[0]
        kind = _TYPES.get(_name(argument.annotation)) if argument.annotation is not None else None
        default = _literal(node)
        is_flag = (kind is bool or isinstance(default, bool)) and joint == "-"
        yield _option(prefix + argument.arg.replace("_", joint), kind, default, is_flag=is_flag)


def _lightning_options(call: ast.Call, tree: ast.Module) -> Iterator[Option]:
    """Yield what LightningCLI takes for the model and the data module, where their classes are in the same file."""
    classes = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    given = _keywords(call)
    for index, (folder, key) in enumerate((("model", "model_class"), ("data", "datamodule_class"))):
        node = call.args[index] if len(call.args) > index else given.get(key)
        found = classes.get(_name(node)) if node is not None else None
        for function in found.body if found is not None else ():
            if isinstance(function, ast.FunctionDef) and function.name == "__init__":
                yield from _parameters(function, "_", f"{folder}.")


def _hydra_config(tree: ast.Module, script: Path) -> Mapping[str, Any] | None:
    """Return the config that `@hydra.main` names, where it is beside the script."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef):
            continue
        for mark in node.decorator_list:
            if not (isinstance(mark, ast.Call) and ast.unparse(mark.func) == "hydra.main"):
                continue
            given = _keywords(mark)
            folder, name = _literal(given.get("config_path")), _literal(given.get("config_name"))
            folder = folder if isinstance(folder, str) else "."
            name = name if isinstance(name, str) else "config"
            file = script.parent / folder / (name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
            try:
                content, _ = yamlfile.read(file)
            except InvalidConfig:
                return {}
            return content if isinstance(content, dict) else {}
    return None


def _flat_options(mapping: Mapping[str, Any], folder: str) -> Iterator[Option]:
    for key, value in mapping.items():
        if key in ("defaults", "hydra"):
            continue
        if isinstance(value, dict):
            yield from _flat_options(value, f"{folder}{key}.")
        elif isinstance(value, (bool, int, float, str)) and "${" not in str(value):
            yield _option(f"{folder}{key}", None, value)


def _params_options(tree: ast.Module) -> Iterator[Option]:
    """Yield what is taken from `runstone.trial_params()`: `params["lr"]`, `params.get("lr", 0.1)`."""
    names = {
        _name(target)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and "trial_params" in ast.unparse(node.value)
        for target in node.targets
    }
    names |= {  # a function that takes the params of a trial
        argument.arg
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        for argument in node.args.args
        if argument.arg == "params"
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and _name(node.value) in names and isinstance(_literal(node.slice), str):
            yield Option(_literal(node.slice))
        is_get = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get"
        if is_get and _name(node.func.value) in names and node.args and isinstance(_literal(node.args[0]), str):  # type: ignore[attr-defined]
            yield _option(_literal(node.args[0]), None, _literal(node.args[1]) if len(node.args) > 1 else _MISSING)  # type: ignore[attr-defined]


def _metrics(calls: list[ast.Call]) -> Iterator[str]:
    for call in calls:
        if _name(call.func) not in _LOGGERS or not call.args:
            continue
        first = call.args[0]
        if isinstance(first, ast.Dict):
            for key in first.keys:
                if isinstance(word := _literal(key), str):
                    yield word
        elif isinstance(word := _literal(first), str) and " " not in word:
            yield word
