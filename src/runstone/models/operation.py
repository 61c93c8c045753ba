"""What becomes of a version where it works: where it is deployed, which incidents it had, what its data looked like.

Values, and what the events say of them; whoever deploys or watches writes these events through `Model`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from runstone.ledger import LedgerEvent


@dataclass(frozen=True, slots=True)
class Deployment:
    """One version at one place.

    Attributes:
        model, version: What is deployed.
        target: Where, as the team calls it, such as `eu-cluster/scoring`.
        url: Where it answers.
        replicas: How many of it.
        at: Since when, in seconds since the Unix epoch.
        by: Who recorded it.
        reason: Why.
        ended_at: Until when; `None`: it is there.
    """

    model: str
    version: str
    target: str
    url: str | None
    replicas: int | None
    at: float
    by: str
    reason: str | None = None
    ended_at: float | None = None

    @property
    def is_standing(self) -> bool:
        """Whether it is there."""
        return self.ended_at is None


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that was found to be wrong with a version in use, such as drift.

    Attributes:
        model, version: Of what.
        number: Counted from 1 for each model; never given twice.
        kind: What sort, such as `drift`.
        summary: In a line.
        report_hash: Hash of the blob with what was found.
        run_id: The run that found it.
        opened_at, opened_by: When (seconds since the Unix epoch), and who recorded it.
        closed_at, closed_by: When and by whom it was closed; `None`: it is open.
        resolution: Why it was closed.
        resolved_by: The run that resolved it, such as one that trained again.
    """

    model: str
    version: str
    number: int
    kind: str
    summary: str
    report_hash: str | None
    run_id: str | None
    opened_at: float
    opened_by: str
    closed_at: float | None = None
    closed_by: str | None = None
    resolution: str | None = None
    resolved_by: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether it was not closed yet."""
        return self.closed_at is None

    def __str__(self) -> str:
        """Write it as people name it."""
        return f"{self.model}#{self.number}"


def deployment_of(model: str, event: LedgerEvent) -> Deployment:
    """Return what an event `deployed` says."""
    said = event.fields
    return Deployment(
        model=model,
        version=said["version"],
        target=said["target"],
        url=said.get("url"),
        replicas=said.get("replicas"),
        at=event.at,
        by=event.by["user"],
        reason=said.get("reason"),
    )


def incident_of(model: str, event: LedgerEvent) -> Incident:
    """Return what an event `incident_opened` says."""
    said = event.fields
    return Incident(
        model=model,
        version=said["version"],
        number=said["number"],
        kind=said["kind"],
        summary=said["summary"],
        report_hash=said.get("report_hash"),
        run_id=said.get("run_id"),
        opened_at=event.at,
        opened_by=event.by["user"],
    )


def closed(incident: Incident, event: LedgerEvent) -> Incident:
    """Return an incident after its event `incident_closed`."""
    said = event.fields
    return replace(
        incident,
        closed_at=event.at,
        closed_by=event.by["user"],
        resolution=said.get("reason"),
        resolved_by=said.get("run_id"),
    )
