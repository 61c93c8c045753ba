"""The model registry: versions that never change, and a history of what was said of them that can be proved."""

from runstone.models.history import Approval, ModelNotFound, ModelState, ModelVersion
from runstone.models.refs import ModelRef
from runstone.models.registry import Model, Models, NotApproved, VersionInUse
from runstone.models.semver import SemVer

__all__ = [
    "Approval",
    "Model",
    "ModelNotFound",
    "ModelRef",
    "ModelState",
    "ModelVersion",
    "Models",
    "NotApproved",
    "SemVer",
    "VersionInUse",
]
