"""Reading a run's files while they are written: no locks, no help from the writer. Knows no SQL and no HTTP."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runstone.errors import FormatError
from runstone.names import id_time
from runstone.params import merge_params
from runstone.runlog import format as fmt
from runstone.runlog.damage import Damage, journal_damage, missing_journal
from runstone.runlog.format import SEALED
from runstone.runlog.liveness import is_alive, read_status
from runstone.values import JSON, Alert, Artifact, Attempt, Failure, FileEntry, Link, Status

_LAST_TIME = 253_402_300_800.0  # the year 10000
# The worst end decides for an attempt of several processes.
_WORST_FIRST = (Status.FAILED, Status.CRASHED, Status.STOPPED, Status.PRUNED, Status.FINISHED)


@dataclass(slots=True)
class WriterState:
    """What one writer said of itself."""

    writer: str
    role: str
    attempt: int
    rank: int
    pid: int
    host: str
    boot_id: str
    started_at: float
    ended_at: float | None = None
    status: Status | None = None
    is_alive: bool = False
    dropped: int = 0
    rewind_step: int | None = None
    last_event_at: float = 0.0


@dataclass(slots=True)
class JournalState:
    """Everything that the journals of a run say: all but the points.

    Times are seconds since the epoch, UTC. `params` is nested, as it was given. `is_held` says whether the run, which
    launchers alone write, goes on until they say how it ended, whether or not one is there; `None`: it is no such run.
    `damage` is what is wrong with the journals. A run of which none can be read still has a writer, of which only is
    known what other files tell.
    """

    run_id: str
    path: Path
    project: str = ""
    name: str = ""
    group: str | None = None
    notes: str | None = None
    parent: str | None = None
    params: dict[str, JSON] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    inputs: dict[tuple[str | None, ...], Link] = field(default_factory=dict)
    outputs: dict[tuple[str | None, ...], Link] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)
    alerts: dict[str, Alert] = field(default_factory=dict)
    status: Status = Status.CRASHED
    failures: list[Failure] = field(default_factory=list)
    created_at: float = 0.0
    ended_at: float | None = None
    is_deleted: bool = False
    is_pinned: bool = False
    is_archived: bool = False
    is_created: bool = False
    is_held: bool | None = None
    writers: list[WriterState] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def dropped(self) -> int:
        """Points that could not be written, over all writers."""
        return sum(writer.dropped for writer in self.writers)

    @property
    def failure(self) -> Failure | None:
        """Why the run failed, told by the rank that failed first; `None` where its latest attempt did not fail."""
        return self.failures[0] if self.failures and self.status is Status.FAILED else None


def journal_files(run_path: Path) -> list[Path]:
    """Return the journals of a run, oldest name first."""
    return [run_path / name for name in _names_in(run_path) if _is_journal(name)]


def is_run(run_path: Path) -> bool:
    """Return whether a folder has files of a run, be it that all of its journals were lost."""
    return any(_is_journal(name) or name == SEALED or name.endswith((".wal", ".keys")) for name in _names_in(run_path))


def _names_in(run_path: Path) -> list[str]:
    try:
        return sorted(os.listdir(run_path))  # noqa: PTH208 (names are all that is needed)
    except OSError:
        return []


def _is_journal(name: str) -> bool:
    return name.startswith("journal.") and name.endswith(".jsonl")


@dataclass(slots=True)
class _Journal:
    """One journal, read.

    Attributes:
        events: What it says.
        size: Its bytes.
        unread: Whole lines that could not be understood.
        torn: Bytes behind the last newline.
        trouble: Why the file system does not give it, else empty.
    """

    events: list[dict[str, Any]] = field(default_factory=list)
    size: int = 0
    unread: int = 0
    torn: int = 0
    trouble: str = ""


def _read_journals(run_path: Path, names: list[str]) -> dict[str, _Journal]:
    """Return the journals by writer."""
    journals: dict[str, _Journal] = {}
    for name in names:
        if not _is_journal(name):
            continue
        writer = name[len("journal.") : -len(".jsonl")]
        try:
            data = (run_path / name).read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            journals[writer] = _Journal(trouble=error.strerror or type(error).__name__)
            continue
        events = fmt.decode_events(data)
        torn = len(data) - data.rfind(b"\n") - 1
        journals[writer] = _Journal(events, len(data), data.count(b"\n") - len(events), torn)
    return journals


def read_events(run_path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield `(writer, event)` of all journals, merged by time; within one writer file order wins.

    What an attempt says comes after what those before it said, whatever the clock of its host tells.
    """
    return _merged(_read_journals(run_path, _names_in(run_path)))


def _merged(journals: dict[str, _Journal]) -> Iterator[tuple[str, dict[str, Any]]]:
    merged: list[tuple[float, int, str, int, dict[str, Any]]] = []
    floor = latest = 0.0
    before = 0
    told_by = [(_attempt_of(journal.events), writer, journal.events) for writer, journal in journals.items()]
    for attempt, writer, events in sorted(told_by, key=lambda one: one[0]):
        if attempt != before:
            before, floor = attempt, latest
        at = floor
        for number, event in enumerate(events):
            try:
                told = float(event.get("at", 0.0))
            except (TypeError, ValueError, OverflowError):
                continue
            # a clock that went back, or that tells nonsense, must not reorder one writer's words
            at = max(at, told) if 0.0 <= told < _LAST_TIME else at
            merged.append((at, attempt, writer, number, event))
        latest = max(latest, at) if attempt else latest
    merged.sort(key=lambda item: item[:4])
    for at, _attempt, writer, _number, event in merged:
        event["at"] = at
        yield writer, event


def _add_from_other_files(
    state: JournalState, names: list[str], journals: dict[str, _Journal], writers: dict[str, WriterState]
) -> None:
    """Add writers whose journals do not say that they are, but whose other files do."""
    found = [name for name in journals if name not in writers and f"{name}.status" in names]
    if not writers and not found:
        if any(journal.events or journal.unread or journal.trouble for journal in journals.values()):
            found = list(journals)
        else:
            found = sorted({writer for writer in map(_log_writer, names) if writer})
            found = found or ([""] if SEALED in names else [])
    # Such a writer is enough to show the run; where others' own words tell how the run stands, they decide.
    role = "child" if any(writer.role in ("main", "launcher") for writer in writers.values()) else "main"
    for name in found:
        writers[name] = _writer(name, {"at": _made_at(state.path), "role": role}, state.run_id)


def _is_in_the_making(writer: str, names: list[str], journals: dict[str, _Journal]) -> bool:
    """Return whether a writer has made its status file, and not yet said who it is."""
    journal = journals.get(writer)
    return (journal is None or not journal.size) and not any(_log_writer(name) == writer for name in names)


def _log_writer(name: str) -> str:
    return name.partition(".")[0].partition("-")[0] if name.endswith((".wal", ".keys")) else ""


def _made_at(run_path: Path) -> float:
    """Return when a run was made, as its id or else its folder tells."""
    made_at = id_time(run_path.name)
    if made_at is not None:
        return made_at
    try:
        return min(path.stat().st_mtime for path in run_path.iterdir())
    except (OSError, ValueError):
        return 0.0


def _damage(names: list[str], journals: dict[str, _Journal], writers: dict[str, WriterState]) -> Iterator[Damage]:
    for name, journal in sorted(journals.items()):
        writer = writers.get(name)
        if not journal.size and not journal.trouble and (writer is None or writer.is_alive):
            continue  # an edit, or a run, in the making
        is_over = writer is not None and writer.role != "edit" and not writer.is_alive
        found = journal_damage(
            f"journal.{name}.jsonl",
            size=journal.size,
            events=len(journal.events),
            unread=journal.unread,
            torn=journal.torn if is_over else 0,
            is_begun=any(event["event"] == "writer" for event in journal.events[:1]),
            trouble=journal.trouble,
        )
        if found is not None:
            yield found
    if any(writer.is_alive for writer in writers.values()):
        return  # it is being written, or comes from elsewhere: what is not there may be on its way
    for name in sorted({writer for writer in map(_log_writer, names) if writer} - set(journals)):
        yield missing_journal(f"journal.{name}.jsonl")
    if "" in writers:
        yield missing_journal("journal.*.jsonl")


def _attempt_of(events: list[dict[str, Any]]) -> int:
    """Return the attempt of a writer; 0 of one that only edits, at any time."""
    first = events[0] if events else {}
    if first.get("role") == "edit":
        return 0
    try:
        return max(1, int(first.get("attempt", 1)))
    except (TypeError, ValueError, OverflowError):
        return 1


def read_journal(run_path: Path, *, now: float | None = None) -> JournalState:
    """Return what the journals of a run say, and whether its writers live.

    Args:
        run_path: Folder of the run.
        now: Seconds since the epoch, for comparing heartbeats; default: the clock.

    Raises:
        FormatError: a newer version of Runstone wrote it.
    """
    state = JournalState(run_id=run_path.name, path=run_path)
    writers: dict[str, WriterState] = {}
    failures: list[tuple[int, float, Failure]] = []
    names = _names_in(run_path)
    journals = _read_journals(run_path, names)
    for name, event in _merged(journals):
        try:
            if event["event"] == "writer":
                writers[name] = _writer(name, event, state.run_id)
                continue
            if name not in writers and f"{name}.status" in names:
                writers[name] = _writer(name, {"at": event["at"]}, state.run_id)  # its first line is damaged
            writer = writers.get(name)
            if writer is not None:
                writer.last_event_at = event["at"]
            _apply(state, writer, event, failures)
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError, RecursionError):
            continue  # an event of another form than was promised is damage: the others stand
    _add_from_other_files(state, names, journals, writers)
    for writer in list(writers.values()):
        if writer.role != "edit":
            _see_whether_alive(run_path, writer, now)
        if writer.is_alive and _is_in_the_making(writer.writer, names, journals):
            del writers[writer.writer]
    state.writers = list(writers.values())
    state.damage = list(_damage(names, journals, writers))
    state.attempts = _attempts(state.writers, is_held=state.is_held)
    if state.attempts:
        latest = state.attempts[-1]
        state.status, state.ended_at = latest.status, _epoch(latest.ended_at)
        failures.sort(key=lambda item: item[1])
        state.failures = [failure for attempt, _at, failure in failures if attempt == latest.number]
    if not state.created_at and state.writers:
        state.created_at = min(writer.started_at for writer in state.writers)
    return state


def _writer(name: str, event: dict[str, Any], run_id: str) -> WriterState:
    if int(event.get("format", 0)) > fmt.FORMAT:
        raise FormatError(
            f"run {run_id} has journal format {event['format']}, this version reads up to {fmt.FORMAT}; "
            "upgrade runstone"
        )
    return WriterState(
        writer=name,
        role=str(event.get("role", "main")),
        attempt=int(event.get("attempt", 1)),
        rank=int(event.get("rank", 0)),
        pid=int(event.get("pid", 0)),
        host=str(event.get("host", "")),
        boot_id=str(event.get("boot_id", "")),
        started_at=event["at"],
        last_event_at=event["at"],
    )


def _apply(
    state: JournalState, writer: WriterState | None, event: dict[str, Any], failures: list[tuple[int, float, Failure]]
) -> None:
    match event["event"]:
        case "created":
            if not state.is_created:
                state.is_created, state.created_at = True, event["at"]
                state.project = str(event.get("project", ""))
                state.name = str(event.get("name", ""))
                state.group, state.notes = _text(event.get("group")), _text(event.get("notes"))
                state.parent = _text(event.get("parent"))
        case "params":
            if isinstance(event.get("params"), dict):
                merge_params(state.params, event["params"])
        case "tags":
            state.tags.update({str(key): str(value) for key, value in (event.get("set") or {}).items()})
            for key in event.get("remove") or ():
                state.tags.pop(key, None)
        case "notes":
            state.notes = _text(event.get("value"))
        case "name":
            state.name = str(event.get("value") or state.name)
        case "group":
            state.group = _text(event.get("value"))
        case "artifact":
            artifact = _artifact(event)
            state.artifacts[artifact.name] = artifact
        case "artifact_removed":
            state.artifacts.pop(str(event["name"]), None)
        case "input" | "output" as direction:
            link = _link(event)
            (state.inputs if direction == "input" else state.outputs).setdefault(link.key, link)
        case "rewind":
            if writer is not None:
                step = int(event["step"])
                writer.rewind_step = step if writer.rewind_step is None else min(step, writer.rewind_step)
        case "warning":
            state.warnings.append(str(event.get("message", "")))
        case "alert":
            alert = _alert(event)
            state.alerts[alert.id] = alert
        case "alert_sent" if event.get("alert") in state.alerts:
            told = (str(event["to"]), bool(event["is_delivered"]), str(event.get("detail", "")))
            alert = state.alerts[event["alert"]]
            state.alerts[alert.id] = replace(alert, deliveries=(*alert.deliveries, told))
        case "deleted":
            state.is_deleted = True
        case "restored":
            state.is_deleted = False
        case "pinned" if isinstance(event.get("value"), bool):
            state.is_pinned = event["value"]
        case "archived" if isinstance(event.get("value"), bool):
            state.is_archived = event["value"]
        case "held" if isinstance(event.get("value"), bool):
            state.is_held = event["value"]
        case "end":
            _end(writer, event, failures)


def _end(writer: WriterState | None, event: dict[str, Any], failures: list[tuple[int, float, Failure]]) -> None:
    if writer is None:
        return
    try:
        writer.status = Status(event.get("status", "finished"))
    except ValueError:  # a word of a later version: it ended, and not by an error that we know
        writer.status = Status.FINISHED
    writer.ended_at = event["at"]
    writer.dropped = int(event.get("dropped", 0))
    told = event.get("failure")
    if isinstance(told, dict) and writer.role in ("main", "launcher"):
        failure = Failure(
            type=str(told.get("type", "")),
            message=str(told.get("message", "")),
            traceback=str(told.get("traceback", "")),
            rank=writer.rank,
        )
        failures.append((writer.attempt, event["at"], failure))


def _link(event: dict[str, Any]) -> Link:
    return Link(
        kind=str(event["kind"]),
        name=str(event["name"]),
        version=_text(event.get("version")),
        hash=_text(event.get("hash")),
        role=_text(event.get("role")),
        at=float(event["at"]),
        source=_text(event.get("source")),
    )


def _alert(event: dict[str, Any]) -> Alert:
    step, value = event.get("step"), event.get("value")
    return Alert(
        id=str(event["id"]),
        rule=str(event.get("rule") or ""),
        level=str(event.get("level", "warning")),
        title=str(event["title"]),
        text=str(event.get("text") or ""),
        at=float(event["at"]),
        metric=_text(event.get("metric")),
        step=int(step) if step is not None else None,
        value=float(value) if value is not None else None,
    )


def _artifact(event: dict[str, Any]) -> Artifact:
    files = tuple(
        FileEntry(path=str(entry["path"]), hash=str(entry["hash"]), size_bytes=int(entry["size"]))
        for entry in event.get("files") or ()
    )
    return Artifact(
        name=str(event.get("name", "")),
        is_folder=bool(event.get("folder")),
        files=files,
        logged_at=to_datetime(event["at"]),
        metadata=dict(event.get("metadata") or {}),
    )


def _see_whether_alive(run_path: Path, writer: WriterState, now: float | None) -> None:
    if writer.status is not None:
        return
    status_path = run_path / f"{writer.writer}.status"
    writer.is_alive = is_alive(status_path, writer.boot_id, now)
    status = read_status(status_path)
    if status is not None:
        writer.dropped = status.dropped
    if writer.is_alive:
        return
    beat = status.beat if status is not None and 0.0 <= status.beat < _LAST_TIME else 0.0
    writer.ended_at = max(writer.last_event_at, beat)
    if status is not None and status.state == fmt.STATE_ENDED and status.word:
        writer.status = Status(status.word)  # its journal could not take the end: the disk was full


def _attempts(writers: list[WriterState], *, is_held: bool | None) -> list[Attempt]:
    """Return the attempts, told by their `main` writers, or by the launcher where none came."""
    attempts: list[Attempt] = []
    for number in sorted({writer.attempt for writer in writers if writer.role in ("main", "launcher")}):
        main = [writer for writer in writers if writer.attempt == number and writer.role == "main"]
        launchers = [writer for writer in writers if writer.attempt == number and writer.role == "launcher"]
        if not main and attempts and not any(writer.is_alive or writer.status for writer in launchers):
            continue  # a launcher looked in and left; no attempt came of it
        telling = main or launchers
        first = min(telling, key=lambda writer: (writer.rank, writer.started_at))
        if main or is_held is None:
            status, ending = _status_of(main, launchers), telling
        else:  # whether one of them lives tells nothing: a server opens such a run to add a tag, too
            status = Status.RUNNING if is_held else _last_word(launchers) or Status.CRASHED
            ending = [writer for writer in launchers if writer.status is not None]
        ends = [writer.ended_at for writer in ending if writer.ended_at is not None]
        rewinds = [writer.rewind_step for writer in main if writer.rewind_step is not None]
        attempts.append(
            Attempt(
                number=number,
                status=status,
                started_at=to_datetime(min(writer.started_at for writer in [*main, *launchers])),
                ended_at=to_datetime(max(ends)) if ends and status.is_ended else None,
                rewind_step=min(rewinds) if rewinds else None,
                host=first.host,
                pid=first.pid,
            )
        )
    return attempts


def _status_of(main: list[WriterState], launchers: list[WriterState]) -> Status:
    if any(writer.is_alive for writer in main):
        return Status.RUNNING
    told = _last_word(launchers)
    if not main:
        if any(writer.is_alive for writer in launchers):
            return Status.RUNNING
        return told or Status.CRASHED
    ends = {writer.status or Status.CRASHED for writer in main}
    worst = next(status for status in _WORST_FIRST if status in ends)
    if worst is Status.CRASHED:
        # A launcher that killed its process says why; the process itself could not.
        if any(writer.is_alive for writer in launchers):
            return Status.RUNNING
        if told in (Status.PRUNED, Status.STOPPED, Status.FAILED):
            return told
    return worst


def _last_word(launchers: list[WriterState]) -> Status | None:
    ended = [writer for writer in launchers if writer.status is not None]
    return max(ended, key=lambda writer: writer.ended_at or 0.0).status if ended else None


def to_datetime(epoch_s: float) -> datetime:
    """Return seconds since the epoch as an aware UTC time."""
    try:
        return datetime.fromtimestamp(epoch_s, UTC)
    except (OverflowError, ValueError, OSError):  # a clock that told nonsense
        return datetime.fromtimestamp(0, UTC)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _epoch(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment is not None else None
