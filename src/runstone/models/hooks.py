"""Tells the hooks of a workspace of what happened in its registry: in order, at least once each, and on record.

The history is the queue: an event that a hook wants and that no `delivered` event names is still to be told. Whoever
made a change tells of it, after the change is on the disk and for a limited time; what fails is tried again after the
next change of the model, or by `runstone models hooks run`. A hook hears of the events of one model in their order: a
later one waits until the earlier one was taken, or given up after many tries.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runstone.errors import RunstoneError, TrackingWarning
from runstone.ledger import LedgerEvent
from runstone.models.history import ARCHIVED, ModelState
from runstone.models.hookfile import FILE, Hook, read_hooks
from runstone.models.registry import After, Model
from runstone.models.sending import Sent, send

BUDGET_S = 10.0
_PAUSES_S = (0.2, 0.8)  # between the tries of one go
_FIRST_WAIT_S, _MOST_WAIT_S = 30.0, 3600.0  # between goes
_MOST_GOES = 12
_LOCK_WAIT_S = 2.0


@dataclass(frozen=True, slots=True)
class Pending:
    """An event that a hook has not taken yet.

    Attributes:
        hook: Who is to be told.
        model: Of the event.
        event: What is to be told.
        goes: How often that was tried in vain.
        due_at: When it is tried again, in seconds since the Unix epoch.
    """

    hook: Hook
    model: Model
    event: LedgerEvent
    goes: int
    due_at: float


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of one go: `state` is `delivered`, `failed` (it will be tried again) or `given_up`."""

    hook: str
    model: str
    seq: int
    word: str
    state: str
    detail: str
    output: str = ""


def announcer(workspace: Path) -> After:
    """Return what is done right after a change in a workspace: incidents that it resolves are closed, hooks are told.

    What goes wrong is warned of.
    """

    def announce(model: Model, event: LedgerEvent) -> None:
        if event.kind in ("staged", "aliased") and any(one.is_open for one in model.state().incidents.values()):
            from runstone.monitoring.incidents import close_resolved  # only where there is one

            try:
                close_resolved(workspace, model, event)
            except (RunstoneError, OSError) as error:
                warnings.warn(f"incidents were not closed: {error}", TrackingWarning, stacklevel=2)
        if event.kind == "delivered" or not (workspace / FILE).is_file():
            return
        try:
            deliver(workspace, [model])
        except (RunstoneError, OSError) as error:
            warnings.warn(f"hooks were not told: {error}", TrackingWarning, stacklevel=2)

    return announce


def deliver(
    workspace: Path,
    models: Iterable[Model],
    *,
    budget_s: float = BUDGET_S,
    is_forced: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Delivery]:
    """Tell hooks of what they have not taken yet.

    Args:
        workspace: Its folder.
        models: Whose events.
        budget_s: No try begins after this many seconds.
        is_forced: Try what is not due yet, too.
        sleep: Waits between tries.

    Raises:
        InvalidConfig: `hooks.yaml` has mistakes.
    """
    hooks = read_hooks(workspace)
    end = time.monotonic() + budget_s
    found: list[Delivery] = []
    for model in models if hooks else ():
        with _one_at_a_time(workspace, model) as is_ours:
            waiting = is_ours  # whoever holds the lock tells of this, too
            tried: set[tuple[str, int]] = set()
            while waiting and time.monotonic() < end:
                todo = [
                    one
                    for one in _first_of_each(pending(workspace, model, hooks))
                    if (is_forced or one.due_at <= time.time()) and (one.hook.name, one.event.seq) not in tried
                ]
                for one in todo:
                    if time.monotonic() >= end:
                        break
                    tried.add((one.hook.name, one.event.seq))
                    found.append(_go(workspace, one, end, sleep))
                waiting = bool(todo)
    return found


def pending(workspace: Path, model: Model, hooks: Iterable[Hook]) -> list[Pending]:
    """Return what hooks have not taken of a model's events, in order."""
    events = model.history()
    state = model.state()
    settled: set[tuple[str, int]] = set()
    goes: dict[tuple[str, int], tuple[int, float]] = {}
    for event in events:
        if event.kind == "delivered":
            key = (event.fields["hook"], event.fields["of"])
            if event.fields["state"] == "failed":
                goes[key] = (goes.get(key, (0, 0.0))[0] + 1, event.at)
            else:
                settled.add(key)
    found = []
    for hook in hooks:
        since = _since(workspace, hook)
        for event in events:
            word = word_of(event, state)
            key = (hook.name, event.seq)
            if word is None or key in settled or event.at < since:
                continue
            if hook.wants(word, state.name, event.fields.get("stage")):
                count, last = goes.get(key, (0, 0.0))
                wait = min(_MOST_WAIT_S, _FIRST_WAIT_S * 2 ** (count - 1)) if count else 0.0
                found.append(Pending(hook, model, event, count, last + wait))
    return found


def word_of(event: LedgerEvent, state: ModelState) -> str | None:
    """Return what hooks call an event; `None` for those that they are not told of."""
    match event.kind:
        case "created" | "registered" | "withdrawn" | "refused" | "tagged":
            return event.kind
        case "deployed" | "undeployed" | "incident_opened" | "incident_closed" | "profiled":
            return event.kind
        case "judged" if event.fields["state"] in ("approved", "rejected"):
            return str(event.fields["state"])
        case "staged" if event.fields.get("is_rollback"):
            return "rolled_back"
        case "staged":
            return "moved" if event.fields["stage"] in (state.stages[0], ARCHIVED) else "promoted"
        case "aliased":
            return "alias"
        case "revoked" | "flagged" if event.fields.get("reason") is not None:
            return "revoked"
    return None


def message(model: Model, event: LedgerEvent, word: str) -> dict[str, Any]:
    """Return what a hook is told, as JSON. `id` is the same whenever it is told again."""
    return {
        "format": 1,
        "id": event.hash,
        "event": word,
        "model": model.name,
        "seq": event.seq,
        "at": datetime.fromtimestamp(event.at, UTC).isoformat(),
        "by": dict(event.by),
        **{key: value for key, value in event.fields.items() if key not in ("format", "id", "event", "model", "seq")},
    }


def try_out(workspace: Path, hook: Hook, model: str) -> Sent:
    """Send a hook an event `test`, which stands in no history."""
    now = datetime.now(UTC)
    said = {"format": 1, "id": "test", "event": "test", "model": model, "seq": 0, "at": now.isoformat(), "by": {}}
    return send(hook, {**said, "version": "0.0.0"}, workspace)


def _go(workspace: Path, one: Pending, end: float, sleep: Callable[[float], None]) -> Delivery:
    """Try one delivery, some times within a moment, and record what came of it."""
    word = word_of(one.event, one.model.state()) or one.event.kind
    said = message(one.model, one.event, word)
    tries = 0
    for pause in (*_PAUSES_S, None):
        tries += 1
        sent = send(one.hook, said, workspace)
        if sent.is_delivered or pause is None or time.monotonic() + pause >= end:
            break
        sleep(pause)
    state = "delivered" if sent.is_delivered else "given_up" if one.goes + 1 >= _MOST_GOES else "failed"
    fields: Mapping[str, Any] = {
        "hook": one.hook.name,
        "of": one.event.seq,
        "state": state,
        "tries": tries,
        "detail": sent.detail,
    }
    one.model.note_delivery(fields)
    return Delivery(one.hook.name, one.model.name, one.event.seq, word, state, sent.detail, sent.output)


def _first_of_each(found: Iterable[Pending]) -> list[Pending]:
    first: dict[str, Pending] = {}
    for one in found:
        first.setdefault(one.hook.name, one)
    return list(first.values())


def _since(workspace: Path, hook: Hook) -> float:
    """Return since when a hook is there: it hears nothing of what was before.

    The time of the file's last change when the hook was seen first stands in a file of its own, made once.
    """
    place = workspace / "hooks" / f"{hook.name}.since"
    try:
        return float(place.read_text())
    except FileNotFoundError:
        pass
    except ValueError:  # cut off by a crash
        return 0.0
    since = (workspace / FILE).stat().st_mtime
    place.parent.mkdir(exist_ok=True)
    partial = place.with_name(f".{os.urandom(8).hex()}.partial")
    partial.write_text(repr(since))
    try:
        os.link(partial, place)
    except OSError:  # another was first, or a file system without links
        if not place.exists():
            partial.replace(place)
    finally:
        partial.unlink(missing_ok=True)
    return float(place.read_text())


@contextlib.contextmanager
def _one_at_a_time(workspace: Path, model: Model) -> Iterator[bool]:
    """Hold the right to tell of a model's events; `False` where another has it for longer than a moment."""
    folder = workspace / "hooks"
    folder.mkdir(exist_ok=True)
    fd = os.open(folder / f"{model.ledger.folder.parent.name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    end = time.monotonic() + _LOCK_WAIT_S
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    yield False
                    return
                time.sleep(0.02)
        yield True
    finally:
        os.close(fd)
