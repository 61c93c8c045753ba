"""What every reader of another tool's store gives: runs, what they hold piece by piece, and registered models.

A reader knows its tool's format and nothing of Runstone's files; `writing` knows these and nothing of any tool.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from runstone.media import Medium
from runstone.values import JSON, Failure, Status


class Content(Protocol):
    """A file of a store, wherever it lies."""

    def opened(self) -> AbstractContextManager[Path]:
        """Give a path with its bytes, for as long as the block lasts.

        Raises:
            OSError: it cannot be read.
            InvalidValue: it is no regular file, or lies outside of the store.
        """


@dataclass(slots=True)
class Points:
    """Points of one metric, in the order in which they were logged.

    Attributes:
        name: Of the metric.
        steps, values, times: Of each point; times are seconds since the Unix epoch.
    """

    name: str
    steps: Sequence[int]
    values: Sequence[float | int | bool]
    times: Sequence[float]


@dataclass(slots=True)
class FoundMedium:
    """One medium or text at a step."""

    name: str
    step: int
    wall_s: float
    medium: Medium


@dataclass(slots=True)
class FoundArtifact:
    """A file or folder that a run made: its name, and the path of each file inside it."""

    name: str
    is_folder: bool
    files: list[tuple[str, Content]]
    at: float
    metadata: dict[str, JSON] = field(default_factory=dict)


@dataclass(slots=True)
class Printed:
    """What a run printed: stream (1: output, 2: errors, 3: both), bytes, when."""

    stream: int
    data: bytes
    at: float


@dataclass(slots=True)
class Linked:
    """What a run used (`input`) or made (`output`)."""

    direction: str
    kind: str
    name: str
    at: float
    version: str | None = None
    role: str | None = None
    source: str | None = None


Item = Points | FoundMedium | FoundArtifact | Printed | Linked
NotCarried = Counter[str]
"""How many of each kind have no place in a run, or could not be read."""


@dataclass(slots=True)
class FoundRun:
    """One run of another tool.

    Attributes:
        key: What tells it from all others of its tool, wherever its store lies.
        source: Where it was found, for people.
        items: Gives what it holds; asked once. What it cannot carry, it counts in `not_carried`.
        project: `None`: the one that the user names.
        parent: Key of the run that it belongs under.
        started_s, ended_s: Seconds since the Unix epoch; `None`: nobody says.
        status: `CRASHED` where nobody says how it ended.
        tags: Text by name.
        is_deleted: Whether it was deleted there.
        environment: Sections of an environment snapshot.
        patch: What was not committed.
        marks: Sizes or counts by name. A run whose marks are as they were is not read again.
        not_carried: See `NotCarried`.
    """

    key: str
    source: str
    name: str
    items: Callable[[], Iterable[Item]]
    project: str | None = None
    group: str | None = None
    notes: str | None = None
    parent: str | None = None
    started_s: float | None = None
    ended_s: float | None = None
    status: Status = Status.FINISHED
    failure: Failure | None = None
    params: dict[str, JSON] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    is_deleted: bool = False
    environment: dict[str, JSON] | None = None
    patch: bytes | None = None
    marks: dict[str, int] = field(default_factory=dict)
    not_carried: NotCarried = field(default_factory=Counter)


@dataclass(slots=True)
class FoundVersion:
    """One version of a registered model of another tool.

    Attributes:
        number: As the tool counts, from 1.
        files: Path inside the model, and content.
        run: Key of the run that made it.
        stage: `none`, `staging`, `production` or `archived`.
        missing: Why its files are not there; `None`: they are.
    """

    number: int
    files: list[tuple[str, Content]] = field(default_factory=list)
    run: str | None = None
    stage: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    notes: str | None = None
    missing: str | None = None


@dataclass(slots=True)
class FoundModel:
    """A registered model of another tool, with its versions in the order of their numbers."""

    key: str
    name: str
    versions: list[FoundVersion]
    aliases: dict[str, int] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    notes: str | None = None


@dataclass(slots=True)
class Reading:
    """What a reader is asked to read.

    Attributes:
        path: File or folder of the store.
        also_from: Further folders from which files may be taken.
        project: That the user names; `None`: as the store says.
        python: An interpreter that has the tool's library, where one is needed.
        scratch: A folder for temporary files.
        not_carried: What belongs to no run and cannot be carried.
    """

    path: Path
    scratch: Path
    also_from: tuple[Path, ...] = ()
    project: str | None = None
    python: str | None = None
    not_carried: NotCarried = field(default_factory=Counter)


Reader = Callable[[Reading], Iterator[FoundRun | FoundModel]]
