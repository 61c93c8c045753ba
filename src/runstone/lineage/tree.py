"""Lineage as indented text."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime

from runstone.lineage.graph import Edge, Lineage, Node

_ALIKE = 5
_WORDS = {
    "source": "raw",
    "dataset": "data",
    "run": "run",
    "model": "model",
    "artifact": "file",
    "incident": "incident",
}


def to_tree(found: Lineage, *, up: bool = True, down: bool = True, all_runs: bool = False) -> str:
    """Return what came before and after the root, the root between them.

    Args:
        found: The lineage.
        up, down: Which of them are shown.
        all_runs: Show every run of a group that led to nothing, instead of the first ones and a number.
    """
    lines = []
    if up:
        above = _Branches(found, is_down=False, all_runs=all_runs).lines()
        lines += ["came of", *(above or ["└─ nothing that is known"]), ""]
    lines.append(describe(found, found.nodes[found.root]))
    if down:
        below = _Branches(found, is_down=True, all_runs=all_runs).lines()
        lines += ["", "led to", *(below or ["└─ nothing yet"])]
    for key, reason in found.revoked.items():
        lines += ["", f"! revoked: {key}: {reason}"]
    return "\n".join(lines)


def describe(found: Lineage, node: Node) -> str:
    """Return one node in one line."""
    facts = node.facts
    if node.kind in ("stage", "alias", "deployment"):
        since = f" since {_day(node.at)}" if node.at else ""
        text = f"{node.kind} {node.label}{since}"
    else:
        text = f"{_WORDS[node.kind]} {node.label}"
    told = []
    if node.kind == "run" and not facts.get("is_missing"):
        told = [node.key[4:][-8:], str(facts.get("project")), str(facts.get("status") or "no end told")]
        told += [f"of {node.group}"] * bool(node.group) + ["deleted"] * bool(facts.get("is_deleted"))
    elif node.kind == "model":
        told = [str(facts.get("stage") or "")] + [f"@{alias}" for alias in facts.get("aliases") or ()]
        told += ["withdrawn"] * bool(facts.get("withdrawn"))
    elif node.kind == "incident" and "summary" in facts:
        told = ["open" if facts.get("is_open") else "closed", str(facts["summary"])]
    if node.kind in ("dataset", "model", "artifact") and facts.get("hash"):
        told.append(str(facts["hash"])[:10])
    if node.at and node.kind not in ("stage", "deployment"):
        told.append(_day(node.at))
    mark = ""
    if node.key in found.graph.revoked:
        mark = "  ! REVOKED"
    elif node.key in found.tainted:
        mark = f"  ! descends from {', '.join(found.tainted[node.key])}"
    listed = ", ".join(part for part in told if part)
    return f"{text}{f'  ({listed})' if listed else ''}{mark}"


class _Branches:
    """One direction of the tree."""

    def __init__(self, found: Lineage, *, is_down: bool, all_runs: bool) -> None:
        self._found = found
        self._is_down = is_down
        self._all_runs = all_runs
        self._shown: set[str] = set()
        self._edges = set(found.edges)

    def lines(self) -> list[str]:
        """Return its lines, without the root."""
        out: list[str] = []
        waiting = self._branches(self._found.root, False, "")[::-1]  # a chain may be longer than Python's stack
        while waiting:
            line, target, is_outer, indent = waiting.pop()
            if target is None:
                out.append(line)
                continue
            is_known = target in self._shown
            out.append(line + ("  (see above)" if is_known and self._following(target, is_outer) else ""))
            if not is_known:
                self._shown.add(target)
                waiting += self._branches(target, is_outer, indent)[::-1]
        return out

    def _following(self, key: str, is_via_inner: bool) -> list[tuple[Edge, str, bool]]:
        steps = self._found.graph.steps(key, is_down=self._is_down, is_via_inner=is_via_inner)
        found = [step for step in steps if step[0] in self._edges and step[1] in self._found.nodes]
        return sorted(found, key=lambda step: (self._found.nodes[step[1]].at, step[1]))

    def _branches(self, key: str, is_via_inner: bool, indent: str) -> list[tuple[str, str | None, bool, str]]:
        """Return what follows a node: each line, the node that it is about, and the indent of what follows that."""
        kept, left_out = self._folded(self._following(key, is_via_inner))
        found: list[tuple[str, str | None, bool, str]] = []
        for number, (edge, target, is_outer) in enumerate(kept):
            is_last = number == len(kept) - 1 and not left_out
            role = f" [{edge.role}]" if edge.role else ""
            if edge.relation == "nested":
                role = " [outer run]" if is_outer else " [inner run]"
            line = f"{indent}{'└─' if is_last else '├─'} {describe(self._found, self._found.nodes[target])}{role}"
            found.append((line, target, is_outer, indent + ("   " if is_last else "│  ")))
        for number, (group, count) in enumerate(left_out.items()):
            mark = "└─" if number == len(left_out) - 1 else "├─"
            of = f" of {group}" if group else ""
            found.append((f"{indent}{mark} … and {count:,} more runs{of} that led to nothing", None, False, ""))
        return found

    def _folded(
        self, following: list[tuple[Edge, str, bool]]
    ) -> tuple[list[tuple[Edge, str, bool]], dict[str | None, int]]:
        """Leave out runs of which one is like the other: those of a group that lead nowhere."""
        if self._all_runs or not self._is_down:
            return following, {}
        counts: defaultdict[str | None, int] = defaultdict(int)
        kept: list[tuple[Edge, str, bool]] = []
        left_out: defaultdict[str | None, int] = defaultdict(int)
        for step in following:
            node = self._found.nodes[step[1]]
            is_end = node.kind == "run" and not self._following(step[1], step[2])
            counts[node.group] += is_end
            if is_end and counts[node.group] > _ALIKE:
                left_out[node.group] += 1
            else:
                kept.append(step)
        return kept, dict(left_out)


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
