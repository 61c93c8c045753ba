"""The model registry: versions that never change, and a history of what was said of them that can be proved."""

from runstone.models.flavours import UntrustedModel
from runstone.models.history import Approval, ModelNotFound, ModelState, ModelVersion
from runstone.models.loading import LoadedModel, load_model, load_version, read_example
from runstone.models.manifest import Manifest
from runstone.models.operation import Deployment, Incident
from runstone.models.refs import ModelRef
from runstone.models.registry import Model, Models, NotApproved, VersionInUse
from runstone.models.saving import (
    Registration,
    describe_files,
    proposal_for,
    read_manifest,
    register,
    save_artifact,
    save_model,
)
from runstone.models.semver import SemVer
from runstone.models.signature import Signature, SignatureMismatch

__all__ = [
    "Approval",
    "Deployment",
    "Incident",
    "LoadedModel",
    "Manifest",
    "Model",
    "ModelNotFound",
    "ModelRef",
    "ModelState",
    "ModelVersion",
    "Models",
    "NotApproved",
    "Registration",
    "SemVer",
    "Signature",
    "SignatureMismatch",
    "UntrustedModel",
    "VersionInUse",
    "describe_files",
    "load_model",
    "load_version",
    "proposal_for",
    "read_example",
    "read_manifest",
    "register",
    "save_artifact",
    "save_model",
]
