"""Experiments: each is a project, under a number that it keeps. What projects do not have is kept here beside them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from runstone.errors import InvalidName
from runstone.names import check_name
from runstone.server.mlflow.errors import EXISTS, MlflowError, invalid, missing
from runstone.server.mlflow.filters import LISTED, NULLABLE, NUMERIC, TEXTUAL, Clause, Grammar, holds
from runstone.server.mlflow.lines import Lines

DEFAULT_ID, DEFAULT_NAME = "0", "Default"
_DEFAULT_PROJECT = "default"
MOST_NAME = 500
ROOT = "mlflow-artifacts:"

GRAMMAR = Grammar(
    entities={
        **dict.fromkeys(("attribute", "attributes", "attr"), "attribute"),
        **dict.fromkeys(("tag", "tags"), "tag"),
    },
    default="attribute",
    aliases={"created": "creation_time", "last_updated": "last_update_time"},
    operators={
        "attribute.name": TEXTUAL,
        "attribute.experiment_id": LISTED - {"LIKE", "ILIKE"},
        "attribute.creation_time": NUMERIC,
        "attribute.last_update_time": NUMERIC,
        "tag": NULLABLE,
    },
    numbers=frozenset({"creation_time", "last_update_time"}),
)


@dataclass(frozen=True, slots=True)
class Experiment:
    """A project as MLflow's clients see it.

    Attributes:
        id: Digits; `0` is the default one.
        project: The project that its runs are in.
        name: As clients see it; they may rename it, the project keeps its name.
        created_ms, updated_ms: Milliseconds since the epoch.
        tags: As they were set.
        is_deleted: Whether it is hidden.
        location: Where its artifacts are, for clients; empty: here.
    """

    id: str
    project: str
    name: str
    created_ms: int
    updated_ms: int
    tags: dict[str, str] = field(default_factory=dict)
    is_deleted: bool = False
    location: str = ""

    @property
    def artifact_location(self) -> str:
        """Where its artifacts are, for clients."""
        return self.location or f"{ROOT}/{self.id}"

    def shown(self) -> dict[str, Any]:
        """Return it as the protocol has it."""
        found: dict[str, Any] = {
            "experiment_id": self.id,
            "name": self.name,
            "artifact_location": self.artifact_location,
            "lifecycle_stage": "deleted" if self.is_deleted else "active",
            "last_update_time": self.updated_ms,
            "creation_time": self.created_ms,
        }
        if self.tags:
            found["tags"] = [{"key": key, "value": value} for key, value in self.tags.items()]
        return found

    def fits(self, clauses: Iterable[Clause]) -> bool:
        """Return whether all clauses of a filter hold."""
        return all(holds(clause, self._value(clause.entity, clause.key)) for clause in clauses)

    def _value(self, entity: str, key: str) -> Any:
        return self.tags.get(key) if entity == "tag" else self.attribute(key)

    def attribute(self, key: str) -> Any:
        """Return what a filter calls an attribute."""
        return {
            "name": self.name,
            "experiment_id": self.id,
            "creation_time": self.created_ms,
            "last_update_time": self.updated_ms,
        }[key]


_FIELDS = frozenset(one.name for one in fields(Experiment))


class Experiments:
    """The experiments of a workspace.

    Args:
        folder: Where this is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._lines = Lines(folder / "experiments.jsonl")
        self._by_id: dict[str, Experiment] = {}
        self._by_project: dict[str, str] = {}

    def _refresh(self) -> None:
        for told in self._lines.news():
            try:
                one = Experiment(**{name: told[name] for name in _FIELDS})
            except (KeyError, TypeError):
                continue  # damage
            self._by_id[one.id] = one
            self._by_project.setdefault(one.project, one.id)

    def _put(self, one: Experiment) -> Experiment:
        self._lines.add(asdict(one))
        self._refresh()
        return one

    def take_in(self, projects: Iterable[str]) -> None:
        """Give every project its number, and make sure that there is the default one."""
        self._refresh()
        wanted = [_DEFAULT_PROJECT, *projects]
        if all(project in self._by_project for project in wanted):
            return
        with self._lines.alone():
            self._refresh()
            for project in wanted:
                if project not in self._by_project:
                    self._put(self._new(project, DEFAULT_NAME if project == _DEFAULT_PROJECT else project))

    def _new(self, project: str, name: str, *, tags: Mapping[str, str] | None = None, location: str = "") -> Experiment:
        now = _now()
        taken = {one.name for one in self._by_id.values()}
        number = 2
        chosen = name
        while chosen in taken:  # a client gave another project this name
            chosen, number = f"{name} ({number})", number + 1
        own = DEFAULT_ID if project == _DEFAULT_PROJECT else str(max(map(int, self._by_id), default=0) + 1)
        return Experiment(own, project, chosen, now, now, dict(tags or {}), location=location)

    def create(self, name: str, tags: Mapping[str, str], location: str) -> Experiment:
        """Make an experiment; its project comes to be with its first run.

        Raises:
            MlflowError: there is one of this name, deleted or not; the name cannot be kept.
        """
        try:
            check_name(name, "experiment")
        except InvalidName as error:
            raise invalid(f"Invalid experiment name: {error}") from None
        if len(name) > MOST_NAME:
            raise invalid(f"'name' exceeds the maximum length of {MOST_NAME} characters")
        with self._lines.alone():
            self._refresh()
            if name in self._by_project or self.named(name) is not None:
                raise MlflowError(EXISTS, f"Experiment(name={name}) already exists")
            return self._put(self._new(name, name, tags=tags, location=location))

    def all(self) -> list[Experiment]:
        """Return all of them, deleted ones too."""
        self._refresh()
        return list(self._by_id.values())

    def named(self, name: str) -> Experiment | None:
        """Return the one of this name."""
        self._refresh()
        return next((one for one in self._by_id.values() if one.name == name), None)

    def find(self, experiment_id: str) -> Experiment | None:
        """Return the one of this id."""
        self._refresh()
        return self._by_id.get(experiment_id)

    def get(self, experiment_id: str) -> Experiment:
        """Return the one of this id.

        Raises:
            MlflowError: there is none.
        """
        found = self.find(experiment_id)
        if found is None:
            raise missing(f"No Experiment with id={experiment_id:.80} exists")
        return found

    def of_project(self, project: str) -> Experiment:
        """Return the experiment that a project is."""
        self._refresh()
        if project not in self._by_project:
            self.take_in([project])
        return self._by_id[self._by_project[project]]

    def change(self, experiment_id: str, **changes: Any) -> Experiment:
        """Change fields of one.

        Raises:
            MlflowError: another has the name that it should have.
        """
        with self._lines.alone():
            one = self.get(experiment_id)
            other = self.named(changes["name"]) if "name" in changes else None
            if other is not None and other.id != one.id:
                raise MlflowError(EXISTS, f"Experiment(name={other.name}) already exists")
            return self._put(replace(one, updated_ms=max(_now(), one.updated_ms), **changes))


def _now() -> int:
    return time.time_ns() // 1_000_000
