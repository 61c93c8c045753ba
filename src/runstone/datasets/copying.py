"""Versions of one dataset in another: the way out where two workspaces went on with the same name, each for itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runstone.datasets.history import DatasetState, Recorded
from runstone.datasets.registry import Dataset, Datasets
from runstone.datasets.version import DatasetVersion


@dataclass(frozen=True, slots=True)
class Copied:
    """A version and what it is in the other dataset; `is_new` where that did not have its content."""

    before: Recorded
    now: DatasetVersion
    is_new: bool


def copy_versions(state: DatasetState, versions: Sequence[Recorded], target: Dataset) -> list[Copied]:
    """Add versions to another dataset, in their order; content that is there already is that version.

    Where each came from stands in its source: dataset, number, author, time. Aliases follow where the other dataset has
    none of that name, and what was revoked is revoked there, too.

    Args:
        state: The dataset that they are of.
        versions: Which of it. Their manifests are in the store.
        target: The other dataset.
    """
    known = set(target.state().by_manifest)
    found = []
    for one in versions:
        came_from = {"dataset": one.dataset, "version": one.version, "author": one.author, "added_at": one.added_at}
        now = target.register(
            one.manifest,
            about=one.about,
            is_stored=one.is_stored,
            file_count=one.file_count,
            size_bytes=one.size_bytes,
            source={**one.source, "copied": came_from},
            dvc=one.dvc,
            git=one.git,
            tags=one.tags,
            notes=one.notes,
        )
        if one.revoked is not None and now.revoked is None:
            now = target.revoke(now.version, reason=one.revoked.reason)
        found.append(Copied(one, now, one.manifest not in known))
    numbers = {one.before.version: one.now.version for one in found}
    for alias, number in state.aliases.items():
        if number in numbers and alias not in target.state().aliases:
            target.set_alias(alias, numbers[number])
    return found


def copy_dataset(datasets: Datasets, name: str, target: str, *, selector: str | None = None) -> list[Copied]:
    """Add all versions of a dataset, or one, to another of this workspace; that is made where it is not there.

    Raises:
        DatasetNotFound: there is no such dataset or version.
        InvalidName: the other name cannot be kept.
    """
    state = datasets.get(name).state()
    versions = [state.find(selector)] if selector is not None else list(state.versions.values())
    return copy_versions(state, versions, datasets.create(target, is_there_ok=True))
