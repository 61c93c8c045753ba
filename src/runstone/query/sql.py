"""What SQL selected, as a table, JSON, CSV, Parquet or a frame. Knows rows, no SQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runstone.errors import InvalidValue
from runstone.query.table import arrow_table, write_columns

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

MOST_ROWS = 100_000
TIME_LIMIT_S = 30.0


class SqlTable(Sequence[tuple[Any, ...]]):
    """Rows that a statement selected.

    Attributes:
        columns: Names of the columns.
        is_cut: Whether there were more rows than were asked for.
    """

    def __init__(self, columns: Sequence[str], rows: Sequence[tuple[Any, ...]], *, is_cut: bool = False) -> None:
        self.columns = list(columns)
        self.is_cut = is_cut
        self._rows = tuple(rows)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        """Return a row, or some of them."""
        return self._rows[index]

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Yield the rows."""
        return iter(self._rows)

    def __repr__(self) -> str:
        """Say how large it is."""
        return f"<SqlTable of {len(self):,} rows: {', '.join(self.columns)}>"

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one dict a row."""
        return [dict(zip(self.columns, row, strict=True)) for row in self._rows]

    def to_arrow(self) -> pa.Table:
        """Return an Arrow table; a column whose values are of several types is text."""
        return arrow_table(self._by_column())

    def to_parquet(self, path: str | Path) -> None:
        """Write a Parquet file, whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        write_columns(Path(path), self._by_column())

    def to_pandas(self) -> pd.DataFrame:
        """Return a frame (needs pandas)."""
        import pandas as pd  # heavy and optional

        return pd.DataFrame(self._by_column(), columns=self.columns)

    def _by_column(self) -> dict[str, list[Any]]:
        return {name: [row[place] for row in self._rows] for place, name in enumerate(self.columns)}


def select(
    workspace_path: Path, statement: str, *, limit: int = MOST_ROWS, time_limit_s: float = TIME_LIMIT_S
) -> SqlTable:
    """Return what a statement selects from the runs as they are on disk now. Nothing can be changed by it.

    Args:
        workspace_path: Folder of the workspace.
        statement: One SELECT over the views of `docs/sql.md`, in the SQL of SQLite.
        limit: At most so many rows.
        time_limit_s: Give up after so long.

    Raises:
        InvalidValue: it is no such statement, or takes too long.
    """
    from runstone.index import sql  # loads SQLite

    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        raise InvalidValue(f"limit must be a whole number from 0, got {limit!r:.80}")
    found = sql.select(workspace_path, statement, most_rows=limit, time_limit_s=time_limit_s)
    return SqlTable(found.columns, found.rows, is_cut=found.is_cut)
