"""Hyperparameters of any type become bounded JSON, without any framework."""

from __future__ import annotations

import functools
from collections import OrderedDict, namedtuple
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from runstone_integrations._shared import MAX_DEPTH, MAX_NODES, clean_params

Point = namedtuple("Point", "x y")


class Dangling(Mapping[str, Any]):
    """Has an entry that cannot be read, as configuration objects with missing values do."""

    def __getitem__(self, key: str) -> Any:
        if key == "missing":
            raise LookupError(key)
        return 1

    def __iter__(self) -> Iterator[str]:
        return iter(("there", "missing"))

    def __len__(self) -> int:
        return 2


class Plain:
    """Says nothing of itself."""


class Lying:
    """Answers every question about it with an error."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


def test_bags_of_fields_are_opened() -> None:
    params = clean_params({"point": Point(1, 2), "ordered": OrderedDict(a=Path("b")), "day": date(2026, 1, 2)})
    assert params == {"point": {"x": 1, "y": 2}, "ordered": {"a": "b"}, "day": "2026-01-02"}


def test_an_entry_that_cannot_be_read_leaves_the_others() -> None:
    assert clean_params({"config": Dangling()}) == {"config": {"there": 1, "missing": "(cannot be read: LookupError)"}}


def test_objects_are_their_type_and_a_few_words() -> None:
    params = clean_params({"plain": Plain(), "lying": Lying(), "part": functools.partial(int, base=2), "f": len})
    assert params["plain"].endswith(".Plain>")
    assert params["lying"].endswith("(cannot be read: RuntimeError)")
    assert params["part"] == "<functools.partial> functools.partial(<class 'int'>, base=2)"
    assert params["f"] == "builtins.len"


def test_depth_and_size_are_bounded() -> None:
    deep: dict[str, Any] = {}
    for _ in range(500):
        deep = {"x": deep}
    found: Any = clean_params({"deep": deep, "wide": [[{} for _ in range(1000)] for _ in range(1000)]})
    level, depth = found["deep"], 0
    while isinstance(level, dict):
        level, depth = level["x"], depth + 1
    assert depth <= MAX_DEPTH + 1
    assert level == "<dict> (not opened: too much)"
    opened = sum(isinstance(item, dict) for row in found["wide"] if isinstance(row, list) for item in row)
    assert opened <= MAX_NODES


def test_a_huge_text_of_an_object_is_cut() -> None:
    class Long:
        def __repr__(self) -> str:
            return "x" * 1_000_000

    assert len(clean_params({"long": Long()})["long"]) < 400
