"""Runs as MLflow's clients see them, and what they send as it is kept. Knows no HTTP and writes nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from runstone.index.records import RunRecord, unescaped
from runstone.params import flatten_params
from runstone.runinfo import RunInfo
from runstone.server.mlflow.asking import pairs
from runstone.status import Status
from runstone.values import JSON, MetricSummary

HIDDEN = "runstone.mlflow."
"""How tags begin that hold what MLflow has and a run has not; its clients do not see them."""
STATUS, END_TIME, USER = HIDDEN + "status", HIDDEN + "end_time", HIDDEN + "user_id"
INPUTS, OUTPUTS, HOLDER = HIDDEN + "inputs", HIDDEN + "outputs", HIDDEN + "holder"
NAME_TAG, NOTE_TAG, PARENT_TAG, USER_TAG = "mlflow.runName", "mlflow.note.content", "mlflow.parentRunId", "mlflow.user"
LARGEST = 1.7976931348623157e308

OF_STATUS = {
    Status.RUNNING: "RUNNING",
    Status.FINISHED: "FINISHED",
    Status.FAILED: "FAILED",
    Status.CRASHED: "FAILED",
    Status.STOPPED: "KILLED",
    Status.PRUNED: "KILLED",
}
TO_STATUS = {"FINISHED": Status.FINISHED, "FAILED": Status.FAILED, "KILLED": Status.STOPPED}
STATUSES = ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")


class Metric(NamedTuple):
    """One point as a client sends it."""

    key: str
    value: float
    timestamp_ms: int
    step: int

    @property
    def identity(self) -> tuple[Any, ...]:
        """Equal for points that are the same."""
        return (self.key, self.timestamp_ms, self.step, "nan" if self.value != self.value else self.value)

    @property
    def rank(self) -> tuple[int, float, float]:
        """Of two points of a metric, the one with the higher rank is the latest to MLflow."""
        return (self.step, self.timestamp_ms / 1000, 0.0 if self.value != self.value else self.value)


def shown_number(value: float) -> float | str:
    """Return a value as MLflow has it: infinities as the largest floats, NaN as a word."""
    if value != value:
        return "NaN"
    return float(min(max(value, -LARGEST), LARGEST)) if math.isinf(value) else float(value)


def typed(text: str) -> JSON:
    """Return the number or bool that a param's text stands for where that gives the very same text, else the text."""
    if text in ("True", "False"):
        return text == "True"
    if len(text) > 40 or not text or text[-1] not in "0123456789":
        return text
    try:
        number: int | float = int(text) if text.lstrip("-").isdecimal() else float(text)
    except ValueError:
        return text
    is_kept = str(number) == text and (isinstance(number, int) or math.isfinite(number))
    return number if is_kept and abs(number) < 1 << 63 else text


def param_text(value: JSON) -> str:
    """Return a param as text."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)


def plain_params(params: Mapping[str, JSON]) -> dict[str, str]:
    """Return nested params as texts by dotted names."""
    return {unescaped(name): param_text(value) for name, value in flatten_params(params).items()}


@dataclass(slots=True)
class Seen:
    """A run as it is read, from its files or from the index.

    Attributes:
        started_s, ended_s: Seconds since the epoch.
        latest: Points that are the latest of their metrics to MLflow, where those are not the last ones.
        inputs, outputs: As the protocol has them.
    """

    id: str
    project: str
    name: str
    status: Status
    started_s: float
    ended_s: float | None
    params: Mapping[str, JSON]
    tags: Mapping[str, str]
    metrics: Mapping[str, MetricSummary]
    is_deleted: bool
    notes: str | None
    parent: str | None
    latest: Mapping[str, Metric]
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]

    def latest_value(self, name: str) -> float | None:
        """Return the value of the point of a metric that is the latest to MLflow; `None` where there is none."""
        if name in self.latest:
            return self.latest[name].value
        return float(self.metrics[name].last) if name in self.metrics else None

    @property
    def status_word(self) -> str:
        """Its status, as MLflow says it."""
        word = OF_STATUS[self.status]
        return self.tags.get(STATUS, word) if word == "RUNNING" else word

    @property
    def end_ms(self) -> int | None:
        """When it ended, or as a client says that it did; milliseconds since the epoch."""
        told = self.tags.get(END_TIME, "")
        if told.lstrip("-").isdecimal():
            return int(told)
        return round(self.ended_s * 1000) if self.ended_s is not None else None

    @property
    def start_ms(self) -> int:
        """When it began, in milliseconds since the epoch."""
        return round(self.started_s * 1000)

    @property
    def user(self) -> str:
        """Who ran it."""
        return self.tags.get(USER) or self.tags.get(USER_TAG, "")

    @property
    def shown_tags(self) -> dict[str, str]:
        """The tags that clients see: its own, and those by which MLflow says what a run says otherwise."""
        found = {key: value for key, value in self.tags.items() if not key.startswith(HIDDEN)}
        found[NAME_TAG] = self.name
        if self.notes:
            found.setdefault(NOTE_TAG, self.notes)
        if self.parent:
            found.setdefault(PARENT_TAG, self.parent)
        return found

    @property
    def dataset_inputs(self) -> list[dict[str, Any]]:
        """The data that it used, as the protocol has it."""
        return [one["dataset_input"] for one in self.inputs if "dataset_input" in one]

    def info(self, experiment_id: str, root: str) -> dict[str, Any]:
        """Return its `info`.

        Args:
            experiment_id: Of its experiment.
            root: Where its artifacts are.
        """
        found: dict[str, Any] = {
            "run_uuid": self.id,
            "run_id": self.id,
            "experiment_id": experiment_id,
            "run_name": self.name,
            "user_id": self.user,
            "status": self.status_word,
            "start_time": self.start_ms,
            "artifact_uri": root,
            "lifecycle_stage": "deleted" if self.is_deleted else "active",
        }
        if self.end_ms is not None:
            found["end_time"] = self.end_ms
        return found

    def shown(self, experiment_id: str, root: str) -> dict[str, Any]:
        """Return all of it, as the protocol has it."""
        data: dict[str, Any] = {}
        metrics = [self._metric(name, found) for name, found in self.metrics.items()]
        params = pairs(plain_params(self.params))
        for name, found in (("metrics", metrics), ("params", params), ("tags", pairs(self.shown_tags))):
            if found:
                data[name] = found
        inputs: dict[str, Any] = {}
        datasets = self.dataset_inputs
        models = [one["model_input"] for one in self.inputs if "model_input" in one]
        if datasets:
            inputs["dataset_inputs"] = datasets
        if models:
            inputs["model_inputs"] = models
        shown: dict[str, Any] = {"info": self.info(experiment_id, root), "data": data}
        if inputs:
            shown["inputs"] = inputs
        if self.outputs:
            shown["outputs"] = {"model_outputs": self.outputs}
        return shown

    def _metric(self, name: str, found: MetricSummary) -> dict[str, Any]:
        latest = self.latest.get(name)
        if latest is not None:
            return shown_metric(latest)
        value, at_ms = shown_number(float(found.last)), round(found.last_at * 1000)
        return {"key": name, "value": value, "timestamp": at_ms, "step": found.last_step}


def shown_metric(one: Metric) -> dict[str, Any]:
    """Return a point as the protocol has it."""
    return {"key": one.key, "value": shown_number(one.value), "timestamp": one.timestamp_ms, "step": one.step}


def seen_record(record: RunRecord) -> Seen:
    """Return a run as the index has it."""
    return Seen(
        record.id,
        record.project,
        record.name,
        record.status,
        record.started_at,
        record.ended_at,
        record.params,
        record.tags,
        record.metrics,
        record.is_deleted,
        record.notes,
        record.parent,
        {},
        [],
        [],
    )


def seen_run(info: RunInfo) -> Seen:
    """Return a run as its files have it."""
    return Seen(
        info.id,
        info.project,
        info.name,
        info.status,
        info.started_at.timestamp(),
        info.ended_at.timestamp() if info.ended_at is not None else None,
        info.params,
        info.tags,
        info.metrics,
        info.is_deleted,
        info.notes,
        info.parent,
        {},
        [],
        [],
    )
