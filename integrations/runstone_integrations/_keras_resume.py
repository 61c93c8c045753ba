"""Where on its axis a run goes on that a Keras training continues."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

import runstone
from runstone_integrations._keras_model import iterations

_OTHER_AXES = ("evaluate/", "system/")


def earlier_fits(run: runstone.Run) -> list[dict[str, Any]]:
    """Return what the run says of the fits before this process."""
    if not run.is_resumed:
        return []
    described = run.read().params.get("keras")
    fits = described.get("fits") if isinstance(described, dict) else None
    return [dict(fit) for fit in fits if isinstance(fit, dict)] if isinstance(fits, list) else []


def next_step(run: runstone.Run, fits: list[dict[str, Any]], model: Any, epoch: int | None) -> int:
    """Return the step at which a continued run goes on: where the weights are, or the epoch; else after the last."""
    first = next((fit["first_iteration"] for fit in fits if fit.get("first_iteration") is not None), None)
    reached = iterations(model)
    if reached is not None and first is not None and reached > first:
        return reached - int(first)
    if epoch is None:
        return last_step(run) + 1
    with contextlib.suppress(runstone.MetricNotFound):
        epochs = run.read().series("epoch")
        (before,) = np.nonzero(epochs.value == epoch - 1)
        if len(before):
            return int(epochs.step[before[-1]]) + 1
    return 0


def last_step(run: runstone.Run) -> int:
    """Return the last step that the run trained, -1 where it did not."""
    metrics = run.read().metrics
    return max((metric.last_step for name, metric in metrics.items() if not name.startswith(_OTHER_AXES)), default=-1)
