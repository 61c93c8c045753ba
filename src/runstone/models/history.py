"""What the events of one model come down to, now or at any time before. Changes nothing, knows no files."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from runstone.catalog import State
from runstone.errors import NotFound
from runstone.ledger import LedgerEvent
from runstone.models.operation import Deployment, Incident, closed, deployment_of, incident_of
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
        deployments: Where it is and was, in order.
        incidents: What was found to be wrong with it, in order.
        profile_hash: Hash of the blob with what its data looked like, which monitoring compares with.
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
    deployments: tuple[Deployment, ...] = ()
    incidents: tuple[Incident, ...] = ()
    profile_hash: str | None = None

    @property
    def key(self) -> str:
        """How events name it."""
        return str(self.version)

    def __str__(self) -> str:
        """Write it as a reference."""
        return f"{self.model}@{self.version}"

    def _repr_html_(self) -> str:
        from runstone.display import facts_html  # only in notebooks

        rows: list[tuple[str, object]] = [
            ("stage", self.stage),
            ("aliases", ", ".join(self.aliases)),
            ("approval", self.approval.state),
            ("registered", f"{datetime.fromtimestamp(self.registered_at, UTC):%Y-%m-%d %H:%M:%S} UTC by {self.author}"),
            ("run", self.run_id),
            ("tags", ", ".join(f"{name}={value}" for name, value in self.tags.items())),
            ("notes", self.notes),
            ("withdrawn", self.withdrawn),
        ]
        return facts_html(f"Model {self}", rows)


class ModelState(State[ModelVersion]):
    """One model as its events tell it.

    Attributes:
        stages: The stages that its versions may be in; the first is where they begin.
        requires_approval: Whether a version must be approved before it leaves the first stage for any other but
            `archived`.
        incidents: By number, open and closed.
    """

    what = "model"
    missing = ModelNotFound

    def __init__(self) -> None:
        super().__init__()
        self.stages: tuple[str, ...] = DEFAULT_STAGES
        self.requires_approval = False
        self.incidents: dict[int, Incident] = {}

    def _apply(self, event: LedgerEvent, version: ModelVersion | None) -> None:
        said = event.fields
        match event.kind:
            case "created" | "defined":
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
            case "staged" if version:
                version.stage, version.stage_since, version.stage_seq = said["stage"], event.at, event.seq
                for other in said.get("replaced", ()):
                    replaced = self.versions[other["version"]]
                    replaced.stage, replaced.stage_since, replaced.stage_seq = other["stage"], event.at, event.seq
            case "judged" if version:
                version.approval = Approval(said["state"], event.by["user"], event.at, said.get("reason"))
            case "withdrawn" if version:
                version.withdrawn = said.get("reason") or "withdrawn"
            case "deployed" if version:
                for number in said.get("replaced", ()):
                    self._end(number, said["target"], event.at)
                self._end(str(version.version), said["target"], event.at)
                version.deployments = (*version.deployments, deployment_of(self.name, event))
            case "undeployed":
                for number in said["ended"]:
                    self._end(number, said["target"], event.at)
            case "incident_opened" if version:
                self._note(incident_of(self.name, event))
            case "incident_closed" if said["number"] in self.incidents:
                self._note(closed(self.incidents[said["number"]], event))
            case "profiled" if version:
                version.profile_hash = said["profile"]

    def _define(self, said: Mapping[str, Any]) -> None:
        if said.get("stages"):
            self.stages = tuple(said["stages"])
        if "requires_approval" in said:
            self.requires_approval = bool(said["requires_approval"])

    def _end(self, number: str, target: str, at: float) -> None:
        """End the deployments of a version at a place."""
        version = self.versions[number]
        version.deployments = tuple(
            replace(one, ended_at=at) if one.is_standing and one.target == target else one
            for one in version.deployments
        )

    def _note(self, incident: Incident) -> None:
        """Take in an incident, in place of what was known of it."""
        self.incidents[incident.number] = incident
        version = self.versions[incident.version]
        version.incidents = tuple(one for one in self.incidents.values() if one.version == incident.version)

    # --- finding ---------------------------------------------------------------------------------------------------

    def usable(self) -> list[ModelVersion]:
        """Return the versions that were not withdrawn, the highest first."""
        found = [version for version in self.versions.values() if version.withdrawn is None]
        return sorted(found, key=lambda version: version.version, reverse=True)

    def in_stage(self, stage: str) -> list[ModelVersion]:
        """Return the versions in a stage, the one that came last first."""
        found = [version for version in self.usable() if version.stage == stage]
        return sorted(found, key=lambda version: (version.stage_seq, version.version), reverse=True)

    def deployed(self, target: str | None = None) -> list[Deployment]:
        """Return what is deployed, at one place or anywhere; by place, the one that came last first."""
        found = [one for version in self.versions.values() for one in version.deployments if one.is_standing]
        wanted = [one for one in found if target in (None, one.target)]
        return sorted(wanted, key=lambda one: (one.target, -one.at))

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
        near = difflib.get_close_matches(selector, [*self.aliases, *self.stages, *self.versions, LATEST], 1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise ModelNotFound(
            f"model {self.name!r} has no version, alias or stage {selector!r:.80}; {meant}{self._there()}"
        )

    def _there(self) -> str:
        versions = [str(version.version) for version in self.usable()[:5]]
        more = ", …" if len(self.usable()) > 5 else ""
        return f"it has {', '.join(versions)}{more}{self._and_aliases()}" if versions else "it has no version yet"
