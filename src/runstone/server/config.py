"""How a server is set up, as one value. Knows no HTTP framework."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from runstone.errors import InvalidConfig

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may ask for at most.

    Attributes:
        body_bytes: Of a request.
        parcel_bytes: Of a request that sends bytes of runs or contents (`/api/sync/`).
        upload_bytes: Of a file that is sent as the body of a request (MLflow's protocol); `upload_s` in seconds.
        body_s: Seconds until a body must be there as a whole; of such a file, until its next piece.
        head_s: Seconds until the head of a request must be there.
        answer_s: Seconds until an answer must begin.
        depth: Levels of a JSON body.
        requests: In flight at once, over all clients.
        parcels: Of these, so many that send bytes of runs or contents are read at once; the others wait their turn.
        threads: Of requests that work or wait at once; more than there are pages that all wait for one slow question.
        rate: Requests a second of one address, sustained; `burst` of them at once. Of requests that send bytes of runs
            or contents, each MiB counts as one, and each request as a fiftieth.
        wrong_tokens: Of one address in `wrong_s` seconds, before it has to wait.
    """

    body_bytes: int = 1 << 20
    parcel_bytes: int = 16 << 20
    upload_bytes: int = 1 << 40
    upload_s: float = 86_400.0
    body_s: float = 30.0
    head_s: float = 20.0
    answer_s: float = 120.0
    depth: int = 32
    requests: int = 2_048
    parcels: int = 16
    threads: int = 128
    rate: float = 200.0
    burst: int = 2_000
    wrong_tokens: int = 20
    wrong_s: float = 60.0


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """How a server is set up.

    Attributes:
        host: Address to listen on.
        port: Port; 0: a free one.
        root_path: Prefix under which a proxy shows it, such as `/runstone`.
        allowed_hosts: Further names under which it may be reached; `*.example.org` means all below.
        tls_cert, tls_key: Files of its certificate; both or none.
        trusted_proxies: Addresses, or networks such as `10.0.0.0/8`, whose `X-Forwarded-*` headers are believed.
        local_name: Who opens the page with the key that is printed; `None`: nobody can, tokens only.
        index: Address of a PostgreSQL database for the index and the accounts; `None`: files in the workspace.
        mlflow: Whether clients of MLflow are answered.
        limits: What one client may ask for.
        static: Folder of the page.

    Raises:
        InvalidConfig: something in it cannot be.
    """

    host: str = "127.0.0.1"
    port: int = 0
    root_path: str = ""
    allowed_hosts: tuple[str, ...] = ()
    tls_cert: Path | None = None
    tls_key: Path | None = None
    trusted_proxies: tuple[str, ...] = ()
    local_name: str | None = "local"
    index: str | None = None
    mlflow: bool = True
    limits: Limits = Limits()
    static: Path = Path(__file__).parent / "static"

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InvalidConfig("TLS needs both a certificate and its key: give --tls-cert and --tls-key")
        for path in (self.tls_cert, self.tls_key):
            if path is not None and not path.is_file():
                raise InvalidConfig(f"{path} is not there; --tls-cert and --tls-key name PEM files")
        if self.root_path and (not self.root_path.startswith("/") or self.root_path.endswith("/")):
            raise InvalidConfig(f"--root-path is {self.root_path!r}; it begins with a slash and ends without one")
        for name in self.allowed_hosts:
            if not name.strip("*. ") or any(sign in name for sign in "/: ") or "*" in name.removeprefix("*."):
                raise InvalidConfig(f"--allowed-hosts: {name!r} is no host name; give names such as runs.example.org")
        for address in self.trusted_proxies:
            if _network(address) is None:
                raise InvalidConfig(
                    f"--trusted-proxy: {address!r:.80} is no address; give one such as 127.0.0.1, or a network such as "
                    "10.0.0.0/8"
                )
        if not 0 <= self.port < 1 << 16:
            raise InvalidConfig(f"--port is {self.port}; ports go from 0 (a free one) to 65535")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)

    @property
    def scheme(self) -> str:
        """`http` or `https`."""
        return "https" if self.tls_cert is not None else "http"

    def is_trusted_proxy(self, address: str) -> bool:
        """Return whether what a client at this address says of others is believed."""
        if not self.trusted_proxies:
            return False
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(network is not None and found in network for network in map(_network, self.trusted_proxies))

    def is_known_host(self, name: str) -> bool:
        """Return whether a request may be for this host, told without its port.

        Names that an attacker could point at this machine are refused (DNS rebinding); addresses cannot be pointed
        anywhere, so beyond loopback all of them are known.
        """
        name = name.lower()
        if name in LOOPBACK_NAMES or name == self.host.lower():
            return True
        if not self.is_loopback and (_is_address(name) or name in _own_names()):
            return True
        return any(
            name.endswith(known[1:]) if known.startswith("*.") else name == known
            for known in map(str.lower, self.allowed_hosts)
        )


def is_loopback(host: str) -> bool:
    """Return whether an address to listen on can be reached from this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@cache
def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _own_names() -> tuple[str, ...]:
    return (socket.gethostname().lower(),)
