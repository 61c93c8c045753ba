"""What is counted of requests: one row of numbers a process in a shared file, so that any process tells of all."""

from __future__ import annotations

import bisect
import time
from pathlib import Path
from typing import Any

import numpy as np

STATUSES = (200, 400, 401, 403, 404, 405, 408, 413, 415, 421, 422, 429, 500, 503)
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SUMS = (
    "seconds",
    "rows",
    "batches",
    "logged_rows",
    "log_dropped_requests",
    "log_failures",
    "labels",
    "reloads",
    "reload_failures",
)
_PLACE = {name: len(STATUSES) + len(_BUCKETS_S) + 1 + place for place, name in enumerate(_SUMS)}
_STATUS_PLACE = {status: place for place, status in enumerate(STATUSES)}
WIDTH = len(STATUSES) + len(_BUCKETS_S) + 1 + len(_SUMS)
_HELP = {
    "rows": "Rows that were predicted",
    "batches": "Calls of the model; one answers many requests",
    "logged_rows": "Rows written into the prediction log",
    "log_dropped_requests": "Requests that the prediction log could not keep up with",
    "log_failures": "Failed writes of the prediction log",
    "labels": "Labels that came by feedback and fit a kept prediction",
    "reloads": "Versions that took the place of another",
    "reload_failures": "Versions that could not be loaded",
}


class Counts:
    """Numbers of one process among those of all.

    Each slot is added to by one thread, so that nothing has to be locked; a reader sees each number whole.

    Args:
        path: File that the processes share; `None`: there is only this one.
        worker: Which of the processes this is, from 0.
        workers: How many there are.
    """

    def __init__(self, path: Path | None = None, worker: int = 0, workers: int = 1) -> None:
        shape = (workers, WIDTH)
        self._all: np.ndarray[Any, Any]
        if path is None:
            self._all = np.zeros(shape)
        else:
            self._all = np.memmap(path, np.float64, "r+", shape=shape)
        self._own = self._all[worker]
        self.started_at = time.time()

    @staticmethod
    def prepare(path: Path, workers: int) -> None:
        """Make the file."""
        path.write_bytes(bytes(8 * WIDTH * workers))

    def answered(self, status: int, seconds: float) -> None:
        """Count an answer to a prediction."""
        own = self._own
        own[_STATUS_PLACE.get(status, _STATUS_PLACE[500])] += 1
        own[len(STATUSES) + bisect.bisect_left(_BUCKETS_S, seconds)] += 1
        own[_PLACE["seconds"]] += seconds

    def add(self, name: str, amount: float = 1) -> None:
        """Add to a sum."""
        self._own[_PLACE[name]] += amount

    def total(self, name: str) -> float:
        """Return a sum over all processes."""
        return float(self._all[:, _PLACE[name]].sum())

    def text(self, model: str, version: str, manifest_hash: str, waiting: int) -> str:
        """Return everything in the text format of Prometheus."""
        found = self._all.sum(axis=0)
        lines = [
            "# HELP runstone_model_info The version that is served",
            "# TYPE runstone_model_info gauge",
            f'runstone_model_info{{model="{_label(model)}",version="{_label(version)}",hash="{manifest_hash}"}} 1',
            "# HELP runstone_predict_requests_total Answers to requests for predictions",
            "# TYPE runstone_predict_requests_total counter",
        ]
        for status, count in zip(STATUSES, found, strict=False):
            if count or status == 200:
                lines.append(f'runstone_predict_requests_total{{status="{status}"}} {count:.0f}')
        lines += [
            "# HELP runstone_predict_seconds Time from the head of a request until its answer",
            "# TYPE runstone_predict_seconds histogram",
        ]
        total = 0.0
        counts = found[len(STATUSES) : len(STATUSES) + len(_BUCKETS_S) + 1]
        for most, count in zip((*_BUCKETS_S, "+Inf"), counts, strict=True):
            total += count
            lines.append(f'runstone_predict_seconds_bucket{{le="{most}"}} {total:.0f}')
        lines.append(f"runstone_predict_seconds_sum {found[_PLACE['seconds']]:.6f}")
        lines.append(f"runstone_predict_seconds_count {total:.0f}")
        for name, words in _HELP.items():
            metric = f"runstone_predict_{name}_total"
            lines += [f"# HELP {metric} {words}", f"# TYPE {metric} counter", f"{metric} {found[_PLACE[name]]:.0f}"]
        for name, value in (("waiting_requests", waiting), ("start_time_seconds", self.started_at)):
            lines += [f"# TYPE runstone_predict_{name} gauge", f"runstone_predict_{name} {value}"]
        return "\n".join(lines) + "\n"


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
