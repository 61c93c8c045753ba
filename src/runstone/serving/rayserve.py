"""The same application on Ray Serve: replicas that Ray starts, restarts and asks in turn. The only one that knows Ray.

Each replica has a service of its own: it follows the alias, writes parts of its own into the prediction log, and counts
in its row of a shared file. Ray's proxy takes the requests and hands them on; the gate stands in each replica.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from runstone import settings
from runstone.errors import InvalidConfig, RunstoneError
from runstone.server.logs import Log
from runstone.server.serving import bound_socket
from runstone.serving.app import create_app
from runstone.serving.config import ServingConfig
from runstone.serving.counts import Counts
from runstone.serving.passing import as_json, config_of, place_of
from runstone.serving.places import Place
from runstone.serving.recording import deployed, recorder
from runstone.serving.service import Service

_ONGOING = 256
"""Requests that a replica takes at once; those that wait for the model together are answered together."""
_GRACE_S = 20.0
_LOGGING = {"log_level": "WARNING", "enable_access_log": False}
_USAGE = "RAY_USAGE_STATS_ENABLED"


def serve(
    place: Place,
    config: ServingConfig,
    *,
    announce: Callable[[str], None],
    log: Log | None = None,
    address: str | None = None,
) -> None:
    """Serve a model on Ray Serve until the process is asked to end (SIGINT, SIGTERM).

    Args:
        place: The model; its folder must be there under the same path wherever replicas run.
        config: How it is served; `workers` are replicas.
        announce: Told the address when requests are taken.
        log: Where lines go; default: standard error.
        address: Of a cluster that runs already, such as `auto`; default: one on this machine that ends with this
            process and is reached only from here.

    Raises:
        InvalidConfig: Ray Serve is not installed, the port is taken, or there is no such cluster.
        RunstoneError: the model cannot be loaded.
    """
    ray, ray_serve = _ray()
    log = log or Log()
    served = place.source(config.bounds.rows).load()  # told here, in words, before anything is started
    _free_port(config)  # told now, and not when Ray has started
    name = f"runstone-{served.name}"
    with tempfile.TemporaryDirectory(prefix="runstone-serving-") as folder, contextlib.ExitStack() as ends:
        counts = Path(folder) / "counts"
        Counts.prepare(counts, config.workers)
        ends.callback(ray.shutdown)
        _start(ray, address, config.workers)
        ending = ends.enter_context(_asked_to_end())  # now: Ray has put handlers of its own in their place
        ends.callback(_end, ray_serve, name, is_own=address is None)
        port = _free_port(config)
        config = dataclasses.replace(config, port=port)
        url = f"http://{f'[{config.host}]' if ':' in config.host else config.host}:{port}"
        http = {"host": config.host, "port": port, "request_timeout_s": _request_s(config)}
        told = {"place": as_json(place), "config": as_json(config), "counts": str(counts), "url": url}
        try:
            ray_serve.start(http_options=http, logging_config=_LOGGING)
            ray_serve.run(_application(ray_serve, config, told), name=name, route_prefix="/")
        except RuntimeError as error:
            # what Ray raises of its processes ends with their own words; before these stand its traces
            said = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            raise RunstoneError(f"Ray Serve could not start it: {said[-1]:.300}") from None
        with deployed(place, config, url, served.version, log):
            announce(url)
            ending.wait()
        log("ending", model=str(served))


def _ray() -> tuple[Any, Any]:
    try:
        import ray  # an extra, and slow to import
        from ray import serve as ray_serve
    except ImportError as error:
        raise InvalidConfig(
            f'serving on Ray takes {error.name or "Ray Serve"}: pip install "runstone[ray-serve]"'
        ) from None
    return ray, ray_serve


def _free_port(config: ServingConfig) -> int:
    """Return the port, which is free now.

    Of port 0 it is any one: Ray takes it seconds later, and by then another server may have the next usual one.
    """
    if not config.port:
        family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as any_one:
            any_one.bind((config.host, 0))
            return int(any_one.getsockname()[1])
    with contextlib.closing(bound_socket(config.network())) as listening:
        return int(listening.getsockname()[1])


def _request_s(config: ServingConfig) -> float:
    return config.bounds.body_s + config.bounds.predict_s + 10.0


def _start(ray: Any, address: str | None, replicas: int) -> None:
    options: dict[str, Any] = {"log_to_driver": True, "logging_level": "warning"}
    if address is not None:
        try:
            ray.init(address=address, **options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InvalidConfig(f"there is no Ray cluster at {address!r:.100}: {error!s:.300}") from None
        return
    settings.tell_children(_USAGE, "0")  # Ray has no argument for it, and would report that it is used
    # Ray asks nobody who they are: its own ports stay on this machine.
    ray.init(num_cpus=replicas + 1, include_dashboard=False, _node_ip_address="127.0.0.1", **options)


def _application(ray_serve: Any, config: ServingConfig, told: dict[str, Any]) -> Any:
    text = json.dumps(told)

    def build() -> Any:
        from runstone.serving.rayserve import replica  # in the replica, by name: nothing of this process goes along

        return replica(text)

    deployment = ray_serve.deployment(
        name="model",
        num_replicas=config.workers,
        max_ongoing_requests=_ONGOING,
        max_queued_requests=config.bounds.waiting,
        graceful_shutdown_timeout_s=_GRACE_S,
        graceful_shutdown_wait_loop_s=0.2,
        health_check_period_s=5.0,
        ray_actor_options={"num_cpus": 1},
        logging_config=_LOGGING,
    )
    return deployment(ray_serve.ingress(build)()).bind()


def replica(told: str) -> Any:
    """Return the application of one replica: called by Ray, in a process of its own.

    Args:
        told: What `serve` has to say to it, as JSON.
    """
    from ray import serve as ray_serve

    said = json.loads(told)
    place, config = place_of(said["place"]), config_of(said["config"])
    rank = ray_serve.get_replica_context().rank
    worker = int(getattr(rank, "rank", rank))
    counts = Path(said["counts"])
    is_here = counts.exists() and worker < config.workers  # on another machine it counts for itself
    service = Service(
        place.source(config.bounds.rows),
        config,
        worker=worker,
        counts=Counts(counts, worker, config.workers) if is_here else Counts(),
        on_change=recorder(place, config, said["url"]) if worker == 0 else None,
    )
    return create_app(service)


def _end(ray_serve: Any, name: str, *, is_own: bool) -> None:
    """Let requests that are begun be answered, and end the replicas; in a cluster of others only those."""
    with contextlib.suppress(Exception):  # it was not started, or the cluster is gone
        ray_serve.delete(name)  # before the proxy ends, which would let go of connections with an answer to come
    with contextlib.suppress(Exception):
        if is_own:
            ray_serve.shutdown()


@contextlib.contextmanager
def _asked_to_end() -> Iterator[threading.Event]:
    ending = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        ending.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    yield ending  # they stay: nobody else is asked while it ends, and the process is over then
