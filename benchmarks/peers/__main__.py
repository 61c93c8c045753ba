"""Measures Runstone beside other trackers, all in one run: `python -m benchmarks.peers [--quick] [NAME ...]`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from benchmarks.measure import machine
from benchmarks.peers import measure
from benchmarks.peers.environments import PEERS, install, python_of
from benchmarks.peers.measure import QUICK, RATES, Effort, Subject
from benchmarks.peers.table import FLOOR, OURS, render, targets
from benchmarks.peers.trackers import TRACKERS


def main() -> None:
    """Install or measure, as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(PEERS)}; all when none is named")
    parser.add_argument("--install", action="store_true", help="make the peers' environments, measure nothing")
    parser.add_argument("--venvs", type=Path, metavar="DIR", help="folder of environments, each named as its peer")
    parser.add_argument("--quick", action="store_true", help="only show that it runs; the figures mean nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args()
    unknown = set(options.names) - set(PEERS)
    if unknown:
        parser.error(f"no peer {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    names, venvs = options.names or list(PEERS), options.venvs and options.venvs.absolute()
    if options.install:
        for name in names:
            print(f"installing {', '.join(PEERS[name].packages)}", flush=True)
            install(name, venvs)
        return
    started = datetime.now(UTC)
    print(f"{machine()}; {started:%Y-%m-%d %H:%M} UTC", flush=True)
    subjects, versions = find_subjects(names, venvs)
    print(", ".join(versions), flush=True)
    measure_all(subjects, QUICK if options.quick else Effort())
    print(f"\n{render(subjects)}")
    for line in targets(subjects):
        print(line)
    if options.json is not None:
        figures = {subject.name: {"figures": subject.figures, "missing": subject.reasons} for subject in subjects}
        document = {"machine": machine(), "started_at": started.isoformat(), "versions": versions, "trackers": figures}
        options.json.write_text(json.dumps(document, indent=2) + "\n")


def find_subjects(names: list[str], venvs: Path | None) -> tuple[list[Subject], list[str]]:
    """Return the floors, Runstone and the peers that have an environment, and their versions; say who has none."""
    subjects = [Subject(name, sys.executable) for name in TRACKERS if name == OURS or name.startswith(FLOOR)]
    versions = [measure.installed_versions(subjects[-1], (OURS,))]
    for name in names:
        python = python_of(name, venvs)
        if python is None:
            print(f"{name}: skipped, it has no environment; --install makes one")
            continue
        found = [Subject(row, str(python), name) for row in PEERS[name].trackers or (name,)]
        packages = tuple(package.split("==")[0] for package in PEERS[name].packages)
        versions.append(measure.installed_versions(found[0], packages))
        subjects += found
    return subjects, versions


def measure_all(subjects: list[Subject], effort: Effort) -> None:
    """Measure everything, the subjects in turn, so that a slow moment of the machine hits all of them."""
    trackers = [subject for subject in subjects if not subject.name.startswith(FLOOR)]
    readable = [subject for subject in subjects if TRACKERS[subject.name].read is not None]
    _turns("calls and runs", subjects, effort.rounds, partial(measure.measure_prices, effort=effort))
    _turns("imports", trackers, effort.rounds, measure.measure_import)
    _turns("bytes", trackers, 1, partial(measure.measure_size, effort=effort))
    _turns("reading", trackers, 1, partial(measure.measure_reading, effort=effort))
    for rate in RATES:
        job = partial(measure.measure_kills, rate_hz=rate, effort=effort)
        _turns(f"kills at {rate} Hz", readable, effort.kills, job)


def _turns(what: str, subjects: list[Subject], rounds: int, job: Callable[[Subject], None]) -> None:
    start = time.monotonic()
    for number in range(rounds):
        for subject in subjects:
            if sys.stderr.isatty():
                print(f"\r\033[K{what}, round {number + 1} of {rounds}: {subject.name}", end="", file=sys.stderr)
            job(subject)
    if sys.stderr.isatty():
        print(f"\r\033[K{what}: {time.monotonic() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
