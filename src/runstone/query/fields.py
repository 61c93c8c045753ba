"""Which fields runs have, as the filter language writes them. Knows names, no SQL."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runstone.index.conditions import ATTRIBUTES, AttributeType, Condition, Statistic
from runstone.index.records import may_leave_out, split_path

if TYPE_CHECKING:
    from runstone.index.store import Question

KINDS = ("attributes", "params", "metrics", "tags", "environment")
_PLAIN = re.compile(r"[\w/\-]+")
_TYPES = {
    AttributeType.TEXT: "text",
    AttributeType.STATUS: "text",
    AttributeType.TEXTS: "text",
    AttributeType.NUMBER: "number",
    AttributeType.BOOL: "bool",
    AttributeType.TIME: "time",
    AttributeType.DURATION: "duration",
}


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """A field that runs have.

    Attributes:
        name: As a filter names it, quoted where it must be: `metrics."val acc"`.
        kind: One of `KINDS`.
        type: `number`, `text`, `bool`, `time`, `duration`, or `mixed`.
        runs: How many runs have it.
    """

    name: str
    kind: str
    type: str
    runs: int


def listed_fields(question: Question, condition: Condition | None) -> list[FieldInfo]:
    """Return the fields of the runs for which a condition holds, or of all."""
    from runstone.index.asking import tallies  # loads NumPy
    from runstone.index.conditions import EVERY_RUN

    window = slice(0, None if condition is not None else 0)
    keys, total = question.chosen(condition or EVERY_RUN, deleted=False, archived=None, window=window)
    found = [FieldInfo(name, "attributes", _TYPES[kind], total) for name, kind in ATTRIBUTES.items()]
    merged: dict[tuple[str, str], tuple[str, int]] = {}
    for kind, path, value_type, runs in tallies(question, keys if condition is not None else None):
        name = written_name(kind, path)
        before = merged.get((kind, name))
        # Several lists may share a name, and one run may be in each: the sum would count it twice.
        several = max(before[1], runs) if before is not None and kind == "environment" else 0
        total = several or (before[1] if before is not None else 0) + runs
        is_same = before is None or before[0] == value_type
        merged[kind, name] = (value_type if is_same else "mixed", total)
    named = [FieldInfo(name, kind, value_type, runs) for (kind, name), (value_type, runs) in merged.items()]
    return found + sorted(named, key=lambda one: (KINDS.index(one.kind), -one.runs, one.name))


def written_name(kind: str, path: str) -> str:
    """Return a name as a filter writes it.

    Args:
        kind: One of `KINDS` but the first.
        path: As the index keeps it: of params and the environment, as `flatten_params` writes it.
    """
    if kind in ("params", "environment"):
        keys = split_path(path)
        if kind == "environment":
            keys = [key for key in keys if not may_leave_out(key)] or keys
        return ".".join([kind, *map(quoted, keys)])
    parts = path.split(".")
    is_plain = all(_PLAIN.fullmatch(part) for part in parts)
    if kind == "metrics" and len(parts) > 1 and parts[-1] in set(Statistic):
        is_plain = False
    return f"{kind}.{path}" if is_plain else f"{kind}.{quoted(path)}"


def quoted(part: str) -> str:
    """Return one part of a name, in quotes where it needs some."""
    if _PLAIN.fullmatch(part):
        return part
    return quoted_text(part, '"')


def quoted_text(text: str, quote: str = "'") -> str:
    """Return a text in quotes."""
    return quote + text.replace("\\", "\\\\").replace(quote, "\\" + quote) + quote
