"""Choosing runs, and writing what changes of them into journals of their own: the run's own files stay as they are."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runstone.editing.changes import KEEP, Change, Edited, Edits
from runstone.errors import InvalidValue, RunNotFound
from runstone.names import shown
from runstone.runlog.reader import read_events, read_journal
from runstone.runlog.writer import RunLog

if TYPE_CHECKING:
    from runstone.workspace import Workspace


def choose(workspace: Workspace, runs_or_filter: str | Sequence[str], *, deleted: bool = False) -> list[Path]:
    """Return the folders of runs, each once, in the order given or found.

    Args:
        workspace: Where they are.
        runs_or_filter: Ids, or a filter, which finds archived runs too.
        deleted: Whether a filter looks among the deleted runs instead of the others.

    Raises:
        RunNotFound: no run has one of these ids. Nothing is chosen then.
        InvalidFilter: the filter does not parse.
        InvalidValue: it is neither.
    """
    if isinstance(runs_or_filter, str):
        found = workspace.runs(runs_or_filter, deleted=deleted, archived=None)
        return [workspace.path / "runs" / record.folder for record in found.records]
    if not isinstance(runs_or_filter, Sequence) or not all(isinstance(one, str) for one in runs_or_filter):
        raise InvalidValue(f"runs are chosen by a filter or by a list of ids, got {shown(runs_or_filter)}")
    return [_folder_of(workspace, run_id) for run_id in dict.fromkeys(runs_or_filter)]


def edit(workspace: Workspace, runs_or_filter: str | Sequence[str], edits: Edits, *, dry_run: bool = False) -> Edited:
    """Change runs, living ones too; what is as it should be is not written again.

    Args:
        workspace: Where they are.
        runs_or_filter: Ids, or a filter. To restore, it looks among the deleted runs.
        edits: What is to be changed.
        dry_run: Write nothing, and say what would change.

    Raises:
        RunNotFound, InvalidFilter, InvalidValue: as `choose` does; nothing was changed.
        OSError: a run's folder takes no files; the runs before it were changed.
    """
    folders = choose(workspace, runs_or_filter, deleted=edits.deleted is not KEEP and not edits.deleted)
    run_ids: list[str] = []
    changes: list[Change] = []
    for folder in folders:
        run = read_journal(folder)
        if not run.writers:
            continue  # it went meanwhile
        run_ids.append(run.run_id)
        planned = list(edits.of(run))
        if planned and not dry_run:
            write_events(folder, [event for _change, event in planned])
        changes += [change for change, _event in planned]
    return Edited(tuple(run_ids), tuple(changes), dry_run)


def write_events(folder: Path, events: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """Append events to a run, by a writer of its own that comes after all that stand there.

    Raises:
        OSError: the folder takes no files.
    """
    # Events are ordered by time: an edit comes after what it edits, also where that was written by another clock.
    latest = max((event["at"] for _writer, event in read_events(folder)), default=0.0)
    log = RunLog(folder, role="edit", clock=lambda: max(time.time(), math.nextafter(latest, math.inf)))
    try:
        for name, fields in events:
            log.write(name, **fields)
    finally:
        log.close()


def _folder_of(workspace: Workspace, run_id: str) -> Path:
    folder = workspace.find_run_folder(run_id)
    if folder is None:
        raise RunNotFound(f"no run has the id {run_id!r} in {workspace.path}; `runstone runs list` shows what is there")
    return folder
