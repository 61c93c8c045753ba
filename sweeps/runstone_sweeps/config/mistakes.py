"""Collects what is wrong with a config, and words for it. Knows no key of a config."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from runstone import InvalidConfig

_OTHER_NAMES = {
    "asha": "successive_halving",
    "sha": "successive_halving",
    "nop": "none",
    "bayes": "tpe",
    "bayesian": "gp",
    "cma": "cmaes",
    "cma-es": "cmaes",
    "sobol": "qmc",
    "nsgaii": "nsga2",
    "nsgaiii": "nsga3",
}


class Mistakes:
    """Collects what is wrong, in the order in which it was found."""

    def __init__(self, file_name: str, lines: Mapping[tuple[str | int, ...], int]) -> None:
        self._file_name = file_name
        self._lines = lines
        self._messages: dict[str, None] = {}
        self._other_names: Mapping[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._messages)

    def say_instead(self, names: Mapping[str, str]) -> None:
        """Call keys from here on by other names, where the file has these."""
        self._other_names = names

    def add(self, path: Sequence[str | int], message: str) -> None:
        path = tuple(path)
        if path and path not in self._lines and (other := self._other_names.get(str(path[0]))):
            path = (other, *path[1:])
        known = path
        while known and known not in self._lines:
            known = known[:-1]
        line = f" (line {self._lines[known]})" if known in self._lines and known else ""
        where = f"{'.'.join(map(str, path))}: " if path else ""
        self._messages[f"{self._file_name}: {where}{message}{line}"] = None

    def error(self) -> InvalidConfig:
        return InvalidConfig("\n".join(self._messages))


class Count:
    """Adds mistakes and knows how many it added."""

    def __init__(self, mistakes: Mistakes) -> None:
        self.count = 0
        self._mistakes = mistakes

    def add(self, path: Sequence[str | int], message: str) -> None:
        self.count += 1
        self._mistakes.add(path, message)


def nearest(name: str, names: Iterable[str]) -> str:
    """Return the end of a message that offers what was probably meant, or all there is where that is little."""
    names = list(names)
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    if not close and _OTHER_NAMES.get(name.lower()) in names:
        close = [_OTHER_NAMES[name.lower()]]
    if close:
        return f"; did you mean {close[0]}?"
    if not names:
        return "; it takes none"
    return f"; there is {join_words(names)}" if len(names) <= 24 else ""


def join_words(names: Sequence[str]) -> str:
    """Return `a, b or c`."""
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def show(value: Any) -> str:
    """Return a value as a message shows it, short, with its kind where that may be the mistake."""
    if isinstance(value, str):
        return f"the text {value[:60]!r}"
    if isinstance(value, (dict, list)):
        return kind_of(value)
    if value is None:
        return "nothing"
    return str(value).lower() if isinstance(value, bool) else str(value)


def quote(value: Any) -> str:
    """Return a word that is not one of those allowed."""
    return repr(value[:60]) if isinstance(value, str) else show(value)


def kind_of(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}" if value else "an empty list"
    return show(value)
