"""Watches one run by rules until it has ended: reads its files as any reader does, writes alerts into its journal."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runstone.alerts.conditions import Condition, Firing, Moment, condition
from runstone.alerts.delivery import deliver
from runstone.alerts.rules import Alerting
from runstone.editing.editor import write_events
from runstone.errors import RunNotFound
from runstone.runinfo import RunInfo
from runstone.runlog.tail import MetricTail
from runstone.status import Status
from runstone.values import Alert

POLL_S = 2.0
_LOOK_AT_JOURNAL_S = 5.0


class RunWatch:
    """One run under watch.

    Args:
        run_path: Folder of the run.
        alerting: Rules and targets.
    """

    def __init__(self, run_path: Path, alerting: Alerting) -> None:
        self._path = run_path
        self._workspace = run_path.parents[2]
        self._alerting = alerting
        self._conditions: list[Condition] = [condition(rule) for rule in alerting.rules]
        self._tail = MetricTail(run_path)
        self._attempt = 0
        self._info: RunInfo | None = None
        self._looked_at = 0.0
        self._settled: set[str] | None = None
        self._unwritten: list[tuple[str, dict[str, Any]]] = []

    def look(self, now: float | None = None) -> list[Alert]:
        """Take what came, write and deliver what it gives rise to, and return those alerts.

        Where the run's folder takes nothing, they are delivered all the same, and written at a later look.

        Raises:
            RunNotFound: the run is gone.
        """
        now = time.time() if now is None else now
        if not self._path.is_dir():
            raise RunNotFound(f"there is no run in {self._path}")
        self._write()
        new = self._tail.poll()
        if self._info is None or now - self._looked_at >= _LOOK_AT_JOURNAL_S or not new:
            self._info, self._looked_at = RunInfo(self._path), now
            if self._info.status.is_ended:
                new = _joined(new, self._tail.poll())  # what was written between the two looks
        info = self._info
        started_at = _started_at(info)
        known: set[tuple[str, str | None]] = set()
        if self._settled is None:
            # A watch before this one, of the same attempt, has told of what it found; all points are looked at again.
            self._settled = {
                alert.id for alert in info.alerts if alert.rule or alert.deliveries or alert.at < started_at
            }
            known = {(alert.rule, alert.metric) for alert in info.alerts if alert.at >= started_at}
        own = [alert for alert in info.alerts if alert.id not in self._settled]
        self._settled.update(alert.id for alert in own)
        moment = Moment(now, started_at, new, info.status.value, _why(info), self._path)
        fired = [firing for watches in self._conditions for firing in watches(moment)]
        found = [self._record(one, now) for one in fired if (one.rule.name, one.metric) not in known]
        for alert in [*own, *found]:
            self._deliver(info, alert)
        return found

    @property
    def is_over(self) -> bool:
        """Whether the run had ended when it was last looked at."""
        return self._info is not None and self._info.status.is_ended

    def _record(self, firing: Firing, now: float) -> Alert:
        alert = Alert(
            id=secrets.token_hex(8),
            rule=firing.rule.name,
            level=firing.rule.level,
            title=firing.title,
            text=firing.text,
            at=now,
            metric=firing.metric,
            step=firing.step,
            value=firing.value,
        )
        if self._settled is not None:
            self._settled.add(alert.id)
        self._write(("alert", alert_fields(alert)))
        return alert

    def _write(self, *events: tuple[str, dict[str, Any]]) -> None:
        """Write events, and those that the folder took no time before: a full disk is what an alert may be about."""
        self._unwritten += events
        if self._unwritten:
            with contextlib.suppress(OSError):
                write_events(self._path, self._unwritten)
                self._unwritten = []

    def _deliver(self, info: RunInfo, alert: Alert) -> None:
        told = deliver(self._alerting, message_of(info, alert), self._workspace)
        events: list[tuple[str, dict[str, Any]]] = [
            ("alert_sent", {"alert": alert.id, "to": name, "is_delivered": sent.is_delivered, "detail": sent.detail})
            for name, sent in told
        ]
        self._write(*events)


def watch_until_ended(
    run_path: Path, alerting: Alerting, *, poll_s: float = POLL_S, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Watch one run until it has ended.

    Args:
        run_path: Folder of the run.
        alerting: Rules and targets.
        poll_s: Seconds between two looks.
        sleep: Waits between them.

    Raises:
        RunNotFound: the run is gone.
    """
    watch = RunWatch(run_path, alerting)
    while True:
        watch.look()
        if watch.is_over:
            return
        sleep(poll_s)


def alert_fields(alert: Alert) -> dict[str, Any]:
    """Return an alert as the fields of its journal event."""
    names = ("id", "rule", "level", "title", "text", "metric", "step", "value")
    return {name: getattr(alert, name) for name in names}


def message_of(info: RunInfo, alert: Alert) -> Mapping[str, Any]:
    """Return what targets are told, as JSON; a value that JSON lacks is text."""
    value = alert.value
    return {
        "format": 1,
        "id": alert.id,
        "event": "alert",
        "rule": alert.rule,
        "level": alert.level,
        "title": alert.title,
        "text": alert.text,
        "metric": alert.metric,
        "step": alert.step,
        "value": value if value is None or value - value == 0 else str(value),
        "at": datetime.fromtimestamp(alert.at, UTC).isoformat(),
        "run": {"id": info.id, "name": info.name, "project": info.project, "status": info.status.value},
    }


def _joined(first: dict[str, Any], then: dict[str, Any]) -> dict[str, Any]:
    if not then:
        return first
    import numpy as np

    from runstone.values import Series

    found = dict(first)
    for name, series in then.items():
        if name in found:
            before = found[name]
            columns = [
                np.concatenate([getattr(before, column), getattr(series, column)])
                for column in ("step", "value", "wall_s")
            ]
            series = Series(name, *columns)
        found[name] = series
    return found


def _started_at(info: RunInfo) -> float:
    return (info.attempts[-1].started_at if info.attempts else info.started_at).timestamp()


def _why(info: RunInfo) -> str:
    if info.failure is not None:
        return f"{info.failure.type}: {info.failure.message}".strip()[:1000]
    return "Its process is gone without a word." if info.status is Status.CRASHED else ""
