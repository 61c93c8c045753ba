"""Sends one request over and over: a process of its own, with raw sockets, so that the server is what is measured."""

from __future__ import annotations

import asyncio
import json
import sys
import time


class Client(asyncio.Protocol):
    """One connection that is kept: sends the next request as soon as the answer is whole."""

    def __init__(self, request: bytes, until: float, done: asyncio.Future[None]) -> None:
        self.request = request
        self.until = until
        self.done = done
        self.seconds: list[float] = []
        self.failed = 0
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        begin = head.lower().index(b"content-length:") + 15
        length = int(head[begin:].split(b"\r\n", 1)[0])
        if len(body) < length:
            return
        self.seconds.append(time.perf_counter() - self.sent)
        self.failed += not head.startswith(b"HTTP/1.1 200")
        self.buffer = b""
        if time.perf_counter() < self.until:
            self._send()
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.failed += exc is not None
        if not self.done.done():
            self.done.set_result(None)

    def _send(self) -> None:
        self.sent = time.perf_counter()
        self.transport.write(self.request)


async def load(port: int, path: str, body: bytes, connections: int, seconds: float) -> dict[str, float]:
    """Return requests a second, latencies and failures."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    clients = []
    for _connection in range(connections):
        client = Client(request, started + seconds, loop.create_future())
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)
        clients.append(client)
    await asyncio.gather(*(client.done for client in clients))
    wall = time.perf_counter() - started
    found = sorted(second for client in clients for second in client.seconds)
    return {
        "per_s": len(found) / wall,
        "p50_ms": found[len(found) // 2] * 1e3,
        "p99_ms": found[int(len(found) * 0.99)] * 1e3,
        "failed": sum(client.failed for client in clients),
    }


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    print(json.dumps(asyncio.run(load(told["port"], told["path"], sys.stdin.buffer.read(), *told["how"]))))
