"""Lineage as a picture: layers from left to right, in the order in which things came of each other. Plain SVG.

Source: Sugiyama, Tagawa, Toda, "Methods for Visual Understanding of Hierarchical System Structures", IEEE Transactions
on Systems, Man, and Cybernetics 11(2), 1981.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

from runstone.lineage.graph import Edge, Lineage, Node

WIDTH, HEIGHT = 178.0, 48.0
_GAP_X, _GAP_Y, _MARGIN = 46.0, 16.0, 12.0
_GROUP_HEAD = 22.0
_ALIKE = 6
_SWEEPS = 24
_LEAST_SCALE = 0.75  # below, the second line of a box cannot be read
_CHARACTERS = 20
_MOST_LABELS = 1


@dataclass(slots=True)
class _Box:
    """A node, or a bend of an edge that passes a layer."""

    key: str
    layer: int
    group: str | None = None
    is_bend: bool = False
    y: float = 0.0

    @property
    def height(self) -> float:
        return 10.0 if self.is_bend else HEIGHT

    @property
    def x(self) -> float:
        return _MARGIN + self.layer * (WIDTH + _GAP_X)


def to_svg(found: Lineage) -> str:
    """Return the picture. Its colours are those of the page around it (`--ink`, `--run`, …), with defaults."""
    nodes, edges = folded(found)
    boxes, paths = _placed(nodes, edges)
    right = max((box.x for box in boxes.values()), default=0.0) + WIDTH + _MARGIN
    bottom = max((box.y + box.height for box in boxes.values()), default=0.0) + _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="lineage" viewBox="0 0 {right:.0f} {bottom:.0f}" '
        f'style="width:{right:.0f}px;max-width:100%;min-width:{right * _LEAST_SCALE:.0f}px" '
        f'role="img" aria-label="lineage of {_text(found.root)}">',
        f"<style>{_STYLE}</style>",
        '<defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" class="head"/></marker></defs>',
    ]
    parts += _groups(boxes)
    told: Counter[tuple[str, str | None]] = Counter()
    for edge, path in paths:
        told[edge.source, edge.role] += 1  # many edges from one node with one role need not say it each
        is_bad = all(key in found.tainted or nodes[key].facts.get("is_tainted") for key in (edge.source, edge.target))
        parts.append(_edge(edge, path, is_bad=is_bad, is_labelled=told[edge.source, edge.role] <= _MOST_LABELS))
    parts += [_node(found, node, boxes[key]) for key, node in nodes.items()]
    return "\n".join([*parts, "</svg>"])


def folded(found: Lineage) -> tuple[dict[str, Node], list[Edge]]:
    """Return nodes and edges, where many runs of a group that lead nowhere are one node."""
    leading = {edge.source for edge in found.edges}
    alike: defaultdict[str | None, list[str]] = defaultdict(list)
    for key, node in found.nodes.items():
        if node.kind == "run" and key not in leading and key != found.root:
            alike[node.group].append(key)
    into: dict[str, str] = {}
    nodes = dict(found.nodes)
    for group, keys in alike.items():
        if len(keys) > _ALIKE:
            gone = keys[_ALIKE - 1 :]
            more = f"more:{group or ''}"
            facts = {"is_more": True, "is_tainted": any(key in found.tainted for key in gone)}
            nodes[more] = Node(more, "run", f"… {len(gone):,} more runs", group=group, facts=facts)
            for key in gone:
                into[key] = more
                del nodes[key]
    edges = [Edge(into.get(e.source, e.source), into.get(e.target, e.target), e.relation, e.role) for e in found.edges]
    return nodes, list(dict.fromkeys(edges))


# --- places ---------------------------------------------------------------------------------------------------------


def _placed(nodes: dict[str, Node], edges: Sequence[Edge]) -> tuple[dict[str, _Box], list[tuple[Edge, list[_Box]]]]:
    layers = _layers(nodes, edges)
    boxes = {key: _Box(key, layers[key], node.group) for key, node in nodes.items()}
    paths: list[tuple[Edge, list[_Box]]] = []
    neighbours: defaultdict[str, list[_Box]] = defaultdict(list)
    for number, edge in enumerate(edges):
        first, last = boxes[edge.source], boxes[edge.target]
        step = 1 if last.layer >= first.layer else -1
        path = [first]
        for layer in range(first.layer + step, last.layer, step):
            bend = _Box(f"bend {number} {layer}", layer, is_bend=True)
            boxes[bend.key] = bend
            path.append(bend)
        path.append(last)
        paths.append((edge, path))
        for one, other in itertools.pairwise(path):
            neighbours[one.key].append(other)
            neighbours[other.key].append(one)
    columns: defaultdict[int, list[_Box]] = defaultdict(list)
    for box in boxes.values():
        columns[box.layer].append(box)
    for column in columns.values():
        _stack(column)
    order = sorted(columns)
    for sweep in range(_SWEEPS):
        for layer in order if sweep % 2 == 0 else reversed(order):
            _arrange(columns[layer], neighbours, is_sorted=sweep < _SWEEPS - 4)
    for layer in reversed(order):  # what stands alone stands at the middle of what follows it
        following = [box for box in neighbours.get(columns[layer][0].key, []) if box.layer > layer]
        if len(columns[layer]) == 1 and following:
            columns[layer][0].y = _middle(following, columns[layer][0]) - columns[layer][0].height / 2
    top = min((box.y - (_GROUP_HEAD if box.group else 0.0) for box in boxes.values()), default=0.0)
    for box in boxes.values():
        box.y += _MARGIN - top
    return boxes, paths


def _layers(nodes: dict[str, Node], edges: Sequence[Edge]) -> dict[str, int]:
    """Return for each node how many steps the longest way to it has; edges that lead back are passed over."""
    following: defaultdict[str, list[str]] = defaultdict(list)
    for edge in edges:
        following[edge.source].append(edge.target)
    state: dict[str, int] = {}
    order: list[str] = []
    back: set[tuple[str, str]] = set()
    for start in sorted(nodes, key=lambda key: (nodes[key].at, key)):
        waiting: list[tuple[str, int]] = [(start, 0)] if start not in state else []
        while waiting:
            key, at = waiting.pop()
            state[key] = 1
            if at == len(following[key]):
                state[key] = 2
                order.append(key)
                continue
            waiting.append((key, at + 1))
            target = following[key][at]
            if state.get(target) == 1:
                back.add((key, target))
            elif target not in state:
                waiting.append((target, 0))
    layers = dict.fromkeys(nodes, 0)
    for key in reversed(order):
        for target in following[key]:
            if (key, target) not in back:
                layers[target] = max(layers[target], layers[key] + 1)
    for key in order:  # what has no ancestor stands right before what came of it
        targets = [layers[target] for target in following[key] if (key, target) not in back]
        if targets and all(edge.target != key for edge in edges):
            layers[key] = max(layers[key], min(targets) - 1)
    return layers


def _stack(column: list[_Box]) -> None:
    y = 0.0
    group: str | None = None
    for box in column:
        if box.group and box.group != group:
            y += _GROUP_HEAD
        group = box.group
        box.y = y
        y += box.height + _GAP_Y


def _arrange(column: list[_Box], neighbours: dict[str, list[_Box]], *, is_sorted: bool) -> None:
    """Bring the boxes of a layer near to what they are joined to, without laying one over another."""
    wanted = {box.key: _middle(neighbours.get(box.key, []), box) - box.height / 2 for box in column}
    if is_sorted:
        of_group: defaultdict[str, list[float]] = defaultdict(list)
        for box in column:
            of_group[box.group or box.key].append(wanted[box.key])
        means = {name: sum(values) / len(values) for name, values in of_group.items()}
        column.sort(key=lambda box: (means[box.group or box.key], box.group or box.key, wanted[box.key]))
    _close_up(column, wanted)
    places: list[float] = []
    for index, box in enumerate(column):
        least = places[-1] + _room(column[index - 1], box) if index else -float("inf")
        places.append(max(wanted[box.key], least))
    for index in range(len(column) - 2, -1, -1):  # as far back up as what stands below allows
        most = places[index + 1] - _room(column[index], column[index + 1])
        places[index] = min(places[index], most)
    shift = sum(wanted[box.key] - place for box, place in zip(column, places, strict=True)) / max(1, len(column))
    for box, place in zip(column, places, strict=True):
        box.y = place + shift


def _close_up(column: list[_Box], wanted: dict[str, float]) -> None:
    """Let the boxes of a group want places next to each other, around the middle of where they wanted to be."""
    of_group: defaultdict[str, list[_Box]] = defaultdict(list)
    for box in column:
        if box.group:
            of_group[box.group].append(box)
    for inside in of_group.values():
        middle = sum(wanted[box.key] for box in inside) / len(inside)
        for index, box in enumerate(inside):
            wanted[box.key] = middle + (index - (len(inside) - 1) / 2) * (HEIGHT + _GAP_Y)


def _room(above: _Box, below: _Box) -> float:
    head = _GROUP_HEAD if below.group and below.group != above.group else 0.0
    foot = 8.0 if above.group and above.group != below.group else 0.0
    return above.height + _GAP_Y + head + foot


def _middle(found: Sequence[_Box], own: _Box) -> float:
    if not found:
        return own.y + own.height / 2
    return sum(box.y + box.height / 2 for box in found) / len(found)


# --- marks ----------------------------------------------------------------------------------------------------------


def _groups(boxes: dict[str, _Box]) -> list[str]:
    """Return a frame around the runs of each group."""
    frames: defaultdict[tuple[str, int], list[_Box]] = defaultdict(list)
    for box in boxes.values():
        if box.group and not box.is_bend:
            frames[box.group, box.layer].append(box)
    parts = []
    for (group, _layer), inside in frames.items():
        top = min(box.y for box in inside) - _GROUP_HEAD + 2
        height = max(box.y for box in inside) + HEIGHT + 8 - top
        x = inside[0].x - 10
        parts.append(
            f'<g class="group"><rect x="{x:.1f}" y="{top:.1f}" width="{WIDTH + 20:.1f}" height="{height:.1f}" rx="10"/>'
            f'<text x="{x + 10:.1f}" y="{top + 14:.1f}">{_text(_cut(group, 30))}</text>'
            f"<title>group {_text(group)}</title></g>"
        )
    return parts


def _edge(edge: Edge, path: Sequence[_Box], *, is_bad: bool, is_labelled: bool) -> str:
    is_back = path[-1].layer <= path[0].layer
    points = [(path[0].x + WIDTH, path[0].y + HEIGHT / 2)]
    points += [(box.x + part, box.y + box.height / 2) for box in path[1:-1] for part in (0.0, WIDTH)]
    points.append((path[-1].x - 2, path[-1].y + HEIGHT / 2))
    if is_back:  # an outer run and what its inner runs gave back to it
        points = [(path[0].x + WIDTH / 2, path[0].y + HEIGHT), (path[-1].x + WIDTH / 2, path[-1].y + HEIGHT)]
    drawn = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (x, y), (to_x, to_y) in itertools.pairwise(points):
        if is_back:
            drawn += f"C{x:.1f} {y + 60:.1f} {to_x:.1f} {to_y + 60:.1f} {to_x:.1f} {to_y + 2:.1f}"
        else:
            bend = (to_x - x) / 2
            drawn += f"C{x + bend:.1f} {y:.1f} {to_x - bend:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}"
    classes = f"edge {edge.relation}{' bad' if is_bad else ''}"
    told = f"{edge.relation}{f' as {edge.role}' if edge.role else ''}"
    label = ""
    if edge.role and is_labelled:
        (x, y), (to_x, to_y) = points[-2], points[-1]
        at = f'x="{(x + to_x) / 2:.1f}" y="{(y + to_y) / 2 - 4:.1f}"'
        label = f'<text class="role" {at}>{_text(_cut(edge.role, 10))}</text>'
    return f'<path class="{classes}" d="{drawn}" marker-end="url(#end)"><title>{_text(told)}</title></path>{label}'


def _node(found: Lineage, node: Node, box: _Box) -> str:
    classes = ["node", node.kind]
    classes += ["root"] * (node.key == found.root)
    if node.key in found.graph.revoked:
        classes.append("revoked")
    elif node.key in found.tainted or node.facts.get("is_tainted"):
        classes.append("tainted")
    below = _second_line(found, node)
    x, y = box.x, box.y
    hint = f"{node.key}\n{found.graph.revoked[node.key]}" if node.key in found.graph.revoked else node.key
    return (
        f'<g class="{" ".join(classes)}" data-key="{_text(node.key)}"><title>{_text(hint)}</title>'
        f'<rect class="box" x="{x:.1f}" y="{y:.1f}" width="{WIDTH:.0f}" height="{HEIGHT:.0f}" rx="7"/>'
        f'<rect class="bar" x="{x:.1f}" y="{y:.1f}" width="6" height="{HEIGHT:.0f}" rx="3"/>'
        f'<text class="title" x="{x + 16:.1f}" y="{y + 20:.1f}">{_text(_cut(node.label, _CHARACTERS))}</text>'
        f'<text class="more" x="{x + 16:.1f}" y="{y + 37:.1f}">{_text(_cut(below, _CHARACTERS + 8))}</text></g>'
    )


def _second_line(found: Lineage, node: Node) -> str:
    facts = node.facts
    day = datetime.fromtimestamp(node.at, UTC).strftime("%Y-%m-%d %H:%M") if node.at else ""
    if node.key in found.graph.revoked:
        return "revoked"
    if facts.get("is_more"):
        return "that led to nothing"
    match node.kind:
        case "run" if not facts.get("is_missing"):
            return f"run · {facts.get('status') or 'no end told'} · {node.key[-8:]}"
        case "model":
            return " · ".join([facts.get("stage") or "none", *[f"@{a}" for a in facts.get("aliases") or ()]])
        case "dataset" | "artifact":
            return " · ".join(part for part in (str(facts.get("hash") or "")[:8], day[:10]) if part)
        case "stage":
            return f"stage of {facts.get('name')}"
        case "alias":
            return f"alias of {facts.get('name')}"
        case "deployment":
            return f"deployment of {facts.get('name')}"
        case "incident" if "summary" in facts:
            return f"{'open' if facts.get('is_open') else 'closed'} · {facts['summary']}"
        case "source":
            return "raw data"
        case _:
            return str(node.kind)


def _cut(text: str, most: int) -> str:
    """Return as much of a text as is so many narrow characters wide; the end of a path says more than its begin."""
    if sum(map(_width, text)) <= most:
        return text
    is_place = "/" in text
    kept, width = [], 1
    for character in reversed(text) if is_place else text:
        width += _width(character)
        if width > most:
            break
        kept.append(character)
    return "…" + "".join(reversed(kept)) if is_place else "".join(kept) + "…"


def _width(character: str) -> int:
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _text(text: str) -> str:
    """Return text as XML can hold it."""
    return escape("".join(c if c.isprintable() or c == "\n" else "·" for c in text))


_STYLE = (
    ".lineage{--l-ink:var(--ink,#1b1f24);--l-soft:var(--soft,#68717c);--l-box:var(--box,#fff);"
    "--l-line:var(--line,#b9c0c8);--l-bad:var(--bad,#c62828);font:13px system-ui,sans-serif}"
    ".lineage .box{fill:var(--l-box);stroke:var(--l-line)}.lineage .title{fill:var(--l-ink);font-weight:600}"
    ".lineage .more,.lineage .role{fill:var(--l-soft);font-size:11px}.lineage .role{text-anchor:middle}"
    ".lineage .role{paint-order:stroke;stroke:var(--back,#fff);stroke-width:4px}"
    ".lineage .edge{fill:none;stroke:var(--l-soft);stroke-width:1.4;opacity:.75}.lineage .nested{stroke-dasharray:5 4}"
    ".lineage .head{fill:var(--l-soft)}.lineage .group rect{fill:none;stroke:var(--l-line);stroke-dasharray:3 3}"
    ".lineage .group text{fill:var(--l-soft);font-size:11px}"
    ".lineage .source .bar{fill:#8d6e63}.lineage .dataset .bar{fill:#00838f}.lineage .run .bar{fill:#5e6ad2}"
    ".lineage .model .bar{fill:#b26a00}.lineage .artifact .bar{fill:#78909c}.lineage .incident .bar{fill:#c62828}"
    ".lineage .stage .bar{fill:#2e7d32}"
    ".lineage .alias .bar{fill:#7b1fa2}.lineage .deployment .bar{fill:#c2185b}"
    ".lineage .root .box{stroke:var(--l-ink);stroke-width:2}"
    ".lineage .revoked .box{stroke:var(--l-bad);stroke-width:2}"
    ".lineage .revoked .more{fill:var(--l-bad);font-weight:600}"
    ".lineage .tainted .box{stroke:var(--l-bad);stroke-dasharray:5 3}.lineage .bad{stroke:var(--l-bad)}"
)
