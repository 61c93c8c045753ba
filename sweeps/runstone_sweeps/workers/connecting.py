"""How a worker comes to its coordinator: connects, checks that both have the token, says who it is."""

from __future__ import annotations

import select
import socket
import ssl
import time
from pathlib import Path

from runstone import RunstoneError
from runstone_sweeps.workers import token as secret
from runstone_sweeps.workers.address import Address, client_tls
from runstone_sweeps.workers.link import Link, LinkBroken
from runstone_sweeps.workers.messages import Talk

CONNECT_S = 10.0
_MOST_STRANGE_BYTES = 256


class NotConnected(RunstoneError):
    """The coordinator cannot be reached now."""


class Refused(RunstoneError):
    """The coordinator is there, and one side does not trust the other."""


def connect(address: Address, token: bytes, authority: Path | None) -> Talk:
    """Return a connection on which both sides have proven that they have the token.

    Raises:
        NotConnected: nobody answers.
        Refused: the tokens differ, or the certificate is not trusted.
        InvalidConfig: the certificate of the authority cannot be read.
    """
    tls = client_tls(authority) if address.is_tls else None
    try:
        sock = socket.create_connection((address.host, address.port), timeout=CONNECT_S)
    except OSError as error:
        raise NotConnected(f"{address}: {error.strerror or error}") from None
    try:
        if tls is not None:
            sock = tls.wrap_socket(sock, server_hostname=address.host)
        link = Link(sock, most_bytes=_MOST_STRANGE_BYTES)
    except ssl.SSLCertVerificationError as error:
        sock.close()
        raise Refused(f"{address}: its certificate is not trusted: {error.verify_message}; see --ca") from None
    except (OSError, ValueError) as error:
        sock.close()
        raise NotConnected(f"{address}: {error}") from None
    try:
        return _shake_hands(link, token, time.monotonic() + CONNECT_S)
    except BaseException:
        link.close()
        raise


def _shake_hands(link: Link, token: bytes, until_s: float) -> Talk:
    nonce = secret.new_nonce()
    try:
        link.send(secret.hello(nonce))
        theirs = secret.nonce_of(_next_frame(link, until_s))
    except LinkBroken as error:
        raise NotConnected(str(error)) from None
    known = secret.Secrets(token, nonce, theirs)
    try:
        link.send(known.worker_proof)
        answer = _next_frame(link, until_s)
    except LinkBroken:
        raise Refused("the coordinator does not know this token; it lies in `workers/token` beside the sweep") from None
    if not secret.is_proof(known.coordinator_proof, answer):
        raise Refused("whoever listens there does not have the token")
    return Talk(link, send_key=known.to_coordinator, receive_key=known.to_worker)


def _next_frame(link: Link, until_s: float) -> bytes:
    while (left_s := until_s - time.monotonic()) > 0:
        writers = [link] if link.wants_write else []
        ready, writable, _ = select.select([link], writers, [], left_s)
        if writable:
            link.flush()
        if ready and (frames := link.receive()):
            if len(frames) > 1:
                raise LinkBroken("it says more than it was asked")
            return frames[0]
    raise LinkBroken("it does not answer")
