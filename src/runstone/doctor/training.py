"""Checks on the metrics that the program logged: values that are no numbers, losses that ran away."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runstone.doctor.case import SYSTEM, Case, NoData, Samples
from runstone.doctor.findings import Evidence, Finding, Severity
from runstone.values import MetricSummary, Series

_BEFORE = 5
_BLOWN_UP = 10.0
_LEAST_POINTS = 50
_DIVERGED = 3.0


@dataclass(frozen=True, slots=True)
class _Broken:
    """A metric that stopped being a number.

    Attributes:
        first: Index of its first NaN or Inf.
        bad: Which points are none.
    """

    series: Series
    value: NDArray[np.float64]
    bad: NDArray[np.bool_]
    first: int

    @property
    def name(self) -> str:
        return self.series.name

    @property
    def first_at(self) -> float:
        return float(self.series.wall_s[self.first])

    @property
    def step(self) -> int:
        return int(self.series.step[self.first])

    @property
    def word(self) -> str:
        return "NaN" if np.isnan(self.value[self.first]) else "Inf"

    @property
    def is_lasting(self) -> bool:
        return bool(self.bad[-1])


def check_numbers(case: Case) -> Iterator[Finding]:
    """The first NaN or Inf of each metric, and what came before."""
    names = [name for name in case.info.metrics if not name.startswith(SYSTEM)]
    if not names:
        raise NoData("no metric was logged")
    broken = [found for name in names if (found := _broken(case, name)) is not None]
    for one in [one for one in broken if one.bad.all()]:
        yield Finding(
            kind="never_a_number",
            severity=Severity.NOTE,
            title=f"{one.name} was never a number",
            explanation=f"All of its {len(one.bad)} points are {one.word}.",
            action="See how it is computed; an empty set or a class that never occurs often is the reason.",
            evidence=_evidence(case, [one]),
        )
    broken = [one for one in broken if not one.bad.all() and not _is_scaling(one)]
    if not broken:
        return
    broken.sort(key=lambda one: (one.first_at, not _is_loss(one.name), one.name))
    first, others = broken[0], broken[1:]
    yield _first_break(case, first, others)


def _broken(case: Case, name: str) -> _Broken | None:
    summary = case.info.metrics[name]
    if not _has_bad(summary):
        return None
    series = case.info.series(name)
    value = np.asarray(series.value, np.float64)
    bad = ~np.isfinite(value)
    return _Broken(series, value, bad, int(np.argmax(bad))) if bad.any() else None


def _has_bad(summary: MetricSummary) -> bool:
    figures = (summary.last, summary.min, summary.max)
    return bool(summary.nan_count) or any(figure is None or not np.isfinite(figure) for figure in figures)


def _is_loss(name: str) -> bool:
    return "loss" in re.split(r"[^a-z]+", name.lower())


def _is_scaling(one: _Broken) -> bool:
    """Return whether this is mixed precision at work: steps with an overflow are skipped, and the scale is lowered."""
    return "grad" in one.name.lower() and not one.is_lasting and float(np.mean(one.bad)) < 0.05


def _first_break(case: Case, first: _Broken, others: list[_Broken]) -> Finding:
    before = [float(value) for value in first.value[max(0, first.first - _BEFORE) : first.first]]
    usual = float(np.median(np.abs(first.value[: first.first]))) if before else 0.0
    is_blown_up = bool(before) and usual > 0 and abs(before[-1]) > _BLOWN_UP * usual
    told = []
    if before:
        came = "rose before" if is_blown_up else "gave no warning"
        told.append(f"It {came}: {', '.join(f'{value:.4g}' for value in before)}, then {first.word}")
    else:
        told.append(f"Its first point was {first.word} already")
    told += _gradients(case, first)
    told += _rate(case, first)
    if others:
        shown = ", ".join(f"{one.name} at step {one.step}" for one in others[:4])
        told.append(f"After it: {shown}" + (", …" if len(others) > 4 else ""))
    count = int(first.bad.sum())
    if first.is_lasting:
        told.append(f"{count} of {len(first.bad)} points are none, the last among them")
    else:
        told.append(f"{count} of {len(first.bad)} points are none; the last is a number again")
    return Finding(
        kind="first_nan",
        severity=Severity.CRITICAL if first.is_lasting else Severity.WARNING,
        title=f"{first.name} became {first.word} at step {first.step}",
        explanation=". ".join(told) + ".",
        action=_advice(case, is_blown_up=is_blown_up, has_history=bool(before)),
        evidence=_evidence(case, [first, *others]),
    )


def _gradients(case: Case, first: _Broken) -> Iterator[str]:
    """Say whether a gradient norm had risen by then."""
    for name in case.info.metrics:
        if name != first.name and "grad" in name.lower() and "norm" in name.lower():
            norm = _until(case, name, first.first_at)
            if len(norm) > _BEFORE:
                usual, last = float(np.median(norm.value[:-1])), float(norm.value[-1])
                if usual > 0 and last > _BLOWN_UP * usual:
                    yield f"{name} had risen to {last:.4g}, from {usual:.4g} in the median"


def _rate(case: Case, first: _Broken) -> Iterator[str]:
    for name in case.info.metrics:
        words = re.split(r"[^a-z]+", name.lower())
        if not name.startswith(SYSTEM) and ("lr" in words or {"learning", "rate"} <= set(words)):
            rate = _until(case, name, first.first_at)
            if len(rate):
                yield f"The learning rate ({name}) was {rate.value[-1]:.4g}"
                return


def _until(case: Case, name: str, moment: float) -> Samples:
    samples = case.samples(name)
    return samples.chosen(samples.at_s <= moment - case.info.started_at.timestamp())


def _advice(case: Case, *, is_blown_up: bool, has_history: bool) -> str:
    precision = next((str(value) for _name, value in case.params("precision", "dtype", "amp_dtype")), "").lower()
    parts = []
    if is_blown_up:
        parts.append("Clip the gradients, lower the learning rate or warm it up longer")
    elif has_history:
        parts.append(
            "Look at the batch of this step (empty, all padding, NaN in the inputs) and for log(0), sqrt(0) and "
            "division by zero; torch.autograd.set_detect_anomaly(True) names the operation"
        )
    else:
        parts.append("Check the inputs and the initial weights: nothing had been learned yet")
    if re.search(r"(^|[^b])(float16|fp16|16-mixed|^16$|half)", precision) and "bf16" not in precision:
        parts.append(f"precision={precision} overflows beyond 65504: bf16 does not, where the GPU has it")
    parts.append("go on from a checkpoint before that step")
    return "; ".join(parts) + "."


def _evidence(case: Case, broken: list[_Broken]) -> Evidence:
    first = broken[0]
    started = case.info.started_at.timestamp()
    last = len(first.bad) - 1 - int(np.argmax(first.bad[::-1]))
    return Evidence(
        series=tuple(one.name for one in broken),
        first_step=first.step,
        last_step=int(first.series.step[last]),
        first_s=round(first.first_at - started, 3),
        last_s=round(float(first.series.wall_s[last]) - started, 3),
    )


# --- losses that ran away -------------------------------------------------------------------------------------------
def check_divergence(case: Case) -> Iterator[Finding]:
    """Losses that got worse than they began."""
    names = [name for name in case.info.metrics if _is_loss(name) and not name.startswith(SYSTEM)]
    long = [samples for name in names if len(samples := case.samples(name)) >= _LEAST_POINTS]
    if not long:
        raise NoData(f"no loss with {_LEAST_POINTS} points was logged")
    for loss in long:
        size = max(5, len(loss) // 20)
        windows = np.lib.stride_tricks.sliding_window_view(loss.value, size)
        middle = np.median(windows, axis=1)
        place = int(np.argmin(middle))
        best, began, ended = float(middle[place]), float(middle[0]), float(middle[-1])
        if not (best > 0 and ended > _DIVERGED * best and ended > began and place < 0.8 * len(middle)):
            continue
        after = loss.chosen(np.arange(len(loss)) >= place + size // 2)
        yield Finding(
            kind="diverged",
            severity=Severity.CRITICAL,
            title=f"{loss.name} ran away",
            explanation=(
                f"It began at {began:.4g}, was {best:.4g} around step {loss.step[place + size // 2]}, and ended at "
                f"{ended:.4g} (medians over {size} points)."
            ),
            action=(
                "Go on from a checkpoint near its best with a lower learning rate; clip gradients. What was saved at "
                "the end is worse than what it started from."
            ),
            evidence=after.evidence(),
        )
