"""The series of runs as charts ask for them, read through the run log's readers and kept at hand between requests."""

from __future__ import annotations

import itertools
import os
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from runstone.errors import MetricNotFound
from runstone.runlog.blocks import Blocks, Figures, points_between, read_blocks
from runstone.runlog.portions import Portion, join
from runstone.runlog.reader import JournalState, read_journal
from runstone.runlog.series import MetricLog
from runstone.server.envelopes import blocks_of
from runstone.server.smoothing import Carry, Smoothing, ema, gaussian, running_mean, usual_spacing

MOST_RUNS = 512
MOST_POINTS = 48 << 20

Floats = NDArray[np.float64]
Made = TypeVar("Made")


@dataclass
class Curve:
    """One metric of one run: what no later attempt superseded, attempt by attempt, in the order in which it was logged.

    Attributes:
        step, value, wall_s: Shape `(n,)`; `value` is float64 whatever was logged.
        attempts: Number of each attempt, and the row at which it begins.
        structure: Equal as long as points are only added at the end.
        memo: What was derived from the points, by key.
    """

    step: NDArray[np.int64]
    value: Floats
    wall_s: Floats
    attempts: tuple[tuple[int, int], ...]
    structure: int
    memo: dict[Any, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.step)

    def kept(self, key: Any, make: Callable[[], Made]) -> Made:
        """Return what was derived from these points under a key; made the first time."""
        if key not in self.memo:
            self.memo[key] = make()
        found: Made = self.memo[key]
        return found

    @property
    def breaks(self) -> NDArray[np.int64]:
        """Rows at which an attempt begins."""
        return np.array([row for _attempt, row in self.attempts], np.int64)

    @property
    def blocks(self) -> Figures | None:
        """What stretches of its values come down to, where it is long."""
        return self.kept("blocks", lambda: blocks_of(self.value))

    @property
    def strange(self) -> tuple[int, int]:
        """How many values are NaN, and ±Inf."""

        def counted() -> tuple[int, int]:
            blocks = self.blocks
            whole = len(self.value) // 64 * 64 if blocks is not None else 0
            rest = self.value[whole:]
            nan, inf = int(np.isnan(rest).sum()), int(np.isinf(rest).sum())
            return (nan, inf) if blocks is None else (nan + int(blocks.nan.sum()), inf + int(blocks.inf.sum()))

        return self.kept("strange", counted)

    def stamp(self, count: int) -> int:
        """Return a number that stands for the first `count` points: equal where they are the same."""
        if not 0 < count <= len(self):
            return self.structure
        last = (int(self.step[count - 1]), float(self.value[count - 1]), float(self.wall_s[count - 1]))
        return zlib.crc32(repr(last).encode(), self.structure)


@dataclass(frozen=True, slots=True)
class Axis:
    """Where the points of a curve lie.

    Attributes:
        x: Shape `(n,)`, int64 for steps, else float64.
        rows: Which points of the curve these are; `None`: all.
        is_ordered: Whether `x` never goes back.
        span: Lowest and highest of `x`; `None` where there is none.
    """

    x: NDArray[Any]
    rows: NDArray[np.int64] | None
    is_ordered: bool
    span: tuple[float, float] | None


@dataclass(frozen=True)
class LongCurve:
    """A long, sealed metric of which nothing but blocks is at hand; its points are read where they are drawn.

    Attributes:
        blocks: Block by block.
        begin: Where the first point lies.
        x: Where the last point of each block lies.
        attempt: Number of the only one that logged it.
        structure: As of a `Curve`.
        points: Returns the points of a range of rows, as a curve, and where they lie.
    """

    blocks: Blocks
    begin: float
    x: NDArray[Any]
    attempt: int
    structure: int
    points: Callable[[int, int], tuple[Curve, Axis]]


class OpenRun:
    """One run as it is read for charts. Used by one thread at a time: hold `lock`.

    Args:
        path: Folder of the run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.Lock()
        self._signature = _journals(path)
        self._journal = read_journal(path)
        self._log = MetricLog(path, self._journal)
        self._curves: dict[str, Curve] = {}
        self._before: dict[str, Curve] = {}
        self._blocks: dict[tuple[str, Any], Blocks | None] = {}

    @property
    def points(self) -> int:
        """Points that are kept at hand."""
        return sum(map(len, self._curves.values())) + sum(map(len, self._before.values()))

    @property
    def started_at(self) -> float:
        """When the run began, in seconds since the epoch."""
        return self._journal.created_at

    def refresh(self) -> None:
        """Take in what was written since: whoever asks was told of a change, and must not get what was before it."""
        signature = _journals(self.path)
        is_new = False
        if signature != self._signature:
            journal = read_journal(self.path)
            if _attempts(journal) != _attempts(self._journal):
                self._log = MetricLog(self.path, journal)
                is_new = True
            self._journal, self._signature = journal, signature
        if self._log.poll() or is_new:
            self._before = {**self._before, **self._curves}
            self._curves = {}

    def curve(self, name: str) -> Curve:
        """Return a metric.

        Raises:
            MetricNotFound: the run never logged a number under this name.
            FormatError: it is sealed and damaged.
        """
        found = self._curves.get(name)
        if found is None:
            log = self._log
            found = log.through_sealing(lambda: _curve_of(log, name))
            before = self._before.pop(name, None)
            if before is not None and _goes_on(before, found):
                _take_over(before, found)
            self._curves[name] = found
        return found

    def long_curve(self, name: str, kind: str) -> LongCurve | None:
        """Return a metric block by block, where its points need not be read as a whole; else `None`.

        Args:
            name: The metric.
            kind: As for `axis`.
        """
        sealed = self._log.sealed
        if name in self._curves or kind not in ("step", "time", "relative") or sealed is None:
            return None
        if self._log.live.points_of(name) or self._log.limits(name):
            return None
        identity = (name, sealed.id)
        if identity not in self._blocks:
            self._blocks[identity] = read_blocks(sealed, name)
        blocks = self._blocks[identity]
        if blocks is None:
            return None
        offset = self.started_at if kind == "relative" else 0.0
        x = blocks.step if kind == "step" else blocks.wall_s - offset
        if not (x[1:] >= x[:-1]).all():
            return None
        attempt = self._log.attempt_of(blocks.writer)
        structure = zlib.crc32(repr(identity).encode())

        def points(low: int, high: int) -> tuple[Curve, Axis]:
            series = points_between(sealed, name, low, high)
            stamp = zlib.crc32(f"{low}".encode(), structure)
            part = Curve(series.step, series.value, series.wall_s, ((attempt, 0),), stamp)
            return part, _axis(series.step if kind == "step" else series.wall_s - offset)

        begin = float(blocks.first_step) if kind == "step" else blocks.first_wall_s - offset
        return LongCurve(blocks, begin, x, attempt, structure, points)

    def axis(self, name: str, kind: str) -> Axis:
        """Return where the points of a metric lie.

        Args:
            name: The metric.
            kind: `step`; `relative`: seconds since the run began; `process`: the same, without the time between
                attempts; `time`: seconds since the epoch; `metric:NAME`: the value that another metric had at the
                step, or last before it.

        Raises:
            MetricNotFound: the other metric was never logged.
        """
        curve = self.curve(name)
        if kind.startswith("metric:"):
            other = self.curve(kind.removeprefix("metric:"))
            return curve.kept((kind, len(other), other.stamp(len(other))), lambda: _along(curve, other))
        return curve.kept(kind, lambda: self._plain_axis(curve, kind))

    def _plain_axis(self, curve: Curve, kind: str) -> Axis:
        if kind == "step":
            return _axis(curve.step)
        if kind == "time":
            return _axis(curve.wall_s)
        if kind == "relative":
            return _axis(curve.wall_s - self.started_at)
        begun = {attempt.number: attempt.started_at.timestamp() for attempt in self._journal.attempts}
        x = np.empty(len(curve))
        passed = 0.0
        bounds = [*curve.attempts, (0, len(curve))]
        for (number, low), (_next, high) in itertools.pairwise(bounds):
            if low == high:
                continue
            start = begun.get(number, float(curve.wall_s[low]))
            x[low:high] = curve.wall_s[low:high] - start + passed
            passed = max(passed, float(np.nanmax(x[low:high])))
        return _axis(x)

    def smoothed(self, name: str, kind: str, smoothing: Smoothing) -> tuple[Floats, float]:
        """Return the smoothed values of the points that an axis has, and the spacing that was taken as usual."""
        curve, axis = self.curve(name), self.axis(name, kind)
        key = ("smooth", kind, smoothing)
        known = curve.memo.get(key)
        if known is not None and len(known.value) == len(axis.x):
            return known.value, known.spacing
        value = curve.value if axis.rows is None else curve.value[axis.rows]
        made = _smoothed(axis.x, value, smoothing, known if axis.rows is None else None)
        curve.memo[key] = made
        return made.value, made.spacing


@dataclass(slots=True)
class _Smoothed:
    value: Floats
    spacing: float
    carry: Carry


class Curves:
    """The runs that charts asked for lately. Bounded in runs and points; safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: OrderedDict[Path, OpenRun] = OrderedDict()

    def open(self, path: Path) -> OpenRun:
        """Return a run, the same one as before where it is at hand."""
        with self._lock:
            found = self._runs.pop(path, None) or OpenRun(path)
            self._runs[path] = found
            while len(self._runs) > 1 and (
                len(self._runs) > MOST_RUNS or sum(run.points for run in self._runs.values()) > MOST_POINTS
            ):
                self._runs.popitem(last=False)
            return found

    def close(self) -> None:
        """Let go of all."""
        with self._lock:
            self._runs.clear()


def _journals(path: Path) -> tuple[Any, ...]:
    try:
        with os.scandir(path) as entries:
            found = [
                (entry.name, entry.stat().st_mtime_ns, entry.stat().st_size)
                for entry in entries
                if entry.name.startswith("journal.")
            ]
    except OSError:
        return ()
    return tuple(sorted(found))


def _attempts(journal: JournalState) -> tuple[Any, ...]:
    """Return what the points depend on of what the journals say."""
    writers = tuple((writer.writer, writer.attempt) for writer in journal.writers)
    return writers, tuple((one.number, one.rewind_step, one.started_at) for one in journal.attempts)


def _curve_of(log: MetricLog, name: str) -> Curve:
    portions = [portion for portion in log.portions(name) if portion.payloads is None]
    if not any(map(len, portions)):
        log.curve(name)  # raises, and names the nearest metrics
        raise MetricNotFound(f"there is no metric {name!r:.80}")
    limits = log.limits(name)
    by_attempt: dict[int, list[Portion]] = {}
    for portion in portions:
        attempt = log.attempt_of(portion.writer)
        limit = limits.get(attempt)
        if limit is not None:
            portion = portion.select(portion.step < limit)
        if len(portion):
            by_attempt.setdefault(attempt, []).append(portion)
    joined = [(attempt, join(name, by_attempt[attempt])) for attempt in sorted(by_attempt)]
    starts, row = [], 0
    for attempt, series in joined:
        starts.append((attempt, row))
        row += len(series)
    told = [(attempt, limits.get(attempt), sorted(one.writer for one in by_attempt[attempt])) for attempt, _ in joined]
    # Several writers at once are merged by time: a point of one may come between points of another.
    is_appended = not joined or len(by_attempt[joined[-1][0]]) == 1
    identity = log.sealed.identity if log.sealed is not None else None
    structure = zlib.crc32(repr((told, starts, identity, None if is_appended else row)).encode())
    if len(joined) == 1:
        only = joined[0][1]
        return Curve(only.step, only.value.astype(np.float64, copy=False), only.wall_s, tuple(starts), structure)
    return Curve(
        np.concatenate([series.step for _attempt, series in joined]),
        np.concatenate([series.value.astype(np.float64) for _attempt, series in joined]),
        np.concatenate([series.wall_s for _attempt, series in joined]),
        tuple(starts),
        structure,
    )


def _goes_on(before: Curve, now: Curve) -> bool:
    return 0 < len(before) <= len(now) and before.stamp(len(before)) == now.stamp(len(before))


def _take_over(before: Curve, now: Curve) -> None:
    """Keep smoothed values that go on where they left off."""
    for key, made in before.memo.items():
        if isinstance(made, _Smoothed) and key[2].kind == "ema":
            now.memo[key] = made


def _axis(x: NDArray[Any], rows: NDArray[np.int64] | None = None) -> Axis:
    is_ordered = bool((x[1:] >= x[:-1]).all())
    span = None
    if len(x):
        span = (float(x[0]), float(x[-1])) if is_ordered else (float(np.nanmin(x)), float(np.nanmax(x)))
    return Axis(x, rows, is_ordered, span)


def _along(curve: Curve, other: Curve) -> Axis:
    """Return the axis of another metric: what it was last at the step of each point; points before it are left out."""
    order = np.argsort(other.step, kind="stable")
    place = np.searchsorted(other.step[order], curve.step, "right") - 1
    x = np.where(place >= 0, other.value[order[np.maximum(place, 0)]], np.nan)
    rows = np.flatnonzero(np.isfinite(x))
    return _axis(x[rows], rows if len(rows) < len(x) else None)


def _smoothed(x: NDArray[Any], value: Floats, smoothing: Smoothing, known: _Smoothed | None) -> _Smoothed:
    if smoothing.kind == "mean":
        return _Smoothed(running_mean(value, smoothing.amount), 0.0, Carry())
    if smoothing.kind == "gauss":
        return _Smoothed(gaussian(value, smoothing.amount), 0.0, Carry())
    spacing = usual_spacing(x)
    if known is not None and known.spacing == spacing and 0 < len(known.value) < len(value):
        carry = Carry(known.carry.total, known.carry.weight, known.carry.place)
        rest = slice(len(known.value), None)
        added = ema(x[rest], value[rest], smoothing.amount, spacing, carry)
        return _Smoothed(np.concatenate([known.value, added]), spacing, carry)
    carry = Carry()
    return _Smoothed(ema(x, value, smoothing.amount, spacing, carry), spacing, carry)
