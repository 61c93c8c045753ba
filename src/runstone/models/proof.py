"""What gates ask of a workspace: metrics, the same recipe with other seeds, artifacts, and what was revoked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from runstone.errors import NotFound
from runstone.models.evidence import CHANCE
from runstone.models.history import ModelVersion
from runstone.models.manifest import Manifest
from runstone.models.saving import read_manifest
from runstone.names import SYSTEM, folder_name
from runstone.params import flatten_params
from runstone.runinfo import RunInfo
from runstone.status import Status

if TYPE_CHECKING:
    from runstone.lineage import Graph
    from runstone.workspace import Workspace


class WorkspaceEvidence:
    """The answers, from the files of one workspace as they are when it is first asked.

    Args:
        workspace: Where they lie.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._manifests: dict[str, Manifest] = {}
        self._projects: dict[str, list[RunInfo]] = {}

    @cached_property
    def graph(self) -> Graph:
        """The lineage of the workspace."""
        from runstone.lineage import build  # it reads the histories of models, too

        return build(self._workspace.path)

    def manifest(self, version: ModelVersion) -> Manifest:
        """Return what a version consists of."""
        if version.manifest not in self._manifests:
            self._manifests[version.manifest] = read_manifest(version, self._workspace.blobs)
        return self._manifests[version.manifest]

    def metrics(self, version: ModelVersion) -> Mapping[str, float]:
        """Return a version's metrics: what was known when it was registered counts most.

        What else there is comes from finished runs that used the version, the newest first, and from what its own run
        logged later under other names.
        """
        found = dict(self.manifest(version).metrics)
        for run in [*self._evaluations(version), *self._own_run(version)]:
            for name, summary in run.metrics.items():
                if not name.startswith(SYSTEM) and not math.isnan(summary.last):
                    found.setdefault(name, float(summary.last))
        return found

    def over_seeds(self, version: ModelVersion, metric: str) -> Sequence[float]:
        """Return a metric of a version, and of the finished runs that differ from its own by the seed alone.

        They lie in the same project and group, and have the same params and data. One that repeats a seed, or the very
        value where no seed is known, tells nothing new and is left out: it would make chance look smaller than it is.
        """
        own = self.metrics(version).get(metric)
        if own is None:
            return []
        run = next(iter(self._own_run(version)), None)
        return [own] if run is None else over_seeds(run, own, self._project(run.project), metric)

    def artifacts(self, version: ModelVersion) -> Sequence[str]:
        """Return the artifacts of a version's run, and of the runs that evaluated it."""
        runs = [*self._own_run(version), *self._evaluations(version)]
        return [artifact.name for run in runs for artifact in run.artifacts]

    def revoked(self, version: ModelVersion) -> Sequence[str]:
        """Return what was revoked of all that a version descends from, each with its reason."""
        causes = self.graph.causes(f"model:{version.model}@{version.version}")
        return [f"{key} was revoked: {reason}" for key, reason in causes.items()]

    def _own_run(self, version: ModelVersion) -> list[RunInfo]:
        run_id = version.run_id or str((self.manifest(version).run or {}).get("id") or "")
        return list(self._runs([run_id]) if run_id else ())

    def _evaluations(self, version: ModelVersion) -> list[RunInfo]:
        """Return the finished runs that used a version, the newest first."""
        key = f"model:{version.model}@{version.version}"
        used = [edge.target for edge in self.graph.around(key, up=False, depth=1).edges if edge.relation == "used"]
        runs = [run for run in self._runs([one.removeprefix("run:") for one in used]) if not run.is_deleted]
        finished = [run for run in runs if run.status is Status.FINISHED]
        return sorted(finished, key=lambda run: run.started_at, reverse=True)

    def _runs(self, ids: Sequence[str]) -> Iterator[RunInfo]:
        for run_id in ids:
            folder = self._workspace.find_run_folder(run_id)
            if folder is not None:
                yield RunInfo(folder)

    def _project(self, project: str) -> list[RunInfo]:
        if project not in self._projects:
            found = []
            for folder in sorted((self._workspace.path / "runs" / folder_name(project)).iterdir()):
                try:
                    run = RunInfo(folder)
                except (NotFound, OSError):
                    continue
                if not run.is_deleted:
                    found.append(run)
            self._projects[project] = found
        return self._projects[project]


def over_seeds(run: RunInfo, own: float, others: Iterable[RunInfo], metric: str) -> list[float]:
    """Return a run's value of a metric, and those of the finished runs among others that differ by the seed alone."""
    values, recipe, seen = [own], _recipe(run), {_throw(run, own)}
    for other in others:
        if other.id == run.id or _recipe(other) != recipe or other.status is not Status.FINISHED:
            continue
        summary = other.metrics.get(metric)
        if summary is None or (throw := _throw(other, float(summary.last))) in seen:
            continue
        seen.add(throw)
        values.append(float(summary.last))
    return values


def _recipe(run: RunInfo) -> tuple[Any, ...]:
    """Return what two runs must share to differ by chance alone."""
    params = {name: repr(value) for name, value in flatten_params(run.params).items() if not _is_seed(name)}
    data = {link.key for link in run.inputs if link.kind in ("dataset", "model")}
    return run.project, run.group, params, data


def _throw(run: RunInfo, value: float) -> tuple[Any, ...]:
    """Return what tells one throw of the dice from another."""
    seeds = {name: repr(seed) for name, seed in flatten_params(run.params).items() if _is_seed(name)}
    return tuple(sorted(seeds.items())) if seeds else ("value", value)


def _is_seed(name: str) -> bool:
    return name.rpartition(".")[2] in CHANCE
