"""One figure of a sweep at a time, as Plotly JSON, each drawn once for as long as nothing changes. Knows no HTTP."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from runstone import InvalidValue, NotFound
from runstone_sweeps.record import SweepRecord
from runstone_sweeps.report import drawing, fronts, history, parameters
from runstone_sweeps.spec import SweepSpec

if TYPE_CHECKING:
    from runstone_sweeps.store.followed import Followed

# A forest takes seconds for each thousand trials.
_MOST_FOR_FANOVA = 1_000
_KEPT = 128


class Figures:
    """Draws the figures of sweeps and keeps those drawn last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Any, ...], dict[str, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def draw(
        self, sweep: Followed, kind: str, *, metric: str | None = None, x: str | None = None, y: str | None = None
    ) -> dict[str, Any]:
        """Return a figure: `title`, `data` and `layout` as Plotly takes them, `reason` where there is none, and `note`.

        Args:
            sweep: Of which; held, so that its record stands still.
            kind: One of `KINDS`.
            metric: Of several; default the first.
            x, y: The two parameters of a contour; default the three most important, two at a time.

        Raises:
            NotFound: there is no figure of this kind, no such metric or parameter.
            InvalidValue: a contour takes two parameters, or the kind takes none.
        """
        record, spec = sweep.record, sweep.spec
        if kind not in KINDS:
            raise NotFound(f"there is no figure {kind!r:.80}; there is {', '.join(KINDS)}")
        index = _index_of(metric, spec)
        chosen = _chosen(kind, x, y, spec)
        # What a figure of trials that run shows changes between two ends, too.
        stand = (record.next_seq,) if kind in _OF_RUNNING else (record.ended, record.sessions)
        key = (sweep.folder.path, record.identity, kind, index, *chosen, *stand)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        figure = KINDS[kind](record, spec, index, chosen)
        drawn = {
            "kind": kind,
            "title": figure.title,
            "data": drawing.json_safe(list(figure.data)),
            "layout": drawing.json_safe(dict(figure.layout)),
            "reason": figure.reason,
            "note": figure.note,
            "height": figure.height,
            "is_wide": figure.is_wide,
        }
        with self._lock:
            self._kept[key] = drawn
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return drawn


def _index_of(metric: str | None, spec: SweepSpec) -> int:
    names = [one.name for one in spec.metrics]
    if metric is None:
        return 0
    if metric not in names:
        raise NotFound(f"the sweep has no metric {metric!r:.200}; it has {', '.join(names)}")
    return names.index(metric)


def _chosen(kind: str, x: str | None, y: str | None, spec: SweepSpec) -> tuple[str, ...]:
    if x is None and y is None:
        return ()
    if kind != "contour":
        raise InvalidValue(f"x and y choose the parameters of a contour; the figure {kind} takes none")
    if x is None or y is None or x == y:
        raise InvalidValue("a contour takes two parameters: x and y")
    names = [parameter.name for parameter in spec.space.searched]
    for name in (x, y):
        if name not in names:
            raise NotFound(f"the sweep searches no parameter {name!r:.200}; it searches {', '.join(names)}")
    return x, y


def _order(record: SweepRecord, spec: SweepSpec, index: int) -> list[str]:
    """Return the parameters, the most important first."""
    from runstone_sweeps.study import find_importances  # imports Optuna

    searched = [parameter.name for parameter in spec.space.searched]
    ranked = list(find_importances(spec, record, method="ped_anova", metric=index))
    return [*(name for name in ranked if name in searched), *(name for name in searched if name not in ranked)]


def _importance(record: SweepRecord, spec: SweepSpec, index: int, _chosen: tuple[str, ...]) -> drawing.Figure:
    from runstone_sweeps.study import find_importances  # as above

    complete = sum(trial.values is not None for trial in record.trials.values())
    found: dict[str, Mapping[str, float]] = {
        "PED-ANOVA": find_importances(spec, record, method="ped_anova", metric=index),
        "fANOVA": {},
    }
    if complete <= _MOST_FOR_FANOVA:
        found["fANOVA"] = find_importances(spec, record, method="fanova", metric=index)
    return parameters.draw_importance(spec, index, found)


def _contour(record: SweepRecord, spec: SweepSpec, index: int, chosen: tuple[str, ...]) -> drawing.Figure:
    return parameters.draw_contours(record, spec, index, chosen or _order(record, spec, index))


def _pareto(record: SweepRecord, spec: SweepSpec, _index: int, _chosen: tuple[str, ...]) -> drawing.Figure:
    if len(spec.metrics) < 2:
        return drawing.Figure("Pareto front", reason="This takes at least two metrics.")
    return fronts.draw_front(record, spec)


def _hypervolume(record: SweepRecord, spec: SweepSpec, _index: int, _chosen: tuple[str, ...]) -> drawing.Figure:
    if len(spec.metrics) < 2:
        return drawing.Figure("Hypervolume", reason="This takes at least two metrics.")
    return fronts.draw_hypervolume(record, spec)


def _history(record: SweepRecord, spec: SweepSpec, index: int, _chosen: tuple[str, ...]) -> drawing.Figure:
    return history.draw_history(record, spec, index)


def _parallel(record: SweepRecord, spec: SweepSpec, index: int, _chosen: tuple[str, ...]) -> drawing.Figure:
    return parameters.draw_parallel(record, spec, index, _order(record, spec, index))


def _slice(record: SweepRecord, spec: SweepSpec, index: int, _chosen: tuple[str, ...]) -> drawing.Figure:
    return parameters.draw_slices(record, spec, index, _order(record, spec, index))


def _edf(record: SweepRecord, spec: SweepSpec, index: int, _chosen: tuple[str, ...]) -> drawing.Figure:
    return parameters.draw_edf(record, spec, index)


def _timeline(record: SweepRecord, _spec: SweepSpec, _index: int, _chosen: tuple[str, ...]) -> drawing.Figure:
    return history.draw_timeline(record)


def _intermediate(record: SweepRecord, spec: SweepSpec, _index: int, _chosen: tuple[str, ...]) -> drawing.Figure:
    return history.draw_curves(record, spec)


def _spending(record: SweepRecord, spec: SweepSpec, _index: int, _chosen: tuple[str, ...]) -> drawing.Figure:
    return history.draw_spending(record, spec)


KINDS: Mapping[str, Callable[[SweepRecord, SweepSpec, int, tuple[str, ...]], drawing.Figure]] = {
    "history": _history,
    "importance": _importance,
    "parallel": _parallel,
    "slice": _slice,
    "contour": _contour,
    "timeline": _timeline,
    "edf": _edf,
    "pareto": _pareto,
    "hypervolume": _hypervolume,
    "intermediate": _intermediate,
    "spending": _spending,
}
_OF_RUNNING = frozenset({"timeline", "intermediate"})
