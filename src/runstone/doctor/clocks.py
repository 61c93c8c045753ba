"""Checks on the clocks of GPUs: held back by how much, for how long, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from runstone.doctor.case import Case, Gpu, NoData, Samples, called
from runstone.doctor.findings import Finding, Severity
from runstone.doctor.words import time_text

# So many samples are needed before a share of them means anything.
_LEAST_SAMPLES = 8
_THROTTLED_SHARE, _CAPPED_SHARE = 0.05, 0.25
_LEAST_HELD_S = 10.0
_HEAT = ("thermal", "hw_thermal")
_POWER = ("power", "board_limit")
_FAULTS = {"hw_slowdown": "the hardware slowed itself down", "power_brake": "the power supply asked it to slow down"}


@dataclass(frozen=True, slots=True)
class _Held:
    """How long a GPU's clocks were held back, for one kind of reason.

    Attributes:
        reason: Of the reasons asked about, the one that held them back most.
        share: Of the time, or of the samples.
        told: The same in words.
        window: The samples in which it was so.
        free: The others.
    """

    reason: str
    share: float
    told: str
    window: Samples
    free: Samples


def check_throttling(case: Case) -> Iterator[Finding]:
    """Clocks that were held back, and why."""
    case.need_gpus()
    reasons = (*_HEAT, *_POWER, *_FAULTS)
    gpus = [
        gpu
        for gpu in case.gpus
        if any(case.of_gpu(gpu, f"{kind}/{reason}") for kind in ("throttle", "throttled_ms") for reason in reasons)
    ]
    if not gpus:
        raise NoData("no throttle reasons were recorded")
    for gpu in gpus:
        heat = _held_back(case, gpu, _HEAT)
        if heat is not None and heat.share >= _THROTTLED_SHARE:
            yield _hot(case, gpu, heat)
        fault = _held_back(case, gpu, tuple(_FAULTS))
        if fault is not None and heat is None:  # hardware slows down for heat, too
            yield _slowed(case, gpu, fault)
        power = _held_back(case, gpu, _POWER)
        if power is not None and power.share >= _CAPPED_SHARE:
            yield from _capped(case, gpu, power)


def _held_back(case: Case, gpu: Gpu, reasons: tuple[str, ...]) -> _Held | None:
    """Return for how long the worst of some reasons held the clocks back; `None`: hardly, or nobody knows.

    The driver's counters of time know what happened between two samples; where it has none, the samples count.
    """
    found = []
    for reason in reasons:
        counter = case.of_gpu(gpu, f"throttled_ms/{reason}")
        is_counted = counter is not None and len(counter) >= _LEAST_SAMPLES and counter.span_s > 0
        found.append(_by_counter(counter, reason) if counter and is_counted else _by_samples(case, gpu, reason))
    return max((held for held in found if held is not None), key=lambda held: held.share, default=None)


def _by_counter(counter: Samples, reason: str) -> _Held | None:
    # A counter that falls began anew with another life of the run.
    grown_ms = np.diff(counter.value, prepend=counter.value[:1])
    grown_ms = np.where(grown_ms < 0, counter.value, grown_ms)
    held_s = float(grown_ms.sum()) / 1000
    if held_s < _LEAST_HELD_S:
        return None
    share = min(1.0, held_s / counter.span_s)
    told = f"for {time_text(held_s)}, {share:.0%} of the time"
    return _Held(reason, share, told, counter.chosen(grown_ms > 0), counter.chosen(grown_ms <= 0))


def _by_samples(case: Case, gpu: Gpu, reason: str) -> _Held | None:
    bits = case.of_gpu(gpu, f"throttle/{reason}")
    if bits is None or len(bits) < _LEAST_SAMPLES or bits.value.sum() < 3:
        return None
    share = float(np.mean(bits.value > 0))
    told = f"in {share:.0%} of {len(bits)} samples"
    return _Held(reason, share, told, bits.chosen(bits.value > 0), bits.chosen(bits.value <= 0))


def _hot(case: Case, gpu: Gpu, heat: _Held) -> Finding:
    degrees = case.of_gpu(gpu, "temperature_c")
    at = f" at {np.median(degrees.at(heat.window.at_s)):.0f} °C in the median" if degrees is not None else ""
    return Finding(
        kind="throttled_thermal",
        severity=Severity.WARNING,
        title=f"{called([gpu])} was too hot and slowed down",
        explanation=f"Heat held its clocks back {heat.told}{at}{_clocks(case, gpu, heat)}.",
        action=(
            "See to the cooling: airflow, dust, fans, neighbours in the chassis. A lower power limit "
            "(nvidia-smi -pl) often trains as fast without the throttling."
        ),
        evidence=heat.window.evidence(degrees, case.of_gpu(gpu, "sm_clock_mhz")),
    )


def _slowed(case: Case, gpu: Gpu, fault: _Held) -> Finding:
    cause = _FAULTS[fault.reason]
    return Finding(
        kind="throttled_hardware",
        severity=Severity.WARNING,
        title=f"{called([gpu])} was slowed down by its hardware",
        explanation=f"{cause[0].upper()}{cause[1:]} {fault.told}{_clocks(case, gpu, fault)}.",
        action="Have power supply, cables and cooling of this machine looked at; nvidia-smi -q -d PERFORMANCE.",
        evidence=fault.window.evidence(case.of_gpu(gpu, "sm_clock_mhz")),
    )


def _capped(case: Case, gpu: Gpu, power: _Held) -> Iterator[Finding]:
    """A GPU at its power limit is at work; that is worth a word where it costs clock, or the limit was lowered."""
    clock = case.of_gpu(gpu, "sm_clock_mhz")
    most = case.device(gpu, "max_clock_sm_mhz")
    limit, usual = case.device(gpu, "power_limit_w"), case.device(gpu, "power_limit_default_w")
    is_lowered = limit is not None and usual is not None and limit < 0.95 * usual
    lost = 1 - float(np.median(clock.at(power.window.at_s))) / most if clock is not None and most else 0.0
    if lost < 0.15 and not is_lowered:
        return
    watts = f" (limit {limit:.0f} W, by default {usual:.0f} W)" if is_lowered else f" of {limit:.0f} W" if limit else ""
    yield Finding(
        kind="throttled_power",
        severity=Severity.WARNING if is_lowered else Severity.NOTE,
        title=f"{called([gpu])} ran at its power limit",
        explanation=f"At the limit{watts} {power.told}{_clocks(case, gpu, power)}.",
        action=(
            f"Raise the limit again if the machine can take it: nvidia-smi -i {gpu.index} -pl {usual:.0f}."
            if is_lowered
            else "This is what full load looks like on this card; compare runs only at the same limit."
        ),
        evidence=power.window.evidence(clock, case.of_gpu(gpu, "power_w")),
    )


def _clocks(case: Case, gpu: Gpu, held: _Held) -> str:
    clock = case.of_gpu(gpu, "sm_clock_mhz")
    if clock is None:
        return ""
    text = f"; SM clock {np.median(clock.at(held.window.at_s)):.0f} MHz then"
    if len(held.free):
        text += f", {np.median(clock.at(held.free.at_s)):.0f} MHz otherwise"
    most = case.device(gpu, "max_clock_sm_mhz")
    return text + (f", {most:.0f} MHz at most" if most else "")
