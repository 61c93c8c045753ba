"""What it costs to compare many runs: what differs, groups and verdicts, the page with its figures."""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import runstone
from runstone.comparison import SECTIONS, compare

_PARAMS, _METRICS, _PACKAGES = 50, 50, 200


def main(*, quick: bool = False) -> None:
    """Measure and print; the floor is asking the index for the runs, which says nothing of what differs."""
    count = 30 if quick else 1_000
    with tempfile.TemporaryDirectory() as folder:
        workspace = _made(Path(folder) / ".runstone", count)
        print(f"\nComparing {count:,} runs of {_PARAMS} params, {_METRICS} metrics and an environment (best of 5)")
        table = workspace.runs()
        _best("floor: the table of the runs, from the index", workspace.runs)
        _best("params, tags and metrics side by side", lambda: _sides(table, ("params", "tags")))
        _best("… environment, code and data, too: all of it", lambda: _sides(table, SECTIONS))
        wanted: dict[str, Any] = {"by": "params.model", "metrics": ["m0.max", "m1.min"]}
        _best("groups, verdicts and front of two metrics", lambda: compare(table, **wanted))
        _best("the same by config, a hundred groups", lambda: compare(table, by="config", metrics=["m0.max"]))
        _best("one metric where another is best: reads points", lambda: compare(table, metrics=["m0"], at="m1.min"))
        _best("the page of it all", lambda: compare(table, **wanted).to_html())


def _sides(table: runstone.RunTable, sections: tuple[str, ...]) -> object:
    found = compare(table)
    return found.metrics, [found.differences(section) for section in sections]


def _made(home: Path, count: int) -> runstone.Workspace:
    chance = random.Random(0)
    packages = [{"name": f"package-{place}", "version": f"1.{place}"} for place in range(_PACKAGES)]
    for place in range(count):
        model = place % 10
        params = {"model": f"model-{model}", "seed": place // 100, "lr": 10.0 ** -(place // 10 % 10)}
        params |= {f"p{number}": number for number in range(_PARAMS - len(params))}
        with runstone.start_run(workspace=home, params=params, environment=False) as run:
            for step in range(5):
                run.log({f"m{number}": model / 100 + chance.random() for number in range(_METRICS)}, step=step)
        (journal,) = run.path.glob("journal.*.jsonl")
        writer = journal.name.split(".")[1]
        snapshot = {
            "writer": writer,
            "git": {"commit": f"{place % 5:040x}", "branch": "main", "is_dirty": False},
            "process": {"pid": place, "argv": ["train.py", f"--seed={place}"]},
            "packages": {"installed": packages},
            "memory": {"total_bytes": 2**36, "available_bytes": place},
        }
        (run.path / f"environment.{writer}.json").write_text(json.dumps(snapshot))
    return runstone.open_workspace(home)


def _best(what: str, action: Callable[[], object]) -> None:
    best, best_cpu = float("inf"), float("inf")
    for _ in range(5):
        cpu, start = time.process_time(), time.perf_counter()
        action()
        best, best_cpu = min(best, time.perf_counter() - start), min(best_cpu, time.process_time() - cpu)
    print(f"  {what:<52} {best * 1e3:10.1f} ms  {best_cpu * 1e3:10.1f} ms CPU")
