"""From a verdict to an incident, from an incident to training again, and back when the new version is promoted."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runstone import settings
from runstone.errors import AlreadyExists, RunstoneError
from runstone.ledger import LedgerEvent
from runstone.models.history import ARCHIVED
from runstone.models.hookfile import Hook
from runstone.models.operation import Incident
from runstone.models.registry import Model
from runstone.models.sending import send
from runstone.monitoring.configfile import Action, Watching
from runstone.monitoring.records import folder_of, report_bytes
from runstone.monitoring.report import Report
from runstone.runlog.reader import read_journal

if TYPE_CHECKING:
    from runstone.workspace import Workspace

VARIABLE = "RUNSTONE_INCIDENT"
_MOST_PARENTS = 20


@dataclass(frozen=True, slots=True)
class Started:
    """What was done about an incident.

    Attributes:
        what: The command, or where it was posted to, without what may be secret.
        is_done: Whether it was started, or taken.
        detail: How that went, in a few words.
        log: Where its output goes; `None` where it has none.
        process: The one that waits for it; `None` where there is none.
    """

    what: str
    is_done: bool
    detail: str
    log: Path | None = None
    process: subprocess.Popen[bytes] | None = None


def open_incident(workspace: Workspace, report: Report, watching: Watching) -> tuple[Incident | None, list[Started]]:
    """Open an incident where a report asks for one, and do what is to be done about it.

    Args:
        workspace: Where the version is.
        report: Of a version.
        watching: From which verdict on, and what is done.

    Returns:
        The incident that is open for this now, a new one or that of before; `None` where the verdict is not so bad.
        And what was started: nothing for one that was open before.
    """
    assert report.model is not None  # noqa: S101 (callers have looked)
    assert report.version is not None  # noqa: S101
    if watching.incident == "never" or not report.is_at_least(watching.incident):  # type: ignore[arg-type]
        return None, []
    model = workspace.models.get(report.model)
    kind = {"schema": "schema", "performance": "performance"}.get(report.cause, "drift")
    known = _open_of(model, report.version, kind)
    if known is not None:
        return known, []
    blobs = workspace.blobs
    kept = blobs.put_bytes(report_bytes(report), "report.json")
    blobs.sync()  # the event promises the content
    if blobs.remote is not None:
        blobs.push([kept.hash])
    summary = report.headline.partition(": ")[2][:500]
    try:
        incident = model.open_incident(
            report.version, kind=kind, summary=summary, report_hash=kept.hash, is_single=True
        )
    except AlreadyExists:  # another watcher was faster
        return _open_of(model, report.version, kind), []
    return incident, [_start(workspace.path, incident, action, place) for place, action in enumerate(watching.actions)]


def _open_of(model: Model, version: str, kind: str) -> Incident | None:
    found = (one for one in model.state().incidents.values() if one.is_open)
    return next((one for one in found if (one.version, one.kind) == (version, kind)), None)


# --- doing something about it ---------------------------------------------------------------------------------------


def _start(workspace: Path, incident: Incident, action: Action, place: int) -> Started:
    """Start one action. A command lives on by itself: training again takes longer than a check may."""
    event = {
        "format": 1,
        "id": f"{incident}",
        "event": "incident_opened",
        "model": incident.model,
        "version": incident.version,
        "number": incident.number,
        "kind": incident.kind,
        "summary": incident.summary,
        "report_hash": incident.report_hash,
        "at": incident.opened_at,
        "by": incident.opened_by,
    }
    if action.url is not None:
        hook = Hook("action", ("incident_opened",), url=action.url, secret=action.secret)
        sent = send(hook, event, workspace)
        return Started(hook.target, sent.is_delivered, sent.detail)
    command = _command(action)
    folder = folder_of(workspace, incident.model) / "actions"
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / f"{incident.number}-{place}.json"
    said = {"format": 1, "command": command, "incident": str(incident), "started_at": time.time(), "event": event}
    record.write_text(json.dumps(said, ensure_ascii=False), "utf-8")
    log = record.with_suffix(".log")
    try:
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "runstone.monitoring", str(record)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=workspace.parent,
                env=_environment(workspace, incident),
                start_new_session=True,  # it outlives whoever looked
            )
    except OSError as error:
        return Started(" ".join(command), False, f"it could not be started: {error.strerror}", log)
    return Started(" ".join(command), True, "started", log, process)


def _command(action: Action) -> list[str]:
    if action.sweep is not None:
        return [sys.executable, "-m", "runstone_sweeps.cli.main", "run", action.sweep]
    return list(action.command)


def _environment(workspace: Path, incident: Incident) -> dict[str, str]:
    """Return the variables of what trains again: it belongs to no run that this process may be part of."""
    own = ("RUNSTONE_RUN_ID", "RUNSTONE_TRIAL", "RUNSTONE_GROUP", "RUNSTONE_NAME", "RUNSTONE_SEED", "RUNSTONE_FACTS")
    environment = {name: value for name, value in settings.process_environment().items() if name not in own}
    return {
        **environment,
        VARIABLE: str(incident),
        "RUNSTONE_WORKSPACE": str(workspace),
        "RUNSTONE_EVENT": "incident_opened",
        "RUNSTONE_EVENT_MODEL": incident.model,
        "RUNSTONE_EVENT_VERSION": incident.version,
        "RUNSTONE_EVENT_KIND": incident.kind,
    }


def run_action(record: Path) -> int:
    """Run the command of a record to its end, note how it ended, and return its exit code."""
    said = json.loads(record.read_bytes())
    try:
        code = subprocess.run(said["command"], stdin=subprocess.DEVNULL, check=False).returncode
        detail = f"exit code {code}" if code >= 0 else f"killed by signal {-code}"
    except (OSError, ValueError) as error:
        code, detail = 127, f"it could not be started: {getattr(error, 'strerror', None) or error}"
        print(detail, file=sys.stderr)
    said |= {"ended_at": time.time(), "exit_code": code, "detail": detail}
    partial = record.with_name(f".{record.name}.partial")
    partial.write_text(json.dumps(said, ensure_ascii=False), "utf-8")
    partial.replace(record)
    return code if code >= 0 else 1


def actions_of(workspace: Path, model: str, number: int) -> list[dict[str, Any]]:
    """Return what was started for an incident, as it was noted."""
    folder = folder_of(workspace, model) / "actions"
    found = []
    for path in sorted(folder.glob(f"{number}-*.json")):
        try:
            said = json.loads(path.read_bytes())
        except ValueError:  # cut off by a crash
            continue
        found.append({key: value for key, value in said.items() if key not in ("event", "format")})
    return found


# --- the end of an incident -----------------------------------------------------------------------------------------


def close_resolved(workspace: Path, model: Model, event: LedgerEvent) -> list[Incident]:
    """Close the incidents that a version was trained for, when it comes into use.

    Into use means: into a stage that is neither the first one nor `archived`, or under an alias that the version with
    the incident has or had: its labels may have told of it after another took its place.

    Args:
        workspace: Where the runs are.
        model: Whose version.
        event: What was just done with it.
    """
    if event.kind not in ("staged", "aliased") or event.fields.get("version") is None:
        return []
    state = model.state()
    waiting = [one for one in state.incidents.values() if one.is_open and one.version != event.fields["version"]]
    if event.kind == "aliased":
        held = {one.key for one in model.ever(event.fields["alias"])} if waiting else set()
        waiting = [one for one in waiting if one.version in held]
        place = f"@{event.fields['alias']}"
    else:
        place = str(event.fields["stage"])
        if place in (state.stages[0], ARCHIVED):
            return []
    version = state.versions[event.fields["version"]]
    if not waiting or version.run_id is None:
        return []
    causes = set(incidents_of_run(workspace, version.run_id))
    closed = []
    for one in waiting:
        if str(one) in causes:
            reason = f"{version}, which was trained for it, came to {place}"
            try:
                closed.append(model.close_incident(one.number, reason=reason, run_id=version.run_id))
            except RunstoneError:  # somebody has closed it in the same moment
                continue
    return closed


def incidents_of_run(workspace: Path, run_id: str) -> Iterable[str]:
    """Yield the incidents that a run, or one that it belongs under, was started for, such as `credit-risk#3`."""
    for _ in range(_MOST_PARENTS):
        folder = next(iter(workspace.glob(f"runs/*/{run_id}")), None)
        if folder is None:
            return
        journal = read_journal(folder)
        yield from (f"{link.name}#{link.version}" for link in journal.inputs.values() if link.kind == "incident")
        if not journal.parent:
            return
        run_id = journal.parent
