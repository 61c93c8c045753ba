"""The wire between a coordinator and its workers: who gets in, what is let through, and what a message may do."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runstone import InvalidConfig
from runstone_sweeps.workers import token as secret
from runstone_sweeps.workers.address import Address, listen, parse_address, server_tls
from runstone_sweeps.workers.connecting import NotConnected, Refused, connect
from runstone_sweeps.workers.link import Link, LinkBroken
from runstone_sweeps.workers.messages import MOST_BYTES, Message, Talk
from runstone_sweeps.workers.sessions import Session, Sessions
from runstone_sweeps.workers.token import BadToken, Opener, Sealer, check_token, ensure_token, read_token

TOKEN = b"t" * 64
LIMIT_S = 120.0


class Coordinator:
    """The coordinator's end, in a thread of its own."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        listener = listen(Address("127.0.0.1", 0))
        self.address = Address("127.0.0.1", listener.getsockname()[1], tls is not None)
        self.heard: list[Message] = []
        self.closed: list[str] = []
        self.sessions = Sessions(listener, TOKEN, tls, on_message=self._hear, on_close=self._close)
        self._is_over = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._is_over:
            self.sessions.pump(0.01)
        self.sessions.close()

    def _hear(self, session: Session, message: Message) -> None:
        self.heard.append(message)
        if message.kind == "echo":
            session.say("echo", message.data, **message.fields)
        if message.kind == "break":
            raise LinkBroken("asked to")

    def _close(self, _session: Session, reason: str) -> None:
        self.closed.append(reason)

    def end(self) -> None:
        self._is_over = True
        self._thread.join()


@pytest.fixture
def coordinator() -> Iterator[Coordinator]:
    served = Coordinator()
    yield served
    served.end()


def until(is_so: Callable[[], bool]) -> None:
    limit = time.monotonic() + LIMIT_S
    while not is_so():
        assert time.monotonic() < limit
        time.sleep(0.005)


def next_message(talk: Talk) -> Message:
    limit = time.monotonic() + LIMIT_S
    while time.monotonic() < limit:
        talk.link.flush()
        if messages := talk.hear():
            return messages[0]
        time.sleep(0.002)
    raise AssertionError("nothing came")


def stranger(coordinator: Coordinator) -> socket.socket:
    found = socket.create_connection(("127.0.0.1", coordinator.address.port), timeout=LIMIT_S)
    found.settimeout(LIMIT_S)
    return found


def is_closed(sock: socket.socket) -> bool:
    """Read what the other side still sends; return whether it has closed the connection."""
    try:
        while sock.recv(4096):
            pass
    except ConnectionError:
        return True
    return True


def test_what_one_side_says_the_other_hears(coordinator: Coordinator) -> None:
    talk = connect(coordinator.address, TOKEN, None)
    data = random.Random(0).randbytes(200_000)
    talk.say("echo", data, name="ü", number=3, nothing=None)
    answer = next_message(talk)
    assert (answer.kind, answer.data) == ("echo", data)
    assert answer.fields == {"name": "ü", "number": 3, "nothing": None}
    talk.link.close()


def test_many_messages_come_whole_and_in_order(coordinator: Coordinator) -> None:
    talk = connect(coordinator.address, TOKEN, None)
    for number in range(500):
        talk.say("count", bytes(5000), number=number)
    while talk.link.wants_write:
        talk.link.flush()
    until(lambda: len(coordinator.heard) == 500)
    assert [message.fields["number"] for message in coordinator.heard] == list(range(500))
    talk.link.close()


def test_a_wrong_token_is_refused_and_nothing_that_it_says_is_heard(coordinator: Coordinator) -> None:
    with pytest.raises(Refused, match="does not know this token"):
        connect(coordinator.address, b"x" * 64, None)
    until(lambda: coordinator.closed == ["it does not have the token"])
    assert coordinator.heard == []


def test_a_coordinator_without_the_token_is_not_believed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def pretend() -> None:
            sock, _ = server.accept()
            with sock:
                hello = sock.recv(4096)
                frame = secret.hello(os.urandom(32))
                sock.sendall(struct.pack("<I", len(frame)) + frame)
                assert len(hello) == 52
                assert sock.recv(4096)
                sock.sendall(struct.pack("<I", 32) + os.urandom(32))
                sock.recv(1)

        thread = threading.Thread(target=pretend)
        thread.start()
        with pytest.raises(Refused, match="does not have the token"):
            connect(Address("127.0.0.1", server.getsockname()[1]), TOKEN, None)
        thread.join()


def test_the_token_itself_never_crosses_the_wire() -> None:
    sent = bytearray()
    coordinator = Coordinator()
    with socket.create_server(("127.0.0.1", 0)) as middle:

        def pass_on() -> None:
            worker, _ = middle.accept()
            there = stranger(coordinator)

            def copy(source: socket.socket, target: socket.socket) -> None:
                try:
                    while data := source.recv(4096):
                        sent.extend(data)
                        target.sendall(data)
                except OSError:
                    pass
                finally:
                    for sock in (source, target):
                        with contextlib.suppress(OSError):
                            sock.shutdown(socket.SHUT_RDWR)

            back = threading.Thread(target=copy, args=(there, worker))
            back.start()
            copy(worker, there)
            back.join()
            worker.close()
            there.close()

        thread = threading.Thread(target=pass_on)
        thread.start()
        talk = connect(Address("127.0.0.1", middle.getsockname()[1]), TOKEN, None)
        talk.say("echo")
        next_message(talk)
        talk.link.close()
        thread.join()
    coordinator.end()
    assert len(sent) > 200
    assert TOKEN not in sent
    assert TOKEN[:16] not in sent


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600),
        struct.pack("<I", 0xFFFFFFFF),
        struct.pack("<I", 257) + bytes(257),
        struct.pack("<I", 48) + b"runstone-sweep/2" + bytes(32),
        struct.pack("<I", 0),
        struct.pack("<I", 48) + secret.hello(bytes(32)) + struct.pack("<I", 32) + bytes(32),
        struct.pack("<I", 48) + secret.hello(bytes(32)) + struct.pack("<I", 0),
    ],
)
def test_whoever_says_something_else_is_thrown_out_and_the_others_stay(coordinator: Coordinator, sent: bytes) -> None:
    talk = connect(coordinator.address, TOKEN, None)
    with stranger(coordinator) as sock:
        sock.sendall(sent)
        assert is_closed(sock)
    talk.say("echo", number=1)
    assert next_message(talk).fields == {"number": 1}
    talk.link.close()


def test_random_bytes_never_hurt_the_coordinator(coordinator: Coordinator) -> None:
    drawn = random.Random(3)
    for _ in range(60):
        with stranger(coordinator) as sock:
            head = secret.hello(drawn.randbytes(32))
            is_begun = drawn.random() < 0.5
            try:
                sock.sendall(struct.pack("<I", len(head)) + head if is_begun else b"")
                sock.sendall(drawn.randbytes(drawn.randrange(1, 500)))
            except ConnectionError:
                continue
    assert coordinator.heard == []
    talk = connect(coordinator.address, TOKEN, None)
    talk.say("echo", number=1)
    assert next_message(talk).fields == {"number": 1}
    talk.link.close()


def test_many_who_say_nothing_do_not_keep_a_worker_out(coordinator: Coordinator) -> None:
    silent = [stranger(coordinator) for _ in range(100)]
    talk = connect(coordinator.address, TOKEN, None)
    talk.say("echo", number=1)
    assert next_message(talk).fields == {"number": 1}
    talk.link.close()
    for sock in silent:
        sock.close()


def test_who_breaks_the_rules_after_the_handshake_loses_its_own_connection_only(coordinator: Coordinator) -> None:
    bad = connect(coordinator.address, TOKEN, None)
    good = connect(coordinator.address, TOKEN, None)
    bad.say("break")
    until(lambda: "asked to" in coordinator.closed)
    good.say("echo", number=2)
    assert next_message(good).fields == {"number": 2}
    bad.link.close()
    good.link.close()


def test_a_message_that_is_too_long_is_refused_before_it_is_there(coordinator: Coordinator) -> None:
    talk = connect(coordinator.address, TOKEN, None)
    talk.link._socket.setblocking(True)
    talk.link._socket.sendall(struct.pack("<I", MOST_BYTES + 1))
    until(lambda: any("longer than" in reason for reason in coordinator.closed))
    talk.link.close()


@pytest.mark.parametrize("how", ["changed", "repeated", "left out", "made up"])
def test_a_message_that_was_tampered_with_ends_the_connection(how: str) -> None:
    sealer, opener = Sealer(b"k" * 32), Opener(b"k" * 32)
    first, second = sealer.seal(b"one"), sealer.seal(b"two")
    assert opener.open(first) == b"one"
    frame = {
        "changed": second[:-1] + b"x",
        "repeated": first,
        "left out": sealer.seal(b"three"),
        "made up": Sealer(b"l" * 32).seal(b"two"),
    }[how]
    with pytest.raises(LinkBroken, match="changed, repeated, lost or made up"):
        opener.open(frame)


def test_a_message_cannot_be_sent_back_to_its_sender() -> None:
    known = secret.Secrets(TOKEN, bytes(32), bytes(31) + b"1")
    assert len({known.worker_proof, known.coordinator_proof, known.to_worker, known.to_coordinator}) == 4


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff\xff\xff\xff", struct.pack("<I", 2) + b"{}", struct.pack("<I", 9) + b'["a", []]', b"\x05\0\0\0[[[[["],
)
def test_a_message_of_another_form_is_refused(body: bytes) -> None:
    with pytest.raises(LinkBroken, match="another form"):
        Message.unpack(body)


def test_a_field_of_another_type_is_refused() -> None:
    message = Message("piece", {"offset": -1, "name": 3, "key": True, "size": 1 << 70})
    for name in ("offset", "key", "size", "missing"):
        with pytest.raises(LinkBroken, match=name):
            message.number(name)
    with pytest.raises(LinkBroken, match="lacks name"):
        message.text("name")


def test_a_coordinator_that_is_not_there_is_told(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(NotConnected, match=str(port)):
        connect(Address("127.0.0.1", port), TOKEN, None)


# --- tokens ---------------------------------------------------------------------------------------------------------


def test_a_token_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        token = ensure_token(tmp_path / "token")
    finally:
        os.umask(before)
    assert len(token) == 64
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    assert ensure_token(tmp_path / "token") == token


def test_a_token_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("a" * 64)
    path.chmod(0o640)
    with pytest.raises(BadToken, match="chmod 600"):
        read_token(path)


@pytest.mark.parametrize("text", ["", "short", "x" * 31, "ä" * 40, "a" * 40 + "\0"])
def test_a_weak_token_is_refused(text: str) -> None:
    with pytest.raises(BadToken, match="at least 32"):
        check_token(text, "here")


# --- addresses and TLS ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tcp://node1:7000", Address("node1", 7000)),
        ("tls://node1", Address("node1", 7788, is_tls=True)),
        ("10.0.0.3", Address("10.0.0.3", 7788)),
        ("[::1]:5", Address("::1", 5)),
    ],
)
def test_an_address_is_read_as_it_is_written(text: str, expected: Address) -> None:
    assert parse_address(text, what="URL") == expected


@pytest.mark.parametrize("text", ["", "http://x:1", "x:99999", "x:y", "tcp://", "a b:1:2"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidConfig, match="URL"):
        parse_address(text, what="URL")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, found = folder / "key.pem", folder / "cert.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    options = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", str(key), "-out", str(found)]
    try:
        subprocess.run(["openssl", "req", *options, *names], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no openssl to make a certificate with")
    return found, key


def test_with_tls_nothing_can_be_read_on_the_way(certificate: tuple[Path, Path]) -> None:
    coordinator = Coordinator(server_tls(*certificate))
    talk = connect(coordinator.address, TOKEN, certificate[0])
    talk.say("echo", b"a" * 300_000, word="secret word")
    assert next_message(talk).data == b"a" * 300_000
    assert isinstance(talk.link._socket, ssl.SSLSocket)
    assert talk.link._socket.version() in ("TLSv1.2", "TLSv1.3")
    talk.link.close()
    coordinator.end()


def test_a_certificate_that_nobody_vouches_for_is_refused(certificate: tuple[Path, Path]) -> None:
    coordinator = Coordinator(server_tls(*certificate))
    with pytest.raises(Refused, match="not trusted"):
        connect(coordinator.address, TOKEN, None)
    coordinator.end()


def test_a_worker_without_tls_does_not_get_into_a_coordinator_with_tls(certificate: tuple[Path, Path]) -> None:
    coordinator = Coordinator(server_tls(*certificate))
    plain = Address(coordinator.address.host, coordinator.address.port)
    with pytest.raises((NotConnected, Refused)):
        connect(plain, TOKEN, None)
    good = connect(coordinator.address, TOKEN, certificate[0])
    good.say("echo", number=1)
    assert next_message(good).fields == {"number": 1}
    good.link.close()
    coordinator.end()


def test_a_link_takes_no_longer_frame_than_agreed() -> None:
    ours, theirs = socket.socketpair()
    link = Link(ours, most_bytes=10)
    theirs.sendall(struct.pack("<I", 11))
    with pytest.raises(LinkBroken, match="11 bytes"):
        link.receive()
    link.close()
    theirs.close()
