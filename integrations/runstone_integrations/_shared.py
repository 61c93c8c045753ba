"""What several integrations need: hyperparameters of any type as JSON, whose a run is. Imports no framework."""

from __future__ import annotations

import sys
import warnings
import weakref
from collections.abc import Iterable, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from itertools import islice
from os import PathLike, fspath
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import runstone

MAX_DEPTH = 12
MAX_ITEMS = 1_000
MAX_NODES = 20_000
MAX_TEXT = 200

_NO_REPR: Any = object.__repr__  # tells only an address
_PLAIN_TEXT = (date, time, timedelta, UUID, Decimal, Fraction, complex)


def clean_params(params: Mapping[Any, Any]) -> dict[str, Any]:
    """Return hyperparameters as nested JSON, whatever their types, in bounded time and size.

    Numbers, text, `None` and booleans stay as they are; scalars of NumPy and torch become numbers, enum members and
    paths text; mappings, namespaces, dataclasses, named tuples and configuration objects become objects; sequences and
    sets lists. Anything else (modules, tensors, arrays, frames, datasets, functions) becomes its type and a few words,
    never its content.
    """
    return _Cleaner().mapping(params.items(), 0, frozenset())


def type_name(value: Any) -> str:
    """Return the dotted name of a class, or of the class of an object: `torch.optim.adam.Adam`."""
    kind = value if isinstance(value, type) else type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


class _Cleaner:
    def __init__(self) -> None:
        self._nodes = 0

    def mapping(self, items: Iterable[tuple[Any, Any]], depth: int, above: frozenset[int]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, item in islice(items, MAX_ITEMS):
            name = key if type(key) is str else _key(key)
            if name in result:  # 1 and "1" are two keys in Python and one in JSON
                name = f"{name} ({type(key).__name__})"
            result[name] = self.value(item, depth + 1, above)
        return result

    def value(self, value: Any, depth: int, above: frozenset[int]) -> Any:
        if value is None or type(value) in (bool, int, float, str):
            return value
        self._nodes += 1
        if self._nodes > MAX_NODES or depth > MAX_DEPTH:
            return f"<{type_name(value)}> (not opened: too much)"
        if id(value) in above:
            return f"<{type_name(value)}> (cycle)"
        try:
            return self._open(value, depth, above | {id(value)})
        except Exception as error:  # foreign code: properties, iterators and reprs may raise anything
            return f"<{type_name(value)}> (cannot be read: {type(error).__name__})"

    def _open(self, value: Any, depth: int, above: frozenset[int]) -> Any:
        if isinstance(value, Enum):
            return f"{type(value).__name__}.{value.name}"
        for plain in (str, int, float):  # subclasses, such as numpy.float64
            if isinstance(value, plain):
                return plain(value)
        if isinstance(value, PathLike):
            return str(fspath(value))
        if isinstance(value, _PLAIN_TEXT):
            return str(value)
        fields = _fields(value)
        if fields is not None:
            return self.mapping(fields, depth, above)
        if isinstance(value, list | tuple | set | frozenset) or _is_config_list(value):
            ordered = sorted(value, key=_short_repr) if isinstance(value, set | frozenset) else value
            items = [self.value(item, depth + 1, above) for item in islice(ordered, MAX_ITEMS)]
            return items if len(value) <= MAX_ITEMS else [*items, f"… ({len(value)} items)"]
        if isinstance(value, type):
            return type_name(value)
        if getattr(value, "shape", None) == () and callable(getattr(value, "item", None)):
            scalar = value.item()
            if type(scalar) in (bool, int, float, str):
                return scalar
        return describe(value)


def describe(value: Any) -> str:
    """Return the type of an object and a few words on it, without reading its data."""
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{getattr(value, '__module__', '?')}.{value.__qualname__}"
    if _is_framework(value, "torch") and type(value).__name__ in ("dtype", "device", "Size"):
        return str(value)
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"<{type_name(value)}> shape {tuple(shape)}, dtype {getattr(value, 'dtype', '?')}"
    if _is_module(value):  # its repr may be long; a few words are enough
        count = parameter_count(value.parameters())
        return f"<{type_name(value)}> {'?' if count is None else count} parameters"
    if type(value).__repr__ is _NO_REPR:
        return f"<{type_name(value)}>"
    return f"<{type_name(value)}> {_short_repr(value)}"


def parameter_count(parameters: Iterable[Any]) -> int | None:
    """Return how many numbers these torch parameters hold; `None` while that is not known."""
    try:
        return sum(int(parameter.numel()) for parameter in parameters)
    except Exception:  # those of lazy modules raise before the first batch
        return None


def _is_module(value: Any) -> bool:
    return callable(getattr(value, "parameters", None)) and hasattr(value, "state_dict") and not isinstance(value, type)


def _fields(value: Any) -> Iterable[tuple[Any, Any]] | None:
    """Return names and values of an object that is only a bag of fields, `None` for any other."""
    if isinstance(value, Mapping):
        return _readable_items(value)
    if isinstance(value, SimpleNamespace) or type(value).__name__ == "Namespace":  # argparse, jsonargparse
        return list(vars(value).items())
    names: Any = getattr(type(value), "__dataclass_fields__", None) or getattr(type(value), "model_fields", None)
    if names is None and isinstance(value, tuple):
        names = getattr(value, "_fields", None)
    if names is None or isinstance(value, type):
        return None
    return [(name, getattr(value, name, None)) for name in names]


def _readable_items(value: Mapping[Any, Any]) -> Iterable[tuple[Any, Any]]:
    # OmegaConf raises for a single missing or dangling entry: the others are still worth keeping.
    return value.items() if type(value) is dict else [(key, _entry(value, key)) for key in islice(value, MAX_ITEMS)]


def _entry(value: Mapping[Any, Any], key: Any) -> Any:
    try:
        return value[key]
    except Exception as error:  # foreign code, see above
        return f"(cannot be read: {type(error).__name__})"


def _is_config_list(value: Any) -> bool:
    return _is_framework(value, "omegaconf") and type(value).__name__ == "ListConfig"


def _is_framework(value: Any, name: str) -> bool:
    return type(value).__module__.partition(".")[0] == name


def _key(key: Any) -> str:
    if isinstance(key, Enum):
        return f"{type(key).__name__}.{key.name}"
    return str(key) if isinstance(key, str | int | float) or key is None else _short_repr(key)


def _short_repr(value: Any) -> str:
    try:
        text = repr(value)
    except Exception as error:  # foreign code in a repr may raise anything
        return f"(its repr raises {type(error).__name__})"
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"


def warn(message: str, *, stacklevel: int = 4) -> None:
    """Warn of something that is not recorded. Where a filter makes errors of warnings, print: it stops no training."""
    try:
        warnings.warn(message, runstone.TrackingWarning, stacklevel=stacklevel + 1)
    except runstone.TrackingWarning:
        print(f"runstone: {message}", file=sys.stderr)


def warn_once(error: Exception, warned: set[str]) -> None:
    """Warn of an error of the tracker, once of each kind; `warned` has the kinds before it."""
    kind = type(error).__name__
    if kind not in warned:
        warned.add(kind)
        warn(f"training goes on, but not everything is recorded: {kind}: {error}", stacklevel=5)


# Runs that callbacks opened by themselves. Process-wide, as the run that is open is.
_opened: weakref.WeakSet[runstone.Run] = weakref.WeakSet()


def open_own_run(**options: Any) -> runstone.Run:
    """Start a run that belongs to the callback which opens it; takes what `runstone.start_run` takes."""
    run = runstone.start_run(**options)
    _opened.add(run)
    return run


def run_of_user() -> runstone.Run | None:
    """Return the run that the user has opened around the training; a callback records there and leaves it open."""
    run = runstone.current_run()
    return None if run is None or run in _opened else run
