"""What two versions have apart: files, and for tables rows and how their columns are spread. In bounded memory."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runstone.datasets.manifest import Manifest, TreeFile
from runstone.datasets.version import DatasetVersion

if TYPE_CHECKING:
    from runstone.datasets.rows import RowDifference

_FEW_VALUES = 50
_TINY = 1e-4


@dataclass(frozen=True, slots=True)
class Change:
    """One file that two versions do not have in common.

    Attributes:
        path: Where it lies in the second version; in the first where it was removed.
        before, after: The file in each; `None` where it is not in one.
    """

    path: str
    before: TreeFile | None
    after: TreeFile | None


@dataclass(frozen=True, slots=True)
class ColumnDifference:
    """How the values of a column differ.

    Attributes:
        name: Of the column.
        before, after: Its type in each version; `None` where it is not in one.
        psi: Population stability index; below 0.1 hardly any change, above 0.25 a large one.
        js: Jensen-Shannon divergence to base 2: 0 (the same) to 1 (nothing in common).
        figures: `mean`, `std`, `min`, `max`, `nulls` (a share), each as a pair.
    """

    name: str
    before: str | None
    after: str | None
    psi: float | None = None
    js: float | None = None
    figures: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)


@dataclass(slots=True)
class Difference:
    """What two versions have apart.

    Attributes:
        added, removed, changed: Files.
        renamed: Files whose content lies elsewhere in the second version.
        columns: Of their first tables, as far as both were profiled.
        rows: Rows by their content; `None` where it was not asked for, or there are no tables.
    """

    added: list[Change] = field(default_factory=list)
    removed: list[Change] = field(default_factory=list)
    changed: list[Change] = field(default_factory=list)
    renamed: list[Change] = field(default_factory=list)
    columns: list[ColumnDifference] = field(default_factory=list)
    rows: RowDifference | None = None

    @property
    def is_empty(self) -> bool:
        """Whether both hold the same files."""
        return not (self.added or self.removed or self.changed or self.renamed)


def diff(before: DatasetVersion, after: DatasetVersion, *, rows: bool = True, samples: int = 5) -> Difference:
    """Return what two versions have apart.

    Args:
        before, after: The versions, of one dataset or two.
        rows: Whether the rows of tables are compared, too; both are read whole for that.
        samples: How many rows are shown of those that were added and of those that were removed.

    Raises:
        NotFound: a manifest is not in the store; with `rows`, the content of a table is nowhere.
        NoTable: a table cannot be read.
    """
    found = diff_files(before.manifest, after.manifest)
    found.columns = _columns(before.tables, after.tables)
    if rows and not found.is_empty:
        tables = before.table_files(), after.table_files()
        if tables[0] and tables[1]:
            from runstone.datasets.rows import compare_rows  # Arrow, only for tables

            found.rows = compare_rows(*tables, samples=samples)
    return found


def diff_files(before: Manifest, after: Manifest) -> Difference:
    """Return which files two versions have apart; a removed one whose content was added elsewhere was renamed."""
    first = {file.path: file for file in before.files}
    second = {file.path: file for file in after.files}
    found = Difference()
    removed: dict[str, list[TreeFile]] = defaultdict(list)
    gone = [file for path, file in first.items() if path not in second]
    for file in gone:
        if file.hash is not None and file.size_bytes:  # empty files are all the same
            removed[file.hash].append(file)
    renamed: set[str] = set()
    for path, file in second.items():
        old = first.get(path)
        if old == file:
            continue
        if old is not None:
            found.changed.append(Change(path, old, file))
            continue
        sources = removed.get(file.hash or "")
        if sources:
            source = sources.pop(0)
            renamed.add(source.path)
            found.renamed.append(Change(path, source, file))
        else:
            found.added.append(Change(path, None, file))
    found.removed = [Change(file.path, file, None) for file in gone if file.path not in renamed]
    return found


def _columns(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> list[ColumnDifference]:
    first, second = _first(before), _first(after)
    if first is None or second is None:
        return []
    types = [{one["name"]: one["type"] for one in table["schema"]} for table in (first, second)]
    found = []
    for name in dict.fromkeys([*types[0], *types[1]]):
        kinds = types[0].get(name), types[1].get(name)
        profiles = first.get("columns", {}).get(name), second.get("columns", {}).get(name)
        if profiles[0] is None or profiles[1] is None:
            found.append(ColumnDifference(name, *kinds))
            continue
        spread = _shares(*profiles)
        psi, js = (None, None) if spread is None else (_psi(*spread), _js(*spread))
        found.append(ColumnDifference(name, *kinds, psi, js, _figures(*profiles)))
    return found


def _first(tables: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    return next((table for table in tables if table["schema"]), None)


def _figures(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    figures = {key: (before.get(key), after.get(key)) for key in ("mean", "std", "min", "max", "distinct")}
    figures["nulls"] = _null_share(before), _null_share(after)
    return {key: pair for key, pair in figures.items() if pair != (None, None)}


def _null_share(profile: Mapping[str, Any]) -> float:
    return float(profile["nulls"] / profile["count"]) if profile["count"] else 0.0


def _shares(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[list[float], list[float]] | None:
    """Return which share of the values lies in each bin, in both; `None` where that cannot be told."""
    distinct = before.get("distinct"), after.get("distinct")
    is_few = all(count is not None and count <= _FEW_VALUES for count in distinct)
    numbers = before.get("quantiles"), after.get("quantiles")
    if not is_few and numbers[0] and numbers[1]:
        return _shares_by_quantile(numbers[0], numbers[1])
    if before.get("top") is None or after.get("top") is None:
        return None
    counted = [{_key(value): count for value, count in profile["top"]} for profile in (before, after)]
    # Values beyond the most frequent of the first version are one bin together.
    names = list(counted[0]) if not is_few else list(dict.fromkeys([*counted[0], *counted[1]]))
    shares = []
    for profile, counts in zip((before, after), counted, strict=True):
        total = profile["count"] - profile["nulls"]
        if not total:
            return None
        known = [counts.get(name, 0) / total for name in names]
        shares.append([*known, max(0.0, 1.0 - sum(known))])
    return shares[0], shares[1]


def _key(value: Any) -> str:
    """Return a value so that a whole number is the same as a float."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return repr(float(value)) if is_number else str(value)


def _shares_by_quantile(before: Sequence[float], after: Sequence[float]) -> tuple[list[float], list[float]]:
    # Ten bins that hold a tenth of the first version each; equal edges fall together.
    edges = sorted({before[index] for index in range(10, 100, 10)})

    def below(quantiles: Sequence[float], edge: float) -> float:
        return sum(1 for value in quantiles if value <= edge) / len(quantiles)

    shares = []
    for quantiles in (before, after):
        marks = [0.0, *(below(quantiles, edge) for edge in edges), 1.0]
        shares.append([high - low for low, high in itertools.pairwise(marks)])
    return shares[0], shares[1]


def _psi(before: Sequence[float], after: Sequence[float]) -> float:
    pairs = [(max(old, _TINY), max(new, _TINY)) for old, new in zip(before, after, strict=True) if old or new]
    return sum((new - old) * math.log(new / old) for old, new in pairs)


def _js(before: Sequence[float], after: Sequence[float]) -> float:
    def divergence(shares: Sequence[float]) -> float:
        middle = [(old + new) / 2 for old, new in zip(before, after, strict=True)]
        return sum(share * math.log2(share / mid) for share, mid in zip(shares, middle, strict=True) if share)

    return max(0.0, (divergence(before) + divergence(after)) / 2)
