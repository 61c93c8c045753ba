"""How a run is opened: made, joined, gone on with, joined again from a pickle. Knows no file format and no SQL."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runstone import settings
from runstone.companions import SPOOL_MARK, RankPlace
from runstone.current import current_run, set_current
from runstone.errors import AlreadyExists, InvalidValue, RunNotFound, RunstoneError
from runstone.names import check_name, check_run_id, new_run_id, new_run_name, shown
from runstone.recording.telling import warn
from runstone.run import Run, runs_here
from runstone.runlog.silent import SilentLog
from runstone.runlog.writer import RunLog
from runstone.settings import OnError
from runstone.workspace import Workspace, attempt_to_join, check_tags, ensure_workspace, prepare_to_join

if TYPE_CHECKING:
    from runstone.values import JSON


def start_run(
    *,
    project: str | None = None,
    name: str | None = None,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, Any] | None = None,
    group: str | None = None,
    notes: str | None = None,
    run_id: str | None = None,
    resume: bool | None = None,
    parent: str | None = None,
    workspace: str | Path | Workspace | None = None,
    on_error: OnError | None = None,
    environment: bool = True,
    system_metrics: bool | float = True,
    tensorboard: bool | str | Path = False,
    alerts: Sequence[Any] = (),
) -> Run:
    """Start a run, or go on with one.

    Under `sweep run` the first call of a trial's process joins the run of that trial: the sweep has named it, and its
    `project`, `name`, `group` and `workspace` stand. Under `runstone run` the first call joins the run of the command:
    `name` is taken where the command line gives none; `project`, `group` and `workspace` are those of the command line,
    and a warning tells of others given here.

    Args:
        project: Group of runs that it belongs to; default `RUNSTONE_PROJECT`, else `default`.
        name: Any text; default two words and a number.
        params: See `Run.log_params`.
        tags: See `Run.set_tags`.
        group: Runs that belong together inside a project.
        notes: Free text.
        run_id: 1 to 64 of `a-z 0-9 _ -`. Default: a new one.
        resume: With `run_id`. `None`: go on with that run if it is there, else make it. `True`: it must be there.
            `False`: it must not. Processes that use one id at once write one attempt; one that comes after the others
            ended opens the next.
        parent: Id of the run that this one belongs under.
        workspace: Folder of the workspace, or URL of a server, see docs/sync.md; default `RUNSTONE_WORKSPACE`, the
            nearest `.runstone` here or above, or a new one here.
        on_error: `"warn"` (default): what cannot be recorded is warned of once a kind, and training goes on. `"raise"`.
        environment: Take the snapshot of the machine, in the background.
        system_metrics: Sample CPU, memory, disk, network and GPUs, in the background: every 10 s, every so many
            seconds, or not at all. See docs/system-metrics.md.
        tensorboard: Mirror the run into TensorBoard event files while it trains, by a process of its own: `True`: into
            the workspace's `tensorboard` folder; or name a folder.
        alerts: What to watch the run for, by a process of its own, beside the rules of the workspace's `alerts.yaml`:
            kinds such as `"nan"`, or mappings such as `{"when": "metric", "metric": "val/acc", "above": 0.9}`; see
            docs/alerts.md. The workspace says who is told.

    Returns:
        The open run.

    Raises:
        InvalidName, InvalidValue: a name or `on_error` is not legal.
        InvalidConfig: `alerts` has mistakes.
        RunNotFound: `resume=True`, and there is no such run.
        AlreadyExists: `resume=False`, and there is one.
        FormatError: the workspace was made by a newer version.
        OSError: the workspace cannot be written, with `on_error="raise"`; else the run records nothing and says so.
    """
    on_error = settings.on_error(on_error)
    if resume and run_id is None:
        raise InvalidValue("resume=True needs the run_id of the run to go on with")
    if on_error == "raise":  # before anything is made; else they are warned of and left out
        check_tags(tags or {})
        if params is not None and not isinstance(params, Mapping):
            raise InvalidValue(f"params must be given by name, got {shown(params)}")
    if workspace is not None and not isinstance(workspace, str | os.PathLike | Workspace):
        raise InvalidValue(f"workspace must be a path or a Workspace, got {shown(workspace)}")
    _check_names(project, name, group, run_id, parent)
    if alerts:
        from runstone.alerts import parse_alerting  # only where wanted

        parse_alerting({"alerts": list(alerts)}, "alerts")
    interval_s = _interval_of(system_metrics)
    launched = _claim_launched() if run_id is None else None
    asked_for: dict[str, Any] = {}
    if launched is not None:
        if settings.read("RUNSTONE_TRIAL") is not None:
            project = name = group = None
        else:
            asked_for = {"project": project, "group": group, "workspace": workspace}
        run_id, resume, workspace = launched, None, None
    facts = {
        "project": settings.read("RUNSTONE_PROJECT") or "default" if project is None else project,
        "name": name,
        "group": settings.read("RUNSTONE_GROUP") if group is None else group,
        "notes": str(notes) if notes is not None else None,
        "parent": parent,
        "resumed": False,
        "is_launched": launched is not None,
        "started_at": time.time(),
    }
    _check_names(facts["project"], None, facts["group"], run_id, None)  # the environment's words too
    try:
        if settings.is_disabled():
            return _silent_run(facts, on_error)
        home = ensure_workspace(workspace)
        run = _open_run(home, run_id, resume, facts, on_error)
    except OSError as error:
        if isinstance(error, RunstoneError) or on_error == "raise":
            raise
        warn(f"the run cannot be recorded: {type(error).__name__}: {error}; training goes on without a record")
        return _silent_run(facts, on_error)
    _tell_what_stands(run, asked_for)
    _note_cause(run)
    if params:
        run.log_params(params)
    if tags:
        run.set_tags(tags)
    run._take_along(
        environment=environment,
        interval_s=interval_s,
        tensorboard=tensorboard,
        alerts=alerts,
        started_at=facts["started_at"],
        place=RankPlace(0, 1, 0, 1, 0) if run_id is None and settings.rank() else None,
        # The trials of a sweep, and nothing else that inherits their variables.
        handed_over=settings.facts_folder() if run.id == settings.read("RUNSTONE_RUN_ID") else None,
    )
    return run


def _interval_of(system_metrics: bool | float) -> float | None:
    if system_metrics is True:
        told = settings.read("RUNSTONE_SYSTEM_METRICS")
        if told is not None:
            system_metrics = settings.switch_or_seconds("RUNSTONE_SYSTEM_METRICS", told)
    if system_metrics is False:
        return None
    from runstone.capture.metrics import interval_of  # only where wanted

    return interval_of(system_metrics)


def _tell_what_stands(run: Run, asked_for: Mapping[str, Any]) -> None:
    """Warn of what a script asks for and cannot have: the run lies where the command that launched it has put it."""
    for what, given in asked_for.items():
        has = getattr(run, what)
        if isinstance(has, Workspace):
            has, given = str(has.path), given and str(Path(getattr(given, "path", given)).resolve())
        if given is not None and given != has:
            warn(
                f"{what} {given!r} of start_run is left out: the run {run.name} was launched with {what} {has!r}; "
                f"say it where the run is launched: `runstone run --{what} …`"
            )


def _note_cause(run: Run) -> None:
    """Record which incident the run trains again for, where something was started for one."""
    told = settings.read("RUNSTONE_INCIDENT")
    if told is None or settings.rank():
        return
    model, mark, number = told.rpartition("#")
    if mark and model and number.isdigit():
        run._event("input", kind="incident", name=model, version=number, hash=None, role="retrain")
    else:
        warn(f"RUNSTONE_INCIDENT is {told!r:.80}, which names no incident, such as 'credit-risk#3'; it is left out")


def trial_params() -> dict[str, JSON]:
    """Return the params that `sweep run` chose for this trial, nested; an empty dict outside a sweep."""
    text = settings.read("RUNSTONE_TRIAL")
    if text is None:
        return {}
    try:
        params = json.loads(text)
    except ValueError:
        params = None
    if not isinstance(params, dict):
        raise InvalidValue(f"RUNSTONE_TRIAL must hold a JSON object, it holds {text!r:.80}")
    return params


def _check_names(project: object, name: object, group: object, run_id: object, parent: object) -> None:
    for given, what in ((project, "project"), (name, "run"), (group, "group")):
        if given is not None:
            check_name(given, what)
    for given in (run_id, parent):
        if given is not None:
            check_run_id(given)


def _open_run(
    home: Workspace, run_id: str | None, resume: bool | None, facts: dict[str, Any], on_error: OnError
) -> Run:
    standing = home.find_run_folder(run_id) if run_id is not None else None
    if standing is None and run_id is not None and resume is not False and (home.path / SPOOL_MARK).is_file():
        from runstone.sync.remote import fetch_journals  # only where a run on a server may be gone on with

        standing = fetch_journals(home.path, run_id, is_needed=bool(resume))
    if resume and standing is None:
        raise RunNotFound(f"there is no run {run_id!r} to resume in {home.path}; `runstone runs list` shows them")
    if standing is None:
        with contextlib.suppress(AlreadyExists):
            # Processes of one launcher that share no run are no ranks of it: each is the whole of its own.
            rank = 0 if run_id is None else settings.rank()
            return _create_run(home, run_id or new_run_id(), facts, on_error, rank=rank)
        standing = home.find_run_folder(run_id or "")  # another process was faster: join it
        if standing is None:
            raise RunNotFound(f"run {run_id!r} vanished while it was opened")
    if resume is False:
        raise AlreadyExists(f"a run with the id {run_id!r} is there already: {standing}; resume=False forbids that")
    return _join_run(home, standing, facts, on_error)


def _create_run(home: Workspace, run_id: str, facts: dict[str, Any], on_error: OnError, *, rank: int) -> Run:
    facts["name"] = facts["name"] or _name_to_claim() or new_run_name(run_id)
    created = {"run_id": run_id, **_told(facts)}
    log = home.open_new_run(created, rank=rank, backend=settings.log_backend())
    return Run(home, log, facts=facts, on_error=on_error)


def _told(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: facts[key] for key in ("project", "name", "group", "notes", "parent")}


def _join_run(home: Workspace, folder: Path, facts: dict[str, Any], on_error: OnError) -> Run:
    from runstone.runlog.reader import read_journal

    backend = settings.log_backend()
    journal = read_journal(folder)
    was_started = any(writer.role == "main" for writer in journal.writers)
    facts["resumed"] = was_started
    given_name, given_notes = facts["name"], facts["notes"]
    created = None
    if journal.is_created:
        facts.update(project=journal.project, name=journal.name, group=journal.group, started_at=journal.created_at)
    else:  # its first writer died before it could say what the run is, or is just about to
        facts["name"] = given_name or _name_to_claim() or new_run_name(folder.name)
        created = {"run_id": folder.name, **_told(facts)}
    attempt = prepare_to_join(folder, journal)
    log = RunLog(folder, attempt=attempt, rank=settings.rank(), backend=backend, created=created)
    run = Run(home, log, facts=facts, on_error=on_error)
    is_named_already = facts["is_launched"] and run.name != new_run_name(run.id)  # by what has launched it
    if given_name and given_name != run.name and not is_named_already:
        run.set_name(given_name)
    if given_notes and given_notes != journal.notes:
        run.set_notes(given_notes)
    return run


def rejoin(workspace: str | None, run_id: str, on_error: OnError, is_finished: bool) -> Run:
    """Return a pickled run in the process that unpickled it: the same object again where it came from.

    Elsewhere it is a writer of its own, which makes its files when it first records something: to load a file that
    holds a run must not change that run.
    """
    with _unpickling:
        run = runs_here.get((workspace or "", run_id))
        if run is not None and (is_finished or not run.is_finished):
            return run
        before = current_run()
        try:
            run = _rejoin(workspace, run_id, on_error)
        except (OSError, RunstoneError) as error:
            if on_error == "raise":
                raise
            warn(f"the run {run_id} cannot be recorded here: {type(error).__name__}: {error}")
            run = _silent_run({"project": "default", "name": None, "group": None, "resumed": False}, on_error)
        if is_finished:
            run.finish()
        set_current(before)
    return run


def _rejoin(workspace: str | None, run_id: str, on_error: OnError) -> Run:
    from runstone.runlog.reader import read_journal

    facts = {"project": "default", "name": None, "group": None, "resumed": True}
    if workspace is None or settings.is_disabled():
        return _silent_run(facts, on_error)
    home = Workspace(workspace)
    folder = home.find_run_folder(run_id)
    if folder is None:
        raise RunNotFound(f"there is no run {run_id!r} in {home.path}")
    journal = read_journal(folder)
    facts.update(project=journal.project, name=journal.name, group=journal.group)
    # While the process that it came from lives, that one tells how the run ends.
    is_helper = any(writer.is_alive for writer in journal.writers if writer.role == "main")
    log = RunLog(
        folder,
        role="child" if is_helper else "main",
        attempt=attempt_to_join(journal),
        rank=settings.rank(),
        backend=settings.log_backend(),
        is_lazy=True,
    )
    return Run(home, log, facts=facts, on_error=on_error)


_unpickling = threading.RLock()

# The first run of a process that a sweep started belongs to the sweep; those after it are the user's own.
_claimed: list[str] = []


def _claim_launched() -> str | None:
    run_id = settings.read("RUNSTONE_RUN_ID")
    if run_id is None or run_id in _claimed:
        return None
    _claimed.append(run_id)
    return run_id


def _name_to_claim() -> str | None:
    name = settings.read("RUNSTONE_NAME")
    if name is None or f"name {name}" in _claimed:
        return None
    _claimed.append(f"name {name}")
    return check_name(name, "run")


def _silent_run(facts: dict[str, Any], on_error: OnError) -> Run:
    """Return a run that takes every call and keeps nothing."""
    facts["name"] = facts["name"] or new_run_name()
    return Run(None, SilentLog(new_run_id()), facts=facts, on_error=on_error)
