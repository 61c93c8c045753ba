"""The tables that say what people had elsewhere, and have here, name a test for each row; each of these is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def rows(page: str) -> list[list[str]]:
    """Return the rows of the tables of a page whose last column is `test`."""
    found, is_ours = [], False
    for line in (ROOT / "docs" / page).read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if not line.startswith("|"):
            is_ours = False
        elif cells[-1] == "test":
            is_ours = True
        elif is_ours and not line.startswith("|--"):
            found.append(cells)
    return found


@pytest.mark.parametrize(("page", "count"), [("datasets.md", 13), ("models.md", 24)])
def test_every_row_is_tested(page: str, count: int) -> None:
    known = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        known |= set(re.findall(r"^def (test_\w+)\(", path.read_text(), re.MULTILINE))
    found = rows(page)
    assert len(found) == count
    for cells in found:
        tests = re.findall(r"`(test_\w+)`", cells[-1])
        assert tests, cells
        assert set(tests) <= known, set(tests) - known
