"""Datasets, models and lineage as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from runstone.datasets import Dataset, DatasetVersion, TreeFile
from runstone.datasets.diff import Difference
from runstone.ledger import LedgerEvent
from runstone.lineage import Lineage
from runstone.models import Model
from runstone.models.shapes import state_as_dict, version_as_dict
from runstone.models.telling import told


def dataset_as_dict(dataset: Dataset) -> dict[str, Any]:
    """Return what stands of a dataset."""
    state = dataset.state()
    versions = dataset.versions()
    return {
        "name": state.name,
        "notes": state.notes,
        "tags": state.tags,
        "aliases": state.aliases,
        "created_at": state.created_at,
        "count": len(versions),
        "latest": dataset_version_as_dict(versions[0]) if versions else None,
    }


def dataset_version_as_dict(version: DatasetVersion) -> dict[str, Any]:
    """Return what was recorded of a version of data."""
    recorded = version.recorded
    return {
        "dataset": version.name,
        "version": version.version,
        "hash": version.hash,
        "is_stored": version.is_stored,
        "files": recorded.file_count,
        "size_bytes": recorded.size_bytes,
        "source": version.source_text,
        "author": recorded.author,
        "added_at": recorded.added_at,
        "run": recorded.run_id,
        "tags": recorded.tags,
        "aliases": list(recorded.aliases),
        "notes": recorded.notes,
        "revoked": recorded.revoked.reason if recorded.revoked is not None else None,
    }


def tree_file_as_dict(file: TreeFile) -> dict[str, Any]:
    """Return one file of a version of data."""
    return {"path": file.path, "size_bytes": file.size_bytes, "hash": file.hash}


def difference_as_dict(found: Difference, most: int) -> dict[str, Any]:
    """Return what two versions of data have apart, `most` files of each kind."""
    kinds = {name: getattr(found, name) for name in ("added", "removed", "changed", "renamed")}
    return {
        "is_empty": found.is_empty,
        "counts": {name: len(changes) for name, changes in kinds.items()},
        **{
            name: [
                {
                    "path": one.path,
                    "before": tree_file_as_dict(one.before) if one.before is not None else None,
                    "after": tree_file_as_dict(one.after) if one.after is not None else None,
                }
                for one in changes[:most]
            ]
            for name, changes in kinds.items()
        },
        "columns": [asdict(one) for one in found.columns],
        "rows": asdict(found.rows) if found.rows is not None else None,
    }


def model_as_dict(model: Model) -> dict[str, Any]:
    """Return what stands of a model."""
    versions = model.versions()
    return state_as_dict(model.state()) | {"latest": version_as_dict(versions[0]) if versions else None}


def event_as_dict(event: LedgerEvent) -> dict[str, Any]:
    """Return one line of a history: what happened, in words and as it was written."""
    return {
        "seq": event.seq,
        "event": event.kind,
        "at": event.at,
        "by": dict(event.by),
        "told": told(event),
        "fields": dict(event.fields),
        "hash": event.hash,
    }


def lineage_as_dict(found: Lineage) -> dict[str, Any]:
    """Return lineage as a page draws it: nodes, and edges as source, target, role, relation."""
    graph = found.to_dict()
    nodes = [
        {
            "id": node["key"],
            "kind": node["kind"],
            "name": (node.get("facts") or {}).get("name", node["label"]),
            "label": node["label"],
            "status": (node.get("facts") or {}).get("status"),
            "at": node["at"],
            "group": node["group"],
            "revoked": node["revoked"],
            "descends_from_revoked": node["descends_from_revoked"],
            "facts": node.get("facts") or {},
        }
        for node in graph["nodes"]
    ]
    edges = [[edge["source"], edge["target"], edge["role"], edge["relation"]] for edge in graph["edges"]]
    return {"root": graph["root"], "nodes": nodes, "edges": edges}
