"""What came of what, as values: nodes, edges, and the part of them above and below one node. Knows no files.

An edge points the way that things flow: from raw data to the dataset, from the dataset to the run that used it, from
the run to the model that it made, from the model to the stage where it stands.

Runs inside runs are one piece of work. What the outer run used, the inner ones may have used, and what the inner ones
made, the outer one may have made its own of; but one inner run knows nothing of the one beside it.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["source", "dataset", "run", "model", "artifact", "stage", "alias", "deployment", "incident"]
Relation = Literal["read", "used", "made", "derived", "stands", "nested", "caused"]


@dataclass(frozen=True, slots=True)
class Node:
    """One thing.

    Attributes:
        key: What it is called everywhere: `run:<id>`, `dataset:<name>@<version>`, `model:<name>@<version>`,
            `artifact:<hash>`, `source:<path or URL>`, `stage:<model>@<stage>`, `alias:<model>@<alias>`,
            `deployment:<model>@<place>`, `incident:<model>#<number>`.
        kind: What it is.
        label: For people.
        at: When it came to be, in seconds since the Unix epoch; 0 where nobody knows.
        group: What a run belongs to, such as a sweep.
        facts: What else is known, as JSON.
    """

    key: str
    kind: Kind
    label: str
    at: float = 0.0
    group: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Edge:
    """One step: the target came of the source, or was made with it.

    Attributes:
        source, target: Keys of nodes.
        relation: `read` (raw data by a dataset), `used` (by a run), `made` (by a run), `derived`, `stands` (a version
            in a stage, under an alias or at a place), `nested` (a run inside another), `caused` (an incident by the
            version that has it, a run by an incident): nothing is inherited by that.
        role: What it was used as, such as `train`.
    """

    source: str
    target: str
    relation: Relation
    role: str | None = None


class Graph:
    """All nodes and edges of a workspace, and what was revoked."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.revoked: dict[str, str] = {}
        """Key and reason."""
        self._out: defaultdict[str, dict[Edge, None]] = defaultdict(dict)
        self._in: defaultdict[str, dict[Edge, None]] = defaultdict(dict)

    def add(self, node: Node) -> None:
        """Add a node, or what more is known of one."""
        self.nodes[node.key] = node

    def join(self, source: str, target: str, relation: Relation, role: str | None = None) -> None:
        """Add an edge between two nodes that are, or will be, there."""
        edge = Edge(source, target, relation, role)
        self._out[source][edge] = None
        self._in[target][edge] = None

    def steps(self, key: str, *, is_down: bool, is_via_inner: bool) -> Iterator[tuple[Edge, str, bool]]:
        """Yield each edge from a node in one direction, where it leads, and whether an outer run is reached by it."""
        for edge in (self._out if is_down else self._in)[key]:
            if edge.relation != "nested":
                yield edge, edge.target if is_down else edge.source, False
        for edge in self._out[key]:
            if edge.relation == "nested" and not is_via_inner:
                yield edge, edge.target, False
        for edge in self._in[key]:
            if edge.relation == "nested":
                yield edge, edge.source, True

    def reach(
        self, start: str, *, is_down: bool, depth: int | None = None, with_causes: bool = False
    ) -> tuple[dict[str, int], dict[Edge, None]]:
        """Return what lies above or below a node: keys with their distance, and the edges on the way.

        What an incident has led to descends from the version that had it only `with_causes`: it is no worse for that.
        """
        distances = {start: 0}
        edges: dict[Edge, None] = {}
        seen = {(start, False)}
        waiting = deque([(start, False, 0)])
        while waiting:
            key, is_via_inner, distance = waiting.popleft()
            if depth is not None and distance >= depth:
                continue
            for edge, target, is_outer in self.steps(key, is_down=is_down, is_via_inner=is_via_inner):
                if edge.relation == "caused" and not with_causes:
                    continue
                edges[edge] = None
                distances.setdefault(target, distance + 1)
                if (target, is_outer) not in seen and (target, False) not in seen:
                    seen.add((target, is_outer))
                    waiting.append((target, is_outer, distance + 1))
        return distances, edges

    def around(self, root: str, *, up: bool = True, down: bool = True, depth: int | None = None) -> Lineage:
        """Return what lies above and below a node.

        Args:
            root: Its key.
            up: Whether what it came of is wanted.
            down: Whether what came of it is wanted.
            depth: At most so many steps; default: all.
        """
        keys: dict[str, None] = {root: None}
        edges: dict[Edge, None] = {}
        for is_wanted, is_down in ((up, False), (down, True)):
            if is_wanted:
                distances, found = self.reach(root, is_down=is_down, depth=depth, with_causes=True)
                keys |= dict.fromkeys(distances)
                edges |= found
        return Lineage(root, {key: self.node(key) for key in keys}, list(edges), self._tainted(keys), self)

    def causes(self, key: str) -> dict[str, str]:
        """Return what was revoked of a node and all that it came of: key and reason."""
        above, _edges = self.reach(key, is_down=False)
        return {found: self.revoked[found] for found in above if found in self.revoked}

    def node(self, key: str) -> Node:
        """Return a node; of one that is only named by others, what its key says."""
        found = self.nodes.get(key)
        if found is not None:
            return found
        kind, _colon, rest = key.partition(":")
        return Node(key, kind, f"{rest} (not in this workspace)", facts={"is_missing": True})  # type: ignore[arg-type]

    def _tainted(self, keys: Iterable[str]) -> dict[str, tuple[str, ...]]:
        below: defaultdict[str, list[str]] = defaultdict(list)
        for revoked in self.revoked:
            for key in self.reach(revoked, is_down=True)[0]:
                below[key].append(revoked)
        return {key: tuple(below[key]) for key in keys if key in below}


@dataclass(frozen=True, slots=True)
class Lineage:
    """What one thing came of, and what came of it.

    Attributes:
        root: Key of the thing that was asked about.
        nodes: By key, the root first.
        edges: The steps between them.
        tainted: Key, and the keys of what was revoked that it is or descends from.
        graph: All of the workspace.
    """

    root: str
    nodes: Mapping[str, Node]
    edges: list[Edge]
    tainted: Mapping[str, tuple[str, ...]]
    graph: Graph

    @property
    def revoked(self) -> dict[str, str]:
        """What was revoked that something here descends from: key and reason."""
        keys = {cause for causes in self.tainted.values() for cause in causes}
        return {key: reason for key, reason in self.graph.revoked.items() if key in keys}

    def of_kind(self, kind: Kind) -> list[Node]:
        """Return the nodes of one kind."""
        return [node for node in self.nodes.values() if node.kind == kind]

    def to_tree(self, *, up: bool = True, down: bool = True, all_runs: bool = False) -> str:
        """Return it as indented text; see `runstone.lineage.tree`."""
        from runstone.lineage.tree import to_tree

        return to_tree(self, up=up, down=down, all_runs=all_runs)

    def to_dot(self) -> str:
        """Return it in the language of Graphviz."""
        from runstone.lineage.dot import to_dot

        return to_dot(self)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "root": self.root,
            "nodes": [
                {
                    "key": node.key,
                    "kind": node.kind,
                    "label": node.label,
                    "at": node.at or None,
                    "group": node.group,
                    "revoked": self.graph.revoked.get(node.key),
                    "descends_from_revoked": list(self.tainted.get(node.key, ())),
                    **({"facts": dict(node.facts)} if node.facts else {}),
                }
                for node in self.nodes.values()
            ],
            "edges": [
                {"source": edge.source, "target": edge.target, "relation": edge.relation, "role": edge.role}
                for edge in self.edges
            ],
        }

    def to_prov(self) -> dict[str, Any]:
        """Return it as PROV-JSON of the W3C."""
        from runstone.lineage.prov import to_prov

        return to_prov(self)

    def to_html(self) -> str:
        """Return a page that shows it and needs nothing else."""
        from runstone.lineage.page import to_html

        return to_html(self)

    def to_svg(self) -> str:
        """Return it as a picture."""
        from runstone.lineage.drawing import to_svg

        return to_svg(self)
