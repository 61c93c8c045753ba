"""A check that was made, judged by what another version was registered with. Knows no HTTP."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from runstone.errors import FormatError
from runstone.models import Model
from runstone.monitoring.batches import Batch
from runstone.monitoring.front import compare_batch
from runstone.monitoring.profile import Column, Profile
from runstone.monitoring.records import checks_of, read_batch
from runstone.monitoring.reference import NoProfile, profile_of
from runstone.monitoring.report import CAUSES, LEVELS, Thresholds
from runstone.workspace import Workspace

_WITHIN = 40  # points of the distribution within a bar
_OTHERS = "others"
NOTE = (
    "this is not the reference that the check was made with: of the batch only its bars were kept, so figures are "
    "those of values spread evenly within them, and no domain classifier was asked"
)
EXACT = "this is not the reference that the check was made with; the batch is the same"


def references_of(model: Model) -> list[str]:
    """Return the versions of a model that a batch can be compared with, the newest first."""
    return [str(one.version) for one in model.versions() if one.profile_hash is not None]


def against(workspace: Workspace, report: Mapping[str, Any], reference: str) -> dict[str, Any]:
    """Return what a check would have found with another reference: exactly, where its batch is kept.

    Args:
        workspace: Where the version is.
        report: As it is kept.
        reference: Another version, by anything that names it; or the id of another check, for the batch of that.

    Raises:
        ModelNotFound: there is no such version, nor such a check.
        NoProfile: it has nothing to compare with.
    """
    name = report["model"]
    checks = checks_of(workspace.path, name)
    own = next((one.id for one in checks if (one.at, one.version) == (report["at"], report["version"])), None)
    batch = _kept(workspace, name, own)
    if any(one.id == reference for one in checks):
        other = _kept(workspace, name, reference)
        if other is None:
            raise NoProfile(f"the batch of check {reference} is not kept any more")
        before, told = other.profile, {"check": reference}
    else:
        version = workspace.models.get(name).find(reference)
        before, told = profile_of(workspace, version), {"version": str(version.version)}
    found = compare_batch(
        before,
        batch or Batch(batch_of(report)),
        thresholds=Thresholds(**report["thresholds"]),
        data=report["data"],
        model=name,
        version=report["version"],
        at=report["at"],
        notes=[EXACT if batch is not None else NOTE],
    ).to_dict()
    # How well predictions fit labels does not depend on what they looked like before.
    reasons = [one for one in report["reasons"] if one["cause"] == "performance"]
    reasons += [one for one in found["reasons"] if one["cause"] != "performance"]
    reasons.sort(key=lambda one: (-LEVELS.index(one["level"]), CAUSES.index(one["cause"])))
    more = {"performance": report["performance"], "reference": {**found["reference"], **told}, "reasons": reasons}
    if reasons and reasons[0]["cause"] == "performance":
        level, text = reasons[0]["level"], reasons[0]["text"]
        more |= {"verdict": level, "headline": f"{name}@{report['version']}: {level}, {text}"}
    return found | more


def _kept(workspace: Workspace, name: str, check: str | None) -> Batch | None:
    if check is None:
        return None
    try:
        return read_batch(workspace.path, name, check)
    except FormatError:  # damaged: the report still says a part of it
        return None


def batch_of(report: Mapping[str, Any]) -> Profile:
    """Return what is known of a batch from its report."""
    there = [one for one in report["features"] if one["after"] is not None]
    roles = {one["role"]: one["name"] for one in there}
    return Profile(
        rows=int(report["rows"]),
        columns={one["name"]: _column(one) for one in there},
        features=tuple(one["name"] for one in there if one["role"] == "feature"),
        label=roles.get("label"),
        prediction=roles.get("prediction"),
    )


def _column(told: Mapping[str, Any]) -> Column:
    bars = told["bars"] or {}
    facts = {key: value for key, value in told["after"].items() if value is not None}
    present = facts["count"] - facts["missing"]
    more: dict[str, Any] = {}
    if bars.get("after") and "labels" in bars:
        pairs = zip(bars["labels"], bars["after"], strict=True)
        counts = {str(label): round(share * present) for label, share in pairs if label != _OTHERS}
        more["counts"] = {label: count for label, count in counts.items() if count} | dict(told["unseen"]["values"])
    elif bars.get("after"):
        more["values"], more["shares"] = _spread(bars["edges"], bars["after"], facts.get("min"), facts.get("max"))
    return Column(name=told["name"], **facts, **more)


def _spread(
    edges: Sequence[float], shares: Sequence[float], low: float | None, high: float | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the distribution function of values that lie evenly within bars; the outer bars reach to the extremes."""
    ends = np.asarray(edges, float)
    if low is not None and high is not None:
        ends = ends.copy()
        ends[0], ends[-1] = min(low, ends[1]), max(high, ends[-2])
    whole = np.concatenate([[0.0], np.cumsum(shares)])
    points = np.unique(np.concatenate([np.linspace(a, b, _WITHIN + 1)[1:] for a, b in itertools.pairwise(ends)]))
    spread = np.interp(points, ends, whole / whole[-1])
    return tuple(points.tolist()), (*spread[:-1].tolist(), 1.0)
