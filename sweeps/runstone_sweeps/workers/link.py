"""Frames over one connection that never blocks, with or without TLS. Knows neither tokens nor messages."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct

from runstone import RunstoneError

_LENGTH = struct.Struct("<I")
# Of one connection at a time, so that no other one has to wait for long.
_READ_BYTES = 1 << 22
_RECEIVE_BYTES = 1 << 18


class LinkBroken(RunstoneError):
    """The connection is over: closed by the other side, or what came through it is not what was agreed."""


class Link:
    """One connection that carries frames of bytes.

    Args:
        sock: Connected; a TLS socket may be before its handshake.
        most_bytes: The longest frame that is taken; `most_bytes` may be changed later.
    """

    def __init__(self, sock: socket.socket, *, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._socket = sock
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._is_shaking_hands = isinstance(sock, ssl.SSLSocket) and sock.version() is None
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self._wants_write = False
        self.has_more = False
        """Whether bytes may lie in the TLS layer, of which `select` knows nothing."""

    def fileno(self) -> int:
        """Return what `select` waits on."""
        return self._socket.fileno()

    @property
    def wants_write(self) -> bool:
        """Whether it is to be called again as soon as the connection takes bytes."""
        return bool(self._outgoing) or self._wants_write

    @property
    def waiting_bytes(self) -> int:
        """Bytes that have not left yet."""
        return len(self._outgoing)

    def send(self, frame: bytes) -> None:
        """Send a frame, now or as soon as the connection takes it."""
        self._outgoing += _LENGTH.pack(len(frame))
        self._outgoing += frame
        self.flush()

    def flush(self) -> None:
        """Send what the connection takes now.

        Raises:
            LinkBroken: it is over.
        """
        if not self._shake_hands():
            return
        self._wants_write = False
        try:
            while self._outgoing:
                sent = self._socket.send(self._outgoing[:_RECEIVE_BYTES])
                del self._outgoing[:sent]
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError, InterruptedError):
            return
        except (OSError, ValueError) as error:
            raise LinkBroken(f"the connection broke: {error}") from None

    def receive(self) -> list[bytes]:
        """Return the frames that have come.

        Raises:
            LinkBroken: it is over, or a frame is longer than agreed.
        """
        if not self._shake_hands():
            return []
        read, is_over = 0, False
        self.has_more = True
        try:
            while read < _READ_BYTES:
                data = self._socket.recv(_RECEIVE_BYTES)
                if not data:
                    is_over = True
                    break
                read += len(data)
                self._incoming += data
        except (BlockingIOError, ssl.SSLWantReadError, InterruptedError):
            self.has_more = False
        except ssl.SSLWantWriteError:
            self.has_more, self._wants_write = False, True
        except (OSError, ValueError) as error:
            raise LinkBroken(f"the connection broke: {error}") from None
        frames = self._take_frames()
        if is_over and not frames:
            raise LinkBroken("the other side closed the connection")
        return frames

    def close(self) -> None:
        """Let go of the connection."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def _take_frames(self) -> list[bytes]:
        frames = []
        start = 0
        while len(self._incoming) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._incoming, start)
            if length > self.most_bytes:  # before its bytes are waited for
                raise LinkBroken(f"a message of {length} bytes is longer than the {self.most_bytes} that are allowed")
            end = start + _LENGTH.size + length
            if len(self._incoming) < end:
                break
            frames.append(bytes(self._incoming[start + _LENGTH.size : end]))
            start = end
        del self._incoming[:start]
        return frames

    def _shake_hands(self) -> bool:
        """Go on with the handshake of TLS; return whether it is done."""
        if not self._is_shaking_hands:
            return True
        assert isinstance(self._socket, ssl.SSLSocket)  # noqa: S101  # for the type checker
        try:
            self._socket.do_handshake()
        except ssl.SSLWantReadError:
            self._wants_write = False
            return False
        except ssl.SSLWantWriteError:
            self._wants_write = True
            return False
        except (OSError, ValueError) as error:
            raise LinkBroken(f"TLS failed: {error}") from None
        self._is_shaking_hands = self._wants_write = False
        return True
