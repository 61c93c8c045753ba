"""How a model is served, as one value."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from runstone.errors import InvalidConfig
from runstone.server.config import ServerConfig, is_loopback

DEFAULT_PORT = 8_060


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one request, and all of them together, may ask for at most.

    Attributes:
        body_bytes: Of a request.
        rows: Of a request.
        body_s: Seconds until a body must be there.
        predict_s: Seconds until the model must have answered.
        waiting: Requests that wait for the model at once; more are told to come back.
        batch_rows: Rows of several requests that the model gets together; 1: each request alone.
    """

    body_bytes: int = 8 << 20
    rows: int = 10_000
    body_s: float = 30.0
    predict_s: float = 30.0
    waiting: int = 2_048
    batch_rows: int = 1_024


@dataclass(frozen=True, slots=True)
class LogConfig:
    """What is kept of predictions.

    Attributes:
        folder: Where the parts lie; `None`: nothing is kept.
        sample: Share of requests that are kept, from 0 to 1.
        rows: Rows after which a part is closed.
        part_s: Seconds after which a part is closed.
        most_bytes: Of all parts together; the oldest are removed.
        waiting: Requests that wait to be written; more are counted and left out.
    """

    folder: Path | None = None
    sample: float = 0.1
    rows: int = 1_000
    part_s: float = 60.0
    most_bytes: int = 1 << 30
    waiting: int = 1_000

    def __post_init__(self) -> None:
        if not 0 <= self.sample <= 1:
            raise InvalidConfig(f"--log-sample is {self.sample}; it is a share, from 0 to 1")


@dataclass(frozen=True, slots=True)
class ServingConfig:
    """How a model is served.

    Attributes:
        host: Address to listen on.
        port: Port; 0: a free one.
        token: What clients show as `Authorization: Bearer …`; `None`: nobody is asked, only on loopback.
        allowed_hosts: Further names under which it may be reached.
        workers: Processes.
        reload_s: Seconds between two looks at where the reference points; 0: it is looked at once.
        deployment: Name of the place, under which start and end are entered into the model's history.
        bounds: What may be asked for.
        log: What is kept of predictions.

    Raises:
        InvalidConfig: something in it cannot be.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    token: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    workers: int = 1
    reload_s: float = 2.0
    deployment: str | None = None
    bounds: Bounds = field(default_factory=Bounds)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        if self.token is not None and (len(self.token) < 8 or not self.token.isascii() or not self.token.isprintable()):
            raise InvalidConfig("the token is too short, or has characters that a header cannot hold; give 8 or more")
        if self.token is None and not is_loopback(self.host):
            raise InvalidConfig(
                f"others could reach {self.host}, and nobody has to show who they are; give --token, or "
                "RUNSTONE_SERVING_TOKEN in the environment"
            )
        if self.workers < 1:
            raise InvalidConfig(f"--workers is {self.workers}; at least one process serves")

    def network(self) -> ServerConfig:
        """Return what is said of the network, as the server of the page takes it."""
        return ServerConfig(host=self.host, port=self.port, allowed_hosts=self.allowed_hosts)
