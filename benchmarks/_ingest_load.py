"""Sends points of many living runs, as their machines would: raw connections and bodies that cost next to nothing.

A process of its own, so that the server is what is measured: `python -m benchmarks._ingest_load JSON`. Its figures come
as JSON: seconds of opening, of the points and of the end; CPU seconds that it took itself; the answer times.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from runstone.runlog import format as fmt
from runstone.runlog.portions import SLOT
from runstone.sync.wire import MOST_PARCELS, Parcel, Piece, WriterReport, pack_batch

_SALT = 0x51A7
_HELLOS = 256


@dataclass
class Host:
    """One connection that is kept, for some runs."""

    port: int
    headers: str
    runs: list[str]
    seconds: list[float] = field(default_factory=list)
    put_off: int = 0
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: bytes, kind: str = "application/octet-stream") -> Any:
        """Send a request and return the JSON of its answer."""
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.streams
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{self.headers}Content-Type: {kind}\r\n"
        while True:
            began = time.perf_counter()
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
            writer.write(body)
            await writer.drain()
            answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            data = await reader.readexactly(int(answer.partition("content-length:")[2].partition("\r\n")[0]))
            self.seconds.append(time.perf_counter() - began)
            status = answer.split()[1]
            if status == "200":
                return json.loads(data)
            if status not in ("429", "503"):
                raise RuntimeError(f"{path}: {status} {data[:300]!r}")
            self.put_off += 1  # the server is busy, and says so: as the sender does
            await asyncio.sleep(random.uniform(0.5, 1.5))


def slots(points: int, first: int) -> bytes:
    """Return points of one metric as they stand in a log."""
    made = np.zeros(points, SLOT)
    made["step"] = np.arange(first, first + points)
    made["wall"] = 1.7e9 + made["step"]
    made["value"] = (1 / (1.0 + made["step"])).view("<i8")
    made["key"], made["commit"] = 1, _SALT
    return made.tobytes()


def beginning(run: str) -> Parcel:
    """Return the first parcel of a run: who writes, what it is, the name of its metric, an empty log."""
    writer = {"event": "writer", "format": 1, "writer": run, "role": "main", "attempt": 1, "rank": 0, "pid": 1}
    created = {"event": "created", "run_id": run, "project": "ingest", "name": run}
    journal = b"".join(fmt.encode_event({"at": time.time(), **event}) for event in (writer, created))
    header = fmt.SegmentHeader(fmt.MOST_SLOTS, _SALT, bytes.fromhex(run), 0, 1, time.time(), 1.0)
    pieces = [
        Piece(f"journal.{run}.jsonl", 0, journal),
        Piece(f"{run}.keys", 0, fmt.pack_key(1, fmt.TYPE_FLOAT, "loss")),
        Piece(f"{run}-00000000.wal", 0, fmt.pack_header(header).ljust(fmt.HEADER_BYTES, b"\0")),
    ]
    return Parcel(pieces, [WriterReport(run, is_alive=True)])


async def send(host: Host, parcels: list[tuple[str, Parcel]]) -> None:
    """Send parcels, and check that each was taken."""
    answer = await host.post("/api/sync/parcels", pack_batch(parcels))
    for run, one in answer["runs"].items():
        if "error" in one:
            raise RuntimeError(f"{run}: {one}")


async def ours(hosts: Sequence[Host], ticks: int, points: int) -> dict[str, float]:
    """Send to Runstone's server; all runs live at once, and each tick all of them have new points."""

    async def begin(host: Host) -> None:
        for start in range(0, len(host.runs), _HELLOS):
            some = [{"run_id": run, "project": "ingest"} for run in host.runs[start : start + _HELLOS]]
            await host.post("/api/sync/runs", json.dumps({"runs": some}).encode(), "application/json")
        for start in range(0, len(host.runs), MOST_PARCELS):
            await send(host, [(run, beginning(run)) for run in host.runs[start : start + MOST_PARCELS]])

    data = [slots(points, tick * points) for tick in range(ticks)]
    most = max(1, (4 << 20) // len(data[0]))

    async def log(host: Host) -> None:
        for tick in range(ticks):
            offset = fmt.HEADER_BYTES + tick * points * fmt.SLOT_BYTES
            for start in range(0, len(host.runs), most):
                some = host.runs[start : start + most]
                await send(host, [(run, Parcel([Piece(f"{run}-00000000.wal", offset, data[tick])])) for run in some])

    async def end(host: Host) -> None:
        ended = [(run, Parcel([], [WriterReport(run, is_alive=False, word="finished")])) for run in host.runs]
        await send(host, ended)
        for start in range(0, len(host.runs), _HELLOS):
            ids = {"run_ids": host.runs[start : start + _HELLOS]}
            await host.post("/api/sync/finish", json.dumps(ids).encode(), "application/json")

    return await timed(hosts, begin, log, end)


async def theirs(hosts: Sequence[Host], ticks: int, points: int) -> dict[str, float]:
    """Send to MLflow's server, as its client does: batches of 1,000 points at most."""
    named: dict[str, str] = {}

    async def begin(host: Host) -> None:
        for run in host.runs:
            body = json.dumps({"experiment_id": "0", "run_name": run, "start_time": 1}).encode()
            answer = await host.post("/api/2.0/mlflow/runs/create", body, "application/json")
            named[run] = answer["run"]["info"]["run_id"]

    def batch(first: int, count: int) -> bytes:
        metrics = [
            {"key": "loss", "value": 1 / (1.0 + step), "timestamp": 1_700_000_000_000 + step, "step": step}
            for step in range(first, first + count)
        ]
        return json.dumps(metrics).encode()

    steps = range(0, ticks * points, min(points, 1_000))
    data = {first: batch(first, min(points, 1_000)) for first in steps}

    async def log(host: Host) -> None:
        for first in steps:
            for run in host.runs:
                body = b'{"run_id":"' + named[run].encode() + b'","metrics":' + data[first] + b"}"
                await host.post("/api/2.0/mlflow/runs/log-batch", body, "application/json")

    async def end(host: Host) -> None:
        for run in host.runs:
            body = json.dumps({"run_id": named[run], "status": "FINISHED", "end_time": 2}).encode()
            await host.post("/api/2.0/mlflow/runs/update", body, "application/json")

    return await timed(hosts, begin, log, end)


async def timed(hosts: Sequence[Host], *phases: Callable[[Host], Any]) -> dict[str, float]:
    """Run phases one after the other, each on all hosts at once."""
    found: dict[str, float] = {}
    for name, phase in zip(("open", "log", "end"), phases, strict=True):
        print(json.dumps({"phase": name}), flush=True)
        for host in hosts:
            host.seconds.clear()
            host.put_off = 0
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(phase(host) for host in hosts))
        found |= {f"{name}_s": time.perf_counter() - began, f"{name}_cpu_s": time.process_time() - cpu}
        if name == "log":
            waits = sorted(second for host in hosts for second in host.seconds)
            found |= {"put_off": sum(host.put_off for host in hosts), "requests": len(waits)}
            found |= {"p50_s": waits[len(waits) // 2], "p99_s": waits[len(waits) * 99 // 100]}
    return found


def main() -> None:
    """Send what the argument says."""
    told = json.loads(sys.argv[1])
    runs = [uuid.uuid4().hex for _number in range(told["runs"])]
    headers = f"Authorization: Bearer {told['token']}\r\n" if told["token"] else ""
    hosts = [Host(told["port"], headers, runs[number :: told["hosts"]]) for number in range(told["hosts"])]
    work = {"ours": ours, "theirs": theirs}[told["to"]]
    print(json.dumps(asyncio.run(work(hosts, told["ticks"], told["points"]))), flush=True)


if __name__ == "__main__":
    main()
