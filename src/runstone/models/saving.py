"""Makes a version of a model: saves it, describes it, finds its number, and enters it into the registry."""

from __future__ import annotations

import io
import math
import os
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runstone.blobs import Blobs
from runstone.errors import AmbiguousName, InvalidValue, NotFound, TrackingWarning
from runstone.models.evidence import Proposal, propose
from runstone.models.flavours import Flavour, Saved, flavour_named, flavour_of
from runstone.models.history import ModelState, ModelVersion
from runstone.models.manifest import Manifest
from runstone.models.registry import Models
from runstone.models.semver import Level, SemVer
from runstone.models.signature import Signature
from runstone.names import SYSTEM
from runstone.params import to_json
from runstone.runinfo import RunInfo
from runstone.values import FileEntry

EXAMPLE_ROWS = 5
_LEVELS: tuple[Level, ...] = ("major", "minor", "patch")


@dataclass(frozen=True, slots=True)
class Registration:
    """What a version is to be entered as.

    Attributes:
        name: Of the model.
        version: Its number; `major`, `minor` or `patch` for the next of that level; `None`: as the evidence says.
        pre: Words of a pre-release, such as `rc.1`, put behind the number that was found.
        reason: Why another number than the proposed one is chosen; needed where it is lower than that.
        tags, notes: As for `Model.set_tags` and `Model.set_notes`.
    """

    name: str
    version: str | None = None
    pre: str | None = None
    reason: str | None = None
    tags: Mapping[str, str] | None = None
    notes: str | None = None


def save_model(
    model: Any,
    blobs: Blobs,
    *,
    flavour: str | None = None,
    signature: Signature | None = None,
    example: Any = None,
    labels: Iterable[Any] | None = None,
    init: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    run: RunInfo | None = None,
) -> Manifest:
    """Put a model's files into the store and return what describes them; nothing is registered by that.

    Args:
        model: A model of a framework, or the path of its files.
        blobs: Where the bytes go.
        flavour: How it is saved; default: by what it is.
        signature: What it takes and gives; default: inferred from `example`, and from what the model says to it.
        example: Some of its input; the first rows are kept.
        labels: The classes that it tells apart, in order; default: as the model says.
        init: Arguments that make an empty torch module of its class, as JSON.
        metadata: Any JSON.
        run: The run that made it.

    Raises:
        InvalidValue: it cannot be saved so.
        NotFound: there is nothing at the path.
        OSError: the disk is full.
    """
    how = flavour_named(flavour) if flavour is not None else flavour_of(model)
    files, saved = _store(model, how, blobs, init)
    if example is not None and signature is None:
        signature = _inferred(model, how, example)
    if labels is None:
        labels = saved.labels
    return Manifest(
        flavour=how.name,
        files=files,
        loading=saved.loading,
        signature=signature,
        example=_store_example(example, blobs) if example is not None else None,
        labels=tuple(_as_json(list(labels))) if labels is not None else None,
        architecture=saved.architecture,
        run={"id": run.id, "project": run.project, "name": run.name} if run is not None else None,
        recipe=_recipe(run) if run is not None else {},
        metrics=_metrics(run) if run is not None else {},
        metadata=_as_json(dict(metadata or {})),
    )


def register(models: Models, blobs: Blobs, manifest: Manifest, registration: Registration) -> ModelVersion:
    """Enter a version into the registry, under the number that was asked for or that the evidence speaks for.

    Raises:
        InvalidValue: the number is none, or lower than what the evidence asks for, and no reason is given.
        AlreadyExists: the number was given before.
    """
    content = blobs.put_bytes(manifest.to_bytes(), "manifest.json")
    blobs.sync()  # the event promises the content
    if blobs.remote is not None:
        blobs.push([content.hash, *(entry.hash for entry in manifest.files)])
    model = models.create(registration.name, is_there_ok=True)
    proposals: list[Proposal] = []

    def chosen(state: ModelState) -> str:
        proposals.append(proposal_for(manifest, state, blobs))
        return str(_number(registration, proposals[-1]))

    return model.register(
        content.hash,
        version=chosen,
        proposal=lambda _state: proposals[-1].to_json(),
        reason=registration.reason,
        tags=registration.tags,
        notes=registration.notes,
    )


def save_artifact(run: RunInfo, name: str | None, blobs: Blobs, *, flavour: str | None = None) -> Manifest:
    """Return what describes a model that lies in an artifact of a run; nothing is registered by that.

    Args:
        run: Has the artifact.
        name: Of the artifact; `None`: the only one.
        blobs: Where its content lies.
        flavour: How it is loaded; default: by its file.

    Raises:
        NotFound: the run has no such artifact; the message names some that it has.
        AmbiguousName: it has several, and none is named.
    """
    from runstone.models.loading import check_out  # which imports this file

    there = [artifact.name for artifact in run.artifacts]
    found = [artifact for artifact in run.artifacts if name in (None, artifact.name)]
    if not found:
        which = "no artifact" if name is None else f"no artifact {name!r:.80}"
        raise NotFound(f"run {run.name} has {which}; it has {', '.join(there[:10]) or 'none'}")
    if len(found) > 1:
        raise AmbiguousName(f"run {run.name} has several artifacts; name one of them: {', '.join(there[:10])}")
    with tempfile.TemporaryDirectory(prefix="runstone-model-") as folder:
        check_out(Manifest("files", found[0].files), blobs, Path(folder))
        path = Path(folder) if found[0].is_folder else Path(folder, found[0].files[0].path)
        return save_model(str(path), blobs, flavour=flavour, run=run)


def describe_files(
    files: Iterable[FileEntry], *, run: RunInfo | None = None, metadata: Mapping[str, Any] | None = None
) -> Manifest:
    """Return what describes a model whose files are in the store already; nothing is registered by that.

    Args:
        files: The files, with their paths inside the model.
        run: The run that made it.
        metadata: Any JSON.
    """
    return Manifest(
        flavour="files",
        files=tuple(files),
        run={"id": run.id, "project": run.project, "name": run.name} if run is not None else None,
        recipe=_recipe(run) if run is not None else {},
        metrics=_metrics(run) if run is not None else {},
        metadata=_as_json(dict(metadata or {})),
    )


def proposal_for(manifest: Manifest, state: ModelState, blobs: Blobs) -> Proposal:
    """Return the number that the evidence speaks for, compared with the highest version that there is."""
    before = next(iter(state.usable()), None)
    numbers = [version.version for version in state.versions.values()]
    old = None
    if before is not None:
        try:
            old = Manifest.from_bytes(blobs.read(before.manifest))
        except (NotFound, OSError):  # this workspace was copied without its blobs
            old = None
    if before is not None and old is None:
        proposal = propose(manifest, manifest, max(numbers))
    else:
        proposal = propose(manifest, old, max(numbers) if numbers else None)
    if proposal.previous is None and numbers:  # all were withdrawn: their numbers are gone
        return Proposal(max(numbers).bump("major"), max(numbers), "major", proposal.reasons)
    return proposal


def read_manifest(version: ModelVersion, blobs: Blobs) -> Manifest:
    """Return what a version consists of.

    Raises:
        NotFound: its content is not in this workspace.
        FormatError: it is damaged, or a newer version wrote it.
    """
    return Manifest.from_bytes(blobs.read(version.manifest))


def _number(registration: Registration, proposal: Proposal) -> SemVer:
    wanted = registration.version
    if wanted is None:
        found = proposal.version
    elif wanted in _LEVELS:
        level: Level = wanted
        found = proposal.previous.bump(level) if proposal.previous is not None else proposal.version
    else:
        found = SemVer.parse(wanted)
    if registration.pre is not None:
        found = SemVer.parse(f"{found.release}-{registration.pre}")
    if found.release < proposal.version.release and registration.reason is None:
        why = "; ".join(reason.what for reason in proposal.reasons[:3])
        raise InvalidValue(
            f"{found} is lower than {proposal.version}, which the evidence asks for ({why}); "
            "give the reason for it, and it is recorded: reason=…"
        )
    return found


def _store(
    model: Any, how: Flavour, blobs: Blobs, init: Mapping[str, Any] | None
) -> tuple[tuple[FileEntry, ...], Saved]:
    if how.name == "files":
        return _store_path(Path(model).expanduser().absolute(), blobs)
    with tempfile.TemporaryDirectory(prefix="runstone-model-") as folder:
        saved = how.save(model, Path(folder), init=init)
        found = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return tuple(blobs.put_all((path, path.relative_to(folder).as_posix()) for path in found)), saved


def _store_path(path: Path, blobs: Blobs) -> tuple[tuple[FileEntry, ...], Saved]:
    from runstone.artifacts import named_files

    if path.is_dir():
        return tuple(blobs.put_all(named_files(path))), Saved()
    if not path.exists():
        raise NotFound(f"there is no file or folder {path} to log as a model")
    (entry,) = blobs.put_all([(path, os.fsencode(path.name).decode("utf-8", "backslashreplace"))])
    return (entry,), Saved({"file": entry.path})


def _inferred(model: Any, how: Flavour, example: Any) -> Signature:
    if how.name in ("files", "pickle"):
        return Signature.infer(example)
    try:
        return Signature.infer(example, how.predict(model, example))
    except Exception as error:  # the model is the user's code; what it takes is known all the same
        warnings.warn(
            f"what the model gives is not in its signature: it cannot predict on the example: "
            f"{type(error).__name__}: {error}",
            TrackingWarning,
            stacklevel=4,
        )
        return Signature.infer(example)


def _store_example(example: Any, blobs: Blobs) -> FileEntry:
    """Keep the first rows of an example: tables as Parquet, arrays as NumPy's own files, which hold no pickle."""
    if hasattr(example, "columns") and hasattr(example, "head"):
        buffer = io.BytesIO()
        few = example.head(EXAMPLE_ROWS)
        if hasattr(few, "to_parquet"):
            few.to_parquet(buffer)
        else:
            few.write_parquet(buffer)
        return blobs.put_bytes(buffer.getvalue(), "example.parquet")
    import numpy as np

    def first(value: Any) -> Any:
        value = value.detach().cpu() if hasattr(value, "detach") else value
        array = np.asarray(value)
        return array[:EXAMPLE_ROWS] if array.shape else array

    arrays = {str(name): first(value) for name, value in example.items()} if isinstance(example, Mapping) else None
    buffer = io.BytesIO()
    try:
        if arrays is None:
            np.save(buffer, first(example), allow_pickle=False)
            return blobs.put_bytes(buffer.getvalue(), "example.npy")
        np.savez(buffer, allow_pickle=False, **arrays)
    except ValueError:
        raise InvalidValue("the example holds objects that are neither numbers nor text, and cannot be kept") from None
    return blobs.put_bytes(buffer.getvalue(), "example.npz")


def _as_json(value: Any) -> Any:
    return to_json(value)[0]


def _recipe(run: RunInfo) -> dict[str, Any]:
    git = (run.environment or {}).get("git") or {}
    commit = git.get("commit")
    return {
        "params": run.params,
        "code": {"commit": commit, "is_dirty": bool(git.get("is_dirty"))} if commit else None,
        "data": [
            {"name": link.name, "version": link.version, "hash": link.hash, "role": link.role}
            for link in run.inputs
            if link.kind == "dataset"
        ],
    }


def _metrics(run: RunInfo) -> dict[str, float]:
    found = {}
    for name, summary in run.metrics.items():
        if not name.startswith(SYSTEM) and not (isinstance(summary.last, float) and math.isnan(summary.last)):
            found[name] = float(summary.last)
    return found
