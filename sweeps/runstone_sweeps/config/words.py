"""Reads the value of one override word, in the grammar of Hydra's command line. Knows no key of a config.

`0.1` is a value, `adam,sgd` a choice, `range(16,128,step=16)`, `interval(1e-5,1e-1)`, `choice(a,b)` and
`tag(log,interval(1e-5,1))` are parameters, `[1,2]` and `{a: 1}` are a list and a mapping.
"""

from __future__ import annotations

import re
from typing import Any

from runstone_sweeps.config.mistakes import nearest
from runstone_sweeps.config.swept import FUNCTIONS, Swept, WrongWord

_INT = re.compile(r"[+-]?\d+")
_FLOAT = re.compile(r"[+-]?(?:\.\d+|\d+(?:\.\d*)?)(?:[eE][+-]?\d+)?")
_CALL = re.compile(r"([A-Za-z_]\w*)\(")
_ARGUMENT = re.compile(r"\s*([A-Za-z_]\w*)\s*=(?!=)")
_MAX_DEPTH = 32
# Beyond it a whole number has no float.
_MAX_DIGITS = 300


def read_value(text: str) -> Any:
    """Return the value that a word gives: a JSON value, or a `Swept` parameter.

    Raises:
        WrongWord: it is not in the grammar.
    """
    elements = read_elements(text)
    if len(elements) == 1:
        return elements[0]
    if any(isinstance(element, Swept) for element in elements):
        raise WrongWord("a list of choices holds values only; give one of choice, range and interval alone")
    return Swept({"values": elements})


def read_elements(text: str) -> list[Any]:
    """Return what stands between the commas of a word, at least one value.

    Raises:
        WrongWord: it is not in the grammar.
    """
    parser = _Parser(text)
    elements = parser.elements("")
    if not elements:
        return [""]
    return elements


def read_scalar(text: str) -> Any:
    """Return the number, truth, null or text that unquoted characters stand for."""
    lowered = text.lower()
    if lowered in ("null", "true", "false"):
        return {"null": None, "true": True, "false": False}[lowered]
    if _INT.fullmatch(text) and len(text) <= _MAX_DIGITS:
        return int(text)
    if _FLOAT.fullmatch(text) and len(text) <= _MAX_DIGITS:
        return float(text)
    return text


class _Parser:
    """Walks through one word from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def elements(self, end: str) -> list[Any]:
        """Read values with commas between, up to `end`, which is taken; an empty end is that of the word."""
        found: list[Any] = []
        self._skip_spaces()
        if self._takes(end):
            return found
        while True:
            found.append(self._element(end))
            if self._takes(end):
                return found
            self._need(",")

    def _element(self, end: str) -> Any:
        self._skip_spaces()
        if self._depth >= _MAX_DEPTH:
            raise WrongWord(f"is nested more than {_MAX_DEPTH} levels deep")
        self._depth += 1
        try:
            value = self._nested(end)
        finally:
            self._depth -= 1
        self._skip_spaces()
        return value

    def _nested(self, end: str) -> Any:
        first = self._text[self._at : self._at + 1]
        if first in ("'", '"') and first:
            return self._quoted(first)
        if first == "[":
            self._at += 1
            return self._plain(self.elements("]"))
        if first == "{":
            self._at += 1
            return self._mapping()
        if match := _CALL.match(self._text, self._at):
            self._at = match.end()
            return self._call(match[1])
        return read_scalar(self._unquoted(f",{end}"))

    def _mapping(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        self._skip_spaces()
        if self._takes("}"):
            return found
        while True:
            self._skip_spaces()
            first = self._text[self._at : self._at + 1]
            key = self._quoted(first) if first in ("'", '"') and first else self._unquoted(":,}")
            self._skip_spaces()
            self._need(":")
            found[key] = self._plain([self._element("}")])[0]
            if self._takes("}"):
                return found
            self._need(",")

    def _call(self, name: str) -> Any:
        function = FUNCTIONS.get(name)
        if function is None:
            raise WrongWord(f"there is no function {name}{nearest(name, FUNCTIONS)}; put text with brackets in quotes")
        given: list[Any] = []
        named: dict[str, Any] = {}
        self._skip_spaces()
        if not self._takes(")"):
            while True:
                if match := _ARGUMENT.match(self._text, self._at):
                    self._at = match.end()
                    named[match[1]] = self._element(")")
                else:
                    given.append(self._element(")"))
                if self._takes(")"):
                    break
                self._need(",")
        return function(given, named)

    def _quoted(self, quote: str) -> str:
        self._at += 1
        found = []
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == "\\" and self._text[self._at + 1 : self._at + 2] in (quote, "\\"):
                found.append(self._text[self._at + 1])
                self._at += 2
                continue
            self._at += 1
            if char == quote:
                return "".join(found)
            found.append(char)
        raise WrongWord(f"the quote {quote} is not closed")

    def _unquoted(self, stops: str) -> str:
        found = []
        while self._at < len(self._text) and self._text[self._at] not in stops:
            if self._text[self._at] == "\\" and self._at + 1 < len(self._text):
                self._at += 1
            found.append(self._text[self._at])
            self._at += 1
        return "".join(found).strip()

    def _plain(self, values: list[Any]) -> list[Any]:
        if any(isinstance(value, Swept) for value in values):
            raise WrongWord("a range or choice cannot stand inside of a list or mapping")
        return values

    def _skip_spaces(self) -> None:
        while self._text[self._at : self._at + 1].isspace():
            self._at += 1

    def _takes(self, char: str) -> bool:
        """Step over `char` if it comes next; an empty one stands for the end of the word."""
        self._skip_spaces()
        if not char:
            return self._at == len(self._text)
        if self._text[self._at : self._at + 1] != char:
            return False
        self._at += 1
        return True

    def _need(self, char: str) -> None:
        if not self._takes(char):
            rest = self._text[self._at : self._at + 20]
            raise WrongWord(f"expected {char!r} before {rest!r}" if rest else f"ends where {char!r} is missing")
