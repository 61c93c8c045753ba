"""The forms of what runs and lists of them are as JSON."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

Number = float | Literal["NaN", "Infinity", "-Infinity"]
Value = Any


class Who(BaseModel):
    """Who is logged in."""

    name: str
    role: str | None = Field(description="The highest role that they have anywhere.")
    roles: dict[str, str] = Field(description="By project; `*` for all.")


class ContentElsewhere(BaseModel):
    """What waits to be sent to the store elsewhere."""

    waiting_files: int
    waiting_bytes: int
    oldest_s: float = Field(description="How long ago the file that waits longest was stored; 0 where none waits.")
    is_away: bool = Field(description="The store takes nothing now.")


class Info(BaseModel):
    """What the page needs to begin."""

    version: str
    workspace: str
    user: Who | None
    read_only: bool
    features: list[str] = Field(description="Areas of the API that there are.")
    content_elsewhere: ContentElsewhere | None = Field(
        description="Null: there is no store elsewhere, or this server does not send to it."
    )


class Changes(BaseModel):
    """What changed since a cursor."""

    cursor: str
    runs: list[str] = Field(description="Runs that are new or differ.")
    removed: list[str]
    is_complete: bool = Field(description="False: the cursor is too old, load everything again.")
    projects_changed: bool
    models_changed: bool
    datasets_changed: bool
    sweeps_changed: bool


class Project(BaseModel):
    """A named group of runs."""

    name: str
    runs: int
    running: int
    last_started_at: float | None


class Projects(BaseModel):
    """All projects that one may see."""

    projects: list[Project]


class FieldOut(BaseModel):
    """A field of the filter language that runs have a value of."""

    name: str
    kind: str
    type: str
    runs: int


class Fields(BaseModel):
    """Fields."""

    fields: list[FieldOut]


class Option(BaseModel):
    """What may be written next."""

    start: int
    end: int
    text: str
    detail: str


class Completions(BaseModel):
    """What may be written next, the best first: replace the text from `start` to `end`."""

    options: list[Option]


class Group(BaseModel):
    """Runs that share what they are grouped by."""

    key: list[Value]
    runs: int
    columns: dict[str, dict[str, Number | None]]


class RunsPage(BaseModel):
    """Runs, column by column; or groups of them."""

    total: int
    cursor: str
    ids: list[str]
    columns: dict[str, list[Value]]
    groups: list[Group] | None = None
    troubles: list[str] = []


class MetricOut(BaseModel):
    """What a metric comes down to."""

    last: Number
    min: Number | None
    min_step: int | None
    max: Number | None
    max_step: int | None
    mean: Number | None
    count: int
    nan: int
    first_step: int
    last_step: int
    last_at: float


class ArtifactOut(BaseModel):
    """An artifact, without its files."""

    name: str
    is_folder: bool
    size_bytes: int
    files: int
    metadata: dict[str, Value]
    logged_at: float


class AttemptOut(BaseModel):
    """One process life of a run."""

    number: int
    status: str
    started_at: float
    ended_at: float | None
    rewind_step: int | None
    host: str
    pid: int


class FailureOut(BaseModel):
    """Why a run failed."""

    type: str
    message: str
    traceback: str
    rank: int


class LinkOut(BaseModel):
    """What a run used or made."""

    kind: str
    name: str
    version: str | None
    hash: str | None
    role: str | None
    at: float
    source: str | None


class AlertOut(BaseModel):
    """Something that somebody wanted to be told of."""

    id: str
    rule: str
    level: str
    title: str
    text: str
    at: float
    metric: str | None
    step: int | None
    value: Number | None
    deliveries: list[tuple[str, bool, str]] = Field(description="Who was told: name, whether it was taken, detail.")


class RunOut(BaseModel):
    """Everything of a run but its points."""

    id: str
    name: str
    project: str
    group: str | None
    notes: str | None
    parent: str | None
    status: str
    failure: FailureOut | None
    params: dict[str, Value]
    flat_params: dict[str, Value]
    tags: dict[str, str]
    artifacts: list[ArtifactOut]
    attempts: list[AttemptOut]
    started_at: float
    ended_at: float | None
    duration_s: float
    metrics: dict[str, MetricOut]
    records: list[str]
    inputs: list[LinkOut]
    outputs: list[LinkOut]
    warnings: list[str]
    alerts: list[AlertOut]
    dropped: int
    consoles: int
    has_environment: bool
    has_patch: bool
    pinned: bool
    archived: bool
    is_deleted: bool
    stop_requested: str | None
