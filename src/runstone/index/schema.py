"""Tables of the index. A change here raises `SCHEMA`; an index of another number is dropped and read again.

There is nothing to migrate: the index is derived from the run folders.
"""

from __future__ import annotations

from sqlalchemy import Column, Double, ForeignKey, Index, Integer, LargeBinary, MetaData, Table, Text
from sqlalchemy.types import UserDefinedType

SCHEMA = 2


class Number(UserDefinedType[int | float]):
    """An integer or a float, each kept exactly, so that 2**53 + 1 differs from 2**53."""

    cache_ok = True

    def get_col_spec(self, **_options: object) -> str:
        """Return the column type: SQLite keeps both kinds in a NUMERIC column."""
        return "NUMERIC"


metadata = MetaData()

runs = Table(
    "runs",
    metadata,
    Column("key", Integer, primary_key=True),
    Column("folder", Text, nullable=False, unique=True),
    Column("id", Text, nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("project", Text, nullable=False),
    Column("group", Text),
    Column("notes", Text),
    Column("parent", Text),
    Column("status", Text, nullable=False),
    Column("failure", Text),
    Column("started_at", Double, nullable=False, index=True),
    Column("ended_at", Double),
    Column("attempts", Integer, nullable=False),
    Column("is_deleted", Integer, nullable=False),
    Column("record", Text, nullable=False),
    Column("figures", LargeBinary, nullable=False),
    # the state in which the folder was seen, `Known`
    Column("mtime_ns", Integer, nullable=False),
    Column("signature", Text, nullable=False),
    Column("is_over", Integer, nullable=False),
    Column("seen_at", Integer, nullable=False),
)
"""One row a run. `record` is all that a table of runs shows, as JSON, without the metrics: their figures are bytes."""

params = Table(
    "params",
    metadata,
    Column("name", Text, primary_key=True),
    Column("run", ForeignKey("runs.key", ondelete="CASCADE"), primary_key=True),
    Column("path", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("number", Number),
    Column("text", Text),
    Index("params_of_run", "run"),
    sqlite_with_rowid=False,
)
"""`path` is the escaped name of `flatten_params`, `name` the same without escapes; `kind` is one of those below."""

NUMBER, TEXT, BOOL, NULL = "number", "text", "bool", "null"

tags = Table(
    "tags",
    metadata,
    Column("name", Text, primary_key=True),
    Column("run", ForeignKey("runs.key", ondelete="CASCADE"), primary_key=True),
    Column("text", Text, nullable=False),
    Index("tags_of_run", "run"),
    sqlite_with_rowid=False,
)

metrics = Table(
    "metrics",
    metadata,
    Column("name", Text, primary_key=True),
    Column("run", ForeignKey("runs.key", ondelete="CASCADE"), primary_key=True),
    Column("count", Integer, nullable=False),
    Column("nan_count", Integer, nullable=False),
    Column("last", Double),
    Column("min", Double),
    Column("max", Double),
    Column("mean", Double),
    Index("metrics_of_run", "run"),
    sqlite_with_rowid=False,
)
"""SQLite has no NaN: `last` is NULL where it is NaN; `mean` is where it is NaN, or every value is (`min` tells)."""

progress = Table(
    "progress",
    metadata,
    Column("run", ForeignKey("runs.key", ondelete="CASCADE"), primary_key=True),
    Column("state", LargeBinary, nullable=False),
)
"""How far the points of a run that lives have been read, so that the next question reads only what came since."""
