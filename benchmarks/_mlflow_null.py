"""Answers MLflow's client with the least there is: what a call costs beside it is the client's own."""

from __future__ import annotations

import asyncio
import json
import sys

_RUN = {
    "info": {
        "run_id": "a" * 32,
        "run_uuid": "a" * 32,
        "experiment_id": "0",
        "run_name": "none",
        "status": "RUNNING",
        "start_time": 1,
        "artifact_uri": "mlflow-artifacts:/0/a/artifacts",
        "lifecycle_stage": "active",
    },
    "data": {
        "metrics": [{"key": "loss", "value": 0.5, "timestamp": 1, "step": 0}],
        "params": [{"key": "lr", "value": "3"}],
        "tags": [{"key": "mlflow.runName", "value": "none"}],
    },
}
_ANSWERS = {
    b"/runs/create": json.dumps({"run": _RUN}).encode(),
    b"/runs/search": json.dumps({"runs": [_RUN] * 100}).encode(),
    b"/experiments/get-by-name": json.dumps({"experiment": {"experiment_id": "0", "name": "searched"}}).encode(),
}


class _Answering(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._came = b""

    def data_received(self, data: bytes) -> None:
        self._came += data
        while (end := self._came.find(b"\r\n\r\n")) >= 0:
            head = self._came[:end].lower()
            lengths = [int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")]
            end += 4 + sum(lengths)
            if len(self._came) < end:
                return
            self._came = self._came[end:]
            path = head.split(b" ", 2)[1].partition(b"?")[0]
            body = next((answer for tail, answer in _ANSWERS.items() if path.endswith(tail)), b"{}")
            told = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
            self._transport.write(told + body)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Answering, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
