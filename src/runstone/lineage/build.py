"""Reads the lineage of a workspace from its files: journals of runs, histories of datasets and models.

There is no index: of a run only the lines of its journal that tell of links are parsed, so a thousand runs take a part
of a second.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runstone.blobs import Blobs
from runstone.datasets.history import DatasetState
from runstone.errors import FormatError, NotFound
from runstone.ledger import Ledger, ledgers
from runstone.lineage.graph import Graph, Node
from runstone.models.history import ARCHIVED, ModelState, ModelVersion
from runstone.models.manifest import Manifest
from runstone.runlog import format as fmt

# A journal's line is parsed only where one of these stands in its beginning.
_TELLING = tuple(
    f'"event":"{kind}"'.encode()
    for kind in ("created", "name", "group", "input", "output", "revoked", "end", "deleted", "restored")
)
_ARTIFACT = b'"event":"artifact"'
_SHOWN_HASH = 16


@dataclass(slots=True)
class _Run:
    """What a run's journals tell of links."""

    id: str
    name: str = ""
    project: str = ""
    group: str | None = None
    parent: str | None = None
    at: float = 0.0
    status: str | None = None
    is_deleted: bool = False
    revoked: str | None = None
    links: list[Mapping[str, Any]] = field(default_factory=list)
    artifacts: list[Mapping[str, Any]] = field(default_factory=list)


def build(workspace: Path, *, artifacts: Blobs | None = None) -> Graph:
    """Return the lineage of everything in a workspace.

    Args:
        workspace: Its folder.
        artifacts: The store, where artifacts that runs logged are wanted too, and which models consist of them; without
            it only those that a run used.

    Raises:
        LedgerDamaged: the history of a dataset or a model was changed.
    """
    graph = Graph()
    runs = list(_runs(workspace, artifacts is not None))
    made = {(link.get("name"), link.get("hash")) for run in runs for link in run.links if link["event"] == "output"}
    versions = _add_datasets(graph, workspace, made)
    for folder in ledgers(workspace / "models"):
        _add_model(graph, Ledger(folder), artifacts)
    used = {link.get("hash") for run in runs for link in run.links if link.get("kind") == "artifact"}
    for run in runs:
        _add_run(graph, run, versions)
    if used - {None} and artifacts is None:
        runs = list(_runs(workspace, is_all=True))
    for run in runs:
        _add_artifacts(graph, run, None if artifacts is not None else used)
    return graph


def dataset_key(name: str, version: object) -> str:
    """Return the key of a version of a dataset."""
    return f"dataset:{name}@{version}"


def model_key(name: str, version: object) -> str:
    """Return the key of a version of a model."""
    return f"model:{name}@{version}"


def incident_key(name: str, number: object) -> str:
    """Return the key of an incident of a model."""
    return f"incident:{name}#{number}"


# --- histories ------------------------------------------------------------------------------------------------------


def _add_datasets(graph: Graph, workspace: Path, made: Collection[tuple[Any, Any]]) -> dict[tuple[str, str], str]:
    """Add all versions of datasets; return their keys by name and hash of the content.

    A run that used data which had no version yet entered it into the history. That does not make it the run's: what
    runs made stands in `made`, and everything else came from where it was read.
    """
    keys: dict[tuple[str, str], str] = {}
    same: dict[str, list[str]] = {}
    for folder in ledgers(workspace / "datasets"):
        state = DatasetState.from_events(Ledger(folder).events())
        for version in state.versions.values():
            key = dataset_key(state.name, version.version)
            keys.setdefault((state.name, version.manifest), key)
            same.setdefault(version.manifest, []).append(key)
            facts = {
                "name": state.name,
                "version": version.version,
                "hash": version.manifest,
                "author": version.author,
                "size_bytes": version.size_bytes,
                "files": version.file_count,
            }
            graph.add(Node(key, "dataset", str(version), version.added_at, facts=facts))
            if (state.name, version.manifest) not in made:
                _add_source(graph, key, version.source)
            if version.revoked is not None:
                graph.revoked[key] = version.revoked.reason
    for alike in same.values():
        for revoked in [key for key in alike if key in graph.revoked]:
            for key in alike:  # the same content is no better under another name
                graph.revoked.setdefault(key, f"the same content as {revoked}: {graph.revoked[revoked]}")
    return keys


def _add_source(graph: Graph, key: str, source: Mapping[str, Any]) -> None:
    place = next((source[word] for word in ("url", "path", "query") if isinstance(source.get(word), str)), None)
    if place:
        graph.add(Node(f"source:{place}", "source", place, facts={"name": place}))
        graph.join(f"source:{place}", key, "read")


def _add_model(graph: Graph, ledger: Ledger, blobs: Blobs | None) -> None:
    events = ledger.events()
    state = ModelState.from_events(events)
    for version in state.versions.values():
        graph.add(_model_node(version))
        key = model_key(state.name, version.version)
        if version.run_id:
            graph.join(f"run:{version.run_id}", key, "made")
        if version.stage not in (state.stages[0], ARCHIVED) and version.withdrawn is None:
            stage = f"stage:{state.name}@{version.stage}"
            graph.add(Node(stage, "stage", version.stage, version.stage_since, facts={"name": state.name}))
            graph.join(key, stage, "stands")
        for alias in version.aliases:
            graph.add(Node(f"alias:{state.name}@{alias}", "alias", f"@{alias}", facts={"name": state.name}))
            graph.join(key, f"alias:{state.name}@{alias}", "stands")
        for one in version.deployments:
            if one.is_standing:
                place = f"deployment:{state.name}@{one.target}"
                facts = {"name": state.name, "url": one.url, "replicas": one.replicas}
                graph.add(Node(place, "deployment", one.target, one.at, facts=facts))
                graph.join(key, place, "stands")
        for incident in version.incidents:
            found = incident_key(state.name, incident.number)
            facts = {
                "name": state.name,
                "kind": incident.kind,
                "summary": incident.summary,
                "is_open": incident.is_open,
            }
            graph.add(Node(found, "incident", str(incident), incident.opened_at, facts=facts))
            graph.join(key, found, "caused")
        if blobs is not None:
            for content in _contents(version, blobs):
                graph.join(f"artifact:{content}", key, "derived")
    for event in events:
        if event.kind == "revoked":
            key, reason = model_key(state.name, event.fields["version"]), event.fields.get("reason")
            graph.revoked.pop(key, None)
            if reason is not None:
                graph.revoked[key] = reason


def _model_node(version: ModelVersion) -> Node:
    facts = {
        "name": version.model,
        "version": str(version.version),
        "hash": version.manifest,
        "author": version.author,
        "stage": version.stage,
        "aliases": list(version.aliases),
        "approval": version.approval.state,
        "deployed": [one.target for one in version.deployments if one.is_standing],
        "withdrawn": version.withdrawn,
    }
    return Node(model_key(version.model, version.version), "model", str(version), version.registered_at, facts=facts)


def _contents(version: ModelVersion, blobs: Blobs) -> list[str]:
    with contextlib.suppress(NotFound, FormatError, OSError):
        return [entry.hash for entry in Manifest.from_bytes(blobs.read(version.manifest)).files]
    return []


# --- runs -----------------------------------------------------------------------------------------------------------


def _runs(workspace: Path, is_all: bool) -> Iterator[_Run]:
    wanted = (*_TELLING, _ARTIFACT) if is_all else _TELLING
    for project in _folders(workspace / "runs"):
        for folder in _folders(project):
            run = _read(folder, wanted)
            if run is not None:
                yield run


def _folders(folder: str | Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _read(folder: str, wanted: tuple[bytes, ...]) -> _Run | None:
    events: list[dict[str, Any]] = []
    try:
        with os.scandir(folder) as entries:
            paths = [e.path for e in entries if e.name.startswith("journal.") and e.name.endswith(".jsonl")]
        for path in paths:
            with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (a thousand of them)
                lines = file.read().split(b"\n")
            telling = [line for line in lines[:-1] if any(word in line[:200] for word in wanted)]
            events += fmt.decode_events(b"\n".join([*telling, b""]))
    except OSError:
        return None
    if not events:
        return None
    run = _Run(os.path.basename(folder))  # noqa: PTH119
    for event in sorted(events, key=_time_of):
        with contextlib.suppress(TypeError, ValueError, KeyError, AttributeError):
            _apply(run, event)
    return run


def _time_of(event: Mapping[str, Any]) -> float:
    at = event.get("at")
    return float(at) if isinstance(at, (int, float)) else 0.0


def _apply(run: _Run, event: Mapping[str, Any]) -> None:
    match event["event"]:
        case "created":
            run.project, run.name, run.at = str(event["project"]), str(event["name"] or ""), _time_of(event)
            run.group, run.parent = _text(event.get("group")), _text(event.get("parent"))
        case "name":
            run.name = str(event["value"] or "")
        case "group":
            run.group = _text(event["value"])
        case "input" | "output":
            run.links.append(event)
        case "artifact":
            run.artifacts.append(event)
        case "revoked":
            run.revoked = _text(event.get("reason"))
        case "deleted" | "restored" as word:
            run.is_deleted = word == "deleted"
        case "end":
            run.status = _text(event.get("status"))


def _add_run(graph: Graph, run: _Run, versions: Mapping[tuple[str, str], str]) -> None:
    key = f"run:{run.id}"
    facts = {"name": run.name, "project": run.project, "status": run.status, "is_deleted": run.is_deleted}
    graph.add(Node(key, "run", run.name or run.id, run.at, run.group, facts))
    if run.parent:
        graph.join(f"run:{run.parent}", key, "nested")
    if run.revoked is not None:
        graph.revoked[key] = run.revoked
    for link in run.links:
        with contextlib.suppress(TypeError, KeyError):
            end = _end_of(graph, link, versions)
            if link["event"] == "input" and link["kind"] == "incident":
                graph.join(end, key, "caused", _text(link.get("role")))
            elif link["event"] == "input":
                graph.join(end, key, "used", _text(link.get("role")))
            else:
                graph.join(key, end, "made", _text(link.get("role")))


def _end_of(graph: Graph, link: Mapping[str, Any], versions: Mapping[tuple[str, str], str]) -> str:
    """Return the key of the dataset, model or artifact at the other end of a link."""
    kind, name, version, content = str(link["kind"]), str(link["name"]), link.get("version"), link.get("hash")
    if kind == "artifact":
        key = f"artifact:{content or name}"
        label = name
    elif kind == "dataset":
        known = versions.get((name, str(content)))
        short = str(content)[:_SHOWN_HASH] if content else "?"
        key = known or dataset_key(name, version or short)
        label = f"{name}@{version or short}"
    elif kind == "incident":
        key, label = incident_key(name, version), f"{name}#{version}"
    else:
        key, label = model_key(name, version), f"{name}@{version}"
    if key not in graph.nodes:
        facts = {"name": name, "version": version, "hash": content}
        graph.add(Node(key, kind, label, facts=facts))  # type: ignore[arg-type]
        if kind == "dataset" and link["event"] == "input" and isinstance(link.get("source"), str):
            _add_source(graph, key, {"path": link["source"]})
    return key


def _add_artifacts(graph: Graph, run: _Run, only: set[Any] | None) -> None:
    for event in run.artifacts:
        with contextlib.suppress(TypeError, KeyError, AttributeError):
            for file in event.get("files") or ():
                content = str(file["hash"])
                if only is not None and content not in only:
                    continue
                key = f"artifact:{content}"
                path = str(file["path"])
                name = str(event["name"])
                facts = {"name": name, "path": path, "hash": content, "size_bytes": file.get("size")}
                label = name if not event.get("folder") else f"{name}/{path}"
                graph.add(Node(key, "artifact", label, _time_of(event), facts=facts))
                graph.join(f"run:{run.id}", key, "made")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


__all__ = ["build", "dataset_key", "incident_key", "model_key"]
