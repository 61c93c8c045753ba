"""The models of a workspace: names, versions, aliases, stages, approvals. Every change is one event of a ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from runstone.blobs.objects import is_hash
from runstone.catalog import Catalog, Entry, check_tags, check_text
from runstone.errors import AlreadyExists, InvalidName, InvalidValue, NotFound
from runstone.ledger import Ledger, LedgerEvent
from runstone.models.history import ARCHIVED, ApprovalState, ModelNotFound, ModelState, ModelVersion
from runstone.models.operation import Deployment, Incident
from runstone.models.refs import LATEST, ModelRef, check_alias, is_version_like
from runstone.models.semver import SemVer
from runstone.names import check_name

After = Callable[["Model", LedgerEvent], None]


class VersionInUse(AlreadyExists):
    """A version cannot be withdrawn while an alias or a stage points to it."""


class NotApproved(InvalidValue):
    """A version was to be used before it was approved."""


class Model(Entry[ModelState]):
    """One model of the registry. Cheap to make; reads its history when it is asked something.

    Args:
        ledger: Its events.
        run_id: The run on whose behalf changes are made, if one does.
        after: Called with the model and the event after every change, when it is on the disk.
    """

    def __init__(self, ledger: Ledger, *, run_id: str | None = None, after: After | None = None) -> None:
        super().__init__(ledger, ModelState(), run_id=run_id)
        self._after = after

    # --- reading ---------------------------------------------------------------------------------------------------

    def versions(self) -> list[ModelVersion]:
        """Return all versions, withdrawn ones too, the highest first."""
        return sorted(self.state().versions.values(), key=lambda version: version.version, reverse=True)

    def find(self, selector: str = LATEST, *, as_of: float | None = None) -> ModelVersion:
        """Return the version that a selector means; see `ModelState.find`.

        Raises:
            ModelNotFound: there is none.
        """
        return self.state(as_of).find(selector)

    def stage_before(self, stage: str) -> ModelVersion | None:
        """Return the version that was in a stage before the one that is there now, if it may still be used."""
        return _stage_before(self.ledger.events(), self.state(), stage)

    def ever(self, selector: str) -> list[ModelVersion]:
        """Return the versions that a selector means or has meant, withdrawn ones too: the present one first.

        Of an alias or a stage these are all that were ever under it, the newest first; of `latest`, `1` or `1.2` all
        releases of these; of a version itself only that.

        Raises:
            ModelNotFound: it means nothing, and never did.
        """
        state = self.state()
        before = _ever(self.ledger.events(), state, selector)
        try:
            before.insert(0, state.find(selector))
        except ModelNotFound:
            if not before:
                raise
        return list({str(one.version): one for one in before}.values())

    # --- versions --------------------------------------------------------------------------------------------------

    def register(
        self,
        manifest: str,
        *,
        version: str | Callable[[ModelState], str],
        proposal: Mapping[str, Any] | Callable[[ModelState], Mapping[str, Any]] | None = None,
        reason: str | None = None,
        tags: Mapping[str, str] | None = None,
        notes: str | None = None,
    ) -> ModelVersion:
        """Add a version. Its number is its own for ever, also when it is withdrawn later.

        Args:
            manifest: Hash of the blob that says what the version consists of.
            version: Its number; or a function that chooses one for what stands, called again whenever another
                writer was faster.
            proposal: What the evidence asked for, with its reasons; or a function as for `version`.
            reason: Why another number than the proposed one was chosen.
            tags, notes: As for `set_tags` and `set_notes`.

        Raises:
            InvalidValue: it is not a semantic version.
            AlreadyExists: the number was given before.
        """
        text_tags = check_tags(tags or {})

        def said(state: ModelState) -> dict[str, Any]:
            chosen = SemVer.parse(version(state) if callable(version) else version)
            if (given := state.versions.get(str(chosen))) is not None:
                gone = " and was withdrawn" if given.withdrawn else ""
                raise AlreadyExists(
                    f"model {state.name!r} has a version {chosen} already{gone}; numbers are never given twice"
                )
            return {
                "version": str(chosen),
                "manifest": manifest,
                "proposal": dict(proposal(state) if callable(proposal) else proposal or {}),
                "reason": reason,
                "tags": text_tags,
                "notes": notes,
            }

        event = self._append("registered", said)
        return self.state().versions[event.fields["version"]]

    def withdraw(self, version: str, *, reason: str, is_forced: bool = False) -> None:
        """Take a version out of use. It stays in the history, and its number is never given again.

        Raises:
            ModelNotFound: there is no such version.
            VersionInUse: an alias or a stage points to it, or it is deployed, and it is not forced.
        """

        def said(state: ModelState) -> dict[str, Any]:
            found = state.find(version)
            users = [f"alias {alias!r}" for alias in found.aliases]
            if found.stage not in (state.stages[0], ARCHIVED):
                users.append(f"stage {found.stage!r}")
            users += [f"deployment {one.target!r}" for one in found.deployments if one.is_standing]
            if users and not is_forced:
                raise VersionInUse(f"{found} is in use: {', '.join(users)}; move these first, or force it")
            return {"version": str(found.version), "reason": check_text(reason, "reason")}

        self._append("withdrawn", said)

    # --- aliases and stages ----------------------------------------------------------------------------------------

    def set_alias(self, alias: str, version: str) -> ModelVersion:
        """Let an alias point to a version, wherever it pointed before.

        Raises:
            InvalidName: the alias could be taken for a version or a stage.
            ModelNotFound: there is no such version.
        """

        def said(state: ModelState) -> dict[str, Any]:
            check_alias(alias, state.stages)
            found = _usable(state.find(version))
            return {"alias": alias, "version": str(found.version), "before": state.aliases.get(alias)}

        self._append("aliased", said)
        return self.state().find(alias)

    def set_stage(
        self,
        version: str,
        stage: str,
        *,
        reason: str | None = None,
        keeps_others: bool = False,
        record: Mapping[str, Any] | Callable[[ModelState], Mapping[str, Any]] | None = None,
    ) -> ModelVersion:
        """Move a version into a stage. Those that were there go to `archived`, or to the first stage without one.

        Args:
            version: The version.
            stage: One of the model's stages.
            reason: Why, for the history.
            keeps_others: Leave those that are in the stage there, too.
            record: What the gates found, kept with the event; or a function that finds it for what stands and may
                raise to refuse, called again whenever another writer was faster.

        Raises:
            InvalidValue: the model has no such stage.
            NotApproved: the model asks for an approval, and the version has none.
            ModelNotFound: there is no such version.
        """

        def said(state: ModelState) -> dict[str, Any]:
            found = state.find(version)
            _check_stage(state, stage)
            kept = record(state) if callable(record) else record  # before the rest: it says more of what is wrong
            _check_approval(state, _usable(found), stage)
            return _move(state, found, stage, reason, keeps_others=keeps_others) | {"record": kept}

        event = self._append("staged", said)
        return self.state().versions[event.fields["version"]]

    def roll_back(self, stage: str, *, reason: str) -> ModelVersion:
        """Bring the version back that was in a stage before the one that is there now.

        Raises:
            ModelNotFound: nothing was there before that may still be used.
        """

        def said(state: ModelState) -> dict[str, Any]:
            _check_stage(state, stage)
            found = _stage_before(self.ledger.events(), state, stage)
            if found is None:
                raise ModelNotFound(f"no earlier version was in stage {stage!r} of model {state.name!r}")
            return _move(state, found, stage, reason, keeps_others=False) | {"is_rollback": True}

        event = self._append("staged", said)
        return self.state().versions[event.fields["version"]]

    def judge(self, version: str, state: ApprovalState, *, reason: str | None = None) -> ModelVersion:
        """Approve or reject a version, or open the question again.

        Raises:
            InvalidValue: it is none of `approved`, `rejected`, `pending`.
            ModelNotFound: there is no such version.
        """
        if state not in ("pending", "approved", "rejected"):
            raise InvalidValue(f"{state!r:.80} is no judgement; say approved, rejected or pending")

        def said(before: ModelState) -> dict[str, Any]:
            found = _usable(before.find(version))
            return {"version": str(found.version), "state": state, "before": found.approval.state, "reason": reason}

        event = self._append("judged", said)
        return self.state().versions[event.fields["version"]]

    # --- in use ----------------------------------------------------------------------------------------------------

    def record_deployment(
        self,
        version: str,
        target: str,
        *,
        url: str | None = None,
        replicas: int | None = None,
        reason: str | None = None,
        keeps_others: bool = False,
    ) -> Deployment:
        """Record that a version was deployed; what was at that place before is not any more.

        It is a record of what happened, so it asks for no approval.

        Args:
            version: The version.
            target: The place, as the team calls it.
            url: Where it answers.
            replicas: How many of it.
            reason: Why, for the history.
            keeps_others: Other versions stay at that place, too, as when a few requests go to a new one.

        Raises:
            ModelNotFound: there is no such version.
            InvalidValue: there cannot be so many replicas.
        """
        check_name(target, "target")
        if replicas is not None and (isinstance(replicas, bool) or replicas < 0):
            raise InvalidValue(f"there cannot be {replicas!r:.40} replicas; give a number of them, from 0 on")

        def said(state: ModelState) -> dict[str, Any]:
            number = str(state.find(version).version)
            others = [] if keeps_others else [one.version for one in state.deployed(target) if one.version != number]
            return {
                "version": number,
                "target": target,
                "url": url,
                "replicas": replicas,
                "reason": reason,
                "replaced": others,
            }

        event = self._append("deployed", said)
        return self.state().versions[event.fields["version"]].deployments[-1]

    def end_deployment(self, target: str, *, version: str | None = None, reason: str | None = None) -> list[Deployment]:
        """Record that nothing is at a place any more, or one version is not.

        Raises:
            ModelNotFound: it is not there.
        """
        ended: list[Deployment] = []

        def said(state: ModelState) -> dict[str, Any]:
            number = state.key_of(version)
            ended[:] = [one for one in state.deployed(target) if number in (None, one.version)]
            if not ended:
                there = ", ".join(sorted({one.target for one in state.deployed()})) or "nowhere"
                what = state.name if number is None else f"{state.name}@{number}"
                raise ModelNotFound(f"{what!r:.80} is not at {target!r:.80}; the model is deployed at: {there}")
            return {
                "version": number,
                "target": target,
                "ended": [one.version for one in ended],
                "reason": reason,
            }

        event = self._append("undeployed", said)
        return [replace(one, ended_at=event.at) for one in ended]

    def open_incident(
        self,
        version: str,
        *,
        kind: str,
        summary: str,
        report_hash: str | None = None,
        run_id: str | None = None,
        is_single: bool = False,
    ) -> Incident:
        """Record that something is wrong with a version; it gets the model's next number.

        Args:
            version: The version.
            kind: What sort, such as `drift`.
            summary: In a line.
            report_hash: Hash of the blob with what was found; `gc` keeps it.
            run_id: The run that found it.
            is_single: Only where no incident of this kind is open for the version.

        Raises:
            ModelNotFound: there is no such version.
            InvalidValue: the hash is none.
            AlreadyExists: one is open, and it should be single.
        """
        check_name(kind, "kind of incident")
        fields = {
            "kind": kind,
            "summary": check_text(summary, "summary"),
            "report_hash": None if report_hash is None else _check_hash(report_hash),
            "run_id": run_id,
        }

        def said(state: ModelState) -> dict[str, Any]:
            number, found = max(state.incidents, default=0) + 1, str(state.find(version).version)
            for one in state.incidents.values() if is_single else ():
                if one.is_open and (one.version, one.kind) == (found, kind):
                    raise AlreadyExists(f"incident {one} of kind {kind!r:.80} is open: {one.summary}")
            return {"version": found, "number": number, **fields}

        event = self._append("incident_opened", said)
        return self.state().incidents[event.fields["number"]]

    def close_incident(self, number: int, *, reason: str, run_id: str | None = None) -> Incident:
        """Record that an incident is over.

        Args:
            number: Of the incident.
            reason: Why.
            run_id: The run that resolved it.

        Raises:
            NotFound: there is no such incident.
            InvalidValue: it was closed before.
        """
        checked = check_text(reason, "reason")

        def said(state: ModelState) -> dict[str, Any]:
            found = state.incidents.get(number)
            if found is None:
                there = ", ".join(f"#{one}" for one in sorted(state.incidents)[-10:]) or "none"
                raise NotFound(f"model {state.name!r} has no incident #{number}; there is {there}")
            if not found.is_open:
                raise InvalidValue(f"incident {found} was closed already: {found.resolution}")
            return {"version": found.version, "number": number, "reason": checked, "run_id": run_id}

        self._append("incident_closed", said)
        return self.state().incidents[number]

    def set_profile(self, version: str, profile_hash: str) -> ModelVersion:
        """Record what the data of a version looked like, in place of what was recorded before.

        Args:
            version: The version.
            profile_hash: Hash of the blob that says it; `gc` keeps it.

        Raises:
            ModelNotFound: there is no such version.
            InvalidValue: the hash is none.
        """
        checked = _check_hash(profile_hash)
        event = self._append("profiled", lambda state: {"version": state.key_of(version), "profile": checked})
        return self.state().versions[event.fields["version"]]

    # --- words -----------------------------------------------------------------------------------------------------

    def define(self, *, stages: Sequence[str] | None = None, requires_approval: bool | None = None) -> None:
        """Change the stages of the model, or whether a version needs an approval before it is used.

        Raises:
            InvalidName: a stage could be taken for a version, or occurs twice.
            VersionInUse: a version is in a stage that would be gone.
        """

        def said(state: ModelState) -> dict[str, Any]:
            fields: dict[str, Any] = {}
            if stages is not None:
                fields["stages"] = list(check_stages(stages))
                for version in state.usable():
                    if version.stage not in stages and version.stage != state.stages[0]:
                        raise VersionInUse(f"{version} is in stage {version.stage!r}; move it before the stage goes")
                if taken := [stage for stage in stages if stage in state.aliases]:
                    raise InvalidName(f"{taken[0]!r} is an alias of this model; it cannot be a stage, too")
            if requires_approval is not None:
                fields["requires_approval"] = requires_approval
            return fields

        self._append("defined", said)

    def note_refusal(self, version: str, stage: str, *, reason: str | None, record: Mapping[str, Any]) -> None:
        """Record that a version was not let into a stage, and what the gates found."""
        self._append(
            "refused",
            lambda state: {"version": state.key_of(version), "stage": stage, "reason": reason, "record": record},
        )

    def revoke(self, version: str, *, reason: str | None) -> ModelVersion:
        """Say that a version, and all that descends from it, must not be promoted any more; `None` takes that back.

        Raises:
            ModelNotFound: there is no such version.
        """
        checked = None if reason is None else check_text(reason, "reason")
        event = self._append("revoked", lambda state: {"version": state.key_of(version), "reason": checked})
        return self.state().versions[event.fields["version"]]

    def note_descent(self, version: str, *, ref: str, reason: str) -> None:
        """Record that a version descends from something that was revoked."""
        self._append("flagged", lambda state: {"version": state.key_of(version), "from": ref, "reason": reason})

    def note_delivery(self, fields: Mapping[str, Any]) -> None:
        """Record what became of a hook."""
        self._append("delivered", lambda _state: fields)

    def _append(self, kind: str, said: Callable[[ModelState], Mapping[str, Any]]) -> LedgerEvent:
        event = super()._append(kind, said)
        if self._after is not None:
            self._after(self, event)
        return event


class Models(Catalog[Model]):
    """The registry of one workspace.

    Args:
        root: Its folder.
        run_id: The run on whose behalf changes are made, if one does.
        after: As for `Model`.
    """

    what = "model"
    missing = ModelNotFound
    makers = "run.log_model"

    def __init__(self, root: Path, *, run_id: str | None = None, after: After | None = None) -> None:
        super().__init__(root, run_id=run_id)
        self._after = after

    def create(
        self,
        name: str,
        *,
        notes: str | None = None,
        stages: Sequence[str] | None = None,
        requires_approval: bool = False,
        is_there_ok: bool = False,
    ) -> Model:
        """Make a model without a version.

        Args:
            name: Any text without `@`.
            notes: Annotation, Markdown.
            stages: The team's own stages, the first of which a new version is in; default `none`, `staging`,
                `production`, `archived`.
            requires_approval: Whether a version must be approved before it goes into any stage but the first and
                `archived`.
            is_there_ok: Return the model of this name where there is one.

        Raises:
            InvalidName: the name or a stage cannot be kept.
            AlreadyExists: there is one.
        """
        check_name(name, "model")
        if "@" in name or "?as_of=" in name:
            raise InvalidName(
                f"the name of a model cannot hold '@' or '?as_of=': {name!r:.80}; they part it from a version"
            )
        fields = {
            "name": name,
            "notes": notes,
            "stages": list(check_stages(stages)) if stages is not None else None,
            "requires_approval": requires_approval,
        }
        model, event = self._create(fields, is_there_ok=is_there_ok)
        if event is not None and self._after is not None:
            self._after(model, event)
        return model

    def find(self, ref: str | ModelRef) -> ModelVersion:
        """Return the version that a reference means, such as `credit-risk@production?as_of=2026-03-01`.

        Raises:
            ModelNotFound: there is none.
            InvalidName, InvalidValue: the reference does not parse.
        """
        ref = ModelRef.parse(ref) if isinstance(ref, str) else ref
        return self.get(ref.name).find(ref.selector, as_of=ref.as_of)

    def _entry(self, ledger: Ledger) -> Model:
        return Model(ledger, run_id=self._run_id, after=self._after)


def check_stages(stages: Sequence[str]) -> tuple[str, ...]:
    """Return the stages of a model, the first of which a new version is in.

    Raises:
        InvalidName: there are none, one occurs twice, or could be taken for a version.
    """
    if isinstance(stages, str) or not stages:
        raise InvalidName(f"stages are {stages!r:.80}; give at least one, as a list")
    for stage in stages:
        check_name(stage, "stage")
        if stage.lower() == LATEST or is_version_like(stage) or "@" in stage or "?" in stage:
            raise InvalidName(f"stage {stage!r:.80} could be taken for a version; choose another word")
    if len(set(stages)) < len(stages):
        raise InvalidName(f"a stage occurs twice in {list(stages)}")
    return tuple(stages)


def _usable(version: ModelVersion) -> ModelVersion:
    if version.withdrawn is not None:
        raise InvalidValue(f"{version} was withdrawn: {version.withdrawn}")
    return version


def _check_stage(state: ModelState, stage: str) -> None:
    if stage not in state.stages:
        raise InvalidValue(f"model {state.name!r} has no stage {stage!r:.80}; it has {', '.join(state.stages)}")


def _check_approval(state: ModelState, version: ModelVersion, stage: str) -> None:
    is_use = stage not in (state.stages[0], ARCHIVED)
    if not is_use:
        return
    if version.approval.state == "rejected":
        why = f": {version.approval.reason}" if version.approval.reason else ""
        raise NotApproved(f"{version} was rejected by {version.approval.by}{why}")
    if state.requires_approval and version.approval.state != "approved":
        raise NotApproved(f"{version} is not approved, and model {state.name!r} asks for that before {stage!r}")


def _move(
    state: ModelState, version: ModelVersion, stage: str, reason: str | None, *, keeps_others: bool
) -> dict[str, Any]:
    is_use = stage not in (state.stages[0], ARCHIVED)
    others = [other for other in state.in_stage(stage) if other is not version] if is_use and not keeps_others else []
    aside = ARCHIVED if ARCHIVED in state.stages else state.stages[0]
    return {
        "version": str(version.version),
        "stage": stage,
        "before": version.stage,
        "reason": reason,
        "replaced": [{"version": str(other.version), "stage": aside} for other in others],
    }


def _stage_before(events: Sequence[LedgerEvent], state: ModelState, stage: str) -> ModelVersion | None:
    """Return whom a rollback brings back: going back twice goes back two versions, not to and fro."""
    stack: list[str] = []
    for event in events:
        if event.kind == "staged" and event.fields["stage"] == stage:
            if event.fields.get("is_rollback"):
                stack.pop()
                if stack[-1:] != [event.fields["version"]]:
                    stack.append(event.fields["version"])
            else:
                stack.append(event.fields["version"])
    current = {str(version.version) for version in state.in_stage(stage)}
    for number in reversed(stack):
        version = state.versions[number]
        if number not in current and version.withdrawn is None and version.approval.state != "rejected":
            return version
    return None


def _ever(events: Sequence[LedgerEvent], state: ModelState, selector: str) -> list[ModelVersion]:
    """Return what a selector other than a version has meant, the newest first."""
    if selector.removeprefix("v") in state.versions or selector.count(".") > 1:
        return []
    if selector == LATEST or is_version_like(selector):  # which no alias can be called
        parts = [] if selector == LATEST else [int(part) for part in selector.removeprefix("v").split(".")]
        wanted = [one for one in state.versions.values() if not one.version.is_prerelease]
        found = [one for one in wanted if [one.version.major, one.version.minor][: len(parts)] == parts]
        return sorted(found, key=lambda one: one.version, reverse=True)
    kind, key = ("staged", "stage") if selector in state.stages else ("aliased", "alias")
    moves = [event.fields for event in events if event.kind == kind and event.fields[key] == selector]
    numbers = [said["version"] for said in reversed(moves) if said["version"] is not None]
    return [state.versions[number] for number in dict.fromkeys(numbers)]


def _check_hash(content: str) -> str:
    if not is_hash(content):
        raise InvalidValue(f"{content!r:.80} is no hash of a blob: that is 64 hex digits")
    return content
