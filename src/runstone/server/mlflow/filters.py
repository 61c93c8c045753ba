"""MLflow's filters and orders as values: clauses joined by AND. Knows neither runs nor SQL."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runstone.index import patterns
from runstone.server.mlflow.errors import MlflowError, invalid

NUMERIC = frozenset({"=", "!=", ">", ">=", "<", "<="})
TEXTUAL = frozenset({"=", "!=", "LIKE", "ILIKE"})
LISTED = TEXTUAL | {"IN", "NOT IN"}
NULLABLE = TEXTUAL | {"IS NULL", "IS NOT NULL"}
_MOST_CLAUSES = 100
_TOKEN = re.compile(
    r"""\s*(?:
    (?P<quoted>'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.)*"|`[^`]*`)
    |(?P<number>(?<![\w.`"])[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
    |(?P<sign>!=|<>|>=|<=|=|>|<|\(|\)|,|\.)
    |(?P<word>[^\s'"`=<>!(),.]+)
    )""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Clause:
    """One comparison.

    Attributes:
        entity: Such as `metric`, `param`, `tag`, `attribute`, `dataset`.
        key: Name of the metric, param, tag or attribute.
        operator: In capitals.
        value: Text or number; a tuple of texts for lists; `None` for `IS NULL`.
    """

    entity: str
    key: str
    operator: str
    value: str | float | int | tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Order:
    """One thing to sort by."""

    entity: str
    key: str
    is_descending: bool = False


@dataclass(frozen=True, slots=True)
class Grammar:
    """What filters over one kind of thing may say.

    Attributes:
        entities: What may stand before a dot, by the words for it.
        default: The entity of a key without one.
        aliases: Other names of attributes.
        operators: Of each entity, or of `attribute.NAME`.
        numbers: Attributes that are numbers.
        quotable: Those of them that may stand in quotes.
    """

    entities: Mapping[str, str]
    default: str
    aliases: Mapping[str, str]
    operators: Mapping[str, frozenset[str]]
    numbers: frozenset[str] = frozenset()
    quotable: frozenset[str] = frozenset()

    def clauses(self, text: str) -> list[Clause]:
        """Return the clauses of a filter.

        Raises:
            MlflowError: it does not parse, or says what cannot be said.
        """
        return _Parser(text, self).clauses() if text else []

    def orders(self, texts: Sequence[str]) -> list[Order]:
        """Return what to sort by.

        Raises:
            MlflowError: it does not parse, or names a thing twice.
        """
        found = [_Parser(text, self).order() for text in texts]
        named = [(order.entity, order.key) for order in found]
        if len(set(named)) < len(named):
            raise invalid(f"`order_by` contains duplicate fields: {list(texts)!r:.200}")
        return found

    def meant(self, entity: str | None, key: str, text: str) -> tuple[str, str]:
        """Return entity and key as they are known here."""
        if entity is None:
            kind = self.default
        else:
            known = self.entities.get(entity.lower())
            if known is None:
                raise invalid(f"Invalid entity type {entity!r:.80} in {text!r:.200}; valid are {sorted(self.entities)}")
            kind = known
        if kind == "attribute":
            key = self.aliases.get(key.lower(), self.aliases.get(key, key))
            if f"attribute.{key}" not in self.operators:
                raise invalid(f"Invalid attribute key {key!r:.80} specified in {text!r:.200}")
        if not key:
            raise invalid(f"Invalid clause(s) in filter string: {text!r:.200}: a key is empty")
        return kind, key


class _Parser:
    def __init__(self, text: str, grammar: Grammar) -> None:
        self._text = text
        self._grammar = grammar
        self._tokens = list(_tokens(text))
        self._at = 0

    def clauses(self) -> list[Clause]:
        found = [self._clause()]
        while self._at < len(self._tokens):
            if self._keyword() != "AND":
                raise self._wrong()
            self._at += 1
            found.append(self._clause())
            if len(found) > _MOST_CLAUSES:
                raise invalid(f"Invalid clause(s) in filter string: more than {_MOST_CLAUSES}")
        return found

    def order(self) -> Order:
        entity, key = self._named()
        kind, key = self._grammar.meant(entity, key, self._text)
        word = self._keyword() if self._at < len(self._tokens) else "ASC"
        if word not in ("ASC", "DESC") or self._at + 1 < len(self._tokens):
            raise invalid(f"Invalid order_by clause {self._text!r:.200}")
        return Order(kind, key, word == "DESC")

    def _clause(self) -> Clause:
        entity, key = self._named()
        kind, key = self._grammar.meant(entity, key, self._text)
        name = f"attribute.{key}" if kind == "attribute" else kind
        operator = self._operator()
        if operator not in self._grammar.operators[name]:
            raise invalid(
                f"Invalid comparator {operator!r} for {name} in {self._text!r:.200}; valid are "
                f"{', '.join(sorted(self._grammar.operators[name]))}"
            )
        if operator in ("IS NULL", "IS NOT NULL"):
            return Clause(kind, key, operator, None)
        if operator in ("IN", "NOT IN"):
            return Clause(kind, key, operator, self._list())
        is_attribute = kind == "attribute"
        is_number = kind == "metric" or (is_attribute and key in self._grammar.numbers)
        value = self._value(is_number=is_number, is_quotable=is_attribute and key in self._grammar.quotable)
        return Clause(kind, key, operator, value)

    def _named(self) -> tuple[str | None, str]:
        """Read a key, and the entity before it where there is one: a bare key may hold dots."""
        kind, first = self._next()
        if kind not in ("word", "quoted", "number") or first[:1] == "'":
            raise self._wrong()
        parts, is_quoted = [_unquoted(first) if kind == "quoted" else first], kind == "quoted"
        while self._peek() == ("sign", "."):
            self._at += 1
            kind, text = self._next()
            if kind not in ("word", "quoted", "number") or text[:1] == "'":
                raise self._wrong()
            parts.append(_unquoted(text) if kind == "quoted" else text)
        if len(parts) == 1 or (is_quoted and len(parts) == 1):
            return None, parts[0]
        return parts[0], ".".join(parts[1:])

    def _operator(self) -> str:
        kind, text = self._next()
        if kind == "sign" and text in ("=", "!=", "<>", ">", ">=", "<", "<="):
            return "!=" if text == "<>" else text
        word = text.upper() if kind == "word" else ""
        if word in ("LIKE", "ILIKE", "IN"):
            return word
        if word == "NOT" and self._keyword() == "IN":
            self._at += 1
            return "NOT IN"
        if word == "IS":
            is_not = self._keyword() == "NOT"
            self._at += is_not
            if self._keyword() == "NULL":
                self._at += 1
                return "IS NOT NULL" if is_not else "IS NULL"
        raise self._wrong()

    def _value(self, *, is_number: bool, is_quotable: bool) -> str | float | int:
        kind, text = self._next()
        if is_quotable and kind == "quoted" and text[1:-1].isdecimal():
            return int(text[1:-1])
        if is_number:
            if kind == "number":
                return float(text) if re.search(r"[.eE]", text) else int(text)
            raise invalid(f"Expected a numeric value in {self._text!r:.200}, got {text!r:.80}")
        if kind == "quoted" and text[0] != "`":
            return _unquoted(text)
        raise invalid(f"Expected a quoted string value in {self._text!r:.200}, got {text!r:.80}")

    def _list(self) -> tuple[str, ...]:
        if self._next() != ("sign", "("):
            raise self._wrong()
        found = []
        while True:
            kind, text = self._next()
            if kind != "quoted" or text[0] == "`":
                raise invalid(
                    f"While parsing a list in {self._text!r:.200}: expected a quoted string, got {text!r:.80}"
                )
            found.append(_unquoted(text))
            sign = self._next()
            if sign == ("sign", ",") and self._peek() == ("sign", ")"):
                sign = self._next()  # as Python writes a tuple of one
            if sign == ("sign", ")"):
                return tuple(found)
            if sign != ("sign", ","):
                raise self._wrong()

    def _peek(self) -> tuple[str, str] | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _keyword(self) -> str:
        kind, text = self._peek() or ("", "")
        return text.upper() if kind == "word" else ""

    def _next(self) -> tuple[str, str]:
        found = self._peek()
        if found is None:
            raise self._wrong()
        self._at += 1
        return found

    def _wrong(self) -> MlflowError:
        return invalid(f"Invalid clause(s) in filter string: {self._text!r:.300}")


def _tokens(text: str) -> list[tuple[str, str]]:
    found, position = [], 0
    text = text.strip()
    if len(text) > 20_000:
        raise invalid("Invalid clause(s) in filter string: it is longer than 20000 characters")
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise invalid(f"Invalid clause(s) in filter string: {text!r:.300} at character {position}")
        found.append((match.lastgroup, match[match.lastgroup]))
        position = match.end()
        while position < len(text) and text[position].isspace():
            position += 1
    return found


def _unquoted(text: str) -> str:
    inner = text[1:-1]
    if text[0] == "`":
        return inner
    return re.sub(r"\\(.)|''", lambda found: found[1] or "'", inner, flags=re.DOTALL)


def like(pattern: str, *, ignores_case: bool = False) -> Callable[[str], bool]:
    """Return what tells whether a text fits a pattern with `%` and `_`."""
    return patterns.like(pattern.replace("\\", "\\\\"), ignore_case=ignores_case)


def holds(clause: Clause, value: Any) -> bool:
    """Return whether a clause holds for a value; `None` is one that is missing, for which only `IS NULL` holds."""
    if clause.operator in ("IS NULL", "IS NOT NULL"):
        return (value is None) == (clause.operator == "IS NULL")
    wanted: Any = clause.value
    if value is None:
        return False
    match clause.operator:
        case "=":
            return bool(value == wanted)
        case "!=":
            return bool(value != wanted)
        case ">":
            return bool(value > wanted)
        case ">=":
            return bool(value >= wanted)
        case "<":
            return bool(value < wanted)
        case "<=":
            return bool(value <= wanted)
        case "IN":
            return value in wanted
        case "NOT IN":
            return value not in wanted
        case _:
            return like(wanted, ignores_case=clause.operator == "ILIKE")(str(value))
