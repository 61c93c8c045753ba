"""The prediction log: a share of what was asked and answered, in closed parts that monitoring reads.

A part is JSON lines. While it is written its name ends in `.partial`; closed, it never changes. Requests hand their
arrays over and go on: a thread makes rows of them, and what it cannot keep up with is counted and left out.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import queue
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from runstone.monitoring.tables import labelled_folder
from runstone.serving.answers import PREDICTION, as_rows, plain
from runstone.serving.config import LogConfig
from runstone.serving.counts import Counts
from runstone.serving.labels import PARTIAL, SUFFIX
from runstone.serving.rows import ONLY, Columns

_TICK_S = 1.0


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
        for path in self._folder.glob(f"*-{self._worker}{SUFFIX}{PARTIAL}"):
            with contextlib.suppress(OSError), path.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # of a process that lives it is locked: left alone
                body = file.read()
                file.truncate(body.rfind(b"\n") + 1)
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
            for folder in (self._folder, labelled_folder(self._folder)):
                _bound(folder, self._config.most_bytes)


def _bound(folder: Path, most_bytes: int) -> None:
    """Remove the oldest parts beyond what may be kept."""
    sizes = []
    for path in sorted(folder.glob(f"*{SUFFIX}"), reverse=True):
        with contextlib.suppress(OSError):  # another process removes, too
            sizes.append((path, path.stat().st_size))
    kept = 0
    for path, size in sizes:
        kept += size
        if kept > most_bytes:
            path.unlink(missing_ok=True)


class _Part:
    """A part that is being written: locked, so that others know that somebody does."""

    def __init__(self, folder: Path, worker: int) -> None:
        name = f"{time.time_ns():020d}-{os.getpid()}-{worker}{SUFFIX}"
        self._path = folder / name
        self._writing = folder / f"{name}{PARTIAL}"
        self._file: IO[str] = self._writing.open("x", encoding="utf-8")
        fcntl.flock(self._file, fcntl.LOCK_EX)
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
