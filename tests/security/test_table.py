"""docs/security.md and the tests are the same list."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parents[1]
TABLE = TESTS.parent / "docs" / "security.md"
NUMBERS = range(1, 45)


def rows() -> dict[int, str]:
    """Return the row of each number."""
    found = re.findall(r"^\| S(\d+) \| (.*) \|$", TABLE.read_text(), re.MULTILINE)
    assert len({number for number, _row in found}) == len(found), "a number has two rows"
    return {int(number): row for number, row in found}


@cache
def functions(path: Path) -> frozenset[str]:
    """Return the tests of a file."""
    tree = ast.parse(path.read_text())
    return frozenset(
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name[:4] == "test"
    )


def named(row: str) -> set[tuple[str, str]]:
    """Return file and name of the tests of a row."""
    return {(found[0], found[1]) for found in re.findall(r"`([\w/]+\.py)::(\w+)`", row)}


def test_every_number_has_a_row_with_tests_that_are_there() -> None:
    found = rows()
    assert sorted(found) == list(NUMBERS)
    for number, row in found.items():
        tests = named(found[21] if "as S21" in row else row)
        assert tests, f"S{number} names no test"
        for file, name in tests:
            assert (TESTS / file).is_file(), f"S{number}: there is no {file}"
            assert name in functions(TESTS / file), f"S{number}: {file} has no {name}"


def test_every_test_that_bears_a_number_stands_in_its_row() -> None:
    found, missing = rows(), []
    for path in sorted(TESTS.rglob("test_*.py")):
        for name in functions(path):
            for number in map(int, re.findall(r"(?<=_)s(\d{1,2})(?=_)", name)):
                file = path.relative_to(TESTS).as_posix()
                row = found[21] if number == 22 else found.get(number, "")
                if (file, name) not in named(row) and not file.startswith("sync/"):
                    missing.append(f"S{number}: {file}::{name}")
    assert missing == []


def test_a_rule_says_how_its_test_was_made_to_fail() -> None:
    for number, row in rows().items():
        cells = row.split(" | ")
        assert len(cells) == 3, f"S{number}"
        assert cells[-1].strip(), f"S{number}"
