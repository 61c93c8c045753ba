"""Lineage in the language of Graphviz."""

from __future__ import annotations

from collections import defaultdict

from runstone.lineage.graph import Lineage, Node

_SHAPES = {
    "source": "folder",
    "dataset": "cylinder",
    "run": "box",
    "model": "component",
    "artifact": "note",
    "stage": "house",
    "alias": "tag",
    "deployment": "box3d",
    "incident": "octagon",
}


def to_dot(found: Lineage) -> str:
    """Return a digraph, from left to right, with a cluster for each group of runs."""
    lines = ["digraph lineage {", "  rankdir=LR;", '  node [fontname="sans-serif", fontsize=11];']
    groups: defaultdict[str, list[Node]] = defaultdict(list)
    for node in found.nodes.values():
        if node.group:
            groups[node.group].append(node)
        else:
            lines.append(f"  {_node(found, node)}")
    for number, (group, nodes) in enumerate(groups.items()):
        lines += [f"  subgraph cluster_{number} {{", f"    label={_quoted(group)};", "    style=rounded;"]
        lines += [f"    {_node(found, node)}" for node in nodes]
        lines.append("  }")
    for edge in found.edges:
        options = [f"label={_quoted(edge.role)}"] if edge.role else []
        options += ["style=dashed"] * (edge.relation == "nested")
        told = f" [{', '.join(options)}]" if options else ""
        lines.append(f"  {_quoted(edge.source)} -> {_quoted(edge.target)}{told};")
    return "\n".join([*lines, "}"])


def _node(found: Lineage, node: Node) -> str:
    options = [f"label={_quoted(node.label)}", f"shape={_SHAPES[node.kind]}"]
    if node.key == found.root:
        options.append("penwidth=2")
    if node.key in found.graph.revoked:
        options += ["color=red", "fontcolor=red"]
    elif node.key in found.tainted:
        options += ["color=red", "style=dashed"]
    return f"{_quoted(node.key)} [{', '.join(options)}];"


def _quoted(text: str) -> str:
    """Return a string of the language; a backslash would begin an escape such as `\\N`."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else "·" for c in escaped) + '"'
