"""Which number a new version should have, from what differs between it and the one before: told with its reasons.

major   who uses the model must change: what it needs or gives is no longer the same
minor   it is another model: other data, features, structure or settings
patch   it is the same recipe, trained again
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runstone.models.manifest import Manifest
from runstone.models.semver import Level, SemVer
from runstone.models.signature import compare
from runstone.params import flatten_params

FIRST = SemVer(1, 0, 0)
_ORDER: tuple[Level, ...] = ("patch", "minor", "major")
_SHOWN = 6
# Another seed is another throw of the same dice.
CHANCE = ("seed", "random_state", "random_seed", "seed_everything")


@dataclass(frozen=True, slots=True)
class Reason:
    """One difference that speaks for a level."""

    level: Level
    what: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """The number that the evidence speaks for.

    Attributes:
        version: The number.
        previous: The version that it was compared with; `None` for the first one.
        level: The highest level of the reasons; `None` for the first version.
        reasons: What was found, the weightiest first.
    """

    version: SemVer
    previous: SemVer | None
    level: Level | None
    reasons: tuple[Reason, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as an event keeps it."""
        return {
            "version": str(self.version),
            "previous": str(self.previous) if self.previous else None,
            "level": self.level,
            "reasons": [{"level": reason.level, "what": reason.what} for reason in self.reasons],
        }


def propose(new: Manifest, old: Manifest | None, previous: SemVer | None) -> Proposal:
    """Return the number for a new version.

    Args:
        new: What is to be registered.
        old: The version to compare it with, the highest release so far; `None`: there is none.
        previous: Its number.
    """
    if old is None or previous is None:
        return Proposal(FIRST, None, None, (Reason("major", "it is the first version"),))
    reasons = sorted(
        [*_interface(old, new), *_making(old, new)], key=lambda reason: _ORDER.index(reason.level), reverse=True
    )
    if not reasons:
        reasons = [Reason("patch", "the same recipe, trained again")]
    level = reasons[0].level
    return Proposal(previous.bump(level), previous, level, tuple(reasons))


def _interface(old: Manifest, new: Manifest) -> list[Reason]:
    found = [
        Reason("major" if difference.is_breaking else "minor", difference.what)
        for difference in compare(old.signature, new.signature)
    ]
    if old.labels is not None and new.labels is not None and old.labels != new.labels:
        gone = [label for label in old.labels if label not in new.labels]
        added = [label for label in new.labels if label not in old.labels]
        if gone or added:
            parts = [f"without {_listed(gone)}"] * bool(gone) + [f"with {_listed(added)}"] * bool(added)
            found.append(Reason("major", f"the labels changed: {', '.join(parts)}"))
        else:
            found.append(Reason("major", "the labels are in another order"))
    if old.flavour != new.flavour:
        found.append(Reason("major", f"it is loaded as {new.flavour} instead of {old.flavour}"))
    return found


def _making(old: Manifest, new: Manifest) -> list[Reason]:
    found = []
    if old.architecture and new.architecture and old.architecture != new.architecture:
        found.append(Reason("minor", "its structure changed"))
    before, after = _data(old), _data(new)
    if before and after and before != after:
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        found.append(Reason("minor", f"it was trained on other data: {_listed(changed)}"))
    found += _params(old.recipe.get("params") or {}, new.recipe.get("params") or {})
    one, other = (manifest.recipe.get("code") or {} for manifest in (old, new))
    if one.get("commit") and other.get("commit") and one["commit"] != other["commit"]:
        commits = f"{other['commit'][:10]} instead of {one['commit'][:10]}"
        found.append(Reason("patch", f"the code is another commit: {commits}"))
    if other.get("is_dirty"):
        found.append(Reason("patch", "the code had uncommitted changes"))
    return found


def _params(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Reason]:
    before, after = flatten_params(old), flatten_params(new)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    chance = [name for name in changed if name.rpartition(".")[2] in CHANCE]
    others = [name for name in changed if name not in chance]
    found = []
    if others:
        parts = [f"{name} {before.get(name, '(none)')!s:.40} → {after.get(name, '(none)')!s:.40}" for name in others]
        more = f", … ({len(others)} in all)" if len(others) > _SHOWN else ""
        found.append(Reason("minor", f"other params: {', '.join(parts[:_SHOWN])}{more}"))
    if chance:
        found.append(Reason("patch", f"another seed: {_listed(chance)}"))
    return found


def _data(manifest: Manifest) -> dict[str, str]:
    return {entry["name"]: entry["hash"] for entry in manifest.recipe.get("data") or ()}


def _listed(names: list[Any]) -> str:
    more = f", … ({len(names)} in all)" if len(names) > _SHOWN else ""
    return ", ".join(map(str, names[:_SHOWN])) + more
