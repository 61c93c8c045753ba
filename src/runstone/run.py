"""The life of one run: started, steps, ended. Knows no file format and no SQL."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from runstone import ending, settings
from runstone.current import current_run, set_current
from runstone.errors import (
    AlreadyExists,
    InvalidName,
    InvalidValue,
    RunFinished,
    RunNotFound,
    RunstoneError,
    TrackingWarning,
    WorkspaceNotFound,
)
from runstone.names import check_name, check_run_id, new_run_id, new_run_name, shown
from runstone.params import to_json
from runstone.runlog import format as fmt
from runstone.runlog.points import as_step, step_error
from runstone.runlog.silent import SilentLog
from runstone.runlog.writer import RunLog
from runstone.settings import OnError
from runstone.status import Status
from runstone.workspace import Workspace, attempt_to_join, check_tags, end_status, ensure_workspace, prepare_to_join

if TYPE_CHECKING:
    from runstone.runinfo import RunInfo
    from runstone.values import JSON, Artifact

_STOP_REASONS = {fmt.WORD_GO: None, fmt.WORD_STOP: "stop", fmt.WORD_PRUNE: "prune"}


class Run:
    """One execution that records. `start_run` makes it; use it as a context manager, or call `finish`.

    Recording never waits for a disk, a lock or a network, and with `on_error="warn"` never raises: what could not be
    recorded is counted, written into the run, and warned of once a kind.

    A run can be pickled: the copy, in another process, joins the same run with files of its own.
    """

    def __init__(
        self, workspace: Workspace | None, log: RunLog | SilentLog, *, facts: Mapping[str, Any], on_error: OnError
    ) -> None:
        self._workspace = workspace
        self.id: str = log.path.name
        self.path: Path = log.path
        self.project: str = facts["project"]
        self.name: str = facts["name"]
        self.group: str | None = facts["group"]
        self._is_resumed: bool = facts["resumed"]
        self._on_error = on_error
        self._log = log
        self._last_step: Any = None if self._is_resumed else -1
        self._failure: BaseException | None = None
        self._warned: set[str] = set()
        self._is_finished = False
        self._snapshot: ending.Joinable | None = None
        self._before: Run | None = _still_open(set_current(self))
        if workspace is not None:
            _here[str(workspace.path), self.id] = self
        ending.watch(self)

    # --- what it is ------------------------------------------------------------------------------------------------

    @property
    def workspace(self) -> Workspace:
        """The workspace that it lies in.

        Raises:
            WorkspaceNotFound: it records nothing: it is switched off, or could not be opened.
        """
        if self._workspace is None:
            raise WorkspaceNotFound(f"run {self.name} records nothing: it is switched off, or could not be opened")
        return self._workspace

    @property
    def attempt(self) -> int:
        """Number of this process life of the run, from 1."""
        return self._log.attempt

    @property
    def is_resumed(self) -> bool:
        """Whether the run had been started before."""
        return self._is_resumed

    @property
    def is_finished(self) -> bool:
        """Whether it was ended here."""
        return self._is_finished

    @property
    def on_error(self) -> OnError:
        """What happens when something cannot be recorded: `"warn"` or `"raise"`."""
        return self._on_error

    @property
    def should_stop(self) -> bool:
        """Whether somebody, a sweep or a person, asked the run to stop. Costs nanoseconds; ask each step."""
        return self._log.control[0] != 0

    @property
    def stop_reason(self) -> str | None:
        """`"stop"`, `"prune"`, or `None` where nobody asked."""
        return _STOP_REASONS.get(self._log.control[0], "stop")

    @property
    def dropped(self) -> int:
        """Points that could not be recorded by this process."""
        return self._log.points.dropped

    def read(self) -> RunInfo:
        """Return the run as readers see it now, the environment snapshot included once it is taken."""
        from runstone.runinfo import RunInfo  # NumPy, only for reading

        if self._snapshot is not None:
            self._snapshot.join(5.0)
        return RunInfo(self.path)

    def __repr__(self) -> str:
        """Say what it is in one line."""
        state = "finished" if self._is_finished else "open"
        return f"<Run {self.name} of {self.project}, {state}, id {self.id}>"

    # --- metrics ---------------------------------------------------------------------------------------------------

    def log(self, metrics: Mapping[str, Any], *, step: int | None = None) -> None:
        """Record one value of each metric. When it returns, the values survive `kill -9`.

        Args:
            metrics: Values by name: Python and NumPy numbers, bools, 0-d arrays and tensors. NaN and ±Inf are kept.
                Nested mappings are opened: `{"train": {"loss": 1.0}}` is `train/loss`.
            step: Any 64-bit integer; it may repeat or go back. Default: one more than the last, from 0.

        Raises:
            InvalidName, InvalidValue, RunFinished, OSError: only with `on_error="raise"`.
        """
        try:
            if step is None:
                step = self._step_to_come()
            self._log.points.log(metrics, step)
            self._last_step = step
        except Exception as error:  # foreign code in a value may raise anything; _trouble decides
            if not isinstance(metrics, Mapping):
                self._trouble("metrics", InvalidValue(f"log takes metrics by name, got {shown(metrics)}"))
                return
            if step is not None and as_step(step) is not None:
                self._last_step = step  # the other values of this call are kept, or counted, at this step
            self._trouble("metrics", error)

    def metric(self, name: str) -> MetricHandle:
        """Return a handle on one metric, for tight loops: `loss = run.metric("loss")`, then `loss(value)`.

        Raises:
            InvalidName: the name cannot be kept (whatever `on_error` says: this is before the loop).
        """
        return MetricHandle(self, check_name(name, "metric"))

    def rewind(self, step: int) -> None:
        """Say from which step this attempt of a resumed run logs again.

        Points of earlier attempts at or after `step` are superseded: kept in the files, left out of the run's curves.
        Beside that, each metric supersedes its own earlier points from the first step that this attempt logs in it.
        """
        checked = as_step(step)
        if checked is None:
            self._trouble("rewind", step_error(step))
            return
        self._event("rewind", step=checked)
        self._last_step = checked - 1

    def _step_to_come(self) -> int:
        if self._last_step is None:  # the run goes on where its files end
            from runstone.runinfo import RunInfo  # NumPy, only for reading

            metrics = RunInfo(self.path).metrics.values()
            self._last_step = max((metric.last_step for metric in metrics), default=-1)
        return int(self._last_step) + 1  # a NumPy integer would wrap around

    # --- everything else -------------------------------------------------------------------------------------------

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record params: nested mappings of any JSON values. A param that is there already gets the new value.

        Values that JSON cannot hold are kept as text with their type, and warned of once.
        """
        try:
            if not isinstance(params, Mapping):
                raise InvalidValue(f"params must be given by name, got {shown(params)}")
            converted, places = to_json(params)
        except Exception as error:  # a mapping of foreign code may raise anything
            self._trouble("params", error)
            return
        if converted:
            self._event("params", params=converted)
        if places:
            where = ", ".join(repr(place) for place in places[:5]) + (", …" if len(places) > 5 else "")
            self._warn("params-as-text", f"params that JSON cannot hold are kept as text with their type: {where}")

    def set_tags(self, tags: Mapping[str, Any] | None = None, /, **more: Any) -> None:
        """Set tags: short texts to find runs by. Values are kept as text."""
        try:
            merged = {**check_tags(tags or {}), **check_tags(more)}
        except Exception as error:  # names that cannot be kept, values whose str raises
            self._trouble("tags", error)
            return
        self._event("tags", set=merged, remove=[])

    def remove_tags(self, *names: str) -> None:
        """Remove tags; names that are not there are ignored."""
        self._event("tags", set={}, remove=[str(name) for name in names])

    def set_notes(self, text: str | None) -> None:
        """Set the notes: free text about the run, in place of what stood there."""
        self._event("notes", value=None if text is None else str(text))

    def set_name(self, name: str) -> None:
        """Rename the run."""
        try:
            check_name(name, "run")
        except InvalidName as error:
            self._trouble("name", error)
            return
        if self._event("name", value=name):
            self.name = name

    def log_artifact(
        self, path: str | Path, *, name: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> Artifact | None:
        """Store a file or folder with the run, by content: the same bytes are stored once in a workspace.

        Args:
            path: The file or folder. Links to files are followed; links to folders are not.
            name: Name of the artifact; default: the file's own. A second artifact of a name takes its place.
            metadata: Any JSON.

        Returns:
            What was stored; `None` where it could not be, with `on_error="warn"`.

        Raises:
            InvalidName, InvalidValue, NotFound, OSError: only with `on_error="raise"`.
        """
        if self._workspace is None:
            return None
        if self._is_finished:  # before a large file is copied for nothing
            self._event("artifact")
            return None
        from runstone.artifacts import store_artifact  # hashing, only where used

        try:
            artifact = store_artifact(self.workspace.blobs, Path(path), name, to_json(dict(metadata or {}))[0])
        except Exception as error:
            self._trouble("artifact", error)
            return None
        files = [{"path": f.path, "hash": f.hash, "size": f.size_bytes} for f in artifact.files]
        fields = {"name": artifact.name, "folder": artifact.is_folder, "files": files, "metadata": artifact.metadata}
        return artifact if self._event("artifact", **fields) else None

    # --- the end ---------------------------------------------------------------------------------------------------

    def fail(self, error: BaseException) -> None:
        """Take an exception as the cause of the end, for `finish` to tell. Ctrl-C and SIGTERM mean stopped."""
        self._failure = error

    def finish(self, status: Status | str | None = None) -> None:
        """End the run. A second call does nothing.

        Args:
            status: How it ended. Default: what `fail` was told, else `pruned` or `stopped` where it was asked to, else
                `finished`.
        """
        if self._is_finished:
            return
        try:
            told = self._status() if status is None else end_status(status)
        except InvalidValue as error:
            self._trouble("status", error)
            told = self._status()
        trouble: Exception | None = None
        self._is_finished = True
        ending.unwatch(self)
        if current_run() is None:
            set_current(_still_open(self._before))
        try:
            if not self._log.is_silent:  # else a forked child that recorded nothing: it leaves no trace
                failure = _describe(self._failure) if told is Status.FAILED and self._failure is not None else None
                self._event("end", status=str(told), failure=failure, dropped=self._log.points.dropped)
        except Exception as error:
            trouble = error
        with contextlib.suppress(OSError):
            self._log.close(str(told))
        self._failure = None  # its traceback holds the frames of the user's whole call stack alive
        if trouble is not None:
            self._trouble("end", trouble)

    def reopen(self) -> None:
        """Go on with a finished run, in the same attempt: a fit that is followed by a test belongs to one life.

        Does nothing while the run is open.
        """
        if not self._is_finished or self._workspace is None:
            return
        try:
            self._log = RunLog(self.path, attempt=self._log.attempt, rank=self._log.rank, backend=self._log.backend)
        except OSError as error:
            self._trouble("reopen", error)
            return
        self._is_finished = False
        self._before = set_current(self)
        ending.watch(self)

    def end_with_process(self, error: BaseException | None) -> None:
        """End as the process does. Called by the hooks of `ending`."""
        if error is not None:
            self.fail(error)
        self.finish()

    def _status(self) -> Status:
        if self._failure is not None:
            return _status_of(self._failure)
        return {None: Status.FINISHED, "prune": Status.PRUNED}.get(self.stop_reason, Status.STOPPED)

    def __enter__(self) -> Self:
        """Return the run."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run as the block ended; an exception goes on its way."""
        if error is None:
            self.finish()
            return
        if not (isinstance(error, SystemExit) and error.code in (None, 0)):
            self.fail(error)
        try:
            self.finish()
        except Exception as trouble:  # the user's exception is the one to be seen
            self._warn("end", f"could not record the end: {type(trouble).__name__}: {trouble}")

    def __reduce__(self) -> tuple[Callable[..., Run], tuple[Any, ...]]:
        """Pickle as an instruction to join this run."""
        place = str(self._workspace.path) if self._workspace is not None else None
        return _join, (place, self.id, self._on_error, self._is_finished)

    def __copy__(self) -> Self:
        """Return the run itself: a copied callback or estimator goes on writing to the same run."""
        return self

    def __deepcopy__(self, _memo: object) -> Self:
        """Return the run itself, as for a shallow copy."""
        return self

    # --- what could not be recorded --------------------------------------------------------------------------------

    def _event(self, event: str, **fields: Any) -> bool:
        """Write an event to the journal; return whether it is there."""
        try:
            if self._is_finished and event != "end":
                raise RunFinished(f"run {self.name} is finished: {event} cannot be recorded; call reopen() first")
            self._log.write(event, **fields)
        except Exception as error:
            self._trouble(event, error)
            return False
        return True

    def _trouble(self, what: str, error: Exception) -> None:
        """Raise, or warn once a kind: the one place where `on_error` is applied."""
        if self._on_error == "raise":
            raise error
        detail = str(error) if isinstance(error, RunstoneError) else f"{type(error).__name__}: {error}"
        self._warn(f"{what}-{type(error).__name__}", f"could not record {what}: {detail}")

    def _warn(self, kind: str, message: str) -> None:
        if kind in self._warned:
            return
        self._warned.add(kind)
        if not self._is_finished:
            with contextlib.suppress(OSError):
                self._log.write("warning", kind=kind, message=message)
        warn(f"run {self.name}: {message}")


class MetricHandle:
    """One metric of one run, for tight loops; `Run.metric` makes it.

    Each call records one value: `handle(value)` or `handle(value, step=n)`. Without a step, its own values are counted.
    """

    __slots__ = ("_last_step", "_run", "name")

    def __init__(self, run: Run, name: str) -> None:
        self.name = name
        self._run = run
        self._last_step: Any = None if run.is_resumed else -1

    def __call__(self, value: Any, *, step: int | None = None) -> None:
        """Record one value; see `Run.log`."""
        run = self._run
        try:
            if step is None:
                step = self._step_to_come()
            run._log.points.log_one(self.name, value, step)
            self._last_step = step
        except Exception as error:  # see Run._trouble
            run._trouble("metrics", error)

    def _step_to_come(self) -> int:
        if self._last_step is None:
            from runstone.runinfo import RunInfo  # NumPy, only for reading

            standing = RunInfo(self._run.path).metrics.get(self.name)
            self._last_step = standing.last_step if standing is not None else -1
        return int(self._last_step) + 1  # a NumPy integer would wrap around


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
) -> Run:
    """Start a run, or go on with one.

    Under `sweep run` the first call of a trial's process joins the run of that trial: the sweep has named it, and its
    `project`, `name`, `group` and `workspace` stand.

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
        workspace: Folder of the workspace; default `RUNSTONE_WORKSPACE`, the nearest `.runstone` here or above,
            or a new one here.
        on_error: `"warn"` (default): what cannot be recorded is warned of once a kind, and training goes on. `"raise"`.
        environment: Take the snapshot of the machine, in the background.

    Returns:
        The open run.

    Raises:
        InvalidName, InvalidValue: a name or `on_error` is not legal.
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
    launched = _claim_launched() if run_id is None else None
    if launched is not None:
        run_id, resume, project, name, group, workspace = launched, None, None, None, None, None
    facts = {
        "project": settings.read("RUNSTONE_PROJECT") or "default" if project is None else project,
        "name": name,
        "group": settings.read("RUNSTONE_GROUP") if group is None else group,
        "notes": str(notes) if notes is not None else None,
        "parent": parent,
        "resumed": False,
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
    if params:
        run.log_params(params)
    if tags:
        run.set_tags(tags)
    if environment:
        run._snapshot = _take_snapshot(run)
    return run


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


def warn(message: str) -> None:
    """Warn as the user's filters say; where they turn warnings into errors, print: tracking stops nothing."""
    try:
        warnings.warn(message, TrackingWarning, stacklevel=_user_stack_level())
    except TrackingWarning:
        print(f"runstone: {message}", file=sys.stderr)


def _user_stack_level() -> int:
    """Return the stack level of the first frame outside this package, for the warning to point at the user's line."""
    frame: FrameType | None = sys._getframe(1)
    level, here = 1, str(Path(__file__).parent)
    while frame is not None and frame.f_code.co_filename.startswith(here):
        level, frame = level + 1, frame.f_back
    return level


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
    if resume and standing is None:
        raise RunNotFound(f"there is no run {run_id!r} to resume in {home.path}; `runstone runs list` shows them")
    if standing is None:
        with contextlib.suppress(AlreadyExists):
            return _create_run(home, run_id or new_run_id(), facts, on_error)
        standing = home.find_run_folder(run_id or "")  # another process was faster: join it
        if standing is None:
            raise RunNotFound(f"run {run_id!r} vanished while it was opened")
    if resume is False:
        raise AlreadyExists(f"a run with the id {run_id!r} is there already: {standing}; resume=False forbids that")
    return _join_run(home, standing, facts, on_error)


def _create_run(home: Workspace, run_id: str, facts: dict[str, Any], on_error: OnError) -> Run:
    facts["name"] = facts["name"] or _name_to_claim() or new_run_name(run_id)
    created = {"run_id": run_id, **_told(facts)}
    log = home.open_new_run(created, rank=settings.rank(), backend=settings.log_backend())
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
        facts.update(project=journal.project, name=journal.name, group=journal.group)
    else:  # its first writer died before it could say what the run is, or is just about to
        facts["name"] = given_name or _name_to_claim() or new_run_name(folder.name)
        created = {"run_id": folder.name, **_told(facts)}
    attempt = prepare_to_join(folder, journal)
    log = RunLog(folder, attempt=attempt, rank=settings.rank(), backend=backend, created=created)
    run = Run(home, log, facts=facts, on_error=on_error)
    if given_name and given_name != run.name:
        run.set_name(given_name)
    if given_notes and given_notes != journal.notes:
        run.set_notes(given_notes)
    return run


def _join(workspace: str | None, run_id: str, on_error: OnError, is_finished: bool) -> Run:
    """Return a pickled run in the process that unpickled it: the same object again where it came from.

    Elsewhere it is a writer of its own, which makes its files when it first records something: to load a file that
    holds a run must not change that run.
    """
    with _unpickling:
        run = _here.get((workspace or "", run_id))
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


def _still_open(run: Run | None) -> Run | None:
    while run is not None and run.is_finished:
        run = run._before
    return run


# The runs of this process by workspace and id: one writer each, however many copies arrive by pickle.
_here: weakref.WeakValueDictionary[tuple[str, str], Run] = weakref.WeakValueDictionary()
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


def _take_snapshot(run: Run) -> ending.Joinable | None:
    from runstone.capture import start_background  # only where wanted

    try:
        snapshot = start_background(run.path, run._log.writer.hex())
    except Exception as error:
        run._trouble("environment", error)
        return None
    ending.finish_before_exit(snapshot)
    return snapshot


def _status_of(error: BaseException) -> Status:
    if isinstance(error, KeyboardInterrupt | ending.Terminated):
        return Status.STOPPED
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "TrialPruned" in kinds:  # Optuna's word for it, known by name: Optuna need not be installed
        return Status.PRUNED
    if "SIGTERMException" in kinds:  # Lightning's
        return Status.STOPPED
    return Status.FAILED


def _describe(error: BaseException) -> dict[str, str]:
    import traceback  # only for failures

    try:
        text = "".join(traceback.format_exception(error))
    except Exception:  # an exception whose own code fails
        text = ""
    try:
        message = str(error)
    except Exception:
        message = "(its message cannot be shown)"
    return {"type": type(error).__name__, "message": message[:10_000], "traceback": text[-100_000:]}
