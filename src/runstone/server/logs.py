"""What the server writes to its log: one JSON object a line, on standard error; counters for Prometheus."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import defaultdict
from typing import Any, Protocol

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Stream(Protocol):
    """What lines are written to."""

    def write(self, text: str, /) -> object:
        """Take text."""

    def flush(self) -> object:
        """Let go of what waits."""


class Log:
    """Writes lines. What others named cannot end a line or colour a terminal: JSON in ASCII escapes it.

    Args:
        stream: Where to; default: standard error.
    """

    def __init__(self, stream: Stream | None = None) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def __call__(self, event: str, **fields: Any) -> None:
        """Write a line: what happened, and what belongs to it."""
        line = json.dumps({"at": round(time.time(), 3), "event": event, **fields}, default=str).replace(
            "\x7f", "\\u007f"
        )
        with self._lock:
            stream = self._stream if self._stream is not None else sys.stderr
            try:
                stream.write(line + "\n")
                stream.flush()
            except (OSError, ValueError):  # the terminal went away: the server goes on
                return


class Counters:
    """What the server counts of itself, by the template of the route, so that names of runs make no new series."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: dict[tuple[str, str, int], int] = defaultdict(int)
        self._seconds: dict[str, list[int]] = defaultdict(lambda: [0] * (len(_BUCKETS_S) + 1))
        self._sums: dict[str, float] = defaultdict(float)
        self.in_flight = 0
        self.started_at = time.time()

    def note(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answer."""
        with self._lock:
            self._answers[method, route, status] += 1
            place = next((index for index, most in enumerate(_BUCKETS_S) if seconds <= most), len(_BUCKETS_S))
            self._seconds[route][place] += 1
            self._sums[route] += seconds

    def text(self, **gauges: float) -> str:
        """Return everything in the text format of Prometheus.

        Args:
            **gauges: Further figures, by name.
        """
        lines = ["# TYPE runstone_http_requests_total counter"]
        with self._lock:
            for (method, route, status), count in sorted(self._answers.items()):
                labels = f'method="{_label(method)}",route="{_label(route)}",status="{status}"'
                lines.append(f"runstone_http_requests_total{{{labels}}} {count}")
            lines.append("# TYPE runstone_http_request_seconds histogram")
            for route, counts in sorted(self._seconds.items()):
                total = 0
                for most, count in zip((*map(str, _BUCKETS_S), "+Inf"), counts, strict=True):
                    total += count
                    lines.append(f'runstone_http_request_seconds_bucket{{route="{_label(route)}",le="{most}"}} {total}')
                lines.append(f'runstone_http_request_seconds_sum{{route="{_label(route)}"}} {self._sums[route]:.6f}')
                lines.append(f'runstone_http_request_seconds_count{{route="{_label(route)}"}} {total}')
        given = {"http_requests_in_flight": self.in_flight, "start_time_seconds": self.started_at, **gauges}
        for name, value in given.items():
            lines += [f"# TYPE runstone_{name} gauge", f"runstone_{name} {value}"]
        return "\n".join(lines) + "\n"


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
