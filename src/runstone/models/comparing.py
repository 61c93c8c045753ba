"""Two versions side by side, and a version in another workspace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runstone.errors import AlreadyExists
from runstone.models.history import ModelState, ModelVersion
from runstone.models.manifest import Manifest
from runstone.models.saving import read_manifest
from runstone.models.semver import SemVer
from runstone.models.signature import compare as compare_signatures
from runstone.params import flatten_params

if TYPE_CHECKING:
    from runstone.workspace import Workspace


@dataclass(frozen=True, slots=True)
class VersionComparison:
    """What differs between two versions; each entry is name, left and right, `None` where one has none.

    Attributes:
        left, right: The versions.
        metrics, params, data: What differs, metrics also where they are equal.
        schema: What differs in what they take and give, and whether it breaks those who use the left one.
        facts: Flavour, structure, labels, code, stage, approval.
    """

    left: ModelVersion
    right: ModelVersion
    metrics: list[tuple[str, Any, Any]]
    params: list[tuple[str, Any, Any]]
    data: list[tuple[str, Any, Any]]
    schema: list[tuple[str, bool]]
    facts: list[tuple[str, Any, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""

        def rows(found: list[tuple[str, Any, Any]]) -> dict[str, Any]:
            return {name: {"left": left, "right": right} for name, left, right in found}

        return {
            "left": str(self.left),
            "right": str(self.right),
            "metrics": rows(self.metrics),
            "params": rows(self.params),
            "data": rows(self.data),
            "schema": [{"what": what, "breaking": is_breaking} for what, is_breaking in self.schema],
            "facts": rows(self.facts),
        }


def compare_versions(workspace: Workspace, left: str, right: str) -> VersionComparison:
    """Put two versions side by side, of one model or of two.

    Raises:
        ModelNotFound: there is no such version.
        NotFound: what it consists of is not in this workspace.
    """
    one, other = workspace.models.find(left), workspace.models.find(right)
    old, new = read_manifest(one, workspace.blobs), read_manifest(other, workspace.blobs)
    params = [flatten_params(manifest.recipe.get("params") or {}) for manifest in (old, new)]
    data = [
        {entry["name"]: entry.get("version") or entry["hash"] for entry in manifest.recipe.get("data") or ()}
        for manifest in (old, new)
    ]
    return VersionComparison(
        one,
        other,
        metrics=_both(old.metrics, new.metrics),
        params=_differing(*params),
        data=_differing(*data),
        schema=[(found.what, found.is_breaking) for found in compare_signatures(old.signature, new.signature)],
        facts=_differing(_facts(one, old), _facts(other, new)),
    )


def copy_version(
    workspace: Workspace, ref: str, target: Workspace, *, name: str | None = None, number: str | None = None
) -> ModelVersion:
    """Register a version in another workspace, under its name and number, with its content and its profile.

    What was said of it here stands in its tags there: where it came from, and by which event. A version that is there
    already with the same content is left as it is.

    Args:
        workspace: Where it is.
        ref: The version.
        target: Where to.
        name: Its name there; default: as here.
        number: Its number there; default: as here.

    Raises:
        ModelNotFound: there is no such version.
        AlreadyExists: the number is taken there by another content.
        NotFound: its content is not in this workspace.
    """
    version = workspace.models.find(ref)
    manifest = read_manifest(version, workspace.blobs)
    number = str(SemVer.parse(number)) if number is not None else str(version.version)
    there = target.models.create(name if name is not None else version.model, is_there_ok=True)
    standing = there.state().versions.get(number)
    if standing is not None and standing.manifest == version.manifest:
        return standing
    if standing is not None:
        raise AlreadyExists(
            f"{standing} is in {target.path} already, with another content; give this one another name or number there"
        )
    extra = [manifest.example.hash] if manifest.example is not None else []
    extra += [version.profile_hash] if version.profile_hash is not None else []
    for content in (version.manifest, *(entry.hash for entry in manifest.files), *extra):
        if not target.blobs.keep(content):
            target.blobs.put(workspace.blobs.local_path(content), content)

    def proposal(_state: ModelState) -> Mapping[str, Any]:
        return dict(version.proposal)

    tags = {**version.tags, "copied-from": str(workspace.path), "copied-run": version.run_id or "none"}
    copied = there.register(version.manifest, version=number, proposal=proposal, tags=tags, notes=version.notes)
    return there.set_profile(number, version.profile_hash) if version.profile_hash else copied


def _facts(version: ModelVersion, manifest: Manifest) -> dict[str, Any]:
    code = manifest.recipe.get("code") or {}
    return {
        "flavour": manifest.flavour,
        "structure": manifest.architecture,
        "labels": list(manifest.labels) if manifest.labels is not None else None,
        "code": code.get("commit"),
        "uncommitted changes": code.get("is_dirty"),
        "stage": version.stage,
        "approval": version.approval.state,
        "size_bytes": manifest.size_bytes,
        "run": version.run_id,
    }


def _both(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    return [(name, left.get(name), right.get(name)) for name in sorted(left.keys() | right.keys())]


def _differing(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    return [row for row in _both(left, right) if row[1] != row[2]]
