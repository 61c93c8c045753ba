"""The registry as MLflow's clients see it: its versions 1, 2, 3 are ours in the order in which they were registered."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runstone.errors import FormatError, InvalidName, InvalidValue, NotFound
from runstone.models import Model, Models, ModelState, ModelVersion, read_manifest
from runstone.models.hooks import announcer
from runstone.models.promotion import promote
from runstone.server.mlflow.errors import EXISTS, MlflowError, invalid, missing
from runstone.server.mlflow.filters import LISTED, NUMERIC, TEXTUAL, Clause, Grammar, holds
from runstone.server.mlflow.lines import Lines
from runstone.server.mlflow.values import HIDDEN
from runstone.values import FileEntry
from runstone.workspace import Workspace

DELETED, BASE, SINCE = HIDDEN + "deleted", HIDDEN + "base", HIDDEN + "since"
SOURCE, RUN_ID, RUN_LINK, MODEL_ID = HIDDEN + "source", HIDDEN + "run_id", HIDDEN + "run_link", HIDDEN + "model_id"
PROMPT = "mlflow.prompt.is_prompt"
STAGES = ("None", "Staging", "Production", "Archived")
_ALIAS_PREFIX = "alias."
_OF_ONE = frozenset({"noted", "tagged"})
_OF_ALIAS = frozenset({"aliased"})
_ENTITIES = {
    **dict.fromkeys(("attribute", "attributes", "attr"), "attribute"),
    **dict.fromkeys(("tag", "tags"), "tag"),
}
MODELS = Grammar(
    entities=_ENTITIES,
    default="attribute",
    aliases={"timestamp": "last_updated_timestamp"},
    operators={
        "attribute.name": LISTED,
        "attribute.last_updated_timestamp": NUMERIC,
        "attribute.creation_timestamp": NUMERIC,
        "tag": TEXTUAL,
    },
    numbers=frozenset({"last_updated_timestamp", "creation_timestamp"}),
)
VERSIONS = Grammar(
    entities=_ENTITIES,
    default="attribute",
    aliases={"source": "source_path"},
    operators={
        "attribute.name": LISTED,
        "attribute.run_id": LISTED,
        "attribute.source_path": TEXTUAL,
        "attribute.version_number": NUMERIC,
        "attribute.last_updated_timestamp": NUMERIC,
        "attribute.creation_timestamp": NUMERIC,
        "tag": TEXTUAL,
    },
    numbers=frozenset({"version_number", "last_updated_timestamp", "creation_timestamp"}),
    quotable=frozenset({"version_number"}),
)


@dataclass(frozen=True, slots=True)
class Version:
    """A version as MLflow's clients see it: a number beside ours.

    Attributes:
        name: Of the model, as clients call it.
        number: From 1.
        own: What our registry says of it.
        stages: Of the model.
        updated_s: When something was said of it last, seconds since the epoch.
    """

    name: str
    number: int
    own: ModelVersion
    stages: tuple[str, ...]
    updated_s: float

    @property
    def stage(self) -> str:
        """Its stage, as MLflow says it."""
        if self.own.stage == self.stages[0]:
            return STAGES[0]
        return next((word for word in STAGES[1:] if word.lower() == self.own.stage), self.own.stage)

    @property
    def tags(self) -> dict[str, str]:
        """The tags that clients see."""
        return {key: value for key, value in self.own.tags.items() if not key.startswith(HIDDEN)}

    @property
    def run_id(self) -> str:
        """The run that made it; empty where none did."""
        return self.own.tags.get(RUN_ID) or self.own.run_id or ""

    @property
    def source(self) -> str:
        """Where its files are, for clients; of a version that none of them made, in this registry."""
        return self.own.tags.get(SOURCE) or f"mlflow-artifacts:/registry/{self.own.model}/{self.number}"

    def shown(self) -> dict[str, Any]:
        """Return it as the protocol has it."""
        found: dict[str, Any] = {
            "name": self.name,
            "version": str(self.number),
            "creation_timestamp": round(self.own.registered_at * 1000),
            "last_updated_timestamp": round(self.updated_s * 1000),
            "current_stage": self.stage,
            "description": self.own.notes or "",
            "source": self.source,
            "run_id": self.run_id,
            "run_link": self.own.tags.get(RUN_LINK, ""),
            "status": "READY",
        }
        if self.tags:
            found["tags"] = [{"key": key, "value": value} for key, value in self.tags.items()]
        if self.own.aliases:
            found["aliases"] = [shown_alias(alias) for alias in self.own.aliases]
        if MODEL_ID in self.own.tags:
            found["model_id"] = self.own.tags[MODEL_ID]
        return found

    def fits(self, clauses: list[Clause]) -> bool:
        """Return whether all clauses of a filter hold."""
        return all(holds_of(clause, self.tags, self.attribute(clause.key, clause.entity)) for clause in clauses)

    def attribute(self, key: str, entity: str = "attribute") -> Any:
        """Return what a filter or an order calls an attribute."""
        if entity == "tag":
            return None
        return {
            "name": self.name,
            "run_id": self.run_id,
            "source_path": self.source,
            "version_number": self.number,
            "creation_timestamp": round(self.own.registered_at * 1000),
            "last_updated_timestamp": round(self.updated_s * 1000),
        }[key]


@dataclass(frozen=True, slots=True)
class Registered:
    """A model as MLflow's clients see it.

    Attributes:
        name: As clients call it.
        model: Ours.
        tags: That clients see.
        versions: That may be used, by number.
        created_s, updated_s: Seconds since the epoch.
    """

    name: str
    model: Model
    notes: str
    tags: Mapping[str, str]
    versions: Mapping[int, Version]
    aliases: Mapping[str, int]
    created_s: float
    updated_s: float

    def shown(self) -> dict[str, Any]:
        """Return it as the protocol has it."""
        found: dict[str, Any] = {
            "name": self.name,
            "creation_timestamp": round(self.created_s * 1000),
            "last_updated_timestamp": round(self.updated_s * 1000),
            "description": self.notes,
        }
        if self.latest():
            found["latest_versions"] = [one.shown() for one in self.latest()]
        if self.tags:
            found["tags"] = [{"key": key, "value": value} for key, value in self.tags.items()]
        if self.aliases:
            found["aliases"] = [{"alias": alias, "version": str(number)} for alias, number in self.aliases.items()]
        return found

    def latest(self) -> list[Version]:
        """Return the newest version of each stage."""
        return list({one.stage: one for _number, one in sorted(self.versions.items())}.values())

    def version(self, text: str) -> Version:
        """Return a version by its number.

        Raises:
            MlflowError: it is no number, or there is no such version.
        """
        if re.fullmatch(r"-?[0-9]{1,12}", text) is None:
            raise invalid(f"Parameter 'version' must be an integer, got '{text:.80}'.")
        found = self.versions.get(int(text))
        if found is None:
            raise missing(f"Model Version (name={self.name}, version={text}) not found")
        return found

    def own_stage(self, stage: str) -> str:
        """Return a stage as we call it.

        Raises:
            MlflowError: the model has none of this name.
        """
        stages, word = self.model.state().stages, stage.strip().lower()
        own = stages[0] if word == "none" else next((known for known in stages if known.lower() == word), None)
        if own is None:
            raise invalid(f"Invalid Model Version stage: {stage:.80}. Value must be one of {', '.join(STAGES)}.")
        return own

    def fits(self, clauses: list[Clause]) -> bool:
        """Return whether all clauses of a filter hold."""
        return all(
            holds_of(clause, self.tags, None if clause.entity == "tag" else self.attribute(clause.key))
            for clause in clauses
        )

    def attribute(self, key: str) -> Any:
        """Return what a filter or an order calls an attribute."""
        return {
            "name": self.name,
            "creation_timestamp": round(self.created_s * 1000),
            "last_updated_timestamp": round(self.updated_s * 1000),
        }[key]


def holds_of(clause: Clause, tags: Mapping[str, str], attribute: Any) -> bool:
    """Return whether a clause holds. What is not said to be a prompt is none: the protocol's clients rely on it."""
    if clause.entity != "tag":
        return holds(clause, attribute)
    value = tags.get(clause.key)
    return holds(clause, "false" if value is None and clause.key == PROMPT else value)


class Registry:
    """The models of a workspace, for MLflow's clients.

    Args:
        workspace: Where they are.
        folder: Where it is kept what clients call them, where that differs.
    """

    def __init__(self, workspace: Workspace, folder: Path) -> None:
        self._workspace = workspace
        self._models = workspace.models
        self._lines = Lines(folder / "names.jsonl")
        self._own_names: dict[str, str | None] = {}
        self._named_at: dict[str, float] = {}
        self._kept: dict[str, tuple[tuple[str, float, int], Registered]] = {}
        self._handles: dict[str, Model] = {}
        self.lock = threading.RLock()

    def _own_name(self, name: str) -> str | None:
        """Return what we call a model, `None` where clients gave its name away."""
        for told in self._lines.news():
            if isinstance(told.get("name"), str):
                self._own_names[told["name"]] = told.get("model")
                self._named_at[told["name"]] = float(told.get("at", 0.0))
        return self._own_names.get(name, name)

    def _handle(self, own_name: str) -> Model | None:
        found = self._handles.get(own_name)
        if found is None and own_name in self._models:
            found = self._handles[own_name] = self._models.get(own_name)
        return found

    def find(self, name: str) -> Registered | None:
        """Return a model that was not deleted."""
        with self.lock:
            try:
                own_name = self._own_name(name)
                handle = self._handle(own_name) if own_name is not None else None
            except InvalidName:
                return None
            return self._seen(name, handle) if handle is not None else None

    def get(self, name: str) -> Registered:
        """Return a model.

        Raises:
            MlflowError: there is none.
        """
        found = self.find(name)
        if found is None:
            _check_name(name)
            raise missing(f"Registered Model with name={name:.200} not found")
        return found

    def all(self) -> Iterator[Registered]:
        """Yield all models that were not deleted."""
        with self.lock:
            self._own_name("")
            called = {own: name for name, own in self._own_names.items() if own is not None}
            for entry in self._models:
                own_name = entry.name
                handle = self._handles.setdefault(own_name, entry)
                name = called.get(own_name, own_name)
                if self._own_names.get(name, name) == own_name:
                    found = self._seen(name, handle)
                    if found is not None:
                        yield found

    def _seen(self, name: str, model: Model) -> Registered | None:
        """Return a model as clients see it: what was made of its history last, unless that has grown."""
        state: ModelState = model.state()
        if DELETED in state.tags:
            return None
        kept = self._kept.get(model.name)
        mark = (name, self._named_at.get(name, 0.0), len(model.history()))
        if kept is None or kept[0] != mark:
            kept = self._kept[model.name] = (mark, self._made(name, model, state))
        return kept[1]

    def _made(self, name: str, model: Model, state: ModelState) -> Registered:
        base = int(state.tags.get(BASE, "0"))
        updated: dict[str, float] = {}
        events = model.history()
        for event in events:
            version = event.fields.get("version") or event.fields.get("before")
            if isinstance(version, str) and event.kind not in _OF_ALIAS:
                updated[version] = event.at
        versions = {
            number: Version(name, number, own, state.stages, updated.get(own.key, own.registered_at))
            for number, own in enumerate(state.versions.values(), 1 - base)
            if own.withdrawn is None and number > 0
        }
        numbers = {one.own.key: number for number, one in versions.items()}
        aliases = {shown_alias(alias): numbers[target] for alias, target in state.aliases.items() if target in numbers}
        tags = {key: value for key, value in state.tags.items() if not key.startswith(HIDDEN)}
        # To MLflow, notes and tags of a version change the version, and its model not.
        of_model = (one.at for one in reversed(events) if one.kind not in _OF_ONE or one.fields.get("version") is None)
        updated_s = max(next(of_model, 0.0), self._named_at.get(name, 0.0))
        created_s = float(state.tags.get(SINCE, events[0].at))
        return Registered(name, model, state.notes or "", tags, versions, aliases, created_s, updated_s)

    def create(self, name: str, tags: Mapping[str, str], notes: str) -> Registered:
        """Make a model. One that was deleted begins anew: its history stays, its numbers are not seen.

        Raises:
            MlflowError: there is one of this name, or the name cannot be kept.
        """
        _check_name(name)
        with self.lock:
            if self.find(name) is not None:
                raise MlflowError(EXISTS, f"Registered Model (name={name}) already exists")
            own_name = self._own_name(name)
            if own_name is None:  # a renamed one has it as its own name
                own_name = next(free for n in range(2, 10_000) if (free := f"{name} ({n})") not in self._models)
                self._lines.add({"name": name, "model": own_name})
            model = self._models.create(own_name, notes=notes or None, is_there_ok=True)
            self._handles[own_name] = model
            state = model.state()
            if DELETED in state.tags:
                gone = [key for key in state.tags if key != BASE]
                model.remove_tags(*gone)
                model.set_tags({BASE: str(len(state.versions)), SINCE: repr(time.time())})
                model.set_notes(notes or None)
            if tags:
                model.set_tags(tags)
            return self.get(name)

    def rename(self, name: str, new_name: str) -> Registered:
        """Let clients call a model something else; we go on to call it what we did.

        Raises:
            MlflowError: there is none, or there is another of the new name.
        """
        _check_name(new_name)
        with self.lock:
            standing = self.get(name)
            if new_name == name:
                return standing
            if self.find(new_name) is not None:
                raise MlflowError(EXISTS, f"Registered Model (name={new_name}) already exists")
            self._lines.add(
                {"name": new_name, "model": standing.model.name, "at": time.time()}, {"name": name, "model": None}
            )
            return self.get(new_name)

    def delete(self, name: str) -> None:
        """Take all versions of a model out of use, and the model out of sight; its history stays.

        Raises:
            MlflowError: there is none.
        """
        with self.lock:
            found = self.get(name)
            for one in found.versions.values():
                self.withdraw(found, one)
            found.model.set_tags({DELETED: "1"})

    def withdraw(self, found: Registered, one: Version) -> None:
        """Take a version out of use, and its aliases with it."""
        for alias in one.own.aliases:
            found.model.remove_alias(alias)
        found.model.withdraw(one.own.key, reason="deleted by a client of MLflow", is_forced=True)

    def files(self, one: Version) -> dict[str, FileEntry]:
        """Return the files that a version consists of, by path; none where their list is not here."""
        try:
            return {entry.path: entry for entry in read_manifest(one.own, self._workspace.blobs).files}
        except (NotFound, FormatError, OSError):
            return {}

    def models_for(self, run_id: str) -> Models:
        """Return the registry for registering what a run made."""
        return Models(self._workspace.path / "models", run_id=run_id or None, after=announcer(self._workspace.path))

    def move(self, found: Registered, one: Version, stage: str, *, archives: bool) -> None:
        """Bring a version into a stage, if the gates hold.

        Raises:
            MlflowError: they do not.
        """
        try:
            outcome = promote(self._workspace, str(one.own), stage, keeps_others=not archives)
        except InvalidValue as error:
            raise MlflowError("BAD_REQUEST", str(error)) from None
        if not outcome.is_done:
            failed = "; ".join(f"{check.gate}: {check.detail}" for check in outcome.checks if not check.is_passed)
            raise MlflowError("BAD_REQUEST", f"{outcome.headline}: {failed}")


def _check_name(name: str) -> None:
    if not name.strip() or name in (".", "..") or any(sign in name for sign in "/:"):
        raise invalid(f"Invalid model name {name!r:.200}: not empty, '.' or '..', nor with '/' or ':'")


def own_alias(alias: str, stages: tuple[str, ...]) -> str:
    """Return under which alias we keep one: neither a stage nor a number is an alias here."""
    return f"{_ALIAS_PREFIX}{alias}" if alias in stages or re.fullmatch(r"-?[0-9]+", alias) else alias


def shown_alias(alias: str) -> str:
    """Return an alias as clients know it."""
    return alias.removeprefix(_ALIAS_PREFIX)
