"""Which thing is meant by what somebody typed, and its lineage."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from runstone.datasets.refs import DatasetRef
from runstone.errors import AmbiguousName, InvalidName, NotFound
from runstone.lineage.build import build, dataset_key, model_key
from runstone.lineage.graph import Graph, Lineage
from runstone.models.refs import ModelRef

if TYPE_CHECKING:
    from runstone.workspace import Workspace

_HASH = re.compile(r"[0-9a-f]{64}")
_SHORTEST_HASH = 8


def lineage_of(
    workspace: Workspace, ref: str, *, up: bool = True, down: bool = True, depth: int | None = None
) -> Lineage:
    """Return what a thing came of and what came of it.

    Args:
        workspace: Where it lies.
        ref: `model:NAME@V`, `dataset:NAME@V` (V also an alias, a stage, `latest`), `artifact:HASH` or a whole hash,
            `source:PLACE`, or a run: its id, the begin or end of it, or its name, also as `run:ID`.
        up: Whether what it came of is wanted.
        down: Whether what came of it is wanted.
        depth: At most so many steps each way; default: all.

    Raises:
        NotFound: there is no such thing.
        AmbiguousName: several are meant.
        InvalidName: it names nothing.
    """
    graph, key = find(workspace, ref)
    return graph.around(key, up=up, down=down, depth=depth)


def find(workspace: Workspace, ref: str) -> tuple[Graph, str]:
    """Return the lineage of a workspace and the key of what a reference means; see `lineage_of`."""
    kind, colon, rest = ref.partition(":")
    is_artifact = (colon and kind == "artifact") or (not colon and _HASH.fullmatch(ref) is not None)
    graph = build(workspace.path, artifacts=workspace.blobs if is_artifact else None)
    if ref in graph.nodes:
        return graph, ref
    if is_artifact:
        return graph, _artifact(graph, rest if colon else ref)
    if colon and kind in ("model", "dataset", "source"):
        if not rest:
            raise InvalidName(f"{ref!r} names nothing after {kind}:")
        return graph, {"model": _model, "dataset": _dataset, "source": _source}[kind](workspace, graph, rest)
    return graph, _run(workspace, graph, ref.removeprefix("run:"))


def _model(workspace: Workspace, graph: Graph, text: str) -> str:
    ref = ModelRef.parse(text)
    found = model_key(ref.name, ref.selector)
    if found in graph.nodes and ref.as_of is None:
        return found
    version = workspace.models.find(ref)
    return model_key(version.model, version.version)


def _dataset(workspace: Workspace, graph: Graph, text: str) -> str:
    ref = DatasetRef.parse(text)
    found = dataset_key(ref.name, ref.selector)
    if found in graph.nodes:
        return found
    if ref.name in workspace.datasets:
        return dataset_key(ref.name, workspace.datasets.find(ref).version)
    there = sorted({str(node.facts["name"]) for node in graph.nodes.values() if node.kind == "dataset"})
    versions = [key for key in graph.nodes if key.startswith(f"dataset:{ref.name}@")]
    if len(versions) == 1 and "@" not in text:
        return versions[0]
    hint = f"there is {', '.join((versions or there)[:5])}" if versions or there else "no dataset was recorded yet"
    raise NotFound(f"there is no dataset {text!r:.80}; {hint}")


def _source(_workspace: Workspace, graph: Graph, text: str) -> str:
    places = [node.label for node in graph.nodes.values() if node.kind == "source"]
    raise NotFound(f"no dataset came from {text!r:.120}; there is {', '.join(places[:5]) or 'no known source'}")


def _artifact(graph: Graph, text: str) -> str:
    if len(text) < _SHORTEST_HASH or not re.fullmatch("[0-9a-f]+", text):
        raise InvalidName(f"{text!r:.80} is no hash of an artifact; give at least {_SHORTEST_HASH} of its hex digits")
    return _only([key for key in graph.nodes if key.startswith(f"artifact:{text}")], text, "artifact", graph)


def _run(workspace: Workspace, graph: Graph, text: str) -> str:
    if f"run:{text}" in graph.nodes:
        return f"run:{text}"
    runs = [node for node in graph.nodes.values() if node.kind == "run"]
    named = [node.key for node in runs if node.facts.get("name") == text and not node.facts.get("is_deleted")]
    if len(named) == 1:
        return named[0]
    if len(text) >= 4:
        fits = [node.key for node in runs if node.key[4:].startswith(text) or node.key.endswith(text)]
        if len(fits) == 1 and not named:
            return fits[0]
    return f"run:{workspace.run(text).id}"  # tells what is wrong


def _only(keys: Iterable[str], text: str, what: str, graph: Graph) -> str:
    found = list(keys)
    if not found:
        raise NotFound(f"no run logged an {what} with the hash {text!r:.80}")
    if len(found) > 1:
        listed = ", ".join(f"{key.partition(':')[2][:20]}… ({graph.node(key).label})" for key in found[:5])
        raise AmbiguousName(f"{text!r} fits {len(found)} of them: {listed}")
    return found[0]
