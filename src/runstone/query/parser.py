"""Tokens to conditions: the grammar of filters and orders. Knows neither SQL nor any run.

The grammar is in `docs/filters.md`.
"""

from __future__ import annotations

import difflib
import math
import time
from collections.abc import Callable, Iterable
from typing import NoReturn

from runstone.errors import InvalidFilter
from runstone.index.conditions import (
    ALIASES,
    ATTRIBUTES,
    EVERY_RUN,
    All,
    AnyOf,
    At,
    Attribute,
    AttributeType,
    Compare,
    Comparison,
    Condition,
    Contains,
    Count,
    Environment,
    Field,
    Glob,
    HasValue,
    Like,
    Metric,
    Not,
    OneOf,
    Order,
    Param,
    Scalar,
    Statistic,
    Tag,
)
from runstone.query.lexer import Kind, Part, Token, mistake, seconds_in, tokens
from runstone.query.values import Moment, Seconds, Value, combined, plain_value
from runstone.status import Status

MAX_DEPTH = 100
MAX_CONDITIONS = 250
MAX_VALUES = 1_000
MAX_ORDERS = 10
_PREFIXES = ("metrics", "params", "tags", "environment")
_COUNTED = ("metrics", "params", "tags", "dataset", "model", "artifact")
_WORD_OPERATORS = ("LIKE", "ILIKE", "GLOB", "CONTAINS", "IN", "IS")
_FUNCTIONS = ("exists", "count")
_LOGIC = ("and", "or", "not")


def parse_filter(text: str, *, now: float | None = None) -> Condition:
    """Return the condition that a filter states; an empty filter holds for every run.

    Args:
        text: The filter.
        now: What `now()` is, seconds since the epoch; default: the clock.

    Raises:
        InvalidFilter: it does not parse; the message points at the place and names the nearest valid word.
    """
    parser = _Parser(text, now)
    if parser.is_at_end:
        return EVERY_RUN
    condition = parser.either()
    if not parser.is_at_end:
        parser.fail_after_condition()
    return condition


def parse_order(text: str) -> tuple[Order, ...]:
    """Return the orders that a text such as `metrics.loss.min desc, started_at` states.

    Raises:
        InvalidFilter: it does not parse.
    """
    parser = _Parser(text)
    return () if parser.is_at_end else parser.orders()


def parse_field(text: str) -> Field:
    """Return the field that a text such as `metrics.loss.min` names.

    Raises:
        InvalidFilter: it is not one field.
    """
    parser = _Parser(text)
    field = parser.field()
    if not parser.is_at_end:
        raise mistake("a field ends here; quote names with other characters", text, parser.token.position)
    return field


def parse_fields(text: str) -> tuple[tuple[str, Field], ...]:
    """Return the fields that a list such as `name, metrics.loss.min` names, each with its text.

    Raises:
        InvalidFilter: it does not parse.
    """
    return _Parser(text).fields()


def nearest(word: str, words: Iterable[str]) -> str:
    """Return `; did you mean …?` with the nearest of `words`, or nothing where none is near."""
    found = difflib.get_close_matches(word.lower()[:200], list(map(str, words)), n=1, cutoff=0.6)
    return f"; did you mean {found[0]!r}?" if found else ""


class _Parser:
    """Recursive descent over the tokens of one text."""

    def __init__(self, text: str, now: float | None = None) -> None:
        self._text = text
        self._now = time.time() if now is None else now
        self._tokens = tokens(text)
        self._next = 0
        self._depth = 0
        self._count = 0

    @property
    def token(self) -> Token:
        return self._tokens[self._next]

    @property
    def is_at_end(self) -> bool:
        return self.token.kind is Kind.END

    def _take(self) -> Token:
        token = self.token
        if token.kind is not Kind.END:
            self._next += 1
        return token

    def _skip(self, word: str) -> bool:
        """Take the next token if it is this keyword or bracket."""
        token = self.token
        if token.word == word or (token.kind is Kind.BRACKET and token.text == word):
            self._next += 1
            return True
        return False

    def _mistake(self, message: str, token: Token | Part) -> InvalidFilter:
        return mistake(message, self._text, token.position)

    # Logic

    def either(self) -> Condition:
        return self._joined("or", self._both, AnyOf)

    def _both(self) -> Condition:
        return self._joined("and", self._negation, All)

    def _joined(self, word: str, operand: Callable[[], Condition], join: type[All] | type[AnyOf]) -> Condition:
        conditions = [operand()]
        while self._skip(word):
            conditions.append(operand())
        return conditions[0] if len(conditions) == 1 else join(tuple(conditions))

    def _negation(self) -> Condition:
        is_negated = False
        while self._skip("not"):
            is_negated = not is_negated
        condition = self._primary()
        return Not(condition) if is_negated else condition

    def _primary(self) -> Condition:
        opening = self.token
        if not self._skip("("):
            return self._comparison()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._mistake(f"more than {MAX_DEPTH} parentheses inside each other", opening)
        condition = self.either()
        if not self._skip(")"):
            if self.is_at_end:
                raise self._mistake("this parenthesis is not closed", opening)
            self.fail_after_condition()
        self._depth -= 1
        return condition

    def fail_after_condition(self) -> NoReturn:
        token = self.token
        if token.text == ")":
            raise self._mistake("this parenthesis was never opened", token)
        if token.kind is Kind.OPERATOR:
            raise self._mistake("a comparison has one operator; join two comparisons with AND", token)
        raise self._mistake(f"expected AND, OR or the end, found {_shown(token)}", token)

    # Comparisons

    def _comparison(self) -> Condition:
        self._count += 1
        if self._count > MAX_CONDITIONS:
            message = f"more than {MAX_CONDITIONS} comparisons; IN (…) compares with many values at once"
            raise self._mistake(message, self.token)
        if self._is_call("exists"):
            return self._existence()
        field = self.field()
        if self.token.kind is Kind.REFERENCE:
            return self._referred(field, self._take())
        if isinstance(field, Attribute) and ATTRIBUTES[field.name] is AttributeType.BOOL and self._ends_condition():
            return Compare(field, "=", True)
        operator = self._take()
        if operator.kind is Kind.OPERATOR:
            return self._compared(field, operator)
        is_negated = operator.word == "not"
        if is_negated:
            operator = self._take()
        match operator.word:
            case "like" | "ilike":
                condition: Condition = Like(field, self._pattern(field, operator), ignore_case=operator.word == "ilike")
            case "glob":
                condition = Glob(field, self._pattern(field, operator))
            case "contains":
                condition = Contains(field, self._pattern(field, operator))
            case "in":
                condition = self._one_of(field, operator)
            case "is" if not is_negated:
                return self._is_null(field)
            case _:
                raise self._mistake(self._no_operator(operator), operator)
        return _differs(field, condition) if is_negated else condition

    def _ends_condition(self) -> bool:
        return self.is_at_end or self.token.word in ("and", "or") or self.token.text == ")"

    def _is_call(self, name: str) -> bool:
        """Return whether a call of this function stands next."""
        return self.token.word == name and self._tokens[self._next + 1].text == "("

    def _existence(self) -> Condition:
        self._next += 2
        token = self.token
        if token.is_pattern:
            condition: Condition = Compare(self._counted(), ">", 0)
        else:
            condition = HasValue(self.field(), or_below=True)
        if not self._skip(")"):
            raise self._mistake(f"expected ), found {_shown(self.token)}", self.token)
        return condition

    def _counted(self) -> Count:
        """Read what is counted: a kind, and a pattern of names."""
        token = self._take()
        kind, rest = (token.parts[0].text, token.parts[1:]) if token.parts else ("", ())
        if kind not in _COUNTED or (kind not in _PREFIXES and rest) or token.step is not None:
            raise self._mistake(f"what can be counted are {', '.join(_COUNTED)}, such as count(metrics.val/*)", token)
        return Count(kind, ".".join(_as_glob(part) for part in rest) if rest else "*")

    def _referred(self, field: Field, token: Token) -> Condition:
        text = str(token.value)
        return Glob(field, text) if token.is_pattern else Compare(field, "=", text)

    def _no_operator(self, token: Token) -> str:
        expected = "expected a comparison such as = != < <= > >= LIKE GLOB IN CONTAINS IS NULL"
        if token.kind is Kind.END:
            return f"{expected}, found the end"
        return f"{expected}, found {_shown(token)}{nearest(token.word, [w.lower() for w in _WORD_OPERATORS])}"

    def _compared(self, field: Field, operator: Token) -> Condition:
        token = self.token
        value = self._value(field)
        if value is None:
            if operator.text not in ("=", "!="):
                raise self._mistake("null has no order; use IS NULL or IS NOT NULL", token)
            present = HasValue(field, or_below=True)
            return Not(present) if operator.text == "=" else present
        if operator.text == "!=":
            return _differs(field, Compare(field, "=", value))
        comparison = _comparison(operator.text)
        if comparison != "=":
            if isinstance(value, bool):
                raise self._mistake("true and false have no order; use = or !=", token)
            if isinstance(value, float) and math.isnan(value):
                raise self._mistake("nan has no order; use = nan or != nan", token)
            if isinstance(field, Attribute) and ATTRIBUTES[field.name] is AttributeType.STATUS:
                raise self._mistake("a status has no order; use =, != or IN", operator)
            if isinstance(field, Attribute) and ATTRIBUTES[field.name] is AttributeType.TEXTS:
                raise self._mistake(f"{field.name!r} has no order; use =, !=, IN, LIKE or GLOB", operator)
        return Compare(field, comparison, value)

    def _is_null(self, field: Field) -> Condition:
        is_negated = self._skip("not")
        if not self._skip("null"):
            raise self._mistake(f"expected NULL or NOT NULL after IS, found {_shown(self.token)}", self.token)
        present = HasValue(field, or_below=True)
        return present if is_negated else Not(present)

    def _one_of(self, field: Field, operator: Token) -> Condition:
        if not self._skip("("):
            raise self._mistake("IN needs a list in parentheses, such as IN (1, 2)", self.token)
        values: list[Scalar] = []
        while True:
            token = self.token
            value = self._value(field)
            if value is None:
                raise self._mistake("a list cannot hold null; add OR … IS NULL", token)
            values.append(value)
            if len(values) > MAX_VALUES:
                raise self._mistake(f"a list of more than {MAX_VALUES:,} values", operator)
            if self._skip(")"):
                return OneOf(field, tuple(values))
            if not self._skip(","):
                message = f"expected a comma or ) in the list, found {_shown(self.token)}"
                raise self._mistake(message, self.token)

    def _pattern(self, field: Field, operator: Token) -> str:
        name = operator.word.upper()
        kind = ATTRIBUTES[field.name] if isinstance(field, Attribute) else None
        is_text = isinstance(field, Param | Tag | Environment) or kind in _TEXTUAL
        if not is_text:
            raise self._mistake(f"{name} works on text, and {_described(field)}", operator)
        token = self._take()
        if token.kind is not Kind.STRING:
            raise self._mistake(f"{name} needs a text in quotes, found {_shown(token)}", token)
        return str(token.value)

    # Values

    def _value(self, field: Field) -> Scalar | None:
        token = self.token
        value = self._sum()
        if value is None:
            return None
        match field:
            case Metric() | At() | Count():
                return self._number(value, token, field)
            case Tag():
                if not isinstance(value, str):
                    raise self._mistake(f"tags are text; write it in quotes: '{token.text}'", token)
                return value
            case Param() | Environment():
                if isinstance(value, Moment):
                    raise self._mistake("a time compares with started_at and ended_at only", token)
                return plain_value(value)
            case Attribute():
                return self._attribute_value(field, value, token)

    def _sum(self) -> Value:
        """Read a value, or a sum of some."""
        value = self._product()
        while self.token.kind is Kind.ARITHMETIC and self.token.text in "+-":
            operator = self._take()
            value = self._combined(operator, value, self._product())
        return value

    def _product(self) -> Value:
        value = self._operand()
        while self.token.kind is Kind.ARITHMETIC and self.token.text in "*/":
            operator = self._take()
            value = self._combined(operator, value, self._operand())
        return value

    def _combined(self, operator: Token, left: Value, right: Value) -> Value:
        try:
            return combined(operator.text, left, right)
        except ValueError as error:
            raise self._mistake(str(error), operator) from None

    def _operand(self) -> Value:
        opening = self.token
        if self._skip("("):
            self._depth += 1
            if self._depth > MAX_DEPTH:
                raise self._mistake(f"more than {MAX_DEPTH} parentheses inside each other", opening)
            value = self._sum()
            if not self._skip(")"):
                raise self._mistake("this parenthesis is not closed", opening)
            self._depth -= 1
            return value
        for function in ("now", "today"):
            if self._is_call(function):
                self._next += 2
                if not self._skip(")"):
                    raise self._mistake(f"{function}() takes nothing", self.token)
                return Moment(self._now if function == "now" else self._now // 86_400 * 86_400)
        return self._literal(self._take())

    def _literal(self, token: Token) -> Value:
        if token.kind in (Kind.STRING, Kind.NUMBER):
            return token.value
        if token.kind is Kind.DURATION:
            return Seconds(float(token.value))
        match token.word:
            case "true" | "false":
                return token.word == "true"
            case "inf" | "infinity" | "nan":
                return float(token.word)
            case "null" | "none":
                return None
            case _:
                pass
        if token.kind is Kind.NAME:
            if token.parts[0].text in _PREFIXES and len(token.parts) > 1:
                raise self._mistake("a field is compared with a value, not with another field", token)
            if token.word in ("now", "today"):
                raise self._mistake(f"write {token.word}()", token)
            raise self._mistake(f"text goes in quotes: '{token.text}'", token)
        raise self._mistake(f"expected a value, found {_shown(token)}", token)

    def _number(self, value: Value, token: Token, field: Field) -> int | float:
        if isinstance(value, Seconds):
            return value.seconds
        if isinstance(value, bool | str | Moment) or value is None:
            raise self._mistake(f"{_described(field)}; compare with a number", token)
        return value

    def _attribute_value(self, field: Attribute, value: Value, token: Token) -> Scalar:
        match ATTRIBUTES[field.name]:
            case AttributeType.NUMBER:
                return self._number(value, token, field)
            case AttributeType.DURATION:
                if isinstance(value, str):
                    return self._duration(value, token)
                return self._number(value, token, field)
            case AttributeType.TIME:
                return self._time(value, token)
            case AttributeType.BOOL if not isinstance(value, bool):
                raise self._mistake(f"{field.name!r} is true or false", token)
            case AttributeType.BOOL:
                return bool(value)
            case AttributeType.STATUS if not isinstance(value, str) or value not in set(Status):
                hint = nearest(str(value), Status)
                message = f"there is no status {token.text}{hint} (there are {', '.join(Status)})"
                raise self._mistake(message, token)
            case _ if not isinstance(value, str):
                raise self._mistake(f"{field.name!r} is text; write it in quotes: '{token.text}'", token)
            case _:
                return value

    def _duration(self, text: str, token: Token) -> float:
        seconds = seconds_in(text)
        if seconds is None:
            message = f"{token.text[:60]} is no duration; write seconds, or 90s, 5m, 1h30m, 2d"
            raise self._mistake(message, token)
        return seconds

    def _time(self, value: Value, token: Token) -> float:
        moment = Moment.of(value) if isinstance(value, str) else value
        if isinstance(moment, Moment):
            return moment.epoch_s
        raise self._mistake(
            f"{token.text[:60]} is no time; write it as in '2026-11-23', '2026-11-23T14:30' (UTC), "
            "'2026-11-23T14:30+01:00', or now() - 7d",
            token,
        )

    # Fields

    def field(self) -> Field:
        if self._is_call("count"):
            self._next += 2
            counted = self._counted()
            if not self._skip(")"):
                raise self._mistake(f"expected ), found {_shown(self.token)}", self.token)
            return counted
        token = self._take()
        if token.kind is not Kind.NAME:
            raise self._mistake(self._no_field(token), token)
        first, rest = token.parts[0], token.parts[1:]
        if token.is_pattern:
            raise self._mistake("wildcards in names stand in count(…) and exists(…) only", token)
        if token.step is not None:
            return self._at(token, token.step)
        match first.text:
            case "metrics" if rest:
                return _metric(rest)
            case "params" if rest:
                is_exact = any(part.is_quoted for part in rest)
                return Param(tuple(part.text for part in rest), is_exact)
            case "tags" if rest:
                return Tag(_dotted(rest))
            case "environment" if rest:
                return Environment(tuple(part.text for part in rest))
            case name if name in ATTRIBUTES and not rest:
                return Attribute(name)
            case name if name in ALIASES and not rest:
                return Attribute(ALIASES[name])
            case _:
                raise self._mistake(self._unknown_field(token), token)

    def _at(self, token: Token, step: int) -> At:
        first, rest = token.parts[0], token.parts[1:]
        if first.text != "metrics" or not rest:
            raise self._mistake("only metrics have values at steps, such as metrics.loss@100", token)
        last = rest[-1]
        if len(rest) > 1 and not last.is_quoted and last.text in set(Statistic):
            message = f"a step has one value: leave .{last.text} out, or quote the name it belongs to"
            raise self._mistake(message, last)
        return At(_dotted(rest), step)

    def _no_field(self, token: Token) -> str:
        found = "the end" if token.kind is Kind.END else _shown(token)
        hint = "; the field goes left, the value right" if token.kind in (Kind.NUMBER, Kind.STRING) else ""
        return f"expected a field such as metrics.loss, params.lr, tags.stage or status, found {found}{hint}"

    def _unknown_field(self, token: Token) -> str:
        first, rest = token.parts[0].text, token.parts[1:]
        if first in _PREFIXES:
            return f"a name must follow {first!r}, such as {first}.x"
        if token.word in _LOGIC:
            return f"expected a field, found {token.text.upper()}"
        if token.word in _FUNCTIONS:
            return f"a parenthesis must follow {token.word!r}, such as {token.word}(params.lr)"
        if first in ("attributes", "attribute", "attr") and len(rest) == 1:
            return f"attributes stand without a prefix: {rest[0].text}"
        hint = nearest(first, _PREFIXES if rest else (*ATTRIBUTES, *ALIASES, *_PREFIXES))
        return f"unknown field {token.text[:80]!r}{hint or _FIELDS}"

    # Orders

    def orders(self) -> tuple[Order, ...]:
        found: list[Order] = []
        while True:
            start = self.token
            field = self.field()
            descending = self._skip("desc")
            if not descending:
                self._skip("asc")
            found.append(Order(field, descending))
            if len(found) > MAX_ORDERS:
                raise self._mistake(f"more than {MAX_ORDERS} fields to sort by", start)
            if self.is_at_end:
                return tuple(found)
            if not self._skip(","):
                message = f"expected ASC, DESC, a comma or the end, found {_shown(self.token)}"
                raise self._mistake(message, self.token)

    def fields(self) -> tuple[tuple[str, Field], ...]:
        found: list[tuple[str, Field]] = []
        while True:
            start = self.token.position
            field = self.field()
            found.append((self._text[start : self.token.position].strip(), field))
            if self.is_at_end:
                return tuple(found)
            if not self._skip(","):
                message = f"expected a comma or the end, found {_shown(self.token)}"
                raise self._mistake(message, self.token)


_TEXTUAL = (AttributeType.TEXT, AttributeType.STATUS, AttributeType.TEXTS)
_FIELDS = f"; fields are metrics.…, params.…, tags.…, environment.… and {', '.join(ATTRIBUTES)}"


def _shown(token: Token) -> str:
    return "the end" if token.kind is Kind.END else repr(token.text[:40])


def _described(field: Field) -> str:
    match field:
        case Metric() | At():
            return "metrics are numbers"
        case Count():
            return "a count is a number"
        case Attribute(name):
            kind = {
                AttributeType.TIME: "a time",
                AttributeType.DURATION: "a duration in seconds",
                AttributeType.BOOL: "true or false",
            }
            return f"{name!r} is {kind.get(ATTRIBUTES[name], 'a number')}"
        case _:
            return "this is text"


def _as_glob(part: Part) -> str:
    """Return a part of a pattern; one in quotes stands for itself."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in part.text) if part.is_quoted else part.text


def _dotted(parts: tuple[Part, ...]) -> str:
    return ".".join(part.text for part in parts)


def _metric(parts: tuple[Part, ...]) -> Metric:
    """Take the last component for a statistic if it is one and a name stands before it."""
    last = parts[-1]
    if len(parts) > 1 and not last.is_quoted and last.text in set(Statistic):
        return Metric(_dotted(parts[:-1]), Statistic(last.text))
    return Metric(_dotted(parts))


def _differs(field: Field, condition: Condition) -> Condition:
    """Return `field` has a value, and `condition` does not hold."""
    return All((HasValue(field), Not(condition)))


def _comparison(text: str) -> Comparison:
    match text:
        case "<" | "<=" | ">" | ">=":
            return text
        case _:
            return "="
