"""Filter text to tokens. Knows characters and positions, not what a filter means."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from runstone.errors import InvalidFilter

MAX_BYTES = 10_240
_NUMBER = re.compile(r"[+-]?(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d+)?", re.ASCII)
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|min|[smhdw]))+(?![\w.])", re.ASCII)
_PORTION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|min|[smhdw])\s*", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_STEP = re.compile(r"@([+-]?\d+)", re.ASCII)
_REFERENCE = re.compile(r"[^\s(),'\"]+")
_REFERABLE = ("dataset", "model", "artifact")
_FUNCTIONS_OF_NAMES = ("count", "exists")
_SIGNED_WORD = re.compile(r"[+-](?:inf|infinity|nan)\b", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d][\w/\-]*(?:\.[\w/\-]+)*")
_PART = re.compile(r"[\w/\-]+(?:\.[\w/\-]+)*")
_PATTERN = re.compile(r"[\w/\-*?\[\]!]+(?:\.[\w/\-*?\[\]!]+)*")
_OPERATORS = ("==", "!=", "<>", "<=", ">=", "=", "<", ">")
_ARITHMETIC = "+-*/"
_NEARLY = {"&&": "AND", "&": "AND", "||": "OR", "|": "OR", "!": "NOT", "=~": "GLOB", "~": "GLOB", ";": ","}
_BRACKETS = {"(", ")", ","}


class Kind(Enum):
    """What a token is."""

    NAME = auto()
    STRING = auto()
    NUMBER = auto()
    DURATION = auto()
    REFERENCE = auto()
    OPERATOR = auto()
    ARITHMETIC = auto()
    BRACKET = auto()
    END = auto()


@dataclass(frozen=True, slots=True)
class Part:
    """One component of a dotted name."""

    text: str
    is_quoted: bool
    position: int


@dataclass(frozen=True, slots=True)
class Token:
    """A token.

    Attributes:
        kind: What it is.
        text: As written; for an operator, its canonical form.
        position: Index of its first character in the filter.
        parts: Components of a name.
        value: Text of a string without quotes and escapes, or a number; seconds of a duration; what follows the
            colon of `dataset:…`.
        step: What stands behind the `@` of a name.
        is_pattern: Whether a name, or a reference, holds wildcards.
    """

    kind: Kind
    text: str
    position: int
    parts: tuple[Part, ...] = ()
    value: str | int | float = ""
    step: int | None = None
    is_pattern: bool = False

    @property
    def word(self) -> str:
        """The token in lower case if it could be a keyword, else empty."""
        return self.text.lower() if self.kind is Kind.NAME and len(self.parts) == 1 else ""


def mistake(message: str, text: str, position: int) -> InvalidFilter:
    """Return the error for a mistake at `position`: the message, the filter, and a caret under the place."""
    start = max(0, position - 50)
    end = min(len(text), max(position + 40, start + 90))
    shown = "".join(c if c.isprintable() else "·" for c in text[start:end])
    lead = "…" if start else ""
    width = len(lead) + sum(_width(c) for c in shown[: position - start])
    line = f"{lead}{shown}{'…' if end < len(text) else ''}"
    return InvalidFilter(f"{message}\n  {line}\n  {' ' * width}^", text=text, position=position)


def _width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def tokens(text: str) -> list[Token]:
    """Return the tokens of `text`, the last of kind `END`.

    Raises:
        InvalidFilter: the text is too long, or holds something that is no token.
    """
    if not isinstance(text, str):
        raise InvalidFilter(f"a filter must be text, got {type(text).__name__}")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise mistake("half of a surrogate pair is no character", text, error.start) from None
    if size > MAX_BYTES:
        raise InvalidFilter(f"the filter has {size:,} bytes, at most {MAX_BYTES:,} are read", text=text)
    if "\0" in text:
        raise mistake("a filter cannot contain a NUL character", text, text.index("\0"))
    return list(_scan(text))


def seconds_in(text: str) -> float | None:
    """Return the seconds of a duration such as `1h30m`, `None` where it is none."""
    seconds, position, text = 0.0, 0, text.strip()
    while (match := _PORTION.match(text, position)) is not None:
        seconds += float(match[1]) * _SECONDS[match[2]]
        position = match.end()
    return seconds if position and position == len(text) and not math.isinf(seconds) else None


def _scan(text: str) -> Iterator[Token]:
    position = 0
    before = previous = Token(Kind.END, "", 0)
    while position < len(text):
        character = text[position]
        if character.isspace():
            position += 1
            continue
        takes_pattern = previous.text == "(" and before.word in _FUNCTIONS_OF_NAMES
        if character == ":" and previous.word in _REFERABLE and position == previous.position + len(previous.text):
            token, position = _reference(text, position)
        elif takes_pattern and (match := _PATTERN.match(text, position)) is not None:
            token, position = _name(text, match, takes_pattern=True)
        else:
            token, position = _token(text, position, follows_value=_is_value(previous))
        yield token
        before, previous = previous, token
    yield Token(Kind.END, "", len(text))


def _is_value(token: Token) -> bool:
    return token.kind in (Kind.NUMBER, Kind.STRING, Kind.DURATION) or token.text == ")"


def _reference(text: str, start: int) -> tuple[Token, int]:
    """Read what follows the colon of `dataset:loans@3`."""
    if text[start + 1 : start + 2] in ("'", '"') and text[start + 1 : start + 2]:
        value, end = _quoted(text, start + 1)
        return Token(Kind.REFERENCE, text[start:end], start, value=value), end
    match = _REFERENCE.match(text, start + 1)
    if match is None:
        raise mistake("a name must follow the colon, such as dataset:loans@3", text, start)
    is_pattern = any(wildcard in match[0] for wildcard in "*?[")
    return Token(Kind.REFERENCE, text[start : match.end()], start, value=match[0], is_pattern=is_pattern), match.end()


def _token(text: str, start: int, *, follows_value: bool) -> tuple[Token, int]:
    character = text[start]
    if follows_value and character in _ARITHMETIC:
        return Token(Kind.ARITHMETIC, character, start), start + 1
    if character in _BRACKETS:
        return Token(Kind.BRACKET, character, start), start + 1
    if character in "'\"":
        value, end = _quoted(text, start)
        return Token(Kind.STRING, text[start:end], start, value=value), end
    for operator in _OPERATORS:
        if text.startswith(operator, start) and not text.startswith("=~", start):
            canonical = {"==": "=", "<>": "!="}.get(operator, operator)
            return Token(Kind.OPERATOR, canonical, start), start + len(operator)
    if (match := _SIGNED_WORD.match(text, start)) is not None:
        return Token(Kind.NUMBER, match[0], start, value=float(match[0])), match.end()
    if (match := _DURATION.match(text, start)) is not None:
        return Token(Kind.DURATION, match[0], start, value=_checked_seconds(text, match)), match.end()
    if (match := _NUMBER.match(text, start)) is not None:
        return _number(text, match)
    if (match := _WORD.match(text, start)) is not None:
        return _name(text, match)
    for wrong, right in _NEARLY.items():
        if text.startswith(wrong, start):
            raise mistake(f"{wrong!r} is not part of the filter language; write {right!r}", text, start)
    if character == "`":
        raise mistake("a quoted name needs its kind in front, such as metrics.`val loss`", text, start)
    if character in "*?[":
        raise mistake("wildcards in names stand in count(…) and exists(…) only; in texts, behind GLOB", text, start)
    raise mistake(f"unexpected {character!r}; text goes in quotes", text, start)


def _checked_seconds(text: str, match: re.Match[str]) -> float:
    seconds = seconds_in(match[0])
    if seconds is None:
        raise mistake(f"{match[0][:40]} is too long a duration", text, match.start())
    return seconds


def _number(text: str, match: re.Match[str]) -> tuple[Token, int]:
    start, end = match.span()
    if end < len(text) and (text[end].isalnum() or text[end] in "_."):
        tail = re.compile(r"[\w.]*").match(text, end)
        word = match[0] + (tail[0] if tail else "")
        raise mistake(f"{word[:40]!r} is not a number; text and times go in quotes", text, start)
    digits = match[0]
    try:
        number: int | float = float(digits) if set(digits) & set(".eE") or len(digits) > 40 else int(digits)
    except ValueError:
        raise mistake(f"{digits[:40]!r} is not a number", text, start) from None
    if isinstance(number, float) and math.isinf(number):
        raise mistake(f"{digits[:40]} is too large for a number; write inf for infinity", text, start)
    return Token(Kind.NUMBER, digits, start, value=number), end


def _name(text: str, match: re.Match[str], *, takes_pattern: bool = False) -> tuple[Token, int]:
    """Read a dotted name whose later components may be quoted: `metrics."val acc".max`; it may end in a step."""
    start, end = match.span()
    part = _PATTERN if takes_pattern else _PART
    parts = list(_plain_parts(match[0], start))
    while end < len(text) and text[end] == ".":
        dot, end = end, end + 1
        if end < len(text) and text[end] in "'\"`":
            quoted_at = end
            value, end = _quoted(text, end)
            if not value:
                raise mistake("a name cannot be empty", text, quoted_at)
            parts.append(Part(value, True, quoted_at))
            if end < len(text) and (text[end].isalnum() or text[end] in "_/-'\"`"):
                raise mistake("a dot must follow a quoted part of a name", text, end)
        elif (more := part.match(text, end)) is not None:
            parts.extend(_plain_parts(more[0], end))
            end = more.end()
        else:
            raise mistake(f"a name must follow the dot after {text[start:dot][-40:]!r}", text, end)
    step = None
    if (found := _STEP.match(text, end)) is not None:
        step, end = int(found[1]) if len(found[1]) < 20 else 2**63, found.end()
        if not -(2**63) <= step < 2**63:
            raise mistake("a step has at most 64 bits", text, found.start())
    is_pattern = takes_pattern and any(
        not part.is_quoted and any(wildcard in part.text for wildcard in "*?[") for part in parts
    )
    return Token(Kind.NAME, text[start:end], start, parts=tuple(parts), step=step, is_pattern=is_pattern), end


def _plain_parts(name: str, start: int) -> Iterator[Part]:
    for part in name.split("."):
        yield Part(part, False, start)
        start += len(part) + 1


def _quoted(text: str, start: int) -> tuple[str, int]:
    """Read a quoted text; quotes inside are doubled or follow a backslash."""
    quote = text[start]
    characters: list[str] = []
    position = start + 1
    while position < len(text):
        character = text[position]
        following = text[position + 1 : position + 2]
        if (character == "\\" and following in (quote, "\\") and following) or (
            character == quote and following == quote
        ):
            characters.append(following)
            position += 2
        elif character == quote:
            return "".join(characters), position + 1
        else:
            characters.append(character)
            position += 1
    raise mistake(f"the text that starts here has no closing {quote}", text, start)
