"""Revoking: saying that a dataset, model or run must not be used, and finding all that descends from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runstone.datasets.history import DatasetNotFound
from runstone.errors import InvalidValue
from runstone.lineage.graph import Graph, Node
from runstone.lineage.query import find
from runstone.models.history import ARCHIVED

if TYPE_CHECKING:
    from runstone.workspace import Workspace

COLUMNS = ("kind", "ref", "label", "at", "stage", "aliases", "through")


@dataclass(frozen=True, slots=True)
class Revocation:
    """What was revoked, and what descends from it.

    Attributes:
        key: What was revoked, such as `dataset:loans@3`.
        reason: Why; `None` where the revocation was taken back.
        affected: All that descends from it, the nearest first.
        in_use: Versions of models among them that stand in a stage or under an alias, or are deployed.
    """

    key: str
    reason: str | None
    affected: tuple[Node, ...]
    in_use: tuple[Node, ...]

    def rows(self) -> list[dict[str, Any]]:
        """Return what is affected, one dict each, with the keys `COLUMNS`."""
        return [
            {
                "kind": node.kind,
                "ref": node.key,
                "label": node.label,
                "at": node.at or None,
                "stage": node.facts.get("stage"),
                "aliases": list(node.facts.get("aliases") or ()),
                "through": self.key,
            }
            for node in self.affected
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"revoked": self.key, "reason": self.reason, "affected": self.rows()}


def revoke(workspace: Workspace, ref: str, *, reason: str | None) -> Revocation:
    """Revoke a version of a dataset or a model, or a run: what descends from it can no longer be promoted.

    Every version of a model that descends from it gets an event in its history. What comes to descend from it later is
    known by its lineage alone.

    Args:
        workspace: Where it lies.
        ref: `dataset:NAME@V`, `model:NAME@V` or `run:ID`.
        reason: Why; `None`: take the revocation back.

    Raises:
        InvalidValue: it is none of these, or there is nothing to take back.
        NotFound: there is no such thing.
    """
    kind, colon, rest = ref.partition(":")
    if not colon or kind not in ("dataset", "model", "run"):
        raise InvalidValue(f"{ref!r:.120} cannot be revoked; name dataset:NAME@VERSION, model:NAME@VERSION or run:ID")
    if kind != "run" and "@" not in rest:
        raise InvalidValue(f"{ref!r:.120} names no version; write {kind}:{rest}@VERSION")
    if reason is not None and not reason.strip():
        raise InvalidValue("a revocation needs a reason")
    graph, key = find(workspace, ref)
    if reason is None and key not in graph.revoked:
        raise InvalidValue(f"{key} is not revoked")
    affected = affected_by(graph, key)
    name, _at, version = key.partition(":")[2].rpartition("@")
    if kind == "dataset":
        _revoke_dataset(workspace, name, version, reason)
    elif kind == "model":
        workspace.models.get(name).revoke(version, reason=reason)
    else:
        workspace.revoke_run(key.removeprefix("run:"), reason)
    if reason is not None:
        for node in affected:
            if node.kind == "model" and not node.facts.get("is_missing") and node.key in graph.nodes:
                _note(workspace, node, key, reason)
    return Revocation(key, reason, affected, tuple(node for node in affected if is_in_use(node)))


def affected_by(graph: Graph, key: str) -> tuple[Node, ...]:
    """Return what descends from a node, the nearest first."""
    distances, _edges = graph.reach(key, is_down=True)
    return tuple(graph.node(found) for found in sorted(distances, key=lambda found: distances[found]) if found != key)


def is_in_use(node: Node) -> bool:
    """Return whether it is a version of a model that stands in a stage or under an alias, or is deployed."""
    facts = node.facts
    is_used = facts.get("aliases") or facts.get("deployed") or facts.get("stage") not in (None, "none", ARCHIVED)
    return node.kind == "model" and bool(is_used)


def _revoke_dataset(workspace: Workspace, name: str, version: str, reason: str | None) -> None:
    if name not in workspace.datasets:
        raise DatasetNotFound(f"{name}@{version} is known from runs alone, it was never added; revoke those runs")
    workspace.datasets.get(name).revoke(version, reason=reason)


def _note(workspace: Workspace, node: Node, key: str, reason: str) -> None:
    name, version = str(node.facts["name"]), str(node.facts["version"])
    if name in workspace.models:
        model = workspace.models.get(name)
        if version in model.state().versions:
            model.note_descent(version, ref=key, reason=reason)
