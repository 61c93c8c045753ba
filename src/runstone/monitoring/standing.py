"""How the versions that are in use are doing, and how they did: what `monitor status` and the page show."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from runstone.models.history import ARCHIVED, ModelState, ModelVersion
from runstone.models.operation import Incident
from runstone.monitoring.records import Check, checks_of

if TYPE_CHECKING:
    from runstone.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Standing:
    """One version in use, or with an incident that is open since.

    Attributes:
        model, version: Which.
        places: Where it is in use: its stage, aliases (with `@`) and deployments; nowhere: it was, and what it did
            then is an open incident.
        health: Verdict of its last check; `unknown` where there was none, `no profile` where there can be none.
        checks: Its newest checks, the oldest of them first.
        check_count: How many there were in all.
        incidents: Those that are open.
    """

    model: str
    version: str
    places: tuple[str, ...]
    health: str
    checks: tuple[Check, ...]
    check_count: int
    incidents: tuple[Incident, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)


def standings(workspace: Workspace, *, name: str | None = None, last: int = 30) -> list[Standing]:
    """Return all versions in use or with open incidents, those of one model or of all.

    Args:
        workspace: Where they are.
        name: Of the model; default: all.
        last: How many checks of each.

    Raises:
        ModelNotFound: there is no such model.
    """
    registry = workspace.models
    states = [model.state() for model in ([registry.get(name)] if name is not None else registry)]
    found = []
    for state in states:
        checks = checks_of(workspace.path, state.name)
        for version in sorted(state.versions.values(), key=lambda one: one.version, reverse=True):
            places = _places(state, version) if version.withdrawn is None else ()
            if places or any(one.is_open for one in version.incidents):
                own = [one for one in checks if one.version == str(version.version)]
                found.append(_standing(version, places, own, last))
    return found


def _places(state: ModelState, version: ModelVersion) -> tuple[str, ...]:
    stages = () if version.stage in (state.stages[0], ARCHIVED) else (version.stage,)
    deployed = tuple(one.target for one in version.deployments if one.is_standing)
    return (*stages, *(f"@{alias}" for alias in version.aliases), *deployed)


def _standing(version: ModelVersion, places: tuple[str, ...], checks: list[Check], last: int) -> Standing:
    health = checks[-1].verdict if checks else "no profile" if version.profile_hash is None else "unknown"
    incidents = tuple(one for one in version.incidents if one.is_open)
    newest = tuple(checks[-last:]) if last else ()
    return Standing(version.model, str(version.version), places, health, newest, len(checks), incidents)
