"""Which files hold tables, by their names."""

from __future__ import annotations

_KINDS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}


def table_kind(path: str) -> str | None:
    """Return how a file holds a table by its name; `None` where it holds none."""
    name = path.lower()
    name = name.removesuffix(".gz") if name.endswith((".csv.gz", ".tsv.gz")) else name
    return _KINDS.get(name[name.rfind(".") :]) if "." in name else None
