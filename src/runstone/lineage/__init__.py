"""Where things come from and where they went: raw data, datasets, runs, models, stages; and what was revoked."""

from __future__ import annotations

from runstone.lineage.build import build
from runstone.lineage.graph import Edge, Graph, Lineage, Node
from runstone.lineage.query import lineage_of
from runstone.lineage.revoking import Revocation, revoke

__all__ = ["Edge", "Graph", "Lineage", "Node", "Revocation", "build", "lineage_of", "revoke"]
