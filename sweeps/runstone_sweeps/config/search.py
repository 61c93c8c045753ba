"""Reads `sampler` and `pruner`, and checks that the sampler fits the space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runstone_sweeps.config.mistakes import Mistakes, join_words, nearest, quote, show
from runstone_sweeps.space import Space
from runstone_sweeps.space.scalars import is_number
from runstone_sweeps.spec.algorithms import PRUNERS, SAMPLERS, Algorithm, Known

MAX_GRID = 1_000_000


def read_algorithm(
    raw: Any, known: Mapping[str, Known], path: tuple[str | int, ...], mistakes: Mistakes
) -> Algorithm | None:
    """Read `tpe`, or `{name: tpe, n_startup_trials: 20}`."""
    options = {}
    name = raw
    if isinstance(raw, dict):
        options = {key: value for key, value in raw.items() if key != "name"}
        name = raw.get("name")
    what = "pruner" if known is PRUNERS else "sampler"
    if not isinstance(name, str):
        mistakes.add(path, f"must be the name of a {what} or a mapping with its name, got {show(raw)}")
        return None
    if name not in known:
        where = (*path, "name") if isinstance(raw, dict) else path
        mistakes.add(where, f"there is no {what} {name[:60]!r}{nearest(name, known)}")
        return None
    entry = known[name]
    checked: dict[str, Any] = dict(entry.defaults)
    is_right = True
    for key, value in options.items():
        if key not in entry.options:
            mistakes.add((*path, key), f"the {what} {name} has no such option{nearest(str(key), entry.options)}")
            is_right = False
            continue
        value = _read_option(value, entry.options[key], (*path, key), mistakes)
        is_right = is_right and value is not _WRONG
        checked[key] = value
    for key in entry.required:
        if key not in checked:
            mistakes.add((*path, key), f"is missing; the {what} {name} needs it")
            is_right = False
    return Algorithm(name, checked) if is_right else None


_WRONG = object()


def _read_option(value: Any, kind: Any, path: tuple[str | int, ...], mistakes: Mistakes) -> Any:
    """Return the value of an option, or `_WRONG` after saying why."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    expected = ""
    if kind == "sampler":
        return read_algorithm(value, SAMPLERS, path, mistakes) or _WRONG
    if kind == "pruner":
        return read_algorithm(value, PRUNERS, path, mistakes) or _WRONG
    if isinstance(kind, tuple):
        if value in kind:
            return value
        mistakes.add(path, f"is {quote(value)}{nearest(str(value), kind)}")
        return _WRONG
    if kind == "int" and not (is_number and isinstance(value, int)):
        expected = "a whole number"
    elif kind == "float" and not is_number:
        expected = "a number"
    elif kind == "bool" and not isinstance(value, bool):
        expected = "true or false"
    elif kind == "resource" and value != "auto" and not (is_number and isinstance(value, int)):
        expected = "a whole number or auto"
    elif kind == "params" and not (isinstance(value, dict) and value):
        expected = "a mapping from parameters to values"
    elif kind == "matrix" and not _is_matrix(value):
        expected = "a list of lists of numbers"
    if expected:
        mistakes.add(path, f"must be {expected}, got {show(value)}")
        return _WRONG
    return float(value) if kind == "float" else value


def _is_matrix(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, list) and row and all(map(is_number, row)) for row in value)


def check_sampler_fits(sampler: Algorithm, space: Space, metric_count: int, mistakes: Mistakes) -> None:
    """Check that the sampler can search this space, for so many metrics."""
    if metric_count > 1 and not SAMPLERS[sampler.name].knows_many_metrics:
        able = [name for name, known in SAMPLERS.items() if known.knows_many_metrics]
        message = f"the sampler {sampler.name} looks at one metric only; there is {join_words(able)}"
        mistakes.add(("sampler",), message)
    if SAMPLERS[sampler.name].needs_finite_space:
        for parameter in space.searched:
            if parameter.size is None:
                path = ("parameters", *parameter.name.split("."))
                mistakes.add(path, f"the sampler {sampler.name} needs a step or values, not a continuous range")
        if (space.size or 0) > MAX_GRID:
            mistakes.add(("sampler",), f"the grid has {space.size:,} points; at most {MAX_GRID:,} are kept")
    if sampler.name == "partial_fixed":
        names = [parameter.name for parameter in space.searched]
        for name in sampler.options.get("fixed_params", {}):
            if name not in names:
                path = ("sampler", "fixed_params", name)
                mistakes.add(path, f"is not a searched parameter{nearest(str(name), names)}")
