"""What the page costs in Debian's Chromium: the speed criteria of the page, 1 to 9, with the figure and the target.

Needs Playwright and `/usr/bin/chromium`; started by itself: `python -m benchmarks.page [--quick] [S H L T M W live]`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import runstone
from benchmarks import _page_data as data
from benchmarks import _page_measures as measures
from benchmarks.measure import machine, versions

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--js-flags=--expose-gc"]
COLUMNS = ",".join(["params.k", *(f"params.p{p:02}" for p in range(1, 29))])
ROUNDS = 5


@contextlib.contextmanager
def serve(home: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run `runstone ui` over a workspace, and yield the address that lets in."""
    command = [sys.executable, "-m", "runstone.cli.main", "-w", str(home), "ui", "--no-open", "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert server.stdout is not None
    try:
        key = next(found.group() for line in server.stdout if (found := re.search(r"http://\S+\?key=\S+", line)))
        rest = threading.Thread(target=server.stdout.read, daemon=True)
        rest.start()
        yield key, server
    finally:
        server.terminate()
        server.wait()


def cpu_seconds(server: subprocess.Popen[str]) -> float:
    """Return the CPU seconds that a server has used, all threads together."""
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def best(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Return the best of several rounds of each figure."""
    return {name: min(one[name] for one in rounds) for name in rounds[0]}


def tell(criterion: str, what: str, value: float, unit: str, target: float) -> None:
    """Print one figure beside its target."""
    verdict = "" if value <= target else "  MISSED"
    print(f"  {criterion:>2}  {what:<66} {value:>9,.1f} {unit:<6} ≤ {target:,g}{verdict}", flush=True)


class Sight:
    """A browser before a server."""

    def __init__(self, browser: Any, key: str) -> None:
        self.address = key.partition("?")[0]
        self._context = browser.new_context(viewport={"width": 1400, "height": 900}, reduced_motion="reduce")
        self._context.new_page().goto(key)

    def page(self, height: int = 900) -> Any:
        """Return a page of the app that shows nothing yet."""
        page = self._context.new_page()
        page.set_viewport_size({"width": 1400, "height": height})
        page.goto(self.address + "?page=none")
        return page


def small(sight: Sight, home: Path, quick: bool) -> None:
    """S: 20 charts of 10 runs."""
    data.seed_small(home)
    rounds = []
    for _ in range(2 if quick else ROUNDS):
        page = sight.page(1400)
        rounds.append(measures.load(page, f"{sight.address}?project=S&view=charts&size=s", charts=20))
        page.close()
    found = best(rounds)
    tell("3", "20 charts of 10 runs of 1,000 points: load, main thread", found["task_ms"], "ms", 400)
    tell("3", "  all painted, wall", found["wall_ms"], "ms", 2000)
    tell("3", "  heap", found["heap_mb"], "MB", 30)


def hundred(sight: Sight, home: Path, _quick: bool) -> None:
    """One chart of 100 runs."""
    data.seed_hundred(home)
    page = sight.page()
    measures.load(page, f"{sight.address}?project=H&view=charts&first=100&size=l", charts=1)
    tell("3", "one chart of 100 runs: zoom, redraw, main thread", measures.zoom_redraw(page), "ms", 40)
    tell("3", "  a move of the pointer, main thread", measures.hover(page), "ms", 10)
    page.close()


def many(sight: Sight, home: Path, quick: bool) -> None:
    """L: 1,000 runs."""
    data.seed_many(home, runs=100 if quick else 1000)
    rounds, toggles = [], []
    for _ in range(2 if quick else ROUNDS):
        page = sight.page()
        rounds.append(measures.load(page, f"{sight.address}?project=L&size=s", charts=6))
        toggles.append(measures.toggle_run(page))
        page.close()
    found = best(rounds)
    tell("4", "1,000 runs: table and first 6 charts, wall", found["wall_ms"], "ms", 2000)
    tell("4", "  main thread", found["task_ms"], "ms", 600)
    tell("4", "  a run taken out of the charts, wall", best(toggles)["wall_ms"], "ms", 150)


def table(sight: Sight, home: Path, quick: bool) -> None:
    """T: 10,000 runs."""
    data.seed_table(home, runs=500 if quick else 10_000)
    page = sight.page()
    address = f"{sight.address}?project=T&view=table&columns={COLUMNS}"
    found = best([measures.first_rows(page, address) for _ in range(2 if quick else ROUNDS)])
    tell("5", "10,000 runs, 30 columns: first rows, wall", found["wall_ms"], "ms", 2000)
    found = measures.scroll(page)
    tell("5", "  400 px of scrolling, main thread", found["task_ms"], "ms", 40)
    tell("5", "  elements at any place", found["elements"], "", 6000)
    found = measures.sort_and_find(page, column="p01", expression="^run-000")
    tell("5", "  sort, wall", found["sort_ms"], "ms", 150)
    tell("5", "  regular expression over names, wall", found["find_ms"], "ms", 150)
    page.close()


def long(sight: Sight, home: Path, quick: bool) -> None:
    """M: 20 series of a million points."""
    data.seed_long(home, points=100_000 if quick else 1_000_000)
    rounds = 2 if quick else ROUNDS
    page = sight.page()
    measures.load(page, f"{sight.address}?project=M&view=charts&metrics=metric_03", charts=1)
    tell("6", "a series of 1e6: release to painted, wall", measures.release_to_painted(page, times=rounds), "ms", 100)
    page.close()
    page = sight.page(1400)
    measures.load(page, f"{sight.address}?project=M&view=charts&size=s", charts=20)
    tell("6", "  20 of them", measures.release_to_painted(page, times=rounds), "ms", 200)
    page.close()


def longest(sight: Sight, home: Path, quick: bool, server: subprocess.Popen[str]) -> None:
    """Ten million points: what the server works for a first look and zoom, and whether it answers meanwhile."""
    points = 100_000 if quick else 10_000_000
    with runstone.start_run(project="X", name="longest", workspace=home, environment=False) as run:
        run.log_series("metric", np.arange(points), np.random.default_rng(4).standard_normal(points))
    runstone.open_workspace(home).seal(run.id)
    page = sight.page()
    page.goto(f"{sight.address}?project=X&view=table")
    page.wait_for_selector(".row:not([hidden])")
    page.wait_for_timeout(2000)
    stop, waits = threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            began = time.perf_counter()
            urllib.request.urlopen(f"{sight.address}healthz", timeout=20).read()
            waits.append(time.perf_counter() - began)
            time.sleep(0.02)

    asker = threading.Thread(target=ask)
    before = cpu_seconds(server)
    asker.start()
    time.sleep(1)
    idle = cpu_seconds(server) - before
    before = cpu_seconds(server)
    began = time.perf_counter()
    measures.load(page, f"{sight.address}?project=X&view=charts", charts=1)
    measures.release_to_painted(page, times=1)
    used = cpu_seconds(server) - before - idle * (time.perf_counter() - began)
    stop.set()
    asker.join()
    tell("6", "10 million points: server, CPU of the page, first look and zoom", used * 1e3, "ms", 150)
    tell("6", "  /healthz meanwhile, 95 %", sorted(waits)[int(len(waits) * 0.95)] * 1e3, "ms", 50)
    page.close()


def wide(sight: Sight, home: Path, _quick: bool) -> None:
    """W: one run of 1,000 metrics."""
    data.seed_wide(home)
    page = sight.page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/api/series") else None)
    measures.load(page, f"{sight.address}?project=W&view=charts", charts=4)
    canvases = "() => document.querySelectorAll('canvas').length"
    tell("7", "1,000 metrics: canvases", page.evaluate(canvases), "", 30)
    tell("7", "  requests for series", len(asked), "", 30)
    most = 0
    for top in (1e7, 0):
        page.locator(".runs-charts").evaluate("(at, top) => { at.scrollTop = top; }", top)
        page.wait_for_timeout(700)
        most = max(most, page.evaluate(canvases))
    tell("7", "  canvases after the end and back", most, "", 40)
    page.close()


def alive(sight: Sight, home: Path, quick: bool) -> None:
    """S while it grows, and many ticks."""
    with contextlib.ExitStack() as stack:
        runs = [
            stack.enter_context(runstone.start_run(project="live", name=f"run-{k}", workspace=home, environment=False))
            for k in range(10)
        ]

        def log(step: int) -> None:
            for k, run in enumerate(runs):
                run.log({f"metric_{m:02}": m + k + step / 1000 for m in range(20)}, step=step)

        for step in range(data.SMALL_STEPS):
            log(step)
        page = sight.page(1400)
        measures.load(page, f"{sight.address}?project=live&view=charts&size=s", charts=20)
        found = measures.live(page, log, data.SMALL_STEPS, ticks=3 if quick else 15)
        tell("8", "10 runs of 20 metrics grow by a row a second: seen after", found["seen_ms"], "ms", 2000)
        tell("8", "  bytes a second", found["bytes_s"], "", 20_000)
        tell("8", "  main thread a tick", found["task_ms"], "ms", 100)
        tell("8", "  bytes a second while nothing changes", found["idle_bytes_s"], "", 1_000)
        found = measures.many_ticks(page, log, data.SMALL_STEPS + 100, ticks=20 if quick else 600)
        tell("9", f"heap grown over {found['ticks']:,.0f} ticks", found["grown_mb"], "MB", 5)
        page.close()


PARTS: dict[str, Callable[[Sight, Path, bool], None]] = {
    "S": small,
    "H": hundred,
    "L": many,
    "T": table,
    "M": long,
    "W": wide,
    "live": alive,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description="What the page costs.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join([*PARTS, "X"]))
    parser.add_argument("--quick", action="store_true", help="only show that it runs; the figures mean nothing")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright  # only where it is installed

    os.environ["RUNSTONE_SYSTEM_METRICS"] = "0"
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        print(f"{machine()}; {versions('runstone', 'playwright')}, Chromium {browser.version}")
        print(f"load {os.getloadavg()[0]:.1f}")
        home = Path(folder) / ".runstone"
        runstone.ensure_workspace(home)
        began = time.perf_counter()
        with serve(home) as (key, server):
            tell("1", "`runstone ui`: from start to its address, wall", (time.perf_counter() - began) * 1e3, "ms", 3000)
            tell("1", "  CPU", cpu_seconds(server) * 1e3, "ms", 3000)
            sight = Sight(browser, key)
            for name, part in PARTS.items():
                if not options.parts or name in options.parts:
                    part(sight, home, options.quick)
            if not options.parts or "X" in options.parts:
                longest(sight, home, options.quick, server)
        browser.close()
        print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
