"""The connections of a coordinator: accepts them, lets in who has the token, and hands on what they say.

Whatever comes from outside can close its own connection and no other.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

from runstone_sweeps.workers import token as secret
from runstone_sweeps.workers.link import Link, LinkBroken
from runstone_sweeps.workers.messages import Message, Talk

# A stranger may send this much, for so long, so many at a time.
_MOST_STRANGE_BYTES = 256
_HANDSHAKE_S = 10.0
_MOST_STRANGERS = 32


class Session:
    """One connection, from its first byte on.

    Attributes:
        peer: Address of the other side.
        talk: What both sides say through; `None` until the other side has proven that it has the token.
        heard_s: Monotonic time of its last sign of life.
        owner: Whoever it belongs to, once that is known.
    """

    def __init__(self, link: Link, peer: str, token: bytes) -> None:
        self.link = link
        self.peer = peer
        self.talk: Talk | None = None
        self.heard_s = self.begun_s = time.monotonic()
        self.owner: Any = None
        self.is_open = True
        self._token = token
        self._secrets: secret.Secrets | None = None

    def hear(self) -> list[Message]:
        """Return what the other side says; before it has proven who it is, nothing.

        Raises:
            LinkBroken: the connection is over.
        """
        if self.talk is not None:
            messages = self.talk.hear()
            if messages:
                self.heard_s = time.monotonic()
            return messages
        for frame in self.link.receive():
            self._shake_hands(frame)
        return []

    def say(self, kind: str, data: bytes = b"", **fields: Any) -> None:
        """Send a message.

        Raises:
            LinkBroken: the connection is over.
        """
        if self.talk is not None and self.is_open:
            self.talk.say(kind, data, **fields)

    def _shake_hands(self, frame: bytes) -> None:
        if self.talk is not None:
            raise LinkBroken("a message came before it was waited for")
        if self._secrets is None:
            nonce = secret.new_nonce()
            self._secrets = secret.Secrets(self._token, secret.nonce_of(frame), nonce)
            self.link.send(secret.hello(nonce))
            return
        if not secret.is_proof(self._secrets.worker_proof, frame):
            raise LinkBroken("it does not have the token")
        self.link.send(self._secrets.coordinator_proof)
        self.talk = Talk(self.link, send_key=self._secrets.to_worker, receive_key=self._secrets.to_coordinator)


class Sessions:
    """All connections of one coordinator.

    Args:
        listener: Listens.
        token: What whoever comes in must have.
        tls: What connections are encrypted with; `None`: they are not.
        on_message: Told what a session says.
        on_close: Told that a session is over, and why.
    """

    def __init__(
        self,
        listener: socket.socket,
        token: bytes,
        tls: ssl.SSLContext | None,
        *,
        on_message: Callable[[Session, Message], None],
        on_close: Callable[[Session, str], None],
    ) -> None:
        self._listener = listener
        self._token = token
        self._tls = tls
        self._on_message = on_message
        self._on_close = on_close
        self._sessions: list[Session] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._interest: dict[int, int] = {}

    def pump(self, timeout_s: float) -> None:
        """Take in and send what there is, after `timeout_s` at the latest."""
        for session in self._sessions:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if session.link.wants_write else 0)
            if self._interest.get(session.link.fileno()) != wanted:
                self._selector.modify(session.link, wanted, session)
                self._interest[session.link.fileno()] = wanted
            if session.link.has_more:
                timeout_s = 0.0
        with contextlib.suppress(InterruptedError):
            for key, events in self._selector.select(timeout_s):
                if key.data is None:
                    self._accept()
                else:
                    self._serve(key.data, events)
        for session in [each for each in self._sessions if each.link.has_more and each.is_open]:
            self._serve(session, selectors.EVENT_READ)
        now_s = time.monotonic()
        for session in [each for each in self._sessions if each.talk is None]:
            if now_s - session.begun_s > _HANDSHAKE_S:
                self.drop(session, "it did not say who it is")

    def attempt(self, session: Session, action: Callable[[], None]) -> None:
        """Do something with a session; where that shows that its connection is over, close it."""
        try:
            action()
        except (LinkBroken, OSError) as error:  # a disk that refuses what it sent, too: it will send it again
            self.drop(session, str(error))

    def drop(self, session: Session, reason: str) -> None:
        """Close a connection."""
        if session.is_open:
            session.is_open = False
            self._sessions.remove(session)
            self._interest.pop(session.link.fileno(), None)
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(session.link)
            session.link.close()
            self._on_close(session, reason)

    def close(self) -> None:
        """Close all connections, and listen no more."""
        for session in list(self._sessions):
            self.drop(session, "the coordinator ended")
        self._selector.close()
        self._listener.close()

    @property
    def has_unsent(self) -> bool:
        """Whether something that was said to those who are in has not left yet."""
        return any(session.link.waiting_bytes for session in self._sessions if session.talk is not None)

    def _accept(self) -> None:
        try:
            connection, peer = self._listener.accept()
        except OSError:  # it went away again, or there are too many open files: a worker comes back
            return
        strangers = [session for session in self._sessions if session.talk is None]
        if len(strangers) >= _MOST_STRANGERS:
            self.drop(strangers[0], "too many came at once")
        try:
            if self._tls is not None:
                connection.setblocking(False)
                connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            link = Link(connection, most_bytes=_MOST_STRANGE_BYTES)
        except (OSError, ValueError):
            connection.close()
            return
        session = Session(link, str(peer[0]), self._token)
        self._sessions.append(session)
        self._selector.register(link, selectors.EVENT_READ, session)
        self._interest[link.fileno()] = selectors.EVENT_READ

    def _serve(self, session: Session, events: int) -> None:
        def serve() -> None:
            if events & selectors.EVENT_WRITE:
                session.link.flush()
            for message in session.hear():
                if session.is_open:
                    self._on_message(session, message)

        if session.is_open:
            self.attempt(session, serve)
