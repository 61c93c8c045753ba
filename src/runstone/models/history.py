"""What the events of one model come down to, now or at any time before. Changes nothing, knows no files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from runstone.errors import NotFound
from runstone.ledger import LedgerEvent
from runstone.models.refs import LATEST, is_version_like
from runstone.models.semver import SemVer

NO_STAGE = "none"
ARCHIVED = "archived"
DEFAULT_STAGES = (NO_STAGE, "staging", "production", ARCHIVED)
ApprovalState = Literal["pending", "approved", "rejected"]


class ModelNotFound(NotFound):
    """No model has this name, or no version of it is meant by this."""


@dataclass(frozen=True, slots=True)
class Approval:
    """Whether a version may be used, who said so, when (seconds since the Unix epoch) and why."""

    state: ApprovalState = "pending"
    by: str | None = None
    at: float | None = None
    reason: str | None = None


@dataclass(slots=True)
class ModelVersion:
    """One immutable version of a model, and what was said of it up to now.

    Attributes:
        model: Name of the model.
        version: Its number.
        manifest: Hash of the blob that says what it consists of.
        run_id: The run that made it, if one did.
        author: Who registered it.
        registered_at: Seconds since the Unix epoch, UTC.
        proposal: Which version the evidence asked for and why: `version`, `level`, `reasons`.
        override_reason: Why another one was chosen, where it was.
        approval, stage, aliases, tags, notes: What stands.
        withdrawn: Why it must not be used any more; `None`: it may. Its number is never given again.
        stage_since: When it came into its stage.
    """

    model: str
    version: SemVer
    manifest: str
    run_id: str | None
    author: str
    registered_at: float
    proposal: Mapping[str, Any] = field(default_factory=dict)
    override_reason: str | None = None
    approval: Approval = field(default_factory=Approval)
    stage: str = NO_STAGE
    stage_since: float = 0.0
    stage_seq: int = 0
    aliases: tuple[str, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)
    notes: str | None = None
    withdrawn: str | None = None

    def __str__(self) -> str:
        """Write it as a reference."""
        return f"{self.model}@{self.version}"


class ModelState:
    """One model as its events tell it. `apply` is the only way to change it.

    Attributes:
        name: As it was given when the model was made.
        stages: The stages that its versions may be in; the first is where they begin.
        versions: By number as text, in the order in which they were registered.
        aliases: Alias and version.
        tags, notes: Of the model as a whole.
        requires_approval: Whether a version must be approved before it leaves the first stage for any other but
            `archived`.
    """

    def __init__(self) -> None:
        self.name = ""
        self.stages: tuple[str, ...] = DEFAULT_STAGES
        self.versions: dict[str, ModelVersion] = {}
        self.aliases: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.notes: str | None = None
        self.requires_approval = False
        self.created_at = 0.0

    @classmethod
    def from_events(cls, events: Iterable[LedgerEvent], *, as_of: float | None = None) -> ModelState:
        """Return what the events come down to, all or those up to a time."""
        state = cls()
        for event in events:
            if as_of is not None and event.at > as_of:
                break  # their times never go back
            state.apply(event)
        return state

    def apply(self, event: LedgerEvent) -> None:
        """Take in one event. Events and fields that a later version adds are ignored."""
        said = event.fields
        version = self.versions.get(str(said.get("version")))
        match event.kind:
            case "created":
                self.name = said["name"]
                self.created_at = event.at
                self.notes = said.get("notes")
                self._define(said)
            case "defined":
                self._define(said)
            case "registered":
                self.versions[said["version"]] = ModelVersion(
                    model=self.name,
                    version=SemVer.parse(said["version"]),
                    manifest=said["manifest"],
                    run_id=event.by.get("run"),
                    author=event.by["user"],
                    registered_at=event.at,
                    proposal=said.get("proposal", {}),
                    override_reason=said.get("reason"),
                    stage=self.stages[0],
                    stage_since=event.at,
                    tags=dict(said.get("tags", {})),
                    notes=said.get("notes"),
                )
            case "aliased":
                self._point(said["alias"], said["version"])
            case "staged" if version:
                version.stage, version.stage_since, version.stage_seq = said["stage"], event.at, event.seq
                for other in said.get("replaced", ()):
                    replaced = self.versions[other["version"]]
                    replaced.stage, replaced.stage_since, replaced.stage_seq = other["stage"], event.at, event.seq
            case "judged" if version:
                version.approval = Approval(said["state"], event.by["user"], event.at, said.get("reason"))
            case "tagged":
                tags = version.tags if version else self.tags
                tags.update(said.get("set", {}))
                for name in said.get("remove", ()):
                    tags.pop(name, None)
            case "noted" if version:
                version.notes = said["notes"]
            case "noted":
                self.notes = said["notes"]
            case "withdrawn" if version:
                version.withdrawn = said.get("reason") or "withdrawn"

    def _define(self, said: Mapping[str, Any]) -> None:
        if said.get("stages"):
            self.stages = tuple(said["stages"])
        if "requires_approval" in said:
            self.requires_approval = bool(said["requires_approval"])

    def _point(self, alias: str, target: str | None) -> None:
        before = self.aliases.pop(alias, None)
        if before is not None:
            old = self.versions[before]
            old.aliases = tuple(name for name in old.aliases if name != alias)
        if target is not None:
            self.aliases[alias] = target
            new = self.versions[target]
            new.aliases = tuple(sorted((*new.aliases, alias)))

    # --- finding ---------------------------------------------------------------------------------------------------

    def usable(self) -> list[ModelVersion]:
        """Return the versions that were not withdrawn, the highest first."""
        found = [version for version in self.versions.values() if version.withdrawn is None]
        return sorted(found, key=lambda version: version.version, reverse=True)

    def in_stage(self, stage: str) -> list[ModelVersion]:
        """Return the versions in a stage, the one that came last first."""
        found = [version for version in self.usable() if version.stage == stage]
        return sorted(found, key=lambda version: (version.stage_seq, version.version), reverse=True)

    def find(self, selector: str) -> ModelVersion:
        """Return the version that a selector means.

        Args:
            selector: A version; `1` or `1.2`: the highest release of these; an alias; a stage: the version that came
                into it last; `latest`: the highest release, or the highest pre-release where there is no release.

        Raises:
            ModelNotFound: there is none; the message says what there is.
        """
        exact = self.versions.get(selector.removeprefix("v"))
        if exact is not None:
            return exact
        if selector in self.aliases:
            return self.versions[self.aliases[selector]]
        if selector in self.stages:
            found = self.in_stage(selector)
            if found:
                return found[0]
            raise ModelNotFound(f"no version of model {self.name!r} is in stage {selector!r}; {self._there()}")
        usable = self.usable()
        releases = [version for version in usable if not version.version.is_prerelease]
        if selector == LATEST and usable:
            return (releases or usable)[0]
        if is_version_like(selector) and selector.count(".") < 2:
            prefix = [int(part) for part in selector.removeprefix("v").split(".")]
            for version in releases:
                number = version.version
                if [number.major, number.minor][: len(prefix)] == prefix:
                    return version
        raise ModelNotFound(f"model {self.name!r} has no version, alias or stage {selector!r:.80}; {self._there()}")

    def _there(self) -> str:
        versions = [str(version.version) for version in self.usable()[:5]]
        more = ", …" if len(self.usable()) > 5 else ""
        aliases = f" and the aliases {', '.join(sorted(self.aliases)[:10])}" if self.aliases else ""
        return f"it has {', '.join(versions)}{more}{aliases}" if versions else "it has no version yet"
