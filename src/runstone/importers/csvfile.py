"""CSV files of points: wide, with a column of steps and one for each metric; or long, one point a row."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from runstone.errors import FormatError
from runstone.importers.items import FoundMedium, FoundRun, Item, Points, Reading
from runstone.importers.places import Place
from runstone.importers.values import epoch_s, number_in
from runstone.media import long_text

_STEPS = ("step", "_step", "global_step", "iteration", "iter", "epoch", "index")
_TIMES = ("time", "timestamp", "wall_time", "_timestamp", "wall_s")
_RUNS = ("run", "run_name", "run_id")
_METRICS, _VALUES = ("metric", "name", "tag", "key"), ("value",)
_FIELD_BYTES = 1 << 24
_MOST_COLUMNS = 100_000
_WORDS = {"true": True, "false": False}


def is_store(path: Path) -> bool:
    """Return whether a path is a CSV or TSV file, or a folder that holds nothing but such files."""
    if path.is_file():
        return path.suffix.lower() in (".csv", ".tsv")
    files = [one for one in path.iterdir() if one.is_file()] if path.is_dir() else []
    return bool(files) and all(one.suffix.lower() in (".csv", ".tsv") for one in files)


def read(reading: Reading) -> Iterator[FoundRun]:
    """Yield a run for each file; of a long file, or one with a column of runs, for each run in it.

    Raises:
        FormatError: a file has no points that could be told.
        OSError: a file cannot be read.
    """
    path = reading.path
    files = [path] if path.is_file() else sorted(one for one in path.rglob("*.[ct]sv") if one.is_file())
    if not files:
        raise FormatError(f"there is no CSV file in {path}")
    place = Place(path if path.is_dir() else path.parent, *reading.also_from)
    for file in files:
        if place.trouble(file) is not None:
            reading.not_carried["link to elsewhere"] += 1
            continue
        yield from _runs_of(file, path)


@dataclass(slots=True)
class _Shape:
    """Which column is what; `metrics` are those of a wide file, by name."""

    head: list[str]
    step: int | None = None
    time: int | None = None
    run: int | None = None
    metric: int | None = None
    value: int | None = None
    metrics: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, head: list[str]) -> _Shape:
        lower = [name.strip().lower() for name in head]
        shape = cls(head, _first(lower, _STEPS), _first(lower, _TIMES), _first(lower, _RUNS))
        metric, value = _first(lower, _METRICS), _first(lower, _VALUES)
        if metric is not None and value is not None:
            shape.metric, shape.value = metric, value
            return shape
        taken = {shape.step, shape.time, shape.run}
        for number, name in enumerate(head):
            if number not in taken and name.strip():
                shape.metrics.setdefault(name.strip(), number)
        return shape


def _first(names: list[str], wanted: tuple[str, ...]) -> int | None:
    return next((names.index(one) for one in wanted if one in names), None)


def _runs_of(file: Path, root: Path) -> Iterator[FoundRun]:
    with _opened(file) as text:
        rows = _rows(text, file)
        head, first = next(rows, None), next(rows, None)
        if head is None or first is None:
            raise FormatError(f"{file} has no row of points below a row of names")
        shape = _Shape.of(head)
        if len(head) > _MOST_COLUMNS:
            raise FormatError(f"{file} has {len(head):,} columns, at most {_MOST_COLUMNS:,} are read")
        if shape.metric is None and not shape.metrics:
            raise FormatError(
                f"{file} has no column with points: a wide file has a column `step` and one for each metric, a long "
                "one `run`, `step`, `metric`, `value`"
            )
        identity = hashlib.blake2b("\0".join([file.name, *head, *first]).encode("utf-8", "backslashreplace"))
        names: dict[str, None] = {}
        if shape.run is not None:
            for row in _and(first, rows):
                names.setdefault(row[shape.run] if shape.run < len(row) else "")
    stat = file.stat()
    name = file.relative_to(root).with_suffix("").as_posix() if file != root else file.stem
    # None: the whole file is one run
    for one in names or [None]:
        found = FoundRun(
            key=f"{identity.hexdigest()}/{one or ''}",
            source=f"{file}" if one is None else f"{file}: {one}",
            name=one or name,
            items=lambda: (),
            group=name if one else None,
            ended_s=stat.st_mtime,
            started_s=_time(shape, first) or stat.st_mtime,
            marks={file.name: stat.st_size},
        )
        if shape.step is None:
            found.tags["import.step"] = "row"
        found.items = lambda one=one, found=found: _items(file, shape, one, found)  # type: ignore[misc]
        yield found


def _items(file: Path, shape: _Shape, run: str | None, found: FoundRun) -> Iterator[Item]:
    batches: dict[str, Points] = {}
    at = found.started_s or 0.0
    number = -1
    with _opened(file) as text:
        rows = _rows(text, file)
        next(rows, None)
        for row in rows:
            if run is not None and (shape.run is None or shape.run >= len(row) or row[shape.run] != run):
                continue
            number += 1
            if len(row) != len(shape.head):
                found.not_carried["row that is torn"] += 1
                continue
            step = number if shape.step is None else number_in(row[shape.step])
            if isinstance(step, float) and step.is_integer():
                step = int(step)
            if not isinstance(step, int):
                found.not_carried["row without a whole step"] += 1
                continue
            at = _time(shape, row) or at
            for name, value in _values(shape, row):
                if not value.strip():
                    continue
                told = number_in(value)
                if told is None:
                    told = _WORDS.get(value.strip().lower())
                if told is None:
                    yield FoundMedium(name, step, at, long_text(value))
                    continue
                batch = batches.setdefault(name, Points(name, [], [], []))
                batch.steps.append(step)  # type: ignore[attr-defined]  # a list, as made above
                batch.values.append(told)  # type: ignore[attr-defined]
                batch.times.append(at)  # type: ignore[attr-defined]
                if len(batch.steps) >= 10_000:
                    yield batches.pop(name)
    yield from batches.values()


def _values(shape: _Shape, row: list[str]) -> Iterator[tuple[str, str]]:
    if shape.metric is not None and shape.value is not None:
        yield row[shape.metric], row[shape.value]
        return
    for name, column in shape.metrics.items():
        yield name, row[column]


def _time(shape: _Shape, row: list[str]) -> float | None:
    if shape.time is None or shape.time >= len(row):
        return None
    number = number_in(row[shape.time])
    if number is None:
        return epoch_s(row[shape.time].strip())
    return epoch_s(number, 1e-3 if number > 1e11 else 1.0)


def _opened(file: Path) -> TextIO:
    return io.TextIOWrapper(file.open("rb"), encoding="utf-8-sig", errors="backslashreplace", newline="")


def _rows(text: TextIO, file: Path) -> Iterator[list[str]]:
    before = csv.field_size_limit(_FIELD_BYTES)
    try:
        sample = text.readline(1 << 20)
        text.seek(0)
        yield from csv.reader((line.replace("\0", "") for line in text), delimiter=_delimiter(file, sample))
    except csv.Error as error:
        raise FormatError(f"{file} is no CSV file: {error}") from None
    finally:
        csv.field_size_limit(before)


def _delimiter(file: Path, sample: str) -> str:
    if file.suffix.lower() == ".tsv":
        return "\t"
    return max(",;\t", key=sample.count)


def _and(first: list[str], rows: Iterator[list[str]]) -> Iterator[list[str]]:
    yield first
    yield from rows
