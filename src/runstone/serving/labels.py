"""Labels that come after the prediction: joined to the kept rows by the request's id, one by one or from a table.

A closed part of the log never changes, so a row whose label has come is written once more, with it, into the folder
`<log>.labelled` beside the log, which has the same form.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runstone.errors import InvalidValue, NotFound
from runstone.monitoring.tables import labelled_folder, leniencies, rows_of

PARTIAL = ".partial"
SUFFIX = ".jsonl"
_REQUEST = re.compile(r"[0-9a-f]{32}")
# Between the time in a request's id and its row lie the model's time and the queue.
_LATE_NS = 120 * 10**9
_MOST_LABELS = 5_000_000


@dataclass(frozen=True, slots=True)
class Joined:
    """What became of a table of labels.

    Attributes:
        joined: Rows that got their label now.
        known: Rows that had one before; the first one stands.
        unknown: Labels of requests that the log does not have: not sampled, or gone.
    """

    joined: int
    known: int
    unknown: int


def join_labels(folder: Path, data: Any, *, label: str = "label") -> Joined:
    """Join a table of labels to the predictions that were kept, by the id of the request.

    Args:
        folder: Of the log.
        data: As for `monitoring.check`: a table with the columns `request`, `label`, and `row` where a request has
            several rows (counted from 0).
        label: Name of the column with the labels.

    Raises:
        NotFound: there is no log.
        InvalidValue: the table lacks a column, names one row twice with two labels, or is too long.
    """
    if not folder.is_dir():
        raise NotFound(f"there is no prediction log {folder}")
    wanted = _labels_of(data, label)
    target = labelled_folder(folder)
    known = 0
    for part in sorted(target.glob(f"*{SUFFIX}")):
        for key, _row in keyed(part):
            known += wanted.pop(key, None) is not None
    joined = 0
    with _part(target, "table") as write:
        for part in [*sorted(folder.glob(f"*{SUFFIX}")), *sorted(folder.glob(f"*{SUFFIX}{PARTIAL}"))]:
            for key, row in keyed(part):
                found = wanted.pop(key, None)
                if found is not None:
                    write({**row, "label": found})
                    joined += 1
    return Joined(joined, known, len(wanted))


def _labels_of(data: Any, label: str) -> dict[tuple[str, int], Any]:
    rows = rows_of(data)
    found: dict[tuple[str, int], Any] = {}
    for batch in rows.batches(leniencies()[0]):
        names = batch.schema.names
        if missing := [name for name in ("request", label) if name not in names]:
            there = ", ".join(names[:20])
            raise InvalidValue(f"{rows.name} has no column {missing[0]!r:.80}; it has {there:.500}")
        places = batch.column("row").to_pylist() if "row" in names else [0] * batch.num_rows
        for request, place, value in zip(
            batch.column("request").to_pylist(), places, batch.column(label).to_pylist(), strict=True
        ):
            if value is None or request is None or (isinstance(value, float) and value - value != 0):
                continue
            if not isinstance(value, bool | int | float | str):
                raise InvalidValue(f"a label must be a number, text or true or false, not {value!r:.80}")
            key = (str(request), int(place or 0))
            if found.setdefault(key, value) != value:
                raise InvalidValue(f"{rows.name} has two labels for row {key[1]} of request {key[0]:.80}")
            if len(found) > _MOST_LABELS:
                raise InvalidValue(f"{rows.name} has more than {_MOST_LABELS:,} labels; join it in parts")
    return found


def keyed(part: Path) -> Iterator[tuple[tuple[str, int], dict[str, Any]]]:
    """Yield the rows of a part with request and row; a line that is being written is none."""
    with contextlib.suppress(FileNotFoundError), part.open(encoding="utf-8") as lines:
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                row = json.loads(line)
                yield (row["request"], row["row"]), row


@contextlib.contextmanager
def _part(target: Path, word: str) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Write a part of rows that have their labels; without a row there is none."""
    target.mkdir(parents=True, exist_ok=True)
    name = f"{time.time_ns():020d}-{word}{SUFFIX}"
    writing = target / f"{name}{PARTIAL}"
    count = 0

    def write(row: dict[str, Any]) -> None:
        nonlocal count
        file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
        count += 1

    try:
        with writing.open("x", encoding="utf-8") as file:
            yield write
        if count:
            writing.rename(target / name)
    finally:
        writing.unlink(missing_ok=True)


def add_labels(folder: Path, request: str, labels: Mapping[int, Any]) -> int:
    """Write the rows of a request again, with their labels, into a part of its own beside the log.

    A row that has its label already is left as it is: a client that asks twice is counted once.

    Args:
        folder: Of the log.
        request: Id from the answer.
        labels: By row.

    Returns:
        How many rows got their label.

    Raises:
        NotFound: the log does not have the request, or not these rows.
    """
    found = _rows_of(folder, request) if _REQUEST.fullmatch(request) else {}
    if not found:
        raise NotFound(f"request {request!r:.80} is not in the prediction log; only a share is kept, and not for ever")
    if missing := sorted(labels.keys() - found.keys()):
        raise NotFound(f"request {request} has no row {missing[0]}; it has {len(found)} rows, counted from 0")
    target = labelled_folder(folder)
    known = {key for part in target.glob(f"*-{request[-8:]}{SUFFIX}") for key, _row in keyed(part)}
    rows = [{**found[row], "label": labels[row]} for row in sorted(labels) if (request, row) not in known]
    if rows:
        with _part(target, request[-8:]) as write:
            for row in rows:
                write(row)
    return len(rows)


def _rows_of(folder: Path, request: str) -> dict[int, dict[str, Any]]:
    asked_at = int(request[:16], 16)
    found: dict[int, dict[str, Any]] = {}
    passed: set[str] = set()
    paths = [*folder.glob(f"*{SUFFIX}"), *folder.glob(f"*{SUFFIX}{PARTIAL}")]
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
