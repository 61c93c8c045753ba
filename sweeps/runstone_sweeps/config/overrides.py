"""Words of a command line that change a config: `lr=0.1`, `optimizer=adam,sgd`, `sampler.name=gp`, `~dropout`."""

from __future__ import annotations

import copy
import difflib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from runstone import InvalidConfig
from runstone_sweeps.config import wandb as wandb_config
from runstone_sweeps.config.guesses import guess_goal
from runstone_sweeps.config.mistakes import nearest
from runstone_sweeps.config.parameters import PARAMETER_KEYS
from runstone_sweeps.config.shape import CONFIG_KEYS
from runstone_sweeps.config.swept import Swept, WrongWord
from runstone_sweeps.config.words import read_elements, read_value

_WORD = re.compile(r"(\+\+|\+|~|)([^=+~][^=]*)(?:=(.*))?", re.DOTALL)
_CONFIG_SUFFIXES = (".yaml", ".yml", ".json")
_SCRIPT_SUFFIXES = (".py", ".sh")
# Keys whose value is text as it stands, so that a name may look like a number.
_TEXT_KEYS = frozenset("name project script function working_dir command storage prune_on metric.name memory".split())
_WORD_LISTS = frozenset({"extends", "preload"})
# What the short form of a key stands for in its long form.
_SHORT_FORMS: Mapping[str, Callable[[Any], dict[str, Any]]] = {
    "sampler": lambda short: {"name": short},
    "pruner": lambda short: {"name": short},
    "executor": lambda short: {"name": short},
    "replicates": lambda short: {"count": short},
    "retries": lambda short: {"crash": short, "oom": short},
    "terminator": lambda _: {},
}
# A mapping with one of these is a parameter, not a constant.
_PARAMETER_MARKS = frozenset({"min", "max", "values", "value", "distribution"})


def is_script(path: str | Path) -> bool:
    """Tell whether a file is a program that is tried, and not a config."""
    path = Path(path)
    if path.suffix.lower() in _CONFIG_SUFFIXES:
        return False
    return path.suffix in _SCRIPT_SUFFIXES or (path.is_file() and os.access(path, os.X_OK))


def apply_overrides(raw: Mapping[str, Any], words: Sequence[str], *, is_open: bool = False) -> dict[str, Any]:
    """Return a config with the changes that words of a command line make; the given one stays as it is.

    A word names a parameter (`lr=…`) or a key of the config (`trials=20`, `sampler.n_startup_trials=5`);
    `parameters.x=…` and `config.x=…` say which where a name is both. `+x=…` adds a parameter, `~x` removes one, or a
    key. Values follow Hydra's grammar; see `spec/words.py`. A condition of the parameter stays.

    Args:
        raw: The config.
        words: The changes, in their order.
        is_open: Whether names that the config does not know become parameters without a `+`.

    Raises:
        InvalidConfig: a word is not understood; one line for each, which begins with the word.
    """
    changed = copy.deepcopy(dict(raw))
    wrong = []
    for word in words:
        try:
            _apply(changed, word, is_open=is_open)
        except WrongWord as error:
            wrong.append(f"{word[:120]}: {error}")
    if wrong:
        raise InvalidConfig("\n".join(wrong))
    return changed


def config_from_script(
    script: str | Path, words: Sequence[str] = (), *, metric: str | None = None, goal: str | None = None
) -> dict[str, Any]:
    """Return a config for a script without a file: its parameters are what the words say.

    Args:
        script: The script; relative paths of the config start at its folder.
        words: As for `apply_overrides`.
        metric: Name of the metric; may also be given as `metric.name=…`.
        goal: `minimize` or `maximize`; `None`: what the metric's name suggests.

    Raises:
        InvalidConfig: a word is not understood, or the goal is neither given nor suggested by the name.
    """
    raw: dict[str, Any] = {"script": Path(script).name, "parameters": {}}
    if metric is not None:
        raw["metric"] = {"name": metric}
    if goal is not None:
        raw.setdefault("metric", {})["goal"] = goal
    changed = apply_overrides(raw, words, is_open=True)
    said = changed.get("metric")
    if isinstance(said, dict) and "goal" not in said and isinstance(said.get("name"), str):
        guessed = guess_goal(said["name"])
        if guessed is None:
            raise InvalidConfig(f"metric {said['name']}: say --goal minimize or --goal maximize")
        said["goal"] = guessed
    return changed


def _apply(raw: dict[str, Any], word: str, *, is_open: bool) -> None:
    match = _WORD.fullmatch(word)
    if match is None or (match[3] is None) != (match[1] == "~"):
        raise WrongWord("write name=value, +name=value for a new parameter, or ~name to leave one out")
    mark, key, text = match[1], match[2].strip(), match[3]
    parameters = _find_parameters(raw)
    folder, _, rest = key.partition(".")
    if folder == "config" and rest:
        _set_key(raw, rest, text)
    elif folder == "parameters" and rest:
        _set_parameter(raw, rest, text, parameters)
    elif key in parameters:
        if folder in _keys(raw):
            raise WrongWord(f"is a parameter and a key of the config; write parameters.{key} or config.{key}")
        _set_parameter(raw, key, text, parameters)
    elif mark.startswith("+"):
        _set_parameter(raw, key, text, parameters)
    elif folder in _keys(raw):
        _set_key(raw, key, text)
    elif text is None:
        raise WrongWord(f"there is nothing of this name{nearest(key, [*parameters, *raw])}")
    elif not is_open:
        near = nearest(key, [*parameters, *CONFIG_KEYS])
        raise WrongWord(f"is no parameter of the config{near}; +{key}=... adds one")
    elif close := difflib.get_close_matches(key, CONFIG_KEYS, n=1, cutoff=0.8):
        raise WrongWord(f"did you mean {close[0]}? +{key}=... makes it a parameter")
    else:
        _set_parameter(raw, key, text, parameters)


def _keys(raw: Mapping[str, Any]) -> set[str]:
    """Return what a config can have at its top, beside parameters."""
    theirs = wandb_config.MARKS if wandb_config.is_wandb(raw) else frozenset()
    return {*CONFIG_KEYS, *theirs} - {"parameters"}


def _find_parameters(raw: Mapping[str, Any]) -> dict[str, tuple[dict[Any, Any], Any]]:
    """Return the mapping that holds each parameter and its key there, by dotted name."""
    found: dict[str, tuple[dict[Any, Any], Any]] = {}

    def walk(mapping: Any, folder: str) -> None:
        for key, body in mapping.items() if isinstance(mapping, dict) else ():
            if isinstance(body, dict) and isinstance(body.get("parameters"), dict):
                walk(body["parameters"], f"{folder}{key}.")
            else:
                found[f"{folder}{key}"] = mapping, key

    walk(raw.get("parameters"), "")
    return found


def _set_parameter(
    raw: dict[str, Any], name: str, text: str | None, parameters: Mapping[str, tuple[dict[Any, Any], Any]]
) -> None:
    """Give a parameter another body, add it, or, where `text` is `None`, remove it."""
    holder, key = parameters.get(name, (None, name))
    if text is None:
        if holder is None:
            raise WrongWord(f"there is no parameter {name}{nearest(name, parameters)}")
        del holder[key]
        return
    body = _body(read_value(text))
    if holder is None:
        top = raw.setdefault("parameters", {})
        if not isinstance(top, dict):
            raise WrongWord("the parameters of the config are not a mapping")
        top[name] = body
        return
    before = holder[key]
    if isinstance(before, dict) and "when" in before:
        body.setdefault("when", before["when"])
    holder[key] = body


def _body(value: Any) -> dict[str, Any]:
    if isinstance(value, Swept):
        return dict(value.body)
    if isinstance(value, dict) and value.keys() & _PARAMETER_MARKS and value.keys() <= set(PARAMETER_KEYS):
        return value
    return {"value": value}


def _set_key(raw: dict[str, Any], key: str, text: str | None) -> None:
    """Set or remove a key of the config, given by its dotted path."""
    *folders, last = key.split(".")
    inner: Any = raw
    for depth, folder in enumerate(folders):
        inner = _step_into(inner, folder, is_top=depth == 0)
    if text is None:
        try:
            del inner[_index(inner, last)]
        except (KeyError, IndexError):
            raise WrongWord("is not in the config") from None
        return
    value = _key_value(key, text)
    try:
        inner[_index(inner, last)] = value
    except IndexError:
        raise WrongWord(f"the list has {len(inner)} entries") from None


def _step_into(inner: Any, folder: str, *, is_top: bool) -> Any:
    index = _index(inner, folder)
    try:
        found = inner[index]
    except KeyError:
        found = {}
    except IndexError:
        raise WrongWord(f"the list has {len(inner)} entries") from None
    if is_top and folder in _SHORT_FORMS and found is not None and not isinstance(found, dict):
        found = _SHORT_FORMS[folder](found)
    if found is None:
        found = {}
    if not isinstance(found, (dict, list)):
        raise WrongWord(f"{folder} is a single value, which holds nothing")
    inner[index] = found
    return found


def _index(holder: Any, key: str) -> Any:
    """Return a key of a mapping, or an index of a list."""
    if isinstance(holder, dict):
        return key
    if not key.isdecimal() or len(key) > 6:
        raise WrongWord(f"{key} is not an index of a list")
    return int(key)


def _key_value(key: str, text: str) -> Any:
    if key in _TEXT_KEYS:
        is_quoted = len(text) >= 2 and text[0] == text[-1] and text[0] in "'\""
        return text[1:-1] if is_quoted else text
    if key in _WORD_LISTS and not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",")]
    elements = read_elements(text)
    if any(isinstance(element, Swept) for element in elements):
        raise WrongWord("is a key of the config and takes values, no ranges")
    return elements if len(elements) > 1 else elements[0]
