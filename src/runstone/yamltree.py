"""How much a YAML document stands for: a small file can name the same part again and again, a billion times in all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

MOST_VALUES = 100_000
_MOST_STARS = 10_000  # an alias begins with one; PyYAML takes long for each


class TooMuch(ValueError):
    """A document that stands for more values than any that people write."""


def composed(make_loader: Callable[[str], Any], text: str) -> Any:
    """Return what a document says, `None` where it is empty.

    Args:
        make_loader: Of PyYAML.
        text: The document.

    Raises:
        TooMuch: written out, it would be of more than `MOST_VALUES` values, or would never end.
    """
    if text.count("*") > _MOST_STARS:
        raise TooMuch(f"it repeats parts of itself more than {_MOST_STARS:,} times")
    loader = make_loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {})
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _count(node: Any, known: dict[int, int | None]) -> int:
    """Return how many values a node stands for, with all that its aliases repeat."""
    if id(node) in known:
        found = known[id(node)]
        if found is None:
            raise TooMuch("a part of it holds itself")
        return found
    known[id(node)] = None
    total = 1
    if not isinstance(node.value, str):
        for child in node.value:
            for one in child if isinstance(child, tuple) else (child,):
                total += _count(one, known)
                if total > MOST_VALUES:
                    raise TooMuch(f"written out, it would be of more than {MOST_VALUES:,} values")
    known[id(node)] = total
    return total
