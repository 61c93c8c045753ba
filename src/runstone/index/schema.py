"""Tables of the index. A change here raises `SCHEMA`; an index of another number is dropped and read again.

There is nothing to migrate: the index is derived from the run folders.
"""

from __future__ import annotations

import sqlite3
from functools import cache

SCHEMA = 3
NUMBER, TEXT, BOOL, NULL = "number", "text", "bool", "null"
"""Kinds of a value. A bool is kept as the number 0 or 1; a list or an object as its JSON text."""

TABLES = """
CREATE TABLE state (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
-- identity: random, of this file; revision: of the last change; scanned_at, scan_s: when all folders were compared
-- last, and how long that took; feed: JSON, how much of each file of announcements was read

CREATE TABLE runs (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    folder TEXT NOT NULL UNIQUE,
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    project TEXT NOT NULL,
    "group" TEXT,
    notes TEXT,
    parent TEXT,
    status TEXT NOT NULL,
    failure TEXT,
    started_at REAL NOT NULL,
    ended_at REAL,
    attempts INTEGER NOT NULL,
    dropped INTEGER NOT NULL,
    is_deleted INTEGER NOT NULL,
    is_pinned INTEGER NOT NULL,
    is_archived INTEGER NOT NULL,
    energy_j REAL,
    revision INTEGER NOT NULL, -- at which it was put here in this form
    mtime_ns INTEGER NOT NULL, signature TEXT NOT NULL, watch INTEGER NOT NULL, seen_at INTEGER NOT NULL  -- `Known`
);
CREATE INDEX runs_by_id ON runs (id);
CREATE INDEX runs_by_name ON runs (name);
CREATE INDEX runs_by_revision ON runs (revision);
CREATE INDEX runs_to_watch ON runs (watch) WHERE watch > 0;

-- all that a table of runs shows, as JSON, and the figures of the metrics as bytes; apart from `runs`, since it is long
CREATE TABLE records (run INTEGER PRIMARY KEY, record TEXT NOT NULL, figures BLOB NOT NULL, details TEXT NOT NULL);

-- names of params, metrics, tags and values of the environment. path: escaped as by `flatten_params`; name: as a reader
-- writes it (of the environment without numbers of lists), which several paths may share
CREATE TABLE names (key INTEGER PRIMARY KEY, kind TEXT NOT NULL, path TEXT NOT NULL, name TEXT NOT NULL,
    UNIQUE (kind, path));
CREATE INDEX names_by_name ON names (kind, name);

CREATE TABLE params (name INTEGER, run INTEGER, kind TEXT NOT NULL, number, text TEXT, PRIMARY KEY (name, run))
    WITHOUT ROWID;
CREATE TABLE tags (name INTEGER, run INTEGER, text TEXT NOT NULL, PRIMARY KEY (name, run)) WITHOUT ROWID;
-- SQLite has no NaN: `last` is NULL where it is NaN; `mean` is where it is NaN, or every value is (`min` tells)
CREATE TABLE metrics (name INTEGER, run INTEGER, count INTEGER NOT NULL, nan_count INTEGER NOT NULL,
    first_step INTEGER NOT NULL, last_step INTEGER NOT NULL, last REAL, min REAL, max REAL, mean REAL,
    PRIMARY KEY (name, run)) WITHOUT ROWID;
-- values at a step that were asked for: read from the files once. is_there 0: the run has no point there
CREATE TABLE points (name INTEGER, step INTEGER, run INTEGER, is_there INTEGER NOT NULL, value REAL,
    PRIMARY KEY (name, step, run)) WITHOUT ROWID;
CREATE INDEX points_of_run ON points (run);

CREATE TABLE links (run INTEGER, number INTEGER, direction TEXT, kind TEXT, name TEXT, version TEXT, hash TEXT,
    role TEXT, source TEXT, PRIMARY KEY (run, number)) WITHOUT ROWID;
CREATE TABLE artifacts (run INTEGER, name TEXT, is_folder INTEGER, files INTEGER, size_bytes INTEGER, logged_at REAL,
    PRIMARY KEY (run, name)) WITHOUT ROWID;
CREATE TABLE attempts (run INTEGER, number INTEGER, status TEXT, started_at REAL, ended_at REAL, host TEXT, pid INTEGER,
    PRIMARY KEY (run, number)) WITHOUT ROWID;

-- snapshots of the environment in sections, each kept once, however many runs have it
CREATE TABLE sections (key INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE);
CREATE TABLE environment (section INTEGER, name INTEGER, kind TEXT NOT NULL, number, text TEXT,
    PRIMARY KEY (section, name)) WITHOUT ROWID;
CREATE INDEX environment_by_name ON environment (name);
CREATE TABLE snapshots (run INTEGER, section INTEGER, PRIMARY KEY (run, section)) WITHOUT ROWID;
CREATE INDEX snapshots_by_section ON snapshots (section, run);

-- how many runs have a name with a value of this kind
CREATE TABLE tallies (name INTEGER, kind TEXT, runs INTEGER NOT NULL, PRIMARY KEY (name, kind)) WITHOUT ROWID;
-- how far the points of a living run were read
CREATE TABLE progress (run INTEGER PRIMARY KEY, state BLOB NOT NULL);
-- folders that hold no run (yet)
CREATE TABLE unread (folder TEXT PRIMARY KEY, trouble TEXT NOT NULL) WITHOUT ROWID;
-- runs that are gone
CREATE TABLE removed (key INTEGER PRIMARY KEY, id TEXT NOT NULL, revision INTEGER NOT NULL);
CREATE INDEX removed_by_revision ON removed (revision);
"""
OF_RUN = ("records", "links", "artifacts", "attempts", "snapshots", "progress", "points")
"""Tables whose rows of a run are found by its key."""


def statements() -> list[str]:
    """Return the statements that make the tables."""
    return [statement for statement in TABLES.split(";\n") if statement.strip()]


@cache
def columns() -> dict[str, set[str]]:
    """Return the columns of each table, as SQLite understands `TABLES`."""
    connection = sqlite3.connect(":memory:")
    try:
        connection.executescript(TABLES)
        tables = [
            row[0]
            for row in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT GLOB 'sqlite_*'"
            )
        ]
        return {table: set(columns_of(connection, table)) for table in tables}
    finally:
        connection.close()


def columns_of(connection: sqlite3.Connection, table: str) -> list[str]:
    """Return the columns of a table as it is."""
    return [row[0] for row in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))]
