"""Params of a command: read off its words or from a file, cleaned of secrets, and never over what the script said."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from runstone.capture import redact
from runstone.errors import InvalidValue
from runstone.params import merge_params
from runstone.runlog.reader import read_events
from runstone.values import JSON
from runstone.yamltree import composed

# A single letter after a single hyphen says too little: `bash -c`.
_OPTION = re.compile(r"(?:--|-(?=[A-Za-z_]{2}))([A-Za-z_][\w./-]*)")
_ASSIGNED = re.compile(r"(?:--?|\+{0,2})([A-Za-z_][\w./@-]*)=(.*)", re.DOTALL)
_NUMBER = re.compile(r"-?(\d|\.\d)")
# No zeros in front: `007` is a name.
_FLOAT = re.compile(r"-?(0|[1-9]\d*)?(\.\d*)?(e[-+]?\d+)?|[-+]?(nan|inf)", re.IGNORECASE)
_WORDS = {"true": True, "false": False, "none": None, "null": None}


def params_of_words(words: Sequence[str]) -> dict[str, JSON]:
    """Return what a command line says by name: `--key value`, `--key=value`, `key=value`, and `--flag` as true."""
    found: dict[str, JSON] = {}
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        assigned = _ASSIGNED.fullmatch(word)
        option = _OPTION.fullmatch(word)
        if assigned is not None:
            _put(found, assigned[1], typed(assigned[2]))
        elif option is not None and position < len(words) and _is_value(words[position]):
            _put(found, option[1], typed(words[position]))
            position += 1
        elif option is not None:
            _put(found, option[1], True)
    return found


def _is_value(word: str) -> bool:
    return not word.startswith("-") or _NUMBER.match(word) is not None


def typed(text: str) -> JSON:
    """Return a word as the number, truth value, list or object that it spells, else as it is."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        value: JSON = json.loads(text)
    except (ValueError, RecursionError):
        try:
            return float(text) if _FLOAT.fullmatch(text) else text
        except ValueError:  # `.`, `e5`
            return text
    # A text in quotes, and `Infinity`, are what JSON makes of words that are none of its own.
    return text if isinstance(value, str) or text.endswith(("NaN", "Infinity")) else value


def nested(flat: Mapping[str, Any]) -> dict[str, JSON]:
    """Return params whose names have dots as nested ones: `{"model.lr": 1}` is `{"model": {"lr": 1}}`."""
    found: dict[str, JSON] = {}
    for name, value in flat.items():
        _put(found, name, value)
    return found


def _put(found: dict[str, JSON], name: str, value: JSON) -> None:
    """Put a value where its dotted name says; where a name is both a value and above others, all stay, undivided."""
    parts = name.split(".")
    inner: Any = found
    for part in parts[:-1] if all(parts) else ():
        inner = inner.setdefault(part, {})
        if not isinstance(inner, dict):
            found[name] = value
            return
    last = parts[-1] if all(parts) else name
    standing = inner.get(last)
    if isinstance(standing, dict) and isinstance(value, dict):
        merge_params(standing, value)
        return
    inner[last] = value
    if isinstance(standing, dict):
        found.update({f"{name}.{below}": item for below, item in standing.items()})


def read_params(path: Path) -> dict[str, JSON]:
    """Return the params in a JSON, TOML or YAML file.

    Raises:
        InvalidValue: it does not hold params by name, or is none of these.
        OSError: it cannot be read.
    """
    data = path.read_bytes()
    found: Any
    try:
        if path.suffix == ".toml":
            import tomllib  # only here

            found = tomllib.loads(data.decode())
        elif path.suffix in (".yaml", ".yml"):
            try:
                import yaml  # an extra, only here
            except ImportError:
                raise InvalidValue(f"{path}: YAML files need PyYAML: pip install PyYAML") from None
            try:
                found = composed(yaml.SafeLoader, data.decode())
            except (yaml.YAMLError, RecursionError) as error:
                raise InvalidValue(f"{path}: {error}") from None
        else:
            found = json.loads(data)
    except ValueError as error:
        if isinstance(error, InvalidValue):
            raise
        raise InvalidValue(f"{path}: {error}") from None
    if not isinstance(found, dict):
        raise InvalidValue(f"{path} must hold params by name, it holds {type(found).__name__}")
    return found


def without_secrets(params: Mapping[str, Any]) -> dict[str, JSON]:
    """Return params with values left out that are secrets by their names or their looks, as on a command line."""
    return {name: _clean(name, value) for name, value in params.items()}


def _clean(name: str, value: Any) -> JSON:
    if isinstance(value, dict):
        return without_secrets(value)
    if isinstance(value, list):
        return [_clean(name, item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    shown = redact.arguments([f"--{name}={value}"])[0].partition("=")[2]
    return value if shown == str(value) else shown


def left_to_tell(params: Mapping[str, Any], run_path: Path, own: frozenset[str]) -> dict[str, JSON]:
    """Return params without those that another writer of the run has set: what the script says of itself wins.

    Args:
        params: Nested.
        run_path: Folder of the run.
        own: Writers whose params do not count.
    """
    standing: dict[str, JSON] = {}
    for writer, event in read_events(run_path):
        if event["event"] == "params" and writer not in own and isinstance(event.get("params"), dict):
            merge_params(standing, event["params"])
    return dict(_missing(params, standing))


def _missing(params: Mapping[str, Any], standing: Mapping[str, Any]) -> Iterator[tuple[str, JSON]]:
    for name, value in params.items():
        if name not in standing:
            yield name, value
        elif isinstance(value, dict) and isinstance(standing[name], dict):
            inner = dict(_missing(value, standing[name]))
            if inner:
                yield name, inner
