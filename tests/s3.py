"""A private server that speaks S3 (moto's), for tests, and a proxy in front of it that does what networks do to it."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from runstone import blobs as stores

SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"
KEY = "AKIAIOSFODNN7EXAMPLE"
_DROPPED = {"connection", "keep-alive", "transfer-encoding", "content-length", "proxy-connection"}


@dataclass
class Request:
    """A request as it came to the proxy; a fault may change it before it goes on."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def is_part(self) -> bool:
        """Whether it sends a part of an upload."""
        return self.method == "PUT" and "uploadId=" in self.path

    @property
    def is_completion(self) -> bool:
        """Whether it completes an upload."""
        return self.method == "POST" and "uploadId=" in self.path

    @property
    def is_content(self) -> bool:
        """Whether it is about a content, not about who uses the store."""
        return "/workspaces/" not in self.path


@dataclass
class Answer:
    """What the server said; a fault may change it before it goes back."""

    status: int
    headers: dict[str, str]
    body: bytes


class Reset(Exception):
    """The connection breaks, behind so many bytes of the answer's body."""

    def __init__(self, answer: Answer | None = None) -> None:
        super().__init__()
        self.answer = answer


Fault = Callable[[Request, Callable[[Request], Answer]], Answer]


def refusal(status: int, code: str, message: str = "please look again later") -> Answer:
    """Return an answer of S3 that is an error."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    return Answer(status, {"Content-Type": "application/xml"}, body)


class Proxy:
    """Stands before the server; `fault` may do with each request what it likes.

    Attributes:
        fault: Takes a request, and what asks the server.
        seen: All requests, without their bodies.
    """

    def __init__(self, target: str) -> None:
        self.fault: Fault | None = None
        self.seen: list[tuple[str, str]] = []
        host, port = target.removeprefix("http://").split(":")
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_arguments: object) -> None:
                pass

            def handle_any(self) -> None:
                if self.headers.get("Expect", "").lower() == "100-continue":
                    self.send_response_only(100)
                    self.end_headers()
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                asked = Request(self.command, self.path, dict(self.headers.items()), body)
                proxy.seen.append((asked.method, asked.path))
                try:
                    fault = proxy.fault
                    answer = fault(asked, forward) if fault is not None else forward(asked)
                except Reset as reset:
                    if reset.answer is not None and reset.answer.body:
                        self.send(reset.answer, len(reset.answer.body) // 2)
                    self.break_off()
                    return
                self.send(answer, len(answer.body))

            def send(self, answer: Answer, count: int) -> None:
                self.send_response_only(answer.status)
                for name, value in answer.headers.items():
                    if name.lower() not in _DROPPED:
                        self.send_header(name, value)
                length = answer.headers.get("Content-Length") if self.command == "HEAD" else None
                self.send_header("Content-Length", length or str(len(answer.body)))
                self.end_headers()
                if self.command != "HEAD":
                    with contextlib.suppress(OSError):
                        self.wfile.write(answer.body[:count])

            def break_off(self) -> None:
                self.close_connection = True
                with contextlib.suppress(OSError):
                    self.wfile.flush()
                    # zero linger: the other side sees a reset, not an end
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    self.connection.shutdown(socket.SHUT_RDWR)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

        def forward(asked: Request) -> Answer:
            connection = http.client.HTTPConnection(host, int(port), timeout=60)
            try:
                headers = {name: value for name, value in asked.headers.items() if name.lower() not in _DROPPED}
                headers.pop("Expect", None)
                connection.request(asked.method, asked.path, asked.body, headers)
                got = connection.getresponse()
                return Answer(got.status, dict(got.getheaders()), got.read())
            finally:
                connection.close()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@dataclass
class Bucket:
    """A bucket of one test, spoken to past the proxy.

    Attributes:
        name: Of the bucket.
        url: The address of a store in it.
        proxy: In front of the server that Runstone speaks to.
        environment: What a process needs to speak to it.
    """

    name: str
    url: str
    proxy: Proxy
    environment: dict[str, str]
    files: Any

    def contents(self) -> dict[str, int]:
        """Return the contents in the store, and their sizes."""
        found = self.files.find(f"{self.name}/store", detail=True)
        return {name.rpartition("/")[2]: int(one["size"]) for name, one in found.items() if "/workspaces/" not in name}

    def data(self, content: str) -> bytes:
        """Return the bytes of a content in the store."""
        return bytes(self.files.cat_file(f"{self.name}/store/{content[:2]}/{content}"))

    def put(self, content: str, data: bytes) -> None:
        """Write bytes over a content in the store."""
        self.files.pipe_file(f"{self.name}/store/{content[:2]}/{content}", data)

    def unfinished(self) -> list[str]:
        """Return the keys of uploads that hold parts and are neither complete nor given up.

        One whose first answer was lost holds none, and nobody knows its id: collecting removes it.
        """
        found = self.files.call_s3("list_multipart_uploads", Bucket=self.name)
        return [str(one["Key"]) for one in found.get("Uploads", ()) if self._has_parts(one)]

    def _has_parts(self, upload: dict[str, Any]) -> bool:
        found = self.files.call_s3("list_parts", Bucket=self.name, Key=upload["Key"], UploadId=upload["UploadId"])
        return bool(found.get("Parts"))


@pytest.fixture(scope="session")
def s3_proxy() -> Iterator[tuple[Proxy, Any]]:
    """Start a server and its proxy for all tests of this process; return the proxy and a way past it."""
    moto = pytest.importorskip("moto.server", reason="needs moto")
    s3fs = pytest.importorskip("s3fs", reason="needs s3fs")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    proxy = Proxy(f"http://{host}:{port}")
    options = {"endpoint_url": f"http://{host}:{port}"}
    # not its instance that others find
    yield (
        proxy,
        s3fs.S3FileSystem(
            key=KEY, secret=SECRET, client_kwargs=options, use_listings_cache=False, skip_instance_cache=True
        ),
    )
    proxy.close()
    server.stop()


_numbers = iter(range(1_000_000))


@pytest.fixture
def bucket(s3_proxy: tuple[Proxy, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """Make a bucket, and let this process and those that it starts find the server by the usual variables."""
    import s3fs

    proxy, files = s3_proxy
    proxy.fault = None
    s3fs.S3FileSystem.clear_instance_cache()  # they know the proxy of the file of tests before this
    environment = {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": proxy.url,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",  # what is tried again is ours to do, and quick
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 2)  # it pauses longer each time
    name = f"bucket-{next(_numbers)}"
    files.mkdir(name)
    proxy.seen.clear()
    yield Bucket(name, f"s3://{name}/store", proxy, environment, files)
    proxy.fault = None
    stores._remote_at.cache_clear()
