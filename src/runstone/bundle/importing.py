"""A bundle into a workspace: checked first, then its content, then its runs, each whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from runstone.bundle.archive import check_space
from runstone.bundle.joining import relate, take_over
from runstone.bundle.manifest import BundledRun
from runstone.bundle.reading import Bundle
from runstone.editing.editor import write_events
from runstone.errors import FormatError
from runstone.importers.importing import only_import
from runstone.names import folder_name, new_run_id
from runstone.runlog import format as fmt
from runstone.runlog.changes import announce
from runstone.runlog.copying import sync_tree
from runstone.runlog.reader import journal_files, read_journal
from runstone.runlog.sealed import sync_folder

if TYPE_CHECKING:
    from runstone.workspace import Workspace

Outcome = Literal["new", "grown", "unchanged", "different"]


@dataclass(frozen=True, slots=True)
class ImportedRun:
    """What came of one run of a bundle.

    Attributes:
        run_id, name, project: Of the run here.
        outcome: `new`: it was made. `grown`: what the bundle had more was taken. `unchanged`: there was nothing to
            take. `different`: another run of this id is here, or it cannot be taken; nothing was done.
        original_id: Its id in the bundle.
        reason: Why it was not taken; else empty.
        size_bytes: Of its files in the bundle.
        is_deleted: Whether it was deleted here.
    """

    run_id: str
    name: str
    project: str
    outcome: Outcome
    original_id: str
    reason: str = ""
    size_bytes: int = 0
    is_deleted: bool = False


@dataclass(frozen=True, slots=True)
class ImportedBundle:
    """What came of a bundle.

    Attributes:
        runs: Each run.
        contents, contents_new: How many contents it holds, and how many were not here.
        content_bytes: Of those that were not.
        missing: Contents that its runs refer to, but that it lacks and that are not here either.
    """

    runs: tuple[ImportedRun, ...]
    contents: int = 0
    contents_new: int = 0
    content_bytes: int = 0
    missing: tuple[str, ...] = ()


def import_bundle(workspace: Workspace, file: Path, *, as_new: bool = False, dry_run: bool = False) -> ImportedBundle:
    """Take the runs of a bundle into a workspace.

    A run that is here already takes what the bundle has more, writer by writer; one that says something else is
    refused, and the others are taken. Doing it again changes nothing.

    Args:
        workspace: Where to.
        file: The bundle.
        as_new: Whether every run gets a new id, so that it stands beside what is here.
        dry_run: Change nothing, and say what would come of it.

    Raises:
        FormatError: it is no bundle, damaged, of a newer version, or could do harm; nothing was taken.
        AlreadyExists: another import into the workspace is running.
        OSError: the disk is full; what was taken is whole.
    """
    with Bundle(file) as bundle, _scratch(workspace) as scratch:
        check_space(scratch, bundle.size_bytes)
        bundle.verify()  # all of it, before anything of it is here
        planned = [_plan(workspace, bundle, run, scratch, as_new=as_new) for run in bundle.manifest.runs]
        blobs = workspace.blobs
        new = count = 0
        wanted = bundle.manifest.contents if any(one.is_wanted for one in planned) else ()
        for content in wanted:
            if content.hash in blobs if dry_run else blobs.keep(content.hash):
                continue
            new, count = new + content.size_bytes, count + 1
            if dry_run:
                continue
            place = scratch / content.hash
            bundle.extract_content(content, place)
            entry = blobs.put(place, content.hash)
            place.unlink()
            if entry.hash != content.hash:
                raise FormatError(f"{file}: the content {content.hash[:16]}… changed while it was stored")
        runs = tuple(one.result if dry_run else one.do() for one in planned)
        missing = tuple(content for content in bundle.manifest.missing if content not in blobs)
        return ImportedBundle(runs, len(bundle.manifest.contents), count, new, missing)


class _Planned:
    """A run that was taken out of a bundle, and what is to be done with it."""

    def __init__(self, workspace: Workspace, staged: Path, target: Path, result: ImportedRun) -> None:
        self._workspace = workspace
        self._staged = staged
        self._target = target
        self.result = result

    @property
    def is_wanted(self) -> bool:
        """Whether anything of it is taken, or is here."""
        return self.result.outcome != "different"

    def do(self) -> ImportedRun:
        """Take it."""
        if self.result.outcome == "new":
            sync_tree(self._staged)
            self._target.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._staged.rename(self._target)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                return self._refused("it came from elsewhere meanwhile; import it again")
            sync_folder(self._target.parent)
            announce(self._target)
        elif self.result.outcome == "grown":
            sync_tree(self._staged)
            relation = relate(self._target, self._staged)
            if relation.conflict or not take_over(self._target, self._staged, relation):
                return self._refused(relation.conflict or "it is being sealed; import it again")
            announce(self._target)
        return self.result

    def _refused(self, reason: str) -> ImportedRun:
        made = self.result
        return ImportedRun(made.run_id, made.name, made.project, "different", made.original_id, reason, made.size_bytes)


def _plan(workspace: Workspace, bundle: Bundle, run: BundledRun, scratch: Path, *, as_new: bool) -> _Planned:
    staged = scratch / run.run_id
    bundle.extract_run(run, staged)
    journal = read_journal(staged)
    size = sum(file.size_bytes for file in run.files)
    run_id, outcome, reason, is_deleted = run.run_id, "new", "", False
    if as_new:
        run_id = new_run_id()
        _rename(staged, run.run_id, run_id)
    target = workspace.path / "runs" / folder_name(run.project) / run_id
    standing = None if as_new else workspace.find_run_folder(run_id)
    if standing is not None:
        outcome, reason = _relation(standing, target, staged)
        is_deleted = read_journal(standing).is_deleted
    told: Outcome = outcome  # type: ignore[assignment]
    result = ImportedRun(run_id, journal.name or run_id, run.project, told, run.run_id, reason, size, is_deleted)
    return _Planned(workspace, staged, target, result)


def _relation(standing: Path, target: Path, staged: Path) -> tuple[Outcome, str]:
    if standing != target:
        return "different", f"a run of this id is in another project here: {standing.parent.name}"
    relation = relate(standing, staged)
    if relation.conflict:
        return "different", relation.conflict
    if not relation.files and not relation.outdated:
        return "unchanged", ""
    alive = {writer.writer for writer in read_journal(standing).writers if writer.is_alive}
    if alive & relation.ahead:
        return "different", "something still writes to it here"
    return "grown", ""


def _rename(staged: Path, old: str, new: str) -> None:
    """Give a run that was taken out of a bundle another id, and say where it came from."""
    for path in journal_files(staged):
        lines = []
        for line in path.read_bytes().splitlines(keepends=True):
            for event in fmt.decode_events(line):
                if event["event"] == "created" and "run_id" in event:
                    line = fmt.encode_event({**event, "run_id": new})
            lines.append(line)
        path.write_bytes(b"".join(lines))
    write_events(staged, [("imported", {"kind": "bundle", "source": old})])


@contextlib.contextmanager
def _scratch(workspace: Workspace) -> Iterator[Path]:
    """Hold the lock on importing, and give a folder for what is not whole yet."""
    with only_import(workspace) as folder:
        scratch = folder / f"{os.urandom(16).hex()}.partial"
        scratch.mkdir()
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
