"""Promoting a version: every gate is asked, the answers are kept with the event, and a refusal is an event too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runstone.errors import InvalidValue, RunstoneError
from runstone.models.better import Check
from runstone.models.gates import Gate, check_gates, read_gates, to_record
from runstone.models.history import ARCHIVED, ModelState, ModelVersion
from runstone.models.proof import WorkspaceEvidence
from runstone.models.refs import ModelRef

if TYPE_CHECKING:
    from runstone.workspace import Workspace

GATES_FILE = "gates.yaml"


@dataclass(frozen=True, slots=True)
class Promotion:
    """What became of a promotion.

    Attributes:
        version: The version.
        stage, before: Where to, and from where.
        checks: What was asked and found, in order.
        is_done: Whether it stands in the stage now.
        is_dry: Whether it was only asked.
        replaced: Versions that had to leave the stage.
        gates: Name of the file with the gates; `None` where only the built-in ones were asked.
        reason: Why, as the one who promotes says.
    """

    version: ModelVersion
    stage: str
    before: str
    checks: tuple[Check, ...]
    is_done: bool
    is_dry: bool
    replaced: tuple[str, ...] = ()
    gates: str | None = None
    reason: str | None = None

    @property
    def is_allowed(self) -> bool:
        """Whether all gates hold."""
        return all(check.is_passed for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "model": self.version.model,
            "version": str(self.version.version),
            "stage": self.stage,
            "before": self.before,
            "promoted": self.is_done,
            "allowed": self.is_allowed,
            "dry_run": self.is_dry,
            "replaced": list(self.replaced),
            "gates": self.gates,
            "reason": self.reason,
            **to_record(self.checks),
        }

    @property
    def headline(self) -> str:
        """What became of it, in one line."""
        failed = sum(not check.is_passed for check in self.checks)
        if not self.is_allowed:
            word = "would be refused" if self.is_dry else "was refused"
            return f"{self.version} {word} for {self.stage}: {failed} of {len(self.checks)} gates failed"
        if self.is_dry:
            return f"{self.version} may go to {self.stage}"
        return f"{self.version} is in {self.stage}"

    def to_markdown(self) -> str:
        """Return it for a comment on a change or a summary of CI."""
        mark = "✅" if self.is_allowed else "❌"
        lines = [f"### {mark} {_markdown(self.headline)}", ""]
        if self.replaced:
            lines += [f"It replaces {_markdown(', '.join(self.replaced))}.", ""]
        if self.checks:
            lines += ["| | gate | found |", "|---|---|---|"]
            lines += [
                f"| {'✅' if check.is_passed else '❌'} | {_markdown(check.gate)} | {_markdown(check.detail)} |"
                for check in self.checks
            ]
            lines.append("")
        lines.append(f"Gates: {_markdown(self.gates) if self.gates else 'only the built-in ones'}.")
        return "\n".join(lines) + "\n"


class _Refused(RunstoneError):
    """The gates do not hold for what stands now."""

    def __init__(self, checks: Sequence[Check]) -> None:
        super().__init__("refused")
        self.checks = tuple(checks)


def promote(
    workspace: Workspace,
    ref: str,
    stage: str,
    *,
    gates: Path | None = None,
    reason: str | None = None,
    keeps_others: bool = False,
    is_dry: bool = False,
) -> Promotion:
    """Move a version into a stage if all gates hold, else record why not.

    The gates are asked about what stands at the moment of the change: where another writer is faster, they are asked
    again.

    Args:
        workspace: Where it lies.
        ref: The version: `name@version`, `name@alias`, `name@stage`.
        stage: One of the model's stages.
        gates: File with the gates; default: `gates.yaml` in the workspace, where there is one.
        reason: Why, for the history.
        keeps_others: Leave those that are in the stage there, too.
        is_dry: Only ask; record nothing.

    Raises:
        ModelNotFound: there is no such version.
        InvalidValue: the model has no such stage, or the reference names a time.
        InvalidConfig: the gates have mistakes.
    """
    parsed = ModelRef.parse(ref)
    if parsed.as_of is not None:
        raise InvalidValue(f"{ref!r:.120} names a time; only what stands now can be promoted")
    model = workspace.models.get(parsed.name)
    version = model.find(parsed.selector)
    if stage not in model.state().stages:
        raise InvalidValue(f"model {model.name!r} has no stage {stage!r:.80}; it has {', '.join(model.state().stages)}")
    source, rules, proof = _gates(workspace, gates, is_dry=is_dry)
    asked: list[tuple[Check, ...]] = []

    def record(state: ModelState) -> Mapping[str, Any]:
        current = state.versions[str(version.version)]
        asked.append(tuple(ask(workspace, rules, state, current, stage)))
        if not all(check.is_passed for check in asked[-1]):
            raise _Refused(asked[-1])
        return {**to_record(asked[-1]), **proof}

    before, number = version.stage, str(version.version)
    replaced: tuple[str, ...] = ()
    is_done = False
    if is_dry:
        asked.append(tuple(ask(workspace, rules, model.state(), version, stage)))
    else:
        refused = None
        try:
            version = model.set_stage(number, stage, reason=reason, keeps_others=keeps_others, record=record)
            is_done = True
            replaced = _replaced(model.history(), number)
        except _Refused as error:
            refused = error
        if refused is not None:
            model.note_refusal(number, stage, reason=reason, record={**to_record(refused.checks), **proof})
    return Promotion(version, stage, before, asked[-1], is_done, is_dry, replaced, source, reason)


def ask(
    workspace: Workspace, gates: Mapping[str, Sequence[Gate]], state: ModelState, version: ModelVersion, stage: str
) -> list[Check]:
    """Hold a version against the gates of a stage and the built-in ones.

    Built in, for every stage in which a version is used: it was not withdrawn or rejected, it is approved where the
    model asks for that, and nothing that it descends from was revoked.
    """
    evidence = WorkspaceEvidence(workspace)
    checks = check_gates(gates, state, version, stage, evidence)
    if stage in (state.stages[0], ARCHIVED):
        return checks
    built_in = []
    if version.withdrawn is not None:
        built_in.append(Check("it may be used", False, f"it was withdrawn: {version.withdrawn}"))
    approval = version.approval
    if approval.state == "rejected" or state.requires_approval:
        by = f" by {approval.by}" if approval.by else ""
        why = f": {approval.reason}" if approval.reason else ""
        is_approved = approval.state == "approved"
        built_in.append(
            Check("the model's versions are approved before use", is_approved, f"it is {approval.state}{by}{why}")
        )
    asked = {gate.kind for name in ("*", stage) for gate in gates.get(name, ())}
    if "data" not in asked:
        found = evidence.revoked(version)
        built_in.append(
            Check("nothing that it descends from was revoked", not found, "; ".join(found) or "nothing was revoked")
        )
    return [*built_in, *checks]


def _gates(
    workspace: Workspace, given: Path | None, *, is_dry: bool
) -> tuple[str | None, dict[str, list[Gate]], dict[str, Any]]:
    """Return the file's name, its gates, and what proves later which gates these were."""
    path = given if given is not None else workspace.path / GATES_FILE
    if given is None and not path.is_file():
        return None, {}, {}
    rules = read_gates(path)
    if is_dry:
        return path.name, rules, {}
    kept = workspace.blobs.put(path, path.name)
    return path.name, rules, {"gates": {"file": path.name, "hash": kept.hash}}


def _replaced(history: Sequence[Any], number: str) -> tuple[str, ...]:
    for event in reversed(history):
        if event.kind == "staged" and event.fields["version"] == number:
            return tuple(other["version"] for other in event.fields.get("replaced", ()))
    return ()


def _markdown(text: str) -> str:
    """Return text as one cell of a Markdown table: nothing in it is markup."""
    text = "".join(c if c.isprintable() else "·" for c in text)
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#~@" else c for c in text)
