"""What may be written at a place of a filter: fields, operators, values that runs have. Knows the grammar, no SQL."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from runstone.errors import InvalidFilter
from runstone.index.conditions import ALIASES, ATTRIBUTES, At, Attribute, AttributeType, Count, Field, Metric
from runstone.query.fields import FieldInfo, listed_fields, quoted_text
from runstone.query.lexer import Kind, Token, tokens
from runstone.query.parser import parse_field
from runstone.status import Status

if TYPE_CHECKING:
    from runstone.index.store import Question

_MOST = 50
_TAIL = re.compile(r"[\w/\-.@:*`]*\Z")
_ORDERS = {"=": "equals", "!=": "has a value other than", "<": "", "<=": "", ">": "", ">=": ""}
_OF_ALL = {"IN (": "is one of", "IS NULL": "has no value", "IS NOT NULL": "has a value"}
_OF_TEXT = {"LIKE": "% any text, _ a character", "ILIKE": "the same, letter case ignored", "GLOB": "* ? [a-z]"}
_OF_TEXT |= {"CONTAINS": "holds this text", "=": "equals", "!=": "has a value other than"}
_JOINTS = {"AND": "both hold", "OR": "one holds"}
_FUNCTIONS = {
    "count(": "how many names, such as count(metrics.val/*)",
    "exists(": "has a value",
    "NOT": "does not hold",
}
_PREFIXES = ("metrics.", "params.", "tags.", "environment.")


class Completion(NamedTuple):
    """Something that may be written.

    Attributes:
        start, end: The part of the text that it replaces.
        text: What to write there.
        detail: What it is, for people; may be empty.
    """

    start: int
    end: int
    text: str
    detail: str


def complete_text(question: Question, text: str, at: int) -> list[Completion]:
    """Return what may be written at a place of a filter, the best first, at most 50.

    Args:
        question: Where fields and values are known.
        text: The filter, finished or not.
        at: The place, from 0.
    """
    before = text[: max(0, at)]
    opened = _open_quote(before)
    start = opened if opened is not None else len(before) - len(_TAIL.search(before)[0])  # type: ignore[index]
    typed = before[start:]
    try:
        done = tokens(before[:start])[:-1]
    except InvalidFilter:
        return []
    found = _options(question, done, typed, is_text=opened is not None)
    return [Completion(start, len(before), option, detail) for option, detail in _fitting(found, typed)]


def _open_quote(text: str) -> int | None:
    """Return where a text begins that has no closing quote, or `None`."""
    position, quote, opened = 0, "", 0
    while position < len(text):
        character = text[position]
        if not quote and character in "'\"`":
            quote, opened = character, position
        elif quote and character == "\\":
            position += 1
        elif character == quote:
            quote = ""
        position += 1
    if not quote:
        return None
    while opened and (text[opened - 1].isalnum() or text[opened - 1] in "_./-"):  # a quoted part of a name
        opened -= 1
    return opened


def _options(question: Question, done: Sequence[Token], typed: str, *, is_text: bool) -> Iterator[tuple[str, str]]:
    last = done[-1] if done else None
    in_call = len(done) > 1 and done[-1].text == "(" and done[-2].word in ("count", "exists")
    is_name = is_text and typed[:1] not in ("'", '"')
    if last is None or last.word in ("and", "or", "not") or (last.text == "(" and not _is_list(done)) or is_name:
        yield from _fields(question, typed, in_call=in_call)
        return
    field = _field_of(done)
    if _is_list(done) and last.kind in (Kind.BRACKET, Kind.OPERATOR) and last.text in ("(", ",") and field is not None:
        yield from _values(question, field)
    elif last.kind is Kind.OPERATOR or last.word in ("like", "ilike", "glob", "contains"):
        if field is not None:
            yield from _values(question, field)
    elif last.word == "is":
        yield from (("NULL", ""), ("NOT NULL", ""))
    elif _ends_value(done):
        yield from _JOINTS.items()
        if _is_list(done):
            yield ")", ""
    elif last.kind is Kind.NAME or last.text == ")":
        yield from _operators(field)


def _is_list(done: Sequence[Token]) -> bool:
    """Return whether the place is inside the list of an IN."""
    for place in range(len(done) - 1, -1, -1):
        token = done[place]
        if token.text == ")":
            return False
        if token.text == "(":
            return place > 0 and done[place - 1].word == "in"
    return False


def _field_of(done: Sequence[Token]) -> Field | None:
    """Return the field of the comparison that the place is in."""
    for place in range(len(done) - 1, -1, -1):
        token = done[place]
        is_word = token.word in (*_LOGIC, "like", "ilike", "glob", "contains", "in", "is", "true", "false", "null")
        if token.kind is Kind.NAME and not is_word and token.word not in ("now", "today"):
            is_argument = place > 1 and done[place - 1].text == "(" and done[place - 2].word == "count"
            try:
                return parse_field(f"count({token.text})" if is_argument else token.text)
            except InvalidFilter:
                return None
    return None


_LOGIC = ("and", "or", "not")


def _ends_value(done: Sequence[Token]) -> bool:
    last = done[-1]
    if last.kind in (Kind.STRING, Kind.NUMBER, Kind.DURATION, Kind.REFERENCE) or last.word in ("true", "false", "null"):
        return True
    if last.text != ")":
        return False
    depth = 0
    for place in range(len(done) - 1, -1, -1):
        depth += {")": 1, "(": -1}.get(done[place].text, 0)
        if not depth:
            return not (place and done[place - 1].word == "count")
    return True


def _fields(question: Question, typed: str, *, in_call: bool) -> Iterator[tuple[str, str]]:
    known = listed_fields(question, None)
    has_prefix = typed.lower().startswith(_PREFIXES)
    for one in known:
        if has_prefix or one.kind in ("attributes", "params", "metrics", "tags"):
            yield one.name, _described(one)
    for alias, name in ALIASES.items():
        yield alias, f"the same as {name}"
    if not has_prefix:
        yield "environment.", "the machine, as the run found it"
    if not in_call:
        yield from _FUNCTIONS.items()


def _described(one: FieldInfo) -> str:
    runs = "1 run" if one.runs == 1 else f"{one.runs:,} runs"
    return one.type if one.kind == "attributes" else f"{one.type}, {runs}"


def _operators(field: Field | None) -> Iterator[tuple[str, str]]:
    kind = ATTRIBUTES[field.name] if isinstance(field, Attribute) else None
    if isinstance(field, Metric | At | Count) or kind in (
        AttributeType.NUMBER,
        AttributeType.TIME,
        AttributeType.DURATION,
    ):
        yield from _ORDERS.items()
    elif kind is AttributeType.BOOL:
        yield from (("= true", ""), ("= false", ""), *_JOINTS.items())
    elif kind is AttributeType.STATUS:
        yield from (("=", "equals"), ("!=", ""))
    else:
        yield from {**_OF_TEXT, **({} if kind is not None else _ORDERS)}.items()
    yield from _OF_ALL.items()


def _values(question: Question, field: Field) -> Iterator[tuple[str, str]]:
    from runstone.index.asking import frequent  # loads NumPy

    kind = ATTRIBUTES[field.name] if isinstance(field, Attribute) else None
    if kind is AttributeType.STATUS:
        yield from ((quoted_text(status), "") for status in Status)
    elif kind is AttributeType.TIME:
        yield from (("now() - 7d", "a week ago"), ("today()", "midnight, UTC"), ("now() - 1h", "an hour ago"))
    elif kind is AttributeType.DURATION:
        yield from (("1h", ""), ("10m", ""), ("1d", ""))
    elif kind is AttributeType.BOOL:
        yield from (("true", ""), ("false", ""))
    elif not isinstance(field, Metric | At | Count):
        for value, runs in frequent(question, field, _MOST):
            text = quoted_text(value) if isinstance(value, str) else str(value).lower()
            if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
                text = f"{value:.0f}"
            yield text, "1 run" if runs == 1 else f"{runs:,} runs"


def _fitting(options: Iterator[tuple[str, str]], typed: str) -> list[tuple[str, str]]:
    """Return the options that what was typed may become: those that begin so, then those that hold it."""
    wanted = _bare(typed)
    begin: dict[str, str] = {}
    inside: dict[str, str] = {}
    for text, detail in options:
        bare = _bare(text)
        if bare.startswith(wanted) or text.lower().startswith(typed.lower()):
            begin.setdefault(text, detail)
        elif wanted and wanted in bare:
            inside.setdefault(text, detail)
    return list({**begin, **{text: detail for text, detail in inside.items() if text not in begin}}.items())[:_MOST]


def _bare(text: str) -> str:
    return text.translate(_NO_QUOTES).lower()


_NO_QUOTES = str.maketrans("", "", "'\"`\\")
