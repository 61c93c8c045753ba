"""What coordinator and worker say to each other: a kind, fields as JSON, and bytes. Checks forms, not meanings."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import Any

from runstone_sweeps.workers.link import Link, LinkBroken
from runstone_sweeps.workers.token import PROOF_BYTES, Opener, Sealer

# Of the bytes in one message: a large one holds up the small ones behind it.
DATA_BYTES = 1 << 18
# Names of many files, or a command line with a large JSON, fit into it.
_MOST_HEAD_BYTES = 1 << 22
MOST_BYTES = PROOF_BYTES + 4 + _MOST_HEAD_BYTES + DATA_BYTES
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Message:
    """One thing that is said.

    Attributes:
        kind: What it is about.
        fields: What it says.
        data: Bytes of a file.
    """

    kind: str
    fields: dict[str, Any] = field(default_factory=dict)
    data: bytes = b""

    def pack(self) -> bytes:
        """Return it as bytes."""
        head = json.dumps([self.kind, self.fields]).encode()
        return _LENGTH.pack(len(head)) + head + self.data

    @classmethod
    def unpack(cls, body: bytes) -> Message:
        """Return what bytes say.

        Raises:
            LinkBroken: they are of another form.
        """
        try:
            (length,) = _LENGTH.unpack_from(body)
            if length > min(_MOST_HEAD_BYTES, len(body) - _LENGTH.size):
                raise ValueError(length)
            kind, fields = json.loads(body[_LENGTH.size : _LENGTH.size + length])
            if not isinstance(kind, str) or not isinstance(fields, dict):
                raise TypeError(kind)
        except (struct.error, ValueError, TypeError, RecursionError):
            raise LinkBroken("a message has another form than was agreed") from None
        return cls(kind, fields, body[_LENGTH.size + length :])

    def text(self, name: str) -> str:
        """Return a field that is text; raises `LinkBroken` where it is not."""
        value = self.fields.get(name)
        if not isinstance(value, str):
            raise LinkBroken(f"the message {self.kind!r:.40} lacks {name}")
        return value

    def number(self, name: str, *, least: int = 0) -> int:
        """Return a field that is a whole number below 2**62; raises `LinkBroken` where it is not."""
        value = self.fields.get(name)
        if type(value) is not int or not least <= value < 1 << 62:
            raise LinkBroken(f"the message {self.kind!r:.40} lacks {name}")
        return value

    def figure(self, name: str) -> float:
        """Return a field that is a number of seconds or bytes, 0 where it is none."""
        value = self.fields.get(name, 0.0)
        return float(value) if type(value) in (int, float) and 0 <= value < 1e18 else 0.0

    def entry(self, name: str) -> dict[str, Any]:
        """Return a field that is an object, empty where it is none."""
        value = self.fields.get(name)
        return value if isinstance(value, dict) else {}

    def entries(self, name: str) -> list[Any]:
        """Return a field that is a list, empty where it is none."""
        value = self.fields.get(name)
        return value if isinstance(value, list) else []


class Talk:
    """A link on which both sides have proven that they have the token."""

    def __init__(self, link: Link, *, send_key: bytes, receive_key: bytes) -> None:
        self.link = link
        link.most_bytes = MOST_BYTES
        self._sealer = Sealer(send_key)
        self._opener = Opener(receive_key)

    def say(self, kind: str, data: bytes = b"", **fields: Any) -> None:
        """Send a message.

        Raises:
            LinkBroken: the connection is over.
        """
        self.link.send(self._sealer.seal(Message(kind, fields, data).pack()))

    def hear(self) -> list[Message]:
        """Return the messages that have come.

        Raises:
            LinkBroken: the connection is over, or one is not what the other side sent.
        """
        return [Message.unpack(self._opener.open(frame)) for frame in self.link.receive()]
