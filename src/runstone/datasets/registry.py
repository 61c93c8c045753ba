"""The datasets of a workspace: names, versions, aliases, tags. Every change is one event of a ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from runstone.blobs import Blobs, open_blobs
from runstone.catalog import Catalog, Entry, IsThere, check_tags, check_text
from runstone.datasets.history import DatasetNotFound, DatasetState, Recorded, Revocation
from runstone.datasets.refs import LATEST, DatasetRef, check_alias, check_dataset_name
from runstone.datasets.version import DatasetVersion
from runstone.errors import InvalidValue
from runstone.ledger import Ledger


class Dataset(Entry[DatasetState]):
    """One dataset. Cheap to make; reads its history when it is asked something.

    Args:
        ledger: Its events.
        blobs: The store of its workspace.
        run_id: The run on whose behalf changes are made, if one does.
    """

    def __init__(self, ledger: Ledger, blobs: Blobs, *, run_id: str | None = None) -> None:
        super().__init__(ledger, DatasetState(), run_id=run_id)
        self._blobs = blobs

    def versions(self) -> list[DatasetVersion]:
        """Return all versions, the newest first."""
        return [self._handle(one) for one in sorted(self.state().versions.values(), key=lambda one: -one.version)]

    def find(self, selector: str | int = LATEST, *, as_of: float | None = None) -> DatasetVersion:
        """Return the version that a number, an alias, `latest` or the beginning of its hash means.

        Raises:
            DatasetNotFound: there is none.
        """
        return self._handle(self.state(as_of).find(str(selector)))

    def find_content(self, manifest: str, *, path: Path | None = None) -> DatasetVersion | None:
        """Return the version with a content, by the hash of its manifest."""
        state = self.state()
        number = state.by_manifest.get(manifest)
        return self._handle(state.versions[number], path=path) if number is not None else None

    def stored_files(self) -> set[tuple[str, str]]:
        """Return `(path, hash)` of all files of all versions that are stored: what can be had again."""
        known = set()
        for version in self.versions():
            if version.is_stored:
                known |= {(file.path, str(file.hash)) for file in version.manifest.contents}
        return known

    # --- versions --------------------------------------------------------------------------------------------------

    def register(
        self,
        manifest: str,
        *,
        about: str | None = None,
        is_stored: bool,
        file_count: int,
        size_bytes: int,
        source: Mapping[str, Any] | None = None,
        dvc: Mapping[str, Any] | None = None,
        git: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        notes: str | None = None,
        path: Path | None = None,
    ) -> DatasetVersion:
        """Add a version, or return the one that has this content; that is marked as stored where it is only now.

        Args:
            manifest: Hash of the blob that lists its files.
            about: Hash of the blob with the profiles of its tables.
            is_stored: Whether all its content is in the store.
            file_count, size_bytes: Of its files.
            source, dvc, git: Where it came from; see `Recorded`.
            tags, notes: As for `set_tags` and `set_notes`.
            path: Where its data lies right now.
        """
        checked = check_tags(tags or {})
        checked_notes = None if notes is None else check_text(notes, "notes")

        def said(state: DatasetState) -> dict[str, Any]:
            if manifest in state.by_manifest:
                raise IsThere
            return {
                "version": max(state.versions, default=0) + 1,
                "manifest": manifest,
                "about": about,
                "stored": is_stored,
                "files": file_count,
                "size": size_bytes,
                "source": dict(source or {}),
                "dvc": dict(dvc) if dvc is not None else None,
                "git": dict(git) if git is not None else None,
                "tags": checked,
                "notes": checked_notes,
            }

        try:
            event = self._append("added", said)
        except IsThere:
            return self._again(manifest, about, is_stored, source, path)
        return self._handle(self.state().versions[event.fields["version"]], path=path)

    def _again(
        self, manifest: str, about: str | None, is_stored: bool, source: Mapping[str, Any] | None, path: Path | None
    ) -> DatasetVersion:
        """Note what is new of a content that is there."""
        state = self.state()
        found = state.versions[state.by_manifest[manifest]]
        number = {"version": found.version}

        def only_if(is_new: Callable[[Recorded], bool], **fields: Any) -> Callable[[DatasetState], dict[str, Any]]:
            def said(state: DatasetState) -> dict[str, Any]:
                if not is_new(state.versions[found.version]):
                    raise IsThere
                return number | fields

            return said

        changes = [
            ("stored", is_stored, only_if(lambda one: not one.is_stored, about=about)),
            ("profiled", about is not None, only_if(lambda one: one.about != about, about=about)),
            ("moved", _is_moved(found, source), only_if(lambda one: one.source != source, source=dict(source or {}))),
        ]
        for kind, is_asked, said in changes:
            if is_asked:
                try:
                    self._append(kind, said)
                except IsThere:
                    continue
        return self._handle(self.state().versions[found.version], path=path)

    def revoke(self, version: str | int, *, reason: str | None) -> DatasetVersion:
        """Say that a version must not be used any more, and why; `None` takes that back.

        Raises:
            DatasetNotFound: there is no such version.
            InvalidValue: the reason is empty.
        """
        if reason is not None and not reason.strip():
            raise InvalidValue("say why the version must not be used any more; the reason is empty")

        def said(state: DatasetState) -> dict[str, Any]:
            found = state.find(str(version))
            return {"version": found.version, "reason": None if reason is None else check_text(reason, "reason")}

        event = self._append("revoked", said)
        return self._handle(self.state().versions[event.fields["version"]])

    # --- words -----------------------------------------------------------------------------------------------------

    def set_alias(self, alias: str, version: str | int) -> DatasetVersion:
        """Let an alias point to a version, wherever it pointed before.

        Raises:
            InvalidName: the alias could be taken for a version.
            DatasetNotFound: there is no such version.
        """
        check_alias(alias)

        def said(state: DatasetState) -> dict[str, Any]:
            return {"alias": alias, "version": state.find(str(version)).version, "before": state.aliases.get(alias)}

        self._append("aliased", said)
        return self.find(alias)

    def _handle(self, recorded: Recorded, *, path: Path | None = None) -> DatasetVersion:
        return DatasetVersion(recorded, self._blobs, path=path)


class Datasets(Catalog[Dataset]):
    """The datasets of one workspace.

    Args:
        workspace: Its folder.
        blobs: Its store; default: the one that its settings name.
        run_id: The run on whose behalf changes are made, if one does.
    """

    what = "dataset"
    missing = DatasetNotFound
    makers = "`runstone data add`"

    def __init__(self, workspace: Path, *, blobs: Blobs | None = None, run_id: str | None = None) -> None:
        super().__init__(workspace / "datasets", run_id=run_id)
        self.workspace = workspace
        self.blobs = blobs if blobs is not None else open_blobs(workspace)

    def create(self, name: str, *, notes: str | None = None, is_there_ok: bool = False) -> Dataset:
        """Make a dataset without a version.

        Args:
            name: Any text without `@`.
            notes: Annotation, Markdown.
            is_there_ok: Return the dataset of this name where there is one.

        Raises:
            InvalidName: the name cannot be kept.
            AlreadyExists: there is one.
        """
        fields = {"name": check_dataset_name(name), "notes": notes}
        return self._create(fields, is_there_ok=is_there_ok)[0]

    def find(self, ref: str | DatasetRef) -> DatasetVersion:
        """Return the version that a reference means, such as `cifar@3`.

        Raises:
            DatasetNotFound: there is none.
            InvalidName: the reference does not parse.
        """
        ref = DatasetRef.parse(ref) if isinstance(ref, str) else ref
        return self.get(ref.name).find(ref.selector)

    def add(self, data: Any, *, name: str | None = None, **options: Any) -> DatasetVersion:
        """Add data as a version; see `runstone.datasets.add`."""
        from runstone.datasets.adding import add  # it needs this module

        return add(self, data, name=name, **options)

    def revoked(self) -> list[Revocation]:
        """Return all versions that must not be used any more."""
        states = [dataset.state() for dataset in self]
        return [one.revoked for state in states for one in state.versions.values() if one.revoked is not None]

    def _entry(self, ledger: Ledger) -> Dataset:
        return Dataset(ledger, self.blobs, run_id=self._run_id)


def _is_moved(found: Recorded, source: Mapping[str, Any] | None) -> bool:
    """Return whether the data of a version that is not stored is to be found elsewhere now."""
    before, now = found.source.get("path"), (source or {}).get("path")
    return not found.is_stored and now is not None and before != now and (before is None or not Path(before).exists())
