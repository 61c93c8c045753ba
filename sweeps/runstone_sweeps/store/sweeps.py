"""The sweeps of a workspace: where their files lie, and which of them is meant. Runs nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import itertools
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from runstone import AmbiguousName, InvalidConfig, NotFound, RunstoneError, Workspace
from runstone_sweeps.config import parse_spec
from runstone_sweeps.record import SweepRecord
from runstone_sweeps.record.journal import FORMAT, Event, Journal, decode, json_number, read_events
from runstone_sweeps.spec import SweepSpec

_WORD_STOP = b"\1"


class SweepNotFound(NotFound):
    """No sweep has this id or name."""


class SweepIsRunning(RunstoneError):
    """Another process is at work on this sweep."""


class SweepFolder:
    """The files of one sweep. Cheap to make, holds nothing open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.name

    def read(self) -> SweepRecord:
        """Return what the sweep's record says now.

        Raises:
            FormatError: a newer version wrote it.
        """
        events, damaged = read_events(self.path)
        record = SweepRecord.from_events(events)
        record.unknown += damaged
        return record

    def events(self) -> list[Event]:
        """Return the events of its record, in order."""
        return read_events(self.path)[0]

    @property
    def name(self) -> str:
        """Its readable name; cheap, also where there are many trials."""
        for path in sorted(self.path.glob("journal.*.jsonl"), key=lambda path: path.stat().st_size):
            with path.open("rb") as file:
                for line in itertools.islice(file, 2):
                    event = decode(line.rstrip(b"\n"))
                    if event is not None and event.get("event") == "created":
                        return str(event["name"])
        return ""

    @property
    def is_running(self) -> bool:
        """Whether a coordinator is at work on it, on this host."""
        try:
            fd = os.open(self.path / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def request_stop(self) -> None:
        """Ask the coordinator to stop as if by one Ctrl-C."""
        _write_control(self.path, _WORD_STOP)

    @property
    def is_stop_requested(self) -> bool:
        """Whether someone asked the coordinator to stop."""
        with contextlib.suppress(OSError):
            return (self.path / "control").read_bytes()[:1] == _WORD_STOP
        return False

    def lock(self) -> SweepLock:
        """Return the right to work on the sweep, for as long as it is open.

        Raises:
            SweepIsRunning: another process has it.
        """
        return SweepLock(self.path)

    @property
    def facts(self) -> Path:
        """Where the trials of a session hand each other what they know of their host."""
        return self.path / "facts"

    @contextlib.contextmanager
    def sharing_facts(self) -> Iterator[None]:
        """Have that folder, for this user only: uncommitted code may be in it. It is gone with the session."""
        shutil.rmtree(self.facts, ignore_errors=True)  # of one that was killed
        with contextlib.suppress(OSError):  # without it each trial reads for itself
            self.facts.mkdir(mode=0o700)
        try:
            yield
        finally:
            shutil.rmtree(self.facts, ignore_errors=True)


class SweepLock:
    """The right to work on a sweep; the system takes it back when the process dies."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        # A reader that looks whether the sweep runs holds it too, for microseconds.
        for patience_s in (0.02, 0.1, None):
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if patience_s is None:
                    os.close(self._fd)
                    raise SweepIsRunning(
                        f"sweep {path.name} is running in another process; `sweep stop {path.name}` ends that"
                    ) from None
                time.sleep(patience_s)
        _write_control(path, b"\0")

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the right back."""
        os.close(self._fd)


class Sweeps:
    """The sweeps of one workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._path = workspace.path / "sweeps"

    def __iter__(self) -> Iterator[SweepFolder]:
        """Iterate over all sweeps, the newest first."""
        if self._path.is_dir():
            for path in sorted(self._path.iterdir(), reverse=True):
                if any(path.glob("journal.*.jsonl")):
                    yield SweepFolder(path)

    def find(self, reference: str) -> SweepFolder:
        """Return the sweep with this id, or begin or end of an id (4 characters), or name.

        Raises:
            SweepNotFound: there is none; the message names some that are there.
            AmbiguousName: there are several.
        """
        folders = list(self)
        for folder in folders:
            if folder.id == reference:
                return folder
        found = [
            folder
            for folder in folders
            if len(reference) >= 4 and (folder.id.startswith(reference) or folder.id.endswith(reference))
        ]
        found = found or [folder for folder in folders if folder.name == reference]
        if len(found) == 1:
            return found[0]
        if found:
            listed = ", ".join(folder.id for folder in found[:5])
            raise AmbiguousName(f"{reference!r} fits {len(found)} sweeps: {listed}; give more of the id")
        names = ", ".join(f"{folder.name} ({folder.id})" for folder in folders[:5])
        there = f"there is {names}" if names else "there is none yet; `sweep run CONFIG` makes one"
        raise SweepNotFound(f"no sweep has the id or name {reference!r} in {self.workspace.path}; {there}")

    def find_unfinished(self, spec: SweepSpec) -> tuple[SweepFolder, SweepRecord] | None:
        """Return the newest sweep of the same search, if something is left to do within the spec's budget."""
        for folder in self:
            record = folder.read()
            if record.identity != spec.identity:
                continue
            record.trials_budget, record.timeout_s = spec.trials, spec.timeout_s
            record.limits = budget_fields(spec).get("limits", {})
            return None if record.is_finished else (folder, folder.read())
        return None

    def create(self, spec: SweepSpec, *, seed: int) -> SweepFolder:
        """Make a new sweep and record its config, and the trials of those that it extends.

        Raises:
            SweepNotFound, AmbiguousName: `extends` names a sweep that is not there, or several.
            InvalidConfig: it names one that looked at other metrics.
        """
        prior = [prior_event(self.find(reference).read(), spec) for reference in spec.extends]
        self._path.mkdir(exist_ok=True)
        folder = SweepFolder(self._path / new_id())
        folder.path.mkdir()
        _write_new(folder.path / "config.yaml", yaml.safe_dump(dict(spec.raw), sort_keys=False, allow_unicode=True))
        journal = Journal(folder.path)
        journal.append(
            {
                "event": "created",
                "at": time.time(),
                "format": FORMAT,
                "sweep_id": folder.id,
                "name": spec.name,
                **config_fields(spec),
                "metric": spec.metrics[0].name,
                "goal": spec.metrics[0].goal,
                "metrics": [{"name": metric.name, "goal": metric.goal} for metric in spec.metrics],
                "sampler": spec.sampler.name,
                "pruner": spec.pruner.name,
                "seed": seed,
            },
            is_durable=True,
        )
        for event in prior:
            journal.append(event, is_durable=True)
        journal.close()
        return folder


def status_of(folder: SweepFolder, record: SweepRecord) -> str:
    """Return where a sweep stands, in a word or two."""
    if folder.is_running:
        return "paused" if record.is_paused else "running"
    if record.is_finished:
        return "finished"
    return str(record.closed or ("interrupted" if record.sessions else "not begun"))


def config_fields(spec: SweepSpec) -> dict[str, Any]:
    """Return what an event keeps of a config."""
    return {"identity": spec.identity, "config": dict(spec.raw), "folder": str(spec.folder)}


def budget_fields(spec: SweepSpec) -> dict[str, Any]:
    """Return what an event keeps of a budget."""
    limits = {name: value for name, value in dataclasses.asdict(spec.budget).items() if value}
    told: dict[str, Any] = {"limits": limits} if limits else {}
    return {"trials": spec.trials, "parallel": spec.parallel, "timeout_s": spec.timeout_s, **told}


def prior_event(record: SweepRecord, spec: SweepSpec) -> Event:
    """Return the trials of an earlier sweep as an event of one that extends it, so that its record stands alone.

    Raises:
        InvalidConfig: it looked at other metrics.
    """
    before = [metric["name"] for metric in record.metrics]
    wanted = [metric.name for metric in spec.metrics]
    if set(before) != set(wanted):
        raise InvalidConfig(
            f"extends: sweep {record.name} looked at {', '.join(before)}, not at {', '.join(wanted)}; "
            "its results mean nothing here"
        )
    order = [before.index(name) for name in wanted]
    trials = []
    for trial in (*record.prior, *record.trials.values()):
        values = trial.values if trial.values is not None else None if trial.value is None else (trial.value,)
        if not trial.state.is_ended or trial.same_as is not None:
            continue
        trials.append(
            {
                "params": trial.params,
                "state": str(trial.state),
                "values": None if values is None else [json_number(values[i]) for i in order if i < len(values)],
                "constraints": [json_number(value) for value in trial.constraints],
                "reports": [[step, json_number(trial.reports[step])] for step in [*trial.reports][-1:]],
                "run_id": trial.run_id,
                "at": trial.ended_at or trial.asked_at,
            }
        )
    return {"event": "prior", "at": time.time(), "sweep_id": record.sweep_id, "name": record.name, "trials": trials}


def recorded_spec(record: SweepRecord, *, has_objective: bool = False, is_for_reading: bool = False) -> SweepSpec:
    """Return the spec of a sweep: that with which it was created, or what it was last edited to.

    Raises:
        InvalidConfig: its script is gone, and it is not only for reading.
    """
    return parse_spec(
        record.config,
        folder=Path(record.folder),
        file_name=record.name,
        has_objective=has_objective,
        has_budget=True,
        is_for_reading=is_for_reading,
    )


def new_id() -> str:
    """Return a UUID of version 7 (RFC 9562) as 32 hex digits, so that ids sort by time."""
    milliseconds = time.time_ns() // 1_000_000
    return uuid.UUID(
        int=milliseconds << 80
        | 0x7 << 76
        | int.from_bytes(os.urandom(2)) >> 4 << 64
        | 0b10 << 62
        | int.from_bytes(os.urandom(8)) >> 2
    ).hex


def _write_control(path: Path, word: bytes) -> None:
    (path / "control").write_bytes(word)


def _write_new(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
