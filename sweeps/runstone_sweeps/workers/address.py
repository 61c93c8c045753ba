"""Where a coordinator listens and what a worker connects to: addresses as text, and TLS."""

from __future__ import annotations

import re
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from runstone import InvalidConfig

DEFAULT_PORT = 7788
_ADDRESS = re.compile(r"(?:(?P<scheme>tcp|tls)://)?(?P<host>\[[0-9a-fA-F:.]+\]|[^:/\[\]]+)(?::(?P<port>[0-9]{1,5}))?/?")


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port.

    Attributes:
        host: Name or number.
        port: 0: any that is free.
        is_tls: Whether the connection is encrypted.
    """

    host: str
    port: int
    is_tls: bool = False

    @property
    def is_loopback(self) -> bool:
        """Whether only this host can reach it."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")

    def __str__(self) -> str:
        """Return it as `sweep worker` takes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'tls' if self.is_tls else 'tcp'}://{host}:{self.port}"


def parse_address(text: str, *, what: str, port: int = DEFAULT_PORT) -> Address:
    """Return what a text such as `tcp://host:7788`, `tls://host:7788`, `host` or `[::1]:7788` names.

    Raises:
        InvalidConfig: it names nothing; `what` is named.
    """
    match = _ADDRESS.fullmatch(text.strip())
    found = int(match["port"]) if match and match["port"] else port
    if match is None or found > 65535:
        raise InvalidConfig(f"{what}: {text!r:.80} is no address; write it as tcp://HOST:{DEFAULT_PORT}")
    return Address(match["host"].strip("[]"), found, match["scheme"] == "tls")


def listen(address: Address) -> socket.socket:
    """Return a socket that listens.

    Raises:
        OSError: the address is not one of this host, or taken.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A port of a coordinator that was killed is free again at once.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.host, address.port))
        listener.listen(64)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def server_tls(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return what a coordinator encrypts with.

    Raises:
        InvalidConfig: the files do not fit together, or cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise InvalidConfig(f"executor.tls_cert, tls_key: {certificate}, {key}: {error}") from None
    return context


def client_tls(authority: Path | None) -> ssl.SSLContext:
    """Return what a worker checks its coordinator with.

    Args:
        authority: Certificate that signed the coordinator's, or that one itself; `None`: those that the system trusts.

    Raises:
        InvalidConfig: the file cannot be read.
    """
    try:
        return ssl.create_default_context(cafile=str(authority) if authority is not None else None)
    except (OSError, ssl.SSLError) as error:
        raise InvalidConfig(f"--ca: {authority}: {error}") from None
