"""Where a server is, and the token for it. Knows URLs and one file; talks to nobody."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from runstone import settings
from runstone.errors import InvalidConfig

TOKENS = "tokens"


@dataclass(frozen=True, slots=True)
class Address:
    """A workspace on a server.

    Attributes:
        scheme: `https`, or `http` on this machine.
        host, port: Of the server.
        path: Under which a proxy shows it; empty, or with a slash at its begin and none at its end.
    """

    scheme: str
    host: str
    port: int
    path: str = ""

    @classmethod
    def parse(cls, url: str) -> Address:
        """Return the address that a URL means.

        Raises:
            InvalidConfig: it is none; it holds credentials; or a token would go over the network for all to read.
        """
        try:
            parts = urlsplit(url.strip())
            port = parts.port
        except ValueError as error:
            raise InvalidConfig(f"{url!r:.200} is no URL of a server: {error}") from None
        scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
        if scheme not in ("http", "https") or not host:
            raise InvalidConfig(f"{url!r:.200} is no URL of a server, such as https://runs.example.org")
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise InvalidConfig("the URL of a server is host, port and path alone; give the token by `runstone login`")
        if scheme == "http" and not _is_loopback(host):
            raise InvalidConfig(
                f"http://{host} would show the token and all data to the network; use https, or reach the server "
                "through a tunnel to this machine (ssh -L)"
            )
        path = re.sub("/+", "/", parts.path).rstrip("/")
        return cls(scheme, host, port or {"http": 80, "https": 443}[scheme], path)

    def __str__(self) -> str:
        """Return the URL, always the same for one server."""
        usual = {"http": 80, "https": 443}[self.scheme]
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}{'' if self.port == usual else f':{self.port}'}{self.path}/"

    @property
    def folder(self) -> str:
        """The name of the folder for what goes there from this host: hosts that share a home folder have their own."""
        plain = re.sub(r"[^a-z0-9.-]+", "_", f"{self.host}_{self.port}")[:60]
        told = f"{self}\0{os.uname().nodename}".encode("utf-8", "surrogateescape")
        return f"{plain}~{hashlib.blake2b(told, digest_size=6).hexdigest()}"


def token_for(address: Address) -> str | None:
    """Return the token for a server: `RUNSTONE_TOKEN`, else what `runstone login` kept; `None` where there is none.

    Raises:
        InvalidConfig: others can read the file that it is kept in.
    """
    given = settings.read("RUNSTONE_TOKEN")
    if given is not None:
        return given.strip()
    return _kept().get(str(address))


def keep_token(address: Address, token: str | None) -> Path:
    """Keep the token for a server, or forget it; return the file, which only this user may read.

    Raises:
        InvalidConfig: there is no place for it, or others can read it.
        OSError: it cannot be written.
    """
    file = _file()
    if file is None:
        raise InvalidConfig("there is no home folder to keep tokens in; set RUNSTONE_TOKEN instead")
    kept = _kept()
    kept.pop(str(address), None)
    if token is not None:
        kept[str(address)] = token
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = file.with_name(f"{file.name}.{os.urandom(8).hex()}.partial")
    try:
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as made:
            made.writelines(f"{url} {one}\n" for url, one in sorted(kept.items()))
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return file


def _kept() -> dict[str, str]:
    file = _file()
    if file is None:
        return {}
    try:
        with file.open() as opened:
            mode = os.fstat(opened.fileno()).st_mode
            lines = opened.read().splitlines()
    except FileNotFoundError:
        return {}
    if mode & 0o077:
        raise InvalidConfig(f"{file} holds tokens, and others can read it: chmod 600 {file}")
    pairs = (line.split() for line in lines if not line.startswith("#"))
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def _file() -> Path | None:
    folder = settings.config_folder()
    return folder / TOKENS if folder is not None else None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
