"""The prediction log: a share of what was asked and answered, in closed parts that monitoring reads.

A part is JSON lines. While it is written its name ends in `.partial`; closed, it never changes. Requests hand their
arrays over and go on: a thread makes rows of them, and what it cannot keep up with is counted and left out.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from runstone.errors import NotFound
from runstone.serving.answers import PREDICTION, as_rows, plain
from runstone.serving.config import LogConfig
from runstone.serving.counts import Counts
from runstone.serving.rows import ONLY, Columns

PARTIAL = ".partial"
_SUFFIX = ".jsonl"
_TICK_S = 1.0
_REQUEST = re.compile(r"[0-9a-f]{32}")
# Between the time in a request's id and its row lie the model's time and the queue.
_LATE_NS = 120 * 10**9


def new_request_id() -> str:
    """Return an id that begins with its time, so that the part that holds it is found again."""
    return f"{time.time_ns():016x}{secrets.token_hex(8)}"


@dataclass(frozen=True, slots=True)
class Prediction:
    """A request that is to be kept: columns as they were checked, outputs that may be of several requests."""

    at: float
    version: str
    request: str
    columns: Columns
    rows: int
    outputs: Mapping[str, np.ndarray[Any, Any]]
    begin: int
    end: int


class PredictionLog:
    """Writes parts; owns a thread, which `close` joins.

    Args:
        config: How much.
        folder: Where.
        counts: Told of rows that were written, and of what was left out.
        worker: Which process this is; parts of several lie in one folder.
    """

    def __init__(self, config: LogConfig, folder: Path, counts: Counts, worker: int = 0) -> None:
        self._folder = folder
        self._config = config
        self._counts = counts
        self._worker = worker
        self._queue: queue.Queue[Prediction | None] = queue.Queue(config.waiting)
        self._part: _Part | None = None
        self._thread = threading.Thread(target=self._write_all, name="runstone-predictions", daemon=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._finish_left()
        self._thread.start()

    def offer(self, prediction: Prediction) -> bool:
        """Take a request, if there is room; never waits."""
        try:
            self._queue.put_nowait(prediction)
        except queue.Full:
            self._counts.add("log_dropped_requests")
            return False
        return True

    def close(self) -> None:
        """Write what waits, and close the part."""
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=5)
        self._thread.join(timeout=10)

    def _finish_left(self) -> None:
        """Close parts of this place that a process left behind when it died: all but a torn last line is good."""
        for path in self._folder.glob(f"*-{self._worker}{_SUFFIX}{PARTIAL}"):
            pid = int(path.name.split("-")[1]) if path.name.count("-") == 2 else 0
            if pid and pid != os.getpid() and Path(f"/proc/{pid}").exists():
                continue
            with contextlib.suppress(OSError):
                body = path.read_bytes()
                path.write_bytes(body[: body.rfind(b"\n") + 1])
                path.rename(path.with_name(path.name.removesuffix(PARTIAL)))

    def _write_all(self) -> None:
        while True:
            try:
                prediction = self._queue.get(timeout=_TICK_S)
            except queue.Empty:
                self._guarded(self._close_if_due)
                continue
            if prediction is None:
                self._guarded(self._close_part)
                return
            self._guarded(self._write, prediction)
            self._guarded(self._close_if_due)

    def _guarded(self, work: Any, *arguments: Any) -> None:
        """Do something; a full disk costs rows, and never an answer."""
        try:
            work(*arguments)
        except Exception:  # whatever a model gave: the thread goes on
            self._counts.add("log_failures")

    def _write(self, prediction: Prediction) -> None:
        rows = list(_rows(prediction, self._config.sample))
        if self._part is None:
            self._part = _Part(self._folder, self._worker)
        self._part.write("".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))
        self._part.rows += len(rows)
        self._counts.add("logged_rows", len(rows))

    def _close_if_due(self) -> None:
        part = self._part
        if part is not None and (part.rows >= self._config.rows or part.age_s >= self._config.part_s):
            self._close_part()

    def _close_part(self) -> None:
        part, self._part = self._part, None
        if part is not None:
            part.close()
            self._bound()

    def _bound(self) -> None:
        """Remove the oldest parts beyond what may be kept."""
        sizes = []
        for path in sorted(self._folder.glob(f"*{_SUFFIX}"), reverse=True):
            with contextlib.suppress(OSError):  # another process removes, too
                sizes.append((path, path.stat().st_size))
        kept = 0
        for path, size in sizes:
            kept += size
            if kept > self._config.most_bytes:
                path.unlink(missing_ok=True)


class _Part:
    """A part that is being written."""

    def __init__(self, folder: Path, worker: int) -> None:
        name = f"{time.time_ns():020d}-{os.getpid()}-{worker}{_SUFFIX}"
        self._path = folder / name
        self._writing = folder / f"{name}{PARTIAL}"
        self._file: IO[str] = self._writing.open("x", encoding="utf-8")
        self._begun = time.monotonic()
        self.rows = 0

    @property
    def age_s(self) -> float:
        return time.monotonic() - self._begun

    def write(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()

    def close(self) -> None:
        self._file.close()
        self._writing.rename(self._path)


def _rows(prediction: Prediction, sample: float) -> Iterator[dict[str, Any]]:
    outputs = as_rows(prediction.outputs, prediction.begin, prediction.end)
    inputs = _inputs(prediction.columns)
    for row in range(prediction.rows):
        # A model that does not answer row by row is kept as a whole with the first.
        given = outputs[row] if row < len(outputs) else {PREDICTION: None}
        yield {
            "at": prediction.at,
            "version": prediction.version,
            "request": prediction.request,
            "row": row,
            "inputs": {name: values[row] for name, values in inputs.items()},
            "outputs": given,
            "label": None,
            "sampled": sample,
        }


def _inputs(columns: Columns) -> dict[str, list[Any]]:
    """Return features by name; those of an array without names are `x0`, `x1`, …"""
    found: dict[str, list[Any]] = {}
    for name, array in columns.items():
        if name != ONLY:
            found[name] = plain(array)
            continue
        flat = array.reshape(len(array), -1)
        found |= {f"x{place}": plain(flat[:, place]) for place in range(flat.shape[1])}
    return found


# --- labels ----------------------------------------------------------------------------------------------------------


def labelled_folder(folder: Path) -> Path:
    """Return where rows go whose label came later: beside the log, since a closed part never changes."""
    return folder.with_name(f"{folder.name}.labelled")


def add_labels(folder: Path, request: str, labels: Mapping[int, Any]) -> int:
    """Write the rows of a request again, with their labels, into a part of its own beside the log.

    Args:
        folder: Of the log.
        request: Id from the answer.
        labels: By row.

    Returns:
        How many rows there were.

    Raises:
        NotFound: the log does not have the request, or not these rows.
    """
    found = _rows_of(folder, request) if _REQUEST.fullmatch(request) else {}
    if not found:
        raise NotFound(f"request {request!r:.80} is not in the prediction log; only a share is kept, and not for ever")
    if missing := sorted(labels.keys() - found.keys()):
        raise NotFound(f"request {request} has no row {missing[0]}; it has {len(found)} rows, counted from 0")
    target = labelled_folder(folder)
    target.mkdir(parents=True, exist_ok=True)
    name = f"{time.time_ns():020d}-{request[-8:]}{_SUFFIX}"
    rows = [{**found[row], "label": label} for row, label in sorted(labels.items())]
    writing = target / f"{name}{PARTIAL}"
    writing.write_text("".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows), "utf-8")
    writing.rename(target / name)
    return len(rows)


def _rows_of(folder: Path, request: str) -> dict[int, dict[str, Any]]:
    asked_at = int(request[:16], 16)
    found: dict[int, dict[str, Any]] = {}
    passed: set[str] = set()
    paths = [*folder.glob(f"*{_SUFFIX}"), *folder.glob(f"*{_SUFFIX}{PARTIAL}")]
    for path in sorted(paths, reverse=True):
        begun, _dash, rest = path.name.partition("-")
        writer = rest.partition(".")[0]
        if not begun.isdigit() or writer in passed or int(begun) > asked_at + _LATE_NS:
            continue
        if int(begun) <= asked_at:  # earlier parts of this writer were closed before
            passed.add(writer)
        try:
            lines = path.read_text("utf-8").splitlines()
        except FileNotFoundError:  # closed meanwhile, or removed
            closed = path.with_name(path.name.removesuffix(PARTIAL))
            lines = closed.read_text("utf-8").splitlines() if closed.exists() else []
        for line in lines:
            if request in line:
                with contextlib.suppress(ValueError):  # the last line of a part that is being written
                    row = json.loads(line)
                    if row["request"] == request:
                        found[row["row"]] = row
        if found:
            break
    return found
