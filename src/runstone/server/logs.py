"""What the server writes to its log: one JSON object a line, on standard error; counters for Prometheus."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
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
    """What the server counts of itself, by the template of the route, so that names of runs make no new series.

    Attributes:
        in_flight: Requests that are being answered.
        audit_lines_elsewhere: Lines of the audit log that went to the server's log, since their table was away.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: dict[tuple[str, str, int], int] = defaultdict(int)
        self._seconds: dict[str, list[int]] = defaultdict(lambda: [0] * (len(_BUCKETS_S) + 1))
        self._sums: dict[str, float] = defaultdict(float)
        self._bytes_in = self._bytes_out = 0
        self.in_flight = 0
        self.audit_lines_elsewhere = 0

    def note(
        self, method: str, route: str, status: int, seconds: float, *, bytes_in: int = 0, bytes_out: int = 0
    ) -> None:
        """Count an answer."""
        with self._lock:
            self._answers[method, route, status] += 1
            place = next((index for index, most in enumerate(_BUCKETS_S) if seconds <= most), len(_BUCKETS_S))
            self._seconds[route][place] += 1
            self._sums[route] += seconds
            self._bytes_in += bytes_in
            self._bytes_out += bytes_out

    def text(self, version: str, *, wrong_tokens: int = 0, **gauges: float) -> str:
        """Return everything in the text format of Prometheus.

        Args:
            version: Of the program.
            wrong_tokens: How many tokens, sessions and keys were none.
            **gauges: Further figures, by name.
        """
        with self._lock:
            lines = [*self._of_answers(), *self._of_times()]
            counted = {
                "http_received_bytes_total": self._bytes_in,
                "http_sent_bytes_total": self._bytes_out,
                "wrong_tokens_total": wrong_tokens,
                "audit_lines_elsewhere_total": self.audit_lines_elsewhere,
            }
        for name, count in counted.items():
            lines += [*_about(f"runstone_{name}", "counter"), f"runstone_{name} {count}"]
        for name, value in {"http_requests_in_flight": self.in_flight, **gauges}.items():
            lines += [*_about(f"runstone_{name}", "gauge"), f"runstone_{name} {value}"]
        lines += [*_about("runstone_build_info", "gauge"), f'runstone_build_info{{version="{_label(version)}"}} 1']
        return "\n".join([*lines, *_of_process()]) + "\n"

    def _of_answers(self) -> Iterator[str]:
        yield from _about("runstone_http_requests_total", "counter")
        for (method, route, status), count in sorted(self._answers.items()):
            labels = f'method="{_label(method)}",route="{_label(route)}",status="{status}"'
            yield f"runstone_http_requests_total{{{labels}}} {count}"

    def _of_times(self) -> Iterator[str]:
        yield from _about("runstone_http_request_seconds", "histogram")
        for route, counts in sorted(self._seconds.items()):
            total = 0
            for most, count in zip((*map(str, _BUCKETS_S), "+Inf"), counts, strict=True):
                total += count
                yield f'runstone_http_request_seconds_bucket{{route="{_label(route)}",le="{most}"}} {total}'
            yield f'runstone_http_request_seconds_sum{{route="{_label(route)}"}} {self._sums[route]:.6f}'
            yield f'runstone_http_request_seconds_count{{route="{_label(route)}"}} {total}'


_HELP = {
    "runstone_http_requests_total": "Answers by method, template of the route and status.",
    "runstone_http_request_seconds": "Time from a request to the end of its answer.",
    "runstone_http_received_bytes_total": "Bytes of bodies of requests, as their heads tell them.",
    "runstone_http_sent_bytes_total": "Bytes of bodies of answers.",
    "runstone_wrong_tokens_total": "Requests with a token, session or key that is none.",
    "runstone_audit_lines_elsewhere_total": "Lines of the audit log that went to the log of the server only.",
    "runstone_http_requests_in_flight": "Requests that are being answered.",
    "runstone_build_info": "Version of the program.",
    "runstone_runs": "Runs that are not deleted.",
    "runstone_runs_running": "Runs that go on.",
    "runstone_content_waiting_files": "Files of content that are not known to lie in the store elsewhere yet.",
    "runstone_content_waiting_bytes": "Bytes of them.",
    "runstone_content_waiting_oldest_seconds": "How long ago the one that waits longest was stored.",
    "runstone_content_store_away": "1 while the store elsewhere takes nothing, else 0.",
    "process_cpu_seconds_total": "CPU time of the process.",
    "process_resident_memory_bytes": "Memory of the process.",
    "process_open_fds": "Open files of the process.",
    "process_threads": "Threads of the process.",
    "process_start_time_seconds": "When the process started, since the epoch.",
}


def _about(name: str, kind: str) -> list[str]:
    return [f"# HELP {name} {_HELP[name]}", f"# TYPE {name} {kind}"]


def _of_process() -> Iterator[str]:
    """Yield figures of this process, under the names that Prometheus's own clients give them."""
    import psutil  # only here

    process = psutil.Process()
    with process.oneshot():
        times = process.cpu_times()
        found = {
            "process_cpu_seconds_total": times.user + times.system,
            "process_resident_memory_bytes": process.memory_info().rss,
            "process_open_fds": process.num_fds(),
            "process_threads": process.num_threads(),
            "process_start_time_seconds": process.create_time(),
        }
    for name, value in found.items():
        yield from _about(name, "counter" if name.endswith("_total") else "gauge")
        yield f"{name} {value}"


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
