"""Lineage as PROV-JSON.

Source: Huynh, Jewell, Keshavarz, Michaelides, Yang, Moreau, "The PROV-JSON Serialization", W3C Member Submission 2013.
Runs are activities; data, models, stages, aliases and deployments are entities; who registered them are agents.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from runstone.lineage.graph import Edge, Lineage, Node

PREFIX = "urn:runstone:"


def to_prov(found: Lineage) -> dict[str, Any]:
    """Return one document with what PROV says of it: used, wasGeneratedBy, wasDerivedFrom, wasInformedBy, …"""
    document: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    document["prefix"] = {"rs": PREFIX}
    for node in found.nodes.values():
        document["activity" if node.kind == "run" else "entity"][_id(node.key)] = _described(found, node)
        author = node.facts.get("author")
        if author:
            agent = f"rs:user/{quote(str(author), safe='')}"
            document["agent"][agent] = {"prov:type": _type("prov:Person"), "prov:label": str(author)}
            attributed = {"prov:entity": _id(node.key), "prov:agent": agent}
            document["wasAttributedTo"][f"_:at{len(document['wasAttributedTo'])}"] = attributed
        if node.key in found.graph.revoked and node.kind != "run":  # an activity cannot be invalidated
            document["wasInvalidatedBy"][f"_:inv{len(document['wasInvalidatedBy'])}"] = {
                "prov:entity": _id(node.key),
                "rs:reason": found.graph.revoked[node.key],
            }
    count = itertools.count()
    for edge in found.edges:
        relation, said = _relation(edge)
        if edge.role:
            said["prov:role"] = edge.role
        document[relation][f"_:e{next(count)}"] = said
    return {name: content for name, content in document.items() if content}


def _relation(edge: Edge) -> tuple[str, dict[str, Any]]:
    source, target = _id(edge.source), _id(edge.target)
    match edge.relation:
        case "used":
            return "used", {"prov:activity": target, "prov:entity": source}
        case "made":
            return "wasGeneratedBy", {"prov:entity": target, "prov:activity": source}
        case "nested":
            return "wasInformedBy", {"prov:informed": target, "prov:informant": source}
        case "caused" if edge.target.startswith("run:"):
            return "used", {"prov:activity": target, "prov:entity": source}
        case "stands":
            return "specializationOf", {"prov:specificEntity": target, "prov:generalEntity": source}
        case _:
            return "wasDerivedFrom", {"prov:generatedEntity": target, "prov:usedEntity": source}


def _described(found: Lineage, node: Node) -> dict[str, Any]:
    said: dict[str, Any] = {"prov:label": node.label, "prov:type": _type(f"rs:{node.kind}")}
    for name in ("hash", "version", "project", "status", "stage", "approval"):
        if node.facts.get(name) is not None:
            said[f"rs:{name}"] = node.facts[name]
    if node.at:
        word = "prov:startTime" if node.kind == "run" else "rs:since"
        said[word] = datetime.fromtimestamp(node.at, UTC).isoformat()
    if node.group:
        said["rs:group"] = node.group
    if node.key in found.graph.revoked:
        said["rs:revoked"] = found.graph.revoked[node.key]
    if node.key in found.tainted and node.key not in found.graph.revoked:
        said["rs:descendsFromRevoked"] = list(found.tainted[node.key])
    return said


def _type(name: str) -> dict[str, str]:
    return {"$": name, "type": "prov:QUALIFIED_NAME"}


def _id(key: str) -> str:
    kind, _colon, rest = key.partition(":")
    return f"rs:{kind}/{quote(rest, safe='-._~@')}"
