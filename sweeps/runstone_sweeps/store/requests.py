"""What is asked of a sweep from outside while it runs or rests: small files in its folder, each answered by an event.

Whoever asks writes a file and renames it into `requests/`; the holder of the sweep's lock takes it in, records
the answer under the request's id, and removes the file. A request that is found again after its answer was recorded
is only removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from runstone import InvalidValue, RunstoneError
from runstone_sweeps.config import parse_spec
from runstone_sweeps.record import SweepRecord, TrialState
from runstone_sweeps.record.journal import Journal
from runstone_sweeps.spec import SweepSpec
from runstone_sweeps.store.sweeps import (
    SweepFolder,
    SweepIsRunning,
    budget_fields,
    config_fields,
    new_id,
    recorded_spec,
)


class RequestRefused(RunstoneError):
    """What was asked of a sweep cannot be done; the message says why."""


class Emit(Protocol):
    """Records one event."""

    def __call__(self, kind: str, /, *, is_durable: bool = False, **fields: Any) -> None:
        """Record it."""


@dataclass(frozen=True, slots=True)
class Request:
    """One thing that is asked of a sweep: `pause`, `unpause`, `add`, `more`, `rerun` or `edit`, and with what."""

    id: str
    action: str
    fields: Mapping[str, Any]


class Requests:
    """The requests of one sweep. Cheap to make, holds nothing open."""

    def __init__(self, folder: SweepFolder) -> None:
        self._path = folder.path / "requests"
        self._seen_ns = 0

    def post(self, action: str, **fields: Any) -> Request:
        """Leave a request for the holder of the sweep's lock."""
        self._path.mkdir(exist_ok=True)
        request = Request(new_id(), action, fields)
        partial = self._path / f".{request.id}.partial"
        partial.write_text(json.dumps({"action": action, **fields}), encoding="utf-8")
        partial.rename(self._path / f"{request.id}.json")
        return request

    def pending(self) -> list[Request]:
        """Return what was asked and not removed, in the order in which it was asked."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for path in sorted(self._path.glob("*.json")):
                told = {}
                with contextlib.suppress(OSError, ValueError):
                    told = json.loads(path.read_text(encoding="utf-8"))
                found.append(Request(path.stem, str(told.pop("action", "")), told))
        return found

    def has_news(self) -> bool:
        """Return whether something may have been asked since the last call; cheap."""
        try:
            changed_ns = os.stat(self._path).st_mtime_ns  # noqa: PTH116  # twenty times a second
        except FileNotFoundError:
            return False
        if changed_ns == self._seen_ns:
            return False
        self._seen_ns = changed_ns
        return True

    def remove(self, request: Request) -> None:
        """Remove a request that was answered, or is not to be any more."""
        (self._path / f"{request.id}.json").unlink(missing_ok=True)


def answer_all(
    requests: Requests, record: SweepRecord, emit: Emit, *, has_objective: bool = False
) -> Iterator[Request]:
    """Take in all that is asked; yield what was done, after it is recorded.

    Args:
        requests: Of the sweep.
        record: What its events say.
        emit: Records an event.
        has_objective: Whether the sweep tries a Python function.
    """
    for request in requests.pending():
        if request.id not in record.requests:
            try:
                apply(request, record, emit, has_objective=has_objective)
                yield request
            except RunstoneError as error:
                emit("refused", request=request.id, action=request.action, reason=str(error))
        requests.remove(request)


def apply(request: Request, record: SweepRecord, emit: Emit, *, has_objective: bool = False) -> None:
    """Record what a request comes to.

    Raises:
        RequestRefused: it cannot be done.
        InvalidConfig: the config of an edit has mistakes.
    """
    fields = request.fields
    match request.action:
        case "pause":
            emit("paused", request=request.id)
        case "unpause":
            emit("unpaused", request=request.id)
        case "add":
            spec = recorded_spec(record, is_for_reading=True)
            points = [check_point(point, spec) for point in fields["points"]]
            emit("added", is_durable=True, request=request.id, points=points, is_extra=True)
        case "more":
            budget = check_more(fields.get("trials"), record)
            emit("budget", is_durable=True, request=request.id, **budget)
        case "rerun":
            numbers = check_rerun(fields.get("numbers") or (), record, is_failed=bool(fields.get("is_failed")))
            emit("rerun", is_durable=True, request=request.id, numbers=numbers)
        case "edit":
            spec = check_edit(fields["config"], Path(fields["config_folder"]), record, has_objective=has_objective)
            emit("edited", is_durable=True, request=request.id, **config_fields(spec), **budget_fields(spec))
        case _:
            raise RequestRefused(f"nobody knows how to {request.action or 'do what a damaged file asks'}")


def check_point(point: Mapping[str, Any], spec: SweepSpec) -> dict[str, Any]:
    """Return a point to be tried, by dotted names.

    Raises:
        RequestRefused: it names what is no parameter.
    """
    known = {parameter.name for parameter in spec.space}
    for name in point:
        if name not in known:
            raise RequestRefused(f"there is no parameter {name!r}; there is {', '.join(sorted(known))}")
    return dict(point)


def check_more(trials: Any, record: SweepRecord) -> dict[str, Any]:
    """Return the budget with so many trials more.

    Raises:
        RequestRefused: that is no number, trials are not what limits the sweep, or there is no further point.
    """
    if type(trials) is not int or trials < 1:
        raise RequestRefused(f"{trials!r} is no number of trials")
    if record.trials_budget is None:
        raise RequestRefused("no number of trials limits this sweep; `sweep edit` changes what does")
    wanted = max(record.trials_budget, record.next_number) + trials
    spec = recorded_spec(record, is_for_reading=True)
    if spec.space.size is not None and spec.sampler.name in ("grid", "brute_force"):
        wanted = min(wanted, spec.space.size)
    if wanted <= record.trials_budget:
        raise RequestRefused(f"the space has {spec.space.size} points, and each is tried already or is going to be")
    limits = {"limits": record.limits} if record.limits else {}
    return {"trials": wanted, "parallel": record.parallel, "timeout_s": record.timeout_s, **limits}


def check_rerun(numbers: Sequence[int], record: SweepRecord, *, is_failed: bool) -> list[int]:
    """Return the trials that are to be run again.

    Raises:
        RequestRefused: one of them is not there, has not ended, or took the result of another; or there is none.
    """
    wanted = dict.fromkeys(numbers)
    if is_failed:
        wanted |= dict.fromkeys(t.number for t in record.trials.values() if t.state is TrialState.FAILED)
    for number in wanted:
        trial = record.trials.get(number)
        if trial is None:
            raise RequestRefused(f"there is no trial {number}; there are {len(record.trials)}, counted from 0")
        if not trial.state.is_ended:
            raise RequestRefused(f"trial {number} is {trial.state}; only one that has ended can be run again")
        if trial.same_as is not None:
            raise RequestRefused(f"trial {number} took the result of trial {trial.same_as}; run that one again")
    if not wanted:
        raise RequestRefused("there is no failed trial to run again" if is_failed else "name the trials to run again")
    return list(wanted)


def check_edit(config: Any, folder: Path, record: SweepRecord, *, has_objective: bool = False) -> SweepSpec:
    """Return the spec that a sweep would have after an edit.

    Raises:
        InvalidConfig: it has mistakes.
        RequestRefused: it looks at other metrics, so that what has been found means nothing to it.
    """
    spec = parse_spec(config, folder=folder, file_name=record.name, has_objective=has_objective, has_budget=True)
    before = recorded_spec(record, is_for_reading=True)
    was, now = ([(m.name, m.goal) for m in each.metrics] for each in (before, spec))
    if was != now:
        raise RequestRefused(
            f"the metrics of a sweep cannot change: {_metrics(was)} became {_metrics(now)}; begin a new one"
        )
    return spec


def answer_here(folder: SweepFolder, request: Request) -> None:
    """Answer what is asked of a sweep that does not run, at once and in this process.

    Raises:
        RequestRefused: this request cannot be met; it is forgotten.
        SweepIsRunning: it does run: its coordinator answers.
    """
    with folder.lock():
        record = folder.read()
        journal = Journal(folder.path, next_seq=record.next_seq)

        def emit(kind: str, /, *, is_durable: bool = True, **fields: Any) -> None:
            # At the time of the last event: nobody is at work.
            record.apply(journal.append({"event": kind, "at": record.last_at, **fields}, is_durable=is_durable))
            if kind == "refused" and fields["request"] == request.id:
                refused.append(fields["reason"])

        refused: list[str] = []
        try:
            # A Python objective cannot be told from a config without a program: that is checked where it runs.
            for _ in answer_all(Requests(folder), record, emit, has_objective=is_python(record)):
                pass
        finally:
            journal.close()
    if refused:
        raise RequestRefused(refused[0])


def is_python(record: SweepRecord) -> bool:
    """Tell whether a sweep tries a Python function that only its program has."""
    return not record.config.keys() & {"script", "program", "command", "function"}


def ask(folder: SweepFolder, action: str, **fields: Any) -> bool:
    """Have something done: by the coordinator if there is one, else here.

    Returns:
        Whether it is done; if not, the coordinator is busy and does it when it comes to it.

    Raises:
        RequestRefused: it cannot be done.
    """
    request = Requests(folder).post(action, **fields)
    if not folder.is_running:
        try:
            answer_here(folder, request)
            return True
        except SweepIsRunning:  # it was begun in between
            pass
    return wait_for_answer(folder, request)


def wait_for_answer(folder: SweepFolder, request: Request, *, timeout_s: float = 10.0) -> bool:
    """Wait until the holder of the lock has answered a request.

    Returns:
        Whether it did; if not, it will when it comes to it.

    Raises:
        RequestRefused: it said no.
    """
    limit = time.monotonic() + timeout_s
    while time.monotonic() < limit:
        for event in reversed(folder.events()):
            if event.get("request") == request.id:
                if event["event"] == "refused":
                    raise RequestRefused(event["reason"])
                return True
        if not folder.is_running:
            return False
        time.sleep(0.05)
    return False


def parse_assignments(words: Sequence[str]) -> dict[str, Any]:
    """Return the point that words such as `lr=0.1` name; values as in a config.

    Raises:
        InvalidValue: a word is none of this kind.
    """
    import yaml  # only for commands

    point = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise InvalidValue(f"{word!r} is not of the form name=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        if isinstance(value, str):
            with contextlib.suppress(ValueError):  # YAML 1.1 takes 1e-3 for text
                value = float(text)
        point[name] = value
    return point


def _metrics(metrics: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{goal} {name}" for name, goal in metrics)
