"""Whether the server answers at once while many look on: 50 pages poll, and somebody zooms into 10 million points.

The floor is `/healthz` with nobody else on the server. Clients and server share the machine; `pause` is by how much the
clients' own timers came late, which is part of every figure.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import numpy as np
import psutil

import runstone
from benchmarks.measure import versions

POLL_S = 1.0
HEALTH_S = 0.02


def main(*, quick: bool = False) -> None:
    """Measure and print."""
    points, clients, seconds = (100_000, 5, 1.0) if quick else (10_000_000, 50, 20.0)
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder) / ".runstone"
        run_id = _seed(workspace, points, runs=20 if quick else 1_000)
        with _served(workspace) as (process, address, token):
            asyncio.run(_measure(_Target(address, token, run_id, points), process, clients, seconds))


def _seed(workspace: Path, points: int, runs: int) -> str:
    rng = np.random.default_rng(1)
    for number in range(runs - 1):
        with runstone.start_run(workspace=workspace, name=f"r{number}", environment=False) as run:
            run.log({"loss": float(number)}, step=0)
    with runstone.start_run(workspace=workspace, name="long", environment=False) as run:
        run.log_series("loss", np.arange(points), rng.standard_normal(points).cumsum())
    return run.id


@contextlib.contextmanager
def _served(workspace: Path):  # type: ignore[no-untyped-def]
    command = [sys.executable, "-m", "runstone.cli.main", "-w", str(workspace)]
    subprocess.run([*command, "users", "add", "ann", "--role", "viewer"], check=True, capture_output=True)
    made = subprocess.run([*command, "tokens", "create", "ann"], check=True, capture_output=True, text=True)
    process = subprocess.Popen([*command, "serve"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r"http://([\d.]+):(\d+)/", process.stdout.readline())
        assert found is not None
        yield process, (found[1], int(found[2])), made.stdout.split()[0]
    finally:
        process.terminate()
        process.wait(60)


class _Target:
    """A server that is asked, and what it is asked for."""

    def __init__(self, address: tuple[str, int], token: str, run_id: str, points: int) -> None:
        self._address = address
        self._token = token
        self._run_id = run_id
        self._points = points
        self._rng = random.Random(1)

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[Callable[[str, dict[str, object] | None], Awaitable[bytes]]]:
        """Lend a connection: a function that asks and returns the body of the answer."""
        reader, writer = await asyncio.open_connection(*self._address)

        async def ask(path: str, body: dict[str, object] | None = None) -> bytes:
            data = json.dumps(body).encode() if body is not None else b""
            head = f"{'POST' if body is not None else 'GET'} {path} HTTP/1.1\r\nHost: {self._address[0]}\r\n"
            head += f"Authorization: Bearer {self._token}\r\nContent-Type: application/json\r\n"
            writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
            answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = re.search(r"content-length: (\d+)", answer)
            content = await reader.readexactly(int(length[1]) if length else 0)
            if not answer.startswith("http/1.1 200 "):
                raise RuntimeError(f"{path}: {answer[:200]} {content[:200]!r}")
            return content

        try:
            yield ask
        finally:
            writer.close()

    def zoom(self) -> dict[str, object]:
        """Return what a page asks for when somebody drags over a chart."""
        width = int(self._points * 10 ** self._rng.uniform(-4, 0))
        start = self._rng.randrange(max(1, self._points - width))
        series = {"run": self._run_id, "metric": "loss", "x": "step", "from": start, "to": start + width}
        return {"series": [series], "buckets": 700}


async def _measure(target: _Target, process: subprocess.Popen[str], clients: int, seconds: float) -> None:
    found: dict[str, list[float]] = {"healthz, alone": [], "healthz": [], "changes": [], "zoom": [], "pause": []}

    async def health(name: str, until: float) -> None:
        async with target.connected() as ask:
            await ask("/api/info", None)
            while time.perf_counter() < until or not found[name]:  # once at least, however busy the machine is
                await _timed(found[name], ask("/healthz", None))
                start = time.perf_counter()
                await asyncio.sleep(HEALTH_S)
                found["pause"].append(time.perf_counter() - start - HEALTH_S)

    async def poll(number: int, until: float) -> None:
        async with target.connected() as ask:
            cursor = json.loads(await ask("/api/changes", None))["cursor"]
            await asyncio.sleep(POLL_S * number / clients)
            while time.perf_counter() < until or not found["changes"]:
                await _timed(found["changes"], ask(f"/api/changes?cursor={cursor}", None))
                await asyncio.sleep(POLL_S)

    async def zoom(until: float) -> None:
        async with target.connected() as ask:
            while time.perf_counter() < until or not found["zoom"]:
                await _timed(found["zoom"], ask("/api/series", target.zoom()))
                await asyncio.sleep(0.05)

    async with target.connected() as ask:
        await ask("/healthz", None)  # it may still be starting
    await health("healthz, alone", time.perf_counter() + seconds / 4)
    found["pause"].clear()
    watched = psutil.Process(process.pid)
    before, start = watched.cpu_times(), time.perf_counter()
    until = start + seconds
    await asyncio.gather(health("healthz", until), zoom(until), *(poll(n, until) for n in range(clients)))
    after, spent = watched.cpu_times(), time.perf_counter() - start
    cpu = after.user + after.system - before.user - before.system
    packages = versions("fastapi", "starlette", "uvicorn", "numpy")
    print(f"\n{clients} pages that poll each {POLL_S:g} s while one zooms ({packages}; load {os.getloadavg()[0]:.1f})")
    print(f"  {'':16} {'answers':>8} {'p50':>10} {'p95':>10} {'p99':>10} {'most':>10}")
    for name, times in found.items():
        times.sort()
        shown = [times[min(len(times) - 1, int(len(times) * share))] for share in (0.5, 0.95, 0.99, 1.0)]
        floor = "  floor" if "alone" in name else ""
        print(f"  {name:16} {len(times):8} " + " ".join(f"{1e3 * one:7.1f} ms" for one in shown) + floor)
    print(f"  the server took {100 * cpu / spent:.0f} % of a core and {watched.memory_info().rss / 1e6:.0f} MB")


async def _timed(into: list[float], answer: Awaitable[bytes]) -> None:
    start = time.perf_counter()
    await answer
    into.append(time.perf_counter() - start)


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
