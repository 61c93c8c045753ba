"""Finding runs: by a filter, by a reference. Knows the filter language; every SQL statement is the index's.

Importing this loads no SQL: the index is opened when a question is asked.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runstone.errors import AmbiguousName, InvalidName, RunNotFound
from runstone.names import check_run_id
from runstone.query.completion import Completion
from runstone.query.fields import FieldInfo
from runstone.query.pages import Changes, OpenIndex, RunGroup, RunPage
from runstone.query.parser import parse_field, parse_filter, parse_order
from runstone.query.sql import SqlTable, select
from runstone.query.table import RunTable

if TYPE_CHECKING:
    from runstone.index.store import Candidate

__all__ = [
    "Changes",
    "Completion",
    "FieldInfo",
    "OpenIndex",
    "RunGroup",
    "RunPage",
    "RunTable",
    "SqlTable",
    "changes",
    "complete",
    "fields",
    "find_runs",
    "page_of_runs",
    "parse_field",
    "parse_filter",
    "parse_order",
    "resolve_run",
    "select",
]

_SHOWN = 6


def find_runs(
    workspace_path: Path,
    filter: str = "",
    *,
    order_by: str | None = None,
    limit: int | None = None,
    deleted: bool = False,
    archived: bool | None = False,
) -> RunTable:
    """Return the runs that a filter describes, as they are on disk now.

    Args:
        workspace_path: Folder of the workspace.
        filter: Such as `"metrics.val/acc.max > 0.9 and params.model = 'mlp'"`; empty for every run. The
            language is described in `docs/filters.md`.
        order_by: Such as `"metrics.loss.min, started_at desc"`; default: newest first. Runs without a value
            come last.
        limit: At most this many, from 0.
        deleted: The deleted runs, instead of the others.
        archived: The archived runs, instead of the others; `None`: both. A filter that names `archived` decides itself.

    Raises:
        InvalidFilter: `filter` or `order_by` does not parse; the message points at the place.
        InvalidValue: `limit` is not a number from 0.
    """
    with OpenIndex(workspace_path) as index:
        return index.find_runs(filter, order_by=order_by, limit=limit, deleted=deleted, archived=archived)


def page_of_runs(workspace_path: Path, filter: str = "", **options: Any) -> RunPage:
    """Return a window of the runs that a filter describes, column by column, as `OpenIndex.page_of_runs` does."""
    with OpenIndex(workspace_path) as index:
        return index.page_of_runs(filter, **options)


def changes(workspace_path: Path, cursor: str = "") -> Changes:
    """Return which runs changed since a cursor, as `OpenIndex.changes` does."""
    with OpenIndex(workspace_path) as index:
        return index.changes(cursor)


def fields(workspace_path: Path, filter: str = "") -> list[FieldInfo]:
    """Return the fields that runs have, as `OpenIndex.fields` does."""
    with OpenIndex(workspace_path) as index:
        return index.fields(filter)


def complete(workspace_path: Path, text: str, at: int) -> Sequence[Completion]:
    """Return what may be written at a place of a filter, as `OpenIndex.complete` does."""
    with OpenIndex(workspace_path) as index:
        return index.complete(text, at)


def resolve_run(workspace_path: Path, reference: str) -> Path:
    """Return the folder of the run that `reference` means.

    A full id is looked up on disk, without the index. Else `reference` may be the beginning or the end of one
    id (at least 4 characters), or the name of one run. Deleted runs are found where no other fits.

    Raises:
        RunNotFound: no run fits; the message names the nearest.
        AmbiguousName: several fit; the message lists them, newest first.
    """
    if not isinstance(reference, str) or not reference.strip():
        raise RunNotFound(f"a run is named by its id or its name, got {reference!r:.80}")
    folder = _folder_of(workspace_path, reference)
    if folder is not None:
        return folder
    from runstone.index.opening import open_index  # loads SQLite

    with open_index(workspace_path) as index:
        fitting = index.candidates(reference)
        standing = [candidate for candidate in fitting if not candidate.is_deleted] or fitting
        if len(standing) == 1:
            return workspace_path / "runs" / standing[0].folder
        if standing:
            raise AmbiguousName(_several(reference, standing))
        raise RunNotFound(_none(reference, index.recent()))


def _folder_of(workspace_path: Path, run_id: str) -> Path | None:
    """Return the folder of a full id."""
    try:
        check_run_id(run_id)
    except InvalidName:
        return None
    runs = workspace_path / "runs"
    try:
        projects = os.listdir(runs)  # noqa: PTH208 (names are all that is needed)
    except OSError:
        return None
    for project in sorted(projects):
        folder = runs / project / run_id
        if folder.is_dir():
            return folder
    return None


def _several(reference: str, candidates: list[Candidate]) -> str:
    lines = [
        f"  {run.id}  {_plain(run.name)} of {_plain(run.project)}, started {_when(run.started_at)}"
        for run in candidates[:_SHOWN]
    ]
    if len(candidates) > _SHOWN:
        lines.append(f"  … and {len(candidates) - _SHOWN} more")
    return "\n".join([f"{reference!r:.80} fits {len(candidates)} runs; use the id of one:", *lines])


def _none(reference: str, recent: list[Candidate]) -> str:
    if not recent:
        return f"no run {reference!r:.80}: the workspace has no runs"
    names = list(dict.fromkeys(candidate.name for candidate in recent))
    near = difflib.get_close_matches(reference[:200], names, n=3, cutoff=0.6)
    if not near and len(reference) < 4:
        return f"no run is named {reference!r}; of an id, give at least 4 characters"
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "`runstone runs list` shows them all"
    return f"no run has the id or name {reference!r:.80}; {hint}"


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else "·" for c in text[:60])


def _when(epoch_s: float) -> str:
    return f"{datetime.fromtimestamp(epoch_s, UTC):%Y-%m-%d %H:%M} UTC"
