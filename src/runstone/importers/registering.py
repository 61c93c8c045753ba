"""Registered models of another tool become models here: version 3 is 3.0.0, with the same files, aliases and words."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from runstone.errors import AlreadyExists, InvalidName, InvalidValue
from runstone.importers.items import FoundModel, FoundVersion
from runstone.importers.writing import SOURCE_TAG, run_id_of, store_files
from runstone.models import Models
from runstone.models.manifest import Manifest
from runstone.models.registry import Model
from runstone.names import check_name
from runstone.workspace import Workspace


@dataclass(slots=True)
class ImportedModel:
    """What came of one registered model; counts are of versions, `held` as read back."""

    name: str
    outcome: Literal["new", "grown", "unchanged"] = "unchanged"
    found: int = 0
    added: int = 0
    held: int = 0
    aliases_found: int = 0
    aliases_held: int = 0
    not_carried: dict[str, int] = field(default_factory=dict)


def import_model(workspace: Workspace, tool: str, found: FoundModel, *, is_dry: bool = False) -> ImportedModel:
    """Make a model of what was found, or add the versions, aliases and words that it lacks. No hook is told.

    Raises:
        OSError: the disk refuses.
    """
    result = ImportedModel(found.name, found=len(found.versions), aliases_found=len(found.aliases))
    models = Models(workspace.path / "models")
    try:
        check_name(found.name, "model")
        if is_dry:
            result.outcome = "grown" if found.name in models else "new"
            return result
        result.outcome = "unchanged" if found.name in models else "new"
        model = models.create(found.name, notes=found.notes, is_there_ok=True)
    except InvalidName:
        result.not_carried["version of a model without a legal name"] = len(found.versions)
        return result
    before = len(model.history())
    _set_missing_tags(model, {SOURCE_TAG: tool, **found.tags}, model.state().tags, None)
    for version in found.versions:
        _import_version(workspace, tool, found, version, result)
    _set_aliases(model, tool, found, result)
    state = models.get(found.name).state()
    numbers = {_number_of(version.tags, tool) for version in state.versions.values()}
    result.held = sum(str(version.number) in numbers for version in found.versions)
    result.aliases_held = sum(alias in state.aliases for alias in found.aliases)
    if result.outcome == "unchanged" and len(model.history()) > before:
        result.outcome = "grown"
    return result


def _import_version(
    workspace: Workspace, tool: str, found: FoundModel, version: FoundVersion, result: ImportedModel
) -> None:
    run_id = run_id_of(tool, version.run) if version.run else None
    if run_id is not None and workspace.find_run_folder(run_id) is None:
        run_id = None
    model = Models(workspace.path / "models", run_id=run_id).get(found.name)
    name = f"{version.number}.0.0"
    tags = {f"{tool}.version": str(version.number), **version.tags}
    standing = model.state().versions.get(name)
    if standing is not None:
        if _number_of(standing.tags, tool) != str(version.number):
            _count(result, "version of a model whose number another one has here")
        return
    if version.missing is not None:
        _count(result, f"files of a model version ({version.missing})")
    blobs = workspace.blobs
    left: Counter[str] = Counter()
    files = tuple(store_files(blobs, version.files, left))
    for kind, count in left.items():
        _count(result, kind, count)
    loading = {"file": files[0].path} if len(files) == 1 else {}
    run = {"id": run_id} if run_id else None
    manifest = Manifest("files", files, loading, run=run, metadata={SOURCE_TAG: tool, "key": found.key})
    content = blobs.put_bytes(manifest.to_bytes(), "manifest.json")
    blobs.sync()  # the event promises the content
    try:
        made = model.register(content.hash, version=name, tags=_legal(tags), notes=version.notes)
        result.added += 1
        if version.stage and version.stage != made.stage and version.stage in model.state().stages:
            model.set_stage(name, version.stage, reason=f"as it was in {tool}", keeps_others=True)
    except (AlreadyExists, InvalidValue):  # another process was faster, or a text is too long
        _count(result, "version of a model that the registry refuses")


def _set_aliases(model: Model, tool: str, found: FoundModel, result: ImportedModel) -> None:
    state = model.state()
    by_number = {_number_of(version.tags, tool): str(version.version) for version in state.versions.values()}
    for alias, number in sorted(found.aliases.items()):
        target = by_number.get(str(number))
        if target is None:
            _count(result, "alias of a version that is not there")
        elif alias not in state.aliases:  # one that was moved here stays where it is
            try:
                model.set_alias(alias, target)
            except (InvalidName, InvalidValue):
                _count(result, "alias that could be taken for a version or stage")


def _set_missing_tags(model: Model, tags: dict[str, str], standing: dict[str, str], version: str | None) -> None:
    missing = {name: text for name, text in _legal(tags).items() if name not in standing}
    if missing:
        model.set_tags(missing, version=version)


def _legal(tags: dict[str, str]) -> dict[str, str]:
    kept = {}
    for name, text in tags.items():
        try:
            kept[check_name(name, "tag")] = str(text)[:100_000]
        except InvalidName:
            continue
    return kept


def _number_of(tags: dict[str, str], tool: str) -> str | None:
    return tags.get(f"{tool}.version")


def _count(result: ImportedModel, kind: str, count: int = 1) -> None:
    result.not_carried[kind] = result.not_carried.get(kind, 0) + count
