"""Removing deleted runs for good: which may go, what that frees, and what of the store nobody refers to then."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runstone.blobs import Blobs, open_blobs
from runstone.blobs import recipe as recipes
from runstone.editing.editor import choose
from runstone.errors import FormatError, NotFound
from runstone.gc import find_holders
from runstone.gc.purge import purge, purgeable, size_of
from runstone.runlog.changes import announce
from runstone.runlog.reader import JournalState, read_journal

if TYPE_CHECKING:
    from runstone.workspace import Workspace


@dataclass(frozen=True, slots=True)
class PurgedRun:
    """A run that is gone, or would be, and how many bytes its folder had."""

    run_id: str
    name: str
    project: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class RefusedRun:
    """A run that stays, and why."""

    run_id: str
    name: str
    project: str
    reason: str


@dataclass(frozen=True, slots=True)
class Purge:
    """What was removed for good, or would be.

    Attributes:
        gone, refused: The runs.
        content_bytes: Of files of the store that only the runs that go referred to: `runstone gc` frees them.
        troubles: What could not be read; where there is any, `content_bytes` is 0, since nobody knows.
        is_dry: Whether nothing was removed.
    """

    gone: tuple[PurgedRun, ...]
    refused: tuple[RefusedRun, ...]
    content_bytes: int
    troubles: tuple[str, ...] = ()
    is_dry: bool = False

    @property
    def freed_bytes(self) -> int:
        """Of the folders of the runs."""
        return sum(run.size_bytes for run in self.gone)


def purge_runs(workspace: Workspace, runs_or_filter: str | Sequence[str], *, dry_run: bool = False) -> Purge:
    """Remove deleted runs for good.

    A run stays, with the reason, where it is not deleted, something writes to it, or a registered version of a model or
    a version of a dataset was made by it.

    Args:
        workspace: Where they are.
        runs_or_filter: Ids, or a filter over the deleted runs.
        dry_run: Remove nothing, and say what would go.

    Raises:
        RunNotFound, InvalidFilter, InvalidValue: as `choose` does; nothing was removed.
        LedgerDamaged: the history of a model or a dataset was changed, so what needs a run is not known.
        OSError: a folder cannot be moved or removed; the runs before it are gone.
    """
    needed = _needed(workspace)
    going: list[tuple[Path, JournalState]] = []
    refused = []
    for folder in choose(workspace, runs_or_filter, deleted=True):
        run = read_journal(folder)
        reason = needed.get(run.run_id) or _made_data(workspace, run) or _why_not(folder, run)
        if reason:
            refused.append(RefusedRun(run.run_id, run.name or run.run_id, run.project, reason))
        else:
            going.append((folder, run))
    content_bytes, troubles = _only_theirs(workspace.path, {folder.name for folder, _run in going})
    gone = []
    for folder, run in going:
        size = size_of(folder) if dry_run else purge(workspace.path, folder, before=math.inf)
        told = run.run_id, run.name or run.run_id, run.project
        if not dry_run:
            announce(folder)
        if size is None:  # restored, or gone on, while it was moved
            refused.append(RefusedRun(*told, "it was restored or is written again"))
        else:
            gone.append(PurgedRun(*told, size))
    return Purge(tuple(gone), tuple(refused), content_bytes if gone else 0, tuple(troubles), dry_run)


def _why_not(folder: Path, run: JournalState) -> str:
    if any(writer.is_alive for writer in run.writers):
        return "something still writes to it"
    if not run.is_deleted:
        return "it is not deleted; delete it first"
    return "" if purgeable(folder, before=math.inf) else "it was restored meanwhile"


def _needed(workspace: Workspace) -> dict[str, str]:
    """Return why runs are needed, by id: versions of models that can still be used were made by them."""
    found: dict[str, list[str]] = {}
    for model in workspace.models:
        for version in model.versions():
            run_id = version.run_id or _run_in(workspace.blobs, version.manifest)
            if run_id is not None and version.withdrawn is None:
                found.setdefault(run_id, []).append(f"model {version}")
    return {run_id: f"{_listed(names)} was registered from it" for run_id, names in found.items()}


def _run_in(blobs: Blobs, manifest: str) -> str | None:
    """Return the run that the manifest of a model's version names; `None` where it names none, or is not here."""
    try:
        return str(json.loads(blobs.read(manifest))["run"]["id"])
    except (NotFound, FormatError, OSError, ValueError, TypeError, KeyError):
        return None


def _made_data(workspace: Workspace, run: JournalState) -> str:
    """Return why a run is needed that made versions of data; nothing where it made none."""
    # Who enters a version into the history of a dataset need not have made it; what a run made, it says itself.
    made = [link for link in run.outputs.values() if link.kind == "dataset" and link.version is not None]
    there = []
    for link in made:
        with contextlib.suppress(NotFound):
            if workspace.datasets.get(link.name).find(str(link.version)).recorded.revoked is None:
                there.append(f"dataset {link.name}@{link.version}")
    return f"{_listed(there)} was made by it" if there else ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _only_theirs(workspace: Path, run_ids: set[str]) -> tuple[int, list[str]]:
    """Return the bytes of files of the store that only these runs refer to."""
    if not run_ids:
        return 0, []
    blobs = open_blobs(workspace)
    troubles: list[str] = []
    holders = find_holders(workspace, blobs, troubles)
    theirs: set[str] = set()
    others: set[str] = set()
    for holder in holders:
        (theirs if holder.kind == "run" and holder.id in run_ids else others).update(holder.hashes)
    if troubles:
        return 0, troubles
    try:
        files = set(_files_of(blobs, theirs))
        files.difference_update(_files_of(blobs, others))
    except (FormatError, OSError) as error:
        return 0, [str(error)]
    return sum(blobs.object_path(name).stat().st_size for name in files), []


def _files_of(blobs: Blobs, hashes: Iterable[str]) -> Iterator[str]:
    """Yield the files of the store that hold these contents, as far as they are here."""
    for content in hashes:
        if blobs.object_path(content).is_file():
            yield content
        recipe = blobs.find_recipe(content)
        if recipe is not None:
            yield content + recipes.ENDING
            yield from (part for part in recipe.hashes if blobs.object_path(part).is_file())
