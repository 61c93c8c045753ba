"""Damages one kind of file of a run, many times, and reads the run each time. Prints one JSON object.

Each round flips up to four bits, zeroes a sector of 512 bytes or a page of 4096. Whatever is hit: the readers come back
in time with points or with `FormatError`, damage costs no more than what was hit, and what is sealed is never read as
other points than were logged.

A round depends on `--seed` and its number alone: `--first N --rounds 1` does one of them again.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import runstone
from runstone.runlog import format as fmt
from runstone.runlog import zoom as zooming
from runstone.runlog.seal import seal
from runstone.runlog.series import MetricLog
from runstone.runlog.tail import MetricTail

LIMIT_S = 5.0
STEPS = 250
SECTOR, PAGE = 512, 4096
KINDS = ("wal", "keys", "blob", "jsonl", "status", "control", "environment", "sealed", "levels", "index")
Points = dict[str, list[tuple[int, str]]]


def record(home: Path, *, is_sealed: bool) -> Path:
    """Record a run of two attempts, several segments, and every kind of point."""
    with mock.patch.object(fmt, "FIRST_SLOTS", 256), mock.patch.object(zooming, "LEAST_POINTS", STEPS):
        return _record(home, is_sealed=is_sealed)


def _record(home: Path, *, is_sealed: bool) -> Path:
    for attempt in (1, 2):
        with runstone.start_run(
            workspace=home,
            run_id="one",
            project="damage",
            params={"lr": 0.1, f"attempt{attempt}": {"x": attempt}},
            tags={f"a{attempt}": "b"},
            environment=False,
            system_metrics=False,
        ) as run:
            for step in range(STEPS * (attempt - 1), STEPS * attempt):
                run.log({"x": step + 0.5, f"n{step % 5}": step, "is": step % 2 == 0}, step=step)
                run.log({f"long{attempt}": step * 0.25}, step=step)
                if step % 25 == 0:
                    run.log({"text": f"line {step}"}, step=step)
                    run.log_histogram("h", [float(step), 1.0], bins=2, step=step)
        (run.path / f"environment.{run._log.writer.hex()}.json").write_text('{"python": {"version": "3"}, "why": {}}')
    if is_sealed:
        seal(run.path)
    return run.path


def points_of(folder: Path) -> Points:
    log = MetricLog(folder)
    found: Points = {}
    for name in log.names:
        if name in log.record_names:
            rows = log.records(name, attempt="all")
            found[name] = [(step, payload) for step, _wall_s, _kind, payload in rows]
        else:
            series = log.series(name, attempt="all")
            found[name] = [(int(s), repr(v)) for s, v in zip(series.step.tolist(), series.value.tolist(), strict=True)]
    return found


def differing(found: Points, whole: Points) -> int:
    """Return how many points are missing or wrong."""
    have, had = (Counter((n, *p) for n, ps in points.items() for p in ps) for points in (found, whole))
    return max((have - had).total(), (had - have).total())


def invented(found: Points, whole: Points) -> int:
    """Return how many points were never logged."""
    have, had = (Counter((n, *p) for n, ps in points.items() for p in ps) for points in (found, whole))
    return (have - had).total()


def damage(content: bytes, rng: random.Random) -> tuple[bytes, list[tuple[int, int]]]:
    """Return damaged bytes, and the stretches that were hit."""
    data, what, hit = bytearray(content), rng.randrange(4), []
    if what == 0:
        size = rng.choice((SECTOR, PAGE))
        start = rng.randrange(len(data)) // size * size
        data[start : start + size] = bytes(len(data[start : start + size]))
        hit.append((start, min(start + size, len(data))))
    else:
        for _ in range(what if what < 3 else 4):
            place = rng.randrange(len(data))
            data[place] ^= 1 << rng.randrange(8)
            hit.append((place, place + 1))
    return bytes(data), hit


class Check:
    """What one run was before it was damaged, and what may have become of it."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder, self.kind = folder, kind
        self.info = runstone.RunInfo(folder)
        self.points = points_of(folder)
        self.zoomed = self.plot()
        self.table = self.rows()

    def files(self) -> list[Path]:
        names = {
            "sealed": "metrics.parquet",
            "levels": "levels.parquet",
            "environment": "environment.*.json",
            "control": "control",
        }
        pattern = names.get(self.kind, f"*.{self.kind}")
        return [self.folder.parents[2] / "index.sqlite"] if self.kind == "index" else sorted(self.folder.glob(pattern))

    def plot(self) -> list[tuple[int, str]]:
        series = runstone.RunInfo(self.folder).zoom("long1", buckets=3)
        return [(int(s), repr(v)) for s, v in zip(series.step.tolist(), series.value.tolist(), strict=True)]

    def rows(self) -> Any:
        return runstone.Workspace(self.folder.parents[2]).runs("metrics.x.max > 1").to_dicts()

    def look(self) -> None:
        """Use all that reads; only the errors that are promised may come."""
        readers: tuple[Callable[[], object], ...] = (
            lambda: MetricTail(self.folder).poll(),
            self.plot,
            lambda: runstone.RunInfo(self.folder).points(),
            lambda: runstone.RunInfo(self.folder).environment,
            lambda: runstone.RunInfo(self.folder).metrics,
        )
        for read in readers:
            try:
                read()
            except (runstone.FormatError, runstone.RunNotFound, runstone.MetricNotFound):
                continue

    def after(self, hit: list[tuple[int, int]], file: Path, totals: dict[str, int]) -> None:
        self.look()
        try:
            found = points_of(self.folder)
            info = runstone.RunInfo(self.folder)
        except (runstone.FormatError, runstone.RunNotFound):
            totals["refused"] += 1
            # only what is sealed is refused as a whole; and a header that says that it is of another format
            totals["refused_too_much"] += self.kind not in ("sealed", "wal", "jsonl")
            return
        missing = differing(found, self.points)
        totals["changed"] += bool(missing)
        if self.kind == "sealed":
            totals["wrong"] += bool(missing)
        elif self.kind == "wal":
            totals["cost_too_much"] += missing > self._slots_hit(hit, file)
        elif self.kind in ("keys", "blob"):
            totals["wrong"] += invented(found, self.points)
        elif self.kind == "jsonl":
            # attempts may be lost with the first line of a journal, and with them what superseded what
            totals["wrong"] += bool(missing) + (info.status not in runstone.Status)
        else:
            totals["wrong"] += bool(missing) + (info.params != self.info.params) + (info.status != self.info.status)
        if self.kind == "levels":
            try:
                plot = self.plot()
            except runstone.FormatError:
                totals["refused"] += 1
            else:  # without levels a plot has other buckets, but no other points, and the same ends
                logged = {(step, repr(float(value))) for step, value in self.points["long1"]}
                totals["wrong"] += not (
                    set(plot) <= logged and plot[0] == self.zoomed[0] and plot[-1] == self.zoomed[-1]
                )
        if self.kind == "index":
            self.rows()  # an index has no checksums: it may answer wrongly, but it answers

    @staticmethod
    def _slots_hit(hit: list[tuple[int, int]], file: Path) -> int:
        slots = set()
        for begin, end in hit:
            if begin < fmt.HEADER_BYTES:
                return (file.stat().st_size - fmt.HEADER_BYTES) // fmt.SLOT_BYTES  # the header: all of this file
            slots.update(range(begin // fmt.SLOT_BYTES, (end - 1) // fmt.SLOT_BYTES + 1))
        return len(slots)


def used(kind: str, content: bytes) -> bytes:
    """Return the part of a file that holds something: segments are reserved ahead."""
    return content.rstrip(b"\0") if kind == "wal" else content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-checksums", action="store_true", help="believe texts without them: this must be seen")
    options = parser.parse_args()
    faulthandler.enable()
    if options.no_checksums:
        leave_out_checksums()
    names = ("rounds", "refused", "changed", "wrong", "cost_too_much", "refused_too_much", "raised", "slow")
    totals = dict.fromkeys(names, 0)
    home = Path(tempfile.mkdtemp(prefix="runstone-damage-"))
    try:
        folder = record(home, is_sealed=options.kind in ("sealed", "levels"))
        check = Check(folder, options.kind)
        originals = {file: file.read_bytes() for file in check.files()}
        assert originals, options.kind
        for number in range(options.first, options.first + options.rounds):
            rng = random.Random(f"{options.seed} {number}")
            file = rng.choice(list(originals))
            head = used(options.kind, originals[file])
            broken, hit = damage(head, rng)
            begin = time.monotonic()
            before = dict(totals)
            faulthandler.dump_traceback_later(60, exit=True)
            write(file, broken + originals[file][len(head) :])
            try:
                check.after(hit, file, totals)
            except Exception:
                totals["raised"] += 1
                if totals["raised"] <= 5:
                    print(f"round {number}, {file.name}, {hit}:\n{traceback.format_exc()}", file=sys.stderr)
            bad = ("wrong", "cost_too_much", "refused_too_much")
            if any(totals[name] > before[name] for name in bad) and sum(totals[name] for name in bad) <= 10:
                print(f"round {number}, {file.name} of {len(broken)} bytes: bad at {hit}", file=sys.stderr)
            totals["slow"] += time.monotonic() - begin > LIMIT_S
            write(file, originals[file])
            totals["rounds"] += 1
        faulthandler.cancel_dump_traceback_later()
        totals["not_as_before"] = int(points_of(folder) != check.points)
        print(json.dumps(totals))
    finally:
        shutil.rmtree(home)


def write(file: Path, content: bytes) -> None:
    """Put a file in another's place: readers may still have maps of that."""
    new = file.with_name("new")
    new.write_bytes(content)
    new.replace(file)


def leave_out_checksums() -> None:
    def believe(data: bytes, offset: int) -> bytes | None:
        length = fmt.side_length(data[offset:]) if offset >= 0 else 0
        return data[offset + 8 : offset + length] if length and offset + length <= len(data) else None

    fmt.unpack_side = believe


if __name__ == "__main__":
    os.environ.pop("RUNSTONE_WORKSPACE", None)
    main()
