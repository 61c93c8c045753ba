"""What stands of models and their versions as plain values, for the command line and the server alike."""

from __future__ import annotations

import dataclasses
from typing import Any

from runstone.models.history import ModelState, ModelVersion


def state_as_dict(state: ModelState) -> dict[str, Any]:
    """Return what stands of a model."""
    return {
        "name": state.name,
        "stages": list(state.stages),
        "in_stage": {stage: [str(one.version) for one in state.in_stage(stage)] for stage in state.stages},
        "aliases": dict(state.aliases),
        "tags": dict(state.tags),
        "notes": state.notes,
        "requires_approval": state.requires_approval,
        "created_at": state.created_at,
        "count": len(state.versions),
        "deployed": [dataclasses.asdict(one) for one in state.deployed()],
        "open_incidents": [dataclasses.asdict(one) for one in state.incidents.values() if one.is_open],
    }


def version_as_dict(version: ModelVersion) -> dict[str, Any]:
    """Return what stands of a version."""
    return {
        "model": version.model,
        "version": str(version.version),
        "hash": version.manifest,
        "run": version.run_id,
        "author": version.author,
        "registered_at": version.registered_at,
        "proposal": dict(version.proposal),
        "reason": version.override_reason,
        "approval": dataclasses.asdict(version.approval),
        "stage": version.stage,
        "stage_since": version.stage_since,
        "aliases": list(version.aliases),
        "tags": dict(version.tags),
        "notes": version.notes,
        "withdrawn": version.withdrawn,
        "deployments": [dataclasses.asdict(one) for one in version.deployments],
        "incidents": [dataclasses.asdict(one) for one in version.incidents],
        "profile": version.profile_hash,
    }
