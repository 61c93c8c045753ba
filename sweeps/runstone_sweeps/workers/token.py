"""The secret that a coordinator and its workers share: how it is made, kept and proven. It never leaves either side.

Each side draws a nonce of 32 bytes; each proves that it has the token by a keyed hash of both; the worker first, so
that whoever merely connects is told nothing to guess by. Keys of the session come from the same nonces, one for each
direction. Every message then carries its number and a keyed hash: none can be made up, changed, repeated or left out
by whoever stands between.
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
import struct
from pathlib import Path

from runstone import RunstoneError
from runstone_sweeps.workers.link import LinkBroken

TOKEN_VARIABLE = "RUNSTONE_SWEEP_TOKEN"  # noqa: S105  # the name of a variable, not a token
MAGIC = b"runstone-sweep/1"
NONCE_BYTES = PROOF_BYTES = 32
HELLO_BYTES = len(MAGIC) + NONCE_BYTES
_LEAST_CHARACTERS = 32
_MOST_BYTES = 4096
_HEAD = struct.Struct("<Q")


class BadToken(RunstoneError):
    """A token is missing, too short, or open to others."""


def check_token(text: str, source: str) -> bytes:
    """Return a token as bytes.

    Raises:
        BadToken: it is too short to be safe, or no plain text.
    """
    text = text.strip()
    if len(text) < _LEAST_CHARACTERS or not text.isascii() or not text.isprintable():
        raise BadToken(
            f"{source}: a token has at least {_LEAST_CHARACTERS} printable characters; `sweep run` makes one"
        )
    return text.encode()


def read_token(path: Path) -> bytes:
    """Return the token in a file.

    Raises:
        BadToken: it is not there, too short, or others may read it.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_MOST_BYTES).decode("ascii", "replace")
    except OSError as error:
        raise BadToken(f"the token cannot be read: {path}: {error.strerror}") from None
    if stat.S_ISREG(mode) and mode & 0o077:
        raise BadToken(f"others may read the token in {path}: chmod 600 {path}")
    return check_token(text, str(path))


def ensure_token(path: Path) -> bytes:
    """Return the token in a file that only the owner may read, made where it is not there yet."""
    try:
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return read_token(path)
    with os.fdopen(fd, "w") as file:
        file.write(secrets.token_hex(32) + "\n")
    return read_token(path)


def keep_token(path: Path, token: bytes) -> None:
    """Write a token into a file that only the owner may read."""
    partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}.partial")
    fd = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(token + b"\n")
    partial.replace(path)


def new_nonce() -> bytes:
    """Return a nonce."""
    return secrets.token_bytes(NONCE_BYTES)


def hello(nonce: bytes) -> bytes:
    """Return the first frame of either side."""
    return MAGIC + nonce


def nonce_of(frame: bytes) -> bytes:
    """Return the nonce in the first frame of the other side.

    Raises:
        LinkBroken: it speaks something else, or another version of this.
    """
    if len(frame) != HELLO_BYTES or not frame.startswith(MAGIC):
        raise LinkBroken("the other side speaks something else, or another version of Runstone")
    return frame[len(MAGIC) :]


class Secrets:
    """What both sides of one session know.

    Args:
        token: Of the sweep.
        worker, coordinator: Their nonces.
    """

    def __init__(self, token: bytes, worker: bytes, coordinator: bytes) -> None:
        def derive(purpose: bytes) -> bytes:
            return hmac.digest(token, MAGIC + b"\0" + purpose + b"\0" + worker + coordinator, "sha256")

        self.worker_proof = derive(b"the worker has the token")
        self.coordinator_proof = derive(b"the coordinator has the token")
        self.to_coordinator = derive(b"messages to the coordinator")
        self.to_worker = derive(b"messages to the worker")


def is_proof(expected: bytes, given: bytes) -> bool:
    """Tell whether a proof is right, in a time that does not depend on where it is wrong."""
    return hmac.compare_digest(expected, given)


class Sealer:
    """Numbers and signs the messages of one direction."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._count = 0

    def seal(self, body: bytes) -> bytes:
        """Return the frame of a message."""
        head = _HEAD.pack(self._count)
        self._count += 1
        return hmac.digest(self._key, head + body, "sha256") + body


class Opener:
    """Checks the messages of one direction."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._count = 0

    def open(self, frame: bytes) -> bytes:
        """Return the body of the next message.

        Raises:
            LinkBroken: it is not the one that the other side sent as its next.
        """
        head = _HEAD.pack(self._count)
        self._count += 1
        if not hmac.compare_digest(frame[:PROOF_BYTES], hmac.digest(self._key, head + frame[PROOF_BYTES:], "sha256")):
            raise LinkBroken("a message was changed, repeated, lost or made up on its way")
        return frame[PROOF_BYTES:]
