"""What the routes of the protocol share: who may reach which run, and how it is shown."""

from __future__ import annotations

import os
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import Request
from starlette.responses import Response

from runstone.errors import InvalidName, MetricNotFound
from runstone.index.records import RunRecord
from runstone.runinfo import RunInfo
from runstone.runlog.reader import JournalState, read_events, read_journal
from runstone.server.errors import ApiError
from runstone.server.jsons import dumps
from runstone.server.mlflow.asking import Fields
from runstone.server.mlflow.errors import MlflowError, invalid, missing
from runstone.server.mlflow.experiments import Experiment, Experiments
from runstone.server.mlflow.logged import LoggedModels
from runstone.server.mlflow.loose import Loose
from runstone.server.mlflow.parts import Uploads
from runstone.server.mlflow.registry import Registry
from runstone.server.mlflow.shown import ShownRuns
from runstone.server.mlflow.taken import Taken
from runstone.server.mlflow.values import INPUTS, OUTPUTS, Metric, Seen, seen_record, seen_run
from runstone.server.mlflow.writers import UNORDERED, Writers
from runstone.server.roles import Principal, Role
from runstone.server.state import State, reach_folder
from runstone.values import FileEntry
from runstone.workspace import Workspace

FOLDER = "mlflow"
_MOST_PROJECTS = 100_000
_MOST_LISTED = 256
_MOST_LATEST = 4_096
_IN_FILES = (INPUTS, OUTPUTS, UNORDERED)
"""Tags that say that the files of a run tell what the index does not."""


class Mlflow:
    """The protocol over one workspace.

    Args:
        state: What all requests to the server share.

    Attributes:
        key: Makes the tickets of downloads; other than those of uploads they end with the server.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.workspace: Workspace = state.workspace
        self.folder = state.workspace.path / FOLDER
        self.experiments = Experiments(self.folder)
        self.writers = Writers(state.workspace)
        self.models = LoggedModels(self.folder)
        self.registry = Registry(state.workspace, self.folder)
        self.loose = Loose(self.folder, state.workspace, self.writers)
        self.uploads = Uploads(self.folder / "uploads")
        self.key = secrets.token_bytes(32)
        self.taken = Taken()
        self._shown = ShownRuns()
        self._latest: OrderedDict[str, tuple[bytes, Mapping[str, Metric]]] = OrderedDict()
        self._listed: OrderedDict[tuple[Path, str], tuple[Any, dict[str, FileEntry]]] = OrderedDict()
        self._listed_lock = threading.Lock()

    def close(self) -> None:
        """Let go of what is open."""
        self.writers.close()

    # --- experiments -----------------------------------------------------------------------------------------------

    def projects(self) -> list[Experiment]:
        """Return all experiments; projects that are new become some."""
        page = self.state.index.page_of_runs("", group_by=["project"], limit=_MOST_PROJECTS, archived=None)
        self.experiments.take_in(str(group.key[0]) for group in page.groups if group.key[0])
        return self.experiments.all()

    def experiment(self, principal: Principal, experiment_id: str, role: Role = Role.VIEWER) -> Experiment:
        """Return an experiment that somebody may reach.

        Raises:
            MlflowError: there is none, or they may not see that there is; they may see it, but not do this.
        """
        found = self.experiments.find(experiment_id)
        if found is None:
            check_experiment_id(experiment_id)
            self.projects()
            found = self.experiments.get(experiment_id)
        if not principal.may(Role.VIEWER, found.project):
            raise missing(f"No Experiment with id={experiment_id:.80} exists")
        check_role(principal, role, found.project)
        return found

    # --- runs ------------------------------------------------------------------------------------------------------

    def reach(self, principal: Principal, run_id: str, role: Role = Role.VIEWER) -> Path:
        """Return the folder of a run that somebody may reach.

        Raises:
            MlflowError: there is none, or they may not see that there is; they may see it, but not do this.
        """
        try:
            return reach_folder(self.state, principal, run_id, role)
        except ApiError as error:
            if error.code == "forbidden":
                raise MlflowError("PERMISSION_DENIED", error.message) from None
            raise missing(f"Run with id={run_id:.80} not found") from None

    def run_folder(self, run_id: str) -> Path | None:
        """Return the folder of a run, whoever asks; `None` where there is none of this id, or it is no id."""
        try:
            return self.workspace.find_run_folder(run_id)
        except InvalidName:
            return None

    def seen(self, folder: Path) -> Seen:
        """Return a run as its files have it now."""
        info = RunInfo(folder)
        found = seen_run(info)
        self.complete(found, folder, info)
        return found

    def complete(self, found: Seen, folder: Path, info: RunInfo | None = None) -> None:
        """Add what only the files of a run tell, where its tags say that there is such."""
        if INPUTS in found.tags or OUTPUTS in found.tags:
            found.inputs, found.outputs = links_of(folder)
        if UNORDERED in found.tags and not found.latest:
            info = info or RunInfo(folder)
            found.latest = {name: latest for name in info.metrics if (latest := _latest(info, name)) is not None}

    def files_of(
        self, folder: Path, part: str, read: Callable[[JournalState], dict[str, FileEntry]]
    ) -> dict[str, FileEntry]:
        """Return files of a run by path, as they were read last, unless its journals have grown.

        Args:
            folder: Of the run.
            part: Names what `read` picks.
            read: Picks the files from what the journals say.
        """
        with os.scandir(folder) as entries:
            mark = sorted((one.name, one.stat().st_size) for one in entries if one.name.startswith("journal."))
        with self._listed_lock:
            kept = self._listed.get((folder, part))
        if kept is not None and kept[0] == mark:
            return kept[1]
        found = read(read_journal(folder))
        with self._listed_lock:
            self._listed[folder, part] = (mark, found)
            self._listed.move_to_end((folder, part))
            if len(self._listed) > _MOST_LISTED:
                self._listed.popitem(last=False)
        return found

    def root(self, experiment: Experiment, run_id: str) -> str:
        """Return where the artifacts of a run are, for clients."""
        return f"{experiment.artifact_location}/{run_id}/artifacts"

    def shown_run(self, found: Seen) -> dict[str, Any]:
        """Return a run as the protocol has it."""
        experiment = self.experiments.of_project(found.project)
        return found.shown(experiment.id, self.root(experiment, found.id))

    def shown_record(self, record: RunRecord) -> bytes:
        """Return a run that the index found, as JSON of the protocol."""
        if any(tag in record.tags for tag in _IN_FILES):
            return dumps(self.shown_run(self.completed(record)))
        return self._shown.bytes_of(record, lambda one: self.shown_run(seen_record(one)))

    def completed(self, record: RunRecord) -> Seen:
        """Return a run that the index found, with what only its files tell."""
        found, figures = seen_record(record), record.metrics.data
        if not any(tag in record.tags for tag in _IN_FILES):
            return found
        kept = self._latest.get(record.id)
        if kept is not None and kept[0] == figures:
            found.latest = kept[1]
        self.complete(found, self.workspace.path / "runs" / record.folder)
        if found.latest:
            with self._listed_lock:
                self._latest[record.id] = (figures, found.latest)
                while len(self._latest) > _MOST_LATEST:
                    self._latest.popitem(last=False)
        return found


@dataclass(frozen=True, slots=True)
class Call:
    """One request to the protocol.

    Attributes:
        mlflow: What it is about.
        principal: Who sends it.
        fields: Of its body or its query.
        path: Params of its path.
        request: The request itself.
    """

    mlflow: Mlflow
    principal: Principal
    fields: Fields
    path: Mapping[str, str]
    request: Request

    def run(self, role: Role = Role.VIEWER) -> Path:
        """Return the folder of the run that it names."""
        return self.mlflow.reach(self.principal, self.fields.run_id(), role)

    def experiment(self, role: Role = Role.VIEWER) -> Experiment:
        """Return the experiment that it names."""
        return self.mlflow.experiment(self.principal, self.fields.required("experiment_id"), role)


Handler = Callable[[Call], dict[str, Any] | Response]


def check_experiment_id(experiment_id: str) -> None:
    """Refuse what is no id of an experiment.

    Raises:
        MlflowError: it is no integer.
    """
    if re.fullmatch(r"-?[0-9]+", experiment_id) is None:
        raise invalid(f"Invalid experiment ID '{experiment_id:.80}'. Experiment ID must be a valid integer.")


def check_role(principal: Principal, role: Role, project: str | None = None) -> None:
    """Refuse somebody who does not hold a role.

    Raises:
        MlflowError: they do not.
    """
    if not principal.may(role, project):
        raise MlflowError("PERMISSION_DENIED", f"this needs the role {role.value!r}")


def links_of(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return what clients said that a run used and made, each thing once, as the protocol has it."""
    inputs: dict[str, dict[str, Any]] = {}
    outputs: dict[str, dict[str, Any]] = {}
    for _writer, event in read_events(folder):
        told = event.get("input") or event.get("output")
        if not isinstance(told, dict):
            continue
        if event["event"] == "mlflow_input":
            inputs.setdefault(input_key(told), told)
        elif event["event"] == "mlflow_output":
            outputs.setdefault(f"{told.get('model_id')} {told.get('step')}", told)
    return list(inputs.values()), list(outputs.values())


def input_key(told: Mapping[str, Any]) -> str:
    """Return what is equal for inputs that are the same."""
    dataset = told.get("dataset_input", {}).get("dataset", {})
    return f"{dataset.get('name')} {dataset.get('digest')} {told.get('model_input', {}).get('model_id')}"


def points_of(info: RunInfo, name: str) -> list[Metric]:
    """Return all points of a metric, each once, in the order of time, step and value; none where it is none."""
    try:
        series = info.series(name, attempt="all")
    except MetricNotFound:
        return []
    if series.value.dtype.kind not in "fiub":
        return []
    columns = zip(series.value.tolist(), series.wall_s.tolist(), series.step.tolist(), strict=True)
    found = {one.identity: one for one in (Metric(name, float(v), round(at * 1000), step) for v, at, step in columns)}
    return sorted(found.values(), key=lambda one: (one.timestamp_ms, *one.rank))


def _latest(info: RunInfo, name: str) -> Metric | None:
    return max(points_of(info, name), key=lambda one: one.rank, default=None)
